"""Logs of trials in the store: append-only files of typed lines, which MLflow mirrors.

``STORE/trials/SIGNATURE/`` holds the lines (``log.jsonl``), files that describe the machine, and
for every MLflow that mirrors the log how much of it is there (``mirror-TARGET.json``). A grid has
such a folder, too. Only who holds the lock beside it (`rdx.store.locks`) writes there.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, TypeAdapter

from rdx import facts
from rdx.facts import FactsError
from rdx.store import locks, write_atomic
from rdx.store.locks import Lock

TRIALS = "trials"
LINES = "log.jsonl"
MIRROR = "mirror-"
ATTACHED = ("environment.json", "uncommitted.diff", "trial.json")
GRID, CELL = "grid-", "cell-"  # how names of folders begin that are no trial's
FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"  # MLflow's words


@dataclass(frozen=True, kw_only=True)
class About:
    """What a trial is; see `rdx.tracking.MLflow.trial`."""

    signature: str
    grid: str
    seed: int
    levels: dict[str, str]
    config: dict[str, Any]
    cell: str = ""


@dataclass(frozen=True, kw_only=True)
class Start(About):
    """The beginning of a trial, or of going on with it; `token` tells it from other trials."""

    time: int
    token: str
    tags: dict[str, str]
    kind: Literal["start"] = "start"

    @property
    def claim(self) -> str:
        """What the grid shall show."""
        spec = self.config.get("spec")
        return str(spec.get("claim") or "").strip() if isinstance(spec, Mapping) else ""

    @property
    def measure(self) -> str:
        """What cells are ranked by: the first declared measure; "" if none is declared."""
        evaluation = self.config.get("evaluation")
        measures = evaluation.get("measures") if isinstance(evaluation, Mapping) else None
        return str(measures[0]) if measures else ""


@dataclass(frozen=True, kw_only=True)
class Points:
    """One point of each curve."""

    time: int
    step: int
    values: dict[str, float]
    kind: Literal["points"] = "points"


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Health and other tags."""

    values: dict[str, str]
    kind: Literal["tags"] = "tags"


@dataclass(frozen=True, kw_only=True)
class Input:
    """A dataset that a trial used; `source` and `profile` are JSON."""

    name: str
    digest: str
    source: str
    profile: str
    context: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome: a folder of the store, means, inputs; folder of the student if one was trained.

    `health` is "" of labels.
    """

    time: int
    folder: str
    metrics: dict[str, float]
    inputs: tuple[Input, ...]
    health: str
    checkpoint: str
    kind: Literal["result"] = "result"


@dataclass(frozen=True, kw_only=True)
class End:
    """How a trial ended: one of MLflow's words, and the error in a line."""

    time: int
    status: str
    error: str = ""
    kind: Literal["end"] = "end"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell of a grid: its command line, how it stands, its means if it is finished."""

    signature: str
    overrides: str = ""
    state: str = ""
    health: str | None = None
    means: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """All cells of a grid, what it shall show, and the measure that its cells are ranked by."""

    time: int
    grid: str
    claim: str
    rows: tuple[Row, ...]
    tags: dict[str, str]
    measure: str = ""
    kind: Literal["table"] = "table"


Entry = Start | Points | Tags | Result | End | Table
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Discriminator("kind")])


@dataclass(frozen=True, kw_only=True)
class Position:
    """How much of a log an MLflow has.

    Attributes
    ----------
    run_id
        Of the run; "" before there is one.
    delivered
        Number of lines.
    status
        Of the trial that is there as a whole; "" of one that is not.
    lost
        The first reason why MLflow refused a part of it; "" if it did not.
    """

    run_id: str = ""
    delivered: int = 0
    status: str = ""
    lost: str = ""

    @property
    def complete(self) -> bool:
        """Whether a finished trial is there as a whole."""
        return self.status == FINISHED and not self.lost


class Log:
    """The log of a trial or, by the name `GRID` + its name, of a grid.

    Attributes
    ----------
    entries
        Its lines; one that a killed process left torn is none.
    """

    def __init__(self, store: Path, name: str) -> None:
        self.store, self.name = store, re.sub(r"[^\w-]", "_", name)
        self.folder = store / TRIALS / self.name
        self.entries: list[Entry] = []
        self.read()

    def read(self) -> None:
        """Read what is there now."""
        try:
            text = (self.folder / LINES).read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        self._torn = bool(text) and not text.endswith("\n")
        self.entries = [entry for line in text.splitlines() if (entry := _parsed(line))]

    @property
    def status(self) -> str:
        """How the trial ended; "" if it did not. A grid's table is always whole."""
        match self.entries[-1:]:
            case [End(status=status)]:
                return status
            case [Table()]:
                return FINISHED
        return ""

    @property
    def table(self) -> Table | None:
        """The newest table of a grid; None of a trial."""
        last = self.entries[-1] if self.entries else None
        return last if isinstance(last, Table) else None

    def append(self, entry: Entry) -> None:
        """Add a line.

        Raises
        ------
        OSError
            If it cannot be written; `entries` has it all the same.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LINES).open("a", encoding="utf-8") as file:
                file.write(("\n" if self._torn else "") + _line(entry))
            self._torn = False
        finally:
            self.entries.append(entry)

    def restart(self, entry: Entry, keep_runs: bool = False) -> None:
        """Begin a new log, for runs of its own or for those that mirrored the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{MIRROR}*.json"):
            if keep_runs:
                target = path.stem.removeprefix(MIRROR)
                self.move(target, Position(run_id=self.position(target).run_id))
            else:
                path.unlink()
        write_atomic(
            self.folder / LINES, lambda path: path.write_text(_line(entry), encoding="utf-8")
        )
        self.entries, self._torn = [entry], False

    def attach(self, name: str, text: str) -> None:
        """Keep a text beside the log; "" removes it."""
        path = self.folder / name
        if text:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        else:
            path.unlink(missing_ok=True)

    def position(self, target: str) -> Position:
        """How much of it a target has."""
        return _position(self.folder / f"{MIRROR}{target}.json")

    def move(self, target: str, position: Position) -> None:
        """Note how much of it a target has."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(
            self.folder / f"{MIRROR}{target}.json",
            lambda path: path.write_text(facts.dump(position)),
        )

    def waiting(self, target: str) -> bool:
        """Whether a target lacks something of it."""
        position = self.position(target)
        return position.delivered < len(self.entries) or not position.status or not self.status

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the log; waits while another process records the same trial."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with Lock(self.folder) as held:
            held.tell("trial")
            yield

    @contextmanager
    def free(self, seconds: float = 0.5) -> Iterator[bool]:
        """Take the lock of the log, unless another process holds it for so many seconds."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.free(self.held, seconds) as taken:
            if taken:
                self.read()
            yield taken

    @property
    def held(self) -> Path:
        """The lock."""
        return self.folder.with_suffix(".held")

    def silent(self) -> bool:
        """Whether its holder, perhaps on another machine, gave no sign of life of late."""
        return locks.silent(self.held)


def logs(store: Path) -> list[Log]:
    """All logs of a store: trials, the oldest first, then grids."""
    names = [path.parent.name for path in store.glob(f"{TRIALS}/*/{LINES}")]
    all_logs = [Log(store, name) for name in names if "." not in name]  # KEY.old is half removed
    return sorted(all_logs, key=lambda log: (log.name.startswith(GRID), _begin(log.entries)))


def dead(store: Path) -> list[Log]:
    """Logs with a lock: of trials that run, and of those whose process is gone."""
    return [Log(store, path.stem) for path in store.glob(f"{TRIALS}/*.held")]


def recorded(store: Path, target: str) -> set[str]:
    """Signatures of the finished trials that a target has as a whole."""
    paths = store.glob(f"{TRIALS}/*/{MIRROR}{target}.json")
    return {
        path.parent.name
        for path in paths
        if not path.parent.name.startswith(GRID) and _position(path).complete
    }


def now() -> int:
    """Milliseconds since the epoch, which MLflow counts in."""
    return int(time.time() * 1000)


def _begin(entries: Sequence[Entry]) -> int:
    return getattr(entries[0], "time", 0) if entries else 0


def _position(path: Path) -> Position:
    try:
        return facts.parse(Position, path.read_bytes())
    except (OSError, FactsError):
        return Position()


def _line(entry: Entry) -> str:
    return json.dumps(dataclasses.asdict(entry), default=str) + "\n"


def _parsed(line: str) -> Entry | None:
    try:
        return _ENTRY.validate_python(json.loads(line))
    except ValueError:  # pydantic's errors are such, too
        return None
