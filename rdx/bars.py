"""Progress bars; where the output is no terminal, a plain line every minute."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from rdx.text import plural

EVERY = 60.0  # seconds between two lines
_FORMAT = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} so far, about {remaining} left{postfix}"
_OPEN_FORMAT = "{desc}: {n_fmt} {unit}, {elapsed} so far{postfix}"  # where no end is known


def terminal() -> bool:
    """Whether somebody watches: bars are drawn to the standard error."""
    return sys.stderr.isatty()


def bar(
    iterable: Iterable[object] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    **options: Any,
) -> tqdm:
    """A progress bar; where the output is no terminal, a plain line every minute.

    Parameters
    ----------
    iterable
        What to go through; None = `update` counts.
    desc, unit, total, options
        As of tqdm.
    """
    if not terminal():
        unit = unit if unit == "B" else plural(unit)
        options |= {
            "file": _Lines(),
            "leave": False,
            "delay": EVERY,
            "mininterval": EVERY,
            "miniters": 1,
            "ascii": True,
            "bar_format": _FORMAT if total else _OPEN_FORMAT,
        }
    return tqdm(iterable, desc=desc, unit=unit, total=total, **options)


def tell(line: str) -> None:
    """Print a line, above bars if there are any."""
    tqdm.write(line)


class _Lines:
    """A file that prints what tqdm draws as lines, and leaves out what only clears the last one."""

    def write(self, drawn: str) -> None:
        if line := drawn.strip("\r\n "):
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
