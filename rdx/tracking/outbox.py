"""What is to be written to MLflow, kept on disk until it is there.

A trial's events (its start, points of curves, results, its end) are appended to one file of JSON
lines, ``SIGNATURE~TOKEN~HOST~PID~STARTED.jsonl``, and delivered from there. The file is removed
when all of it is delivered. What a killed process or a dead server leaves behind is claimed by
renaming the file, which only one process can do, on a shared file system as well. Delivering an
event twice is harmless, so a claimed file is delivered from its beginning.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

Event = dict[str, Any]
SILENT_SECONDS = 900.0  # without a sign of life, a process on another machine is taken for dead


def this_process() -> tuple[str, str, str]:
    """Host, process id and time of creation, which tell this process from all others."""
    process = psutil.Process()
    return socket.gethostname(), str(process.pid), f"{process.create_time():.2f}"


def alive(host: str, pid: str, started: str, seen: float) -> bool:
    """Whether a process lives; one of another host if it was `seen` (Unix time) of late.

    A process is recognised by its id and its time of creation, since ids are reused.
    """
    if host != socket.gethostname():
        return time.time() - seen < SILENT_SECONDS
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, ValueError):
        return False


class Outbox:
    """Events of one trial that are not delivered yet, in memory and in a file.

    Where the file cannot be written (a full disk, a read-only store), events are kept in memory
    alone and `problem` says why.

    Attributes
    ----------
    signature, token
        Of the trial, and of this execution of it; the token is kept when it is taken up again.
    problem
        Why the file lacks something; empty if it does not.
    """

    def __init__(self, folder: Path, signature: str, token: str = "") -> None:
        self.signature, self.token = signature, token or uuid.uuid4().hex[:16]
        self.problem = ""
        self.path = folder / "~".join((_plain(signature), self.token, *this_process()))
        self.path = self.path.with_name(f"{self.path.name}.jsonl")
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def append(self, event: Event) -> None:
        """Keep an event."""
        line = json.dumps(event, default=_number) + "\n"
        with self._lock:
            self._events.append(event)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                self.problem = self.problem or f"{type(error).__name__}: {error}"

    def pending(self) -> list[Event]:
        """The events that are not delivered, in order."""
        with self._lock:
            return list(self._events)

    def delivered(self, count: int) -> None:
        """Forget the first events; the file keeps them until all are delivered."""
        with self._lock:
            del self._events[:count]

    def beat(self) -> None:
        """Show processes on other machines that the owner lives."""
        try:
            os.utime(self.path)
        except OSError:
            pass

    def close(self) -> bool:
        """Remove the file if all is delivered, else leave it to anyone; returns whether it was."""
        with self._lock:
            done = not self._events
            try:
                if done:
                    self.path.unlink(missing_ok=True)
                elif self.path.exists():
                    self.path.rename(self.path.with_name(f"{_stem(self.path)}~left.jsonl"))
            except OSError as error:
                self.problem = self.problem or f"{type(error).__name__}: {error}"
            return done


def left(folder: Path, signature: str = "") -> list[Path]:
    """Files that nobody works on, of one trial or of all, oldest first."""
    files = folder.glob(f"{_plain(signature) or '*'}~*.jsonl")
    return [path for _, path in sorted((_seen(path), path) for path in files) if not _owned(path)]


def claim(folder: Path, signature: str = "") -> Outbox | None:
    """Take over a file that nobody works on; None if there is none."""
    for path in left(folder, signature):
        name, token = path.name.split("~")[:2]
        box = Outbox(folder, name, token)
        try:
            path.rename(box.path)
            box.beat()
            text = box.path.read_text(encoding="utf-8", errors="replace")
            if not text.endswith("\n"):  # its writer was killed in the middle of a line
                with box.path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        except OSError:
            continue  # another process was first
        box._events = [event for line in text.splitlines() if (event := _parsed(line))]
        return box
    return None


def _owned(path: Path) -> bool:
    parts = path.name.removesuffix(".jsonl").split("~")
    if len(parts) != 5:
        return False
    host, pid, started = parts[2:]
    return alive(host, pid, started, _seen(path))


def _seen(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _stem(path: Path) -> str:
    return "~".join(path.name.split("~")[:2])


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _parsed(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "op" in event else None


def _number(value: Any) -> Any:
    """Numpy numbers become numbers, anything else unknown its text."""
    return value.item() if hasattr(value, "item") else str(value)
