"""The files of a result folder: tables, the page, figures; and what a terminal shows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analysis import claims, costs, factors, footer, power, replication, seeds
from analysis.render import csv, html, latex, markdown, text
from analysis.render.entry import EQUIVALENT, MARKS, Table
from analysis.render.html import Page, Picture, Trial
from analysis.rows import REFERENCES, Row
from analysis.summary import Summary
from analysis.tables import comparison_table, main_table


def tables_of(summary: Summary) -> list[Table]:
    """Tables that the spec asks for or the trials allow, the main one first.

    Replication if the spec has `expected`, costs if trials were timed, factors if it has `factors`,
    training runs if a row has at least two seeds, power if a row was tested against the baseline.
    """
    tables = (
        main_table(summary),
        comparison_table(summary),
        replication.table(summary),
        costs.table(summary),
        *factors.tables(summary),
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
    tables = tables_of(summary)
    texts = {
        "table.md": f"# {summary.spec.name}\n\n" + "\n".join(map(markdown.render, tables)),
        "table.tex": "% needs \\usepackage{booktabs,graphicx}\n"
        + "\n".join(map(latex.render, tables)),
        "table.csv": csv.render(summary),
    }
    sketched = sketches(summary)
    files = figures.save(sketched, folder)
    pictures = [
        Picture(figures.vector(files[name]).read_text(encoding="utf-8"), sketch.caption)
        for name, sketch in sketched.items()
    ]
    links = {name: name for name in texts}
    texts["report.html"] = html.render(page(summary, tables, pictures, links))
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8")
    paths = [folder / name for name in texts]
    return (*paths, *(path for group in files.values() for path in group))


def page(
    summary: Summary,
    tables: Sequence[Table],
    pictures: Sequence[Picture] = (),
    links: Mapping[str, str] | None = None,
) -> Page:
    """What the report page shows; `tables` as of `tables_of`."""
    spec = summary.spec
    if tables and spec.claim:  # it stands at the top of the page
        tables = (replace(tables[0], caption="Scores"), *tables[1:])
    marks = {
        MARKS[i]: f"significantly different from {name}" for i, name in enumerate(spec.baselines)
    }
    if spec.margin is not None:
        marks[EQUIVALENT] = f"equivalent within ±{spec.margin:g}"
    return Page(
        title=spec.name,
        claim=spec.claim,
        tables=tables,
        links=links or {},
        alarms=footer.alarms(summary),
        marks=marks,
        pictures=pictures,
        trials=[trial for row in spec.rows for trial in _trials(summary, row)],
    )


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
            listed=row.system not in ("first_stage", "oracle"),
        )
        for signature in summary.signatures[row.name]
        for facts in (summary.trials.facts[signature],)
    ]


def terminal(summary: Summary) -> str:
    """Every table and what is missing, for people at a terminal."""
    main, *others = tables_of(summary)
    parts = [_wrap(f"{summary.spec.name}: {summary.spec.claim}"), text.render(main)]
    marks = "** = best, _ = second of the competing rows."
    notes = (*claims.test_notes(summary), claims.claim_note(summary))
    parts.append(_lines(marks, *notes, *footer.subset_notes(summary)))
    for table in others:
        parts += [_wrap(table.caption), text.render(table)]
    parts.append(_lines(*footer.alarms(summary), footer.impossible_note(summary)))
    return "\n\n".join(part.rstrip() for part in parts if part)


def _lines(*sentences: str) -> str:
    return "\n".join(_wrap(sentence) for sentence in sentences if sentence)


def _wrap(sentence: str) -> str:
    return textwrap.fill(sentence, 100, subsequent_indent="  ", break_on_hyphens=False)
