"""The power of the t-test with queries and runs random, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from rdx.power.spreads import Assumption

MOST_QUERIES = 1_000_000
MOST_SEEDS = 1_000

FloatArray = npt.NDArray[np.float64]


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


def _freedom(
    queries: npt.ArrayLike,
    seeds: npt.ArrayLike,
    assumption: Assumption,
    trained: int,
    runs_df: float | None,
) -> FloatArray:
    """Degrees of freedom of the test, after Satterthwaite; see `rdx.power`."""
    n, s = np.asarray(queries, dtype=np.float64), np.asarray(seeds, dtype=np.float64)
    of_queries = assumption.sd**2 / n
    of_runs = trained * assumption.seed_sd**2 / s
    own_df = trained * (s - 1) if runs_df is None else np.full_like(s, runs_df)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = of_queries**2 / (n - 1) + of_runs**2 / own_df
        both = (of_queries + of_runs) ** 2 / spread
    return np.asarray(np.where((own_df > 0) & (of_runs > 0) & (n > 1), both, n - 1))


def power_of(
    difference: npt.ArrayLike,
    queries: npt.ArrayLike,
    seeds: npt.ArrayLike = 1,
    assumption: Assumption | None = None,
    *,
    alpha: float = 0.05,
    tests: int = 1,
    trained: int = 2,
    runs_df: float | None = None,
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
    runs_df : float, optional
        Degrees of freedom of the variance between runs: seeds - 1 of every system that tells how
        far a run carries; by default of the trained sides.

    Returns
    -------
    ndarray
        NaN below two queries, which allow no test.
    """
    level = _level(alpha, tests)
    n = np.asarray(queries, dtype=np.float64)
    known = assumption or Assumption()
    noise = standard_error(n, seeds, known, trained)
    centrality = np.abs(np.asarray(difference, dtype=np.float64)) / noise
    return _power(centrality, _freedom(n, seeds, known, trained, runs_df), level)


def detectable(
    queries: int,
    seeds: int = 1,
    assumption: Assumption | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    tests: int = 1,
    trained: int = 2,
    runs_df: float | None = None,
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
    known = assumption or Assumption()
    noise = float(standard_error(queries, seeds, known, trained))
    df = _freedom(queries, seeds, known, trained, runs_df)
    if queries < 2:
        return float("nan")
    limit = 1.0
    while _power(np.array(limit), df, level) < power:
        limit *= 2
    centrality = optimize.brentq(
        lambda nc: float(_power(np.array(nc), df, level)) - power, 0.0, limit, xtol=1e-10
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
    runs_df: float | None = None,
) -> int | None:
    """Fewest queries that find `difference` with probability `power`; None if no number does.

    More queries do not remove the variance between training runs, so there may be none.
    """
    return _fewest(
        lambda n: power_of(
            difference,
            n,
            seeds,
            assumption,
            alpha=alpha,
            tests=tests,
            trained=trained,
            runs_df=runs_df,
        ),  # fmt: skip
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
    systems: float | None = None,
) -> int | None:
    """Fewest seeds that find `difference` with probability `power`; None if no number does.

    `systems` tell together how far a run carries, by default the trained sides. One seed is enough
    for a claim about these models only.

    More seeds do not remove the variance between queries, so there may be none.
    """
    return _fewest(
        lambda s: power_of(
            difference,
            queries,
            s,
            assumption,
            alpha=alpha,
            tests=tests,
            trained=trained,
            runs_df=None if systems is None else systems * (s - 1),
        ),  # fmt: skip
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
    trained : int
        Sides of a test that are trained.
    runs_df : float
        Degrees of freedom of the variance between runs.
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
    trained: int
    runs_df: float
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
    systems: int | None = None,
    runs_df: float | None = None,
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
    systems : int, optional
        Planned systems that tell together how far a run carries; by default the trained sides.
    runs_df : float, optional
        As in `power_of`, of an experiment that was run; by default that of `systems`.
    """
    if wanted is not None and not wanted > 0:
        raise ValueError(f"the wanted difference must be positive, not {wanted}")
    pooled = trained if systems is None else systems
    known_df = float(pooled * (seeds - 1)) if runs_df is None else runs_df
    sensitivities = []
    for name, queries in collections.items():
        known = (assumptions or {}).get(name, Assumption())
        find = partial(
            detectable, queries, seeds, known,
            alpha=alpha, power=power, trained=trained, runs_df=known_df,
        )  # fmt: skip
        here = Sensitivity(
            name, queries, seeds, tests, known, trained, known_df, find(), find(tests=tests)
        )
        if wanted is not None:
            here = replace(
                here,
                wanted=wanted,
                power_of_wanted=float(
                    power_of(
                        wanted, queries, seeds, known,
                        alpha=alpha, tests=tests, trained=trained, runs_df=known_df,
                    )
                ),
                seeds_needed=seeds_needed(
                    wanted, queries, known,
                    alpha=alpha, power=power, tests=tests, trained=trained, systems=pooled,
                ),
                queries_needed=queries_needed(
                    wanted, seeds, known,
                    alpha=alpha, power=power, tests=tests, trained=trained, runs_df=known_df,
                ),
            )  # fmt: skip
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
