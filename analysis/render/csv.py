"""Every number of a summary at full precision, as ``table.csv``.

The column `table` says what a line is: ``main`` (a row and its test against the first baseline),
``means`` (a row's mean over collections), ``baselines`` (tests against further ones),
``comparisons`` or ``pairs``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from io import StringIO

from analysis.summary import Contrast, Summary

CLAIMS = {True: "choice", False: "models"}  # what p speaks about; see `analysis.errors`


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the file; None and NaN are empty.

    `mean` is over all queries of the row; `baseline_mean`, `n` and what follows are of the queries
    that both sides have.
    """

    table: str
    row: str
    system: str = ""
    collection: str
    measure: str
    queries: int | None = None
    seeds: tuple[int, ...] = ()
    mean: float | None = None
    baseline: str = ""
    baseline_mean: float | None = None
    n: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    d_z: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    family: int | None = None
    significant: bool | None = None
    claim: str = ""
    test: str = ""
    interval: str = ""
    correction: str = ""
    p_equivalence: float | None = None
    equivalent: bool | None = None
    p_non_inferiority: float | None = None
    non_inferior: bool | None = None
    margin: float | None = None
    letters: str = ""
    signatures: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


def render(summary: Summary) -> str:
    """The whole file."""
    text = StringIO()
    names = [field.name for field in fields(Line)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_text(getattr(line, name)) for name in names] for line in lines(summary))
    return text.getvalue()


def lines(summary: Summary) -> Iterator[Line]:
    """One line per row (or test), collection and measure."""
    spec = summary.spec
    for row in spec.rows:
        for place in summary.places:
            line = _line("main", row.name, summary, *place)
            pairs = summary.pairs.get(place)
            if pairs is not None and row.name in pairs.rows:
                line = replace(line, letters=pairs.letters[pairs.rows.index(row.name)])
            yield _tested(line, summary.contrasts.get((row.name, *place)), summary)
        for mean in spec.means:
            for measure in spec.measures:
                yield replace(_line("means", row.name, summary, mean.name, measure), queries=None)
    for contrast in summary.against:
        if contrast.baseline != spec.baseline:
            place = (contrast.collection, contrast.measure)
            yield _tested(
                _line("baselines", contrast.treatment, summary, *place), contrast, summary
            )
    declared = {(c.treatment, c.baseline, c.collection, c.measure): c for c in summary.comparisons}
    for treatment, baseline in spec.comparisons:
        for place in summary.places:
            line = _line("comparisons", treatment, summary, *place)
            test = declared.get((treatment, baseline, *place))
            yield _tested(replace(line, baseline=baseline), test, summary)
    yield from _pairs(summary)


def _line(table: str, row: str, summary: Summary, collection: str, measure: str) -> Line:
    """A row's score."""
    [system] = (own.system for own in summary.spec.rows if own.name == row)
    line = Line(table=table, row=row, system=system, collection=collection, measure=measure)
    scores = summary.lookup(row, collection, measure)
    if scores is None:
        return line
    signatures = summary.signatures[row]
    runs = summary.trials.runs
    return replace(
        line,
        queries=len(scores.queries),
        seeds=tuple(scores.seeds),
        mean=scores.mean,
        signatures=signatures,
        runs=tuple(runs[s] for s in signatures if s in runs),
    )


def _tested(line: Line, contrast: Contrast | None, summary: Summary) -> Line:
    """The line with the numbers of a test."""
    if contrast is None:
        return line
    result, spec = contrast.comparison, summary.spec
    line = replace(
        line,
        baseline=contrast.baseline,
        baseline_mean=contrast.baseline_mean,
        n=result.n,
        difference=result.difference,
        low=result.low,
        high=result.high,
        d_z=result.d_z,
        p=result.p,
        p_corrected=contrast.p_corrected,
        family=contrast.family,
        significant=contrast.significant,
        claim=CLAIMS[contrast.of_choice],
        test=spec.test,
        interval=spec.interval,
        correction=spec.correction,
        p_equivalence=contrast.p_equivalence,
        p_non_inferiority=contrast.p_non_inferiority,
    )
    if contrast.p_equivalence != contrast.p_equivalence:
        return line
    return replace(
        line,
        margin=spec.margin,
        equivalent=contrast.equivalent,
        non_inferior=contrast.non_inferior,
    )


def _pairs(summary: Summary) -> Iterator[Line]:
    for (collection, measure), pairs in summary.pairs.items():
        for i, row in enumerate(pairs.rows):
            for j, other in enumerate(pairs.rows[i + 1 :], i + 1):
                yield Line(
                    table="pairs",
                    row=row,
                    baseline=other,
                    collection=collection,
                    measure=measure,
                    p=pairs.p[i, j],
                    p_corrected=pairs.p_corrected[i, j],
                    family=pairs.family,
                    significant=bool(pairs.significant[i, j]),
                    claim=CLAIMS[bool(pairs.of_choice[i, j])],
                    test=summary.spec.test,
                    correction=summary.spec.correction,
                )


def _text(value: object) -> str:
    """A field: floats as the shortest text that reads back the same."""
    if value is None or value != value:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return repr(float(value)) if isinstance(value, float) else str(value)
