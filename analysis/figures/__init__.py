"""Which figures a summary has, and what each is drawn from.

There is a figure only if the spec and the trials hold what it shows. What little arithmetic a
figure needs is in `data` and `grid`, what it is drawn from is gathered in `inputs`;
`analysis.render.figures` draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeVar

from matplotlib.figure import Figure

from analysis.claims import CORRECTIONS
from analysis.figures import inputs
from analysis.figures.grid import conditions
from analysis.render.figures import Sketch, curves, maps, overview, systems
from analysis.render.figures.overview import Point
from analysis.summary import Summary

# Panels beyond these go to a further figure, so that one fits on a page.
MOST_LINES = 36
MOST_WINS = 16

CAPTIONS = {
    "differences": "Difference of each row to the baseline; 95 % intervals, not corrected.",
    "lines": "Scores over the levels of the grid; 95 % intervals of these models over queries, "
    "without what queries share.",
    "interaction": "Interactions: lines that are not parallel. Means over all else that was "
    "crossed; 95 % intervals of these models over queries, without what queries share.",
    "grid": "Mean score of every cell of the grid.",
    "queries": "Difference to the baseline of every query, sorted; wins / ties / losses.",
    "efficiency": "Effectiveness against time per query.",
    "ranks": "Mean ranks over queries; a bar joins systems that are not told apart.",
    "power": "Probability that one uncorrected test finds a true difference.",
}

Item = TypeVar("Item")


def sketches(summary: Summary) -> dict[str, Sketch]:
    """Every figure that the spec's content allows, not drawn yet.

    Returns
    -------
    dict of str to Sketch
        ``differences`` (rows against the baseline), ``lines`` (over the spec's `x`),
        ``interaction`` and ``grid`` (of its `factors`), ``queries`` (wins and losses per query),
        ``efficiency`` (where trials were timed), ``ranks`` (critical differences) and ``power``;
        ``-2``, … or ``-COLLECTION`` behind a name where there are several.
    """
    spec = summary.spec
    baseline, measure = str(spec.baseline), spec.figure
    settings = conditions(summary, measure) if spec.x or spec.factors else None
    sketched: dict[str, Sketch] = {}

    def add(kind: str, function: partial[Figure], place: str = "") -> None:
        name = f"{kind}-{place}" if place else kind
        sketched[name] = Sketch(function, f"{CAPTIONS[kind]} {place}".rstrip())

    for i, panels in enumerate(_pages(inputs.overview(summary)), 1):
        correction = CORRECTIONS[spec.correction]
        against = {"baseline": baseline, "measure": measure, "correction": correction}
        apart = [title for title in panels if title not in summary.tested]
        figure = partial(overview.differences, panels, margin=spec.margin, apart=apart, **against)
        add("differences", figure, str(i) if i > 1 else "")
    if lines := inputs.lines(summary, settings):
        add("lines", partial(curves.lines, lines, measure=measure))
    if pairs := inputs.interactions(summary, settings):
        add("interaction", partial(curves.interaction, pairs, measure=measure))
    rows, columns, grids = inputs.heat_maps(summary, settings)
    if grids:
        add("grid", partial(maps.heat_map, grids, rows=rows, columns=columns, measure=measure))
    wins = inputs.wins(summary)
    for collection, by_row in wins.items():
        for i, part in enumerate(_parts(by_row, MOST_WINS), 1):
            place = [collection] * (len(wins) > 1) + [str(i)] * (i > 1)
            figure = partial(maps.wins, part, baseline=baseline, measure=measure)
            add("queries", figure, "-".join(place))
    costs, hardware = inputs.costs(summary)
    if len(costs) > 1:
        add("efficiency", partial(systems.costs, costs, measure=measure, hardware=hardware))
    ranks, distance, note = inputs.ranks(summary)
    if ranks:
        add("ranks", partial(systems.critical_differences, ranks, note=note, distance=distance))
    if power := inputs.power_curves(summary):
        add("power", partial(curves.power, power, measure=measure))
    return sketched


def _parts(entries: Mapping[str, Item], size: int) -> list[dict[str, Item]]:
    """Consecutive parts of a mapping, of at most `size` entries each."""
    items = list(entries.items())
    return [dict(items[start : start + size]) for start in range(0, len(items), size)]


def _pages(panels: Mapping[str, list[Point]]) -> list[dict[str, list[Point]]]:
    """Panels in figures of at most `MOST_LINES` rows each, a panel never cut."""
    pages: list[dict[str, list[Point]]] = []
    for title, points in panels.items():
        used = sum(map(len, pages[-1].values())) if pages else 0
        if not pages or used + len(points) > MOST_LINES:
            pages.append({})
        pages[-1][title] = points
    return pages
