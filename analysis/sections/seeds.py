"""Training runs: how much scores vary over them, and differences with them as a random factor."""

from __future__ import annotations

import math

from analysis import seeds as sd
from analysis.render.entry import Column, Entry, Table, significant
from analysis.sections.common import (
    healthy,
    interval,
    is_trained,
    listed,
    number,
    p_value,
    sentences,
)
from analysis.significance import holm
from analysis.spec import Row
from analysis.summary import Summary


def seed_tables(summary: Summary) -> tuple[Table, ...]:
    """Variance between runs, and differences to the baseline; none if no row has two seeds."""
    repeated = [
        (row, collection)
        for row in summary.spec.rows
        for collection in summary.collections
        if is_trained(row)
        and (scores := summary.scores.get((row.name, collection, summary.spec.figure))) is not None
        and len(scores.seeds) > 1
    ]
    if not repeated:
        return ()
    tables = (_variances(summary, repeated), _differences(summary))
    return tuple(table for table in tables if table is not None)


def _variances(summary: Summary, repeated: list[tuple[Row, str]]) -> Table:
    measure = summary.spec.figure
    rows, truncated = [], []
    for row, collection in repeated:
        scores = summary.scores[row.name, collection, measure]
        parts = sd.components(scores.values)
        if parts.truncated:
            truncated.append(f"{row.name}, {collection} ({' and '.join(parts.truncated)})")
        rows.append(
            (
                Entry(row.name),
                Entry(collection),
                Entry(str(parts.runs)),
                Entry(number(scores.mean)),
                Entry(number(parts.seed_sd, 4)),
                Entry(f"{number(min(scores.seed_means))} to {number(max(scores.seed_means))}"),
                *(Entry(number(math.sqrt(v), 4)) for v in (parts.query, parts.run, parts.rest)),
            )
        )
    heads = ("Seeds", "Mean", "SD over seeds", "Range", "SD queries", "SD runs", "SD rest")
    return Table(
        label=f"{summary.spec.name}-seeds",
        caption=f"Training runs: variance of {measure} over seeds and queries.",
        columns=(
            Column("System", numeric=False),
            Column("Collection", numeric=False),
            *map(Column, heads),
        ),
        rows=tuple(rows),
        notes=sentences(
            "SD over seeds: of the mean score on these queries. SD queries, runs, rest: square "
            "roots of the variance components of score = mean + query + run + rest, estimated "
            "from the mean squares; the rest holds the interaction of query and run.",
            f"Estimated below zero and shown as 0: {'; '.join(truncated)}." if truncated else "",
        ),
    )


def _differences(summary: Summary) -> Table | None:
    """Differences to the baseline with queries and runs random; None without a baseline."""
    base = next((row for row in summary.spec.rows if row.name == summary.spec.baseline), None)
    if base is None:
        return None
    lines: list[tuple[Row, str, sd.Difference, float]] = []
    for collection in summary.collections:
        found = [
            (row, difference)
            for row in summary.spec.rows
            if row.test and row.name != base.name and (is_trained(row) or is_trained(base))
            if (difference := _difference(summary, row, base, collection)) is not None
        ]
        adjusted = holm([d.p for _, d in found])[0]
        lines += [
            (row, collection, difference, float(p))
            for (row, difference), p in zip(found, adjusted, strict=True)
        ]
    if not lines:
        return None
    heads = ("Difference", "95 % CI", "p (Holm)", "SE, queries only", "SE, both", "df", "Runs")
    single = dict.fromkeys(row.name for row, _, d, _ in lines if 1 in d.runs)
    zero = dict.fromkeys(
        row.name for row, _, d, _ in lines if d.method == "anova" and d.message and 1 not in d.runs
    )
    return Table(
        label=f"{summary.spec.name}-runs",
        caption=f"Differences to {base.name} in {summary.spec.figure} with queries and training "
        "runs as random factors.",
        columns=(
            Column("System", numeric=False),
            Column("Collection", numeric=False),
            *map(Column, heads),
        ),
        rows=tuple(
            (
                Entry(row.name, flags=significant(p <= summary.spec.alpha)),
                Entry(collection),
                Entry(number(d.difference, sign=True)),
                Entry(interval(d.low, d.high)),
                Entry(p_value(p)),
                Entry(number(d.error_queries, 4)),
                Entry(number(d.error, 4)),
                Entry(number(d.df, 1)),
                Entry(_runs(d)),
            )
            for row, collection, d, p in lines
        ),
        notes=sentences(
            f"† = significant at α = {summary.spec.alpha:g}, Holm within each collection. What is "
            "tested is whether other training runs on other queries would differ as well; the "
            "main table's test speaks about other queries only. Mixed model with random query, "
            "query × system and run, the variance between runs pooled over all healthy rows; "
            "variances from the mean squares, degrees of freedom after Satterthwaite. Intervals "
            "are not corrected.",
            f"(!) A single training run: {listed(single)}. Its variance between runs is that of "
            "other rows, or not in the test at all where no row has two seeds."
            if single
            else "",
            f"Variance between runs estimated as 0 or less and taken as 0: {listed(zero)}."
            if zero
            else "",
        ),
    )


def _difference(summary: Summary, row: Row, base: Row, collection: str) -> sd.Difference | None:
    a = summary.scores.get((row.name, collection, summary.spec.figure))
    b = summary.scores.get((base.name, collection, summary.spec.figure))
    if a is None or b is None or a.queries != b.queries:
        return None  # a teacher that covers some queries is compared in the main table
    sides = [
        scores.values if is_trained(own) else scores.per_query[:, None]
        for own, scores in ((row, a), (base, b))
    ]
    trained = (is_trained(row), is_trained(base))
    others = [
        table
        for other in summary.spec.rows
        if other.name not in (row.name, base.name) and is_trained(other) and healthy(summary, other)
        if (found := summary.scores.get((other.name, collection, summary.spec.figure))) is not None
        if (table := found.values).shape[1] > 1 and found.queries == a.queries
    ]
    return sd.difference(sides[0], sides[1], trained=trained, others=others)


def _runs(difference: sd.Difference) -> str:
    text = " vs ".join(str(count) if count else "–" for count in difference.runs)
    return text + (" (1 seed)" if 1 in difference.runs else "")
