"""Sums of squares, F tests and omega squared of a grid with queries and training runs random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy.typing as npt
from scipy import special

from analysis.factors.design import added, block, cells, clean, empty
from analysis.factors.errors import Spread, error_of
from analysis.factors.omega import omega_squared
from analysis.significance import FloatArray, Runs, score_table

QUERY = "query"
TYPES = (2, 3)
NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """One line of the analysis of variance.

    Attributes
    ----------
    term : tuple of str
        The factor, or the factors of an interaction; ("query",) for the queries.
    sum_squares, df : float, int
        Sum of squares and degrees of freedom; df 0 = the grid says nothing of it.
    error, error_df : float
        Mean square of the error and its degrees of freedom; see `analysis.factors.errors`. NaN of
        queries, which are no claim.
    f, p : float
        F statistic and its p value; the null hypothesis is that the term changes no mean: over
        other queries and other training runs if the grid has cells with several, else over other
        queries with these models. NaN where there is nothing to test.
    sphericity : float
        Box's epsilon: p has df times this degrees of freedom above.
    omega, low, high : float
        Partial omega squared and its interval; see `analysis.factors.omega`.
    """

    term: tuple[str, ...]
    sum_squares: float
    df: int
    error: float = NAN
    error_df: float = NAN
    f: float = NAN
    p: float = NAN
    sphericity: float = NAN
    omega: float = NAN
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class Grid:
    """A fitted grid of points.

    Attributes
    ----------
    scores : ndarray, shape [R, n]
        Scores of R runs on n queries.
    levels : dict
        Factor -> level of each run, R labels.
    terms : tuple of tuple of str
        Main effects, then interactions, that are in the model.
    effects : tuple of Effect
        One per term, then the queries.
    runs : Runs
        Mean squares of the runs of one cell, over all cells.
    spread : Spread
        How one score varies around its cell's mean.
    type : int
        2 or 3.
    """

    scores: FloatArray
    levels: dict[str, tuple[str, ...]]
    terms: tuple[tuple[str, ...], ...]
    effects: tuple[Effect, ...]
    runs: Runs
    spread: Spread
    type: int

    @property
    def of_choice(self) -> bool:
        """Whether tests speak about the choice, other runs counted in; else about these models."""
        return bool(self.runs.known)


def analyse(
    scores: npt.ArrayLike,
    levels: Mapping[str, Sequence[object]],
    *,
    order: int = 2,
    type: int = 2,
    confidence: float | None = 0.95,
) -> Grid:
    """Analysis of variance of a grid.

    Parameters
    ----------
    scores : array_like, shape [R, n]
        A row per run (cell and seed), a column per query; all runs have the same queries.
    levels : mapping of str to sequence
        Factor -> level of each run. Levels are told apart by their text.
    order : int
        Highest order of interactions: 1 = main effects only.
    type : int
        2, or 3 (each term after all others, sum-to-zero coding; needs every combination).
    confidence : float or None
        Coverage of the intervals of omega squared; None leaves them out.

    Raises
    ------
    ValueError
        If scores are not finite or not [R, n], labels do not fit, a factor has one level only, or
        type 3 is asked of a grid with empty combinations.
    """
    table = score_table(scores, "runs, queries")
    labels = {name: tuple(map(str, column)) for name, column in levels.items()}
    _check(table, labels, order, type)
    terms = tuple(t for size in range(1, order + 1) for t in combinations(labels, size))
    if type == 3 and any(empty(labels, term) for term in terms):
        raise ValueError("type 3 needs every combination of levels; this grid lacks some: use 2")

    table_runs, n = table.shape
    each = cells(labels)
    runs = Runs.pooled(table[column == 1].T for column in each.T)
    spread = Spread.of(table, each, runs)
    mean = float(table.mean())
    queries = table_runs * float(((table.mean(axis=0) - mean) ** 2).sum())
    blocks = {term: block(labels, term) for term in terms}
    effects = []
    for term in terms:
        others = [blocks[t] for t in terms if t != term and (type == 3 or not set(term) <= set(t))]
        contrasts = added(blocks[term], others)
        effects.append(_effect(term, contrasts, table, runs, spread, confidence))
    effects.append(Effect((QUERY,), queries, n - 1))
    return Grid(table, labels, terms, tuple(effects), runs, spread, type)


def simple_effects(
    grid: Grid, factor: str, at: str, confidence: float | None = 0.95
) -> dict[str, Effect]:
    """Effect of one factor at each level of another.

    Null hypothesis of each: at this level of `at`, the levels of `factor` have equal means. The
    error is query x factor at this level, with the variance between runs of the whole grid. Other
    factors enter as main effects. Not corrected over the levels of `at`.

    Returns
    -------
    dict
        Level of `at` -> effect; a level where only one level of `factor` was run is left out.
    """
    for name in (factor, at):
        known(grid, name)
    if factor == at:
        raise ValueError(f"a simple effect needs two factors, not {factor} twice")
    effects = {}
    for level in dict.fromkeys(grid.levels[at]):
        here = [i for i, label in enumerate(grid.levels[at]) if label == level]
        labels = {f: tuple(c[i] for i in here) for f, c in grid.levels.items() if f != at}
        if len(set(labels[factor])) < 2:
            continue
        others = [block(labels, (f,)) for f in labels if f != factor]
        contrasts = added(block(labels, (factor,)), others)
        effects[level] = _effect(
            (factor,), contrasts, grid.scores[here], grid.runs, grid.spread, confidence
        )
    return effects


def _effect(
    term: tuple[str, ...],
    contrasts: FloatArray,
    scores: FloatArray,
    runs: Runs,
    spread: Spread,
    confidence: float | None,
) -> Effect:
    """An effect from its orthonormal contrasts [R, r] of scores [R, n]."""
    n, r = scores.shape[1], contrasts.shape[1]
    squares = n * float(((contrasts.T @ scores.mean(axis=1)) ** 2).sum())
    squares = clean(squares, float((scores**2).sum()))
    error = error_of(contrasts, scores, runs)
    if r < 1 or not error.square > 0:
        return Effect(term, squares, r)
    f = squares / r / error.square
    p = special.fdtrc(r * error.sphericity, error.df, f)
    size = omega_squared(squares, r, len(scores), error, spread, confidence)
    return Effect(term, squares, r, error.square, error.df, f, float(p), error.sphericity, *size)


def known(grid: Grid, factor: str) -> None:
    """Reject a factor that the grid does not have."""
    if factor not in grid.levels:
        raise ValueError(f"{factor!r} is not one of the factors: {', '.join(grid.levels)}")


def _check(table: FloatArray, labels: Mapping[str, tuple[str, ...]], order: int, type: int) -> None:
    if not labels:
        raise ValueError("an analysis of variance needs a factor")
    if type not in TYPES:
        raise ValueError(f"type must be 2 or 3, not {type}")
    if order < 1:
        raise ValueError(f"order must be at least 1, not {order}")
    for name, column in labels.items():
        if len(column) != len(table):
            raise ValueError(f"factor {name}: {len(column)} labels for {len(table)} runs")
        if len(set(column)) < 2:
            raise ValueError(f"factor {name} has one level only: {column[0]}")
