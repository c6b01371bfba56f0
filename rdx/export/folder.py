"""A folder that appears when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rdx.export.cells import ExportError
from rdx.store import share


@contextmanager
def whole(out: Path, like: str) -> Iterator[Path]:
    """A folder to write into, which becomes `out`, readable as its file `like` is.

    Raises
    ------
    ExportError
        If `out` is there already, and not an empty folder.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is there already, and not an empty folder: name another one")
    partial = out.with_name(f"{out.name}.partial{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        share(partial, partial / like)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
