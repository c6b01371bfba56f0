"""What an answer is made of: a record for each test that was asked for, and counts or does not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Asked(StrEnum):
    """Which part of a spec asked for a test; the first that a spec has is its question."""

    FACTORS = "factors"
    COMPARISONS = "comparisons"
    BASELINE = "baseline"
    PAIRS = "pairs"


class Reason(StrEnum):
    """Why a test does not count as an answer, although its numbers may stand in a table."""

    MISSING = "cells are missing"
    BROKEN = "a run learned nothing"
    QUERIES = "other queries"
    FEW = "too few queries"
    UNFIT = "no test collection"


@dataclass(frozen=True)
class Difference:
    """The test of a difference of two rows, first minus second.

    Attributes
    ----------
    asked : Asked
        By what.
    first, second, collection, measure : str
        What was compared, and where.
    difference, low, high : float
        In units of the measure, with the 95 % interval, not corrected; NaN of all pairs.
    p, family : float, int
        Corrected p value, and how many tests were corrected together.
    p_equivalence : float
        Corrected p value of "the same up to the margin"; NaN where that is not tested.
    differs, equivalent : bool
        Whether the corrected tests show a difference, or that there is none beyond the margin.
    of_choice : bool
        Whether the test counts other training runs in; see `analysis.errors`.
    detectable : float
        Smallest true difference that is found with probability .8, on the variance of this test, at
        the strictest step of the correction; NaN where the test is no t-test.
    """

    asked: Asked
    first: str
    second: str
    collection: str
    measure: str
    difference: float
    low: float
    high: float
    p: float
    family: int
    p_equivalence: float
    differs: bool
    equivalent: bool
    of_choice: bool
    detectable: float

    @property
    def open(self) -> bool:
        """Whether neither a difference nor equivalence was shown."""
        return not (self.differs or self.equivalent)


@dataclass(frozen=True)
class Levels:
    """Two levels of a factor, first minus second.

    Attributes
    ----------
    factor, first, second : str
        What is compared.
    difference, low, high : float
        Of the marginal means, with Tukey's simultaneous interval; NaN at one level of another
        factor.
    at : str
        That level, FACTOR=LEVEL; "" = over all.
    """

    factor: str
    first: str
    second: str
    difference: float
    low: float = float("nan")
    high: float = float("nan")
    at: str = ""


@dataclass(frozen=True)
class Effect:
    """A main effect or an interaction of factors.

    Attributes
    ----------
    term : tuple of str
        The factor, or both.
    collection, measure : str
        Where.
    omega, low, high : float
        Partial omega squared with its 95 % interval.
    p, family : float, int
        Corrected p value, and how many effects were corrected together.
    shown : bool
        Whether it is at most alpha.
    of_choice : bool
        As of `Difference`.
    levels : tuple of Levels
        Of a main effect the two levels that are furthest apart. Of an interaction the two levels of
        the first factor, at the two levels of the second between which their difference changes
        most.
    """

    term: tuple[str, ...]
    collection: str
    measure: str
    omega: float
    low: float
    high: float
    p: float
    family: int
    shown: bool
    of_choice: bool
    levels: tuple[Levels, ...]


@dataclass(frozen=True)
class Unanswered:
    """Something that was asked and is not answered.

    Attributes
    ----------
    asked : Asked
        By what.
    about : tuple of str
        The two rows, or the factors.
    because : str
        The row or the cells that are to blame; "" if that is not one of them.
    collection, measure : str
        Where.
    reason : Reason
        Why not.
    """

    asked: Asked
    about: tuple[str, ...]
    because: str
    collection: str
    measure: str
    reason: Reason


@dataclass(frozen=True)
class Answer:
    """What the tests of a summary say.

    Attributes
    ----------
    measures, collections : tuple of str
        Of the summary; the first measure is that of the figures, which sentences are about.
    differences, effects : tuple
        Every test that counts, in the order of the tables.
    unanswered : tuple of Unanswered
        The others.
    missing, cells : int
        Cells that have not been run, and all.
    single : tuple of str
        Trained rows with one training run.
    every_single : bool
        Whether those are all trained rows.
    correction, margin, alpha : str, float or None, float
        As the spec has them.
    best : tuple of (str, float), or None
        The best competing row and its mean where nothing is compared.
    """

    measures: tuple[str, ...]
    collections: tuple[str, ...]
    differences: tuple[Difference, ...]
    effects: tuple[Effect, ...]
    unanswered: tuple[Unanswered, ...]
    missing: int
    cells: int
    single: tuple[str, ...]
    every_single: bool
    correction: str
    margin: float | None
    alpha: float
    best: tuple[str, float] | None = None

    @property
    def measure(self) -> str:
        """The measure that sentences are about."""
        return self.measures[0]

    def of(self, asked: Asked, measure: str) -> tuple[Difference, ...]:
        """The differences that a part of the spec asked for, in one measure."""
        return tuple(d for d in self.differences if (d.asked, d.measure) == (asked, measure))
