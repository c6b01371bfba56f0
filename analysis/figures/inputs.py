"""Summary -> what each figure is drawn from; an empty answer means that there is no such figure."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from analysis.costs import single
from analysis.figures import data
from analysis.figures.grid import Conditions, by_level, crossed, groups, number, varied
from analysis.figures.maps import Grid
from analysis.figures.overview import Point
from analysis.figures.systems import Cost, Ranking
from analysis.power import sensitivities
from analysis.significance import FloatArray
from analysis.spec import REFERENCES, SECONDS
from analysis.summary import Summary
from rdx import power
from rdx.text import counted

# Beyond so many collections a panel each is no picture; then all queries are taken together.
MOST_PANELS = 4
MOST_LEVELS = 8  # of a factor whose levels are panels
EVERYTHING = "all collections"


def overview(summary: Summary) -> dict[str, list[Point]]:
    """Collection -> tested rows of the spec's `figure` measure."""
    drawn: dict[str, list[Point]] = {}
    for collection in summary.collections:
        for row in summary.spec.rows:
            contrast = summary.contrasts.get((row.name, collection, summary.spec.figure))
            if contrast is None:
                continue
            drawn.setdefault(collection, []).append(
                Point(
                    name=row.name,
                    difference=contrast.comparison.difference,
                    low=contrast.comparison.low,
                    high=contrast.comparison.high,
                    seeds=contrast.seed_differences,
                    significant=contrast.significant,
                    reference=row.system in REFERENCES or bool(row.imported),
                )
            )
    return drawn


def lines(summary: Summary, found: Conditions | None) -> dict[str, list[data.Line]]:
    """Axis -> lines: the spec's `x`, and any other key of the grid whose levels are all numbers."""
    if found is None or summary.spec.x is None:
        return {}
    cells = [cell for cell in summary.trials.cells if cell.signature in summary.trials.facts]
    numeric = [
        key for key in varied(cells)
        if all(not np.isnan(number(levels.get(key, ""))) for levels in found.levels)
    ]  # fmt: skip
    drawn = {}
    for key in dict.fromkeys((summary.spec.x, *numeric)):
        if group := data.lines(found, key, groups(summary)):
            drawn[key] = group
    return drawn


def interactions(
    summary: Summary, found: Conditions | None
) -> dict[tuple[str, str], list[data.Line]]:
    """(factor, factor) -> lines, for every pair of factors with two levels or more each."""
    factors = summary.spec.factors
    if found is None or len(factors) < 2:
        return {}
    _, levels = crossed(found, factors)
    usable = [factor for factor in factors if len(levels[factor]) > 1]
    return {(a, b): data.interaction(found, a, b, factors) for a, b in combinations(usable, 2)}


def heat_maps(summary: Summary, found: Conditions | None) -> tuple[str, str, list[Grid]]:
    """Name of the rows and columns, and one panel per level of the third factor."""
    factors = [
        factor for factor in summary.spec.factors
        if found is not None and len({s[factor] for s in found.levels if factor in s}) > 1
    ]  # fmt: skip
    if found is None or len(factors) < 2:
        return "", "", []
    rows, columns, *more = factors
    held: list[dict[str, str]] = [{}]
    if more:
        values = sorted({s[more[0]] for s in found.levels if more[0] in s}, key=by_level)
        held = [{more[0]: value} for value in values] if len(values) <= MOST_LEVELS else held
    drawn = []
    for fixed in held:
        down, over, table = data.cell_means(found, rows, columns, fixed)
        title = ", ".join(f"{key} = {value}" for key, value in fixed.items())
        drawn.append(Grid(title, tuple(down), tuple(over), table))
    return rows, columns, drawn


def wins(summary: Summary) -> dict[str, dict[str, tuple[FloatArray, tuple[int, ...]]]]:
    """Collection -> tested row -> sorted differences to the baseline, and their counts."""
    measure, baseline = summary.spec.figure, summary.spec.baseline
    together = len(summary.collections) > MOST_PANELS
    pairs: dict[str, dict[str, list[tuple[FloatArray, FloatArray]]]] = {}
    for name, collection, of in summary.contrasts:
        a = summary.scores.get((name, collection, measure))
        b = summary.scores.get((str(baseline), collection, measure))
        if of != measure or a is None or b is None or name == baseline:
            continue
        _, in_a, in_b = np.intersect1d(
            a.queries, b.queries, assume_unique=True, return_indices=True
        )
        place = pairs.setdefault(EVERYTHING if together else collection, {})
        place.setdefault(name, []).append((a.per_query[in_a], b.per_query[in_b]))
    return {
        collection: {
            name: data.wins(*(np.concatenate(side) for side in zip(*found, strict=True)))
            for name, found in rows.items()
        }
        for collection, rows in pairs.items()
    }


def costs(summary: Summary) -> tuple[list[Cost], str]:
    """Rows whose trials were timed, the mean over the collections where they were; the hardware."""
    found: list[tuple[str, float, float]] = []
    machines: dict[str, None] = {}
    for row in summary.spec.rows:
        seconds, scores = [], []
        for collection in summary.collections:
            one = summary.scores.get((row.name, collection, summary.spec.figure))
            timed = summary.costs.get((row.name, collection, SECONDS))
            if one is None or timed is None:
                continue
            seconds.append(timed.mean)
            scores.append(one.mean)
            for signature in summary.signatures[row.name]:
                if measured := single(summary.trials.facts[signature], collection):
                    machines[measured.hardware.device] = None
        if seconds:
            found.append((row.name, float(np.mean(seconds)), float(np.mean(scores))))
    best = data.pareto([s for _, s, _ in found], [score for _, _, score in found])
    drawn = [Cost(*one, best=bool(front)) for one, front in zip(found, best, strict=True)]
    return drawn, next(iter(machines)) if len(machines) == 1 else ""


def rankings(summary: Summary) -> tuple[dict[str, Ranking], float | None, str]:
    """Collection -> mean ranks and bars; the critical difference, if the bars come from it."""
    spec, measure = summary.spec, summary.spec.figure
    names = [row.name for row in spec.rows if row.test or row.name in spec.baselines]
    together = len(summary.collections) > MOST_PANELS
    places = {EVERYTHING: summary.collections} if together else {
        collection: (collection,) for collection in summary.collections
    }  # fmt: skip
    drawn: dict[str, Ranking] = {}
    distances: list[float] = []
    tested = False
    for title, collections in places.items():
        kept, table = _full(summary, names, collections)
        if len(kept) < 3:
            continue
        ranks = data.mean_ranks(table)
        distance = data.critical_difference(len(kept), len(table), spec.alpha)
        apart = None if together else _pairs(summary, kept, title)
        tested = apart is not None
        if apart is None:
            apart = np.abs(ranks[:, None] - ranks) > distance
            distances.append(distance)
        runs = data.bars(ranks, apart)
        drawn[title] = Ranking(
            dict(zip(kept, ranks.tolist(), strict=True)),
            tuple(tuple(kept[i] for i in run) for run in runs),
        )
    one = distances[0] if len(set(distances)) == 1 and len(distances) == len(drawn) else None
    note = (
        f"bars: not told apart by the all-pairs tests, {spec.correction}, α = {spec.alpha:g}"
        if tested
        else f"bars: not told apart by Nemenyi's test, α = {spec.alpha:g}"
    )
    return drawn, one, f"mean ranks over queries, {measure}; {note}"


def _full(
    summary: Summary, names: list[str], collections: tuple[str, ...]
) -> tuple[list[str], FloatArray]:
    """Rows that have every query of these collections, and their scores, shape [n, k]."""
    found = {}
    for name in names:
        scores = [summary.scores.get((name, c, summary.spec.figure)) for c in collections]
        held = [one for one in scores if one is not None]
        if held and len(held) == len(scores):
            found[name] = np.concatenate([one.per_query for one in held])
    most = max(map(len, found.values()), default=0)
    kept = [name for name, values in found.items() if len(values) == most]
    return kept, np.column_stack([found[name] for name in kept]) if kept else np.empty((0, 0))


def _pairs(summary: Summary, names: list[str], collection: str) -> npt.NDArray[np.bool_] | None:
    """Which pairs the spec's all-pairs tests tell apart, shape [k, k]; None without those tests."""
    found = summary.pairs.get((collection, summary.spec.figure))
    if found is None or not set(names) <= set(found.rows):
        return None
    places = [found.rows.index(name) for name in names]
    return np.asarray(found.significant[np.ix_(places, places)])


def power_curves(summary: Summary) -> dict[str, tuple[list[float], list[float]]]:
    """Collection -> true differences and the power of one uncorrected test at each.

    With the noise and the queries of `analysis.power`; runs of other seeds are not
    drawn, which the test over queries does not see.
    """
    curves = {}
    for one in sensitivities(summary)[:MOST_PANELS]:
        n, sd = one.queries, one.assumption.sd
        if n < 2:
            continue
        x = np.linspace(0, 4.5 * sd / np.sqrt(n), 60)
        noise = power.Assumption(sd=sd, seed_sd=0.0)
        y = power.power_of(x, n, 1, noise, alpha=summary.spec.alpha)
        curves[f"{one.collection}: {counted(n, 'query')}, SD {sd:.3f}"] = (x.tolist(), y.tolist())
    return curves
