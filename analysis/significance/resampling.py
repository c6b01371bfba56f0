"""Tests and intervals by resampling, many comparisons at a time.

All comparisons of one call see the same random signs (or samples of queries), so that one matrix
product serves them all. Each p value and interval by itself is what it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.significance.differences import FloatArray, constant, rows
from rdx.equality import SAME_ABS, SAME_REL

RANDOMISATIONS = 10_000
RESAMPLES = 10_000
SEED = 0
BLOCK = 1 << 22  # numbers held at a time: 32 MB
MOST_ROWS = 1000  # of the comparisons whose bootstrap means are held at a time


def randomisation(
    differences: npt.ArrayLike, randomisations: int = RANDOMISATIONS, seed: int = SEED
) -> FloatArray:
    """Two-sided p values of Fisher's randomisation test on the mean difference.

    Null hypothesis: the labels of the two systems are exchangeable on each query, so that every
    difference could as well have the other sign. Nothing is assumed of their distribution.

    Parameters
    ----------
    differences : array_like, shape [n] or [m, n]
        See `paired_differences`.
    randomisations : int
        Number of random assignments of signs. With as many or fewer possible ones, 2**n, all of
        them are counted instead, and p is exact.
    seed : int
        Of the signs.

    Returns
    -------
    ndarray, shape [] or [m]
        (b + 1) / (`randomisations` + 1), with b the number of assignments whose mean difference is
        at least as large as the observed one, in absolute value; so p is never 0. NaN for n = 0;
        1 if all differences are zero.

    Notes
    -----
    Fisher (1935), *The design of experiments*, §21; for retrieval systems Smucker, Allan and
    Carterette (CIKM 2007). The added 1: Phipson and Smyth (2010), *Permutation p-values should
    never be zero*.

    Examples
    --------
    >>> float(randomisation([1.0, 2.0, 3.0]))  # +++ and --- of 8
    0.25
    """
    d, shape = rows(differences)
    m, n = d.shape
    if n == 0:
        return np.full(shape, np.nan)
    total = d.sum(axis=1)
    least = np.abs(total) - tolerance(d)
    count = np.zeros(m)
    for flips in sign_flips(n, randomisations, seed, m):
        count += (np.abs(2 * (flips @ d.T) - total) >= least).sum(axis=0)
    return p_value(count, n, randomisations).reshape(shape)


def sign_flips(n: int, randomisations: int, seed: int, comparisons: int) -> Iterator[FloatArray]:
    """Blocks [b, n] of 0 (sign turned) and 1 (kept): all 2**n of them if those are few enough.

    The blocks are small enough for [b, `comparisons`] too; all together they are the same signs.
    """
    widest = max(n, comparisons)
    if randomisations < 1:
        raise ValueError(f"randomisations must be at least 1, not {randomisations}")
    if exact(n, randomisations):
        start = 0
        for size in _blocks(2**n, widest):
            numbers = np.arange(start, start + size)[:, None]
            yield (numbers >> np.arange(n) & 1).astype(np.float64)
            start += size
        return
    generator = np.random.default_rng(seed)
    width = -(-n // 8)
    for size in _blocks(randomisations, widest):
        packed = np.frombuffer(generator.bytes(size * width), np.uint8).reshape(size, width)
        yield np.unpackbits(packed, axis=1, count=n).astype(np.float64)


def exact(n: int, randomisations: int) -> bool:
    """Whether all assignments of signs are counted."""
    return n < 60 and 2**n <= randomisations


def p_value(count: FloatArray, n: int, randomisations: int) -> FloatArray:
    """P values from the number of assignments at least as extreme as the observed one."""
    if exact(n, randomisations):
        p: FloatArray = count / 2**n
        return p
    return (count + 1) / (randomisations + 1)


def tolerance(d: FloatArray) -> FloatArray:
    """By how much two sums of the same differences may differ from rounding, shape [m]."""
    return np.asarray(SAME_REL * np.abs(d).sum(axis=1) + SAME_ABS * d.shape[1])


def bca_interval(
    differences: npt.ArrayLike,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[FloatArray, FloatArray]:
    """Bootstrap intervals (BCa) of the mean differences.

    Bias-corrected and accelerated percentiles of the means of resampled queries; unlike the
    t-interval it need not be symmetric around the mean.

    Parameters
    ----------
    differences : array_like, shape [n] or [m, n]
        See `paired_differences`.
    confidence : float
        Coverage.
    resamples : int
        Number of samples of n queries, drawn with replacement.
    seed : int
        Of the samples.

    Returns
    -------
    low, high : ndarray, shape [] or [m]
        NaN for n < 2; without width if all differences are equal.

    Notes
    -----
    Efron (1987), *Better bootstrap confidence intervals*, JASA 82. The same numbers as
    `scipy.stats.bootstrap(..., method="BCa")` with the same seed.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    d, shape = rows(differences)
    m, n = d.shape
    if n < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    if m > MOST_ROWS:
        parts = np.split(d, range(MOST_ROWS, m, MOST_ROWS))
        ends = [bca_interval(part, confidence, resamples, seed) for part in parts]
        low, high = (np.concatenate(side).reshape(shape) for side in zip(*ends, strict=True))
        return low, high
    means = np.concatenate([counts @ d.T for counts in _samples(n, resamples, seed)]).T / n
    mean = d.mean(axis=1)
    centred = d - mean[:, None]
    flat = constant(d)
    slack = tolerance(d)[:, None] / n
    below = (means < mean[:, None] - slack).sum(axis=1)
    not_above = (means <= mean[:, None] + slack).sum(axis=1)
    share = (below + not_above) / (2 * resamples)
    bias = special.ndtri(np.clip(share, 0.5 / resamples, 1 - 0.5 / resamples))
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = (centred**3).sum(axis=1) / (6 * (centred**2).sum(axis=1) ** 1.5)
    means.sort(axis=1)
    quantiles = []
    for side in (0.5 - confidence / 2, 0.5 + confidence / 2):
        z = bias + special.ndtri(side)
        level = special.ndtr(bias + z / (1 - skew * z))
        quantiles.append(np.where(flat, mean, _quantile(means, np.where(flat, 0.5, level))))
    return quantiles[0].reshape(shape), quantiles[1].reshape(shape)


def _samples(n: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Blocks [b, n]: how often each query is in a sample of n."""
    generator = np.random.default_rng(seed)
    for size in _blocks(resamples, n):
        places = generator.integers(0, n, (size, n))
        places += n * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _quantile(ordered: FloatArray, level: FloatArray) -> FloatArray:
    """Quantile `level` [m] of each row of [m, b], interpolated linearly."""
    at = level * (ordered.shape[1] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, ordered.shape[1] - 1)
    each = np.arange(len(ordered))
    part = at - low
    return np.asarray((1 - part) * ordered[each, low] + part * ordered[each, high])


def _blocks(total: int, n: int) -> Iterator[int]:
    """Sizes of blocks of rows of n numbers that make up `total` rows."""
    step = max(4, BLOCK // max(1, n) // 4 * 4)  # whole words of the generator, whatever n
    for start in range(0, total, step):
        yield min(step, total - start)
