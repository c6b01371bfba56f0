"""Power analysis: how small a difference an experiment can find.

One model throughout. Two systems are compared on the same n queries, each trained with S seeds;
the mean difference has the standard error

    sqrt(sd² / n + k · seed_sd² / S)

where `sd` is the standard deviation over queries of the per-query difference (of means over
seeds), `seed_sd` that over training runs of one system's mean score, the part that more queries do
not remove, and k the number of sides that are trained (2, or 1 against a first stage). The test is
a two-sided t-test with n - 1 degrees of freedom. With seed_sd = 0 this is the paired t-test
exactly; with seed_sd > 0 its variance is taken as known, so a few seeds promise a little too much.
Cohen (1988), *Statistical power analysis*, §2; for retrieval experiments Sakai (2016), *Statistical
significance, power, and sample sizes*, SIGIR.

Own code, since `statsmodels.stats.power.TTestPower` knows no variance between training runs, takes
one number at a time, and gives NaN far out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from rdx.equality import same

# What to assume of nDCG@10 where nothing is stored. Differences of re-rankers on TREC Deep Learning
# have a standard deviation over queries of .08 to .12; the means of three training runs of 1,334
# settings one of .0057 over seeds (median; a quarter lies above .0113).
ASSUMED_SD = 0.10
ASSUMED_SEED_SD = 0.0057
MOST_QUERIES = 1_000_000
MOST_SEEDS = 1_000

FloatArray = npt.NDArray[np.float64]


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
        Scores that differ by rounding alone are the same.
    """
    a, b = np.asarray(treatment, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    differences = np.where(same(a, b), 0.0, a - b)
    return float(differences.std(ddof=1)) if len(differences) > 1 else 0.0


def pooled_seed_sd(groups: Sequence[npt.ArrayLike]) -> tuple[float, int] | None:
    """Standard deviation over runs of the mean score, pooled over systems.

    Parameters
    ----------
    groups : sequence of array_like, shapes [S_i]
        Mean score of every run, per system; systems with one run add nothing.

    Returns
    -------
    (float, int) or None
        The standard deviation and its degrees of freedom, the sum of S_i - 1; None if no system
        has two runs.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    df = sum(max(0, len(array) - 1) for array in arrays)
    if not df:
        return None
    squares = sum(float(((array - array.mean()) ** 2).sum()) for array in arrays if len(array) > 1)
    return math.sqrt(squares / df), df


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
    from scipy import optimize  # here, since it takes a second to load, which others need not wait

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
    centrality = optimize.brentq(
        lambda nc: float(_power(np.array(nc), np.array(df), level)) - power, 0.0, limit, xtol=1e-10
    )
    return float(centrality * noise)


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


@dataclass(frozen=True)
class Sensitivity:
    """What one collection can show; differences are in units of the measure.

    Attributes
    ----------
    collection : str
        Its name.
    queries, seeds, tests : int
        Queries, training runs per system, and tests that Holm corrects together.
    assumption : Assumption
        On what the numbers rest.
    detectable : float
        Smallest difference found with the wanted power by one test; NaN below two queries.
    detectable_holm : float
        The same at Holm's first step, alpha / tests: what the strongest of `tests` must overcome.
    wanted : float or None
        A difference that should be found at Holm's first step.
    power_of_wanted : float or None
        Probability of finding it with `queries` and `seeds`.
    seeds_needed, queries_needed : int or None
        Fewest seeds at `queries`, and fewest queries at `seeds`, that find it with the wanted
        power; None if no number does, or nothing is wanted.
    """

    collection: str
    queries: int
    seeds: int
    tests: int
    assumption: Assumption
    detectable: float
    detectable_holm: float
    wanted: float | None = None
    power_of_wanted: float | None = None
    seeds_needed: int | None = None
    queries_needed: int | None = None


def sensitivity(
    collections: Mapping[str, int],
    seeds: int,
    assumptions: Mapping[str, Assumption] | None = None,
    *,
    tests: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    wanted: float | None = None,
    trained: int = 2,
) -> tuple[Sensitivity, ...]:
    """What every collection of a planned experiment can show.

    Parameters
    ----------
    collections : mapping of str to int
        Collection -> number of its test queries.
    seeds : int
        Training runs of each system.
    assumptions : mapping of str to Assumption, optional
        Collection -> standard deviations, e.g. those of stored trials; others are assumed.
    tests, alpha, power, trained
        As in `power_of` and `detectable`.
    wanted : float, optional
        A difference that should be found at Holm's first step.
    """
    if wanted is not None and not wanted > 0:
        raise ValueError(f"the wanted difference must be positive, not {wanted}")
    sensitivities = []
    for name, queries in collections.items():
        known = (assumptions or {}).get(name, Assumption())
        find = partial(detectable, queries, seeds, known, alpha=alpha, power=power, trained=trained)
        here = Sensitivity(name, queries, seeds, tests, known, find(), find(tests=tests))
        if wanted is not None:
            here = replace(
                here,
                wanted=wanted,
                power_of_wanted=float(
                    power_of(
                        wanted, queries, seeds, known, alpha=alpha, tests=tests, trained=trained
                    )
                ),
                seeds_needed=seeds_needed(
                    wanted, queries, known, alpha=alpha, power=power, tests=tests, trained=trained
                ),
                queries_needed=queries_needed(
                    wanted, seeds, known, alpha=alpha, power=power, tests=tests, trained=trained
                ),
            )
        sensitivities.append(here)
    return tuple(sensitivities)


def _level(alpha: float, tests: int) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if tests < 1:
        raise ValueError(f"tests must be at least 1, not {tests}")
    return alpha / tests


def _power(centrality: FloatArray, df: FloatArray, level: float) -> FloatArray:
    """Power of a two-sided t-test; NaN where there are no degrees of freedom."""
    valid = np.where(df >= 1, df, np.nan)
    from scipy import special

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
