"""Partial omega squared: the share of the variance of one score that an effect explains."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from analysis.factors.errors import Error, Spread
from analysis.significance import FloatArray

POINTS = 256  # at which the distributions of the mean squares are taken
SEED = 0


def omega_squared(
    squares: float,
    r: int,
    runs: int,
    error: Error,
    spread: Spread,
    confidence: float | None = 0.95,
) -> tuple[float, float, float]:
    """Partial omega squared of an effect, and its interval.

    explained / (explained + spread): the variance of the cells' means that the effect makes, over
    that and the variance of one score around its cell's mean (query x cell, run and rest; what
    queries have in common is left out, and so is what other terms explain). A number of the
    population: more queries or seeds do not change it. As Olejnik and Algina (2003) define it, and
    Ferro and Silvello (2016) use it, where the error is the rest alone.

    Parameters
    ----------
    squares : float
        Sum of squares of the effect.
    r, runs : int
        Its degrees of freedom, and the runs that it was estimated from.
    error : Error
        What it is tested against.
    spread : Spread
        How one score varies.
    confidence : float or None
        Coverage of the interval; None leaves it out (NaN).

    Returns
    -------
    (float, float, float)
        Estimate, which may be below 0 ("not more than chance"), and ends, which are not.

    Notes
    -----
    The ends are the values for which the observed sum of squares is the upper or the lower
    quantile of the noncentral distribution (Steiger 2004), averaged over the fiducial
    distributions of the mean squares that make up error and spread: a generalised confidence
    interval (Weerahandi 1993, JASA 88). With one mean square it is Steiger's interval by the
    noncentral F distribution.
    """
    n = spread.queries
    between, rest = (float(s) for s in spread.runs.squares)
    estimate = (squares - r * error.square) / (runs * n)
    share = estimate / (estimate + float(spread.variance(spread.square, between, rest)))
    if confidence is None:
        return share, float("nan"), float("nan")
    errors, variances = _drawn(r, error, spread)
    epsilon = error.sphericity
    observed = epsilon * squares / errors
    scale = epsilon * runs * n * variances / errors

    def below(ratio: float) -> float:
        """Chance of less than was observed, if the effect explains `ratio` times the spread."""
        return float(special.chndtr(observed, epsilon * r, scale * ratio).mean())

    tail = (1 - confidence) / 2
    ratios = [_solved(below, level) for level in (1 - tail, tail)]
    low, high = (ratio / (1 + ratio) for ratio in ratios)
    return share, low, high


def _drawn(r: int, error: Error, spread: Spread) -> tuple[FloatArray, FloatArray]:
    """Error and spread at points of the fiducial distributions of the mean squares."""
    chances = _points()
    own_df, all_df = error.queries_df, spread.df
    own = error.queries * own_df / special.chdtri(own_df, chances[0])
    # Query x effect is a part of query x cell; the remainder is independent of it.
    other_df = all_df - (spread.queries - 1) * r
    other = spread.square * all_df - error.queries * (spread.queries - 1) * r
    crossed = own * (spread.queries - 1) * r
    if other_df > 0 and other > 0:
        crossed = crossed + other * other_df / special.chdtri(other_df, chances[1])
    crossed = crossed / all_df
    runs = spread.runs
    if not runs.known:
        return own, spread.variance(crossed, 0.0, 0.0)
    between, rest = runs.squares
    between = between * runs.between_df / special.chdtri(runs.between_df, chances[2])
    rest = rest * runs.rest_df / special.chdtri(runs.rest_df, chances[3])
    errors = rest + np.maximum(0.0, own - rest) + np.maximum(0.0, between - rest)
    return errors, spread.variance(crossed, between, rest)


@lru_cache
def _points() -> FloatArray:
    """Chances [4, POINTS], each evenly over 0 to 1, in orders independent of each other."""
    generator = np.random.default_rng(SEED)
    return np.stack([(generator.permutation(POINTS) + 0.5) / POINTS for _ in range(4)])


def _solved(below: Callable[[float], float], level: float) -> float:
    """Ratio at which a falling function has a level; 0 if it never is so high."""
    if not below(0.0) > level:
        return 0.0
    limit = 1.0
    while below(limit) > level:
        limit *= 2
    return float(optimize.brentq(lambda ratio: below(ratio) - level, 0.0, limit, xtol=1e-9))
