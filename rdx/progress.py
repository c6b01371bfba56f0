"""How the cells of a grid stand, read from the store alone, whatever launcher runs them, and where.

grids/GRID.json               its cells, written when it is launched
evaluate/KEY/                 the cell has finished
        /KEY.running.json     it runs, or its process was killed (`rdx.store.held`)
        /KEY.failed.json      its last try failed; KEY.log has the traceback
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rdx import faults
from rdx.config import Cell
from rdx.store import MANIFEST, Unreadable, read_json, write_json
from rdx.store.held import lives, note_of, read_note
from rdx.text import counted

FEWEST_TOKENS = 64  # of a micro-batch that is tried after memory did not suffice
TO_RETRY = ("failed", "out of memory", "diverged", "killed")
STATES = ("finished", "running", "waiting", *TO_RETRY, "unreadable")
GRID = ("grid", "arguments", "hydra", "cells", "launched")  # keys of its file
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
        That a finished one took.
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
            facts = {"state": kind(error), "cause": cause(error), "log": str(log)}
            where = f"{socket.gethostname()}:{os.getpid()}"
            write_json(failed, {**facts, "where": where, "max_tokens": _tokens(cfg)})
        raise


def kind(error: BaseException) -> str:
    """Which of `TO_RETRY` an exception is."""
    if type(error).__name__ == "Diverged":
        return "diverged"
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or any(one in str(error).lower() for one in _MEMORY):
        return "out of memory"
    return "failed"


def cause(error: BaseException) -> str:
    """An exception in one line."""
    return faults.line(error)[:500]


def smaller(root: Path, signature: str) -> list[str]:
    """Overrides that halve the micro-batches of a cell whose memory did not suffice.

    They are no part of its identity. "auto" is left, which halves them itself.
    """
    found = _read(root / "evaluate" / f"{signature}.failed.json") or {}
    if found.get("state") != "out of memory":
        return []
    halves = {key: max(n // 2, FEWEST_TOKENS) for key, n in found.get("max_tokens", {}).items()}
    return [f"{key}={n}" for key, n in halves.items() if n < found["max_tokens"][key]]


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
        return _finished(folder)
    note = read_note(note_of(folder))
    if note is not None:
        return _begun(note, lives(note, folder.with_suffix(".held")))
    failed = _read(folder.with_suffix(".failed.json"))
    if failed is not None and failed.get("state") in TO_RETRY:
        cause, log, where = (str(failed.get(key, "")) for key in ("cause", "log", "where"))
        return Standing(failed["state"], cause, log, where)
    return Standing("waiting")


def _finished(folder: Path) -> Standing:
    facts, manifest = read_json(folder / "trial.json"), read_json(folder / MANIFEST, "files")
    return Standing(
        "finished", health=str(facts.get("health", "")), seconds=manifest.get("seconds")
    )


def _begun(note: dict[str, Any], alive: bool) -> Standing:
    """A cell that began and neither finished nor failed."""
    where = f"{note['host']}:{note['pid']}"
    stage, step, steps = note.get("stage", ""), note.get("step"), note.get("steps")
    how_far = (where, stage, step, steps, note["since"])
    if alive:
        return Standing("running", "", "", *how_far, _left(note))
    at = f" at step {step} of {steps}" if steps else ""
    why = "its process ended without an error: SIGKILL, no memory, a time limit"
    return Standing("killed", f"{why}; in {stage or 'the beginning'}{at}", "", *how_far)


def _left(note: dict[str, Any]) -> float | None:
    """Seconds to the last step of a stage, at the pace since its first note."""
    step, steps, first = note.get("step"), note.get("steps"), note.get("first_step")
    if not steps or step is None or first is None or step <= first:
        return None
    pace = max(note["now"] - note["stage_since"], 0.0) / (step - first)
    return float(pace * (steps - step))


# --- grids ---


def write_grid(
    root: Path, grid: str, cells: Sequence[Cell], arguments: Sequence[str], hydra: Sequence[str]
) -> None:
    """Write what a grid is; where that is not possible, the grid runs without it."""
    rows = [{"overrides": list(c.overrides), "signature": c.signature} for c in cells]
    facts = {"grid": grid, "arguments": list(arguments), "hydra": list(hydra), "cells": rows}
    with suppress(OSError):
        (root / "grids").mkdir(parents=True, exist_ok=True)
        write_json(root / "grids" / f"{grid}.json", {**facts, "launched": time.time()})


def read_grid(root: Path, name: str = "") -> dict[str, Any]:
    """A grid by its id or the beginning of it; of several, and without a name, the newest.

    Raises
    ------
    ValueError
        If there is none.
    Unreadable
        If it cannot be read; of several, one that can be read is taken, with a warning.
    """
    every, unreadable = _grids(root / "grids", name)
    some = [one for one in every if one["grid"].startswith(name)]
    for error in unreadable:
        if not some:
            raise error
        print(f"rdx: WARNING {error}", file=sys.stderr)
    if not some:
        known = ", ".join(sorted(one["grid"] for one in every)) or "none"
        raise ValueError(f"{root}: no grid {name or 'was launched'}; known: {known}")
    exact = [one for one in some if one["grid"] == name]
    return max(exact or some, key=lambda one: float(one["launched"]))


def _grids(folder: Path, name: str) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """The grids of a store, and why some of those that are meant cannot be read."""
    every, unreadable = [], []
    try:
        paths = sorted(path for path in os.listdir(folder) if path.endswith(".json"))
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise Unreadable(folder, error) from error
    for path in paths:
        try:
            every.append(read_json(folder / path, *GRID))
        except Unreadable as error:
            unreadable += [error] if path.startswith(name) else []
    return every, unreadable


def table(root: Path, grid: dict[str, Any]) -> dict[str, Any]:
    """How all cells of a grid stand: counts, healths, seconds left, and a row for every cell.

    The seconds left are those that the cells which wait or run will take at the median of the
    finished ones, with as many at once as run now; None if none has finished or none runs.
    """
    rows = [{**cell, **asdict(standing(root, cell["signature"]))} for cell in grid["cells"]]
    counts = {state: n for state in STATES if (n := sum(r["state"] == state for r in rows))}
    healths = [row["health"] for row in rows if row["state"] == "finished"]
    took = [row["seconds"] for row in rows if row["seconds"] is not None]
    running, waiting = counts.get("running", 0), counts.get("waiting", 0)
    left = None
    if took and running:
        begun = sum(
            max(median(took) - (time.time() - r["since"]), 0.0)
            for r in rows
            if r["state"] == "running"
        )
        left = (waiting * median(took) + begun) / running
    return {
        "grid": grid["grid"],
        "counts": counts,
        "health": {name: healths.count(name) for name in sorted(set(healths))},
        "seconds_left": left,
        "cells": rows,
    }


def text(found: dict[str, Any]) -> str:
    """The table for people: counts, then a line for each cell that runs, failed or was killed."""
    healths = ", ".join(f"{name} {n}" for name, n in found["health"].items())
    counts = ", ".join(f"{n} {state}" for state, n in found["counts"].items())
    lines = [f"grid {found['grid']}: {counted(len(found['cells']), 'cell')}: {counts}"]
    lines += [f"   health of the finished: {healths}"] if healths else []
    if found["seconds_left"] is not None:
        lines.append(f"   about {duration(found['seconds_left'])} left")
    for row in found["cells"]:
        if row["state"] == "running":
            at = f": step {row['step']} of {row['steps']}" if row["steps"] else ""
            rest = f", its last in about {duration(row['left'])}" if row["left"] else ""
            since = duration(time.time() - row["since"])
            lines.append(f"running  {' '.join(row['overrides'])}")
            lines.append(f"         {row['where']} for {since}, {row['stage']}{at}{rest}")
        elif row["state"] in (*TO_RETRY, "unreadable"):
            lines += failure(row["overrides"], row["state"], row["cause"], row["log"])
    return "\n".join(lines)


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


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
