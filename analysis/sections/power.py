"""What the experiment could have found: the smallest detectable difference per collection."""

from __future__ import annotations

from statistics import median

from analysis import power as pw
from analysis.render.entry import Column, Entry, Table
from analysis.sections.common import is_trained, number, runs, seed_sd, sentences
from analysis.spec import Row
from analysis.summary import Summary

POWER = 0.8


def power_table(summary: Summary) -> Table | None:
    """Smallest detectable difference to the baseline; None if nothing was tested against it."""
    plans = plan(summary)
    if not plans:
        return None
    known = assumptions(summary)
    heads = ("Queries", "Seeds", "SD", "SD over runs", "Tests", "Detectable", "First Holm step")
    rows = tuple(
        (
            Entry(one.collection),
            Entry(str(one.queries)),
            Entry("1 seed" if one.seeds == 1 else str(one.seeds)),
            Entry(number(one.assumption.sd)),
            Entry(number(one.assumption.seed_sd, 4)),
            Entry(str(one.tests)),
            Entry(number(one.detectable)),
            Entry(number(one.detectable_holm)),
        )
        for one in plans
    )
    spec = summary.spec
    return Table(
        label=f"{spec.name}-power",
        caption=f"Smallest difference in {spec.figure} to {spec.baseline} that this experiment "
        f"finds with probability {POWER:g}.",
        columns=(Column("Collection", numeric=False), *map(Column, heads)),
        rows=rows,
        notes=sentences(
            f"Two-sided t-test over queries at α = {spec.alpha:g}, and at α divided by the number "
            "of tests, Holm's first step. A smaller difference that is not significant says "
            "little about whether it exists.",
            *(f"{name}: SD {one.source}." for name, one in known.items()),
        ),
    )


def plan(summary: Summary) -> tuple[pw.Plan, ...]:
    """The power of what was run, per collection with a row tested against the baseline."""
    spec = summary.spec
    known = assumptions(summary)
    base = next((row for row in spec.rows if row.name == spec.baseline), None)
    plans: list[pw.Plan] = []
    for collection, assumption in known.items():
        tested = _tested(summary, collection)
        chosen = [row for row in tested if is_trained(row)] or tested
        sides = [*chosen, *([base] if base is not None else [])]
        scores = {row.name: summary.scores[row.name, collection, spec.figure] for row in sides}
        counts = [runs(row, scores[row.name]) for row in sides]
        trained = int(any(map(is_trained, chosen))) + int(base is not None and is_trained(base))
        plans += pw.planned(
            {collection: min(len(one.queries) for one in scores.values())},
            min((count for count in counts if count), default=1),
            {collection: assumption},
            tests=len(tested),
            alpha=spec.alpha,
            power=POWER,
            trained=trained,
        )
    return tuple(plans)


def assumptions(summary: Summary) -> dict[str, pw.Assumption]:
    """Standard deviations of the stored trials per collection, for planning the next experiment.

    Over queries: the median over the tested rows (the trained ones, if there are any) of the
    standard deviation of the difference to the baseline. Collections without one are left out.
    """
    spec = summary.spec
    found = {}
    for collection in summary.collections:
        tested = _tested(summary, collection)
        chosen = [row for row in tested if is_trained(row)] or tested
        spreads = [spread for row in chosen if (spread := _spread(summary, row, collection)) > 0]
        if not spreads:
            continue
        runs_sd, _, source = seed_sd(summary, collection, spec.figure)
        found[collection] = pw.Assumption(
            sd=median(spreads),
            seed_sd=runs_sd,
            source=f"over queries of the stored trials (median of {len(spreads)} rows), over "
            f"runs {source}",
        )
    return found


def _tested(summary: Summary, collection: str) -> list[Row]:
    spec = summary.spec
    if (spec.baseline, collection, spec.figure) not in summary.scores:
        return []
    return [
        row
        for row in spec.rows
        if row.test and row.name != spec.baseline
        if (row.name, collection, spec.figure) in summary.scores
    ]


def _spread(summary: Summary, row: Row, collection: str) -> float:
    """SD over the common queries of the difference to the baseline; 0 if there are too few."""
    a = summary.scores[row.name, collection, summary.spec.figure]
    b = summary.scores[str(summary.spec.baseline), collection, summary.spec.figure]
    other = dict(zip(b.queries, b.per_query, strict=True))
    pairs = [(x, other[q]) for q, x in zip(a.queries, a.per_query, strict=True) if q in other]
    return pw.spread([x for x, _ in pairs], [y for _, y in pairs])
