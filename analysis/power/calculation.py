"""Power, the smallest detectable difference, and the queries or seeds that one needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from analysis.significance import FloatArray, paired_differences

# What to assume of nDCG@10 where nothing is stored. Differences of re-rankers on TREC Deep Learning
# have a standard deviation over queries of .08 to .12; the means of three training runs of 1,334
# settings one of .0057 over seeds (median; a quarter lies above .0113).
ASSUMED_SD = 0.10
ASSUMED_SEED_SD = 0.0057
MOST_QUERIES = 1_000_000
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Assumption:
    """What a power calculation rests on, in units of the measure.

    Attributes
    ----------
    sd : float
        Standard deviation over queries of the difference of two systems.
    seed_sd : float
        Standard deviation over training runs of one system's mean score.
    source : str
        Where they come from, for the reader: "assumed", or the trials.
    """

    sd: float = ASSUMED_SD
    seed_sd: float = ASSUMED_SEED_SD
    source: str = "assumed"

    def __post_init__(self) -> None:
        """Reject what is no standard deviation."""
        if not (math.isfinite(self.sd) and self.sd > 0):
            raise ValueError(f"sd must be a positive number, not {self.sd}")
        if not (math.isfinite(self.seed_sd) and self.seed_sd >= 0):
            raise ValueError(f"seed_sd must be zero or more, not {self.seed_sd}")


def spread(treatment: npt.ArrayLike, baseline: npt.ArrayLike) -> float:
    """Standard deviation over queries of the paired difference; 0 with less than two queries.

    Parameters
    ----------
    treatment, baseline : array_like, shape [n]
        Scores of the same n queries in the same order, means over seeds where there are several.
    """
    differences = paired_differences(treatment, baseline)
    return float(differences.std(ddof=1)) if len(differences) > 1 else 0.0


def standard_error(
    queries: npt.ArrayLike,
    seeds: npt.ArrayLike,
    assumption: Assumption,
    trained: int = 2,
) -> FloatArray:
    """Standard error of the mean difference of two systems; `trained` of them have seeds."""
    n, s = np.asarray(queries, dtype=np.float64), np.asarray(seeds, dtype=np.float64)
    if (n < 1).any() or (s < 1).any():
        raise ValueError("queries and seeds must be at least 1")
    if trained not in (0, 1, 2):
        raise ValueError(f"trained must be 0, 1 or 2 sides, not {trained}")
    return np.asarray(np.sqrt(assumption.sd**2 / n + trained * assumption.seed_sd**2 / s))


def power_of(
    difference: npt.ArrayLike,
    queries: npt.ArrayLike,
    seeds: npt.ArrayLike = 1,
    assumption: Assumption | None = None,
    *,
    alpha: float = 0.05,
    tests: int = 1,
    trained: int = 2,
) -> FloatArray:
    """Probability that a true difference is found; arrays broadcast, so this draws every curve.

    Null hypothesis of the test: the mean difference is zero. A rejection to the wrong side counts
    as one, as it does in every power of a two-sided test.

    Parameters
    ----------
    difference : array_like
        True mean difference, in units of the measure.
    queries, seeds : array_like of int
        Queries of the collection, training runs of each trained system.
    assumption : Assumption
        Standard deviations; the defaults of `Assumption` if not given.
    alpha : float
        Two-sided level of the whole family.
    tests : int
        Size of the family: the test is made at alpha / tests, Holm's first step.
    trained : int
        How many of the two sides are trained; against a first stage 1.

    Returns
    -------
    ndarray
        NaN below two queries, which allow no test.
    """
    level = _level(alpha, tests)
    n = np.asarray(queries, dtype=np.float64)
    noise = standard_error(n, seeds, assumption or Assumption(), trained)
    centrality = np.abs(np.asarray(difference, dtype=np.float64)) / noise
    return _power(centrality, n - 1, level)


def detectable(
    queries: int,
    seeds: int = 1,
    assumption: Assumption | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    tests: int = 1,
    trained: int = 2,
) -> float:
    """Smallest true difference that is found with probability `power`; NaN below two queries.

    Parameters are those of `power_of`. Equal to `statsmodels.stats.power.TTestPower` (times sd)
    where seed_sd is zero.

    Examples
    --------
    >>> round(detectable(43, assumption=Assumption(sd=0.08, seed_sd=0.0)), 3)
    0.035
    """
    level = _level(alpha, tests)
    if not level < power < 1:
        raise ValueError(f"power must lie between the level of the test and 1, not {power}")
    noise = float(standard_error(queries, seeds, assumption or Assumption(), trained))
    df = queries - 1
    if df < 1:
        return float("nan")
    limit = 1.0
    while _power(np.array(limit), np.array(df), level) < power:
        limit *= 2
    found = optimize.brentq(
        lambda nc: float(_power(np.array(nc), np.array(df), level)) - power, 0.0, limit, xtol=1e-10
    )
    return float(found * noise)


def queries_needed(
    difference: float,
    seeds: int = 1,
    assumption: Assumption | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    tests: int = 1,
    trained: int = 2,
) -> int | None:
    """Fewest queries that find `difference` with probability `power`; None if no number does.

    More queries do not remove the variance between training runs, so there may be none.
    """
    return _fewest(
        lambda n: power_of(
            difference, n, seeds, assumption, alpha=alpha, tests=tests, trained=trained
        ),
        power,
        2,
        MOST_QUERIES,
    )


def seeds_needed(
    difference: float,
    queries: int,
    assumption: Assumption | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    tests: int = 1,
    trained: int = 2,
) -> int | None:
    """Fewest seeds that find `difference` with probability `power`; None if no number does.

    More seeds do not remove the variance between queries, so there may be none.
    """
    return _fewest(
        lambda s: power_of(
            difference, queries, s, assumption, alpha=alpha, tests=tests, trained=trained
        ),
        power,
        1,
        MOST_SEEDS,
    )


def _level(alpha: float, tests: int) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if tests < 1:
        raise ValueError(f"tests must be at least 1, not {tests}")
    return alpha / tests


def _power(centrality: FloatArray, df: FloatArray, level: float) -> FloatArray:
    """Power of a two-sided t-test; NaN where there are no degrees of freedom."""
    valid = np.where(df >= 1, df, np.nan)
    # scipy.special, since scipy.stats takes half a second to load, which a plan should not wait for
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
