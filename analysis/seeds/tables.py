"""Training runs: how much scores vary over them, and differences with them as a random factor."""

from __future__ import annotations

import math

from analysis.errors import of_the_kind
from analysis.render.entry import (
    Entry,
    Table,
    count,
    fixed,
    interval,
    number,
    numbers,
    p_value,
    runs,
    sentences,
    significant,
    system,
    words,
)
from analysis.rows import Row
from analysis.seeds.model import Difference, components, difference
from analysis.significance import correct
from analysis.summary import Summary
from rdx.power import ASSUMED_SEED_SD, pooled_seed_sd


def seed_sd(summary: Summary, collection: str, measure: str) -> tuple[float, int | None, str]:
    """Spread over training runs of a mean score in one collection.

    Pooled over the rows that have several runs, all of them healthy: one collapsed run would
    otherwise make every number look like noise. Where there is none, the assumed one.

    Returns
    -------
    (float, int or None, str)
        Standard deviation, its degrees of freedom (None if assumed) and where it comes from.
    """
    pooled = pooled_seed_sd(
        [
            scores.seed_means
            for row in summary.spec.rows
            if row.trained and row.name in summary.sound
            if (scores := summary.lookup(row.name, collection, measure)) is not None
        ]
    )
    if pooled is None:
        return ASSUMED_SEED_SD, None, f"assumed {ASSUMED_SEED_SD:g}"
    return *pooled, f"{pooled[0]:.4f}, pooled over rows with several runs, {pooled[1]} df"


def tables(summary: Summary) -> tuple[Table, ...]:
    """Variance between runs, and differences to the baseline; none if no row has two seeds."""
    repeated = [
        (row, collection)
        for row in summary.spec.rows
        for collection in summary.tested
        if row.trained
        and (scores := summary.scores.get((row.name, collection, summary.spec.figure))) is not None
        and len(scores.seeds) > 1
    ]
    if not repeated:
        return ()
    pair = (_variances(summary, repeated), _differences(summary))
    return tuple(table for table in pair if table is not None)


def _variances(summary: Summary, repeated: list[tuple[Row, str]]) -> Table:
    measure = summary.spec.figure
    rows, truncated = [], []
    for row, collection in repeated:
        scores = summary.scores[row.name, collection, measure]
        parts = components(scores.values)
        if parts.truncated:
            truncated.append(f"{row.name}, {collection} ({' and '.join(parts.truncated)})")
        low, high = float(min(scores.seed_means)), float(max(scores.seed_means))
        rows.append(
            (
                system(row.name),
                Entry(collection),
                count(parts.runs),
                number(scores.mean),
                number(parts.seed_sd, 4),
                Entry(f"{fixed(low)} to {fixed(high)}", low),
                *(number(math.sqrt(v), 4) for v in (parts.query, parts.run, parts.rest)),
            )
        )
    heads = ("Seeds", "Mean", "SD over seeds", "Range", "SD queries", "SD runs", "SD rest")
    return Table(
        label=f"{summary.spec.name}-seeds",
        caption=f"Training runs: variance of {measure} over seeds and queries.",
        columns=(*words("System", "Collection"), *numbers(*heads)),
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
    if summary.spec.baseline is None:
        return None
    base = summary.spec.row(summary.spec.baseline)
    lines: list[tuple[Row, str, Difference, float]] = []
    for collection in summary.tested:
        tested = [
            (row, d)
            for row in summary.spec.rows
            if row.test and row.name != base.name and (row.trained or base.trained)
            if (d := _difference(summary, row, base, collection)) is not None
        ]
        adjusted = correct([d.p for _, d in tested])[0]
        lines += [
            (row, collection, d, float(p)) for (row, d), p in zip(tested, adjusted, strict=True)
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
        columns=(*words("System", "Collection"), *numbers(*heads)),
        rows=tuple(
            (
                system(row.name).flagged(*significant(p <= summary.spec.alpha)),
                Entry(collection),
                number(d.difference, sign=True),
                interval(d.low, d.high),
                p_value(p),
                number(d.error_queries, 4),
                number(d.error, 4),
                number(d.df, 1),
                runs(*d.runs),
            )
            for row, collection, d, p in lines
        ),
        notes=sentences(
            f"† = significant at α = {summary.spec.alpha:g}, Holm within each collection. Claims "
            "are about the choice: whether other training runs on other queries would differ as "
            "well. Mixed model with random query, query × system and run, the variance between "
            "runs pooled over all healthy rows of the kind; variances from the mean squares, "
            "degrees of freedom after Satterthwaite. Intervals are not corrected.",
            f"A single training run: {', '.join(single)}. Its variance between runs is that of "
            "other rows, or not in the test at all where no row has two seeds."
            if single
            else "",
            f"Variance between runs estimated as 0 or less and taken as 0: {', '.join(zero)}."
            if zero
            else "",
        ),
    )


def _difference(summary: Summary, row: Row, base: Row, collection: str) -> Difference | None:
    a = summary.scores.get((row.name, collection, summary.spec.figure))
    b = summary.scores.get((base.name, collection, summary.spec.figure))
    if a is None or b is None or a.queries != b.queries:
        return None  # a teacher that covers some queries is compared in the main table
    sides = [
        scores.values if own.trained else scores.per_query[:, None]
        for own, scores in ((row, a), (base, b))
    ]
    trained = (row.trained, base.trained)
    others = [
        scores.values
        for other in of_the_kind(summary.spec.rows, row, base, summary.sound)
        if (scores := summary.scores.get((other.name, collection, summary.spec.figure))) is not None
        if scores.values.shape[1] > 1 and scores.queries == a.queries
    ]
    return difference(sides[0], sides[1], trained=trained, others=others)
