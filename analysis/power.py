"""What the experiment could have found: the smallest detectable difference per collection."""

from __future__ import annotations

from statistics import median

from analysis.render.entry import Entry, Table, count, number, numbers, runs, words
from analysis.rows import Row
from analysis.scores import training_runs
from analysis.summary import Summary
from rdx.power import (
    ASSUMED_SEED_SD,
    Assumption,
    Design,
    Sensitivity,
    pooled_run_sd,
    sensitivity,
    spread,
)

POWER = 0.8


def table(summary: Summary) -> Table | None:
    """Smallest detectable difference to the baseline; None if nothing was tested against it."""
    powers = sensitivities(summary)
    if not powers:
        return None
    assumed = assumptions(summary)
    heads = ("Queries", "Seeds", "SD", "SD over runs", "Tests", "Detectable", "First Holm step")
    spec = summary.spec
    return Table(
        label=f"{spec.name}-power",
        caption=f"Smallest difference in {spec.figure} to {spec.baseline} that this experiment "
        f"finds with probability {POWER:g}.",
        columns=(*words("Collection"), *numbers(*heads)),
        rows=tuple(
            (
                Entry(power.collection),
                count(power.design.queries),
                runs(power.design.seeds),
                number(power.design.assumption.sd),
                number(power.design.assumption.seed_sd, 4),
                count(power.design.tests),
                number(power.detectable),
                number(power.detectable_holm),
            )
            for power in powers
        ),
        notes=(
            f"Two-sided t-test with queries and training runs random at α = {spec.alpha:g}, and at "
            "α divided by the number of tests, Holm's first step; with one seed over queries "
            "alone, against differences that the runs blur. A smaller difference that is not "
            "significant says little about whether it exists.",
            *(f"{name}: SD {assumption.source}." for name, assumption in assumed.items()),
        ),
    )


def sensitivities(summary: Summary) -> tuple[Sensitivity, ...]:
    """The power of what was run, per collection with a row tested against the baseline."""
    spec = summary.spec
    assumed = assumptions(summary)
    base = spec.row(spec.baseline) if spec.baseline else None
    powers: list[Sensitivity] = []
    for collection, assumption in assumed.items():
        tested = _tested(summary, collection)
        chosen = [row for row in tested if row.trained] or tested
        sides = [*chosen, *([base] if base is not None else [])]
        scores = {row.name: summary.scores[row.name, collection, spec.figure] for row in sides}
        counts = [training_runs(row, scores[row.name]) for row in sides]
        trained = int(any(row.trained for row in chosen)) + int(base is not None and base.trained)
        seeds = min((count for count in counts if count), default=1)
        known = _runs(summary, collection)
        design = Design(
            min(len(own.queries) for own in scores.values()),
            seeds,
            assumption,
            alpha=spec.alpha,
            tests=_family(summary, collection) or len(tested),
            trained=trained,
            runs_df=float(known[1]) if known else None,
        )
        powers.append(sensitivity(collection, design, POWER))
    return tuple(powers)


def assumptions(summary: Summary) -> dict[str, Assumption]:
    """Standard deviations of the stored trials per collection, for planning the next experiment.

    Over queries: the median over the tested rows (the trained ones, if there are any) of the
    standard deviation of the difference to the baseline. Over runs: what more queries would not
    remove, pooled over the healthy rows of the tested kinds. Collections without a difference are
    left out.
    """
    assumed = {}
    for collection in summary.tested:
        tested = _tested(summary, collection)
        chosen = [row for row in tested if row.trained] or tested
        spreads = [sd for row in chosen if (sd := _spread(summary, row, collection)) > 0]
        if not spreads:
            continue
        known = _runs(summary, collection)
        source = f"of the stored trials ({known[1]} df)" if known else "assumed"
        assumed[collection] = Assumption(
            sd=median(spreads),
            seed_sd=known[0] if known else ASSUMED_SEED_SD,
            source=f"over queries of the stored trials (median of {len(spreads)} rows), over "
            f"runs {source}",
        )
    return assumed


def _runs(summary: Summary, collection: str) -> tuple[float, int] | None:
    """Standard deviation over runs, queries apart, and its degrees of freedom; None if not known.

    Of the healthy rows whose system is that of a tested row or of the baseline, as the tests pool.
    """
    spec = summary.spec
    kinds = {row.system for row in _tested(summary, collection)}
    kinds |= {row.system for row in spec.rows if row.name == spec.baseline}
    rows = [row for row in spec.rows if row.trained and row.system in kinds]
    return pooled_run_sd(
        [
            summary.scores[row.name, collection, spec.figure].values
            for row in rows
            if row.name in summary.sound and (row.name, collection, spec.figure) in summary.scores
        ]
    )


def _family(summary: Summary, collection: str) -> int:
    """How many tests are corrected together with those against the baseline; 0 without one."""
    measure = summary.spec.figure
    return max(
        (
            contrast.family
            for (_, place, of), contrast in summary.contrasts.items()
            if (place, of) == (collection, measure)
        ),
        default=0,
    )


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
    return spread([x for x, _ in pairs], [y for _, y in pairs])
