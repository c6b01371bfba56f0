"""Which cells are done, which stages they share, and what the rest takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rdx import config
from rdx.config import Cell
from rdx.plan.asking import Service, services
from rdx.plan.shelf import MOST, Shelf
from rdx.plan.work import STAGES, History, Span, but_for_the_seed

FINISHED, UNRECORDED, TO_RUN = "finished", "stored, not recorded", "to run"


@dataclass(frozen=True)
class StagePlan:
    """A stage in all cells.

    Attributes
    ----------
    distinct
        Different results that the cells name.
    stored, compute
        Of these, how many are there, and how many are to be made; others no cell needs any more.
        Of `reference`, one result stands for a teacher and the test sets that it ranks too, and is
        there when a finished cell of the plan has it.
    seconds
        Of what is to be made and can be estimated.
    unknown
        How many of those to be made have nothing comparable in the store.
    bytes
        On disk of what is to be made; None if something has nothing comparable in the store.
    """

    stage: str
    distinct: int
    stored: int
    compute: int
    seconds: Span = field(default_factory=Span)
    unknown: int = 0
    bytes: int | None = 0


@dataclass(frozen=True)
class CellPlan:
    """A cell, its state, and what it would compute; what cells share, the first computes."""

    cell: Cell
    state: str
    computes: tuple[str, ...]


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
        return sum(one.state == state for one in self.cells)

    @property
    def seconds(self) -> Span:
        """One stage after the other, as far as they can be estimated."""
        return sum((stage.seconds for stage in self.stages), Span())

    @property
    def bytes(self) -> int | None:
        """What the store grows by; None if a stage is unknown."""
        held = [stage.bytes for stage in self.stages]
        return None if None in held else sum(one for one in held if one is not None)


def plan(overrides: Sequence[str]) -> Plan:
    """Find out what the cells of a command line would take; nothing is run, nothing written.

    Raises
    ------
    ConfigError
        On what `rdx.config.split` refuses or, in a cell that is not finished, `rdx.config.check`.
    """
    every, left_out = config.split(overrides)
    cells = config.distinct(every)
    shelf = Shelf()
    waiting = [cell for cell in cells if not shelf.has(cell, "evaluate")]
    lacking = _lacking(waiting)
    done = [cell for cell in cells if shelf.has(cell, "evaluate")][:MOST]
    past = [*shelf.finished(done), *(shelf.others(cells) if waiting else ())]
    history = History(past, shelf)
    planned = _cells(cells, shelf, _recorded(cells))
    work = {s: [one.cell for one in planned if s in one.computes] for s in STAGES}
    stages = tuple(_stage(stage, cells, work[stage], shelf, history) for stage in STAGES)
    tracked = [c for c in work["evaluate"] if c.cfg["tracking"].get("uri") is not None]
    copies = [history.bytes("evaluate", cell.cfg) for cell in tracked]
    store = Path(cells[0].cfg["store"])
    there = next(path for path in (store.absolute(), *store.absolute().parents) if path.exists())
    return Plan(
        cells=tuple(planned),
        left_out=tuple(left_out),
        lacking=tuple(lacking),
        repeated=len(every) - len(cells),
        stages=stages,
        services=services(work["teach"], work["reference"]),
        one_more=_one_more(cells, history),
        copied=None if None in copies else sum(one for one in copies if one is not None),
        store=str(store),
        free=shutil.disk_usage(there).free,
    )


def needs(cell: Cell) -> tuple[str, ...]:
    """The stages of a cell when nothing is stored."""
    if cell.cfg["loss"] is None:
        return ("prefinetune", "evaluate")
    return tuple(stage for stage in STAGES if stage != "reference" or _ranks_tests(cell))


def _ranks_tests(cell: Cell) -> bool:
    """Whether the teacher also ranks test queries."""
    if cell.cfg["loss"] is None or not cell.cfg["evaluation"]["teacher_queries"]:
        return False
    return bool(config.build(cell.cfg["teacher"], "teacher").ranks_unseen)


def _ranked_tests(cell: Cell) -> bool:
    """Whether the teacher did, in a finished cell: without loading the teacher's class."""
    runs = Path(cell.cfg["store"], "evaluate", cell.signature, "runs")
    return any(runs.glob("*.teacher.run.gz"))


def _cells(cells: list[Cell], shelf: Shelf, recorded: dict[str, bool]) -> list[CellPlan]:
    """What every cell would compute, in the order in which they would run."""
    made = {
        ("reference", cell.keys["reference"])
        for cell in cells
        if shelf.has(cell, "evaluate") and _ranked_tests(cell)
    }
    found = []
    for cell in cells:
        if shelf.has(cell, "evaluate"):
            state = FINISHED if recorded[cell.signature] else UNRECORDED
            found.append(CellPlan(cell, state, ()))
            continue
        trained = "prefinetune" if cell.cfg["loss"] is None else "distill"
        wanted = needs(cell)
        if shelf.has(cell, trained) or (trained, cell.keys[trained]) in made:
            wanted = tuple(stage for stage in wanted if stage in ("reference", "evaluate"))
        computes = tuple(
            stage
            for stage in wanted
            if (stage, cell.keys[stage]) not in made and not shelf.has(cell, stage)
        )
        made |= {(stage, cell.keys[stage]) for stage in computes}
        found.append(CellPlan(cell, TO_RUN, computes))
    return found


def _stage(
    stage: str, cells: list[Cell], compute: list[Cell], shelf: Shelf, history: History
) -> StagePlan:
    trained = [cell for cell in cells if cell.cfg["loss"] is not None]
    using = cells if stage in ("prefinetune", "evaluate") else trained
    if stage == "reference":
        done = [cell for cell in trained if shelf.has(cell, "evaluate")]
        there = {cell.keys[stage] for cell in done if _ranked_tests(cell)}
        named = there | {cell.keys[stage] for cell in compute}
    else:
        named = {cell.keys[stage] for cell in using}
        there = {cell.keys[stage] for cell in using if shelf.has(cell, stage)}
    spans = [history.seconds(stage, cell.cfg) for cell in compute]
    known = [span for span in spans if span is not None]
    held = [history.bytes(stage, cell.cfg) for cell in compute]
    return StagePlan(
        stage=stage,
        distinct=len(named),
        stored=len(there),
        compute=len(compute),
        seconds=sum(known, Span()),
        unknown=len(spans) - len(known),
        bytes=None if None in held else sum(one for one in held if one is not None),
    )


def _covering(cells: list[Cell]) -> Iterator[Cell]:
    """Few cells that have every node of the groups: to check each node, not each cell."""
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        nodes = {(g, json.dumps(cell.cfg[g], sort_keys=True)) for g in config.GROUPS}
        if not nodes <= seen:
            seen |= nodes
            yield cell


def _lacking(cells: list[Cell]) -> list[str]:
    """Check cells; the first file that each lacks. Other faults are errors.

    Plans are made before data are fetched.
    """
    found = []
    for cell in _covering(cells):
        try:
            config.check(cell)
        except config.MissingFile as error:
            found.append(str(error).partition("\n")[0])
    return list(dict.fromkeys(found))


def _recorded(cells: list[Cell]) -> dict[str, bool]:
    """Signature -> whether the trial is recorded as finished, or nothing is recorded at all."""
    looked: dict[str, set[str] | None] = {}
    found = {}
    for cell in cells:
        node = json.dumps(cell.cfg["tracking"], sort_keys=True)
        if node not in looked:
            looked[node] = config.build(cell.cfg["tracking"], "tracking").recorded()
        there = looked[node]
        found[cell.signature] = there is None or cell.signature in there
    return found


def _one_more(cells: list[Cell], history: History) -> Span | None:
    """Seconds of distilling and evaluating one trained cell, the mean over systems."""
    systems = {but_for_the_seed(c.cfg): c for c in cells if c.cfg["loss"] is not None}
    known = []
    for cell in systems.values():
        parts = [history.seconds(stage, cell.cfg) for stage in ("distill", "evaluate")]
        both = [one for one in parts if one is not None]
        if len(both) == 2:
            known.append(both[0] + both[1])
    if not known:
        return None
    whole = sum(known, Span())
    n = len(known)
    return Span(whole.value / n, whole.low / n, whole.high / n, whole.observed)
