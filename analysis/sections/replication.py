"""The verdict on every published number of a spec."""

from __future__ import annotations

from analysis import replication as rp
from analysis.render.entry import DASH as MISSING
from analysis.render.entry import Column, Entry, Table
from analysis.sections.common import (
    interval,
    is_trained,
    listed,
    number,
    runs,
    seed_sd,
    sentences,
    tie_range,
)
from analysis.spec import BYTES, COSTS, Expected
from analysis.summary import Summary

RULE = (
    "Reproduced: the difference is at most the tolerance, that of the spec or half a unit of the "
    "last printed decimal. Within noise: at most that half unit plus the 95 % prediction interval "
    "of one further training run, t · SD · √(1 + 1/runs); a system that is not trained has no such "
    "interval. Both numbers are of the same queries, so the choice of queries is no part of it."
)
TIES = (
    "Tie range, of ours: lowest and highest mean that an order of the tied passages gives; the "
    "difference that is judged is the published number's to this range."
)


def replication_table(summary: Summary) -> Table | None:
    """Published against obtained, a line per number; None if the spec has none."""
    expected = summary.spec.expected
    if not expected:
        return None
    verdicts = [judge(summary, one) for one in expected]
    tied = any(_ties(summary, one) != MISSING for one in expected)
    ratios = [_effect_ratio(summary, one) for one in expected]
    effects = any(ratio is not None for ratio in ratios)
    counts = {word: sum(verdict.verdict == word for verdict in verdicts) for word in rp.VERDICTS}
    rows = tuple(
        (
            Entry(one.row),
            Entry(f"{one.collection} {'GB at peak' if one.measure == BYTES else one.measure}"),
            Entry(verdict.verdict),
            Entry(_shown(one, one.value)),
            Entry(_shown(one, verdict.obtained)),
            Entry(_shown(one, verdict.difference, 1, sign=True)),
            *((Entry(_ties(summary, one)),) if tied else ()),
            Entry(_shown(one, verdict.tolerance, 1)),
            Entry(_shown(one, verdict.noise, 1)),
            Entry(_runs(summary, one)),
            *((Entry(number(ratio, 2)),) if effects else ()),
            Entry(one.source),
        )
        for one, verdict, ratio in zip(expected, verdicts, ratios, strict=True)
    )
    return Table(
        label=f"{summary.spec.name}-replication",
        caption="Published numbers against ours: "
        + ", ".join(f"{count} {word}" for word, count in counts.items())
        + ".",
        columns=(
            Column("System", numeric=False),
            Column("Measure", numeric=False),
            Column("Verdict", numeric=False),
            *map(Column, ("Published", "Ours", "Difference")),
            *((Column("Tie range"),) if tied else ()),
            *map(Column, ("Tolerance", "Noise", "Runs")),
            *((Column("Effect ratio"),) if effects else ()),
            Column("Source", numeric=False),
        ),
        rows=rows,
        notes=sentences(
            RULE,
            TIES if tied else "",
            _seed_note(summary),
            _single_note(summary),
            _ratio_note(summary) if effects else "",
        ),
    )


def judge(summary: Summary, one: Expected) -> rp.Verdict:
    """Verdict on one published number."""
    scores = summary.found(one.row, one.collection, one.measure)
    row = next(row for row in summary.spec.rows if row.name == one.row)
    noise = None
    if scores is not None and is_trained(row) and one.measure not in COSTS:
        spread, df, _ = seed_sd(summary, one.collection, one.measure)
        noise = rp.Noise(runs(row, scores), spread, df)
    obtained = None if scores is None else scores.mean
    ties = tie_range(summary, row, one.collection, one.measure)
    return rp.verdict(one.value, obtained, tolerance=one.tolerance, noise=noise, ties=ties)


def _effect_ratio(summary: Summary, one: Expected) -> float | None:
    """Improvement over the baseline, ours / published; None if a number of the four is missing."""
    place = (one.collection, one.measure)
    published = {
        other.row: other.value
        for other in summary.spec.expected
        if (other.collection, other.measure, other.source) == (*place, one.source)
    }
    base = summary.spec.baseline
    if base is None or base == one.row or base not in published:
        return None
    ours = [summary.found(row, *place) for row in (one.row, base)]
    if ours[0] is None or ours[1] is None:
        return None
    new = ([ours[0].mean], [ours[1].mean])
    return rp.effect_ratio([one.value], [published[base]], *new)


def _ties(summary: Summary, one: Expected) -> str:
    row = next(row for row in summary.spec.rows if row.name == one.row)
    found = tie_range(summary, row, one.collection, one.measure)
    return MISSING if found is None else interval(*found, sign=False)


def _shown(one: Expected, value: float, more: int = 0, *, sign: bool = False) -> str:
    """As many decimals as the published number has, or more; bytes as GB."""
    if one.measure == BYTES:
        return number(value / 1e9, sign=sign)
    return number(value, rp.printed_decimals(one.value) + more, sign=sign)


def _runs(summary: Summary, one: Expected) -> str:
    scores = summary.found(one.row, one.collection, one.measure)
    row = next(row for row in summary.spec.rows if row.name == one.row)
    if scores is None or not is_trained(row):
        return MISSING
    count = runs(row, scores)
    return "1 seed" if count == 1 else str(count)


def _seed_note(summary: Summary) -> str:
    places = dict.fromkeys(
        (one.collection, one.measure)
        for one in summary.spec.expected
        if one.measure not in COSTS
        and any(row.name == one.row and is_trained(row) for row in summary.spec.rows)
        and summary.found(one.row, one.collection, one.measure)
    )
    said = [f"{c} {m} {seed_sd(summary, c, m)[2]}" for c, m in places]
    return f"SD over training runs: {'; '.join(said)}." if said else ""


def _single_note(summary: Summary) -> str:
    single = dict.fromkeys(
        one.row for one in summary.spec.expected if _runs(summary, one) == "1 seed"
    )
    return f"A single training run: {listed(single)}." if single else ""


def _ratio_note(summary: Summary) -> str:
    return (
        f"Effect ratio: improvement over {summary.spec.baseline}, ours divided by the published "
        "one; 1 = the same, below 0 = the wrong way round (Breuer et al., 2020)."
    )
