"""What re-ranking costs: seconds and memory of single queries, as the trials of a row stored them.

Trials are timed with ``evaluation.efficiency=N``; one query at a time, after a warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analysis.render.entry import (
    ABSENT,
    Entry,
    Table,
    count,
    interval,
    number,
    numbers,
    short,
    system,
    words,
)
from analysis.rows import REFERENCES, Row
from analysis.scores import Scores
from analysis.significance import FloatArray
from analysis.spec import BYTES, SECONDS
from rdx.facts import QueryTiming, TrialFacts

if TYPE_CHECKING:
    from analysis.summary import Summary

Key = tuple[str, str, str]
DRAWS = 10_000
HEADS = (
    *("Seconds", "p50", "p95", "Queries", "Pairs/s", "Peak memory (GB)"),
    *("J/query", "Seconds, times", "95 % CI", "Memory, times"),
)

RULE = (
    "Single queries, after a warm-up, tokenisation included, reading of texts not: per query the "
    "median over repetitions, of these mean, median and 95th percentile over queries; seeds are "
    "averaged."
)


def single(facts: TrialFacts, collection: str) -> QueryTiming | None:
    """Timing of single queries of a collection in a trial; None if they were not timed."""
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

    Percentile bootstrap, queries samples in pairs: Efron and Tibshirani (1993), *An introduction to
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
    samples = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    ratios: FloatArray = x[samples].sum(axis=1) / y[samples].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(x.sum() / y.sum()), float(low), float(high)


def table(summary: Summary) -> Table | None:
    """A line per timed row and collection; None if no trial was timed."""
    places = [
        (row.name, collection)
        for collection in summary.collections
        for row in summary.spec.rows
        if (row.name, collection, SECONDS) in summary.costs
    ]
    if not places:
        return None
    return Table(
        label=f"{summary.spec.name}-efficiency",
        caption="Cost of re-ranking a query.",
        columns=(*words("System", "Collection"), *numbers(*HEADS)),
        rows=tuple(_line(summary, row, collection) for row, collection in places),
        notes=(RULE, *_ratio_notes(summary, places), *_machine_notes(summary, places)),
    )


def reference(summary: Summary, collection: str) -> str:
    """Whose costs are the unit of a collection: the first baseline, else the first timed row."""
    names = [*summary.spec.baselines, *(row.name for row in summary.spec.rows)]
    return next(name for name in names if (name, collection, SECONDS) in summary.costs)


def _line(summary: Summary, row: str, collection: str) -> tuple[Entry, ...]:
    seconds = summary.costs[row, collection, SECONDS]
    memory = summary.costs.get((row, collection, BYTES))
    timed = _timed(summary, row, collection)
    pairs = [timing.pairs_per_second for timing in timed]
    joules = [j for t in timed if (j := t.energy.joules_per_query) is not None]
    values = seconds.per_query
    return (
        system(row),
        Entry(collection),
        short(seconds.mean),
        *(short(float(np.quantile(values, q))) for q in (0.5, 0.95)),
        count(len(seconds.queries)),
        short(float(np.mean(pairs))),
        number(None if memory is None else memory.mean / 1e9, 2),
        short(None if len(joules) < len(timed) else float(np.mean(joules))),
        *_ratios(summary, row, collection),
    )


def _ratios(summary: Summary, row: str, collection: str) -> tuple[Entry, Entry, Entry]:
    """Seconds and memory in units of the reference; dashes for it, and on another machine."""
    base = reference(summary, collection)
    if row == base or _machines(summary, row, collection) != _machines(summary, base, collection):
        return (ABSENT,) * 3
    a, b = (summary.costs[name, collection, SECONDS] for name in (row, base))
    _, in_a, in_b = np.intersect1d(a.queries, b.queries, assume_unique=True, return_indices=True)
    if not len(in_a):
        return (ABSENT,) * 3
    times, low, high = ratio(a.per_query[in_a], b.per_query[in_b])
    memory = [summary.costs.get((name, collection, BYTES)) for name in (row, base)]
    more = ABSENT
    if memory[0] is not None and memory[1] is not None:
        more = number(memory[0].mean / memory[1].mean, 2)
    return number(times, 2), interval(low, high, sign=False), more


def _timed(summary: Summary, row: str, collection: str) -> list[QueryTiming]:
    facts = summary.trials.facts
    timings = (single(facts[signature], collection) for signature in summary.signatures[row])
    return [timing for timing in timings if timing]


def _machines(summary: Summary, row: str, collection: str) -> set[str]:
    return {
        ", ".join(f"{key} {value}" for key, value in fields.items() if value is not None)
        for timing in _timed(summary, row, collection)
        for fields in [asdict(timing.hardware)]
    }


def _ratio_notes(summary: Summary, places: list[tuple[str, str]]) -> list[str]:
    bases = dict.fromkeys(reference(summary, collection) for _, collection in places)
    if len(places) <= len({collection for _, collection in places}):
        return []
    return [
        f"Times: in units of {', '.join(bases)}, over the queries that both were timed on, with "
        f"the percentile bootstrap interval over queries ({DRAWS:,} draws, seed 0); none where the "
        "machines differ. Memory is one number a trial and has no interval."
    ]


def _machine_notes(summary: Summary, places: list[tuple[str, str]]) -> list[str]:
    """Which machines measured, and whose peak of memory it is."""
    by_machine: dict[str, dict[str, None]] = {}
    kinds: set[str] = set()
    for row, collection in places:
        for machine in _machines(summary, row, collection):
            by_machine.setdefault(machine, {})[row] = None
        for timing in _timed(summary, row, collection):
            kinds.add("the process" if timing.peak_memory.cuda is None else "the GPU")
    if len(by_machine) == 1:
        hardware = [f"Measured on: {next(iter(by_machine))}."]
    else:
        hardware = [f"Measured on {name}: {', '.join(rows)}." for name, rows in by_machine.items()]
    peak = f"Peak memory is that of {' or '.join(sorted(kinds))}"
    if "the process" in kinds:
        peak += ", with what a training before it in the same process left behind"
    return [*hardware, f"{peak}."]
