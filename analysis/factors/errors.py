"""The error of an effect: queries and runs random, factors fixed.

    score[q, run] = mean + query[q] + factors of the run and their interactions (fixed)
                  + query x factors (random, a variance for every term) + run (random) + rest

An effect is r orthonormal contrasts of the runs; their values on a query, z[q], hold query x effect
and rest, so that the spread of z over queries is the mean square of query x effect. Expected mean
squares, with `run` the variance between runs of one cell and n queries:

    effect            rest + query x effect + n run + what is there
    query x effect    rest + query x effect
    runs of one cell  rest                  + n run
    query x run       rest

so the error of an effect is (query x effect) + (runs of one cell) - (query x run), whether the grid
is balanced or not: the contrasts are orthonormal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.factors.design import added, clean
from analysis.significance import FloatArray, Runs, counted_in


@dataclass(frozen=True)
class Error:
    """What an effect with r contrasts is tested against.

    Attributes
    ----------
    square : float
        Mean square of the error; NaN without two queries.
    df : float
        Its degrees of freedom, after Satterthwaite.
    queries, queries_df : float
        Mean square of query x effect, and its degrees of freedom.
    sphericity : float
        Box's epsilon of the effect, 1/r to 1: F is compared with the F distribution with r x
        epsilon and `df` degrees of freedom. 1 where the contrasts vary alike and independently.
    """

    square: float
    df: float
    queries: float
    queries_df: float
    sphericity: float


def error_of(contrasts: FloatArray, scores: FloatArray, runs: Runs) -> Error:
    """Error of an effect.

    Parameters
    ----------
    contrasts : ndarray, shape [R, r]
        Orthonormal.
    scores : ndarray, shape [R, n]
        Scores of the runs on n queries.
    runs : Runs
        Mean squares of the runs of one cell.

    Notes
    -----
    Epsilon, of query x effect and of both together, from the unbiased estimates of the squared
    trace and the trace of the square of the contrasts' covariance (Huynh and Feldt 1976,
    *Estimation of the Box correction for degrees of freedom from sample data*); runs are spherical
    by assumption.
    """
    r, n = contrasts.shape[1], scores.shape[1]
    if n < 2 or r < 1:
        return Error(*(float("nan"),) * 5)
    z = scores.T @ contrasts
    z -= z.mean(axis=0)
    covariance = z.T @ z / (n - 1)
    trace = clean(float(np.trace(covariance)), float((scores**2).sum()) / n)
    of_square, square_of = _moments(covariance, n - 1)
    queries_df = (n - 1) * r * _epsilon(of_square, square_of, r)
    square, df = counted_in(trace / r, queries_df, runs)
    run = float(square) - trace / r  # per contrast
    both = of_square + 2 * r * run * trace + (r * run) ** 2
    each = square_of + 2 * run * trace + r * run**2
    return Error(float(square), float(df), trace / r, queries_df, _epsilon(both, each, r))


def _moments(covariance: FloatArray, df: int) -> tuple[float, float]:
    """Estimates of the squared trace and of the trace of the square of a covariance."""
    trace, squares = float(np.trace(covariance)), float((covariance**2).sum())
    if df < 2:
        return trace**2, trace**2  # as if all varied together
    square_of = df**2 / ((df - 1) * (df + 2)) * (squares - trace**2 / df)
    return trace**2 - 2 * square_of / df, square_of


def _epsilon(of_square: float, square_of: float, r: int) -> float:
    """Box's epsilon within its limits."""
    if r == 1 or not square_of > 0:
        return 1.0
    return min(1.0, max(1 / r, of_square / (r * square_of)))


@dataclass(frozen=True)
class Spread:
    """How one score varies around its cell's mean, the query's mean taken off.

    Attributes
    ----------
    square, df : float
        Mean square of query x cell (of all cells), and its degrees of freedom.
    seeds : float
        Runs of a cell, the factor of the variance query x cell in `square`.
    queries : int
        Number of queries.
    runs : Runs
        Mean squares of the runs of one cell.
    """

    square: float
    df: float
    seeds: float
    queries: int
    runs: Runs

    @classmethod
    def of(cls, scores: FloatArray, cells: FloatArray, runs: Runs) -> Spread:
        """Of scores [R, n] and of the cells' indicators [R, C]."""
        n = scores.shape[1]
        contrasts = added(cells, ())
        r = contrasts.shape[1]
        z = scores.T @ contrasts
        squares = clean(float(((z - z.mean(axis=0)) ** 2).sum()), float((scores**2).sum()))
        df = (n - 1) * r
        seeds = float(((cells.T @ contrasts) ** 2).sum()) / r
        return cls(squares / df if df else float("nan"), df, seeds, n, runs)

    def variance(
        self, square: FloatArray | float, between: FloatArray | float, rest: FloatArray | float
    ) -> FloatArray:
        """Variance of one score, from the mean squares of query x cell, of runs and of the rest.

        query x cell + run + rest, none below 0; with one run per cell they are not told apart.
        """
        if not self.runs.known:
            return np.asarray(square)
        crossed = np.maximum(0.0, np.subtract(square, rest)) / self.seeds
        run = np.maximum(0.0, np.subtract(between, rest)) / self.queries
        return np.asarray(crossed + run + rest)
