"""Write the tables and figures of the pages below docs/results/, from the results beside them.

    python scripts/results.py [NAME ...]

`docs/results/NAME/data` is what `python -m rdx export results NAME` wrote; the page beside it says
in marks which tables of the experiment NAME it shows, and links the figures.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

import marks

from analysis import report, sources, trials
from analysis.render import markdown
from analysis.render.entry import Table
from analysis.summary import Summary, summarise
from rdx.text import counted

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"
PAGE, DATA = "README.md", "data"
SCRIPT = "results"
FIGURE = re.compile(r"\((figure-[^()\s]+)\.(?:svg|png)\)")


def names() -> list[str]:
    """The experiments that have a page."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{DATA}"))


def summary_of(name: str) -> Summary:
    """The numbers of an experiment, from its published results alone."""
    source = sources.as_published(sources.of_spec(name), FOLDER / name / DATA)
    with TemporaryDirectory() as nothing:  # no record of MLflow is looked into
        found = trials.load(source, f"sqlite:///{nothing}/none.db", FOLDER / name / DATA)
    return summarise(source.spec, found)


def page(old: str, summary: Summary) -> str:
    """The page with what stands between its marks written anew."""
    blocks = {
        table.label.removeprefix(summary.spec.name).removeprefix("-") or "scores": _block(table)
        for table in report.tables_of(summary)
    }
    blocks["answer"] = "\n".join(
        f"- {markdown.escape(str(sentence))}" for sentence in report.answer_of(summary)
    )

    wanted = marks.names(old, SCRIPT)
    for name in wanted:
        if name not in blocks:
            raise SystemExit(f"{summary.spec.name}: no {name}; there are: {', '.join(blocks)}")
    return marks.filled(old, SCRIPT, {name: f"\n{blocks[name].strip()}\n" for name in wanted})


def _block(table: Table) -> str:
    """The table, its notes folded."""
    bare = markdown.render(replace(table, caption="", notes=()))
    notes = markdown.notes(table)
    return f"{bare}\n<details><summary>Notes</summary>\n\n{notes}\n\n</details>"


def draw(text: str, summary: Summary, folder: Path) -> set[str]:
    """Draw the figures that a page links, as SVG and PNG, and remove those that it no longer does.

    Returns their names.
    """
    linked = set(FIGURE.findall(text))
    with TemporaryDirectory() as scratch:
        report.write(summary, Path(scratch))
        for old in folder.glob("figure-*"):
            old.unlink()
        for name in linked:
            for suffix in (".svg", ".png"):
                copy(Path(scratch, name + suffix), folder)
    return linked


if __name__ == "__main__":
    for name in sys.argv[1:] or names():
        path = FOLDER / name / PAGE
        numbers = summary_of(name)
        written = page(path.read_text(encoding="utf-8"), numbers)
        path.write_text(written, encoding="utf-8")
        figures = draw(written, numbers, path.parent)
        print(f"{name}: {counted(len(figures), 'figure')}")
