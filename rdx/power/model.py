"""The power of the t-test with queries and runs random, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rdx.power.spreads import Assumption

MOST_QUERIES = 1_000_000
MOST_SEEDS = 1_000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """Two systems that are compared on the same queries; the model is that of `rdx.power`.

    Attributes
    ----------
    queries : int
        Queries of the collection.
    seeds : int
        Training runs of each trained system.
    assumption : Assumption
        Standard deviations.
    alpha : float
        Two-sided level of the whole family.
    tests : int
        Size of the family: the test is made at alpha / tests, Holm's first step.
    trained : int
        How many of the two sides are trained; against a first stage 1.
    systems : int or None
        Systems that tell together how far a run carries; None = the trained sides.
    runs_df : float or None
        Degrees of freedom of the variance between runs, of an experiment that was run; None =
        seeds - 1 of every one of `systems`.
    """

    queries: int
    seeds: int = 1
    assumption: Assumption = Assumption()
    alpha: float = 0.05
    tests: int = 1
    trained: int = 2
    systems: int | None = None
    runs_df: float | None = None

    def __post_init__(self) -> None:
        """Reject what is no design."""
        if self.queries < 1 or self.seeds < 1:
            raise ValueError("queries and seeds must be at least 1")
        if self.trained not in (0, 1, 2):
            raise ValueError(f"trained must be 0, 1 or 2 sides, not {self.trained}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {self.alpha}")
        if self.tests < 1:
            raise ValueError(f"tests must be at least 1, not {self.tests}")

    @property
    def level(self) -> float:
        """Level of one test."""
        return self.alpha / self.tests

    @property
    def standard_error(self) -> float:
        """Standard error of the mean difference."""
        return math.sqrt(self._of_queries + self._of_runs)

    @property
    def df_between_runs(self) -> float:
        """Degrees of freedom of the variance between runs."""
        if self.runs_df is not None:
            return self.runs_df
        return float((self.trained if self.systems is None else self.systems) * (self.seeds - 1))

    @property
    def df(self) -> float:
        """Degrees of freedom of the test, after Satterthwaite; 0 = there is no test."""
        if self.queries < 2 or not self._of_runs or self.df_between_runs <= 0:
            return self.queries - 1
        spread = self._of_queries**2 / (self.queries - 1)
        spread += self._of_runs**2 / self.df_between_runs
        return (self._of_queries + self._of_runs) ** 2 / spread

    @property
    def _of_queries(self) -> float:
        return self.assumption.sd**2 / self.queries

    @property
    def _of_runs(self) -> float:
        return self.trained * self.assumption.seed_sd**2 / self.seeds

    def power(self, difference: npt.ArrayLike) -> FloatArray:
        """Probability that a true difference is found, for each of some differences.

        Null hypothesis of the test: the mean difference is zero. A rejection to the wrong side
        counts as one, as it does in every power of a two-sided test. NaN below two queries, which
        allow no test.
        """
        centrality = np.abs(np.asarray(difference, dtype=np.float64)) / self.standard_error
        return _power(centrality, self.df, self.level)

    def detectable(self, power: float = 0.8) -> float:
        """Smallest true difference that is found with probability `power`; NaN below two queries.

        Equal to `statsmodels.stats.power.TTestPower` (times sd) where seed_sd is zero.

        Examples
        --------
        >>> round(Design(43, assumption=Assumption(sd=0.08, seed_sd=0.0)).detectable(), 3)
        0.035
        """
        if self.queries < 2:
            return float("nan")
        return detectable(self.standard_error, self.df, self.level, power)

    def queries_needed(self, difference: float, power: float = 0.8) -> int | None:
        """Fewest queries that find a difference with probability `power`; None if no number does.

        More queries do not remove the variance between training runs, so there may be none.
        """
        return _fewest(lambda n: replace(self, queries=n).power(difference), power, 2, MOST_QUERIES)

    def seeds_needed(self, difference: float, power: float = 0.8) -> int | None:
        """Fewest seeds that find a difference with probability `power`; None if no number does.

        One seed is enough for a claim about these models only. More seeds do not remove the
        variance between queries, so there may be none.
        """
        return _fewest(
            lambda s: replace(self, seeds=s, runs_df=None).power(difference), power, 1, MOST_SEEDS
        )


@dataclass(frozen=True)
class Sensitivity:
    """What one collection can show; differences are in units of the measure.

    Attributes
    ----------
    collection : str
        Its name.
    design : Design
        How systems are compared on it.
    detectable : float
        Smallest difference found with the wanted power by one test; NaN below two queries.
    detectable_holm : float
        The same at Holm's first step, alpha / tests: what the strongest of `tests` must overcome.
    wanted : float or None
        A difference that should be found at Holm's first step.
    power_of_wanted : float or None
        Probability of finding it.
    seeds_needed, queries_needed : int or None
        Fewest seeds at the design's queries, and fewest queries at its seeds, that find it with the
        wanted power; None if no number does, or nothing is wanted.
    """

    collection: str
    design: Design
    detectable: float
    detectable_holm: float
    wanted: float | None = None
    power_of_wanted: float | None = None
    seeds_needed: int | None = None
    queries_needed: int | None = None


def sensitivity(
    collection: str, design: Design, power: float = 0.8, wanted: float | None = None
) -> Sensitivity:
    """What a collection can show.

    Parameters
    ----------
    collection : str
        Its name.
    design : Design
        How systems are compared on it.
    power : float
        Wanted probability of finding a difference.
    wanted : float, optional
        A difference that should be found at Holm's first step.
    """
    single = replace(design, tests=1)
    shown = Sensitivity(collection, design, single.detectable(power), design.detectable(power))
    if wanted is None:
        return shown
    if not wanted > 0:
        raise ValueError(f"the wanted difference must be positive, not {wanted}")
    return replace(
        shown,
        wanted=wanted,
        power_of_wanted=float(design.power(wanted)),
        seeds_needed=design.seeds_needed(wanted, power),
        queries_needed=design.queries_needed(wanted, power),
    )


def detectable(error: float, df: float, level: float, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided t-test finds with probability `power`.

    Parameters
    ----------
    error, df : float
        Standard error of the difference, and the degrees of freedom of its t distribution.
    level : float
        Of the test.

    Returns
    -------
    float
        In units of `error`; NaN if there is no error or no degree of freedom.
    """
    from scipy import optimize  # here, since it takes a second to load, which others need not

    if not level < power < 1:
        raise ValueError(f"power must lie between the level of the test and 1, not {power}")
    if not (df >= 1 and math.isfinite(error)):
        return float("nan")
    limit = 1.0
    while _power(limit, df, level) < power:
        limit *= 2
    centrality = optimize.brentq(
        lambda nc: float(_power(nc, df, level)) - power, 0.0, limit, xtol=1e-10
    )
    return float(centrality * error)


def _power(centrality: npt.ArrayLike, df: float, level: float) -> FloatArray:
    """Power of a two-sided t-test; NaN where there are no degrees of freedom."""
    from scipy import special

    centrality, valid = np.asarray(centrality, dtype=np.float64), df if df >= 1 else np.nan
    critical = -special.stdtrit(valid, level / 2)
    with np.errstate(invalid="ignore"):
        upper = special.nctdtr(valid, -centrality, -critical)
        lower = special.nctdtr(valid, centrality, -critical)
    return np.asarray(upper + np.where(np.isnan(lower) & ~np.isnan(upper), 0.0, lower))


def _fewest(
    power_at: Callable[[int], FloatArray], power: float, least: int, most: int
) -> int | None:
    """Smallest count with at least the wanted power, which grows with the count."""
    high = least
    while not float(power_at(high)) >= power:  # NaN, no test at all, is not enough either
        if high >= most:
            return None
        high = min(2 * high, most)
    low = least
    while low < high:
        middle = (low + high) // 2
        if float(power_at(middle)) >= power:
            high = middle
        else:
            low = middle + 1
    return high
