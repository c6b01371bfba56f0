"""Which figures a summary has, and what each is drawn from.

There is a figure only if the spec and the trials hold what it shows. What little arithmetic a
figure needs is in `data`, `grid` and `intervals`, what it is drawn from is gathered in `inputs`,
and what a reader must know of it is said in `captions`; `analysis.render.figures` draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from analysis.claims import CORRECTIONS
from analysis.figures import captions, inputs
from analysis.figures.grid import conditions
from analysis.labels import measured_by
from analysis.render.figures import Sketch, curves, maps, overview, queries, ranks, scatter
from analysis.summary import Summary

# What is beyond these goes to a further figure, so that one fits on a page.
MOST_LINES = 36  # rows of differences, and of heat maps
MOST_WINS = 16  # panels
MOST_PAIRS = 5  # interaction plots
MOST_CURVES = 5  # panels of power

Item = TypeVar("Item")
Drawn = Iterator[tuple[str, Sketch]]


def sketches(summary: Summary) -> dict[str, Sketch]:
    """Every figure that the spec's content allows, not drawn yet.

    Returns
    -------
    dict of str to Sketch
        ``differences`` (rows against the baseline), ``lines`` (over the spec's `x`),
        ``interaction`` (of each pair of its `factors`) and ``grid`` (all of them), ``queries``
        (wins and losses per query), ``labels`` (students over their labels' quality),
        ``efficiency`` (where trials were timed), ``ranks`` (critical differences) and ``power``;
        ``-COLLECTION`` and ``-2``, … behind a name where there are several.
    """
    kinds = (_differences, _grid, _queries, _labels, _efficiency, _ranks, _power)
    return {name: sketch for kind in kinds for name, sketch in kind(summary)}


def _differences(summary: Summary) -> Drawn:
    spec = summary.spec
    whole, parts = inputs.overview(summary)
    draw = partial(
        overview.differences,
        baseline=str(spec.baseline),
        measure=spec.figure,
        interval=captions.interval(summary),
        correction=CORRECTIONS[spec.correction],
        margin=spec.margin,
    )
    caption = captions.differences(summary)
    for i, panels in enumerate(_pages(whole | parts, MOST_LINES), 1):
        apart = [title for title in panels if title.removesuffix(CONTINUED) in parts]
        yield _name("differences", i), Sketch(partial(draw, panels, apart=apart), caption)


def _grid(summary: Summary) -> Drawn:
    """Lines over the spec's `x`, interactions and heat maps of its `factors`."""
    spec, measure = summary.spec, summary.spec.figure
    settings = conditions(summary, measure) if spec.x or spec.factors else None
    if lines := inputs.lines(summary, settings):
        yield "lines", Sketch(partial(curves.lines, lines, measure=measure), captions.LINES)
    plots = inputs.interactions(summary, settings)
    for place, pairs in plots.items():
        caption = captions.interaction(summary, settings, place)
        for i, part in enumerate(_parts(pairs, MOST_PAIRS), 1):
            draw = partial(curves.interaction, part, measure=measure)
            yield _name("interaction", i, place * (len(plots) > 1)), Sketch(draw, caption)
    (rows, columns), grids = inputs.heat_maps(summary, settings)
    for place, panels in grids.items():
        caption = captions.heat_map(summary, settings, place, panels)
        size = max(1, MOST_LINES // (len(panels[0].rows) + 2))
        for i, page in enumerate(_parts(panels, size), 1):
            named = {"rows": rows, "columns": columns, "measure": measure}
            draw = partial(maps.heat_map, page, limits=maps.bounds(panels), **named)
            yield _name("grid", i, place * (len(grids) > 1)), Sketch(draw, caption)


def _queries(summary: Summary) -> Drawn:
    spec = summary.spec
    wins_of = inputs.wins(summary)
    every = [rows.differences for by_row in wins_of.values() for rows in by_row.values()]
    limit = max((float(np.abs(values).max(initial=0.0)) for values in every), default=0.0)
    draw = partial(queries.wins, baseline=str(spec.baseline), measure=spec.figure, limit=limit)
    for place, by_row in wins_of.items():
        for i, part in enumerate(_parts(list(by_row.items()), MOST_WINS), 1):
            name = _name("queries", i, place * (len(wins_of) > 1))
            yield name, Sketch(partial(draw, dict(part)), captions.queries(summary, place))


def _efficiency(summary: Summary) -> Drawn:
    timed, hardware = inputs.costs(summary)
    if len(timed) > 1:
        draw = partial(
            scatter.scatter,
            timed,
            x="seconds per query" + (f" ({hardware})" if hardware else ""),
            measure=summary.spec.figure,
            logarithmic=True,
            front="filled, line: no other is as fast and as good",
        )
        yield "efficiency", Sketch(draw, captions.EFFICIENCY)


def _labels(summary: Summary) -> Drawn:
    plots = inputs.labels(summary)
    for place, points in plots.items():
        draw = partial(
            scatter.scatter,
            points,
            x=f"{measured_by(summary)} of the labels",
            measure=summary.spec.figure,
        )
        yield _name("labels", 1, place * (len(plots) > 1)), Sketch(draw, captions.labels(place))


def _ranks(summary: Summary) -> Drawn:
    if rankings := inputs.ranks(summary):
        note = captions.bars(summary, rankings)
        draw = partial(ranks.critical_differences, rankings, note=note)
        yield "ranks", Sketch(draw, captions.ranks(summary, note))


def _power(summary: Summary) -> Drawn:
    power = inputs.power_curves(summary)
    for i, part in enumerate(_parts(list(power.items()), MOST_CURVES), 1):
        draw = partial(curves.power, dict(part), measure=summary.spec.figure)
        yield _name("power", i), Sketch(draw, captions.power(summary))


def _name(kind: str, page: int, place: str = "") -> str:
    return "-".join([kind, *[place] * bool(place), *[str(page)] * (page > 1)])


CONTINUED = " (continued)"


def _parts(items: list[Item], size: int) -> list[list[Item]]:
    """Consecutive parts of at most `size` items each."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _pages(panels: Mapping[str, list[Item]], size: int) -> list[dict[str, list[Item]]]:
    """Panels in figures of at most `size` rows each; a panel is cut only if it alone has more."""
    pages: list[dict[str, list[Item]]] = []
    for title, points in panels.items():
        for i, part in enumerate(_parts(points, size)):
            used = sum(map(len, pages[-1].values())) if pages else 0
            if not pages or used + len(part) > size:
                pages.append({})
            pages[-1][title + CONTINUED * (i > 0)] = part
    return pages
