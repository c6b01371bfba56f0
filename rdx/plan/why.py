"""Explain a signature: the fields that differ from the nearest stored result of the same stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from rdx import stages, store
from rdx.config import Cell, ConfigError
from rdx.facts import Manifest
from rdx.job import Parts
from rdx.stages import Signatures, Step
from rdx.store import MANIFEST
from rdx.text import counted

ABSENT = "absent"
NEEDS = "needs"
MOST = 12  # differences that are shown of a stage


@dataclass(frozen=True)
class Difference:
    """A field of what a stage signs: its path, and its value in a neighbour and here, as JSON."""

    path: str
    stored: str
    here: str


@dataclass(frozen=True)
class Explanation:
    """Why a step of a cell is not stored, or that it is.

    Attributes
    ----------
    step, signature
        Of the cell.
    stored
        Whether it is stored.
    neighbour
        Signature of the stored result of this stage that differs in the fewest fields; "" if there
        is none.
    differences
        To the neighbour; what the stage needs is explained by its own steps, and named here.
    """

    step: Step
    signature: str
    stored: bool
    neighbour: str = ""
    differences: tuple[Difference, ...] = ()


def explain(cell: Cell) -> list[Explanation]:
    """Explain every step of a cell, dependencies first."""
    signatures, root = Signatures(Parts(cell.cfg)), Path(cell.cfg["store"])
    explanations = []
    for step in stages.steps(signatures.parts):
        key = signatures.key(step)
        if (root / step.stage / key / MANIFEST).exists():
            explanations.append(Explanation(step, key, stored=True))
            continue
        here = dict(_fields(signatures.signed(step)))
        near = min(
            ((_differences(dict(_fields(m.signed)), here), m) for m in _stored(root, step.stage)),
            key=lambda pair: len(pair[0]),
            default=None,
        )
        if near is None:
            explanations.append(Explanation(step, key, stored=False))
        else:
            differences, manifest = near
            explanations.append(Explanation(step, key, False, manifest.signature, differences))
    return explanations


def chosen(cells: Sequence[Cell], which: str) -> Cell:
    """The cell that is meant: by its number in the plan, or the beginning of its signature.

    Raises
    ------
    ConfigError
        If there is none, or several.
    """
    if which.isdecimal() and 1 <= int(which) <= len(cells):
        return cells[int(which) - 1]
    matching = [cell for cell in cells if cell.signature.startswith(which)]
    if len(matching) != 1:
        raise ConfigError(
            f"--why {which}: {counted(len(matching), 'cell')} of the plan; give a number from 1 to "
            f"{len(cells)}, or the beginning of a signature"
        )
    return matching[0]


def text(explanations: Sequence[Explanation]) -> str:
    """The explanations for people."""
    lines = []
    for explanation in explanations:
        head = f"{explanation.step} {explanation.signature}"
        if explanation.stored:
            lines.append(f"{head}: stored")
        elif not explanation.neighbour:
            lines.append(f"{head}: nothing of this stage is stored")
        else:
            lines.append(f"{head}: not stored; beside {explanation.neighbour}")
            shown = explanation.differences[:MOST]
            lines += [f"   {d.path}: {d.stored} there, {d.here} here" for d in shown]
            more = len(explanation.differences) - len(shown)
            lines += [f"   and {more} more"] if more else []
    return "\n".join(lines)


def _stored(root: Path, stage: str) -> Iterator[Manifest]:
    """The manifests of a stage's results; those that cannot be read are no neighbours."""
    for folder in store.results(root / stage):
        try:
            yield store.read(Manifest, folder / MANIFEST)
        except OSError:
            continue


def _differences(stored: dict[str, str], here: dict[str, str]) -> tuple[Difference, ...]:
    paths = dict.fromkeys((*stored, *here))
    pairs = ((path, stored.get(path, ABSENT), here.get(path, ABSENT)) for path in paths)
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def _fields(value: JsonValue, path: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested JSON by their path, as JSON text."""
    if path == NEEDS and isinstance(value, list):
        for need in value:
            assert isinstance(need, list)
            yield f"{NEEDS}.{need[0]}", str(need[1])
    elif isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _fields(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for i, inner in enumerate(value):
            yield from _fields(inner, f"{path}[{i}]")
    else:
        yield path.removeprefix("decides."), json.dumps(value)
