"""Plan a grid: which cells are done, which stages they share, and what the rest takes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rdx import config, folders, stages
from rdx.config import Cell
from rdx.job import Parts
from rdx.plan.history import History, Source, Span, but_for_the_seed
from rdx.plan.services import Service, services
from rdx.plan.stored import MOST, Shelf
from rdx.stages import DISTILL, EVALUATE, LAST, STAGES, Step, work

FINISHED, UNRECORDED, TO_RUN = "finished", "stored, not recorded", "to run"


@dataclass(frozen=True)
class Basis:
    """Where the times of so many results that are to be made come from."""

    source: Source
    results: int


@dataclass(frozen=True)
class StagePlan:
    """A stage in all cells.

    Attributes
    ----------
    distinct
        Different results that the cells name.
    stored, compute
        Of these, how many are there, and how many are to be made; others no cell needs any more.
    seconds
        Of what is to be made and can be estimated.
    unknown
        How many of those to be made cannot.
    bases
        What the estimates come from, or why there are none.
    bytes
        On disk of what is to be made; None if something has nothing comparable in the store.
    """

    stage: str
    distinct: int
    stored: int
    compute: int
    seconds: Span = field(default_factory=Span)
    unknown: int = 0
    bases: tuple[Basis, ...] = ()
    bytes: int | None = 0


@dataclass(frozen=True)
class CellPlan:
    """A cell, its state, and the steps it would compute; what cells share, the first computes."""

    cell: Cell
    state: str
    steps: tuple[Step, ...]

    @property
    def computes(self) -> tuple[str, ...]:
        """The stages that it would compute, those of cells that its students come from by these."""
        return tuple(dict.fromkeys(str(Step(step.stage, of=step.of)) for step in self.steps))


@dataclass(frozen=True)
class Plan:
    """What a command line would take.

    Attributes
    ----------
    cells, left_out
        The distinct cells; and those left out, each with the reason.
    lacking
        Files that are not there: where the configuration looks for them. They are part of
        signatures, so that the cells have others once they are there.
    repeated
        How many more cells the grid has that are equal to one of these.
    stages, services
        Per stage; per teacher behind a service.
    one_more
        Seconds of distilling and evaluating one cell, the mean over systems; None if unknown.
    copied
        Bytes that MLflow keeps copies of; None if unknown.
    store, free
        Folder of the store, and bytes free on its disk.
    """

    cells: tuple[CellPlan, ...]
    left_out: tuple[tuple[Cell, str], ...]
    lacking: tuple[str, ...]
    repeated: int
    stages: tuple[StagePlan, ...]
    services: tuple[Service, ...]
    one_more: Span | None
    copied: int | None
    store: str
    free: int

    def count(self, state: str) -> int:
        """Number of cells in a state."""
        return sum(cell.state == state for cell in self.cells)

    @property
    def seconds(self) -> Span:
        """One stage after the other, as far as they can be estimated."""
        return sum((stage.seconds for stage in self.stages), Span())

    @property
    def bytes(self) -> int | None:
        """What the store grows by; None if a stage is unknown."""
        return _total(stage.bytes for stage in self.stages)


def plan(overrides: Sequence[str], device: str | None = None) -> Plan:
    """Find out what the cells of a command line would take; nothing is run, nothing written.

    Parameters
    ----------
    device
        Whose times are told, as a plan names it; None: this machine's.

    Raises
    ------
    ConfigError
        On what `rdx.config.split` refuses or, in a cell that is not finished, `rdx.config.check`;
        and if no stored result was made on the device.
    """
    possible, left_out = stages.split(overrides)
    cells = stages.distinct(possible)
    shelf = Shelf()
    waiting = [cell for cell in cells if not shelf.has(cell)]
    lacking = _lacking(waiting)
    done = [cell for cell in cells if shelf.has(cell)][:MOST]
    past = [*shelf.finished(done), *(shelf.others(cells) if waiting else ())]
    history = History(past, shelf, device)
    parts = {cell.signature: Parts(cell.cfg) for cell in cells}
    planned = _cells(cells, parts, shelf)
    to_make = [(parts[plan.cell.signature], step) for plan in planned for step in plan.steps]
    tracked = [plan.cell for plan in planned if plan.steps and "uri" in plan.cell.cfg["tracking"]]
    copies = [history.bytes(work(parts[cell.signature], LAST)) for cell in tracked]
    if not cells:
        raise config.ConfigError(config.NO_CELL)
    folder = Path(cells[0].cfg["store"])
    return Plan(
        cells=tuple(planned),
        left_out=tuple(left_out),
        lacking=tuple(lacking),
        repeated=len(possible) - len(cells),
        stages=tuple(_stage(name, cells, parts, to_make, shelf, history) for name in STAGES),
        services=services(to_make),
        one_more=_one_more([parts[cell.signature] for cell in cells], history),
        copied=_total(copies),
        store=str(folder),
        free=shutil.disk_usage(folders.existing(folder)).free,
    )


def _total(sizes: Iterable[int | None]) -> int | None:
    """Their sum; None if one is unknown."""
    known = list(sizes)
    return None if None in known else sum(size for size in known if size is not None)


def _cells(cells: list[Cell], parts: dict[str, Parts], shelf: Shelf) -> list[CellPlan]:
    """What every cell would compute, in the order in which they would run."""
    claimed: set[tuple[str, str]] = set()

    def missing(cell: Cell, step: Step) -> Iterator[Step]:
        """The steps that are made for a step, dependencies first."""
        place = (step.stage, cell.keys[str(step)])
        if place in claimed or shelf.has(cell, step):
            return
        claimed.add(place)
        for need in stages.inputs(parts[cell.signature], step):
            yield from missing(cell, need)
        yield step

    looked: dict[str, set[str] | None] = {}

    def records(cell: Cell, objects: Parts) -> set[str] | None:
        """Signatures of the trials that are recorded; None if nothing is recorded at all."""
        key = json.dumps([cell.cfg["tracking"], cell.cfg["store"]], sort_keys=True)
        if key not in looked:
            looked[key] = objects.tracking.recorded(Path(cell.cfg["store"]))
        return looked[key]

    planned = []
    for cell in cells:
        if shelf.has(cell):
            recorded = records(cell, parts[cell.signature])
            whole = recorded is None or cell.signature in recorded
            planned.append(CellPlan(cell, FINISHED if whole else UNRECORDED, ()))
        else:
            planned.append(CellPlan(cell, TO_RUN, tuple(missing(cell, LAST))))
    return planned


def _stage(
    stage: str,
    cells: list[Cell],
    parts: dict[str, Parts],
    to_make: list[tuple[Parts, Step]],
    shelf: Shelf,
    history: History,
) -> StagePlan:
    named, stored = set(), set()
    for cell in cells:
        for step in stages.steps(parts[cell.signature]):
            if step.stage == stage:
                named.add(cell.keys[str(step)])
                stored |= {cell.keys[str(step)]} if shelf.has(cell, step) else set()
    amounts = [work(objects, step) for objects, step in to_make if step.stage == stage]
    estimates = [history.estimate(amount) for amount in amounts]
    known = [estimate.span for estimate in estimates if estimate.span is not None]
    bases = Counter(estimate.source for estimate in estimates)
    return StagePlan(
        stage=stage,
        distinct=len(named),
        stored=len(stored),
        compute=len(amounts),
        seconds=sum(known, Span()),
        unknown=len(estimates) - len(known),
        bases=tuple(Basis(source, results) for source, results in bases.items()),
        bytes=_total(history.bytes(amount) for amount in amounts),
    )


def _covering(cells: list[Cell]) -> Iterator[Cell]:
    """Few cells that have every node of the groups: to check each node, not each cell."""
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        keys = (*config.GROUPS, "origins")
        nodes = {(key, json.dumps(cell.cfg.get(key), sort_keys=True)) for key in keys}
        if not nodes <= seen:
            seen |= nodes
            yield cell


def _lacking(cells: list[Cell]) -> list[str]:
    """Check cells; the first file that each lacks. Other faults are errors.

    Plans are made before data are fetched.
    """
    files = []
    for cell in _covering(cells):
        try:
            config.check(cell)
        except config.MissingFile as error:
            files.append(str(error).partition("\n")[0])
    return list(dict.fromkeys(files))


def _one_more(parts_of_cells: list[Parts], history: History) -> Span | None:
    """Seconds of distilling and evaluating one trained cell, the mean over systems."""
    systems = {but_for_the_seed(parts): parts for parts in parts_of_cells if parts.loss is not None}
    known = []
    for parts in systems.values():
        both = [
            span
            for stage in (DISTILL, EVALUATE)
            if (span := history.estimate(work(parts, Step(stage.name))).span) is not None
        ]
        if len(both) == 2:
            known.append(both[0] + both[1])
    return sum(known, Span()).scaled(1 / len(known)) if known else None
