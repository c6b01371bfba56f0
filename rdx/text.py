"""Numbers, times, sizes, paths and tables as people read them."""

import re
from collections.abc import Sequence
from pathlib import Path


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "query"), counted(1200, "query"), counted(0, "cell"), counted(2, "process")
    ('1 query', '1,200 queries', '0 cells', '2 processes')
    """
    return f"{n:,} {noun if n == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """A noun for several.

    >>> plural("query"), plural("test set"), plural("key"), plural("batch")
    ('queries', 'test sets', 'keys', 'batches')
    """
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def as_typed(path: Path) -> Path:
    """A path as a user writes it: from the working folder, if it lies there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def duration(seconds: float) -> str:
    """A time in the unit that a person would take.

    >>> duration(7.4), duration(400), duration(9000), duration(500000)
    ('7 s', '7 min', '2.5 h', '5.8 days')
    """
    for unit, name, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 or not seconds else f"{seconds:.1g} s"


def amount(held: float) -> str:
    """A number of bytes in the unit that a person would take.

    >>> amount(900), amount(91_600_000), amount(2.5e9)
    ('0.9 kB', '92 MB', '2.5 GB')
    """
    for unit, name, digits in ((1e12, "TB", 1), (1e9, "GB", 1), (1e6, "MB", 0)):
        if held >= unit:
            return f"{held / unit:.{digits}f} {name}"
    return f"{held / 1e3:.1f} kB"


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lines as a table; the first columns are aligned to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            entry.ljust(width) if i < left else entry.rjust(width)
            for i, (entry, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
