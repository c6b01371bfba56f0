"""Make the paths of a configuration absolute; nothing else does."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Any

from rdx.config.classes import class_of
from rdx.config.schema import Config
from rdx.declared import WRITTEN, marks, reads
from rdx.folders import encoded, is_address

SQLITE = "sqlite:///"


def absolute(cfg: Config, folder: Path) -> Config:
    """Return a resolved configuration with its relative paths made absolute from a folder.

    Whatever process it is sent to then means the same files. The identity of a cell stays as it
    is: files are told by their content, and what is written has no part in it.
    """
    nodes = {key: node if key == "spec" else _absolute(node, folder) for key, node in cfg.items()}
    if isinstance(start := cfg.get("start"), str):
        nodes["start"] = _place(start, folder)
    return nodes | {"store": written(cfg["store"], folder)} if "store" in cfg else nodes


def _absolute(node: Any, folder: Path) -> Any:
    if isinstance(node, list):
        return [_absolute(item, folder) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {name: _absolute(value, folder) for name, value in node.items()}
    cls = class_of(node)
    for name, field_marks in marks(cls).items() if cls else ():
        value = plain.get(name)
        if isinstance(value, str) and value:
            if WRITTEN in field_marks:
                plain[name] = written(value, folder)
            elif reads(field_marks, value):
                plain[name] = _place(value, folder)
    return plain


def _place(value: str, folder: Path) -> str:
    """A path that is read, absolute; what is none is the name of something else."""
    place = folder / expanduser(value)
    return str(place) if value and place.exists() else value


def blank(value: str) -> bool:
    """Whether the name of a place is none: empty, of spaces, or a database without a file."""
    return not Path(value).name.strip() or value.rstrip("/") == SQLITE.rstrip("/")


def written(value: str, folder: Path) -> str:
    """A path that is written, absolute, of ~ too; an address stays, but for the file of SQLite's.

    The file is part of an address and stays encoded; the folder that it is in is not, yet.
    """
    if value.startswith(SQLITE):
        path = value.removeprefix(SQLITE)
        return f"{SQLITE}{Path(encoded(folder)) / path}" if path else value
    return value if not value or is_address(value) else str(folder / expanduser(value))
