"""The arithmetic that a figure needs beyond what a `Summary` holds: pure functions, no drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.figures.grid import Conditions, Levels, crossed, factorial, in_order
from analysis.render.figures.curves import Interaction, Line
from analysis.render.figures.queries import Wins
from analysis.significance import FloatArray
from rdx.equality import settled
from rdx.text import counted

Blocks = dict[tuple[str, ...], dict[tuple[str, str], int]]
MOST_NAMED = 2  # combinations that were not run, in a note


def within(
    values: npt.ArrayLike, strata: Sequence[object], confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Means over queries with intervals that leave out what is common to a query.

    Null hypothesis behind the interval: none; it shows the precision of the *pattern* of the
    means. Queries differ far more from each other than settings do on one query, so that an
    ordinary interval would hide every difference. For two settings the half width is that of the
    paired t-interval of their difference divided by √2.

    Parameters
    ----------
    values : array_like, shape [n, j]
        Scores of n queries under j settings.
    strata : sequence of length n
        Collection of each query; the mean is the mean over collections of their means.
    confidence : float
        Coverage.

    Returns
    -------
    mean, half : ndarray, shape [j]
        Centre and half width. With one setting the half width is the ordinary one; NaN where a
        collection has one query; n = 0 gives NaN for both.

    Notes
    -----
    Cousineau (2005), *Confidence intervals in within-subject designs*, with the correction of
    Morey (2008), both Tutorials in Quantitative Methods for Psychology. Several collections:
    independent strata of equal weight, degrees of freedom by Welch (1938) and Satterthwaite (1946).
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(strata):
        raise ValueError(f"scores must have shape [{len(strata)}, j], got {table.shape}")
    names = list(dict.fromkeys(strata))
    if not names:
        return np.full(table.shape[1], np.nan), np.full(table.shape[1], np.nan)
    of = np.array([names.index(name) for name in strata])
    settings = table.shape[1]
    means, errors, freedom = [], [], []
    for i in range(len(names)):
        block = table[of == i]
        means.append(block.mean(axis=0))
        if len(block) < 2:
            return np.mean([table[of == k].mean(axis=0) for k in range(len(names))], axis=0), (
                np.full(settings, np.nan)
            )
        inflate = 1.0
        if settings > 1:
            block = block - block.mean(axis=1, keepdims=True)
            inflate = settings / (settings - 1)
        errors.append(inflate * block.var(axis=0, ddof=1) / len(block))
        freedom.append(len(block) - 1)
    variance = np.array(errors)
    total = variance.sum(axis=0)
    shares = (variance**2 / np.array(freedom)[:, None]).sum(axis=0)
    degrees = np.divide(total**2, shares, out=np.full(settings, np.inf), where=shares > 0)
    half = stats.t.ppf(0.5 + confidence / 2, degrees) * np.sqrt(total) / len(names)
    return np.mean(means, axis=0), np.asarray(half)


def lines(settings: Conditions, key: str, grouped: Mapping[str, Sequence[str]]) -> list[Line]:
    """Lines over the levels of `key`: one per group of collections and setting of all else.

    Settings with one level of `key` are left out: a point is no line. The label of a line has only
    what tells it from the others.
    """
    series: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, levels in enumerate(settings.levels):
        if key in levels:
            rest = tuple((k, v) for k, v in levels.items() if k != key)
            series.setdefault(rest, []).append(i)
    series = {rest: places for rest, places in series.items() if len(places) > 1}
    telling = [
        k for k in dict.fromkeys(k for rest in series for k, _ in rest)
        if len({dict(rest).get(k) for rest in series}) > 1
    ]  # fmt: skip
    series_lines = []
    for group, names in grouped.items():
        rows = [i for i, name in enumerate(settings.collections) if name in names]
        if not rows:
            continue
        for rest, places in series.items():
            mean, half = within(
                settings.values[np.ix_(rows, places)], [settings.collections[i] for i in rows]
            )
            words = [f"{value}" for k, value in rest if k in telling and value]
            words += [group] if len(grouped) > 1 else []
            series_lines.append(
                _line(", ".join(words), [settings.levels[i][key] for i in places], mean, half)
            )
    return series_lines


def interaction(
    settings: Conditions, across: str, by: str, factors: Sequence[str]
) -> Interaction | None:
    """Means over `across` per level of `by`, each over the same settings of the other factors.

    Those are the ones with which every combination of the two that was run at all was run; if there
    are none, those of the largest complete part of the grid. None if nothing varies there.
    """
    part = factorial(settings, factors)
    others = [factor for factor in factors if factor not in (across, by)]
    blocks = _blocks(part, across, by, others)
    cells = {cell for block in blocks.values() for cell in block}
    complete = {rest: block for rest, block in blocks.items() if block.keys() == cells}
    if not complete:
        part, _ = crossed(part, factors)
        complete = _blocks(part, across, by, others)
        cells = {cell for block in complete.values() for cell in block}
    points = [setting for setting in part.levels if (setting[across], setting[by]) in cells]
    down, over = (in_order(point[key] for point in points) for key in (by, across))
    if len(down) < 2 or len(over) < 2:
        return None
    order = [(a, b) for b in down for a in over if (a, b) in cells]
    table = np.column_stack(
        [part.values[:, [block[cell] for block in complete.values()]].mean(axis=1)
         for cell in order]
    )  # fmt: skip
    ends = dict(zip(order, zip(*within(table, part.collections), strict=True), strict=True))
    nothing = (np.nan, np.nan)
    drawn = []
    for b in down:
        mean, half = (np.array(side) for side in zip(*(ends.get((a, b), nothing) for a in over),
                                                     strict=True))  # fmt: skip
        drawn.append(_line(b, over, mean, half))
    missing = [(a, b) for b in down for a in over if (a, b) not in cells]
    notes = [_over(others, len(complete), len(blocks))] * bool(others)
    if missing:
        named = [f"{a} with {b}" for a, b in missing]
        notes.append(
            f"not run: {', '.join(named)}"
            if len(named) <= MOST_NAMED
            else f"{len(missing)} of {len(down) * len(over)} combinations not run"
        )
    return Interaction(across, by, tuple(drawn), "; ".join(notes))


def _blocks(part: Conditions, across: str, by: str, others: Sequence[str]) -> Blocks:
    """Levels of the other factors -> levels of two -> place of that setting."""
    blocks: Blocks = {}
    for i, setting in enumerate(part.levels):
        rest = tuple(setting[factor] for factor in others)
        blocks.setdefault(rest, {})[setting[across], setting[by]] = i
    return blocks


def _over(others: Sequence[str], used: int, run: int) -> str:
    """Over how many settings of other factors a mean is taken."""
    size = counted(used, "setting") if used == run else f"{used} of {run} settings"
    return f"means over {size} of {', '.join(others)}"


def _line(label: str, x: Sequence[str], mean: FloatArray, half: FloatArray) -> Line:
    low, high = mean - half, mean + half
    return Line(label, tuple(x), tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()))


def cell_means(
    settings: Conditions, rows: Sequence[str], columns: Sequence[str], fixed: Levels,
    keys: tuple[str, str],
) -> FloatArray:  # fmt: skip
    """Mean score per level of two factors with the others held, shape [rows, columns].

    `keys` are the factors whose levels `rows` and `columns` are. NaN where nothing was run.
    """
    collections = np.array(settings.collections)
    means = np.mean(
        [settings.values[collections == name].mean(axis=0) for name in dict.fromkeys(collections)],
        axis=0,
    )
    table = np.full((len(rows), len(columns)), np.nan)
    for i, setting in enumerate(settings.levels):
        if all(setting[key] == level for key, level in fixed.items()):
            table[rows.index(setting[keys[0]]), columns.index(setting[keys[1]])] = means[i]
    return table


def wins(differences: npt.ArrayLike) -> Wins:
    """Per-query differences in order, and how many are wins, ties and losses.

    Parameters
    ----------
    differences : array_like, shape [n]
        As of `paired_differences`: exactly 0 for scores that are equal up to rounding, a tie.
    """
    ordered = np.sort(np.asarray(differences, dtype=np.float64))[::-1]
    counts = ((ordered > 0).sum(), (ordered == 0).sum(), (ordered < 0).sum())
    return Wins(ordered, *map(int, counts))


def pareto(cost: npt.ArrayLike, gain: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which systems no other beats: none is both as cheap and as good, and better in one of them.

    Parameters
    ----------
    cost, gain : array_like, shape [n]
        Lower cost and higher gain are better. Equals, up to rounding, do not beat each other.
    """
    price, worth = settled(cost), settled(gain)
    no_worse = (price[:, None] <= price) & (worth[:, None] >= worth)
    better = (price[:, None] < price) | (worth[:, None] > worth)
    return np.asarray(~(no_worse & better).any(axis=0))


def mean_ranks(values: npt.ArrayLike) -> FloatArray:
    """Mean over queries of the rank of each system; 1 = best, ties share the mean of their ranks.

    Parameters
    ----------
    values : array_like, shape [n, k]
        Scores of n queries by k systems. Scores equal up to rounding are ties.
    """
    return np.asarray(stats.rankdata(-settled(values), axis=1).mean(axis=0))


def critical_difference(systems: int, queries: int, alpha: float = 0.05) -> float:
    """Smallest difference of two mean ranks that Nemenyi's test calls significant.

    Null hypothesis: both systems rank alike over the population of queries. Holds the family-wise
    error over all pairs of `systems` (2 or more) at `alpha`.

    Notes
    -----
    q √(k(k + 1) / 6n), q the studentised range over √2: Nemenyi (1963), *Distribution-free multiple
    comparisons*; as a diagram: Demšar (2006), *Statistical comparisons of classifiers over multiple
    data sets*, JMLR 7, §3.2.
    """
    if systems < 2 or queries < 1:
        raise ValueError(f"needs 2 systems and 1 query at least, got {systems} and {queries}")
    quantile = stats.studentized_range.ppf(1 - alpha, systems, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(systems * (systems + 1) / (6 * queries)))


def bars(ranks: npt.ArrayLike, different: npt.ArrayLike) -> list[tuple[int, ...]]:
    """Longest runs of neighbours in rank order in which no pair differs, best first.

    Parameters
    ----------
    ranks : array_like, shape [k]
        Mean ranks.
    different : array_like of bool, shape [k, k]
        Whether two systems differ significantly; symmetric.

    Returns
    -------
    list of tuple of int
        Places in `ranks` of the systems of each run, best first. Runs of one, and those inside a
        longer one, are left out.
    """
    order = np.argsort(np.asarray(ranks, dtype=np.float64), kind="stable")
    apart = np.asarray(different, dtype=bool)[np.ix_(order, order)]
    runs, last = [], 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not apart[start : end + 1, start : end + 1].any():
            end += 1
        if end - start > 1 and end > last:
            runs.append(tuple(int(i) for i in order[start:end]))
            last = end
    return runs
