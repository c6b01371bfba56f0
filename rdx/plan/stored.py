"""The store as a plan sees it: read, never written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rdx import store
from rdx.artifacts import Evaluated
from rdx.config import Cell, ConfigError
from rdx.facts import Manifest
from rdx.job import Parts
from rdx.stages import LAST, Step
from rdx.store import MANIFEST, Unreadable

MOST = 200  # finished cells of the plan that are looked into; likewise others, newest first


@dataclass(frozen=True)
class Entry:
    """A stored result: its manifest, and its bytes on disk."""

    manifest: Manifest
    bytes: int


@dataclass(frozen=True)
class Past:
    """A finished cell of a store: its objects, the signatures of its steps, its folder."""

    parts: Parts
    keys: dict[str, str]
    folder: Path

    @property
    def root(self) -> Path:
        """The store."""
        return self.folder.parents[1]


class Shelf:
    """Stored results, each looked at once.

    A result is there when its manifest can be read and all its files exist; whether they are
    undamaged is found out when they are used, which is what checksums are read for.
    """

    def __init__(self) -> None:
        self._entries: dict[Path, Entry | None] = {}

    def entry(self, root: Path, stage: str, key: str) -> Entry | None:
        """A stored result; None if it is not there or not whole."""
        folder = Path(root, stage, key)
        if folder not in self._entries:
            self._entries[folder] = _entry(folder)
        return self._entries[folder]

    def has(self, cell: Cell, step: Step = LAST) -> bool:
        """Whether a step of a cell is stored."""
        return self.entry(Path(cell.cfg["store"]), step.stage, cell.keys[str(step)]) is not None

    def finished(self, cells: Iterable[Cell]) -> list[Past]:
        """The finished ones of some cells."""
        return [
            Past(Parts(cell.cfg), cell.keys, Path(cell.cfg["store"], LAST.stage, cell.signature))
            for cell in cells
            if self.has(cell)
        ]

    def others(self, cells: Iterable[Cell]) -> list[Past]:
        """Finished cells of the same stores that are not among these, the newest first."""
        cells = list(cells)
        signatures = {cell.signature for cell in cells}
        others: list[Past] = []
        for root in dict.fromkeys(str(cell.cfg["store"]) for cell in cells):
            paths = [
                path
                for folder in store.results(Path(root, LAST.stage))
                if folder.name not in signatures and (path := folder / MANIFEST).exists()
            ]
            paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            others += [past for path in paths[:MOST] if (past := _past(path.parent)) is not None]
        return others


def _entry(folder: Path) -> Entry | None:
    try:
        manifest = store.read(Manifest, folder / MANIFEST)
        held = sum((folder / name).stat().st_size for name in manifest.files)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        if error.denied:
            raise
        return None
    return Entry(manifest, held)


def _past(folder: Path) -> Past | None:
    """The finished cell of a folder; None if it cannot be read."""
    evaluated = Evaluated(folder)
    try:
        return Past(Parts(evaluated.config), evaluated.facts.signatures, folder)
    except (OSError, KeyError, ConfigError):
        return None
