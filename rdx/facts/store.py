"""What the store tells of results, of those who make them, and of grids."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue

from rdx.text import counted


@dataclass(frozen=True)
class Device:
    """What computes, by the name that people know it by, and how many of it.

    Attributes
    ----------
    name
        Of the GPU or the processor.
    gpu
        Whether it is a GPU.
    count
        GPUs; or cores that are computed on. Of all processes together.
    """

    name: str
    gpu: bool
    count: int = 1

    def __str__(self) -> str:
        """As in "NVIDIA H200", "2 x NVIDIA H200" and "AMD EPYC 9645, 2 cores"."""
        if self.gpu:
            return self.name if self.count == 1 else f"{self.count} x {self.name}"
        return f"{self.name}, {counted(self.count, 'core')}"


@dataclass(frozen=True)
class Pace:
    """How fast work went on: its share that was done in so many seconds, without the start."""

    share: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A stored result.

    Attributes
    ----------
    signed, files
        What was signed; the sha256 of its files.
    seconds
        That it took; if it was `resumed`, those since then.
    resumed
        Whether a process that was killed or failed had begun it.
    device, pace
        What it was made on, and how fast after its start; None where that was not recorded.
    """

    stage: str
    signature: str
    signed: JsonValue
    files: dict[str, str]
    seconds: float
    resumed: bool = False
    device: Device | None = None
    pace: Pace | None = None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who makes a result, and how far it is (``KEY.running.json``).

    Attributes
    ----------
    host, pid
        The process.
    since, stage_since, now
        Unix times: when it began, when its present stage began, when this was written.
    stage, first_step, step, steps
        The stage; its first step here, which begins its time anew, steps done and steps of all;
        None where it counts none.
    """

    host: str
    pid: int
    since: float
    stage: str = ""
    stage_since: float = 0.0
    first_step: int | None = None
    step: int | None = None
    steps: int | None = None
    now: float = 0.0

    @property
    def pace(self) -> Pace | None:
        """Of the stage's steps after the first that was done here; None where there is none."""
        first, step = self.first_step, self.step
        if not self.steps or step is None or first is None or step <= first:
            return None
        return Pace((step - first) / self.steps, max(self.now - self.stage_since, 0.0))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why the last try of a cell failed (``KEY.failed.json``).

    Attributes
    ----------
    state, cause
        One of `rdx.progress.TO_RETRY`; the error in a line.
    log, where
        File with the traceback; host:pid.
    max_tokens
        Sizes of micro-batches that the configuration gives as numbers, by their keys.
    """

    state: str
    cause: str
    log: str
    where: str
    max_tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GridCell:
    """A cell: the command line that gives it, its signature, and those of its steps by name."""

    overrides: tuple[str, ...]
    signature: str
    signatures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What was begun on a command line, of its own or for a grid (``STAGE/KEY.cell.json``).

    Attributes
    ----------
    cell
        Of labels without a training, as far as these.
    host, pid
        The process that works on it, or was killed; "" and 0: it has ended.
    since
        When it began, in seconds since 1970.
    """

    cell: GridCell
    host: str
    pid: int
    since: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid that was launched (``grids/GRID.json``); `arguments` and `hydra` launch it again."""

    grid: str
    arguments: tuple[str, ...]
    hydra: tuple[str, ...]
    cells: tuple[GridCell, ...]
    launched: float
