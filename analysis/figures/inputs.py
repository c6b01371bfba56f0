"""Summary -> what each figure is drawn from; an empty answer means that there is no such figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from analysis.contrasts import Contrast
from analysis.costs import single
from analysis.figures import data
from analysis.figures.grid import Conditions, factorial, groups, in_order, varying
from analysis.figures.intervals import differences_of, matching
from analysis.labels import labels_of
from analysis.power import sensitivities
from analysis.render.figures.curves import Interaction, Line, PowerCurve
from analysis.render.figures.maps import Grid
from analysis.render.figures.overview import Point
from analysis.render.figures.queries import Wins
from analysis.render.figures.ranks import Ranking
from analysis.render.figures.scatter import System
from analysis.render.figures.style import number
from analysis.rows import REFERENCES, Row
from analysis.significance import FloatArray
from analysis.spec import SECONDS
from analysis.summary import Summary
from rdx.text import counted

# Beyond so many collections a panel each is no picture; then all queries are taken together.
MOST_PANELS = 4
MOST_COLUMNS = 8  # of a heat map, if it can be higher instead of wider
EVERYTHING = "all collections"


def places(summary: Summary) -> dict[str, tuple[str, ...]]:
    """Title -> the collections of a panel or figure: one each, or all together if they are many."""
    if len(summary.tested) > MOST_PANELS:
        return {EVERYTHING: summary.tested}
    return {collection: (collection,) for collection in summary.tested}


def overview(summary: Summary) -> tuple[dict[str, list[Point]], dict[str, list[Point]]]:
    """Panel -> tested rows of the spec's `figure` measure; a panel per collection.

    A title has the number of queries. Rows that are compared on some of a collection's queries only
    do not stand beside the others: they have panels of their own, the second of both mappings.
    """
    panels: dict[str, list[Point]] = {}
    parts: dict[str, list[Point]] = {}
    for collection in summary.tested:
        contrasts = contrasts_in(summary, collection)
        most = max((contrast.comparison.n for contrast in contrasts.values()), default=0)
        ends = matching(summary, list(contrasts.values()))
        for (row, contrast), (low, high) in zip(contrasts.items(), ends, strict=True):
            n = contrast.comparison.n
            size = counted(n, "query") if n == most else f"{n} of {counted(most, 'query')}"
            (panels if n == most else parts).setdefault(f"{collection}: {size}", []).append(
                Point(
                    name=row.name,
                    difference=contrast.comparison.difference,
                    low=low,
                    high=high,
                    seeds=contrast.seed_differences,
                    significant=contrast.significant,
                    reference=row.system in REFERENCES or bool(row.imported),
                    equivalent=contrast.equivalent,
                )
            )
    return panels, parts


def contrasts_in(summary: Summary, collection: str) -> dict[Row, Contrast]:
    """Row -> its contrast with the first baseline, of the spec's `figure` measure."""
    return {
        row: summary.contrasts[row.name, collection, summary.spec.figure]
        for row in summary.spec.rows
        if (row.name, collection, summary.spec.figure) in summary.contrasts
    }


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


def interactions(summary: Summary, settings: Conditions | None) -> dict[str, list[Interaction]]:
    """Place -> a plot for every pair of factors with two levels or more each."""
    if settings is None:
        return {}
    factors = varying(settings, summary.spec.factors)
    plots = {
        place: [
            plot
            for a, b in combinations(factors, 2)
            if (plot := data.interaction(part, a, b, factors)) is not None
        ]
        for place, part in _by_place(summary, settings).items()
    }
    return {place: drawn for place, drawn in plots.items() if drawn}


def heat_maps(
    summary: Summary, settings: Conditions | None
) -> tuple[tuple[str, str], dict[str, list[Grid]]]:
    """Names of rows and columns; place -> a panel for every setting of the factors beyond two."""
    factors = varying(settings, summary.spec.factors) if settings is not None else []
    if settings is None or len(factors) < 2:
        return ("", ""), {}
    grid = factorial(settings, factors)
    levels = {f: in_order(s[f] for s in grid.levels) for f in factors}
    rows, columns, *more = factors
    if len(levels[columns]) > max(MOST_COLUMNS, len(levels[rows])):
        rows, columns = columns, rows
    run = {tuple(setting[f] for f in more) for setting in grid.levels}
    held = [point for point in product(*(levels[f] for f in more)) if point in run]
    maps: dict[str, list[Grid]] = {}
    for place, part in _by_place(summary, grid).items():
        for point in held:
            fixed = dict(zip(more, point, strict=True))
            means = data.cell_means(part, levels[rows], levels[columns], fixed, (rows, columns))
            title = ", ".join(f"{key} = {value}" for key, value in fixed.items())
            maps.setdefault(place, []).append(
                Grid(title, tuple(levels[rows]), tuple(levels[columns]), means)
            )
    return (rows, columns), maps


def _by_place(summary: Summary, settings: Conditions) -> dict[str, Conditions]:
    """The queries of each place that has any."""
    parts = {title: settings.on(names) for title, names in places(summary).items()}
    return {title: part for title, part in parts.items() if part.collections}


def wins(summary: Summary) -> dict[str, dict[str, Wins]]:
    """Place -> tested row -> per-query differences to the baseline."""
    wins_of: dict[str, dict[str, Wins]] = {}
    for place, collections in places(summary).items():
        rows: dict[str, list[FloatArray]] = {}
        for collection in collections:
            for row, contrast in contrasts_in(summary, collection).items():
                rows.setdefault(row.name, []).append(differences_of(summary, contrast))
        if rows:
            wins_of[place] = {
                name: data.wins(np.concatenate(parts)) for name, parts in rows.items()
            }
    return wins_of


def costs(summary: Summary) -> tuple[list[System], str]:
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
    systems = [System(*row, bool(best)) for row, best in zip(timed, front, strict=True)]
    return systems, next(iter(machines)) if len(machines) == 1 else ""


def labels(summary: Summary) -> dict[str, list[System]]:
    """Collection -> students of audited labels: the labels' quality, and their own."""
    qualities = labels_of(summary)
    points = {
        place: [
            System(row, quality, scores.mean)
            for row, quality in qualities.items()
            if (scores := summary.scores.get((row, place, summary.spec.figure)))
        ]
        for place in summary.tested
    }
    return {place: drawn for place, drawn in points.items() if len(drawn) > 2}


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


def ranks(summary: Summary) -> dict[str, Ranking]:
    """Place with its queries -> mean ranks; bars of the spec's all-pairs tests, or of Nemenyi's."""
    spec = summary.spec
    names = [row.name for row in spec.rows if row.test or row.name in spec.baselines]
    rankings: dict[str, Ranking] = {}
    for place, collections in places(summary).items():
        complete, table = _full(summary, names, collections)
        if len(complete) < 3:
            continue
        means = data.mean_ranks(table)
        distance: float | None = None
        apart = _pairs(summary, complete, place)
        if apart is None:
            distance = data.critical_difference(len(complete), len(table), spec.alpha)
            apart = np.abs(means[:, None] - means) > distance
        rankings[f"{place}: {counted(len(table), 'query')}"] = Ranking(
            dict(zip(complete, means.tolist(), strict=True)),
            tuple(tuple(complete[i] for i in run) for run in data.bars(means, apart)),
            distance,
        )
    return rankings


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


def power_curves(summary: Summary) -> dict[str, list[PowerCurve]]:
    """Title -> power at true differences, of one test and of the first Holm step.

    Of the same designs, variances and tests as the numbers of the power table.
    """
    curves: dict[str, list[PowerCurve]] = {}
    every = sensitivities(summary)
    x = np.linspace(0, 1.5 * max((p.detectable_holm for p in every), default=0.0), 100)
    for planned in every:
        design, known = planned.design, planned.design.assumption
        if design.queries < 2:
            continue
        steps: Mapping[str, tuple[int, float]] = {
            "one test": (1, planned.detectable),
            "first Holm step": (design.tests, planned.detectable_holm),
        }
        title = (
            f"{planned.collection}: {counted(design.queries, 'query')}, "
            f"{counted(design.seeds, 'seed')}, {counted(design.tests, 'test')}\n"
            f"SD {known.sd:.3f} over queries, {known.seed_sd:.4f} over runs"
        )
        curves[title] = [
            PowerCurve(
                label,
                tuple(x.tolist()),
                tuple(replace(design, tests=tests).power(x).tolist()),
                detectable,
            )
            for label, (tests, detectable) in steps.items()
            if tests > 1 or label == "one test"
        ]
    return curves
