"""Sums of squares, F tests and omega squared of a grid with queries as blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy.typing as npt
from scipy import optimize, stats

from analysis.factors.design import block, clean, empty, residual
from analysis.significance import FloatArray, score_table

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
    f, p : float
        F statistic against the rest and its p value; the null hypothesis is that the term changes
        no mean. NaN where there is nothing to test.
    omega, low, high : float
        Partial omega squared, the share of the variance that the term explains among what neither
        other terms nor queries explain, and its interval. Negative estimates stay: they say "not
        more than chance".
    p_runs : float
        p value against the variance between runs of one cell; NaN without repeated cells.
    """

    term: tuple[str, ...]
    sum_squares: float
    df: int
    f: float
    p: float
    omega: float
    low: float
    high: float
    p_runs: float


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
    rest : float
        Mean square of the rest: its variance.
    rest_df : int
        Degrees of freedom of the rest.
    observations : int
        R x n.
    type : int
        2 or 3.
    """

    scores: FloatArray
    levels: dict[str, tuple[str, ...]]
    terms: tuple[tuple[str, ...], ...]
    effects: tuple[Effect, ...]
    rest: float
    rest_df: int
    observations: int
    type: int


def analyse(
    scores: npt.ArrayLike,
    levels: Mapping[str, Sequence[object]],
    *,
    order: int = 2,
    type: int = 2,
    confidence: float = 0.95,
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
    confidence : float
        Coverage of the intervals of omega squared.

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

    runs, n = table.shape
    means = table.mean(axis=1)
    blocks = {term: block(labels, term) for term in terms}
    full, rank = residual(means, blocks.values(), runs)
    mean = float(means.mean())
    queries = runs * float(((table.mean(axis=0) - mean) ** 2).sum())
    total = clean(float(((table - mean) ** 2).sum()), 1e-12 * float((table**2).sum()))
    explained = n * (float(((means - mean) ** 2).sum()) - full)
    rest_df = runs * n - 1 - (n - 1) - (rank - 1)
    rest = clean(total - queries - explained, total) / rest_df if rest_df > 0 else NAN
    errors = _Errors(rest, rest_df, table.size, *_between_runs(means, labels, n), confidence)
    effects = []
    for term in terms:
        others = [blocks[t] for t in terms if t != term and (type == 3 or not set(term) <= set(t))]
        effects.append(_effect(term, *_gain(means, others, blocks[term], n, total), errors))
    effects.append(_effect((QUERY,), queries, n - 1, replace(errors, between=NAN)))
    return Grid(table, labels, terms, tuple(effects), rest, rest_df, table.size, type)


def simple_effects(grid: Grid, factor: str, at: str, confidence: float = 0.95) -> dict[str, Effect]:
    """Effect of one factor at each level of another, with the rest of the whole grid as error.

    Null hypothesis of each: at this level of `at`, the levels of `factor` have equal means. Other
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
    n = grid.scores.shape[1]
    between = _between_runs(grid.scores.mean(axis=1), grid.levels, n)
    errors = _Errors(grid.rest, grid.rest_df, grid.observations, *between, confidence)
    total = float((grid.scores**2).sum())
    effects = {}
    for level in dict.fromkeys(grid.levels[at]):
        runs = [i for i, label in enumerate(grid.levels[at]) if label == level]
        labels = {f: tuple(c[i] for i in runs) for f, c in grid.levels.items() if f != at}
        if len(set(labels[factor])) < 2:
            continue
        others = [block(labels, (f,)) for f in labels if f != factor]
        means = grid.scores[runs].mean(axis=1)
        gain = _gain(means, others, block(labels, (factor,)), n, total)
        effects[level] = _effect((factor,), *gain, errors)
    return effects


def omega_squared(
    f: float, df: int, rest_df: int, observations: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Partial omega squared of an F statistic, and its interval.

    df (F - 1) / (df (F - 1) + N) (Olejnik and Algina, 2003; as in Ferro and Silvello). The
    interval comes from the noncentralities l for which the observed F is the upper or the lower
    quantile: l / (l + N) (Steiger, 2004, *Beyond the F test*); its ends are never below 0.
    """
    gain = df * (f - 1)
    tail = (1 - confidence) / 2
    ends = [_noncentrality(f, df, rest_df, share) for share in (1 - tail, tail)]
    low, high = (end / (end + observations) for end in ends)
    return gain / (gain + observations), low, high


def _noncentrality(f: float, df: int, rest_df: int, share: float) -> float:
    """Noncentrality at which F has the given share of the distribution below it; at least 0."""

    def excess(value: float) -> float:
        below = stats.ncf.cdf(f, df, rest_df, value) if value else stats.f.cdf(f, df, rest_df)
        return float(below) - share

    if excess(0.0) <= 0:
        return 0.0
    limit = max(1.0, 2 * f * df)
    while excess(limit) > 0:
        limit *= 2
    return float(optimize.brentq(excess, 0.0, limit, xtol=1e-9))


@dataclass(frozen=True)
class _Errors:
    """What the effects of a grid are tested against.

    Attributes
    ----------
    rest, rest_df, observations
        As in `Grid`.
    between, between_df
        Mean square between runs of one cell and its degrees of freedom; NaN without repeated cells.
    confidence
        Coverage of the intervals.
    """

    rest: float
    rest_df: int
    observations: int
    between: float
    between_df: int
    confidence: float


def _gain(
    means: FloatArray, others: list[FloatArray], block: FloatArray, n: int, total: float
) -> tuple[float, int]:
    """Sum of squares and degrees of freedom that a term adds to other terms."""
    without, rank_without = residual(means, others, len(means))
    with_it, rank_with = residual(means, [*others, block], len(means))
    return clean(n * (without - with_it), total), rank_with - rank_without


def _effect(term: tuple[str, ...], squares: float, df: int, errors: _Errors) -> Effect:
    if df < 1 or errors.rest_df < 1 or not errors.rest > 0:
        return Effect(term, squares, df, *(NAN,) * 6)
    f = squares / df / errors.rest
    p_runs = NAN
    if errors.between > 0:
        p_runs = float(stats.f.sf(squares / df / errors.between, df, errors.between_df))
    return Effect(
        term,
        squares,
        df,
        f,
        float(stats.f.sf(f, df, errors.rest_df)),
        *omega_squared(f, df, errors.rest_df, errors.observations, errors.confidence),
        p_runs,
    )


def _between_runs(
    means: FloatArray, labels: Mapping[str, tuple[str, ...]], n: int
) -> tuple[float, int]:
    """Mean square between runs of one cell, per score, and its degrees of freedom."""
    cells = list(zip(*labels.values(), strict=True))
    groups = [[i for i, run in enumerate(cells) if run == cell] for cell in dict.fromkeys(cells)]
    df = len(cells) - len(groups)
    if not df:
        return NAN, 0
    return n * sum(float(((means[g] - means[g].mean()) ** 2).sum()) for g in groups) / df, df


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
