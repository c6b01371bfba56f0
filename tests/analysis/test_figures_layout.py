"""Figures of what is hard to draw: many rows, very long names, one query, ties, several panels."""

import matplotlib
import numpy as np
import pytest

from analysis.render.figures import curves, maps, overview, queries, ranks, scatter
from analysis.render.figures.style import COLUMN_WIDTH
from tests.analysis.test_figures import shown_texts, untidy

NAN = float("nan")
PATH = "msmarco-passage/trec-dl-2019/judged"
WORD = "cross_encoder_" + "x" * 50
SENTENCE = "LambdaLoss (NDCG-Loss2++), teacher of seven billion parameters + BM25, seeds 1 to 3"
MEASURE = "nDCG(judged_only=True)@10"
RNG = np.random.default_rng(1)


def names(n):
    return [f"{('RankNet', PATH, WORD, SENTENCE)[i % 4]} {i}" for i in range(n)]


def differences(n, places=1, half=0.03, spread=0.05, **how):
    def point(i, name):
        m = spread * RNG.normal()
        seeds = (m - 0.01, m + 0.01) if i % 2 else ()
        return overview.Point(name, m, m - half, m + half, seeds, bool(i % 3), not i % 5, i % 2 > 0)

    return overview.differences(
        {
            f"{PATH} {place}: 43 queries": [point(i, name) for i, name in enumerate(names(n))]
            for place in range(places)
        },
        baseline=SENTENCE,
        measure=MEASURE,
        interval="95 to 99.94 % intervals, as Benjamini-Hochberg tests",
        correction="Benjamini-Hochberg",
        margin=0.02,
        **how,
    )


def ranking(n, joined, distance, step=1.0):
    own = names(n)
    bars = tuple(tuple(own[i : i + joined]) for i in range(max(1, n - joined)))
    return ranks.Ranking({name: 1 + step * i for i, name in enumerate(own)}, bars, distance)


def diagram(*rankings):
    note = "bar: not told apart by Nemenyi's test over queries (these models), α = 0.05"
    panels = {f"{PATH} {i}: 43 queries": ranking for i, ranking in enumerate(rankings)}
    return ranks.critical_differences(panels, note=note)


def wins(*values):
    rows = {
        name: queries.Wins(np.sort(v)[::-1], sum(v > 0), sum(v == 0), sum(v < 0))
        for name, v in zip(names(len(values)), values, strict=True)
    }
    return queries.wins(rows, baseline=SENTENCE, measure=MEASURE)


def line(label, x, first=0.5):
    mean = (first, *RNG.normal(0.5, 0.05, len(x) - 1))
    return curves.Line(label, tuple(x), mean, *(tuple(np.add(mean, d)) for d in (-0.02, 0.02)))


def interaction(lines, levels, note):
    drawn = tuple(line(name, levels, NAN if i == 1 else 0.5) for i, name in enumerate(names(lines)))
    return curves.Interaction(PATH, WORD, drawn, note)


def heat_map(rows, columns, *titles):
    panels = []
    for text in titles:
        values = RNG.normal(0.5, 0.05, (rows, columns))
        values[0, 0] = NAN
        panels.append(maps.Grid(text, tuple(names(rows)), tuple(names(columns)), values))
    return maps.heat_map(panels, rows=PATH, columns=WORD, measure=MEASURE)


def power(n):
    x = np.linspace(0, 0.1, 50)
    group = [
        curves.PowerCurve(label, tuple(x), tuple(1 - np.exp(-1.609 * x / at)), at)
        for label, at in (("one test", 0.02), ("first Holm step", 0.03))
    ]
    title = f"{PATH}: 43 queries, 3 seeds, 128 tests\nSD 0.1 over queries, 0.0010 over runs"
    return curves.power({f"{i} {title}": group for i in range(n)}, measure=MEASURE)


def axis_of(levels, lines):
    return curves.lines({PATH: [line(name, levels) for name in names(lines)]}, measure=MEASURE)


HARD = {
    "differences of 2 rows": lambda: differences(2),
    "differences in 3 collections": lambda: differences(
        4, 3, apart=[f"{PATH} 2: 43 queries"]
    ),
    "differences on one query": lambda: differences(2, half=NAN),
    "differences of equals": lambda: differences(3, half=0.0, spread=0.0),
    "2 ranks": lambda: diagram(ranking(3, 2, 0.9)),
    "ranks in 3 collections": lambda: diagram(*[ranking(4, 2, None)] * 3),
    "equal ranks": lambda: diagram(ranking(4, 4, 2.0, step=0.0)),
    "wins on one query": lambda: wins(np.array([0.4])),
    "all ties": lambda: wins(np.zeros(10), np.zeros(1)),
    "wins of 3 rows": lambda: wins(np.zeros(43), RNG.normal(0, 0.3, 5000), np.full(43, 0.3)),
    "a heat map of paths": lambda: heat_map(3, 4, f"{PATH} = {SENTENCE}", "x = 1"),
    "a heat map of 12 columns": lambda: heat_map(2, 12, ""),
    "interactions": lambda: curves.interaction(
        [interaction(6, ("1", "2", "50"), f"means over 3 of 12 settings of {PATH}; not run: 1"),
         interaction(2, names(4), "")], measure=MEASURE),
    "power in 3 collections": lambda: power(3),
    "lines over words": lambda: axis_of(names(5), 6),
    "costs of 9 systems": lambda: scatter.scatter(
        [scatter.System(name, 0.01 * 2**i, 0.5 + 0.01 * i, front=i % 3 == 0)
         for i, name in enumerate(names(9))],
        x="seconds per query (NVIDIA H200)", measure=MEASURE, logarithmic=True,
        front=SENTENCE[:46]),
    "labels of 18 systems": lambda: scatter.scatter(
        [scatter.System(name, 0.5 + 0.01 * (i // 3), 0.5 + 0.005 * (i % 5))
         for i, name in enumerate(names(18))], x=f"{MEASURE} of the labels", measure=MEASURE),
}  # fmt: skip
MANY = {
    "differences of 40 rows": lambda: differences(40),
    "40 ranks": lambda: diagram(ranking(40, 12, 6.7)),
    "wins of 16 rows": lambda: wins(*RNG.normal(0, 0.2, (16, 43))),
    "power in 5 collections": lambda: power(5),
}


def check(figure):
    assert untidy(figure) == []
    assert figure.get_figwidth() == COLUMN_WIDTH
    assert min(text.get_fontsize() for text in shown_texts(figure)) >= 6
    for ax in figure.axes:
        if ax.axison and ax.get_visible() and ax.get_label() != "<colorbar>":
            width, height = ax.get_window_extent().size / figure.dpi
            assert width > 0.5 and height > 0.2, (width, height)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", HARD)
def test_nothing_is_cut_off_or_collides(name):
    check(HARD[name]())


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", MANY)
def test_nor_in_figures_of_many_rows(name):
    check(MANY[name]())


def test_the_colours_of_the_map_are_told_apart_in_grey():
    red, green, blue, _ = matplotlib.colormaps[maps.MAP](np.linspace(0, 1, 64)).T
    grey = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert (np.diff(grey) > 0).all()
