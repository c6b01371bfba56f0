"""The files of a result folder: tables, the page, figures; and what a terminal shows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from analysis import answer, claims, costs, factors, footer, labels, power, replication, seeds
from analysis.render import csv, html, latex, markdown, text
from analysis.render.entry import ALARM, EQUIVALENT, MARKS, Table
from analysis.render.html import Page, Picture, Trial
from analysis.rows import REFERENCES, Row
from analysis.summary import Summary
from analysis.tables import comparison_table, main_table

Designs = Mapping[str, factors.Design]
Item = TypeVar("Item")
# The main figure is the first of these that there is; in a grid of factors of the first list.
OF_FACTORS = ("interaction", "grid", "lines")
OF_ROWS = ("differences", "lines", "ranks", "efficiency")


def answer_of(summary: Summary, designs: Designs | None = None) -> tuple[answer.Sentence, ...]:
    """The answer in words, from the tests of the summary."""
    return answer.sentences(answer.answer(summary, designs))


def tables_of(summary: Summary, designs: Designs | None = None) -> list[Table]:
    """Tables that the spec asks for or the trials allow, the main one first.

    `designs` as of `factors.designs_of`, if they are there already. Replication if the spec has
    `expected`, costs if trials were timed, labels if those of two rows differ in quality, factors
    if it has `factors`, training runs if a row has at least two seeds, power if a row was tested
    against the baseline.
    """
    tables = (
        main_table(summary),
        comparison_table(summary),
        replication.table(summary),
        costs.table(summary),
        labels.table(summary),
        *factors.tables(summary, designs),
        *seeds.tables(summary),
        power.table(summary),
    )
    return [table for table in tables if table is not None]


def write(summary: Summary, folder: Path) -> tuple[Path, ...]:
    """Write tables and figures; the same in, the same out.

    Returns
    -------
    tuple of Path
        table.md, table.tex, table.csv, report.html, and the figures that there is something to
        draw in, each as PDF, SVG and PNG; older ones are removed.
    """
    from analysis.figures import sketches  # matplotlib: half a second
    from analysis.render import figures

    folder.mkdir(parents=True, exist_ok=True)
    designs = factors.designs_of(summary)
    tables, told = tables_of(summary, designs), answer_of(summary, designs)
    head = [summary.spec.claim, *map(str, told)]
    parts = [f"# {summary.spec.name}", *(markdown.escape(one) for one in head if one)]
    texts = {
        "table.md": "\n\n".join([*parts, *map(markdown.render, _below(summary, tables))]),
        "table.tex": "% needs \\usepackage{booktabs,graphicx}\n"
        + "\n".join(map(latex.render, tables)),
        "table.csv": csv.render(summary),
    }
    sketched = sketches(summary)
    files = figures.save(sketched, folder)
    pictures = [
        Picture(figures.vector(files[name]).read_text(encoding="utf-8"), sketch.caption)
        for name, sketch in main_first(sketched, bool(designs)).items()
    ]
    links = {name: name for name in texts}
    texts["report.html"] = html.render(page(summary, tables, pictures, links, told))
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8")
    paths = [folder / name for name in texts]
    return (*paths, *(path for group in files.values() for path in group))


def main_first(sketched: Mapping[str, Item], factorial: bool) -> dict[str, Item]:
    """Figures by name, the main one first; the others in their order."""
    kinds = (*OF_FACTORS, *OF_ROWS) if factorial else OF_ROWS
    names = [name for kind in kinds for name in sketched if name.partition("-")[0] == kind]
    order = dict.fromkeys([*names[:1], *sketched])
    return {name: sketched[name] for name in order}


def page(
    summary: Summary,
    tables: Sequence[Table],
    pictures: Sequence[Picture] = (),
    links: Mapping[str, str] | None = None,
    told: Sequence[answer.Sentence] = (),
) -> Page:
    """What the report page shows; `tables` as of `tables_of`, `told` as of `answer_of`."""
    spec = summary.spec
    tables = _below(summary, tables)
    marks = {
        MARKS[i]: f"significantly different from {name}" for i, name in enumerate(spec.baselines)
    }
    if spec.margin is not None:
        marks[EQUIVALENT] = f"equivalent within ±{spec.margin:g}"
    return Page(
        title=spec.name,
        claim=spec.claim,
        answer={sentence.kind: sentence.shown for sentence in told},
        tables=tables,
        links=links or {},
        alarms=footer.alarms(summary),
        marks=marks,
        pictures=pictures,
        trials=[trial for row in spec.rows for trial in _trials(summary, row)],
        interface=summary.trials.interface if summary.trials.pages else "",
    )


def _below(summary: Summary, tables: Sequence[Table]) -> Sequence[Table]:
    """Tables as they stand below the claim: the main one does not repeat it."""
    if not (tables and summary.spec.claim):
        return tables
    return (replace(tables[0], caption="Scores"), *tables[1:])


def _trials(summary: Summary, row: Row) -> list[Trial]:
    """The trials of a row; systems that are the same in every trial are not listed."""
    trained = row.system not in REFERENCES and not row.imported
    return [
        Trial(
            row=row.name,
            signature=signature,
            seed=facts.seed if trained else None,
            health=facts.health if trained else None,
            run=summary.trials.runs.get(signature, ""),
            page=summary.trials.pages.get(signature, ""),
            listed=row.system not in ("first_stage", "oracle"),
        )
        for signature in summary.signatures[row.name]
        for facts in (summary.trials.facts[signature],)
    ]


def terminal(summary: Summary, full: bool = False) -> str:
    """The answer for people at a terminal: the main table, its marks, one sentence, alarms.

    `full`: every table, all of the answer and what the tests are, too.
    """
    designs = factors.designs_of(summary)
    spec, told = summary.spec, answer_of(summary, designs)
    claim = spec.claim if full else first_sentence(spec.claim)
    parts = [
        _wrap(": ".join(filter(None, (spec.name, claim)))),
        text.render(main_table(summary)),
        _lines(_marks(summary), *footer.subset_notes(summary)),
        _lines(*map(str, told if full else told[:1])),
    ]
    if full:
        parts.append(_lines(*claims.test_notes(summary), claims.claim_note(summary)))
        for table in tables_of(summary, designs)[1:]:
            parts += [_wrap(table.caption), text.render(table)]
    parts.append(_lines(*footer.alarms(summary), footer.impossible_note(summary)))
    return "\n\n".join(part.rstrip() for part in parts if part)


def first_sentence(claim: str) -> str:
    """The beginning of a claim up to its first full stop or question mark."""
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", claim, maxsplit=1)[0]


def _marks(summary: Summary) -> str:
    """What the signs of the main table mean, in short."""
    marks = ["** best, _ second"]
    marks += [f"{MARKS[i]} differs from {name}" for i, name in enumerate(summary.spec.baselines)]
    if summary.spec.margin is not None:
        marks.append(f"{EQUIVALENT} equivalent within ±{summary.spec.margin:g}")
    if any(footer.unhealthy(summary, row) for row in summary.spec.rows):
        marks.append(f"{ALARM} rests on a trial that is not healthy")
    return "; ".join(marks) + "."


def _lines(*sentences: str) -> str:
    return "\n".join(_wrap(sentence) for sentence in sentences if sentence)


def _wrap(sentence: str) -> str:
    return textwrap.fill(sentence, 100, subsequent_indent="  ", break_on_hyphens=False)
