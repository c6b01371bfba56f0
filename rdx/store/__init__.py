"""The store: stage results by signature, computed once, written atomically, verified on reading."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from rdx import facts
from rdx.facts import Device, FactsError, Manifest, Record
from rdx.faults import Mendable
from rdx.store.locks import Lock

Thing = TypeVar("Thing")

MANIFEST = "manifest.json"
PARTIAL, OLD = ".partial", ".old"  # of a result that is being made; that was set aside
_TEMPORARY = re.compile(r"\.tmp\d+$")  # of write_atomic


class Unreadable(OSError):
    """A stored file that cannot be read; the message names it and the cure, in one line."""

    def __init__(self, path: Path | str, why: object) -> None:
        self.denied = denied = isinstance(why, PermissionError)
        told = why.strerror if isinstance(why, OSError) and why.strerror else str(why)
        cure = "its owner must let you read it (chmod -R g+rX)" if denied else _CURE
        super().__init__(f"{path} cannot be read: {(told.splitlines() or [''])[0]}; {cure}")


_CURE = "move it away, and the command that made it makes it again"


def signature(what: object) -> str:
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
    log
        Per stage and signature "computed" or "stored", since this object was made.
    locks
        Of the results that are being made, the innermost last.
    """

    root: Path
    log: dict[str, str] = field(default_factory=dict)
    locks: list[Lock] = field(default_factory=list)

    def cached(
        self,
        stage: str,
        key: str,
        write: Callable[[Path], None],
        anew: bool = False,
        signed: JsonValue = None,
    ) -> Path:
        """The folder of a result that needs no other; made if it is not there (`make`).

        Of several processes, of one host or of several that share the folder, the first makes it
        while the others wait and say for whom (`rdx.store.locks`). A stored result whose files
        differ from its manifest is made again, with a warning.
        """
        if not anew and (folder := self.find(stage, key)) is not None:
            return folder
        with self.lock(stage, key) as lock:
            folder = None if anew else self.recheck(stage, key)
            return folder or self.make(stage, key, signed, write, lock, anew)

    def folder(self, stage: str, key: str) -> Path:
        """Where a result is, once it is there."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Path | None:
        """The folder of an undamaged result: to read it needs no lock, and no right to write.

        Raises
        ------
        Unreadable
            If there is a result that this user may not read.
        """
        folder = self.folder(stage, key)
        if not folder.exists() or damage(folder):
            return None
        self.log.setdefault(f"{stage}/{key}", "stored")
        return folder

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[Lock]:
        """Hold the lock of a result; wait, and say for whom, while another process holds it."""
        folder = self.folder(stage, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Lock(folder) as lock:
            self.locks.append(lock)
            self._tell_stage()
            try:
                yield lock
            finally:
                self.locks.pop()
                self._tell_stage()

    def recheck(self, stage: str, key: str) -> Path | None:
        """`find` under the result's lock: another process may have made it; damage is removed."""
        folder = self.folder(stage, key)
        if not folder.exists():
            return None
        if not folder.is_dir():
            raise Unreadable(folder, "a file where a folder should be")
        if problem := damage(folder):
            warnings.warn(f"{folder}: {problem}; computing it again", stacklevel=2)
            shutil.rmtree(folder)
            return None
        self.log.setdefault(f"{stage}/{key}", "stored")
        return folder

    def make(
        self,
        stage: str,
        key: str,
        signed: JsonValue,
        write: Callable[[Path], None],
        lock: Lock,
        anew: bool = False,
        device: Device | None = None,
    ) -> Path:
        """Make a result under its lock; returns its folder.

        `write` fills a ``.partial`` folder that outlives a killed process, so that it can go on
        from what it left there itself; `anew` begins with an empty one. Then the manifest is
        written and the folder renamed.

        Parameters
        ----------
        signed
            What the key is the signature of, for ``plan --why``.
        device
            What it is made on, for estimates.
        """
        folder = self.folder(stage, key)
        partial = folder.with_suffix(PARTIAL)
        if anew:
            shutil.rmtree(partial, ignore_errors=True)
        resumed = partial.exists()
        partial.mkdir(exist_ok=True)
        for temporary in [p for p in partial.rglob("*.tmp*") if _TEMPORARY.search(p.name)]:
            temporary.unlink()  # of a process that was killed while it wrote
        start = time.perf_counter()
        write(partial)
        seconds = round(time.perf_counter() - start, 3)
        record = Manifest(
            stage=stage,
            signature=key,
            signed=signed,
            files={},
            seconds=seconds,
            resumed=resumed,
            device=device,
            pace=lock.pace,
        )
        seal(partial, record)
        lock.check()
        _replace(partial, folder)
        self.log[f"{stage}/{key}"] = "computed"
        return folder

    def tell(self, step: int, steps: int | None) -> None:
        """Note how far the result is that is being made, for others who wait for it."""
        for lock in self.locks:
            lock.tell(self.locks[-1].stage, step, steps)

    def _tell_stage(self) -> None:
        for lock in self.locks:
            lock.tell(self.locks[-1].stage)


class NotFound(Mendable, ValueError):
    """A signature that no finished result has, or several; the message says what there is."""


def whole(beginning: str, *roots: Path) -> Path:
    """The one finished result in the folders of some stages whose signature begins so.

    Raises
    ------
    NotFound
        If there is none, or several.
    Unreadable
        If this user may not look.
    """
    folders = [path for root in roots for path in entries(root)]
    finished = [path for path in folders if _whole(path)]
    if same := begin_so(beginning, finished, key=lambda path: path.name):
        return same
    for path in folders:  # SIGNATURE.partial
        if path.name.startswith(beginning):
            raise NotFound(
                f"{path.name.split('.')[0]} is not finished: run its command again, it goes on "
                "from where it was stopped"
            )
    raise NotFound(
        f"nothing finished in {' or '.join(map(str, roots))} has a signature that begins with "
        f"{beginning!r}; there are {len(finished)}{': ' if finished else ''}"
        f"{_some([path.name for path in finished])}"
    )


def begin_so(beginning: str, known: Iterable[Thing], key: Callable[[Thing], str]) -> Thing | None:
    """The one of some things whose signature begins so; None if there is none.

    Raises
    ------
    NotFound
        If there are several.
    """
    same = {key(thing): thing for thing in known if key(thing).startswith(beginning)}
    if not beginning or len(same) > 1:
        raise NotFound(
            f"{beginning!r} is the beginning of {len(same)} signatures: {_some(sorted(same))}; "
            "give more of it"
        )
    return next(iter(same.values()), None)


def results(root: Path) -> list[Path]:
    """The folders of a stage's results, in order: not what is unfinished, or was set aside.

    Raises
    ------
    Unreadable
        If this user may not look.
    """
    return [path for path in entries(root) if _whole(path)]


def _whole(folder: Path) -> bool:
    """Whether a name is that of a result; others are KEY.partial and KEY.old."""
    return "." not in folder.name


def entries(root: Path) -> list[Path]:
    """All folders of a stage, in order; none if there is no such stage.

    Raises
    ------
    Unreadable
        If this user may not look.
    """
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(error.filename or root, error) from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


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
        files = facts.parse(Manifest, (folder / MANIFEST).read_bytes()).files
    except PermissionError:
        raise
    except (OSError, FactsError) as error:
        return f"no readable manifest ({type(error).__name__})"
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _sha256(path) != digest:
            return f"{name} does not have the checksum that was written"
    return ""


def read(kind: type[Record], path: Path) -> Record:
    """Read a record (`rdx.facts`) from a stored file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Unreadable
        If it cannot be read, or is not that.
    """
    try:
        return facts.parse(kind, path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, FactsError) as error:
        raise Unreadable(path, error) from error


def write(path: Path, record: object) -> None:
    """Write a record so that a reader sees the old file or the whole new one."""
    write_atomic(path, lambda temporary: temporary.write_text(facts.dump(record), "utf-8"))


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
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


def seal(folder: Path, record: Manifest) -> None:
    """Write the manifest of a whole result, its files included, and let others read it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    digests = {str(p.relative_to(folder)): _sha256(p) for p in files}
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write(folder / MANIFEST, replace(record, files=digests))
    share(folder, folder / MANIFEST)


def _replace(partial: Path, folder: Path) -> None:
    """Give a whole result its name; one that was there before goes aside first."""
    if folder.exists():
        old = folder.with_suffix(OLD)
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
