"""When two derived numbers are the same number.

Measures, their differences and their means are rationals or sums of logarithms, and floats differ
from them in the last bits: .3 - .2 is not .2 - .1. Whatever sorts, ranks, counts or compares such
numbers asks here, so that a verdict never rests on those bits. The tolerance is stated here and
nowhere else: far above rounding (some 1e-16), far below what differs (two means over 100,000
queries of measures with a cutoff of 1,000 differ by 1e-8 or more).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

SAME_REL = 1e-9
SAME_ABS = 1e-12
DECIMALS = 12  # what is printed is rounded to these first

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def slack(a: npt.ArrayLike, b: npt.ArrayLike = 0.0) -> FloatArray:
    """By how much two numbers that are the same may differ: the larger one sets the scale."""
    return np.asarray(SAME_ABS + SAME_REL * np.maximum(np.abs(a), np.abs(b)), dtype=np.float64)


def same(a: npt.ArrayLike, b: npt.ArrayLike) -> BoolArray:
    """Whether numbers are the same up to rounding, element by element; shapes broadcast.

    Examples
    --------
    >>> bool(same(0.3 - 0.2, 0.2 - 0.1)), bool(same(0.1, 0.100001))
    (True, False)
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinities of one sign are the same
        return np.asarray((x == y) | (np.isfinite(x - y) & (np.abs(x - y) <= slack(x, y))))


def at_most(a: npt.ArrayLike, b: npt.ArrayLike) -> BoolArray:
    """Whether a <= b, also where rounding alone puts `a` above `b`; False for NaN."""
    return np.asarray(np.less_equal(a, b) | same(a, b))


def steps(ordered: npt.ArrayLike) -> BoolArray:
    """Where an ascending array goes on to another number, shape [..., n - 1] of [..., n]."""
    values = np.asarray(ordered, dtype=np.float64)
    below, above = values[..., :-1], values[..., 1:]
    return np.asarray(above - below > slack(below, above))


def settled(values: npt.ArrayLike) -> FloatArray:
    """The values with those made equal that are the same number, along the last axis.

    What follows may then compare, sort and count as if numbers were exact. Of each such group the
    lowest stands for all. No value is rounded to a grid, so none falls between two of its points.

    Parameters
    ----------
    values : array_like, shape [..., n]
        Without NaN.

    Examples
    --------
    >>> settled([0.2 - 0.1, 0.5, 0.3 - 0.2]).tolist()
    [0.09999999999999998, 0.5, 0.09999999999999998]
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.shape[-1]:
        return array.copy()
    order = np.argsort(array, axis=-1, kind="stable")
    ordered = np.take_along_axis(array, order, axis=-1)
    starts = np.ones(array.shape, dtype=bool)
    starts[..., 1:] = steps(ordered)
    first = np.maximum.accumulate(np.where(starts, np.arange(array.shape[-1]), 0), axis=-1)
    result = np.empty_like(array)
    np.put_along_axis(result, order, np.take_along_axis(ordered, first, axis=-1), axis=-1)
    return result


def printed(value: float) -> float:
    """The number that is printed: a decimal that floats miss by their last bits is that decimal.

    Else .7125 would print as .712 or .713, by the order in which it was summed.
    """
    return round(value, DECIMALS) + 0.0 if math.isfinite(value) else value  # and no -0
