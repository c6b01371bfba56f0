"""The verdict on a published number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from rdx.equality import at_most

REPRODUCED = "reproduced"
WITHIN_NOISE = "within noise"
DIFFERS = "differs"
NOT_RUN = "not run"
VERDICTS = (REPRODUCED, WITHIN_NOISE, DIFFERS, NOT_RUN)
# Decimals that a table of effectiveness prints; trailing zeros do not survive in a YAML number.
DECIMALS = 3


@dataclass(frozen=True)
class Noise:
    """What may lie between two runs of the same experiment, in units of the measure.

    Attributes
    ----------
    runs : int
        Training runs that our mean rests on; 0 for a system that is not trained.
    seed_sd : float
        Standard deviation over runs of the mean score on these queries.
    seed_df : int or None
        Degrees of freedom of `seed_sd`; None if it is assumed and not estimated.
    error : float
        Standard error over queries of the paired difference to the published per-query scores,
        where those exist; 0 where only the mean was published.
    confidence : float
        Coverage of the band that counts as noise.
    """

    runs: int = 0
    seed_sd: float = 0.0
    seed_df: int | None = None
    error: float = 0.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Reject what is no spread."""
        if not (self.seed_sd >= 0 and self.error >= 0 and self.runs >= 0):
            raise ValueError(f"runs, seed_sd and error must be zero or more: {self}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, not {self.confidence}")
        if self.seed_df is not None and self.seed_df < 1:
            raise ValueError(f"seed_df must be at least 1 or None, not {self.seed_df}")

    @property
    def limit(self) -> float:
        """Half width of the band: a prediction interval for one further training run.

        The published number is one more run beside ours: its difference to the mean of S runs has
        the variance seed_sd² (1 + 1/S), plus `error`² of per-query scores. Times the quantile of
        the t distribution if `seed_sd` is estimated (with few runs a wide band, as it should be),
        of the normal one if not.
        """
        seeds = self.seed_sd**2 * (1 + 1 / self.runs) if self.runs else 0.0
        tail = 0.5 + self.confidence / 2
        estimated = self.runs > 0 and self.seed_df is not None
        factor = stats.t.ppf(tail, self.seed_df) if estimated else stats.norm.ppf(tail)
        return float(factor * math.sqrt(seeds + self.error**2))


@dataclass(frozen=True)
class Verdict:
    """What became of one published number.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    published, obtained : float
        Both numbers; `obtained` is NaN if the cell was not run.
    difference : float
        obtained - published.
    gap : float
        Distance of the published number from ours, or from the range that ties leave open.
    tolerance : float
        Largest gap that counts as reproduced.
    noise : float
        Largest gap that counts as within noise.
    """

    verdict: str
    published: float
    obtained: float
    difference: float
    gap: float
    tolerance: float
    noise: float


def verdict(
    published: float,
    obtained: float | None,
    *,
    tolerance: float | None = None,
    noise: Noise | None = None,
    ties: tuple[float, float] | None = None,
    decimals: int | None = None,
) -> Verdict:
    """Judge one number.

    *Reproduced*: the gap is at most the tolerance. *Within noise*: it is at most half a unit of
    the last printed decimal plus the band of `noise`. *Differs* otherwise; *not run* where there
    is no number of ours. That a number is within noise says that another training run could have
    given it, not that it is right: a wide band makes it easy.

    Parameters
    ----------
    published : float
        As printed.
    obtained : float or None
        Mean over queries (and runs) of ours; None or NaN if the cell was not run.
    tolerance : float, optional
        Largest gap that counts as reproduced, e.g. what the authors' own releases of the number
        differ by. Never below half a unit of the last printed decimal, which is the default.
    noise : Noise, optional
        Spread between runs; none by default, as for a system that is not trained.
    ties : (float, float), optional
        Lowest and highest value of ours over all orders of tied passages.
    decimals : int, optional
        Decimals in print; those that the number shows by default, and at least `DECIMALS`.
    """
    if not math.isfinite(published):
        raise ValueError(f"a published number must be finite, not {published}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be zero or more, not {tolerance}")
    printed = printed_decimals(published) if decimals is None else decimals
    half = 0.5 * 10.0**-printed
    reproduced = half if tolerance is None else max(half, tolerance)
    noisy = half + (noise or Noise()).limit
    nan = float("nan")
    if obtained is None or math.isnan(obtained):
        return Verdict(NOT_RUN, published, nan, nan, nan, reproduced, noisy)
    low, high = ties or (obtained, obtained)
    if not (at_most(low, obtained) and at_most(obtained, high)):
        raise ValueError(f"the tie range {low} to {high} does not hold the value {obtained}")
    gap = max(0.0, low - published, published - high)
    word = DIFFERS
    if at_most(gap, reproduced):
        word = REPRODUCED
    elif at_most(gap, noisy):
        word = WITHIN_NOISE
    return Verdict(word, published, obtained, obtained - published, gap, reproduced, noisy)


def printed_decimals(value: float) -> int:
    """Decimals that a number shows, at least `DECIMALS`: .48 was printed as .480."""
    text = f"{value:.10f}".rstrip("0")
    return max(DECIMALS, len(text.split(".")[1]))
