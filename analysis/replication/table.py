"""The verdict on every published number of a spec."""

from __future__ import annotations

import math

from analysis.render.entry import (
    Entry,
    Table,
    interval,
    number,
    numbers,
    runs,
    sentences,
    system,
    words,
)
from analysis.replication.closeness import effect_ratio
from analysis.replication.verdicts import VERDICTS, Noise, Verdict, printed_decimals, verdict
from analysis.rows import Row
from analysis.scores import training_runs
from analysis.seeds import seed_sd
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


def table(summary: Summary) -> Table | None:
    """Published against obtained, a line per number; None if the spec has none."""
    expected = summary.spec.expected
    if not expected:
        return None
    verdicts = [judge(summary, published) for published in expected]
    ties = [_ties(summary, published) for published in expected]
    ratios = [_effect_ratio(summary, published) for published in expected]
    tied = any(ends is not None for ends in ties)
    effects = any(ratio is not None for ratio in ratios)
    counts = {word: sum(verdict.verdict == word for verdict in verdicts) for word in VERDICTS}
    return Table(
        label=f"{summary.spec.name}-replication",
        caption="Published numbers against ours: "
        + ", ".join(f"{many} {word}" for word, many in counts.items())
        + ".",
        columns=(
            *words("System", "Measure", "Verdict"),
            *numbers("Published", "Ours", "Difference"),
            *numbers("Tie range")[:tied],
            *numbers("Tolerance", "Noise", "Runs"),
            *numbers("Effect ratio")[:effects],
            *words("Source"),
        ),
        rows=tuple(
            (
                system(published.row),
                Entry(f"{published.collection} {_unit(published)}"),
                Entry(verdict.verdict),
                _printed(published, published.value),
                _printed(published, verdict.obtained),
                _printed(published, verdict.difference, 1, sign=True),
                *(interval(*(ends or (math.nan, math.nan)), sign=False),)[:tied],
                _printed(published, verdict.tolerance, 1),
                _printed(published, verdict.noise, 1),
                runs(_runs(summary, published)),
                *(number(ratio, 2),)[:effects],
                Entry(published.source),
            )
            for published, verdict, ends, ratio in zip(
                expected, verdicts, ties, ratios, strict=True
            )
        ),
        notes=sentences(
            RULE,
            TIES if tied else "",
            _seed_note(summary),
            _single_note(summary),
            _ratio_note(summary) if effects else "",
        ),
    )


def judge(summary: Summary, published: Expected) -> Verdict:
    """Verdict on one published number."""
    row = summary.spec.row(published.row)
    scores = summary.lookup(published.row, published.collection, published.measure)
    noise = None
    if scores is not None and row.trained and published.measure not in COSTS:
        spread, df, _ = seed_sd(summary, published.collection, published.measure)
        noise = Noise(training_runs(row, scores), spread, df)
    return verdict(
        published.value,
        None if scores is None else scores.mean,
        tolerance=published.tolerance,
        noise=noise,
        ties=_ties(summary, published),
    )


def _effect_ratio(summary: Summary, published: Expected) -> float | None:
    """Improvement over the baseline, ours / published; None if a number of the four is missing."""
    place = (published.collection, published.measure)
    values = {
        other.row: other.value
        for other in summary.spec.expected
        if (other.collection, other.measure, other.source) == (*place, published.source)
    }
    base = summary.spec.baseline
    if base is None or base == published.row or base not in values:
        return None
    ours = [summary.lookup(row, *place) for row in (published.row, base)]
    if ours[0] is None or ours[1] is None:
        return None
    obtained = ([ours[0].mean], [ours[1].mean])
    return effect_ratio([published.value], [values[base]], *obtained)


def _ties(summary: Summary, published: Expected) -> tuple[float, float] | None:
    row = summary.spec.row(published.row)
    return tie_range(summary, row, published.collection, published.measure)


def tie_range(
    summary: Summary, row: Row, collection: str, measure: str
) -> tuple[float, float] | None:
    """Lowest and highest mean of a row over all orders of its tied passages; None without ties.

    Of a trained row, the ends are averaged over its seeds, as its score is; a seed without ties
    adds its score to both.
    """
    scores = summary.scores.get((row.name, collection, measure))
    if scores is None:
        return None
    # A system that is the same in every trial has no seeds.
    of_seed = dict(zip(scores.seeds, scores.seed_means.tolist(), strict=False))
    ends, tied = [], False
    for signature in summary.signatures[row.name]:
        trial = summary.trials.facts[signature]
        facts = trial.collections.get(collection)
        tied_ends = facts.tie_range.get(row.system, {}).get(measure) if facts else None
        if tied_ends is not None and not of_seed:
            return tied_ends
        tied = tied or tied_ends is not None
        ends.append(tied_ends or (of_seed.get(trial.seed, scores.mean),) * 2)
    if not tied:
        return None
    low, high = (sum(end) / len(ends) for end in zip(*ends, strict=True))
    return low, high


def _unit(published: Expected) -> str:
    return "GB at peak" if published.measure == BYTES else published.measure


def _printed(published: Expected, value: float, more: int = 0, *, sign: bool = False) -> Entry:
    """As many decimals as the published number has, or more; bytes as GB."""
    if published.measure == BYTES:
        return number(value / 1e9, sign=sign)
    return number(value, printed_decimals(published.value) + more, sign=sign)


def _runs(summary: Summary, published: Expected) -> int:
    scores = summary.lookup(published.row, published.collection, published.measure)
    return training_runs(summary.spec.row(published.row), scores) if scores else 0


def _seed_note(summary: Summary) -> str:
    places = dict.fromkeys(
        (published.collection, published.measure)
        for published in summary.spec.expected
        if published.measure not in COSTS and _runs(summary, published)
    )
    sources = [f"{c} {m} {seed_sd(summary, c, m)[2]}" for c, m in places]
    return f"SD over training runs: {'; '.join(sources)}." if sources else ""


def _single_note(summary: Summary) -> str:
    single = dict.fromkeys(p.row for p in summary.spec.expected if _runs(summary, p) == 1)
    return f"A single training run: {', '.join(single)}." if single else ""


def _ratio_note(summary: Summary) -> str:
    return (
        f"Effect ratio: improvement over {summary.spec.baseline}, ours divided by the published "
        "one; 1 = the same, below 0 = the wrong way round (Breuer et al., 2020)."
    )
