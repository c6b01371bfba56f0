"""Expected values of measures over random orders of tied passages, in closed form.

McSherry & Najork, "Computing information retrieval performance measures efficiently in the
presence of tied scores", ECIR 2008. Passages of one query with equal float32 scores form a group;
all orders within the groups are equally likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
import numpy.typing as npt

RULES = ("trec_eval", "expected", "rank")
NO_CUTOFF = 2**31
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tied:
    """One query's ranking as groups of tied passages.

    Attributes
    ----------
    grades : ndarray, shape [n]
        Grade of every ranked passage, best score first; 0 where it is not judged.
    groups : ndarray, shape [n]
        Number of the group of each position: 0, 0, 1, 2, 2, ...
    judged : ndarray
        Grades of all judged passages of the query, ranked or not.
    """

    grades: Array
    groups: npt.NDArray[np.int64]
    judged: Array


def ndcg(query: Tied, cutoff: int, rel: int) -> float:
    """Expected nDCG, linear gains, base-2 discounts (trec_eval's ndcg_cut); `rel` is not used.

    The gain expected at a position is the mean gain of its group.
    """
    gains = _group_means(np.maximum(query.grades, 0), query.groups)
    ideal = _dcg(np.sort(np.maximum(query.judged, 0))[::-1], cutoff)
    return _dcg(gains, cutoff) / ideal if ideal else 0.0


def precision(query: Tied, cutoff: int, rel: int) -> float:
    """Expected P@cutoff; positions beyond the end of the ranking count as not relevant."""
    relevance = _group_means((query.grades >= rel).astype(float), query.groups)
    return float(relevance[:cutoff].sum()) / cutoff


def recall(query: Tied, cutoff: int, rel: int) -> float:
    """Expected R@cutoff; 0 without a relevant passage."""
    relevant = int((query.judged >= rel).sum())
    relevance = _group_means((query.grades >= rel).astype(float), query.groups)
    return float(relevance[:cutoff].sum()) / relevant if relevant else 0.0


def reciprocal_rank(query: Tied, cutoff: int, rel: int) -> float:
    """Expected reciprocal rank of the first relevant passage; 0 beyond the cutoff.

    Only the first group with a relevant passage matters. Of its n passages r are relevant; the
    first of them stands at its place j with probability C(n - j, r - 1) / C(n, r).
    """
    relevant = query.grades >= rel
    if not relevant.any():
        return 0.0
    first = query.groups == query.groups[int(relevant.argmax())]
    start, n, r = int(first.argmax()), int(first.sum()), int(relevant[first].sum())
    last = min(n - r + 1, cutoff - start)
    return sum(math.comb(n - j, r - 1) / math.comb(n, r) / (start + j) for j in range(1, last + 1))


def success(query: Tied, cutoff: int, rel: int) -> float:
    """Probability that a relevant passage stands at or above the cutoff."""
    relevant = query.grades >= rel
    if not relevant.any():
        return 0.0
    first = query.groups == query.groups[int(relevant.argmax())]
    start, n, r = int(first.argmax()), int(first.sum()), int(relevant[first].sum())
    places = min(n, cutoff - start)
    return 1 - math.comb(n - r, places) / math.comb(n, places) if places > 0 else 0.0


CLOSED: dict[str, Callable[[Tied, int, int], float]] = {
    "nDCG": ndcg,
    "P": precision,
    "R": recall,
    "RR": reciprocal_rank,
    "Success": success,
}


def check(measures: Sequence[str]) -> None:
    """Raise ValueError naming a measure without a closed form here."""
    for name in measures:
        _closed(name)


def expected(name: str, grades: Array, scores: Array, judged: Array) -> float:
    """Expected value of a measure for one query, over all orders of its ties.

    Parameters
    ----------
    name
        An ir_measures string: nDCG, P, R, RR or Success, with or without cutoff and `rel`.
    grades, scores
        Shape [n]: of every ranked passage; unjudged ones have grade 0.
    judged
        Grades of all judged passages of the query.

    Raises
    ------
    ValueError
        If the measure has no closed form here.
    """
    value, cutoff, rel = _closed(name)
    order = np.argsort(-scores, kind="stable")
    steps = np.diff(scores[order]) != 0
    groups = np.concatenate(([0], np.cumsum(steps))) if len(order) else np.zeros(0)
    return value(Tied(grades[order], groups.astype(np.int64), judged), cutoff or NO_CUTOFF, rel)


def _closed(name: str) -> tuple[Callable[[Tied, int, int], float], int, int]:
    """The closed form of a measure, its cutoff (0: none) and its lowest relevant grade."""
    measure = ir_measures.parse_measure(name)
    others: dict[str, Any] = dict(measure.params)
    cutoff, rel = int(others.pop("cutoff", 0)), int(others.pop("rel", 1))
    # P and Success divide by, or stop at, a cutoff; the others may go to the end of the ranking.
    needs_cutoff = measure.NAME in ("P", "Success") and not cutoff
    if measure.NAME not in CLOSED or others or rel < 1 or needs_cutoff:
        raise ValueError(
            f"evaluation.ties=expected: no closed form for {name}; there is one for "
            "nDCG@k, P@k, R@k, RR, RR@k and Success@k, each but nDCG also with rel=GRADE"
        )
    return CLOSED[measure.NAME], cutoff, rel


def _group_means(values: Array, groups: npt.NDArray[np.int64]) -> Array:
    if not len(values):
        return values
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    return np.asarray(means[groups])


def _dcg(gains: Array, cutoff: int) -> float:
    top = gains[:cutoff]
    return float((top / np.log2(np.arange(2, len(top) + 2))).sum())
