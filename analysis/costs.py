"""What re-ranking costs: seconds and memory of single queries, as the trials of a row stored them.

Trials are timed with ``evaluation.efficiency=N``; one query at a time, after a warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.scores import Scores
from analysis.significance import FloatArray
from analysis.spec import BYTES, REFERENCES, SECONDS, Row

Key = tuple[str, str, str]
DRAWS = 10_000


def single(facts: Mapping[str, Any], collection: str) -> dict[str, Any]:
    """What a trial's facts hold of single queries of a collection; empty if it was not timed."""
    found: dict[str, Any] = facts.get("timing", {}).get(collection, {}).get("single", {})
    return found


def costs(
    rows: Iterable[Row],
    signatures: Mapping[str, tuple[str, ...]],
    collections: Iterable[str],
    facts: Mapping[str, Mapping[str, Any]],
) -> dict[Key, Scores]:
    """(row, collection, cost) -> its values; absent where the row was not timed.

    Returns
    -------
    dict
        "seconds per query": `Scores` [n, s] of the medians over repetitions, of the queries that
        all trials of the row were timed on; "bytes at peak": [1, s], of the GPU where there is
        one, else of the process.
    """
    found: dict[Key, Scores] = {}
    for row in rows:
        if row.system in REFERENCES:
            continue
        for collection in collections:
            timed = sorted(
                (
                    (int(facts[one]["seed"]), data)
                    for one in signatures[row.name]
                    if (data := single(facts[one], collection))
                ),
                key=lambda pair: pair[0],
            )
            if not timed:
                continue
            seeds = tuple(seed for seed, _ in timed)
            queries = tuple(sorted(set.intersection(*(set(one["seconds"]) for _, one in timed))))
            medians = [[np.median(one["seconds"][q]) for _, one in timed] for q in queries]
            if queries:
                found[row.name, collection, SECONDS] = Scores(queries, np.array(medians), seeds)
            peaks = [_peak(one["peak_memory"]) for _, one in timed]
            if all(peak is not None for peak in peaks):
                found[row.name, collection, BYTES] = Scores(
                    (collection,), np.array([peaks], dtype=np.float64), seeds
                )
    return found


def _peak(memory: Mapping[str, float | None]) -> float | None:
    return memory["rss"] if memory.get("cuda") is None else memory["cuda"]


def ratio(
    a: npt.ArrayLike, b: npt.ArrayLike, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """How many times the mean of `b` that of `a` is, with an interval over queries.

    Percentile bootstrap, queries drawn in pairs: Efron and Tibshirani (1993), *An introduction to
    the bootstrap*, ch. 13. What another machine or another training run would give is no part of
    it.

    Parameters
    ----------
    a, b : array_like, shape [n]
        Costs of the same queries, above 0.

    Returns
    -------
    ratio, low, high : float
        Of `a` to `b`; the interval has no width for one query.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"costs must be two arrays of shape [n], n > 0, got {x.shape}, {y.shape}")
    drawn = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    ratios: FloatArray = x[drawn].sum(axis=1) / y[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(x.sum() / y.sum()), float(low), float(high)
