"""Numbers with nouns, and paths, as people read them."""

import re
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
