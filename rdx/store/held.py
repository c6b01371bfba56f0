"""Locks that hold on shared file systems, and beside each a note of who holds it and how far.

A lock is a file that is created exclusively (`filelock.SoftFileLease`): its holder touches it every
`BEAT` seconds, and others take it over, one of them, when on their own monotonic clock it stayed as
it was for `LEASE` seconds, or at once when its holder's process is gone from this host. No two
clocks are compared, so that a clock that jumps, or differs between hosts, breaks nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import SoftFileLease, Timeout

from rdx.faults import Mendable

LEASE = 120.0
BEAT = 20.0
REMIND = 60.0  # seconds between two lines that tell what is waited for
NOTES = 2.0  # seconds between two notes of how far it is


class LockLost(Mendable, RuntimeError):
    """Another process took a lock over: this one stood still for too long."""


class Held:
    """The lock of a result, ``KEY.held``, and its note, ``KEY.running.json``, while it is made."""

    def __init__(self, folder: Path, lease: float = LEASE, beat: float = BEAT) -> None:
        self.what = f"{folder.parent.name} {folder.name}"
        self.path, self.note = folder.with_suffix(".held"), note_of(folder)
        self._lease = lease
        self._lock = SoftFileLease(self.path, lease_duration=lease, heartbeat_interval=beat)
        self._told = 0.0
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Held:
        try:
            self._lock.acquire(timeout=1)
        except Timeout:
            self._wait()
        self._facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lock.compromise:
            with suppress(OSError):
                self.note.unlink()
        self._lock.release()

    def tell(self, stage: str, step: int | None = None, steps: int | None = None) -> None:
        """Note what is being made and how far it is; where that cannot be written, it is left."""
        new = stage != self._facts.get("stage")
        if not new and time.monotonic() - self._told < NOTES:
            return
        self._told = time.monotonic()
        if new:
            self._facts |= {"stage": stage, "stage_since": time.time(), "first_step": step}
        elif self._facts["first_step"] is None:
            self._facts |= {"stage_since": time.time(), "first_step": step}
        self._facts |= {"step": step, "steps": steps, "now": time.time()}
        temporary = self.note.with_name(f"{self.note.name}.tmp{os.getpid()}")
        with suppress(OSError):
            temporary.write_text(json.dumps(self._facts) + "\n")
            os.replace(temporary, self.note)

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
            if why and not _works(self.path):
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
            found = _empty(self.path)
            if found is None or found != unwritten:
                unwritten, since = found, time.monotonic()
            elif time.monotonic() - since >= self._lease:
                _clear(self.path, found)


def note_of(folder: Path) -> Path:
    """The note of a result that is being made."""
    return folder.with_suffix(".running.json")


def read_note(note: Path) -> dict[str, Any] | None:
    """Who makes a result, and how far it is; None if nobody does, or the note is unreadable."""
    try:
        found: dict[str, Any] = json.loads(note.read_text())
        return found if {"host", "pid", "since"} <= found.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def lives(note: dict[str, Any], held: Path) -> bool:
    """Whether the process of a note works on.

    On this host its process is looked for; on another one, the lock must have been touched within
    `LEASE` seconds.
    """
    if note["host"] != socket.gethostname():
        try:
            return time.time() - held.stat().st_mtime < LEASE
        except OSError:
            return False
    try:
        return bool(psutil.Process(note["pid"]).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def held_by(note: Path) -> str:
    """One line: which process holds a lock, since when, and how far it is."""
    found = read_note(note)
    if found is None:
        return "another process holds it"
    since = time.strftime("%H:%M:%S", time.localtime(found["since"]))
    return f"{found['host']}:{found['pid']} computes it since {since}{how_far(found)}"


def how_far(note: dict[str, Any]) -> str:
    """What of it is known, as in: , distill: step 3 of 10."""
    if not note.get("stage"):
        return ""
    step, steps = note.get("step"), note.get("steps")
    return f", {note['stage']}" + (f": step {step} of {steps}" if steps else "")


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


def _works(path: Path) -> bool:
    """Whether the process that a lock file names is there; False if it names none."""
    try:
        found = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        return lives({"host": found["host"], "pid": int(found["pid"])}, path)
    except (OSError, ValueError, KeyError):
        return False


def _empty(path: Path) -> tuple[int, int] | None:
    """What tells a lock file apart into which nothing was written; None if there is none.

    Its maker was killed between creating and writing it: nobody is named whose end could be seen.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return None if found.st_size else (found.st_ino, found.st_ctime_ns)


def _clear(path: Path, seen: tuple[int, int]) -> None:
    """Take an empty lock file away; what is moved although it is another one is put back."""
    aside = path.with_name(f"{path.name}.empty{os.getpid()}")
    with suppress(OSError):
        os.rename(path, aside)
        found = aside.stat()
        if found.st_size == 0 and found.st_ino == seen[0]:
            aside.unlink()
        else:
            os.link(aside, path)
            aside.unlink()
