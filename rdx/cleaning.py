"""Remove from a store what nobody needs, or what one grid or cell alone needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdx.facts import Grid, GridCell
from rdx.holdings import (
    FINISHED,
    GRIDS,
    IMPORT,
    NOBODY,
    PLACES,
    RUNNING,
    Holdings,
    Key,
    StoreError,
    key_of_cell,
    size,
)
from rdx.progress import CELL
from rdx.stages import LAST
from rdx.store import OLD, PARTIAL, removal
from rdx.text import aligned, amount, counted
from rdx.tracking.log import GRID, TRIALS, Log

LEDGER = "ledger"  # where teachers keep their answers, unless they are told another place
# What ends the names of files beside a cell's result.
NEEDED = (FINISHED, GRIDS, RUNNING, NOBODY)
_BESIDE = (CELL, ".failed.json", ".log")


@dataclass(frozen=True)
class StageRow:
    """What a store has of a stage; numbers of results, and of bytes.

    Attributes
    ----------
    finished, grids, running, nobody
        Results by who needs them, the first that holds.
    unfinished, dead
        What killed processes left; of it, what no grid would go on from, and what was set aside.
    """

    stage: str
    results: int
    bytes: int
    finished: int
    grids: int
    running: int
    nobody: int
    nobody_bytes: int
    unfinished: int
    unfinished_bytes: int
    dead: int
    dead_bytes: int


@dataclass(frozen=True)
class Removal:
    """What is to be removed, each with its bytes.

    Attributes
    ----------
    results, partials, aside
        As of `Holdings`.
    logs, folders, files
        Records of trials and of a grid; further folders; small files, the last of them last.
    shared, shared_bytes
        Results that a grid or cell needs and that stay, since others need them.
    """

    results: dict[Key, int] = field(default_factory=dict)
    partials: dict[Key, int] = field(default_factory=dict)
    aside: dict[Key, int] = field(default_factory=dict)
    logs: dict[Path, int] = field(default_factory=dict)
    folders: dict[Path, int] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    shared: int = 0
    shared_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Of all of it but the small files."""
        keyed = (self.results, self.partials, self.aside)
        paths = (self.logs, self.folders)
        return sum(sum(sizes.values()) for sizes in (*keyed, *paths))

    def as_json(self) -> dict[str, Any]:
        """Plain values: rows of results, and numbers."""
        kinds = {"result": self.results, "unfinished": self.partials, "half removed": self.aside}
        return {
            "results": [
                {"stage": stage, "signature": key, "kind": kind, "bytes": n}
                for kind, sizes in kinds.items()
                for (stage, key), n in sizes.items()
            ],
            "folders": {str(path): n for path, n in {**self.logs, **self.folders}.items()},
            "bytes": self.bytes,
            "shared": self.shared,
            "shared_bytes": self.shared_bytes,
        }

    def __bool__(self) -> bool:
        """Whether there is anything to remove."""
        parts = (self.results, self.partials, self.aside, self.logs, self.folders, self.files)
        return any(parts)


def rows(held: Holdings) -> list[StageRow]:
    """What a store has, by stage."""
    orphans, dead = _orphans(held), _dead(held)
    shown = []
    for stage in PLACES:
        mine = [key for key in held.results if key[0] == stage]
        by = [held.by(key) for key in mine]
        left = _of(stage, {k: n for k, n in held.partials.items() if k not in held.locked})
        gone = _of(stage, dead) + _of(stage, held.aside)
        shown.append(
            StageRow(
                stage=stage,
                results=len(mine),
                bytes=sum(held.results[key] for key in mine),
                finished=by.count(FINISHED),
                grids=by.count(GRIDS),
                running=by.count(RUNNING),
                nobody=by.count(NOBODY),
                nobody_bytes=sum(_of(stage, orphans)),
                unfinished=len(left),
                unfinished_bytes=sum(left),
                dead=len(gone),
                dead_bytes=sum(gone),
            )
        )
    return [row for row in shown if row.results or row.unfinished or row.dead]


def _of(stage: str, sizes: dict[Key, int]) -> list[int]:
    return [n for key, n in sizes.items() if key[0] == stage]


def _orphans(held: Holdings) -> dict[Key, int]:
    return {key: n for key, n in held.results.items() if held.by(key) == NOBODY}


def _dead(held: Holdings) -> dict[Key, int]:
    """What killed processes left that no grid goes on from, and nothing that runs."""
    return {
        key: n
        for key, n in held.partials.items()
        if key not in held.locked and (key in held.results or held.by(key) == NOBODY)
    }


def clean(held: Holdings, ledger: bool = False) -> Removal:
    """What nobody needs, and what killed processes left; with `ledger`, all answers of teachers.

    Raises
    ------
    StoreError
        If it cannot be told who needs what; the ledger, while anything runs.
    """
    held.require_known()
    if ledger and (held.running or held.locked):
        raise StoreError("--ledger: something runs in this store, and may ask a teacher")
    places = [held.root / f"{LEDGER}{OLD}", *([held.root / LEDGER] if ledger else [])]
    return Removal(
        _orphans(held),
        _dead(held),
        held.aside,
        folders={place: size(place) for place in places if place.is_dir()},
    )


def free(held: Holdings, what: Grid | GridCell) -> Removal:
    """What a grid or a cell alone needs: its results, records and notes.

    Raises
    ------
    StoreError
        If some of it runs, if the cell is a grid's, or if it cannot be told who needs what.
    """
    if isinstance(what, GridCell):
        for other in held.grids:
            if what.signature in {cell.signature for cell in other.cells}:
                raise StoreError(
                    f"{what.signature} is a cell of grid {other.grid}, which would run it again; "
                    f"remove that: --free {other.grid}"
                )
    cells = [what] if isinstance(what, GridCell) else what.cells
    mine = {_own(held, cell.signature) for cell in cells}
    grid = None if isinstance(what, GridCell) else what
    for stage, key in sorted(mine & (set(held.running) | held.locked)):
        raise StoreError(f"{stage} {key} runs; stop it first")
    kept = _kept(held, mine, grid)
    while shared := mine & kept:  # a cell that others need keeps what it needs itself
        mine -= shared
        kept = _kept(held, mine, grid)
    held.require_known()
    every = held.cells | held.finished
    needed = {key for cell in cells for key in every.get(_own(held, cell.signature), ())}
    alone = needed - kept - held.locked
    names = [key for _, key in mine] + ([f"{GRID}{grid.grid}"] if grid else [])
    logs = [folder for name in names if (folder := Log(held.root, name).folder).is_dir()]
    notes = [
        path
        for _, key in sorted(mine)
        for end in _BESIDE
        if (path := held.root / LAST.stage / f"{key}{end}").exists()
    ]
    stay = _among(needed - alone, held.results)
    return Removal(
        _among(alone, held.results),
        _among(alone, held.partials),
        _among(alone, held.aside),
        logs={folder: size(folder) for folder in logs},
        files=(*notes, *([held.root / "grids" / f"{grid.grid}.json"] if grid else [])),
        shared=len(stay),
        shared_bytes=sum(stay.values()),
    )


def _own(held: Holdings, signature: str) -> Key:
    """The key of a cell, or of an import."""
    imported = IMPORT, signature
    return imported if imported in held.results else key_of_cell(signature)


def _among(keys: set[Key], sizes: dict[Key, int]) -> dict[Key, int]:
    return {key: n for key, n in sizes.items() if key in keys}


def _kept(held: Holdings, mine: set[Key], without: Grid | None) -> set[Key]:
    """What others need than some cells and a grid."""
    others = [needs for grid in held.grids if grid != without for needs in [held.of_grid(grid)]]
    needs = [*others, *({k: v for k, v in n.items() if k not in mine} for n in _known(held))]
    return {key for many in needs for keys in many.values() for key in keys}


def _known(held: Holdings) -> Iterable[dict[Key, frozenset[Key]]]:
    return held.finished, held.running


def remove(held: Holdings, what: Removal) -> list[str]:
    """Remove it, what needs others before these; returns what was left, and why.

    Killed at any moment, it leaves every finished cell whole; the same command goes on.
    """

    def may() -> bool:
        return not held.began()

    left = []
    keys = {*what.results, *what.partials, *what.aside}
    for key in sorted(keys, key=lambda key: (_place(key), key), reverse=True):
        parts = (("", what.results), (PARTIAL, what.partials))
        suffixes = [suffix for suffix, those in parts if key in those]
        if not removal.remove(held.root.joinpath(*key), suffixes, may):
            left.append(f"{key[0]} {key[1]}: {_why(held)}")
    for folder in what.logs:
        if not removal.remove(folder, [""], may):
            left.append(f"{folder.parent.name} {folder.name}: {_why(held)}")
    for folder in what.folders:
        removal.remove_folder(folder)
    if not left:
        for file in what.files:
            file.unlink(missing_ok=True)
    return left


def _why(held: Holdings) -> str:
    return "something was begun meanwhile" if held.began() else "a process holds its lock"


def _place(key: Key) -> int:
    return PLACES.index(key[0]) if key[0] in PLACES else -1


def text(held: Holdings, stages: Sequence[StageRow]) -> str:
    """What a store has, for people."""
    lines = [["stage", "results", "size", *NEEDED, "unfinished", "size"]]
    for row in stages:
        counts = (row.finished, row.grids, row.running, row.nobody)
        lines.append([
            *(row.stage, str(row.results), amount(row.bytes)),
            *(str(n) if n else "-" for n in counts),
            *((str(row.unfinished), amount(row.unfinished_bytes)) if row.unfinished else "--"),
        ])  # fmt: skip
    table = [aligned(lines)] if stages else ["no results"]
    others = [(name, size(held.root / name)) for name in (LEDGER, TRIALS)]
    told = [f"{name}: {amount(n)}" for name, n in others if n]
    told += [f"WARNING {problem}" for problem in held.problems]
    nobody, dead = sum(row.nobody for row in stages), sum(row.dead for row in stages)
    if nobody or dead:
        gone = sum(row.nobody_bytes + row.dead_bytes for row in stages)
        told.append(
            f"{counted(nobody, 'result')} that nobody needs and {counted(dead, 'dead leftover')}: "
            f"{amount(gone)}; python -m rdx store --clean removes them"
        )
    return "\n".join([*table, *told])


def removal_text(what: Removal) -> str:
    """What would be removed, for people: by stage."""
    lines = []
    for parts, noun in (
        (what.results, "result"),
        (what.partials, "unfinished result"),
        (what.aside, "half-removed result"),
    ):
        for stage in dict.fromkeys(stage for stage, _ in sorted(parts, key=_place)):
            sizes = _of(stage, parts)
            lines.append(f"   {stage}: {counted(len(sizes), noun)}, {amount(sum(sizes))}")
    if what.logs:
        of = counted(len(what.logs), "record")
        lines.append(f"   {TRIALS}: {of}, {amount(sum(what.logs.values()))}")
    lines += [f"   {folder}: {amount(n)}" for folder, n in what.folders.items()]
    if what.shared:
        shared = counted(what.shared, "result")
        lines.append(f"   stays, since others need it: {shared}, {amount(what.shared_bytes)}")
    return "\n".join([*lines, f"   {amount(what.bytes)} in all"])
