"""Intervals that say what the marks say: 0 lies outside exactly where a difference is significant.

The 95 % intervals of the tables are of one test each. Where a correction tests at a smaller level,
such an interval may leave out 0 beside a difference that is not marked; here each is as wide as the
level at which the correction tested it (`analysis.significance.levels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.contrasts import Contrast
from analysis.significance import FloatArray, paired_differences, randomisation, t_of, wilcoxon
from analysis.summary import Summary

Test = Callable[[FloatArray], FloatArray]
STEPS = 14  # of bisection: the ends are as fine as a picture can show, 1/16,000 of the way
TESTS: dict[str, Test] = {"wilcoxon": wilcoxon, "randomisation": randomisation}
NOTHING = (float("nan"), float("nan"))


def matching(summary: Summary, contrasts: Sequence[Contrast]) -> list[tuple[float, float]]:
    """Ends of the interval of each contrast, of the test that made its mark, at the level it had.

    The t-test: its t-interval, on the same error as the mark, training runs included. The others:
    all shifts of the differences that the test would not reject; with Wilcoxon's it is about their
    pseudo-median, which need not be their mean. NaN where there is none.
    """
    if summary.spec.test == "t":
        return [
            (float(low), float(high))
            for low, high, _ in (
                t_of(c.comparison.difference, c.error, c.df, 1 - c.level) for c in contrasts
            )
        ]
    ends = [NOTHING] * len(contrasts)
    by_size: dict[int, list[int]] = {}
    differences = [differences_of(summary, contrast) for contrast in contrasts]
    for i, d in enumerate(differences):
        by_size.setdefault(len(d), []).append(i)
    for places in by_size.values():
        together = np.stack([differences[i] for i in places])
        levels = np.array([contrasts[i].level for i in places])
        low, high = inverted(together, summary.spec.test, levels)
        for i, pair in zip(places, zip(low.tolist(), high.tolist(), strict=True), strict=True):
            ends[i] = pair
    return ends


def differences_of(summary: Summary, contrast: Contrast) -> FloatArray:
    """Per-query differences of a contrast on the queries that both rows have, shape [n]."""
    a = summary.scores[contrast.treatment, contrast.collection, contrast.measure]
    b = summary.scores[contrast.baseline, contrast.collection, contrast.measure]
    _, in_a, in_b = np.intersect1d(a.queries, b.queries, assume_unique=True, return_indices=True)
    return paired_differences(a.per_query[in_a], b.per_query[in_b])


def inverted(
    differences: npt.ArrayLike, test: str, level: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Ends of the shifts that a test of the differences does not reject, each of shape [m].

    Parameters
    ----------
    differences : array_like, shape [m, n]
        Paired differences.
    test : str
        One of `TESTS`.
    level : array_like, shape [m]
        Level of each.

    Returns
    -------
    low, high : ndarray, shape [m]
        By bisection between a shift that is not rejected and one that is; 0 is taken for one of the
        two where it lies between, so that the interval holds 0 if and only if p is above the level.
        NaN where no shift is rejected (too few queries), or there is no level.
    """
    d, alpha = np.asarray(differences, dtype=np.float64), np.asarray(level, dtype=np.float64)
    if not d.shape[1]:
        return np.full(len(d), np.nan), np.full(len(d), np.nan)

    def accepts(shift: FloatArray) -> npt.NDArray[np.bool_]:
        return np.asarray(TESTS[test](d - shift[:, None]) > alpha)

    centre = d.mean(axis=1) if test == "randomisation" else _pseudo_median(d)
    holds_zero = accepts(np.zeros(len(d)))
    ends = []
    for far in (d.min(axis=1), d.max(axis=1)):
        outside = far + np.sign(far - centre) * 1e-6
        bounded = ~accepts(outside) & (far != centre)
        between = (np.minimum(centre, outside) <= 0) & (np.maximum(centre, outside) >= 0)
        inside = np.where(between & holds_zero, 0.0, centre)
        outside = np.where(between & ~holds_zero, 0.0, outside)
        for _ in range(STEPS):
            middle = (inside + outside) / 2
            held = accepts(middle)
            inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
        constant = np.ptp(d, axis=1) == 0
        ends.append(np.where(bounded, inside, np.where(constant & np.isfinite(alpha), far, np.nan)))
    return ends[0], ends[1]


def _pseudo_median(d: FloatArray) -> FloatArray:
    """Hodges and Lehmann's (1963) estimate of each row of [m, n]: signed ranks around it cancel."""
    low, high = d.min(axis=1), d.max(axis=1)
    for _ in range(40):
        middle = (low + high) / 2
        around = d - middle[:, None]
        above = (np.sign(around) * stats.rankdata(np.abs(around), axis=1)).sum(axis=1) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)
