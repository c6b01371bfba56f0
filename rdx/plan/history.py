"""Estimate time and size of stages from comparable stored results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from pydantic import JsonValue

from rdx import config
from rdx.job import Parts
from rdx.plan.stored import Entry, Past, Shelf
from rdx.stages import STAGES, Step, Work, steps
from rdx.store import signature


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


class History:
    """Seconds a unit of work and bytes of stored results, by what is comparable (`Work.like`)."""

    def __init__(self, past: Iterable[Past], shelf: Shelf) -> None:
        self._rates: dict[str, list[float]] = defaultdict(list)
        self._bytes: dict[str, list[int]] = defaultdict(list)
        seen = set()
        for cell in past:
            for step in _known_steps(cell.parts):
                place = (cell.root, step.stage, cell.keys.get(str(step), "-"))
                entry = shelf.entry(*place)
                if entry is not None and place not in seen:
                    seen.add(place)
                    self._add(work(cell.parts, step), entry)

    def _add(self, work: Work, entry: Entry) -> None:
        self._rates[signature(work.like)].append(entry.seconds / (work.units or 1))
        self._bytes[signature(work.like)].append(entry.bytes)
        if work.size is not None:
            self._bytes[signature(work.size)].append(entry.bytes)

    def seconds(self, work: Work) -> Span | None:
        """What a result will take; None if nothing comparable is stored."""
        rates = self._rates.get(signature(work.like))
        if not rates:
            return None
        return Span(median(rates), min(rates), max(rates), len(rates)).scaled(work.units or 1)

    def bytes(self, work: Work) -> int | None:
        """What a result will occupy, the median of comparable ones; None if there is none."""
        held = self._bytes.get(signature(work.like)) or self._bytes.get(signature(work.size))
        return round(median(held)) if held else None


def work(parts: Parts, step: Step) -> Work:
    """How much work a step is."""
    return STAGES[step.stage].work(parts, step.role)


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
    return signature(groups)
