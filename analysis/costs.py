"""What re-ranking costs: seconds and memory of single queries, as the trials of a row stored them.

Trials are timed with ``evaluation.efficiency=N``; one query at a time, after a warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from analysis.scores import Scores
from analysis.significance import FloatArray
from analysis.spec import BYTES, REFERENCES, SECONDS, Row
from rdx.facts import QueryTiming, TrialFacts

Key = tuple[str, str, str]
DRAWS = 10_000


def single(facts: TrialFacts, collection: str) -> QueryTiming | None:
    """What a trial knows of single queries of a collection; None if it was not timed."""
    timing = facts.timing.get(collection)
    return timing.single if timing else None


def costs(
    rows: Iterable[Row],
    signatures: Mapping[str, tuple[str, ...]],
    collections: Iterable[str],
    facts: Mapping[str, TrialFacts],
) -> dict[Key, Scores]:
    """(row, collection, cost) -> its values; absent where the row was not timed.

    Returns
    -------
    dict
        "seconds per query": `Scores` [n, s] of the medians over repetitions, of the queries that
        all trials of the row were timed on; "bytes at peak": [1, s], of the GPU where there is
        one, else of the process.
    """
    values: dict[Key, Scores] = {}
    for row in rows:
        if row.system in REFERENCES:
            continue
        for collection in collections:
            timed = sorted(
                (
                    (facts[signature].seed, timing)
                    for signature in signatures[row.name]
                    if (timing := single(facts[signature], collection))
                ),
                key=lambda pair: pair[0],
            )
            if not timed:
                continue
            seeds, timings = zip(*timed, strict=True)
            queries = tuple(sorted(set.intersection(*(set(t.seconds) for t in timings))))
            if queries:
                medians = [[np.median(t.seconds[q]) for t in timings] for q in queries]
                values[row.name, collection, SECONDS] = Scores(queries, np.array(medians), seeds)
            peaks = [timing.peak_memory.bytes for timing in timings]
            if None not in peaks:
                values[row.name, collection, BYTES] = Scores(
                    (collection,), np.array([peaks], dtype=np.float64), seeds
                )
    return values


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
