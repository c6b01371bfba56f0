"""What is derived from the table: steps, signatures, cells with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import JsonValue

from rdx import config
from rdx.config import Cell
from rdx.facts import origins_of, shallow
from rdx.job import Parts
from rdx.stages import origins
from rdx.stages.stage import Step, Work
from rdx.stages.table import LAST, SCHEMA, STAGES
from rdx.store import signature


class Signatures:
    """What the steps of a cell sign, and their signatures, each found once."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._keys: dict[Step, str] = {}

    def signed(self, step: Step) -> dict[str, JsonValue]:
        """What decides a step's result, itself and by what it needs."""
        stage, parts = STAGES[step.stage], self.parts.of(step.of)
        needs = [need.within(step.of) for need in stage.needs(parts, step.role)]
        return {
            "stage": stage.name,
            "schema": SCHEMA,
            "decides": stage.decides(parts, step.role),
            "needs": [[need.stage, self.key(need)] for need in needs],
        }

    def key(self, step: Step) -> str:
        """The signature of a step."""
        if step not in self._keys:
            self._keys[step] = signature(self.signed(step))
        return self._keys[step]


def steps(parts: Parts, last: Step = LAST) -> list[Step]:
    """All steps that a result takes, in an order in which they can be made; itself the last."""
    known: dict[Step, None] = {}

    def add(step: Step) -> None:
        if step not in known:
            for need in inputs(parts, step):
                add(need)
            known[step] = None

    add(last)
    return list(known)


def inputs(parts: Parts, step: Step) -> list[Step]:
    """The steps whose artifacts a step gets."""
    given = STAGES[step.stage].inputs(parts.of(step.of), step.role)
    return [need.within(step.of) for need in given]


def work(parts: Parts, step: Step) -> Work:
    """How much work a step is."""
    return STAGES[step.stage].work(parts.of(step.of), step.role)


def begun(cell: Cell, precision: str | None = None, bases: config.Bases | None = None) -> Cell:
    """The cell with the students that it takes from elsewhere, and their cells (`origins`).

    `precision` and `bases` are those of `rdx.config.split`.

    Raises
    ------
    ConfigError
        If there is no such student, or this cell cannot begin from it.
    """
    bases = {} if bases is None else bases
    return origins.found(
        cell,
        compose=lambda overrides: config.single(overrides, precision, bases),
        sign=lambda other: signed(other, precision, bases),
    )


def signed(cell: Cell, precision: str | None = None, bases: config.Bases | None = None) -> Cell:
    """`begun`, with the signatures of its steps, and its own, which is that of the last."""
    cell = begun(cell, precision, bases)
    signatures = Signatures(Parts(cell.cfg))
    keys = {str(step): signatures.key(step) for step in steps(signatures.parts)}
    return replace(cell, keys=keys, signature=keys[str(LAST)])


def over_seeds(cell: Cell) -> str:
    """What a cell's signature would be with one certain seed: equal of its other seeds' cells.

    Students that it takes from elsewhere have that seed, too.
    """
    return signed(replace(cell, cfg=_of_one_seed(cell.cfg))).signature


def _of_one_seed(cfg: config.Config) -> config.Config:
    origins = {
        key: shallow(replace(origin, cell=origin.cell and _of_one_seed(origin.cell)))
        for key, origin in origins_of(cfg).items()
    }
    return {**cfg, "seed": 0, "origins": origins or None}


def split(
    what: str | Sequence[str], precision: str | None = None, bases: config.Bases | None = None
) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """`rdx.config.split`, the possible cells signed."""
    bases = {} if bases is None else bases
    cells, left_out = config.split(what, precision, bases)
    return [signed(cell, precision, bases) for cell in cells], left_out


def cells(what: str | Sequence[str]) -> list[Cell]:
    """`rdx.config.cells`, signed."""
    return split(what)[0]


def distinct(cells: Sequence[Cell], stage: str = LAST.stage) -> list[Cell]:
    """The first cell of each signature of a stage, in the order of the last ones."""
    return list({cell.keys[stage]: cell for cell in reversed(cells)}.values())[::-1]
