"""The label audit: numbers of `rdx.teachers.audit`, explained in docs/teachers.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class States:
    """How many lists (or windows) have each parse state."""

    total: int
    counts: dict[str, int]
    shares: dict[str, float]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Windows(States):
    """States of windows; answers that were asked for; words kept of a passage, with windows.

    Attributes
    ----------
    shortened
        Windows that were answered with shortened passages, because more did not fit the context.
    estimated_tokens, lost_tokens
        Tokens of answers whose service does not count them; of tries that were served in vain.
    thinking_tokens
        Of all answers, those that the model thought aloud and that nobody reads.
    """

    answers: int
    asked_again: float
    words: dict[str, int]
    shortened: int = 0
    estimated_tokens: int = 0
    lost_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Moves:
    """How far the teacher moves passages; None where no list has two."""

    lists: int
    shift: float | None
    shift_at_random: float | None
    kendall_tau: float | None
    rbo: float | None
    unchanged: float | None


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A mean over queries with its 95 % t interval; a single query has none."""

    mean: float
    low: float | None
    high: float | None
    queries: int


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Mean rank in the answer by position in the prompt, for windows of the most frequent size."""

    windows: int
    size: int
    mean_rank: tuple[float, ...]
    excess: tuple[float, ...]
    slope: Slope


@dataclass(frozen=True, kw_only=True)
class PositionBias:
    """Of all windows, and of the first windows of lists in random order."""

    all: Bias | None
    shuffled: Bias | None


@dataclass(frozen=True, kw_only=True)
class Effectiveness:
    """nDCG@10 of teacher, its input and the best order, and Judged@10 of the teacher."""

    queries: int
    teacher: float
    input: float
    oracle: float
    judged_at_10: float


@dataclass(frozen=True, kw_only=True)
class LabelEffectiveness:
    """Of the usable lists, and of all lists, the others in the order of their input."""

    measure: str
    usable: Effectiveness | None
    all: Effectiveness | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """With another teacher, over the candidates that both rank; None without such lists."""

    lists: int
    p: float
    rbo: float | None
    kendall_tau: float | None
    shared: float | None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a teacher ranking is worth; None where there is nothing to say."""

    lists: States
    moves: Moves
    windows: Windows | None = None
    position_bias: PositionBias | None = None
    effectiveness: LabelEffectiveness | None = None
    agreement: Agreement | None = None
