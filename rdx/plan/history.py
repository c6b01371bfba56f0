"""Estimate time and size of stages from comparable stored results.

Times are of one device: those of another say nothing about it. A result of equal work took what
the next will take. For other work, the part of a result that grows with the work, its pace, is told
from the part that does not (`_Measured`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rdx import config
from rdx.devices import CPU, device
from rdx.facts import Device, Manifest
from rdx.job import Parts
from rdx.plan.stored import Entry, Past, Shelf
from rdx.stages import Step, Work, steps, work
from rdx.store import signature
from rdx.text import counted

if TYPE_CHECKING:
    from rdx.trainer.sizes import Size

# What lasted less is too short to extrapolate from: a pace that was measured; a whole result, of
# which nothing tells how long its start took.
LEAST_PACE, LEAST_WHOLE = 10.0, 60.0
FARTHEST = 10.0  # times as large a model: beyond, a device is used too differently


@dataclass(frozen=True)
class Span:
    """An estimate in seconds.

    Attributes
    ----------
    value, low, high
        Median, least and most of what was observed, scaled to what is planned.
    observed
        Results behind it; of a sum, those behind its least certain part.
    """

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    observed: int = 0

    def __add__(self, other: Span) -> Span:
        """One after the other."""
        counts = [span.observed for span in (self, other) if span.observed]
        return Span(
            self.value + other.value,
            self.low + other.low,
            self.high + other.high,
            min(counts, default=0),
        )

    def scaled(self, factor: float) -> Span:
        """So many times as long."""
        return Span(self.value * factor, self.low * factor, self.high * factor, self.observed)


class How(StrEnum):
    """How a time is estimated, or why it is not.

    Attributes
    ----------
    EQUAL
        From results of equal work.
    PACE
        From the pace of results of more or less work.
    SCALED
        From the pace of results of a larger or smaller model, by floating-point operations.
    SHORT
        Results of other work were too short, or interrupted, to tell their pace, or their models
        are too far in size.
    ELSEWHERE
        Results were made on other devices, or an older version of rdx did not record on which.
    NOTHING
        There are none.
    """

    EQUAL = "equal"
    PACE = "pace"
    SCALED = "scaled"
    SHORT = "short"
    ELSEWHERE = "elsewhere"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Source:
    """Where the estimate of a time comes from, or why there is none.

    Attributes
    ----------
    how
        One of `How`.
    device
        What is planned on, with its precision; "" of what no machine of ours does.
    results
        That tell something, or would on this device.
    elsewhere
        Devices that they were made on, if not on this one; "" = not recorded.
    model, of
        Parameters of the student that is planned, and of the one that was measured, if it is
        another.
    """

    how: How
    device: str
    results: int = 0
    elsewhere: tuple[str, ...] = ()
    model: int = 0
    of: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a result will take, None if unknown; and what tells."""

    span: Span | None
    source: Source


@dataclass(frozen=True)
class _Measured:
    """A stored result whose work is known."""

    work: Work
    manifest: Manifest

    @property
    def whole(self) -> float | None:
        """Seconds of all the work; None if a part of it was done by a process that was killed."""
        return None if self.manifest.resumed else self.manifest.seconds

    @property
    def parts(self) -> tuple[float, float] | None:
        """Seconds that do not grow with the work, and seconds a unit; None if nothing tells."""
        pace, seconds, units = self.manifest.pace, self.manifest.seconds, self.work.units
        if not units:
            return None
        if pace is not None and pace.seconds >= LEAST_PACE:
            of_all = pace.seconds / pace.share
            # how much of it was done before an interruption, nothing tells
            done_here = pace.seconds if self.manifest.resumed else of_all
            return max(seconds - done_here, 0.0), of_all / units
        if pace is None and self.whole is not None and self.whole >= LEAST_WHOLE:
            return 0.0, self.whole / units
        return None

    def seconds(self, units: float, factor: float = 1.0) -> float | None:
        """Of so many units, each of so many times as many operations."""
        parts = self.parts
        return None if parts is None else parts[0] + parts[1] * factor * units


class History:
    """Times and sizes of stored results, by what is comparable (`rdx.stages.Work`).

    Parameters
    ----------
    name
        Of the device that is planned on, as a plan shows it; None: those of this machine.

    Raises
    ------
    ConfigError
        If no result was made on a device of this name.
    """

    def __init__(self, past: Iterable[Past], shelf: Shelf, name: str | None = None) -> None:
        self._measured: dict[str, list[_Measured]] = defaultdict(list)
        self._scaling: dict[str, list[_Measured]] = defaultdict(list)
        self._bytes: dict[str, list[int]] = defaultdict(list)
        seen = set()
        for cell in past:
            for step in _known_steps(cell.parts):
                place = (cell.root, step.stage, cell.keys.get(str(step), "-"))
                entry = shelf.entry(*place)
                if entry is not None and place not in seen:
                    seen.add(place)
                    self._add(work(cell.parts, step), entry)
        self._device = device if name is None else _named(name, self._devices())

    def _add(self, work: Work, entry: Entry) -> None:
        measured = _Measured(work, entry.manifest)
        self._measured[_key(work.like, work)].append(measured)
        if work.scales is not None:
            self._scaling[_key(work.scales, work)].append(measured)
        self._bytes[signature(work.like)].append(entry.bytes)
        if work.size is not None:
            self._bytes[signature(work.size)].append(entry.bytes)

    def _devices(self) -> list[Device]:
        """What results were made on."""
        made = [r.manifest.device for results in self._measured.values() for r in results]
        return [device for device in dict.fromkeys(made) if device is not None]

    def estimate(self, work: Work) -> Estimate:
        """What a result will take on the device that is planned on."""
        comparable = self._measured.get(_key(work.like, work), [])
        scaling = self._scaling.get(_key(work.scales, work), []) if work.scales else []
        on = None if work.device is None else self._device(work.device)
        label = "" if on is None else ", ".join(filter(None, [str(on), work.precision]))

        def on_it(results: list[_Measured]) -> list[_Measured]:
            return [r for r in results if on is None or r.manifest.device == on]

        here, others = on_it(comparable), on_it(scaling)
        equal = [r.whole for r in here if r.work.units == work.units and r.whole is not None]
        if equal:
            return Estimate(_span(equal), Source(How.EQUAL, label, len(equal)))
        if work.units is not None:
            told = [s for r in here if (s := r.seconds(work.units)) is not None]
            if told:
                return Estimate(_span(told), Source(How.PACE, label, len(told)))
            if (estimate := _scaled(work, others, label)) is not None:
                return estimate
        if here or others:
            return Estimate(None, Source(How.SHORT, label, len(here or others)))
        elsewhere = comparable or scaling
        if elsewhere:
            devices = dict.fromkeys(str(r.manifest.device or "") for r in elsewhere)
            source = Source(How.ELSEWHERE, label, len(elsewhere), tuple(devices))
            return Estimate(None, source)
        return Estimate(None, Source(How.NOTHING, label))

    def bytes(self, work: Work) -> int | None:
        """What a result will occupy, the median of comparable ones; None if there is none."""
        held = self._bytes.get(signature(work.like)) or self._bytes.get(signature(work.size))
        return round(median(held)) if held else None


def _named(name: str, known: Sequence[Device]) -> Callable[[str], Device]:
    """What takes the place of this machine's GPU, or of both its GPU and its CPU."""
    found = [d for d in known if str(d) == name] or [d for d in known if d.name == name]
    if len(found) != 1:
        names = sorted(map(str, found or known))
        raise config.ConfigError(
            f"--device {name}: {counted(len(found), 'device')} of this name in the results of the "
            f"store; there are {names}"
        )
    [chosen] = found
    return lambda asked: device(asked) if asked == CPU and chosen.gpu else chosen


def _key(what: JsonValue, work: Work) -> str:
    return signature([what, work.precision])


def _span(seconds: Sequence[float]) -> Span:
    return Span(median(seconds), min(seconds), max(seconds), len(seconds))


def _scaled(work: Work, others: Sequence[_Measured], label: str) -> Estimate | None:
    """From the results of the model nearest in size, by operations a token; None without one."""
    planned = work.model() if others else None
    if planned is None or work.units is None:
        return None
    seconds: dict[Size, list[float]] = defaultdict(list)
    for result in others:
        model = result.work.model()
        if model is not None:
            factor = planned.parameters / model.parameters
            estimated = result.seconds(work.units, factor)
            if estimated is not None and 1 / FARTHEST <= factor <= FARTHEST:
                seconds[model].append(estimated)
    if not seconds:
        return None
    nearest = min(seconds, key=lambda model: _apart(model.parameters, planned.parameters))
    span = _span(seconds[nearest])
    sizes = (planned.parameters, nearest.parameters)
    return Estimate(span, Source(How.SCALED, label, span.observed, (), *sizes))


def _apart(one: float, other: float) -> float:
    """How many times as large the larger one is."""
    return max(one, other) / min(one, other)


def _known_steps(parts: Parts) -> list[Step]:
    """The steps of a stored cell; none if it was configured for another version of rdx."""
    try:
        return [step for step in steps(parts) if work(parts, step)]
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return []


def but_for_the_seed(parts: Parts) -> str:
    """Cells for which this is equal are training runs of one system."""
    groups: list[JsonValue] = [
        config.identity(getattr(parts, group)) for group in config.GROUPS if group != "tracking"
    ]
    for key, origin in parts.origins.items():
        other = origin.content if origin.parts is None else but_for_the_seed(origin.parts)
        groups.append([key, other])
    return signature(groups)
