"""Wilcoxon's signed-rank test."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.significance.differences import FloatArray, rows
from rdx.equality import same, steps

EXACT = 50  # up to so many differences that are not zero, the distribution is counted out


def wilcoxon(differences: npt.ArrayLike) -> FloatArray:
    """Two-sided p values of Wilcoxon's signed-rank test.

    Null hypothesis: the differences are symmetric around zero. That is not "the means are equal":
    of many small losses and a few large wins it sees the losses.

    Parameters
    ----------
    differences : array_like, shape [n] or [m, n]
        See `paired_differences`.

    Returns
    -------
    ndarray, shape [] or [m]
        NaN for n = 0; 1 if all differences are zero.

    Notes
    -----
    Zero differences are dropped, tied ones share their mean rank (Wilcoxon 1945, *Individual
    comparisons by ranking methods*); differences of one size up to rounding are tied
    (`rdx.equality`), as .3 - .2 and .2 - .1 are. Up to 50 differences other than zero p is exact,
    given the ties; above, it is the normal approximation with the variance of the tied ranks and
    without continuity correction, as in `scipy.stats.wilcoxon`.

    Examples
    --------
    >>> float(wilcoxon([1.0, 2.0, 3.0]))  # 2 of 8 assignments of signs are as extreme
    0.25
    """
    d, shape = rows(differences)
    if d.shape[1] == 0:
        return np.full(shape, np.nan)
    d = np.where(same(d, 0.0), 0.0, d)
    zeros = (d == 0).sum(axis=1, keepdims=True)
    ranks, won = _ranks(d, zeros)
    total = ranks.sum(axis=1)
    positive = np.where(won, ranks, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        z = (positive - total / 2) / np.sqrt((ranks**2).sum(axis=1) / 4)
    p = np.where(total == 0, 1.0, 2 * special.ndtr(-np.abs(z)))
    for i in np.flatnonzero((d.shape[1] - zeros[:, 0] <= EXACT) & (total > 0)):
        doubled = np.sort(np.rint(2 * ranks[i][ranks[i] > 0])).astype(int)
        p[i] = _tail(tuple(doubled.tolist()))[round(2 * min(positive[i], total[i] - positive[i]))]
    return p.reshape(shape)


def _ranks(d: FloatArray, zeros: npt.NDArray[np.int_]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Ranks of the absolute differences, ascending, 0 for zeros; and which were positive.

    Sorted are integers: a positive float's bits, as an integer, are in the order of the floats, and
    the last bit (far below what `rdx.equality` tells apart) carries the sign.
    `scipy.stats.rankdata` takes three times as long.
    """
    m, n = d.shape
    keys = np.ascontiguousarray(np.abs(d)).view(np.int64) & ~1 | (d > 0)
    keys.sort(axis=1)
    size = keys >> 1
    first = np.ones((m, n), dtype=bool)
    first[:, 1:] = steps((size << 1).view(np.float64))
    last = np.ones((m, n), dtype=bool)
    last[:, :-1] = first[:, 1:]
    place = np.arange(n, dtype=np.int32)
    start = np.maximum.accumulate(np.where(first, place, 0), axis=1)
    end = np.minimum.accumulate(np.where(last, place, n)[:, ::-1], axis=1)[:, ::-1]
    # Zeros have the lowest ranks; taking their number off ranks the others among themselves.
    ranks = np.where(size == 0, 0.0, (start + end) / 2 + 1 - zeros)
    return ranks, (keys & 1).astype(bool)


@lru_cache(maxsize=256)
def _tail(doubled_ranks: tuple[int, ...]) -> FloatArray:
    """Two-sided p of every value of twice the smaller rank sum; ranks doubled, so integers."""
    ways = np.zeros(sum(doubled_ranks) + 1)
    ways[0] = 1.0
    reached = 0
    for rank in doubled_ranks:  # the rank is in the sum, or it is not
        ways[rank : reached + rank + 1] += ways[: reached + 1].copy()
        reached += rank
    return np.minimum(1.0, 2 * np.cumsum(ways) / 2.0 ** len(doubled_ranks))
