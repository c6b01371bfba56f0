"""The store: stage results by signature, computed once, written atomically, verified on reading."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdx.facts import FactsError, Record, parse
from rdx.store.held import Held

MANIFEST = "manifest.json"
_TEMPORARY = re.compile(r"\.tmp\d+$")  # of write_atomic


class Unreadable(OSError):
    """A stored file that cannot be read; the message names it and the cure, in one line."""

    def __init__(self, path: Path | str, why: object) -> None:
        denied = isinstance(why, PermissionError)
        told = why.strerror if isinstance(why, OSError) and why.strerror else str(why)
        cure = "its owner must let you read it (chmod -R g+rX)" if denied else _CURE
        super().__init__(f"{path} cannot be read: {(told.splitlines() or [''])[0]}; {cure}")


_CURE = "move it away, and the command that made it makes it again"


def signature(what: Any) -> str:
    """Content hash of plain values: the first 16 hex digits of the sha256 of sorted JSON."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Store:
    """Results under ``root/stage/signature/``, each with a manifest of checksums.

    Attributes
    ----------
    root
        Folder of the store; made when first needed.
    seconds
        Seconds spent computing, by stage, since this object was made.
    log
        Per stage and signature "computed" or "stored", since this object was made.
    inside
        Seconds of results that were made while another one is being made.
    held
        Locks of the results that are being made, the innermost last.
    """

    root: Path
    seconds: dict[str, float] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)
    inside: float = 0.0
    held: list[Held] = field(default_factory=list)

    def cached(
        self, stage: str, key: str, make: Callable[[Path], None], force: bool = False
    ) -> Path:
        """Return the folder of a result; compute it with `make(folder)` if it is not there.

        `make` writes into a ``.partial`` folder that outlives a killed process, so that it can go
        on from what it left there itself; when it returns, the manifest is written and the folder
        renamed. Of several processes, of one host or of several that share the folder, the first
        computes while the others wait and say for whom (`rdx.store.held`). A stored result whose
        files differ from its manifest is computed again, with a warning.

        Raises
        ------
        Unreadable
            If there is a result that this user may not read.
        """
        folder = self.root / stage / key
        # What is whole stays so: to read it needs no lock, and no right to write.
        if not force and folder.exists() and not damage(folder):
            self.log.setdefault(f"{stage}/{key}", "stored")
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Held(folder) as held:
            if not force and self._valid(folder):
                self.log.setdefault(f"{stage}/{key}", "stored")
                return folder
            self._make(folder, make, force, held)
        return folder

    def tell(self, step: int, steps: int | None) -> None:
        """Note how far the result is that is being made, for others who wait for it."""
        for one in self.held:
            one.tell(self.held[-1].what.split()[0], step, steps)

    def _make(self, folder: Path, make: Callable[[Path], None], force: bool, held: Held) -> None:
        """Make a result, under its lock."""
        stage, key = folder.parent.name, folder.name
        partial = folder.with_suffix(".partial")
        if force and f"{stage}/{key}" not in self.log:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(exist_ok=True)
        for left in [p for p in partial.rglob("*.tmp*") if _TEMPORARY.search(p.name)]:
            left.unlink()  # of a process that was killed while it wrote
        start, before, self.inside = time.perf_counter(), self.inside, 0.0
        self.held.append(held)
        self._tell_stage()
        try:
            make(partial)
        finally:
            whole = time.perf_counter() - start
            own, self.inside = whole - self.inside, before + whole
            self.held.pop()
            self._tell_stage()
        self.seconds[stage] = whole
        _seal(partial, stage, key, whole, own)
        held.check()
        _replace(partial, folder)
        self.log[f"{stage}/{key}"] = "computed"

    def _tell_stage(self) -> None:
        for one in self.held:
            one.tell(self.held[-1].what.split()[0])

    def has(self, stage: str, key: str) -> bool:
        """Whether a result is there, undamaged."""
        return not damage(self.root / stage / key)

    def _valid(self, folder: Path) -> bool:
        if not folder.exists():
            return False
        if not folder.is_dir():
            raise Unreadable(folder, "a file where a folder should be")
        problem = damage(folder)
        if problem:
            warnings.warn(f"{folder}: {problem}; computing it again", stacklevel=3)
            shutil.rmtree(folder)
        return not problem


def damage(folder: Path) -> str:
    """What is wrong with a stored result; "" if its files are as its manifest says.

    Raises
    ------
    Unreadable
        If this user may not read it, so that nobody can tell.
    """
    try:
        return _damage(folder)
    except PermissionError as error:
        raise Unreadable(error.filename or folder, error) from error


def _damage(folder: Path) -> str:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"].items()
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"no readable manifest ({type(error).__name__})"
    for name, digest in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _sha256(path) != digest:
            return f"{name} does not have the checksum that was written"
    return ""


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read the JSON object of a stored file, which must have these keys.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Unreadable
        If it cannot be read, or is not that.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(path, error) from error
    except ValueError as error:
        raise Unreadable(path, f"damaged: {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(path, "not a JSON object")
    if absent := [key for key in keys if key not in value]:
        raise Unreadable(path, f"no {absent[0]!r} in it: another version of rdx wrote it")
    return value


def read_record(kind: type[Record], path: Path) -> Record:
    """Read a record of `rdx.facts` from a stored file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Unreadable
        If it cannot be read, or is no such record.
    """
    try:
        return parse(kind, path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, FactsError) as error:
        raise Unreadable(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1) + "\n"))


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, and rename it into place."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def share(folder: Path, like: Path) -> None:
    """Give a folder and all in it the permissions of a file that was written plainly.

    Libraries write through temporary files that only their owner may read, as safetensors does;
    what others may read is for the umask to say, which `like` shows.
    """
    read = like.stat().st_mode & 0o666
    enter = read | (read & 0o444) >> 2  # a folder that may be read may be entered
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode & 0o7777
        wanted = mode | (enter if path.is_dir() else read)
        if mode != wanted:
            with suppress(OSError):  # a file system without permissions
                path.chmod(wanted)


def _seal(folder: Path, stage: str, key: str, seconds: float, own: float) -> None:
    """Write the manifest; `own` seconds are those without the results made on the way."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    digests = {str(p.relative_to(folder)): _sha256(p) for p in files}
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    manifest = {"stage": stage, "signature": key, "files": digests}
    times = {"seconds": round(seconds, 3), "own_seconds": round(own, 3)}
    write_json(folder / MANIFEST, {**manifest, **times})
    share(folder, folder / MANIFEST)


def _replace(partial: Path, folder: Path) -> None:
    """Give a whole result its name; one that was there before goes aside first."""
    if folder.exists():
        old = folder.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(partial, folder)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
