"""Does a number come out again? A verdict per published number, and measures of how close.

A published mean and ours are of the same queries, so other queries are no excuse for a difference
between them. What is: rounding in print, what the authors' own releases differ by, ties in a
ranking that another program orders differently, and that a training run is a draw.

The measures of closeness are those of Breuer et al. (2020), *How to measure the reproducibility of
system-oriented IR experiments*, SIGIR, and give the values of their package repro_eval (0.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.significance import FloatArray

REPRODUCED = "reproduced"
WITHIN_NOISE = "within noise"
DIFFERS = "differs"
NOT_RUN = "not run"
VERDICTS = (REPRODUCED, WITHIN_NOISE, DIFFERS, NOT_RUN)
UNIONS = ("ranked", "sorted")
# Decimals that a table of effectiveness prints; trailing zeros do not survive in a YAML number.
DECIMALS = 3
# Numbers that print alike must not differ by the last bit of a float.
EPSILON = 1e-9


@dataclass(frozen=True)
class Noise:
    """What may lie between two runs of the same experiment, in units of the measure.

    Attributes
    ----------
    runs : int
        Training runs that our mean rests on; 0 for a system that is not trained.
    seed_sd : float
        Standard deviation over runs of the mean score on these queries.
    seed_df : int or None
        Degrees of freedom of `seed_sd`; None if it is assumed and not estimated.
    error : float
        Standard error over queries of the paired difference to the published per-query scores,
        where those exist; 0 where only the mean was published.
    confidence : float
        Coverage of the band that counts as noise.
    """

    runs: int = 0
    seed_sd: float = 0.0
    seed_df: int | None = None
    error: float = 0.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Reject what is no spread."""
        if not (self.seed_sd >= 0 and self.error >= 0 and self.runs >= 0):
            raise ValueError(f"runs, seed_sd and error must be zero or more: {self}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, not {self.confidence}")
        if self.seed_df is not None and self.seed_df < 1:
            raise ValueError(f"seed_df must be at least 1 or None, not {self.seed_df}")

    @property
    def limit(self) -> float:
        """Half width of the band: a prediction interval for one further training run.

        The published number is one more run beside ours: its difference to the mean of S runs has
        the variance seed_sd² (1 + 1/S), plus `error`² of per-query scores. Times the quantile of
        the t distribution if `seed_sd` is estimated (with few runs a wide band, as it should be),
        of the normal one if not.
        """
        seeds = self.seed_sd**2 * (1 + 1 / self.runs) if self.runs else 0.0
        tail = 0.5 + self.confidence / 2
        estimated = self.runs > 0 and self.seed_df is not None
        factor = stats.t.ppf(tail, self.seed_df) if estimated else stats.norm.ppf(tail)
        return float(factor * math.sqrt(seeds + self.error**2))


@dataclass(frozen=True)
class Verdict:
    """What became of one published number.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    published, obtained : float
        Both numbers; `obtained` is NaN if the cell was not run.
    difference : float
        obtained - published.
    gap : float
        Distance of the published number from ours, or from the range that ties leave open.
    tolerance : float
        Largest gap that counts as reproduced.
    noise : float
        Largest gap that counts as within noise.
    """

    verdict: str
    published: float
    obtained: float
    difference: float
    gap: float
    tolerance: float
    noise: float


def verdict(
    published: float,
    obtained: float | None,
    *,
    tolerance: float | None = None,
    noise: Noise | None = None,
    ties: tuple[float, float] | None = None,
    decimals: int | None = None,
) -> Verdict:
    """Judge one number.

    *Reproduced*: the gap is at most the tolerance. *Within noise*: it is at most half a unit of
    the last printed decimal plus the band of `noise`. *Differs* otherwise; *not run* where there
    is no number of ours. That a number is within noise says that another training run could have
    given it, not that it is right: a wide band makes it easy.

    Parameters
    ----------
    published : float
        As printed.
    obtained : float or None
        Mean over queries (and runs) of ours; None or NaN if the cell was not run.
    tolerance : float, optional
        Largest gap that counts as reproduced, e.g. what the authors' own releases of the number
        differ by. Never below half a unit of the last printed decimal, which is the default.
    noise : Noise, optional
        Spread between runs; none by default, as for a system that is not trained.
    ties : (float, float), optional
        Lowest and highest value of ours over all orders of tied passages.
    decimals : int, optional
        Decimals in print; those that the number shows by default, and at least `DECIMALS`.
    """
    if not math.isfinite(published):
        raise ValueError(f"a published number must be finite, not {published}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be zero or more, not {tolerance}")
    shown = printed_decimals(published) if decimals is None else decimals
    half = 0.5 * 10.0**-shown
    reproduced = half if tolerance is None else max(half, tolerance)
    noisy = half + (noise or Noise()).limit
    nan = float("nan")
    if obtained is None or math.isnan(obtained):
        return Verdict(NOT_RUN, published, nan, nan, nan, reproduced, noisy)
    low, high = ties or (obtained, obtained)
    if not low - EPSILON <= obtained <= high + EPSILON:
        raise ValueError(f"the tie range {low} to {high} does not hold the value {obtained}")
    gap = max(0.0, low - published, published - high)
    word = DIFFERS
    if gap <= reproduced + EPSILON:
        word = REPRODUCED
    elif gap <= noisy + EPSILON:
        word = WITHIN_NOISE
    return Verdict(word, published, obtained, obtained - published, gap, reproduced, noisy)


def printed_decimals(value: float) -> int:
    """Decimals that a number shows, at least `DECIMALS`: .48 was printed as .480."""
    text = f"{value:.10f}".rstrip("0")
    return max(DECIMALS, len(text.split(".")[1]))


def pooled_seed_sd(groups: Sequence[npt.ArrayLike]) -> tuple[float, int] | None:
    """Standard deviation over runs of the mean score, pooled over systems.

    Parameters
    ----------
    groups : sequence of array_like, shapes [S_i]
        Mean score of every run, per system; systems with one run add nothing.

    Returns
    -------
    (float, int) or None
        The standard deviation and its degrees of freedom, the sum of S_i - 1; None if no system
        has two runs.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    df = sum(max(0, len(array) - 1) for array in arrays)
    if not df:
        return None
    squares = sum(float(((array - array.mean()) ** 2).sum()) for array in arrays if len(array) > 1)
    return math.sqrt(squares / df), df


def rmse(original: npt.ArrayLike, reproduced: npt.ArrayLike) -> float:
    """Root mean square error of per-query scores of the same queries; 0 is best, NaN without any.

    Examples
    --------
    >>> round(rmse([0.1, 0.5], [0.4, 0.1]), 4)
    0.3536
    """
    a, b = _paired(original, reproduced)
    return float(np.sqrt(((a - b) ** 2).mean())) if len(a) else float("nan")


def effect_ratio(
    advanced: npt.ArrayLike,
    baseline: npt.ArrayLike,
    new_advanced: npt.ArrayLike,
    new_baseline: npt.ArrayLike,
) -> float:
    """Mean improvement of ours / mean improvement of the original.

    1 = the same effect, between 0 and 1 = a smaller one, below 0 = the wrong way round; NaN where
    the original has no improvement to speak of (0), or a side is empty. Per-query scores or means
    (arrays of one); the new ones may be of other queries.
    """
    old = float(np.mean(np.subtract(*_paired(advanced, baseline)))) if np.size(advanced) else 0.0
    new = np.subtract(*_paired(new_advanced, new_baseline))
    return float(new.mean() / old) if old != 0 and len(new) else float("nan")


def delta_relative_improvement(
    advanced: npt.ArrayLike,
    baseline: npt.ArrayLike,
    new_advanced: npt.ArrayLike,
    new_baseline: npt.ArrayLike,
) -> float:
    """Relative improvement of the original minus that of ours; 0 is best.

    Relative improvement = (mean advanced - mean baseline) / mean baseline. NaN where a baseline's
    mean is 0 or a side is empty.
    """

    def improvement(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
        top, bottom = _paired(a, b)
        mean = float(bottom.mean()) if len(bottom) else 0.0
        return (float(top.mean()) - mean) / mean if mean else float("nan")

    return improvement(advanced, baseline) - improvement(new_advanced, new_baseline)


def kendall_tau_union(
    original: Sequence[str], reproduced: Sequence[str], *, depth: int = 1000, union: str = "ranked"
) -> float:
    """Kendall's tau union of two rankings of one query: whether both order passages alike.

    The passages of both lists are numbered, each list becomes the sequence of its passages'
    numbers, and these two sequences are correlated (tau-b).

    Parameters
    ----------
    original, reproduced : sequence of str
        Passage ids, best first, none twice. The longer one is cut to the length of the other.
    depth : int
        Only the first `depth` of each count.
    union : str
        How passages are numbered. "ranked": in the order of the original, then what only the
        reproduced list has, in its order, as in the paper's example. "sorted": by passage id, as
        repro_eval does, so that the value depends on how passages are called.

    Returns
    -------
    float
        From -1 to 1; NaN with less than two passages.

    Examples
    --------
    >>> kendall_tau_union(["a", "b", "c"], ["a", "b", "d"])
    1.0
    """
    if union not in UNIONS:
        raise ValueError(f"union {union!r} is not one of: {', '.join(UNIONS)}")
    old, new = _rankings(original, reproduced, depth)
    length = min(len(old), len(new))
    old, new = old[:length], new[:length]
    names = list(dict.fromkeys((*old, *new)))
    number = {name: i for i, name in enumerate(sorted(names) if union == "sorted" else names)}
    if length < 2:
        return float("nan")
    found = stats.kendalltau([number[d] for d in old], [number[d] for d in new])
    return round(float(found.statistic), 14)


def rbo(
    original: Sequence[str], reproduced: Sequence[str], *, p: float = 0.95, depth: int = 1000
) -> float:
    """Rank-biased overlap of two rankings of one query, from 0 (disjoint) to 1 (the same).

    sum over d = 1..depth of p^(d-1) · |common passages of the first d| / d, divided by the sum of
    the weights p^(d-1). Webber, Moffat and Zobel (2010), *A similarity measure for indefinite
    rankings*, TOIS 28; cut at `depth` and normalised as by Clarke, Vtyurina and Smucker (2021),
    *Assessing top-k preferences*, TOIS 39.

    Parameters
    ----------
    original, reproduced : sequence of str
        Passage ids, best first, none twice.
    p : float
        Persistence: the weight of a depth is p times that of the one above.
    depth : int
        Where the sum ends; also beyond the end of a list, where nothing is added to the overlap,
        so that short lists stay below 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"p must lie between 0 and 1, not {p}")
    old, new = _rankings(original, reproduced, depth)
    place = {doc: i for i, doc in enumerate(old, 1)}
    # A common passage counts from the deeper one of its two ranks on.
    common = np.zeros(depth)
    for i, doc in enumerate(new, 1):
        if doc in place:
            common[max(i, place[doc]) - 1] += 1
    depths = np.arange(1, depth + 1)
    weights = p ** (depths - 1.0)
    return float((weights * common.cumsum() / depths).sum() / weights.sum())


def _rankings(
    original: Sequence[str], reproduced: Sequence[str], depth: int
) -> tuple[list[str], list[str]]:
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    lists = list(original), list(reproduced)
    for ranking in lists:
        if len(set(ranking)) < len(ranking):
            raise ValueError("a ranking holds a passage twice")
    return lists[0][:depth], lists[1][:depth]


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"scores must be two arrays of shape [n], got {x.shape}, {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite")
    return x, y
