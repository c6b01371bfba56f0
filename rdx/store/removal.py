"""Remove results so that a reader finds a whole one or none, whenever the process is killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from rdx.store import OLD
from rdx.store.locks import LEASE, free, note_of, silent


def remove(folder: Path, suffixes: Iterable[str], may: Callable[[], bool]) -> bool:
    """Remove a result, or what a killed process left of it, and what was set aside of it.

    Under the result's lock each folder gets a name that nobody believes, and is then deleted: what
    a kill leaves of it is removed the next time.

    Parameters
    ----------
    suffixes
        Of the folders to remove: "" is the result's own, `rdx.store.PARTIAL` what a killed process
        would go on from.
    may
        Asked once a folder has that name: False brings it back.

    Returns
    -------
    bool
        False if something is left: another process holds the lock, or `may` said no.
    """
    held, old = folder.with_suffix(".held"), folder.with_suffix(OLD)
    with free(held, 2 * LEASE if silent(held) else 0.5) as taken:
        if not taken:
            return False
        _delete(old)
        for there in map(folder.with_suffix, suffixes):
            if there.is_dir():
                os.replace(there, old)
                if not may():
                    os.replace(old, there)
                    return False
                _delete(old)
        with suppress(OSError):  # of a process that was killed
            note_of(folder).unlink()
    return True


def remove_folder(folder: Path) -> None:
    """Remove a folder that has no lock of its own; what a kill leaves has a name with `OLD`."""
    old = folder.with_name(f"{folder.name}{OLD}")
    _delete(old)
    if folder.is_dir():
        os.replace(folder, old)
        _delete(old)


def _delete(folder: Path) -> None:
    """Delete a folder, if it is there.

    Raises
    ------
    OSError
        Naming the file that cannot be deleted.
    """
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
