"""How close a reproduced experiment comes: scores, effects and rankings.

Breuer et al. (2020), *How to measure the reproducibility of system-oriented IR experiments*, SIGIR;
the values of their package repro_eval (0.5), which is no dependency for these few lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.significance import FloatArray
from rdx.equality import same

UNIONS = ("ranked", "sorted")


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
    return float(new.mean() / old) if not same(old, 0.0) and len(new) else float("nan")


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
    tau = stats.kendalltau([number[d] for d in old], [number[d] for d in new])
    return round(float(tau.statistic), 14)


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
