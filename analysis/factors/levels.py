"""Marginal means of the levels of a factor, and Tukey's comparisons of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.factors.anova import Grid, known
from analysis.factors.design import block, clean
from analysis.factors.studentised import beyond, critical
from analysis.significance import FloatArray, counted_in


@dataclass(frozen=True)
class Pair:
    """Tukey's comparison of two levels of a factor, first minus second.

    Attributes
    ----------
    factor, first, second : str
        What is compared.
    difference, low, high : float
        Difference of the marginal means and its simultaneous interval; NaN where the grid does
        not determine it.
    p : float
        p value, corrected for all pairs of the factor's levels.
    """

    factor: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float


def marginal_means(grid: Grid, factor: str) -> dict[str, float]:
    """Mean score per level of a factor, every combination of the other factors weighing alike.

    In a balanced grid these are the plain means. NaN where the grid does not determine one: a
    level's interaction with an empty combination is unknown.
    """
    return {
        level: float(row @ _coefficients(grid)) if _estimable(grid, row) else float("nan")
        for level, row in _contrasts(grid, factor).items()
    }


def tukey(grid: Grid, factor: str, confidence: float = 0.95) -> tuple[Pair, ...]:
    """Tukey's honestly significant differences between the levels of one factor.

    Null hypothesis of each pair: both levels have the same marginal mean, over other queries and,
    where the grid has cells with several, other runs. All pairs of the factor are corrected
    together by the distribution of the studentised range (Tukey 1953), each with its own error, so
    that levels may vary unlike (Games and Howell 1976): the variance over queries of its
    difference, with the runs counted in as for the factor. The intervals hold together with
    probability `confidence`.
    """
    rows = _contrasts(grid, factor)
    of_runs = np.linalg.pinv(_design(grid))
    n = grid.scores.shape[1]
    pairs = []
    for first, second in combinations(rows, 2):
        if n < 2 or not (_estimable(grid, rows[first]) and _estimable(grid, rows[second])):
            difference = float("nan")
            error, df = difference, difference
        else:
            weights = (rows[first] - rows[second]) @ of_runs
            each = weights @ grid.scores
            difference = float(each.mean())
            square = clean(float(each.var(ddof=1)), float((grid.scores**2).sum()))
            variance, freedom = counted_in(
                square / n, n - 1, grid.runs, float(weights @ weights) / n
            )
            error, df = float(variance) ** 0.5, float(freedom)
        half = p = float("nan")
        if error > 0:
            half = critical(confidence, len(rows), df) * error / math.sqrt(2)
            p = beyond(abs(difference) / error * math.sqrt(2), len(rows), df)
        pairs.append(
            Pair(factor, first, second, difference, difference - half, difference + half, p)
        )
    return tuple(pairs)


def _contrasts(grid: Grid, factor: str) -> dict[str, FloatArray]:
    """Level -> coefficients of its marginal mean: in sum-to-zero coding other factors drop out."""
    known(grid, factor)
    labels = grid.levels[factor]
    rows = {}
    for level in dict.fromkeys(labels):
        parts = [np.ones(1)]
        for term in grid.terms:
            columns = block(grid.levels, term)
            at = columns[labels.index(level)] if term == (factor,) else np.zeros(columns.shape[1])
            parts.append(at)
        rows[level] = np.concatenate(parts)
    return rows


def _estimable(grid: Grid, row: FloatArray) -> bool:
    """Whether the design determines this combination of its coefficients."""
    design = _design(grid)
    return bool(np.allclose(row @ np.linalg.pinv(design) @ design, row, atol=1e-8))


def _coefficients(grid: Grid) -> FloatArray:
    coefficients: FloatArray = np.linalg.lstsq(_design(grid), grid.scores.mean(axis=1), rcond=None)[
        0
    ]
    return coefficients


def _design(grid: Grid) -> FloatArray:
    ones = np.ones((len(grid.scores), 1))
    return np.hstack([ones, *(block(grid.levels, term) for term in grid.terms)])
