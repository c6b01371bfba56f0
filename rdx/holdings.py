"""What lies in a store, who needs it, and what may go: from the store alone.

A result is needed by finished cells (and by imported systems, and labels that `teach` made), by the
cells of a grid, finished or not, by what runs now, or by nobody.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rdx import progress, store
from rdx.artifacts import TRIAL
from rdx.facts import Begun, Grid, GridCell, TrialFacts
from rdx.faults import Mendable
from rdx.grids import key_of
from rdx.job import REDRAWS, START
from rdx.stages import LAST, STAGES, TEACH, Step
from rdx.store import OLD, PARTIAL, Unreadable, locks
from rdx.store.grids import all_grids
from rdx.tracking.log import TRIALS

IMPORT = "import"
PLACES = (*STAGES, IMPORT)  # folders of results
FINISHED, GRIDS, RUNNING, NOBODY = "finished", "grids", "running", "nobody"

Key = tuple[str, str]  # a stage and a signature
Needs = dict[Key, frozenset[Key]]  # of a cell, an import or a labelling: all results, itself too


class StoreError(Mendable, ValueError):
    """What a store has not, or why nothing of it may be removed; the message tells the cure."""


@dataclass(frozen=True)
class Holdings:
    """A store as it was read.

    Attributes
    ----------
    results, partials, aside
        Bytes of every result; of what processes began that work or were killed (``KEY.partial``);
        of what was set aside to be deleted (``KEY.old``).
    locked
        Whose lock a living process holds.
    finished, running
        What finished cells, imports and labellings need; and what those that are worked on now do.
    cells
        What each cell needs that a grid has or that was begun, finished or not, by its signature.
    grids
        All of them.
    problems
        Why it cannot be told of everything who needs it.
    notes
        The files that tell what is needed, with their times.
    """

    root: Path
    results: dict[Key, int]
    partials: dict[Key, int]
    aside: dict[Key, int]
    locked: frozenset[Key]
    finished: Needs
    running: Needs
    cells: Needs
    grids: tuple[Grid, ...]
    problems: tuple[str, ...]
    notes: dict[Path, int]

    def of_grid(self, grid: Grid) -> Needs:
        """What the cells of a grid need."""
        keys = [key_of_cell(cell.signature) for cell in grid.cells]
        return {key: self.finished.get(key, frozenset()) | self.cells[key] for key in keys}

    @cached_property
    def needed(self) -> dict[Key, str]:
        """`FINISHED`, `GRIDS` or `RUNNING`, the first that holds, of all that is needed."""
        groups = {RUNNING: [self.running], GRIDS: map(self.of_grid, self.grids)}
        return {
            key: who
            for who, many in (*groups.items(), (FINISHED, [self.finished]))
            for needs in many
            for keys in needs.values()
            for key in keys
        }

    @cached_property
    def users(self) -> Counter[Key]:
        """How many cells, imports and labellings need each result."""
        every = self.cells | self.finished
        return Counter(key for keys in every.values() for key in keys)

    def by(self, key: Key) -> str:
        """Who needs a result; `NOBODY` if none does."""
        return self.needed.get(key, NOBODY)

    def began(self) -> bool:
        """Whether something was begun since this was read, so that more may be needed."""
        return bool(_notes(self.root).items() - self.notes.items())

    def require_known(self) -> None:
        """Refuse where it cannot be told who needs what.

        Raises
        ------
        StoreError
            Naming the first reason.
        """
        if self.problems:
            raise StoreError(f"nothing may be removed: {self.problems[0]}")
        for stage, key in sorted(self.locked - set(self.needed)):
            holder = locks.held_by(locks.note_of(self.root / stage / key))
            raise StoreError(
                f"nothing may be removed: {stage} {key}: {holder}, and nothing tells what it needs "
                "for that; wait until it has ended"
            )


def key_of_cell(signature: str) -> Key:
    """Where the result of a cell is."""
    return LAST.stage, signature


def read(root: Path) -> Holdings:
    """What lies in a store.

    Raises
    ------
    StoreError
        If there is none.
    Unreadable
        If this user may not look.
    """
    if not root.is_dir():
        raise StoreError(f"{root}: no such store; another one is --store FOLDER")
    notes = _notes(root)  # before the rest: what is begun meanwhile is seen
    results, partials, aside = _sizes(root)
    grids, unread = all_grids(root)
    begun, unread_notes = progress.all_begun(root)
    trials, unread_trials = _trials(root, results)
    problems = [str(error) for error in (*unread, *unread_notes, *unread_trials)]
    known: dict[Key, GridCell] = {(stage, note.cell.signature): note.cell for stage, note in begun}
    known |= {key_of_cell(cell.signature): cell for grid in grids for cell in grid.cells}
    needs = {
        key: _needs(key, cell.signatures, _begins(cell), results) for key, cell in known.items()
    }
    finished = {
        key: _needs(key, trial.signatures, [o.given for o in trial.origins], results)
        for key, trial in trials.items()
    }
    finished |= {key: needs[key] for key in needs if key[0] == TEACH.name and key in results}
    locked = _locked(root)
    working = {(stage, note.cell.signature) for stage, note in begun if _works(root, stage, note)}
    for grid in grids:
        if any(not c.signatures and key_of_cell(c.signature) not in finished for c in grid.cells):
            problems.append(
                f"grid {grid.grid} does not tell what its unfinished cells need, since an older "
                "version of rdx launched it: launch it again"
            )
    return Holdings(
        *(root, results, partials, aside, locked, finished),
        running={key: needs[key] for key in needs if key in working or key in locked},
        cells={key: keys for key, keys in needs.items() if key[0] == LAST.stage},
        grids=tuple(grids),
        problems=tuple(problems),
        notes=notes,
    )


def _needs(
    own: Key, signatures: Mapping[str, str], begins: Iterable[str], results: Iterable[Key]
) -> frozenset[Key]:
    """All results that a cell needs; those too by whose signature or folder it names students."""
    steps = {(Step.stage_of(name), key) for name, key in signatures.items()}
    named = {
        (stage, key)
        for stage, key in results
        if any(
            begin.endswith(f"/{stage}/{key}")
            or (begin and stage == LAST.stage and key.startswith(begin))
            for begin in begins
        )
    }
    return frozenset({own, *steps, *named})


def _begins(cell: GridCell) -> list[str]:
    """What a command line names students by."""
    return [
        o.partition("=")[2].strip("'\"").rstrip("/")
        for o in cell.overrides
        if key_of(o) in (START, REDRAWS)
    ]


def _sizes(root: Path) -> tuple[dict[Key, int], ...]:
    sizes: dict[str, dict[Key, int]] = {"": {}, PARTIAL: {}, OLD: {}}
    for stage in PLACES:
        for folder in store.entries(root / stage):
            if folder.suffix in sizes:
                sizes[folder.suffix][stage, folder.stem] = size(folder)
    for folder in store.entries(root / TRIALS):
        if folder.suffix == OLD:
            sizes[OLD][TRIALS, folder.stem] = size(folder)
    return tuple(sizes.values())


def size(folder: Path) -> int:
    """Bytes of all files below a folder; of what vanishes meanwhile, none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _trials(root: Path, results: Iterable[Key]) -> tuple[dict[Key, TrialFacts], list[Unreadable]]:
    """The facts of finished cells and imports, and why some cannot be read."""
    trials, unreadable = {}, []
    for key in results:
        path = Path(root, *key, TRIAL)
        if key[0] in (LAST.stage, IMPORT):
            try:
                trials[key] = store.read(TrialFacts, path)
            except FileNotFoundError:
                unreadable.append(Unreadable(path, "it is missing"))
            except Unreadable as error:
                unreadable.append(error)
    return trials, unreadable


def _locked(root: Path) -> frozenset[Key]:
    held = [path for stage in PLACES for path in (root / stage).glob("*.held")]
    return frozenset((path.parent.name, path.stem) for path in held if locks.works(path))


def _works(root: Path, stage: str, note: Begun) -> bool:
    """Whether a process works on what was begun; of one on another machine its files tell."""
    key = note.cell.signature
    files = ((root / stage / key).with_suffix(".held"), progress.cell_note(root, stage, key))
    return bool(note.host) and any(locks.lives(note.host, note.pid, path) for path in files)


def _notes(root: Path) -> dict[Path, int]:
    times = {}
    for path in _note_files(root):
        try:
            times[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return times


def _note_files(root: Path) -> Iterator[Path]:
    yield from (root / "grids").glob("*.json")
    for stage in (LAST.stage, TEACH.name):
        yield from (root / stage).glob(f"*{progress.CELL}")
