"""Write the tables of docs/recipes.md: what the recipes and the experiments of the field are.

    python scripts/recipes.py

Every value is that of the composed cell, with what the recipe's own `spec:` says of where it comes
from. Nothing is run, and no file that a recipe reads need be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import marks

from analysis.spec import Expected, parse
from rdx import config, stages
from rdx.config import Cell, composed, expand, load_spec
from rdx.folders import options
from rdx.grids import key_of, text
from rdx.power import Design, sensitivity
from rdx.text import counted

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
TOPICS = {"dl19": 43, "dl20": 54}  # of TREC Deep Learning, as judged
DISPUTED = ("labels_or_pairs", "kd_vs_cl", "candidates_k", "teacher_size", "lists", "rounds")
# Heads of the table, and the keys below them; a level, as on the command line, where it is one.
COLUMNS: dict[str, tuple[str, ...]] = {
    "candidates": ("sampler", "depth.queries"),
    "list": ("depth/lists", "depth.k", "depth.pool", "depth.mode"),
    "teacher": ("teacher",),
    "stage 1": ("prefinetune", "start"),
    "loss": ("loss",),
    "student; head; tokens of query; of passage": (
        *("student.model", "student.head", "student.query_length", "student.passage_length"),
    ),
    "length": ("budget.epochs", "budget.steps", "budget.pairs"),
    "lists a step": ("trainer.batch",),
    "rate": ("trainer.learning_rate", "trainer.schedule", "trainer.warmup"),
    "decay, clip": ("trainer.weight_decay", "trainer.clip"),
    "chosen": ("trainer.select", "trainer.validate_every", "trainer.patience"),
    "seed": ("seed",),
}
LETTER = {"paper": "ᵖ", "repository": "ʳ", "assumed": "ᵃ"}
SILENT = (
    "depth.mode",
    "start",
    "trainer.validate_every",
    "trainer.patience",
)  # shown if it is told


def page(old: str, cells: Mapping[str, Cell]) -> str:
    """The page with its tables written anew; `cells` are those of the recipes, by their names."""
    parts = {"recipes": "\n".join(recipes(cells)), "experiments": "\n".join(experiments())}
    return marks.filled(old, "recipes", parts)


def recipes(cells: Mapping[str, Cell]) -> list[str]:
    """The table of the recipes, and below it what each is, deviates in, and should reach."""
    published = parse(load_spec("recipes"), config.cells("recipes")).expected
    lines = _row(["recipe", *COLUMNS]), _row(["---"] * (len(COLUMNS) + 1))
    table = [_row([f"`{name}`", *_entries(cell)]) for name, cell in cells.items()]
    notes = [line for name, cell in cells.items() for line in _notes(name, cell, published)]
    return [*lines, *table, "", *notes]


def _entries(cell: Cell) -> list[str]:
    return [
        "; ".join(part for part in (_entry(cell, key) for key in keys) if part)
        for keys in COLUMNS.values()
    ]


def _entry(cell: Cell, key: str) -> str:
    """A value and the letter of where it comes from; "" where there is none, or nothing is told."""
    source = LETTER.get((_fields(cell).get(key) or ("", ""))[1], "")
    if not cell.has(key) or (key in SILENT and not source):
        return ""
    value = cell.value(key)
    if value is None or value == "":
        return "" if key != "depth.queries" else f"all{source}"
    shown = f"{value:,}" if type(value) is int else text(value)
    named = key.rpartition(".")[2] if key.startswith(("budget.", "depth.", "trainer.")) else ""
    head = f"{named.replace('_', ' ')} " if named else ""
    return f"{head}{shown}{source}"


def _notes(name: str, cell: Cell, published: Iterable[Expected]) -> list[str]:
    spec: Mapping[str, Any] = cell.cfg["spec"]
    numbers = [
        f"{one.measure} {one.value:g} on {one.collection} ({one.source})"
        for one in published
        if one.row == name
    ]
    return [
        f"**`+recipe={name}`** ({spec['source']}).",
        *(f"- {difference}" for difference in spec["deviations"]),
        *([f"- published: {'; '.join(numbers)}"] if numbers else []),
        "",
    ]


def _fields(cell: Cell) -> Mapping[str, Sequence[Any]]:
    fields: Mapping[str, Sequence[Any]] = cell.cfg["spec"]["fields"]
    return fields


def experiments() -> list[str]:
    """The table of the experiments that the field disputes, with what each could find."""
    heads = ["experiment", "cells", "systems", "seeds", "moves", "margin", "queries", "found"]
    return [_row(heads), _row(["---"] * len(heads)), *map(_experiment, DISPUTED)]


def _experiment(name: str) -> str:
    jobs = expand([f"+experiments={name}"])
    spec = parse(load_spec(name), config.cells(name))
    overrides = [o for _, job in jobs for o in job if not o.startswith("+")]
    seeds = len({o for o in overrides if key_of(o) == "seed"})
    moved = dict.fromkeys(f"`{key_of(o)}`" for o in overrides if key_of(o) != "seed")
    systems = len({frozenset(o for o in job if key_of(o) != "seed") for _, job in jobs})
    tests = sum(row.test and row.name not in spec.baselines for row in spec.rows)
    able = [
        sensitivity("", Design(queries, seeds, tests=tests, systems=systems))
        for queries in _queries(name)
    ]
    found = [f"{a.detectable:.3f} ({a.detectable_holm:.3f})" for a in able]
    sizes = [str(a.design.queries) for a in able]
    numbers = [str(len(jobs)), str(systems), str(seeds), ", ".join(moved), f"{spec.margin:g}"]
    return _row([f"`{name}`", *numbers, ", ".join(sizes), ", ".join(found)])


def _queries(name: str) -> list[int]:
    """Queries of the test sets of an experiment; those with as many count once."""
    test_sets = composed([f"+experiments={name}"]).evaluation.collections.items()
    return list(dict.fromkeys(test.queries or TOPICS[key[:4]] for key, test in test_sets))


def _row(entries: Iterable[str]) -> str:
    return f"| {' | '.join(entries)} |"


if __name__ == "__main__":
    composed_cells = {name: stages.cells([f"+recipe={name}"])[0] for name in options("recipe")}
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), composed_cells), encoding="utf-8")
    print(f"{PAGE.name}: {counted(len(composed_cells), 'recipe')}")
