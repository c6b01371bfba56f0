"""What the rows of a table cost per query, and in units of one of them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from analysis.costs import ratio, single
from analysis.render.entry import DASH as MISSING
from analysis.render.entry import Column, Entry, Table
from analysis.sections.common import interval, listed, number, sentences
from analysis.spec import BYTES, SECONDS
from analysis.summary import Summary
from rdx.facts import QueryTiming

RULE = (
    "Single queries, after a warm-up, tokenisation included, reading of texts not: per query the "
    "median over repetitions, of these mean, median and 95th percentile over queries; seeds are "
    "averaged."
)


def efficiency_table(summary: Summary) -> Table | None:
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
        columns=(
            Column("System", numeric=False),
            Column("Collection", numeric=False),
            *map(Column, ("Seconds", "p50", "p95", "Queries", "Pairs/s", "Peak memory (GB)")),
            *map(Column, ("J/query", "Seconds, times", "95 % CI", "Memory, times")),
        ),
        rows=tuple(_line(summary, row, collection) for row, collection in places),
        notes=sentences(RULE, _ratio_note(summary, places), *_machine_notes(summary, places)),
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
        Entry(row),
        Entry(collection),
        Entry(_short(seconds.mean)),
        *(Entry(_short(float(np.quantile(values, q)))) for q in (0.5, 0.95)),
        Entry(str(len(seconds.queries))),
        Entry(_short(float(np.mean(pairs)))),
        Entry(MISSING if memory is None else number(memory.mean / 1e9, 2)),
        Entry(MISSING if len(joules) < len(timed) else _short(float(np.mean(joules)))),
        *map(Entry, _ratios(summary, row, collection)),
    )


def _ratios(summary: Summary, row: str, collection: str) -> tuple[str, str, str]:
    """Seconds and memory in units of the reference; dashes for it, and on another machine."""
    base = reference(summary, collection)
    if row == base or _machines(summary, row, collection) != _machines(summary, base, collection):
        return (MISSING,) * 3
    a, b = (summary.costs[name, collection, SECONDS] for name in (row, base))
    _, in_a, in_b = np.intersect1d(a.queries, b.queries, assume_unique=True, return_indices=True)
    if not len(in_a):
        return (MISSING,) * 3
    times, low, high = ratio(a.per_query[in_a], b.per_query[in_b])
    memory = [summary.costs.get((name, collection, BYTES)) for name in (row, base)]
    more = MISSING
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


def _ratio_note(summary: Summary, places: list[tuple[str, str]]) -> str:
    bases = dict.fromkeys(reference(summary, collection) for _, collection in places)
    if len(places) <= len({collection for _, collection in places}):
        return ""
    return (
        f"Times: in units of {listed(bases)}, over the queries that both were timed on, with the "
        "percentile bootstrap interval over queries (10,000 draws, seed 0); none where the "
        "machines differ. Memory is one number a trial and has no interval."
    )


def _machine_notes(summary: Summary, places: list[tuple[str, str]]) -> list[str]:
    """Which machines measured, and whose peak of memory it is."""
    by_machine: dict[str, dict[str, None]] = {}
    kinds: set[str] = set()
    for row, collection in places:
        for machine in _machines(summary, row, collection):
            by_machine.setdefault(machine, {})[row] = None
        for one in _timed(summary, row, collection):
            kinds.add("the process" if one.peak_memory.cuda is None else "the GPU")
    if len(by_machine) == 1:
        hardware = [f"Measured on: {next(iter(by_machine))}."]
    else:
        hardware = [f"Measured on {name}: {listed(rows)}." for name, rows in by_machine.items()]
    told = f"Peak memory is that of {' or '.join(sorted(kinds))}"
    if "the process" in kinds:
        told += ", with what a training before it in the same process left behind"
    return [*hardware, f"{told}."]


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
