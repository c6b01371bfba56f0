"""The table of the windows that were asked, written while others are (`audit` explains it)."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa
from pyarrow import parquet

GROUP_ROWS = 4096  # of a row group

SCHEMA = pa.schema(
    {
        "query_id": pa.string(),
        "shuffle": pa.int64(),
        "pass": pa.int64(),
        "start": pa.int64(),
        "end": pa.int64(),
        "state": pa.string(),
        "tries": pa.int64(),
        "words": pa.int64(),
        "key": pa.string(),
        "shortened": pa.bool_(),
        "estimated": pa.int64(),
        "lost": pa.int64(),
        "thinking": pa.int64(),
        "shown": pa.list_(pa.string()),
        "given": pa.list_(pa.string()),
    }
)


class Outcome(NamedTuple):
    """What became of a window; all but the permutation as in the table."""

    permutation: tuple[int, ...] | None
    state: str
    tries: int
    words: int
    key: str
    shortened: bool
    estimated: int
    lost: int
    thinking: int


class Window(NamedTuple):
    """A window that was asked, its place first: the windows of a pass go from the back forward."""

    query_id: str
    shuffle: int
    turn: int
    start: int
    end: int
    shown: list[str]
    outcome: Outcome

    def row(self) -> list[object]:
        """Values of the columns of `SCHEMA`."""
        permutation, *facts = self.outcome
        return [*self[:5], *facts, self.shown, [self.shown[i] for i in permutation or ()]]


class WindowTable:
    """Writes the windows of many lists in the order of the lists, whichever ends first.

    In memory are one row group, and lists that ended while an earlier one is still asked. The file
    appears when the context ends without an error.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._unfinished = path, path.with_name(f".{path.name}.{os.getpid()}")
        self._ended: dict[int, list[Window]] = {}
        self._next = 0
        self._rows: list[list[object]] = []

    def __enter__(self) -> Self:
        self._writer = parquet.ParquetWriter(self._unfinished, SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write()
            self._writer.close()
            if kind is None:
                self._unfinished.replace(self._path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def add(self, number: int, windows: list[Window]) -> None:
        """Add the windows of a list, in their order; lists are numbered from 0 on."""
        self._ended[number] = windows
        while self._next in self._ended:
            self._rows += [window.row() for window in self._ended.pop(self._next)]
            self._next += 1
        if len(self._rows) >= GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        if self._rows:
            columns = list(map(list, zip(*self._rows, strict=True)))
            self._writer.write_table(pa.table(columns, schema=SCHEMA))
        self._rows = []
