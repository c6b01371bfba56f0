"""The distribution of the studentised range, quick enough for degrees of freedom of every kind."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import optimize, special

from analysis.significance import FloatArray

NODES = 48  # of Gauss and Legendre's rule, in both directions
FAR = 8.0  # standard deviations beyond which a normal density is nothing
NOTHING = 1e-14  # chance beyond which a chi density is nothing


def beyond(range_: float, means: int, df: float) -> float:
    """Chance that the range of k means of one population, over their standard error, is larger.

    As `scipy.stats.studentized_range.sf`, which takes a hundred times as long (its quantile a third
    of a second): here every pair has degrees of freedom of its own. Absolute error
    below 1e-6 (1e-4 below 2 degrees of freedom).

    Parameters
    ----------
    range_ : float
        0 or more, in standard errors of one mean.
    means : int
        k, at least 2.
    df : float
        Degrees of freedom of the standard error; need not be whole.
    """
    scale, weight = _scales(df)
    chance = float(weight @ _within(range_ * scale, means))
    return min(1.0, max(0.0, 1.0 - chance))


def critical(confidence: float, means: int, df: float) -> float:
    """Quantile of the studentised range, as `scipy.stats.studentized_range.ppf`."""
    high = 8.0
    while beyond(high, means, df) > 1 - confidence:
        high *= 2
    return float(
        optimize.brentq(lambda q: beyond(q, means, df) - (1 - confidence), 0.0, high, xtol=1e-9)
    )


@lru_cache
def _rule() -> tuple[FloatArray, FloatArray]:
    """Nodes and weights on 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2


def _scales(df: float) -> tuple[FloatArray, FloatArray]:
    """Estimated over true standard errors, chi over the root of df, and their weights."""
    nodes, weights = _rule()
    low, high = np.sqrt(special.chdtri(df, [1 - NOTHING, NOTHING]) / df)
    scale = low + (high - low) * nodes
    log_density = (
        np.log(2) + df / 2 * np.log(df / 2) - special.gammaln(df / 2)
        + (df - 1) * np.log(scale) - df * scale**2 / 2
    )  # fmt: skip
    weight = (high - low) * weights * np.exp(log_density)
    return scale, weight / weight.sum()


def _within(ranges: FloatArray, means: int) -> FloatArray:
    """Chance that the range of standard normal means is at most so much."""
    nodes, weights = _rule()
    lowest = -FAR + 2 * FAR * nodes  # where the highest of them lies
    density = np.exp(-(lowest**2) / 2) / np.sqrt(2 * np.pi)
    others = special.ndtr(lowest) - special.ndtr(lowest - ranges[:, None])
    chance: FloatArray = means * 2 * FAR * (others ** (means - 1)) @ (density * weights)
    return chance
