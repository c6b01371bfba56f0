"""Check the cells of a command line before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdx import config, folders
from rdx.config import Cell, ConfigError
from rdx.declared import WRITTEN
from rdx.fetching import require
from rdx.stages import EVALUATE, PREFINETUNE
from rdx.store import Store


def check(cells: Sequence[Cell], overrides: Sequence[str]) -> None:
    """Check values of cells, and that they find what they read and can write what they make.

    Everything is looked at once, however many cells share it. What takes a collection to find out
    is what `rdx.pipeline.run` begins with.

    Raises
    ------
    ConfigError, OSError
        Naming the first key that is wrong, or what is missing.
    """
    require((cell.cfg for cell in cells), overrides)
    config.check_all(cells)
    config.require_models(cell.cfg for cell in cells)
    check_folders(cells)


def check_folders(cells: Sequence[Cell]) -> None:
    """Refuse folders that cannot be written, of cells that are not finished.

    MLflow is left alone: it never stops a cell, which says at its start what fails.

    Raises
    ------
    ConfigError
        Naming the key.
    """
    unfinished = [cell for cell in cells if not _finished(cell)]
    places = {Path(cell.cfg["store"]): "store" for cell in unfinished}
    for cell in unfinished:
        for path, node, name in config.with_mark(cell.cfg, WRITTEN):
            if name in node and not path.startswith("tracking"):
                places.setdefault(Path(node[name]), f"{path}.{name}")
    for place, key in places.items():
        require_writable(key, place)


def require_writable(key: str, folder: Path | str | None) -> None:
    """Refuse a folder that cannot be made or written, given by an option or a key; None is none.

    Raises
    ------
    ConfigError
        Naming the key.
    """
    if folder is not None and (why := folders.unwritable(Path(folder))):
        raise ConfigError(f"{key} {folder}: {why}; give another folder")


def check_students(cells: Sequence[Cell]) -> None:
    """Load and try each student that is still to be trained: its teacher would be paid by then.

    Raises
    ------
    ModelError, OSError, AssetError
        Naming the key and the cure.
    """
    for cell in cells:
        if not (_finished(cell) or _stored(cell, PREFINETUNE.name)):
            config.part(cell.cfg, "student").verify()


def _finished(cell: Cell) -> bool:
    return _stored(cell, EVALUATE.name)


def _stored(cell: Cell, stage: str) -> bool:
    return Store(Path(cell.cfg["store"])).folder(stage, cell.keys[stage]).is_dir()
