"""The ledger: every answer of an LLM, appended to a file before it is used.

A folder of JSON lines files, one per writer, so that several processes need no lock, which network
file systems often lack. A killed writer leaves at most one torn line, at the end of its file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rdx.teachers.messages import Message

# What an export leaves out, at any depth: machine and people, and texts with their own licences.
PRIVATE = frozenset(
    ("host", "pid", "user", "latency", "started", "time", "path", "folder", "base_url", "device")
    + ("error", "messages", "query", "passages")  # errors may name addresses
)
MODELS = ("model", "tokenizer", "adapter")  # of which a local folder keeps only its name


class Place(NamedTuple):
    """Where a row is, and whether it says that there was no answer."""

    file: str
    offset: int
    failed: bool


class Ledger:
    """The answers in a folder, and a file there for new ones.

    In memory is an index only (see benchmarks/ledger.py). Safe to use from several threads.

    Parameters
    ----------
    folder
        Made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._index: dict[tuple[str, int], Place] = {}
        self._seen: dict[str, tuple[int, int]] = {}  # per file: offset read up to, size then
        self._lock = threading.RLock()
        self._writer: _Writer | None = None

    def find(self, key: str, attempt: int) -> dict[str, Any] | None:
        """Return the row of an attempt, also one that another process has just added, or None.

        Of several rows the first one counts, by start of the writer and then by position; but one
        with the state "failed" only until there is another.
        """
        with self._lock:
            place = self._index.get((key, attempt))
            if place is None or place.failed:
                self._read()
                place = self._index.get((key, attempt))
        return None if place is None else next(self._at([place]))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; it is on the disk when this returns.

        Parameters
        ----------
        row
            "key" (text), "attempt" (integer), and anything else that JSON can say.
        """
        row["key"], row["attempt"]  # noqa: B018  a row without them could never be found
        line = json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._lock:
            if self._writer is None or self._writer.pid != os.getpid():  # forked: not our file
                self._writer = _Writer(self.folder)
            writer = self._writer
            try:
                offset = writer.append(line)
            except BaseException:
                self.close()  # there may be half a line at its end: never write after that
                raise
            self._seen[writer.name] = (writer.end, writer.end)
            self._note(row, writer.name, offset)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row, one writer after the other, also those that others take precedence of."""
        for name in self._files():
            for _, _, row in self._scan(name, 0):
                yield row

    def answers(self) -> Iterator[dict[str, Any]]:
        """Every row that counts: those that `find` returns."""
        with self._lock:
            self._read()
            places = list(self._index.values())
        return self._at(places)

    def close(self) -> None:
        """Close the file that was written to; the next `add` begins a new one."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _at(self, places: list[Place]) -> Iterator[dict[str, Any]]:
        for file, group in groupby(places, key=lambda place: place.file):
            with (self.folder / file).open("rb") as lines:
                for place in group:
                    lines.seek(place.offset)
                    yield json.loads(lines.readline())

    def _read(self) -> None:
        """Index what was appended since the last time."""
        for name, size in self._files().items():
            done, size_then = self._seen.get(name, (0, 0))
            if size != size_then:
                for offset, end, row in self._scan(name, done):
                    self._note(row, name, offset)
                    done = end
                self._seen[name] = (done, size)

    def _files(self) -> dict[str, int]:
        """Size of every file, in the order of the writers' starts."""
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            sizes = {e.name: e.stat().st_size for e in entries if e.name.endswith(".jsonl")}
        return {name: sizes[name] for name in sorted(sizes, key=_started)}

    def _scan(self, name: str, offset: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Whole rows from an offset on: (start, end, row)."""
        damaged = 0
        with (self.folder / name).open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if not line.endswith(b"\n"):  # torn, or still being written
                    break
                start, offset = offset, offset + len(line)
                row = _row(line)
                if row is None:
                    damaged += 1
                else:
                    yield start, offset, row
        if damaged:
            warnings.warn(
                f"{self.folder / name}: {damaged} damaged lines are left out", stacklevel=3
            )

    def _note(self, row: dict[str, Any], file: str, offset: int) -> None:
        failed = row.get("state") == "failed"
        known = self._index.get((row["key"], row["attempt"]))
        if known is None or (known.failed and not failed):
            self._index[row["key"], row["attempt"]] = Place(file, offset, failed)


class _Writer:
    """A new file of this process; nobody else writes to it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.pid = os.getpid()
        host = re.sub(r"[^\w.]", "_", socket.gethostname())
        self.name = f"{host}-{self.pid}-{time.time_ns()}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self.file = os.open(folder / self.name, flags, 0o666)
        self.end = 0
        parent = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(parent)  # the file's name, too, is to survive
        finally:
            os.close(parent)

    def append(self, line: bytes) -> int:
        """Write a line, wait until it is on the disk, and return its offset."""
        start, rest = self.end, memoryview(line)
        while rest:
            rest = rest[os.write(self.file, rest) :]
        os.fsync(self.file)
        self.end += len(line)
        return start

    def close(self) -> None:
        os.close(self.file)


def key(identity: dict[str, Any], messages: list[Message]) -> str:
    """Content hash of a request: 32 hex digits of the sha256 of canonical JSON."""
    request = {"identity": identity, "messages": messages}
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def export(folder: Path, keys: Iterable[str] | None, out: Path) -> dict[str, Any]:
    """Write the answers in a form that can be given away.

    ``answers.jsonl`` is sorted by key and attempt, so that the same answers give the same bytes;
    machines, people, times, addresses, folders, and the texts of queries and passages are left out
    (`PRIVATE`). ``manifest.json`` counts states, models and prompts and has the checksum.

    Parameters
    ----------
    folder
        Of the ledger.
    keys
        Which requests; None = all.
    out
        Folder to write to.

    Returns
    -------
    dict
        The manifest.
    """
    wanted = None if keys is None else set(keys)
    rows = [row for row in Ledger(folder).answers() if wanted is None or row["key"] in wanted]
    rows.sort(key=lambda row: (row["key"], row["attempt"]))
    lines = [json.dumps(_public(row), sort_keys=True, ensure_ascii=True) for row in rows]
    content = "".join(line + "\n" for line in lines).encode()
    present = {row["key"] for row in rows}
    manifest = {
        "answers": len(rows),
        "requests": len(present),
        "requests_without_answer": 0 if wanted is None else len(wanted - present),
        **{f"{name}s": _counts(rows, name) for name in ("state", "model", "prompt")},
        "sha256": {"answers.jsonl": hashlib.sha256(content).hexdigest()},
        "date": datetime.now(UTC).date().isoformat(),
    }
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _replace(out / "answers.jsonl", content)
    _replace(out / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return row if {"key", "attempt"} <= row.keys() else None
    except (ValueError, AttributeError):
        return None


def _started(name: str) -> tuple[int, str]:
    """Order of the writers: by their start, which ends the name."""
    digits = re.search(r"(\d+)\.jsonl$", name)
    return (int(digits.group(1)) if digits else 0, name)


def _public(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _public(v, k) for k, v in value.items() if k not in PRIVATE}
    if isinstance(value, list):
        return [_public(item, name) for item in value]
    if isinstance(value, str) and name in MODELS and value.startswith(("/", "~", ".")):
        return Path(value).name
    return value


def _counts(rows: list[dict[str, Any]], name: str) -> dict[str, int]:
    """How many rows have which value of a key, wherever in the row it is; "" = none."""
    found = (_public(_first(row, name), name) for row in rows)
    texts = (one if isinstance(one, str) else json.dumps(one, sort_keys=True) for one in found)
    return dict(sorted(Counter(texts).items()))


def _first(row: dict[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    for value in row.values():
        if isinstance(value, dict):
            found = _first(value, name)
            if found != "":
                return found
    return ""


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
