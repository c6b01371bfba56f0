"""How the cells of a grid stand, read from the store alone, whatever launcher runs them, and where.

grids/GRID.json               its cells, written when it is launched
evaluate/KEY.cell.json        the cell was begun; so is teach/KEY.cell.json of labels alone
evaluate/KEY/                 the cell has finished
        /KEY.running.json     it runs, or its process was killed (`rdx.store.locks`)
        /KEY.failed.json      its last try failed; KEY.log has the traceback
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rdx import faults, store
from rdx.arguments import near
from rdx.artifacts import TRIAL
from rdx.config import Cell
from rdx.facts import Begun, Failure, Grid, GridCell, Holder, Manifest, TrialFacts
from rdx.faults import Diverged
from rdx.job import Parts
from rdx.stages import LAST, STAGES, TEACH, Step, steps
from rdx.store import MANIFEST, NotFound, Unreadable
from rdx.store import grids as records
from rdx.store.grids import all_grids, newest
from rdx.store.locks import lives, note_of, read_note
from rdx.text import counted

FEWEST_TOKENS = 64  # of a micro-batch that is tried after memory did not suffice
TO_RETRY = ("failed", "out of memory", "diverged", "killed")
STATES = ("finished", "running", "waiting", *TO_RETRY, "unreadable")
# What libraries say whose exceptions have no class for it.
_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


@dataclass(frozen=True)
class Standing:
    """How a cell stands.

    Attributes
    ----------
    state
        One of `STATES`; "waiting" if it never began, or was stopped by hand; "unreadable" if what
        the store has of it cannot be read.
    cause
        Of one that failed, was killed or is unreadable, in a line.
    log
        File with the traceback; "" without one.
    where
        host:pid of one that runs or was killed.
    stage, step, steps
        How far one is that runs, or how far one came that was killed; steps are of the optimiser.
    since
        When one that runs began, in seconds since 1970.
    left
        Seconds that its training will take, at the pace so far; None if not known.
    health
        Of a finished one.
    seconds
        That the stages of a finished one took which no other cell shares; None if one of them was
        interrupted, so that nothing tells.
    """

    state: str
    cause: str = ""
    log: str = ""
    where: str = ""
    stage: str = ""
    step: int | None = None
    steps: int | None = None
    since: float | None = None
    left: float | None = None
    health: str = ""
    seconds: float | None = None


@contextmanager
def begun(root: Path, cell: Cell, last: Step = LAST) -> Iterator[None]:
    """Note that a cell is worked on, and what it needs, until it ends.

    The note of what is not finished stays: by it the cell is found, and run again. Where it cannot
    be written, the cell runs without it.

    Parameters
    ----------
    last
        The step that is worked for.
    """
    name = str(last)
    note = cell_note(root, last.stage, cell.keys[name])
    if note.exists() and note.with_name(cell.keys[name]).exists():
        yield  # it is finished, and known
        return
    signatures = {str(step): cell.keys[str(step)] for step in steps(Parts(cell.cfg), last)}
    what = GridCell(cell.overrides, cell.keys[name], signatures)
    process = {"host": socket.gethostname(), "pid": os.getpid()}
    record = Begun(cell=what, since=time.time(), **process)  # type: ignore[arg-type]
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        store.write(note, record)
    try:
        yield
    finally:
        with suppress(OSError):
            store.write(note, replace(record, host="", pid=0))


def cell_note(root: Path, stage: str, key: str) -> Path:
    """The note of what was begun."""
    return root / stage / f"{key}{CELL}"


CELL = ".cell.json"


def all_begun(root: Path) -> tuple[list[tuple[str, Begun]], list[Unreadable]]:
    """What was begun, with its stage; and why some notes cannot be read."""
    notes, unreadable = [], []
    for stage in (LAST.stage, TEACH.name):
        for path in sorted((root / stage).glob(f"*{CELL}")):
            try:
                notes.append((stage, store.read(Begun, path)))
            except FileNotFoundError:
                continue
            except Unreadable as error:
                unreadable.append(error)
    return notes, unreadable


@contextmanager
def recorded(root: Path, signature: str, cfg: dict[str, Any]) -> Iterator[None]:
    """Record a cell that fails, with its traceback; a record of an earlier failure goes."""
    folder = root / "evaluate" / signature
    failed, log = folder.with_suffix(".failed.json"), folder.with_suffix(".log")
    with suppress(OSError):
        failed.unlink()
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # a full disk, perhaps: the error itself says so
            faults.keep_log(error, log)
            failure = Failure(
                state=kind(error),
                cause=cause(error),
                log=str(log),
                where=f"{socket.gethostname()}:{os.getpid()}",
                max_tokens=_tokens(cfg),
            )
            store.write(failed, failure)
        raise


def kind(error: BaseException) -> str:
    """Which of `TO_RETRY` an exception is."""
    if isinstance(error, Diverged):
        return "diverged"
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if no_memory or isinstance(error, MemoryError) or _of_torch(error):
        return "out of memory"
    return "failed"


def _of_torch(error: BaseException) -> bool:
    """Whether it is torch's on a GPU, which has a class, or on a CPU, which has words alone."""
    named = type(error).__name__ == "OutOfMemoryError"
    text = str(error).lower()
    return named or (isinstance(error, RuntimeError) and any(word in text for word in _MEMORY))


def cause(error: BaseException) -> str:
    """An exception in one line."""
    return faults.line(error)[:500]


def smaller(root: Path, signature: str) -> list[str]:
    """Overrides that halve the micro-batches of a cell whose memory did not suffice.

    They are no part of its identity. "auto" is left, which halves them itself.
    """
    failure = _failure_of(root / "evaluate" / signature)
    if failure is None or failure.state != "out of memory":
        return []
    halves = {key: max(n // 2, FEWEST_TOKENS) for key, n in failure.max_tokens.items()}
    return [f"{key}={n}" for key, n in halves.items() if n < failure.max_tokens[key]]


def standing(root: Path, signature: str) -> Standing:
    """How a cell stands; the result of a finished one is not verified, which reading it does."""
    folder = root / "evaluate" / signature
    try:
        return _standing(folder)
    except PermissionError as error:
        return Standing("unreadable", str(Unreadable(error.filename or folder, error)))
    except FileNotFoundError as error:
        return Standing("unreadable", str(Unreadable(error.filename, "it is missing")))
    except Unreadable as error:
        return Standing("unreadable", str(error))


def _standing(folder: Path) -> Standing:
    if (folder / MANIFEST).exists():
        facts = store.read(TrialFacts, folder / TRIAL)
        evaluated = store.read(Manifest, folder / MANIFEST)
        return Standing("finished", health=facts.health, seconds=_took(folder, facts, evaluated))
    holder = read_note(note_of(folder))
    if holder is not None:
        return _begun(holder, lives(holder.host, holder.pid, folder.with_suffix(".held")))
    failure = _failure_of(folder)
    if failure is not None and failure.state in TO_RETRY:
        return Standing(failure.state, failure.cause, failure.log, failure.where)
    return Standing("waiting")


def _took(folder: Path, facts: TrialFacts, evaluated: Manifest) -> float | None:
    """Seconds of the stages that every cell makes itself; None if one was interrupted, or is gone.

    `plan` tells the time of one more cell from the same records.
    """
    before = {s.name: facts.signatures.get(s.name) for s in STAGES.values() if s.again}
    before.pop(LAST.stage)
    paths = [folder.parents[1] / stage / key / MANIFEST for stage, key in before.items() if key]
    try:
        manifests = [evaluated, *(store.read(Manifest, path) for path in paths)]
    except FileNotFoundError:
        return None
    whole = not any(manifest.resumed for manifest in manifests)
    return sum(manifest.seconds for manifest in manifests) if whole else None


def _failure_of(folder: Path) -> Failure | None:
    """The record of the last failure of a cell, if it can be read."""
    try:
        return store.read(Failure, folder.with_suffix(".failed.json"))
    except OSError:
        return None


def _begun(holder: Holder, alive: bool) -> Standing:
    """A cell that began and neither finished nor failed."""
    where = f"{holder.host}:{holder.pid}"
    how_far = (where, holder.stage, holder.step, holder.steps, holder.since)
    if alive:
        return Standing("running", "", "", *how_far, _left(holder))
    at = f" at step {holder.step} of {holder.steps}" if holder.steps else ""
    why = "its process ended without an error: SIGKILL, no memory, a time limit"
    return Standing("killed", f"{why}; in {holder.stage or 'the beginning'}{at}", "", *how_far)


def _left(holder: Holder) -> float | None:
    """Seconds to the last step of a stage, at the pace since its first note."""
    pace = holder.pace
    if pace is None or not holder.steps:
        return None
    return pace.seconds / pace.share * (1 - (holder.step or 0) / holder.steps)


# --- grids ---


def write_grid(
    root: Path, grid: str, cells: Sequence[Cell], arguments: Sequence[str], hydra: Sequence[str]
) -> None:
    """Write what a grid is; see `rdx.store.grids`."""
    record = Grid(
        grid=grid,
        arguments=tuple(arguments),
        hydra=tuple(hydra),
        cells=tuple(GridCell(cell.overrides, cell.signature, cell.keys) for cell in cells),
        launched=time.time(),
    )
    records.write_grid(root, record)


def find(root: Path, name: str = "") -> Grid | GridCell:
    """A grid as of `read_grid`; or a cell by its signature, or an unambiguous beginning of it.

    A cell is one that is finished, was begun, or belongs to a grid.

    Raises
    ------
    NotFound, ValueError
        If there is neither.
    Unreadable
        If it cannot be read.
    """
    grids, unreadable = all_grids(root, name)
    if not name or unreadable or any(grid.grid.startswith(name) for grid in grids):
        return newest(root, name, grids, unreadable)
    cells = {cell.signature: cell for grid in grids for cell in grid.cells}
    notes, _ = all_begun(root)
    cells = {note.cell.signature: note.cell for stage, note in notes if stage == LAST.stage} | cells
    places = [root / LAST.stage, root / "import"]
    for folder in (folder for place in places for folder in store.results(place)):
        cells.setdefault(folder.name, GridCell((), folder.name))
    if cell := store.begin_so(name, cells.values(), key=lambda cell: cell.signature):
        return cell
    ids = [grid.grid for grid in grids]
    begins = [known[: len(name)] for known in (*ids, *cells)]
    known = [*sorted(ids), *sorted(cells)]
    raise NotFound(
        f"{root}: no grid and no cell begins with {name!r}{near(name, begins)}; there are "
        f"{counted(len(ids), 'grid')} and {counted(len(cells), 'cell')}"
        f"{': ' if known else ''}{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
    )


@dataclass(frozen=True)
class GridStanding:
    """How all cells of a grid stand.

    Attributes
    ----------
    grid
        Its id.
    counts, health
        Cells by state; finished cells by health.
    seconds_left
        That the cells which wait or run will take at the median of the finished ones, with as many
        at once as run now; None if none has finished or none runs.
    cells
        Each cell with its standing.
    """

    grid: str
    counts: dict[str, int]
    health: dict[str, int]
    seconds_left: float | None
    cells: tuple[tuple[GridCell, Standing], ...]


def table(root: Path, grid: Grid) -> GridStanding:
    """How all cells of a grid stand."""
    cells = tuple((cell, standing(root, cell.signature)) for cell in grid.cells)
    standings = [stood for _, stood in cells]
    counts = {s: n for s in STATES if (n := sum(stood.state == s for stood in standings))}
    healths = [stood.health for stood in standings if stood.state == "finished"]
    health = {name: healths.count(name) for name in sorted(set(healths))}
    left = _seconds_left(standings, counts.get("waiting", 0))
    return GridStanding(grid.grid, counts, health, left, cells)


def row(cell: GridCell, stood: Standing) -> dict[str, Any]:
    """Plain values of a cell and how it stands."""
    return {"overrides": cell.overrides, "signature": cell.signature} | asdict(stood)


def as_json(grid: GridStanding) -> dict[str, Any]:
    """Plain values: the counts, and a row for every cell."""
    cells = [row(cell, stood) for cell, stood in grid.cells]
    return asdict(replace(grid, cells=())) | {"cells": cells}


def _seconds_left(standings: Sequence[Standing], waiting: int) -> float | None:
    took = [stood.seconds for stood in standings if stood.seconds is not None]
    begun = [stood.since for stood in standings if stood.state == "running" and stood.since]
    if not took or not begun:
        return None
    rest = sum(max(median(took) - (time.time() - since), 0.0) for since in begun)
    return (waiting * median(took) + rest) / len(begun)


def text(grid: GridStanding) -> str:
    """The table for people: counts, then a line for each cell that runs, failed or was killed."""
    healths = ", ".join(f"{name} {n}" for name, n in grid.health.items())
    counts = ", ".join(f"{n} {state}" for state, n in grid.counts.items())
    lines = [f"grid {grid.grid}: {counted(len(grid.cells), 'cell')}: {counts}"]
    lines += [f"   health of the finished: {healths}"] if healths else []
    if grid.seconds_left is not None:
        lines.append(f"   about {duration(grid.seconds_left)} left")
    for cell, stood in grid.cells:
        lines += _told(cell, stood)
    return "\n".join(lines)


def text_of_cell(cell: GridCell, stood: Standing) -> str:
    """How one cell stands, for people."""
    health = f", health: {stood.health}" if stood.health else ""
    took = f", {duration(stood.seconds)} of its own" if stood.seconds is not None else ""
    line = f"cell {cell.signature}: {stood.state}{health}{took}"
    return "\n".join([line, *_told(cell, stood)])


def _told(cell: GridCell, stood: Standing) -> list[str]:
    """Lines of a cell that runs, failed or was killed; of others none."""
    if stood.state == "running":
        return _running(cell, stood)
    if stood.state in (*TO_RETRY, "unreadable"):
        return failure(cell.overrides, stood.state, stood.cause, stood.log)
    return []


def _running(cell: GridCell, stood: Standing) -> list[str]:
    at = f": step {stood.step} of {stood.steps}" if stood.steps else ""
    rest = f", its last in about {duration(stood.left)}" if stood.left else ""
    since = duration(time.time() - (stood.since or time.time()))
    return [
        f"running  {' '.join(cell.overrides)}",
        f"         {stood.where} for {since}, {stood.stage}{at}{rest}",
    ]


def failure(overrides: Sequence[str], state: str, why: str, log: str) -> list[str]:
    """The lines of a table of failures: cell, state, cause, log."""
    lines = [f"FAILED  python -m rdx {' '.join(overrides)}", f"        {state}: {why}"]
    return [*lines, f"        log: {log}"] if log else lines


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(59), duration(150), duration(7300)
    ('59 s', '2.5 min', '2.0 h')
    """
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _tokens(cfg: dict[str, Any]) -> dict[str, int]:
    """The sizes of micro-batches that are given as numbers."""
    given = {f"{group}.max_tokens": cfg[group].get("max_tokens") for group in _SIZED}
    return {key: value for key, value in given.items() if isinstance(value, int)}


_SIZED = ("trainer", "evaluation")
