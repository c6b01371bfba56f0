"""Marginal means of the levels of a factor, and Tukey's comparisons of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy import stats

from analysis.factors.anova import Grid, known
from analysis.factors.design import block
from analysis.significance import FloatArray


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

    Null hypothesis of each pair: both levels have the same marginal mean. All pairs of the factor
    are corrected together by the distribution of the studentised range, with the rest of the grid
    as error (Tukey, 1953; for unequal numbers Kramer, 1956, who is a little conservative). The
    intervals hold together with probability `confidence`.
    """
    rows = _contrasts(grid, factor)
    beta = _coefficients(grid)
    inverse = np.linalg.pinv(_design(grid).T @ _design(grid))
    n = grid.scores.shape[1]
    testable = grid.rest_df > 0 and grid.rest > 0
    critical = _critical(confidence, len(rows), grid.rest_df) if testable else float("nan")
    pairs = []
    for first, second in combinations(rows, 2):
        row = rows[first] - rows[second]
        if not (_estimable(grid, rows[first]) and _estimable(grid, rows[second])):
            pairs.append(Pair(factor, first, second, *(float("nan"),) * 4))
            continue
        difference = float(row @ beta)
        error = math.sqrt(grid.rest / n * float(row @ inverse @ row)) if testable else float("nan")
        half = critical * error / math.sqrt(2)
        p = float("nan")
        if testable:
            studentised = abs(difference) / error * math.sqrt(2)
            p = min(1.0, float(stats.studentized_range.sf(studentised, len(rows), grid.rest_df)))
        pairs.append(
            Pair(factor, first, second, difference, difference - half, difference + half, p)
        )
    return tuple(pairs)


@lru_cache
def _critical(confidence: float, levels: int, df: int) -> float:
    """Quantile of the studentised range; cached, since it takes scipy a third of a second."""
    return float(stats.studentized_range.ppf(confidence, levels, df))


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
