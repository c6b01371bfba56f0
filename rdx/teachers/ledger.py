"""The ledger: every answer of an LLM, appended to a file before it is used.

A folder of JSON lines files, one per writer, so that several processes need no lock, which network
file systems often lack. A killed writer leaves at most one torn line, at the end of its file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from json.encoder import encode_basestring_ascii as _text
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:  # the module stands alone, so that a writer of a test starts without torch
    from pydantic import JsonValue

    from rdx.teachers.messages import Identity, Message

# What an export leaves out, at any depth: machine and people, and texts with their own licences.
PRIVATE = frozenset(
    ("host", "pid", "user", "latency", "started", "time", "path", "folder", "base_url", "device")
    + ("error", "messages", "query", "passages")  # errors may name addresses
)
MODELS = ("model", "tokenizer", "adapter")  # of which a local folder keeps only its name
FAILED = "failed"
REFUSED = "refused"  # also the state of an answer
TOO_LONG = "too_long"  # does not fit into the context, as the service says
REJECTED = "rejected"  # perhaps too long ...
UNFIT = "unfit"  # ... and was, for a shorter request was answered


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: what an LLM answered, or why it did not.

    Parameters
    ----------
    key, attempt
        Content hash of the request (`request_key`); which answer to it this is, from 0.
    owner, query_id, size
        Teacher ranking that asked for it, its query, and the passages shown.
    identity
        Of the prompt and the LLM: further keys of the line.
    answer, finish, input_tokens, output_tokens, latency, served
        As in `messages.Answer`; an `answer` of None is none.
    cost
        In the currency of the prices then.
    state
        Parse state of the answer by the rule then; without one "too_long", "rejected" (perhaps too
        long; followed by an entry "unfit" if that turns out), "refused" or "failed".
    error
        Why there is no answer.
    thinking_tokens, estimated
        As in `messages.Answer`.
    lost_input, lost_output
        Tokens of the tries before, or instead of, the answer that were served in vain.
    """

    key: str
    attempt: int
    owner: str = ""
    query_id: str = ""
    size: int = 0
    identity: Identity = field(default_factory=dict)
    answer: str | None = None
    finish: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    latency: float = 0.0
    served: str = ""
    cost: float = 0.0
    state: str = ""
    error: str = ""
    thinking_tokens: int = 0
    estimated: bool = False
    lost_input: int = 0
    lost_output: int = 0

    @property
    def open(self) -> bool:
        """Whether there may still be an answer to this request: a later session asks again."""
        refused = self.state == REFUSED and self.answer is None
        return refused or self.state in (FAILED, REJECTED)

    def plain(self) -> dict[str, JsonValue]:
        """The line as plain JSON, without what it has no value of."""
        plain: dict[str, JsonValue] = {"key": self.key, "attempt": self.attempt}
        plain |= {"owner": self.owner, "query_id": self.query_id, "size": self.size}
        plain |= self.identity
        if self.answer is not None:
            plain |= {"answer": self.answer, "finish": self.finish}
            plain |= {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
            plain |= {"latency": self.latency} | ({"served": self.served} if self.served else {})
        if self.answer is not None or self.cost:
            plain["cost"] = self.cost
        plain["state"] = self.state
        return plain | {name: value for name in WHERE_SET if (value := getattr(self, name))}


# Fields of an entry that its line has only where there is something to say.
WHERE_SET = ("error", "thinking_tokens", "estimated", "lost_input", "lost_output")
FIELDS = tuple(f.name for f in dataclasses.fields(Entry) if f.name != "identity")


def parse(line: str | bytes) -> Entry:
    """Read a line; ValueError, TypeError or AttributeError if it is damaged."""
    plain = json.loads(line)
    own = {name: plain.pop(name) for name in FIELDS if name in plain}
    return Entry(**own, identity=plain)


def _line(entry: Entry) -> bytes:
    text = json.dumps(entry.plain(), separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


class Place(NamedTuple):
    """Where an entry is, and whether it gives way to another one."""

    file: str
    offset: int
    open: bool


class Ledger:
    """The answers in a folder, and a file there for new ones.

    In memory is an index only (see benchmarks/ledger.py). Safe to use from several threads: who
    looks something up does not wait for who writes.

    Parameters
    ----------
    folder
        Made when first written to.
    fresh
        Seconds before `find` looks again for what other processes have added.
    """

    def __init__(self, folder: Path, fresh: float = 0.0) -> None:
        self.folder = Path(folder)
        self._fresh, self._read_at = fresh, -math.inf
        self._index: dict[tuple[str, int], Place] = {}
        self._seen: dict[str, tuple[int, int]] = {}  # per file: offset read up to, size then
        self._lock = threading.RLock()  # of the index
        self._writing = threading.RLock()
        self._writer: _Writer | None = None
        self._reader: tuple[str, BinaryIO] | None = None  # the file that was last read from

    def find(self, key: str, attempt: int) -> Entry | None:
        """Return the entry of an attempt, also one that another process has just added, or None.

        Of several entries the first one counts, by start of the writer and then by position; but
        one that is open, such as of a request that failed, only until there is another.
        """
        with self._lock:
            place = self._index.get((key, attempt))
            stale = time.monotonic() - self._read_at >= self._fresh
            if stale and (place is None or place.open):
                self._read()
                place = self._index.get((key, attempt))
            return None if place is None else self._entry(place)

    def add(self, *entries: Entry) -> None:
        """Append entries; they are on the disk when this returns, and are not found before."""
        lines = list(map(_line, entries))
        with self._writing:
            writer = self._own()
            if writer is None:
                writer = self._writer = _Writer(self.folder)
            try:
                offset = writer.append(b"".join(lines))
            except BaseException:
                self.close()  # there may be half a line at its end: never write after that
                raise
            with self._lock:
                self._seen[writer.name] = (writer.end, writer.end)
                for entry, line in zip(entries, lines, strict=True):
                    self._note(entry, writer.name, offset)
                    offset += len(line)

    def entries(self) -> Iterator[Entry]:
        """Every entry, one writer after the other, also those that others take precedence of."""
        for name, size in self._files().items():
            yield from self._indexed(name, 0, size)

    def answers(self) -> Iterator[Entry]:
        """Every entry that counts: those that `find` returns."""
        with self._lock:
            self._read()
            places = list(self._index.values())
        return self._at(places)

    def close(self) -> None:
        """Close the file that was written to; the next `add` begins a new one."""
        with self._writing, self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._reader is not None:
                self._reader[1].close()
                self._reader = None

    def _own(self) -> _Writer | None:
        """The file that this process writes to; not that of the process that forked it."""
        writer = self._writer
        return writer if writer is not None and writer.pid == os.getpid() else None

    def _entry(self, place: Place) -> Entry:
        """Read an entry; its file stays open, for the next one is mostly there too."""
        if self._reader is None or self._reader[0] != place.file:
            if self._reader is not None:
                self._reader[1].close()
            self._reader = (place.file, (self.folder / place.file).open("rb"))
        lines = self._reader[1]
        lines.seek(place.offset)
        return parse(lines.readline())

    def _at(self, places: list[Place]) -> Iterator[Entry]:
        for file, group in groupby(places, key=lambda place: place.file):
            with (self.folder / file).open("rb") as lines:
                for place in group:
                    lines.seek(place.offset)
                    yield parse(lines.readline())

    def _read(self) -> None:
        """Index what others have appended since the last time."""
        for name, size in self._files().items():
            done, size_then = self._seen.get(name, (0, 0))
            if size != size_then:
                for _ in self._indexed(name, done, size):
                    pass
        self._read_at = time.monotonic()

    def _indexed(self, name: str, done: int, size: int) -> Iterator[Entry]:
        """Entries of a file of so many bytes from an offset on, indexed.

        What this process writes is indexed when it is on the disk, not when it can be read.
        """
        own = self._own()
        others = own is None or own.name != name
        for offset, end, entry in self._scan(name, done):
            if others:
                self._note(entry, name, offset)
            done = end
            yield entry
        if others:
            self._seen[name] = (done, size)

    def _files(self) -> dict[str, int]:
        """Size of every file, in the order of the writers' starts."""
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            sizes = {e.name: e.stat().st_size for e in entries if e.name.endswith(".jsonl")}
        return {name: sizes[name] for name in sorted(sizes, key=_started)}

    def _scan(self, name: str, offset: int) -> Iterator[tuple[int, int, Entry]]:
        """Whole lines from an offset on: (start, end, entry)."""
        damaged = 0
        with (self.folder / name).open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if not line.endswith(b"\n"):  # torn, or still being written
                    break
                start, offset = offset, offset + len(line)
                try:
                    entry = parse(line)
                except (ValueError, TypeError, AttributeError):
                    damaged += 1
                    continue
                yield start, offset, entry
        if damaged:
            warnings.warn(
                f"{self.folder / name}: {damaged} damaged lines are left out", stacklevel=3
            )

    def _note(self, entry: Entry, file: str, offset: int) -> None:
        with self._lock:
            known = self._index.get((entry.key, entry.attempt))
            if known is None or (known.open and not entry.open):
                self._index[entry.key, entry.attempt] = Place(file, offset, entry.open)


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

    def append(self, lines: bytes) -> int:
        """Write lines, wait until they are on the disk, and return their offset."""
        start, rest = self.end, memoryview(lines)
        while rest:
            rest = rest[os.write(self.file, rest) :]
        os.fsync(self.file)
        self.end += len(lines)
        return start

    def close(self) -> None:
        os.close(self.file)


def request_key(identity: Identity, messages: list[Message]) -> str:
    """Content hash of a request: 32 hex digits of the sha256 of canonical JSON."""
    asked = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # As `json.dumps` writes them, in half the time; a session that goes on hashes all it asked.
    said = ",".join(
        [f'{{"content":{_text(m["content"])},"role":{_text(m["role"])}}}' for m in messages]
    )
    text = f'{{"identity":{asked},"messages":[{said}]}}'
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ExportManifest:
    """What was exported: counts, checksums by file name, and the day."""

    answers: int
    requests: int
    requests_without_answer: int
    states: dict[str, int]
    models: dict[str, int]
    prompts: dict[str, int]
    sha256: dict[str, str]
    date: str


def export(folder: Path, keys: Iterable[str] | None, out: Path) -> ExportManifest:
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
    """
    wanted = None if keys is None else set(keys)
    entries = [e for e in Ledger(folder).answers() if wanted is None or e.key in wanted]
    entries.sort(key=lambda entry: (entry.key, entry.attempt))
    lines = [json.dumps(_public(e.plain()), sort_keys=True, ensure_ascii=True) for e in entries]
    content = "".join(line + "\n" for line in lines).encode()
    present = {entry.key for entry in entries}
    manifest = ExportManifest(
        answers=len(entries),
        requests=len(present),
        requests_without_answer=0 if wanted is None else len(wanted - present),
        states=_counts(entry.state for entry in entries),
        models=_counts(_public(entry.identity.get("model", ""), "model") for entry in entries),
        prompts=_counts(_public(entry.identity.get("prompt", "")) for entry in entries),
        sha256={"answers.jsonl": hashlib.sha256(content).hexdigest()},
        date=datetime.now(UTC).date().isoformat(),
    )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _replace(out / "answers.jsonl", content)
    plain = json.dumps(dataclasses.asdict(manifest), indent=1)
    _replace(out / "manifest.json", (plain + "\n").encode())
    return manifest


def _started(name: str) -> tuple[int, str]:
    """Order of the writers: by their start, which ends the name."""
    digits = re.search(r"(\d+)\.jsonl$", name)
    return (int(digits.group(1)) if digits else 0, name)


def _public(value: JsonValue, name: str = "") -> JsonValue:
    if isinstance(value, dict):
        return {k: _public(v, k) for k, v in value.items() if k not in PRIVATE}
    if isinstance(value, list):
        return [_public(item, name) for item in value]
    if isinstance(value, str) and name in MODELS and value.startswith(("/", "~", ".")):
        return Path(value).name
    return value


def _counts(values: Iterable[JsonValue]) -> dict[str, int]:
    """How often each value occurs, by its text; "" = none."""
    texts = (v if isinstance(v, str) else json.dumps(v, sort_keys=True) for v in values)
    return dict(sorted(Counter(texts).items()))


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
