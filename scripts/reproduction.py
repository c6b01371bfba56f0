"""Set cells that were trained again beside what was published of them.

    python scripts/reproduction.py     write the draw and the table into its page

Of each grid one cell is drawn: the experiment's name seeds Python's generator, which chooses among
the sorted signatures. What was trained again lies in docs/results/reproduction/NAME-PRECISION, as
`python -m rdx export results` wrote it, of a store that began empty.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import cache

import marks
import pandas as pd
from results import DATA, FOLDER, PAGE

from rdx.facts import PublishedTrial
from rdx.stages import DISTILL
from rdx.store.published import Results, read

NAMES = ("llm_labels", "llm_teachers", "offline_grid")
AGAIN = FOLDER / "reproduction"
SCRIPT = "reproduction"
MEASURE = "nDCG@10"
OF_TWO = 1.96 * math.sqrt(2)  # 95 % of the differences of two runs, in SD over runs
HEADER = (
    ("Experiment", "Test set", "Trained on", "Again on", "nDCG@10", "Again", "Difference")
    + ("Tolerance", "Per query")
)  # fmt: skip


@cache
def published(name: str) -> Results:
    """The results of an experiment, read once."""
    return read(FOLDER / name / DATA)


def drawn(name: str) -> PublishedTrial:
    """The cell of an experiment that is trained again."""
    cells = {t.facts.signature: t for t in published(name).record.trials if t.overrides}
    return cells[random.Random(name).choice(sorted(cells))]


def command(name: str, cell: PublishedTrial) -> str:
    """What trains a cell."""
    return " ".join(["python -m rdx", f"+experiments={name}", *_own(name, cell)])


def _own(name: str, cell: PublishedTrial) -> list[str]:
    """What tells a cell from others of its experiment."""
    return [one for one in cell.overrides if one != f"+experiments={name}"]


def student(results: Results) -> pd.DataFrame:
    """The students' values of a measure."""
    table = results.per_query
    return table[(table["system"] == "student") & (table["measure"] == MEASURE)]


def over_runs(values: pd.DataFrame, collection: str) -> float:
    """SD over seeds of a cell's mean score on a collection, pooled over the settings of a grid."""
    own = values[values["collection"] == collection]
    axes = [*own.columns[1 : own.columns.get_loc("seed")]]
    means = own.groupby([*axes, "seed"], dropna=False)["value"].mean()
    return math.sqrt(means.groupby(axes, dropna=False).var(ddof=1).mean())


def machine(cell: PublishedTrial) -> str:
    """What a cell was trained on, and in which precision."""
    device = cell.made[DISTILL.name].device
    assert device is not None
    return f"{device.name}, {cell.facts.precision['trainer.precision']}"


def rows(name: str, again: Results) -> Iterator[tuple[str, ...]]:
    """Lines of the table: a cell on each of its test sets."""
    every, cell = student(published(name)), drawn(name)
    [trial] = [one for one in again.record.trials if one.overrides]
    if _own(name, trial) != _own(name, cell):
        raise SystemExit(f"not the cell that is drawn: {command(name, cell)}")
    first = every[every["signature"] == cell.facts.signature]
    for collection, own in first.groupby("collection", sort=False):
        other = student(again)
        other = other[other["collection"] == collection]
        both = own.merge(other, on="query_id", validate="one_to_one", suffixes=("", "_again"))
        assert len(both) == len(own) == len(other)
        difference = both["value_again"] - both["value"]
        yield (
            *(name, str(collection), machine(cell), machine(trial)),
            *(f"{both[column].mean():.4f}" for column in ("value", "value_again")),
            f"{difference.mean():+.4f}",
            f"±{OF_TWO * over_runs(every, str(collection)):.4f}",
            f"{difference.abs().mean():.4f}",
        )


def page(old: str) -> str:
    """The page with its table written anew."""
    folders = [(name, path) for name in NAMES for path in sorted(AGAIN.glob(f"{name}-*"))]
    found = [row for name, path in folders for row in rows(name, read(path))]
    lines = [HEADER, ("---",) * 4 + ("--:",) * 5, *found]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    commands = "\n".join(command(name, drawn(name)) for name in NAMES)
    blocks = {"drawn": f"\n```bash\n{commands}\n```\n", "cells": f"\n{table}\n"}
    return marks.filled(old, SCRIPT, blocks)


if __name__ == "__main__":
    path = AGAIN / PAGE
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
