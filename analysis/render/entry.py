"""Tables as data: entries with a text, the number behind it, and flags.

An entry is made by the function for what it holds, so that text, value and flags always agree::

    system("RankNet")              number(0.7214)            number(-0.012, sign=True)
    interval(-0.02, 0.01)          p_value(0.0004)           count(43)
    runs(1)                        ABSENT                    Entry("any words")
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rdx.equality import printed

DASH = "–"  # shown for what does not exist
ALARM = "(!)"  # shown behind what rests on a trial that is not healthy
MARKS = "†‡§¶‖"  # differs significantly from the first, second, … baseline
EQUIVALENT = "≈"
APART = "On other queries, not to be compared with the rows above:"


class Flag(StrEnum):
    """What is special about an entry."""

    BEST = "best"  # of its column, as printed
    SECOND = "second"
    SIGNIFICANT = "significant"  # the difference that it shows, or that to the first baseline
    ALARM = "alarm"  # rests on a trial that is not healthy
    MISSING = "missing"  # there is no such number


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes
    ----------
    text : str
        What it says, plain (no markup, no escapes, no marks).
    value : float or None
        The number behind the text at full precision, to sort by; None for words. Of an interval
        the lower end.
    flags : frozenset of Flag
        How it is set.
    rows : tuple of str
        Names of the spec's rows that the entry names: the report shows the trials of these rows
        behind the numbers of the same line.
    marks : str
        Signs raised behind the text, after the dagger of a significant one.
    detail : tuple of str
        Lines that the report shows about the number itself, before its trials.
    """

    text: str
    value: float | None = None
    flags: frozenset[Flag] = frozenset()
    rows: tuple[str, ...] = ()
    marks: str = ""
    detail: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """All signs that are raised behind the text."""
        return (MARKS[0] if Flag.SIGNIFICANT in self.flags else "") + self.marks

    @property
    def alarm(self) -> str:
        """What stands behind the text of an entry with an alarm; else empty."""
        return f" {ALARM}" if Flag.ALARM in self.flags else ""

    def flagged(self, *flags: Flag) -> Entry:
        """The same entry with more flags."""
        return replace(self, flags=self.flags.union(flags))


ABSENT = Entry(DASH, flags=frozenset({Flag.MISSING}))


def system(name: str, *, alarm: bool = False) -> Entry:
    """Entry of a row's name."""
    return Entry(name, rows=(name,), flags=frozenset({Flag.ALARM} if alarm else ()))


def significant(difference: bool) -> frozenset[Flag]:
    """Flags of a difference that a test finds significant, or not."""
    return frozenset({Flag.SIGNIFICANT} if difference else ())


def number(
    value: float | None,
    digits: int = 3,
    *,
    sign: bool = False,
    flags: frozenset[Flag] = frozenset(),
) -> Entry:
    """Entry of a number with fixed decimals and a true minus; `ABSENT` for None and NaN."""
    if value is None or math.isnan(value):
        return ABSENT
    return Entry(fixed(value, digits, sign=sign), float(value), flags)


def short(value: float | None) -> Entry:
    """Entry of a number with three significant digits; `ABSENT` for None and NaN."""
    if value is None or math.isnan(value):
        return ABSENT
    return Entry(f"{value:.3g}" if value < 1000 else f"{value:.0f}", float(value))


def interval(low: float, high: float, digits: int = 3, *, sign: bool = True) -> Entry:
    """Entry of both ends in brackets; `ABSENT` if one is NaN."""
    if math.isnan(low) or math.isnan(high):
        return ABSENT
    ends = (fixed(end, digits, sign=sign) for end in (low, high))
    return Entry(f"[{', '.join(ends)}]", float(low))


def p_value(value: float) -> Entry:
    """Entry of a p value with three decimals; `ABSENT` for NaN."""
    return Entry("< 0.001", float(value)) if value < 0.001 else number(value)


def count(value: int) -> Entry:
    """Entry of a count."""
    return Entry(str(value), float(value))


def runs(*counts: int) -> Entry:
    """Entry of how many training runs each side has, 0 for a system that is not trained."""
    if len(counts) == 1:
        return (
            ABSENT if not counts[0] else Entry("1 seed", 1.0) if counts == (1,) else count(*counts)
        )
    sides = " vs ".join(str(side) if side else DASH for side in counts)
    return Entry(sides + (" (1 seed)" if 1 in counts else ""), float(counts[0]))


def fixed(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """A number with fixed decimals and a true minus, for sentences."""
    return f"{printed(value):{'+' if sign else ''}.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class Column:
    """Head of one column; neighbouring columns of one `group` share a line above theirs.

    Attributes
    ----------
    name, group : str
        The two lines of the head.
    numeric : bool
        Right-aligned if true.
    """

    name: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    r"""A table that only lacks its markup.

    Attributes
    ----------
    label : str
        Short name, for LaTeX's ``\label``.
    caption : str
        One sentence.
    columns : tuple of Column
        Heads.
    rows : tuple of tuple of Entry
        As wide as `columns`.
    notes : tuple of str
        What stands below it.
    apart : int
        How many of the last rows stand apart below `APART`.
    """

    label: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()
    apart: int = 0

    def __post_init__(self) -> None:
        """Reject rows of another width than the head."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells under {len(self.columns)} heads: {row}")

    @property
    def together(self) -> int:
        """How many rows stand beside each other: the first ones."""
        return len(self.rows) - self.apart

    def texts(self) -> list[list[str]]:
        """The rows as they are read, with alarms and marks."""
        return [[entry.text + entry.alarm + entry.suffix for entry in row] for row in self.rows]

    def spans(self) -> list[tuple[str, int]]:
        """Groups of neighbouring columns with their widths; empty if no column has a group."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(group for group, _ in spans) else []

    def suffix_widths(self) -> list[int]:
        """Characters of the longest suffix in each column, so that numbers without keep place."""
        return [
            max((len(row[i].suffix) for row in self.rows), default=0)
            for i in range(len(self.columns))
        ]


def sentences(*notes: str) -> tuple[str, ...]:
    """Those that say something."""
    return tuple(note for note in notes if note)


def words(*names: str) -> tuple[Column, ...]:
    """Heads of columns of words."""
    return tuple(Column(name, numeric=False) for name in names)


def numbers(*names: str) -> tuple[Column, ...]:
    """Heads of columns of numbers."""
    return tuple(map(Column, names))


def mark_best(
    entries: Sequence[Entry], competes: Collection[bool], digits: int = 3
) -> tuple[Entry, ...]:
    """Flag best and second of one column, rounded as printed: higher is better.

    Values that print alike share the flag, and "second" is the next lower printed value, however
    many share the first. Missing entries and rows that do not compete get no flag. With no second
    distinct value nothing is second.
    """
    shown = [
        round(printed(entry.value), digits) if compete and entry.value is not None else None
        for entry, compete in zip(entries, competes, strict=True)
    ]
    places = sorted({value for value in shown if value is not None}, reverse=True)
    flags = dict(zip(places, (Flag.BEST, Flag.SECOND), strict=False))
    return tuple(
        entry.flagged(flags[value]) if value in flags else entry
        for entry, value in zip(entries, shown, strict=True)
    )
