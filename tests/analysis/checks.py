"""A promise of a test or an interval, and how it was kept over many draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

ALPHA = 0.05
CERTAINTY = 0.999  # of the binomial intervals; there are some hundred of them


@dataclass(frozen=True)
class Check:
    """One promise, and how it was kept.

    Attributes
    ----------
    scores : str
        What was planted.
    what : str
        The test or interval.
    quantity : str
        What `rate` is the share of.
    rate : float
        Share of the draws.
    low, high : float
        Where it must lie.
    """

    scores: str
    what: str
    quantity: str
    rate: float
    low: float
    high: float

    @property
    def kept(self) -> bool:
        """Whether the rate lies where it must."""
        return self.low <= self.rate <= self.high


def binomial(rate: float, draws: int) -> tuple[float, float]:
    """Where the share of `draws` lies with a probability of `CERTAINTY`, if `rate` is true."""
    low, high = stats.binom.interval(CERTAINTY, draws, rate)
    return float(low) / draws, float(high) / draws


def table(every: Sequence[Check]) -> str:
    """Markdown, one line per check."""
    lines = ["| planted | test | share of | seen | must lie in |", "|---|---|---|--:|:-:|"]
    for check in every:
        kept = "" if check.kept else " (!)"
        lines.append(
            f"| {check.scores} | {check.what} | {check.quantity} | {check.rate:.4f}{kept} | "
            f"{check.low:.3f} to {check.high:.3f} |"
        )
    return "\n".join(lines)
