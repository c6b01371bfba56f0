import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.significance import holm, paired_differences, paired_t


def test_paired_t_by_hand():
    # differences 1, 2, 3, 4: mean 2.5, sd sqrt(5/3), se = sd/2, t = 2.5/se = 3.8730
    got = paired_t([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    sd = math.sqrt(5 / 3)
    t = 2.5 / (sd / 2)
    critical = 3.182446305284263  # t(.975, 3 df), from a printed table
    assert got.n == 4
    assert got.difference == pytest.approx(2.5)
    assert got.d_z == pytest.approx(2.5 / sd)
    assert got.p == pytest.approx(2 * stats.t.sf(t, 3))
    assert got.low == pytest.approx(2.5 - critical * sd / 2)
    assert got.high == pytest.approx(2.5 + critical * sd / 2)


def test_paired_t_equals_scipy_and_is_antisymmetric():
    generator = np.random.default_rng(0)
    a, b = generator.random(300), generator.random(300)
    reference = stats.ttest_rel(a, b)
    got, reverse = paired_t(a, b), paired_t(b, a)
    assert got.p == pytest.approx(reference.pvalue, rel=1e-12)
    interval = reference.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert reverse.difference == pytest.approx(-got.difference)
    assert (reverse.low, reverse.high) == pytest.approx((-got.high, -got.low))
    assert (reverse.p, reverse.d_z) == pytest.approx((got.p, -got.d_z))
    wide = paired_t(a, b, confidence=0.99)
    assert wide.high - wide.low > got.high - got.low


def test_interval_and_p_agree_at_the_edge_of_significance():
    generator = np.random.default_rng(1)
    for _ in range(200):
        got = paired_t(generator.normal(0.2, 1.0, 40), np.zeros(40))
        assert (got.p < 0.05) == (not got.low <= 0.0 <= got.high)


def test_degenerate_inputs():
    same = paired_t([0.3, 0.4], [0.3, 0.4])
    assert (same.difference, same.low, same.high, same.p, same.d_z) == (0, 0, 0, 1, 0)
    shifted = paired_t([0.2, 0.3, 0.4], [0.1, 0.2, 0.3])
    assert (shifted.p, shifted.d_z) == (0.0, math.inf)
    assert shifted.low == shifted.high == pytest.approx(0.1)
    assert paired_t([0.1, 0.2], [0.2, 0.3]).d_z == -math.inf
    one = paired_t([0.5], [0.4])
    assert (one.n, one.difference) == (1, pytest.approx(0.1))
    assert all(math.isnan(x) for x in (one.low, one.high, one.p, one.d_z))
    none = paired_t([], [])
    assert none.n == 0 and math.isnan(none.difference) and math.isnan(none.p)


def test_last_bits_are_no_difference():
    # The mean of three equal numbers need not be that number: 0.1 + 0.1 + 0.1 != 0.3.
    values = np.random.default_rng(2).random(50)
    means = (values + values + values) / 3
    assert (means != values).any()
    assert paired_t(means, values).p == 1.0
    assert not paired_differences(means, values).any()


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, 2.0], [1.0]), ([[1.0]], [[1.0]]), ([1.0, math.nan], [1.0, 2.0]), ([math.inf], [1.0])],
)
def test_bad_pairs_are_errors(a, b):
    with pytest.raises(ValueError):
        paired_t(a, b)


def test_holm_by_hand():
    # sorted .005 .01 .03 .04, times 4 3 2 1 = .02 .03 .06 .04, running maximum .02 .03 .06 .06
    adjusted, reject = holm([0.01, 0.04, 0.03, 0.005], alpha=0.05)
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert reject.tolist() == [True, False, False, True]


def test_holm_leaves_missing_tests_out_of_the_family():
    p = [0.02, math.nan, 0.03, math.nan]
    adjusted, reject = holm(p)
    assert adjusted[[0, 2]] == pytest.approx(multipletests([0.02, 0.03], method="holm")[1])
    assert np.isnan(adjusted[[1, 3]]).all()
    assert reject.tolist() == [True, False, True, False]
    assert np.isnan(holm([math.nan])[0]).all()
    assert holm([])[0].shape == (0,)


def test_holm_properties():
    generator = np.random.default_rng(3)
    for _ in range(10):
        p = generator.random(12) ** 3
        adjusted, reject = holm(p, alpha=0.1)
        order = np.argsort(p)
        assert (adjusted >= p).all() and (adjusted <= 1).all()
        assert (np.diff(adjusted[order]) >= 0).all()
        assert (reject == (adjusted <= 0.1)).all()
        assert (adjusted <= np.minimum(1, p * 12) + 1e-15).all()  # never beyond Bonferroni


@pytest.mark.parametrize("p", [[1.5], [-0.1], [[0.1]]])
def test_holm_rejects_what_is_no_p_value(p):
    with pytest.raises(ValueError):
        holm(p)
