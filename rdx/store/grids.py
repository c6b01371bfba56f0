"""Grids that were launched, as the store records them: ``grids/GRID.json``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from rdx.arguments import near
from rdx.facts import Grid
from rdx.store import Unreadable, read, write


def write_grid(root: Path, record: Grid) -> None:
    """Write what a grid is; where that is not possible, the grid runs without it."""
    with suppress(OSError):
        (root / "grids").mkdir(parents=True, exist_ok=True)
        write(root / "grids" / f"{record.grid}.json", record)


def read_grid(root: Path, name: str = "") -> Grid:
    """A grid by its id or the beginning of it; of several, and without a name, the newest.

    Raises
    ------
    ValueError
        If there is none.
    Unreadable
        If it cannot be read; of several, one that can be read is taken, with a warning.
    """
    return newest(root, name, *all_grids(root, name))


def newest(root: Path, name: str, grids: list[Grid], unreadable: list[Unreadable]) -> Grid:
    """As `read_grid`, of what `all_grids` read."""
    matching = [grid for grid in grids if grid.grid.startswith(name)]
    for error in unreadable:
        if not matching:
            raise error
        print(f"rdx: WARNING {error}", file=sys.stderr)
    if not matching:
        ids = sorted(grid.grid for grid in grids)
        raise ValueError(
            f"{root}: no grid {name or 'was launched'}{near(name, ids)}; known: "
            f"{', '.join(ids) or 'none'}"
        )
    exact = [grid for grid in matching if grid.grid == name]
    return max(exact or matching, key=lambda grid: grid.launched)


def all_grids(root: Path, name: str = "") -> tuple[list[Grid], list[Unreadable]]:
    """The grids of a store, and why some of those cannot be read whose ids begin so."""
    folder = root / "grids"
    grids, unreadable = [], []
    try:
        files = sorted(file for file in os.listdir(folder) if file.endswith(".json"))
    except FileNotFoundError:
        files = []
    except OSError as error:
        raise Unreadable(folder, error) from error
    for file in files:
        try:
            grids.append(read(Grid, folder / file))
        except Unreadable as error:
            unreadable += [error] if file.startswith(name) else []
    return grids, unreadable
