"""Write files whole or not at all, and JSON records that way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rdx import facts

Record = TypeVar("Record")


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary path, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_record(path: Path, record: object) -> None:
    """Write a record as JSON."""
    replace(path, lambda temporary: temporary.write_text(facts.dump(record), encoding="utf-8"))


def read_record(kind: type[Record], path: Path) -> Record | None:
    """Read a record; None if there is none, or none that this version of rdx wrote."""
    try:
        return facts.parse(kind, path.read_bytes())
    except (OSError, facts.FactsError):
        return None
