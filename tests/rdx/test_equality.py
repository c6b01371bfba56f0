from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from rdx.equality import at_most, printed, same, settled, steps
from rdx.trainer.checkpoints import Progress

TENTHS = [Fraction(i, 10) for i in range(11)]
# Every difference of two tenths, and means of three: floats in many last bits, rationals in one.
DIFFERENCES = [(a - b, float(a) - float(b)) for a, b in product(TENTHS, repeat=2)]
MEANS = [((a + b + c) / 3, (float(a) + float(b) + float(c)) / 3)
         for a, b, c in product(TENTHS, repeat=3)]  # fmt: skip


@pytest.mark.parametrize("values", [DIFFERENCES, MEANS], ids=["differences", "means"])
def test_equality_is_that_of_fractions(values):
    exact = [fraction for fraction, _ in values][:300]
    floats = np.array([number for _, number in values])[:300]
    assert len(set(floats.tolist())) > len(set(exact))  # the last bits do differ
    equal = np.array([[a == b for b in exact] for a in exact])
    below = np.array([[a <= b for b in exact] for a in exact])
    assert (same(floats[:, None], floats) == equal).all()
    assert (at_most(floats[:, None], floats) == below).all()
    level = settled(floats)
    assert ((level[:, None] == level) == equal).all()
    assert ((level[:, None] <= level) == below).all()
    assert np.abs(level - floats).max() < 1e-15
    ordered = np.sort(floats)
    assert steps(ordered).sum() == len(set(exact)) - 1


def test_equality_at_the_ends():
    assert same(np.inf, np.inf) and not same(np.inf, -np.inf) and not same(np.nan, np.nan)
    assert not at_most(np.nan, 1.0) and at_most(-np.inf, 0.0)
    assert not same(1.0, 1.0 + 1e-8) and same(1e6, 1e6 + 1e-4) and not same(1e-9, 2e-9)
    assert settled([]).shape == (0,) and settled([[3.0, 1.0]]).tolist() == [[3.0, 1.0]]


def test_no_number_falls_between_two_points_of_a_grid():
    # these are one number up to rounding, and rounding to 10 or 12 decimals would part some
    for centre in (0.00000000005, 0.1234567890125, 1 / 2**11, 1 / 3):
        near = np.nextafter(centre, [0.0, 1.0])
        assert len(set(settled([centre, *near]).tolist())) == 1


def test_printed_is_the_decimal():
    for thousandths in range(0, 10000, 5):
        exact = Fraction(thousandths, 10000)
        value = float(exact)
        for other in (value, np.nextafter(value, 0.0), np.nextafter(value, 1.0)):
            assert printed(float(other)) == value
    assert str(printed(-1e-17)) == "0.0" and printed(float("inf")) == float("inf")


def test_the_first_of_equal_validations_is_the_best():
    summed = [0.1 + 0.2, 0.3, 0.15 + 0.15]
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        progress = Progress(8, validations=[[i, summed[k]] for i, k in enumerate(order)])
        assert (progress.best, progress.waited) == (0, 2)
    assert Progress(8, validations=[[1, 0.2], [2, 0.300001], [3, 0.3]]).best == 1
