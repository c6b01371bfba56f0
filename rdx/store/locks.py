"""Locks that hold on shared file systems, and beside each a note of who holds it and how far.

A lock is a file that is created exclusively (`filelock.SoftFileLease`): its holder touches it every
`BEAT` seconds, and others take it over, one of them, when on their own monotonic clock it stayed as
it was for `LEASE` seconds, or at once when its holder's process is gone from this host. No two
clocks are compared, so that a clock that jumps, or differs between hosts, breaks nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
from filelock import SoftFileLease, Timeout

from rdx import facts
from rdx.facts import FactsError, Holder, Pace
from rdx.faults import Mendable

LEASE = 120.0
BEAT = 20.0
REMIND = 60.0  # seconds between two lines that tell what is waited for
NOTES = 2.0  # seconds between two notes of how far it is


class LockLost(Mendable, RuntimeError):
    """Another process took a lock over: this one stood still for too long."""


class Lock:
    """The lock of a result, ``KEY.held``, and its note, ``KEY.running.json``, while it is made."""

    def __init__(self, folder: Path, lease: float = LEASE, beat: float = BEAT) -> None:
        self.stage, self.what = folder.parent.name, f"{folder.parent.name} {folder.name}"
        self.path, self.note = folder.with_suffix(".held"), note_of(folder)
        self._lease = lease
        self._lock = SoftFileLease(self.path, lease_duration=lease, heartbeat_interval=beat)
        self._noted = 0.0
        self._holder = Holder(host="", pid=0, since=0.0)

    def __enter__(self) -> Lock:
        try:
            self._lock.acquire(timeout=1)
        except Timeout:
            self._wait()
        self._holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=time.time())
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lock.compromise:
            with suppress(OSError):
                self.note.unlink()
        self._lock.release()

    def tell(self, stage: str, step: int | None = None, steps: int | None = None) -> None:
        """Note what is being made and how far it is; where that cannot be written, it is left."""
        begins = stage != self._holder.stage
        now = time.time()
        if begins or self._holder.first_step is None:
            self._holder = replace(self._holder, stage=stage, stage_since=now, first_step=step)
        self._holder = replace(self._holder, step=step, steps=steps, now=now)
        if begins or time.monotonic() - self._noted >= NOTES:
            self._noted = time.monotonic()
            self._note()

    def _note(self) -> None:
        temporary = self.note.with_name(f"{self.note.name}.tmp{os.getpid()}")
        with suppress(OSError):
            temporary.write_text(facts.dump(self._holder))
            os.replace(temporary, self.note)

    @property
    def pace(self) -> Pace | None:
        """How fast the result itself is made, which the lock is of."""
        return self._holder.pace if self._holder.stage == self.stage else None

    def check(self) -> None:
        """Refuse to go on without the lock.

        Raises
        ------
        LockLost
            If another process has it.
        """
        if self._lock.compromise:
            raise LockLost(
                f"{self.what}: another process took it over, since this one could not touch "
                f"{self.path} for {self._lease:.0f} s ({self._lock.compromise.reason}); the same "
                "command goes on"
            )

    def _wait(self) -> None:
        """Wait for the holder, and say now and then for whom.

        Raises
        ------
        OSError
            If the holder is gone and nothing can be written beside the lock (a full or read-only
            disk), so that it can never be taken over.
        """
        unwritten, since = None, time.monotonic()
        said = -REMIND
        while True:
            why = _unwritable(self.path)
            if why and not works(self.path):
                raise OSError(
                    f"{self.what}: {held_by(self.note)}, but works no more, and its lock cannot be "
                    f"taken over: {why}; make room, or make the store writable"
                )
            if time.monotonic() - said >= REMIND:
                print(f"waiting for {self.what}: {held_by(self.note)}", flush=True)
                said = time.monotonic()
            with suppress(Timeout):
                self._lock.acquire(timeout=min(REMIND, self._lease, 10.0), poll_interval=0.2)
                return
            empty = _empty(self.path)
            if empty is None or empty != unwritten:
                unwritten, since = empty, time.monotonic()
            elif time.monotonic() - since >= self._lease:
                _clear(self.path, empty)


@contextmanager
def free(held: Path, seconds: float = 0.5) -> Iterator[bool]:
    """Take a lock, unless another process holds it for so many seconds; gives whether it was taken.

    One that is `silent` is taken over within 2 * `LEASE`.
    """
    lease = SoftFileLease(held, lease_duration=LEASE, heartbeat_interval=BEAT)
    try:
        lease.acquire(timeout=seconds, poll_interval=0.1)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lease.release()


def silent(held: Path) -> bool:
    """Whether a lock's holder, perhaps on another machine, gave no sign of life of late."""
    try:
        return time.time() - held.stat().st_mtime > LEASE
    except OSError:
        return False


def note_of(folder: Path) -> Path:
    """The note of a result that is being made."""
    return folder.with_suffix(".running.json")


def read_note(note: Path) -> Holder | None:
    """Who makes a result, and how far it is; None if nobody does, or the note is unreadable."""
    try:
        return facts.parse(Holder, note.read_text())
    except (OSError, FactsError):
        return None


def lives(host: str, pid: int, lock: Path) -> bool:
    """Whether a process that took a lock works on.

    On this host its process is looked for; on another one, the lock must have been touched within
    `LEASE` seconds.
    """
    if host != socket.gethostname():
        try:
            return time.time() - lock.stat().st_mtime < LEASE
        except OSError:
            return False
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def held_by(note: Path) -> str:
    """One line: which process holds a lock, since when, and how far it is."""
    holder = read_note(note)
    if holder is None:
        return "another process holds it"
    since = time.strftime("%H:%M:%S", time.localtime(holder.since))
    return f"{holder.host}:{holder.pid} computes it since {since}{_progress(holder)}"


def _progress(holder: Holder) -> str:
    """As in: , distill: step 3 of 10."""
    if not holder.stage:
        return ""
    return f", {holder.stage}" + (f": step {holder.step} of {holder.steps}" if holder.steps else "")


def _unwritable(path: Path) -> str:
    """Why nothing can be written beside a lock; empty if it can."""
    probe = path.with_name(f"{path.name}.probe{os.getpid()}")
    try:
        try:
            probe.write_bytes(bytes(512))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return str(error)
    return ""


def works(path: Path) -> bool:
    """Whether the process that a lock file names is there; False if it names none."""
    try:
        owner = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        return lives(owner["host"], int(owner["pid"]), path)
    except (OSError, ValueError, KeyError):
        return False


def _empty(path: Path) -> tuple[int, int] | None:
    """What tells a lock file apart into which nothing was written; None if there is none.

    Its maker was killed between creating and writing it: nobody is named whose end could be seen.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return None if status.st_size else (status.st_ino, status.st_ctime_ns)


def _clear(path: Path, seen: tuple[int, int]) -> None:
    """Remove an empty lock file; restore it if another process had re-created it."""
    aside = path.with_name(f"{path.name}.empty{os.getpid()}")
    with suppress(OSError):
        os.rename(path, aside)
        status = aside.stat()
        if status.st_size == 0 and status.st_ino == seen[0]:
            aside.unlink()
        else:
            os.link(aside, path)
            aside.unlink()
