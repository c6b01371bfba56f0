"""What students learned from, and what they became: the audit of their labels beside their scores.

Whether what can be known of a teacher before a student is trained (`rdx.teachers.audit`) foretells
the student.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from scipy.stats import spearmanr

from analysis.render.entry import Column, Table, number, numbers, sentences, system, words
from rdx.facts import Audit

if TYPE_CHECKING:
    from analysis.summary import Summary

Reading = Callable[[Audit], float | None]


def _effectiveness(audit: Audit, of: str) -> float | None:
    usable = audit.effectiveness.usable if audit.effectiveness else None
    return None if usable is None else float(getattr(usable, of))


def _slope(audit: Audit) -> float | None:
    known = audit.position_bias
    bias = (known.shuffled or known.all) if known else None
    return bias.slope.mean if bias else None


# What stands in the table, and what it is of an audit; a column that no row has is left out.
READINGS: Mapping[str, Reading] = {
    "Lists used": lambda audit: 1 - audit.lists.left_out / max(audit.lists.total, 1),
    "Input": lambda audit: _effectiveness(audit, "input"),
    "Labels": lambda audit: _effectiveness(audit, "teacher"),
    "τ": lambda audit: audit.moves.kendall_tau,
    "Position bias": _slope,
    "Agreement": lambda audit: audit.agreement.kendall_tau if audit.agreement else None,
}
QUALITY = "Labels"


def table(summary: Summary) -> Table | None:
    """A line per trained row with audited labels; None if fewer than two differ in quality."""
    readings = _readings(summary)
    qualities = _qualities(readings)
    if not qualities:
        return None
    heads = [head for head in READINGS if any(head in means for means in readings.values())]
    measure = summary.spec.figure
    students = {
        (row, place): scores
        for row in readings
        for place in summary.collections
        if (scores := summary.scores.get((row, place, measure)))
    }
    columns = [
        *words("System"),
        *numbers(*heads),
        *(Column(place, group="student") for place in summary.collections),
    ]
    rows = [
        (
            system(row),
            *(number(means.get(head)) for head in heads),
            *(
                number(students[row, place].mean if (row, place) in students else None)
                for place in summary.collections
            ),
        )
        for row, means in readings.items()
    ]
    correlations = [
        correlation
        for place in summary.collections
        if (
            correlation := _correlation(
                place,
                [
                    (quality, students[row, place].mean)
                    for row, quality in qualities.items()
                    if (row, place) in students
                ],
            )
        )
    ]
    return Table(
        label=f"{summary.spec.name}-labels",
        caption=f"What the students learned from, and what they became ({measure}).",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=sentences(
            f"Of the training queries whose lists are used: {measured_by(summary)} of the labels, "
            "and of the order that the teacher was given (input); τ of Kendall between these two "
            "orders, 1 where the teacher changes nothing. Means over a row's trials.",
            "Rank correlation (Spearman) of the labels' quality with the students': "
            f"{'; '.join(correlations)}. Rows may share labels: this describes them, and is no "
            "test."
            if correlations
            else "",
        ),
    )


def labels_of(summary: Summary) -> dict[str, float]:
    """Row -> the quality of what its students learned from; empty unless two rows differ in it."""
    return _qualities(_readings(summary))


def _qualities(readings: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    qualities = {row: means[QUALITY] for row, means in readings.items() if QUALITY in means}
    return qualities if len(set(qualities.values())) > 1 else {}


def _readings(summary: Summary) -> dict[str, dict[str, float]]:
    """Row -> what its audits say; without rows that learned from no audited labels."""
    return {name: means for name in summary.signatures if (means := _read(summary, name))}


def _read(summary: Summary, row: str) -> dict[str, float]:
    """What the audits of a row's trials say on average; empty of a row that learned from none."""
    facts = [summary.trials.facts[signature] for signature in summary.signatures[row]]
    audits = [own.checkpoint.audit for own in facts if own.checkpoint and own.checkpoint.audit]
    if not summary.spec.row(row).trained or not audits:
        return {}
    values = {head: [read(audit) for audit in audits] for head, read in READINGS.items()}
    return {
        head: fmean(known)
        for head, each in values.items()
        if len(known := [value for value in each if value is not None]) == len(audits)
    }


def measured_by(summary: Summary) -> str:
    """The measure of the labels' quality."""
    return next(
        own.checkpoint.audit.effectiveness.measure
        for own in summary.trials.facts.values()
        if own.checkpoint and own.checkpoint.audit and own.checkpoint.audit.effectiveness
    )


def _correlation(place: str, pairs: list[tuple[float, float]]) -> str:
    """Of one collection; empty where a side is the same everywhere, or three rows are not there."""
    if len(pairs) < 3 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return ""
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return f"{place} {rho:+.2f} ({len(pairs)} rows)"
