"""The store as a plan sees it: read, never written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rdx.config import Cell
from rdx.store import MANIFEST, Unreadable

MOST = 200  # finished cells of the plan that are looked into; likewise others, newest first


@dataclass(frozen=True)
class Entry:
    """A stored result.

    Attributes
    ----------
    seconds
        That making it took, without the results made on the way; None if an older version of rdx
        made it, which did not write that.
    bytes
        On disk.
    """

    seconds: float | None
    bytes: int


@dataclass(frozen=True)
class Past:
    """A finished cell of a store: its configuration, the signatures of its stages, its folder."""

    cfg: dict[str, Any]
    keys: dict[str, str]
    folder: Path


class Shelf:
    """Stored results, each looked at once.

    A result is there when its manifest can be read and all its files exist; whether they are
    undamaged is found out when they are used, which is what checksums are read for.
    """

    def __init__(self) -> None:
        self._entries: dict[Path, Entry | None] = {}

    def entry(self, root: str | Path, stage: str, key: str) -> Entry | None:
        """A stored result; None if it is not there or not whole."""
        folder = Path(root, stage, key)
        if folder not in self._entries:
            self._entries[folder] = _entry(folder)
        return self._entries[folder]

    def has(self, cell: Cell, stage: str) -> bool:
        """Whether a stage of a cell is stored; never so of `reference`, whose names are others."""
        return self.entry(cell.cfg["store"], stage, cell.keys[stage]) is not None

    def finished(self, cells: Iterable[Cell]) -> list[Past]:
        """The finished ones of some cells."""
        return [
            Past(cell.cfg, cell.keys, Path(cell.cfg["store"], "evaluate", cell.signature))
            for cell in cells
            if self.has(cell, "evaluate")
        ]

    def others(self, cells: Iterable[Cell]) -> list[Past]:
        """Finished cells of the same stores that are not among these, the newest first."""
        own = {cell.signature for cell in cells}
        found: list[Past] = []
        for root in dict.fromkeys(str(cell.cfg["store"]) for cell in cells):
            paths = [
                path
                for path in Path(root, "evaluate").glob("*/config.yaml")
                if path.parent.name not in own and path.parent.suffix != ".partial"
            ]
            paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            found += [one for path in paths[:MOST] if (one := _past(path)) is not None]
        return found


def _entry(folder: Path) -> Entry | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        held = sum((folder / name).stat().st_size for name in manifest["files"])
        own = manifest.get("own_seconds")
    except PermissionError as error:
        raise Unreadable(error.filename or folder, error) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(None if own is None else float(own), held)


def _past(path: Path) -> Past | None:
    """The finished cell of a config.yaml; None if it cannot be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it was built
    try:
        cfg = yaml.load(path.read_text(encoding="utf-8"), loader)
        keys = json.loads((path.parent / "trial.json").read_text())["signatures"]
        return Past(dict(cfg), dict(keys), path.parent)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
