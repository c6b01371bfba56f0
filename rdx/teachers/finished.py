"""What became of the windows of lists that are labelled: a labelling goes on from there.

The ledger has every answer, but to find one, its request must be written again. This file beside
it is short: a killed labelling reads its finished lists here, and asks the ledger of the others.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Self

from rdx.teachers.window_table import Outcome

NAME = "finished.jsonl"


class Finished:
    """A line for each list and input order whose windows all have a permutation.

    In memory is where each line begins. Lines are not synced: what is lost or damaged is in the
    ledger. The file is gone when the context ends without an error.

    Parameters
    ----------
    folder
        Of the teacher ranking, whose signature decides its lists, requests and parse rule.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._starts: dict[tuple[int, int], int] = {}

    def __enter__(self) -> Self:
        self._file = self._path.open("a+b")
        self._file.seek(0)
        start = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break  # torn, by a killed process or a full disk
            with contextlib.suppress(ValueError):
                place, shuffle, _ = json.loads(line)
                self._starts[place, shuffle] = start
            start += len(line)
        self._file.truncate(start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._path.unlink()

    def __len__(self) -> int:
        """Lists and input orders that were finished before."""
        return len(self._starts)

    def add(self, place: int, shuffle: int, outcomes: list[Outcome]) -> None:
        """Note the windows of a list, in the order in which they were asked; once."""
        if (place, shuffle) in self._starts:
            return
        line = json.dumps([place, shuffle, outcomes], separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def outcomes(self, place: int, shuffle: int) -> list[Outcome]:
        """The windows of a list; none if it was not finished."""
        start = self._starts.get((place, shuffle))
        if start is None:
            return []
        self._file.seek(start)
        _, _, rows = json.loads(self._file.readline())
        return [Outcome(tuple(order), *facts) for order, *facts in rows]
