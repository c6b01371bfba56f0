"""Summary -> what each figure is drawn from; an empty answer means that there is no such figure."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from analysis.costs import single
from analysis.figures import data
from analysis.figures.grid import Conditions, by_level, crossed, groups
from analysis.power import sensitivities
from analysis.render.figures.curves import Line, PowerCurve
from analysis.render.figures.maps import Grid, Wins
from analysis.render.figures.overview import Point
from analysis.render.figures.style import number
from analysis.render.figures.systems import Cost, Ranking
from analysis.rows import REFERENCES, Row
from analysis.significance import FloatArray
from analysis.spec import SECONDS
from analysis.summary import Summary
from rdx.text import counted

# Beyond so many collections a panel each is no picture; then all queries are taken together.
MOST_PANELS = 4
MOST_LEVELS = 8  # of a factor whose levels are panels
EVERYTHING = "all collections"


def overview(summary: Summary) -> dict[str, list[Point]]:
    """Panel -> tested rows of the spec's `figure` measure; a panel per collection.

    Rows that are compared on some of its queries only do not stand beside the others: they have
    panels of their own, whose title (with the number of queries) is not a collection's name.
    """
    panels: dict[str, list[Point]] = {}
    parts: dict[str, list[Point]] = {}
    for collection in summary.tested:
        contrasts = {
            row: summary.contrasts[row.name, collection, summary.spec.figure]
            for row in summary.spec.rows
            if (row.name, collection, summary.spec.figure) in summary.contrasts
        }
        most = max((contrast.comparison.n for contrast in contrasts.values()), default=0)
        for row, contrast in contrasts.items():
            n = contrast.comparison.n
            whole = n == most
            title = collection if whole else f"{collection}, {n} of {most} queries"
            (panels if whole else parts).setdefault(title, []).append(
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
    return panels | parts


def lines(summary: Summary, settings: Conditions | None) -> dict[str, list[Line]]:
    """Axis -> lines: the spec's `x`, and any other key of the grid whose levels are all numbers."""
    if settings is None or summary.spec.x is None:
        return {}
    numeric = [
        key
        for key in settings.levels[0]
        if all(not np.isnan(number(levels[key])) for levels in settings.levels)
    ]
    axes = {}
    for key in dict.fromkeys((summary.spec.x, *numeric)):
        if group := data.lines(settings, key, groups(summary)):
            axes[key] = group
    return axes


def interactions(
    summary: Summary, settings: Conditions | None
) -> dict[tuple[str, str], list[Line]]:
    """(factor, factor) -> lines, for every pair of factors with two levels or more each."""
    factors = summary.spec.factors
    if settings is None or len(factors) < 2:
        return {}
    _, levels = crossed(settings, factors)
    usable = [factor for factor in factors if len(levels[factor]) > 1]
    return {(a, b): data.interaction(settings, a, b, factors) for a, b in combinations(usable, 2)}


def heat_maps(summary: Summary, settings: Conditions | None) -> tuple[str, str, list[Grid]]:
    """Name of the rows and columns, and one panel per level of the third factor."""
    factors = [
        factor for factor in summary.spec.factors
        if settings is not None and len({s[factor] for s in settings.levels if factor in s}) > 1
    ]  # fmt: skip
    if settings is None or len(factors) < 2:
        return "", "", []
    rows, columns, *more = factors
    held: list[dict[str, str]] = [{}]
    if more:
        values = sorted({s[more[0]] for s in settings.levels if more[0] in s}, key=by_level)
        held = [{more[0]: value} for value in values] if len(values) <= MOST_LEVELS else held
    panels = []
    for fixed in held:
        down, over, table = data.cell_means(settings, rows, columns, fixed)
        title = ", ".join(f"{key} = {value}" for key, value in fixed.items())
        panels.append(Grid(title, tuple(down), tuple(over), table))
    return rows, columns, panels


def wins(summary: Summary) -> dict[str, dict[str, Wins]]:
    """Collection -> tested row -> per-query differences to the baseline."""
    measure, baseline = summary.spec.figure, summary.spec.baseline
    together = len(summary.tested) > MOST_PANELS
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
        some = len(in_a) < max(len(a.queries), len(b.queries))
        label = f"{name} ({counted(len(in_a), 'query')})" if some and not together else name
        place.setdefault(label, []).append((a.per_query[in_a], b.per_query[in_b]))
    return {
        collection: {
            name: data.wins(*(np.concatenate(side) for side in zip(*sides, strict=True)))
            for name, sides in rows.items()
        }
        for collection, rows in pairs.items()
    }


def costs(summary: Summary) -> tuple[list[Cost], str]:
    """Rows whose trials were timed, the mean over the collections where they were; the hardware."""
    measure = summary.spec.figure
    timed: list[tuple[str, float, float]] = []
    machines: dict[str, None] = {}
    for row in summary.spec.rows:
        collections = [
            name
            for name in summary.tested
            if (row.name, name, SECONDS) in summary.costs
            and (row.name, name, measure) in summary.scores
        ]
        if not collections:
            continue
        seconds = np.mean([summary.costs[row.name, name, SECONDS].mean for name in collections])
        score = np.mean([summary.scores[row.name, name, measure].mean for name in collections])
        timed.append((_on_its_queries(summary, row, collections), float(seconds), float(score)))
        for signature in summary.signatures[row.name]:
            for name in collections:
                if timing := single(summary.trials.facts[signature], name):
                    machines[timing.hardware.device] = None
    front = data.pareto([seconds for _, seconds, _ in timed], [score for *_, score in timed])
    systems = [Cost(*row, best=bool(best)) for row, best in zip(timed, front, strict=True)]
    return systems, next(iter(machines)) if len(machines) == 1 else ""


def _on_its_queries(summary: Summary, row: Row, collections: list[str]) -> str:
    """A row's name, with the number of queries where others have more."""
    measure = summary.spec.figure
    for collection in collections:
        own = len(summary.scores[row.name, collection, measure].queries)
        every = [
            scores
            for (_, c, m), scores in summary.scores.items()
            if (c, m) == (collection, measure)
        ]
        if own < (most := max(len(scores.queries) for scores in every)):
            return f"{row.name} ({own} of {most} queries)"
    return row.name


def ranks(summary: Summary) -> tuple[dict[str, Ranking], float | None, str]:
    """Collection -> mean ranks and bars; the critical difference, if the bars come from it."""
    spec, measure = summary.spec, summary.spec.figure
    names = [row.name for row in spec.rows if row.test or row.name in spec.baselines]
    together = len(summary.tested) > MOST_PANELS
    places = {EVERYTHING: summary.tested} if together else {
        collection: (collection,) for collection in summary.tested
    }  # fmt: skip
    rankings: dict[str, Ranking] = {}
    distances: list[float] = []
    tested = False
    for title, collections in places.items():
        complete, table = _full(summary, names, collections)
        if len(complete) < 3:
            continue
        means = data.mean_ranks(table)
        distance = data.critical_difference(len(complete), len(table), spec.alpha)
        apart = None if together else _pairs(summary, complete, title)
        tested = apart is not None
        if apart is None:
            apart = np.abs(means[:, None] - means) > distance
            distances.append(distance)
        runs = data.bars(means, apart)
        rankings[title] = Ranking(
            dict(zip(complete, means.tolist(), strict=True)),
            tuple(tuple(complete[i] for i in run) for run in runs),
        )
    equal = len(set(distances)) == 1 and len(distances) == len(rankings)
    note = (
        f"bars: not told apart by the all-pairs tests, {spec.correction}, α = {spec.alpha:g}"
        if tested
        else "bars: not told apart by Nemenyi's test over queries (these models), α = "
        f"{spec.alpha:g}"
    )
    return rankings, distances[0] if equal else None, f"mean ranks over queries, {measure}; {note}"


def _full(
    summary: Summary, names: list[str], collections: tuple[str, ...]
) -> tuple[list[str], FloatArray]:
    """Rows that have every query of these collections, and their scores, shape [n, k]."""
    values = {}
    for name in names:
        scores = [summary.scores.get((name, c, summary.spec.figure)) for c in collections]
        per_query = [scored.per_query for scored in scores if scored is not None]
        if per_query and len(per_query) == len(scores):
            values[name] = np.concatenate(per_query)
    most = max(map(len, values.values()), default=0)
    complete = [name for name, scored in values.items() if len(scored) == most]
    columns = [values[name] for name in complete]
    return complete, np.column_stack(columns) if columns else np.empty((0, 0))


def _pairs(summary: Summary, names: list[str], collection: str) -> npt.NDArray[np.bool_] | None:
    """Which pairs the spec's all-pairs tests tell apart, shape [k, k]; None without those tests."""
    pairs = summary.pairs.get((collection, summary.spec.figure))
    if pairs is None or not set(names) <= set(pairs.rows):
        return None
    places = [pairs.rows.index(name) for name in names]
    return np.asarray(pairs.significant[np.ix_(places, places)])


def power_curves(summary: Summary) -> dict[str, PowerCurve]:
    """Collection -> true differences and the power of one uncorrected test at each.

    Of the same test and noise as the numbers of the power table: each curve crosses the power that
    is asked for where the table says.
    """
    curves = {}
    for planned in sensitivities(summary)[:MOST_PANELS]:
        design, known = planned.design, planned.design.assumption
        if design.queries < 2:
            continue
        x = np.linspace(0, 1.6 * planned.detectable, 60)
        y = replace(design, tests=1).power(x)
        label = (
            f"{planned.collection}: {counted(design.queries, 'query')}, "
            f"{counted(design.seeds, 'seed')}, SD {known.sd:.3f} over queries, "
            f"{known.seed_sd:.4f} over runs"
        )
        curves[label] = PowerCurve(tuple(x.tolist()), tuple(y.tolist()))
    return curves
