import re
import struct
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text

from analysis import figures
from analysis.contrasts import run_tests
from analysis.figures import data, inputs
from analysis.power import sensitivities
from analysis.power import table as power_table
from analysis.render.figures import Sketch, curves, maps, queries, ranks, save, scatter
from analysis.render.figures.curves import Line
from analysis.render.figures.overview import Point, differences
from analysis.render.figures.style import COLUMN_WIDTH, shortened, wrapped
from analysis.spec import Spec
from analysis.trials import Trials

POINTS = [
    Point("Teacher", 0.01, -0.02, 0.04, (), reference=True),
    Point("RankNet", 0.052, 0.031, 0.073, (0.048, 0.056), significant=True),
    Point("Control", -0.03, -0.05, -0.01, (-0.03,), significant=True),
]


@pytest.fixture(scope="module")
def figure():
    return differences({"pydocs": POINTS}, baseline="BM25", measure="nDCG@10", interval="95 %")


@pytest.fixture(scope="module")
def drawn(table, depth, grid):
    found = {}
    for name, summary in (("table", table), ("depth", depth), ("grid", grid)):
        sketches = figures.sketches(summary)
        found |= {f"{name} {key}": sketch.draw() for key, sketch in sketches.items()}
    return found


def lines_of(figure):
    (ax,) = figure.axes
    return {line.get_gid(): line for line in ax.lines if line.get_gid()}, ax


def test_what_is_drawn_is_what_was_given(figure):
    lines, ax = lines_of(figure)
    places = [float(lines[f"mean:{point.name}"].get_ydata()[0]) for point in POINTS]
    assert places == sorted(places) and list(ax.get_yticks()) == places
    for y, point in zip(places, POINTS, strict=True):
        assert list(lines[f"mean:{point.name}"].get_xdata()) == [point.difference]
        drawn = lines[f"interval:{point.name}"]
        assert (list(drawn.get_xdata()), list(drawn.get_ydata())) == ([point.low, point.high],
                                                                      [y, y])  # fmt: skip
    assert list(lines["seeds:RankNet"].get_xdata()) == [0.048, 0.056]
    assert "seeds:Control" not in lines  # one seed is the mean itself
    assert [label.get_text() for label in ax.get_yticklabels()] == [p.name for p in POINTS]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is at the top
    low, high = ax.get_xlim()
    assert low < -0.05 and high > 0.073


def look(line):
    return line.get_marker(), line.get_markerfacecolor(), line.get_markeredgecolor()


def test_the_legend_has_the_markers_as_plotted_and_they_differ_without_colour():
    flags = [(s, r, e) for s in (True, False) for r in (True, False) for e in (True, False)]
    points = [Point(f"{i}", 0.01, -0.1, 0.1, (), *flag) for i, flag in enumerate(flags)]
    drawn = differences({"c": points}, baseline="b", measure="m", interval="95 %")
    plotted = {look(line) for gid, line in lines_of(drawn)[0].items() if gid.startswith("mean:")}
    legend = [look(line) for line in drawn.legends[0].legend_handles]
    assert set(legend) == plotted and len(legend) == 8
    in_grey = {(marker, face == "white") for marker, face, _ in legend}
    assert len(in_grey) == 8
    some = differences({"c": points[:1]}, baseline="b", measure="m", interval="95 %")
    assert len(some.legends[0].legend_handles) == 1  # nothing is explained that is not there


def test_correction_and_margin_are_said():
    other = differences(
        {"x": POINTS}, baseline="b", measure="m", interval="", correction="Hochberg", margin=0.02
    )
    words = [text.get_text() for text in other.legends[0].get_texts()]
    assert "significant (Hochberg)" in words and "margin ±0.02" in words
    (band,) = [patch for patch in other.axes[0].patches if patch.get_gid() == "margin"]
    assert band.get_extents().width > 0


def test_files(figure, tmp_path):
    (tmp_path / "figure-old.png").write_text("of an earlier run")
    (tmp_path / "table.md").write_text("not a figure")
    sketch = Sketch(partial(lambda: figure))
    [(pdf, svg, png)] = save({"a b": sketch}, tmp_path).values()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(f"figure-a-b.{suffix}" for suffix in ("pdf", "png", "svg")),
        "table.md",
    ]
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content and b"/Type3" not in content  # TrueType, embedded
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert float(box.group(1)) == pytest.approx(72 * COLUMN_WIDTH, abs=0.1)
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    assert width == round(300 * COLUMN_WIDTH) and height > 200
    vector = svg.read_text(encoding="utf-8")
    assert "<text" not in vector and "font-family" not in vector  # letters are paths
    [again] = save({"a b": sketch}, tmp_path / "again").values()
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in (pdf, svg, png)]


def test_a_figure_is_drawn_again_only_if_it_changes(table, tmp_path):
    drawn = []

    def counted(shown, **words):
        drawn.append(words)
        return scatter.scatter(shown, **words)

    cost = [scatter.System("A", 0.1, 0.5, front=True), scatter.System("B", 0.2, 0.4)]
    one = Sketch(partial(counted, cost, x="s", measure="m"))
    save({"one": one}, tmp_path)
    save({"one": one}, tmp_path)
    same = Sketch(partial(counted, list(cost), x="s", measure="m"))
    save({"one": same}, tmp_path)
    assert len(drawn) == 1
    for change in (
        Sketch(partial(counted, cost[:1], x="s", measure="m")),
        Sketch(partial(counted, cost, x="s", measure="other")),
        Sketch(partial(scatter.scatter, cost, x="s", measure="m")),
    ):
        assert change.key != one.key
    save({"one": one}, tmp_path)
    (tmp_path / "figure-one.pdf").unlink()
    save({"one": one}, tmp_path)
    assert len(drawn) == 2
    save({"one": change}, tmp_path)
    save({"one": one}, tmp_path)
    assert len(drawn) == 3
    a, b = figures.sketches(table), figures.sketches(table)
    assert {n: s.key for n, s in a.items()} == {n: s.key for n, s in b.items()}
    assert len({s.key for s in a.values()}) == len(a)


def test_which_figures_a_spec_gives(drawn, table):
    kinds = {name: {key.split()[1] for key in drawn if key.startswith(name)} for name in
             ("table", "depth", "grid")}  # fmt: skip
    each = {"queries-trec-dl-2019", "queries-trec-dl-2020"}
    assert kinds["table"] == {"differences", "efficiency", "ranks", "power", *each}
    assert kinds["depth"] == {"lines", "efficiency", "ranks"}
    assert kinds["grid"] == {"interaction", "grid", "efficiency", "ranks"}
    bare = replace(table.spec, baselines=(), comparisons=())
    assert isinstance(bare, Spec)
    empty = Trials(table.trials.frame.iloc[:0], table.trials.cells, table.trials.cells, {}, {})
    nothing = replace(
        table, spec=bare, trials=empty, scores={}, against=(), collections=(), signatures={
            row: () for row in table.signatures})  # fmt: skip
    assert figures.sketches(nothing) == {}


def shown_texts(figure):
    """Every text that stands on paper; tick labels beyond the limits of their axis do not."""
    figure.draw_without_rendering()
    hidden = set()
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            low, high = sorted(limits)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not (ax.axison and ax.get_visible() and low <= tick.get_loc() <= high):
                    hidden |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def untidy(figure):
    """Texts that are cut off, and pairs of texts that collide."""
    boxes = [(t.get_text(), Text.get_window_extent(t)) for t in shown_texts(figure)]
    cut = [
        text
        for text, box in boxes
        if not (-1 < box.x0 and box.x1 < figure.bbox.width + 1)
        or not (-1 < box.y0 and box.y1 < figure.bbox.height + 1)
    ]
    return cut + [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) >= 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) >= 0.5
    ]


def test_no_two_texts_collide_and_none_is_cut_off(drawn):
    for name, figure in drawn.items():
        assert len(shown_texts(figure)) > 5 and untidy(figure) == [], name


def test_legends_hide_no_axes(drawn):
    for name, figure in drawn.items():
        for legend in figure.legends:
            box = legend.get_window_extent()
            for ax in figure.axes:
                assert ax.get_window_extent().y0 >= box.y1 - 1, name


def test_lines_differ_without_colour(drawn):
    for name in ("depth lines", "grid interaction"):
        for ax in drawn[name].axes:
            looks = [(line.get_marker(), line.get_linestyle()) for line in ax.lines]
            assert len(looks) > 1 and len(set(looks)) == len(looks)


def test_panels_of_the_depth_study(drawn, depth):
    first, second = drawn["depth lines"].axes
    assert [first.get_xlabel(), second.get_xlabel()] == ["depth.k", "depth.queries"]
    assert [t.get_text() for t in second.get_xticklabels()] == ["1k", "2k", "5k", "10k"]
    assert first.get_xscale() == "log"
    lines = {line.get_gid(): line for line in first.lines}
    assert set(lines) == {"bm25", "colbert"}
    means = [depth.scores["k20q10000", c, "nDCG@10"].mean for c in ("dl-19-bm25", "dl-20-bm25")]
    assert lines["bm25"].get_ydata()[1] == pytest.approx(np.mean(means))


def test_the_heat_map_shows_every_cell(drawn, grid):
    *panels, _ = drawn["grid grid"].axes
    assert [ax.get_title(loc="left") for ax in panels] == ["loss = ranknet", "loss = adr_mse"]
    scores = {row.name: grid.scores[row.name, "docs", "nDCG@10"].mean for row in grid.spec.rows}
    values = panels[0].images[0].get_array()
    assert values[0, 0] == pytest.approx(scores["g0"])  # not with the control's
    texts = [text.get_text() for text in panels[1].texts]
    assert len(texts) == 16 and f"{scores['g1']:.3f}"[1:] == texts[0]


def test_a_cell_that_was_not_run_is_hatched():
    table = np.array([[0.1, np.nan], [0.2, 0.3]])
    grid = maps.Grid("", ("a", "b"), ("c", "d"), table)
    figure = maps.heat_map([grid], rows="r", columns="c", measure="m")
    assert [t.get_text() for t in figure.axes[0].texts] == [".100", ".200", ".300"]
    (hatched,) = figure.axes[0].patches
    assert hatched.get_hatch() and hatched.get_xy() == (0.5, -0.5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["not run"]
    whole = maps.heat_map([replace(grid, values=table * 0)], rows="r", columns="c", measure="m")
    assert whole.legends  # NaN * 0
    full = replace(grid, values=np.full((2, 2), 0.5))
    assert not maps.heat_map([full], rows="r", columns="c", measure="m").legends


def test_wins_and_losses(table):
    rows = inputs.wins(table)["trec-dl-2019"]
    wins = rows["RankNet"]
    values, counts = wins.differences, (wins.wins, wins.ties, wins.losses)
    scores = [table.scores[r, "trec-dl-2019", "nDCG@10"] for r in ("RankNet", "First stage (BM25)")]
    gained = scores[0].per_query - scores[1].per_query
    assert counts[0] == (gained > 1e-9).sum() and counts[1] == 5 and sum(counts) == 43
    figure = queries.wins({"RankNet": wins}, baseline="b", measure="m")
    bars = {p.get_gid(): p.get_data().values for p in figure.axes[0].patches if p.get_gid()}
    assert list(bars["wins"]) == [v for v in values if v > 0]
    assert list(bars.get("losses", [])) == [v for v in values if v < 0]
    (text,) = [t.get_text() for t in figure.axes[0].texts]
    assert text.split("\n") == [" / ".join(map(str, counts)), "43 queries"]


def test_panels_of_wins_share_the_width_of_all_queries_and_heights(table):
    few, many = queries.Wins(np.array([0.2, -0.1]), 1, 0, 1), queries.Wins(np.zeros(50), 0, 50, 0)
    figure = queries.wins({"few": few, "many": many}, baseline="b", measure="m", limit=0.5)
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim() == (0, 100)
    assert first.get_ylim() == second.get_ylim() and first.get_ylim()[1] > 0.5
    edges = {patch.get_gid(): list(patch.get_data().edges) for patch in first.patches}
    assert edges == {"wins": [0, 50], "losses": [50, 100]}
    (ties,) = [line for line in second.lines if line.get_gid() == "ties"]
    assert list(ties.get_xdata()) == [0, 100]
    limits = {
        sketch.function.keywords["limit"]
        for name, sketch in figures.sketches(table).items()
        if name.startswith("queries")
    }
    every = [row.differences for rows in inputs.wins(table).values() for row in rows.values()]
    assert limits == {max(np.abs(values).max() for values in every)}  # of all collections


def test_costs_name_the_front(table):
    found, hardware = inputs.costs(table)
    assert hardware == "CPU" and len(found) == 5  # students only
    best = [one.name for one in found if one.front]
    assert "RankNet" in best
    seconds = {one.name: one.x for one in found}
    assert seconds["RankNet"] == pytest.approx(0.02 * 1.5)  # trials 1 and 2
    drawn = figures.sketches(table)["efficiency"].draw().axes[0]
    assert drawn.get_xscale() == "log" and "CPU" in drawn.get_xlabel()


def test_ranks_take_the_specs_own_tests_where_it_has_them(table):
    drawn = inputs.ranks(table)
    first, second = drawn["trec-dl-2019: 43 queries"], drawn["trec-dl-2020: 54 queries"]
    assert first.distance == pytest.approx(data.critical_difference(7, 43))
    assert second.distance == pytest.approx(data.critical_difference(7, 54))
    names = list(first.ranks)
    assert "Oracle" not in names and len(names) == 7
    found = Pairs(names)
    own = replace(table, pairs={(c, "nDCG@10"): found for c in table.collections})
    drawn = inputs.ranks(own)
    assert {ranking.distance for ranking in drawn.values()} == {None}
    assert [len(bar) for bar in drawn["trec-dl-2019: 43 queries"].bars] == [7]


def test_names_ranks_and_bars_stand_apart():
    ranking = ranks.Ranking({"a": 1.5, "b": 3.0, "c": 2.25}, (("a", "c"), ("c", "b")), 1.1)
    figure = ranks.critical_differences({"c": ranking}, note="note")
    ax, gutter = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["critical difference", "a", "c", "b"]
    assert [text.get_text() for text in ax.texts] == ["1.10", "1.50", "2.25", "3.00"]
    lines = {line.get_gid(): line for line in [*ax.lines, *gutter.lines]}
    points = [lines[f"rank:{name}"] for name in "acb"]
    assert [float(line.get_xdata()[0]) for line in points] == [1.5, 2.25, 3.0]
    assert list(lines["distance"].get_xdata()) == pytest.approx([1.5, 2.6])
    a, c, b = (float(line.get_ydata()[0]) for line in points)
    first, second = lines["bar:0"], lines["bar:1"]
    assert first.get_ydata()[0] < a < c < first.get_ydata()[1] < b
    assert a < second.get_ydata()[0] < c < b < second.get_ydata()[1]
    assert first.get_xdata()[0] != second.get_xdata()[0]  # both stand beside c


class Pairs:
    """All pairs of some rows, none significant."""

    def __init__(self, rows):
        self.rows, self.significant = tuple(rows), np.zeros((len(rows), len(rows)), dtype=bool)


def test_power_is_that_of_the_table(table):
    """Same variances, tests and levels: every curve has power .8 where the table says."""
    found = inputs.power_curves(table)
    shown = power_table(table)
    columns = [column.name for column in shown.columns]
    places = [columns.index(name) for name in ("Detectable", "First Holm step")]
    figure = curves.power(found, measure="m")
    every = zip(shown.rows, sensitivities(table), found.items(), figure.axes, strict=True)
    for row, planned, (title, group), ax in every:
        assert title.startswith(f"{planned.collection}: {planned.design.queries} queries")
        lines = {line.get_gid(): line for line in ax.lines}
        notes = {text.get_gid(): text.get_text() for text in ax.texts}
        for curve, place in zip(group, places, strict=True):
            assert curve.detectable == row[place].value
            x, y = curve.differences, curve.power
            assert x[0] == 0 and all(a <= b + 1e-12 for a, b in zip(y, y[1:], strict=False))
            assert np.interp(curve.detectable, x, y) == pytest.approx(0.8, abs=2e-3)
            mark = lines[f"detectable:{curve.label}"]
            assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([curve.detectable], [0.8])
            assert notes[f"number:{curve.label}"] == row[place].text
        one, holm = group
        assert one.power[0] == pytest.approx(0.05)
        assert holm.power[0] == pytest.approx(0.05 / planned.design.tests)
        design = planned.design
        assert [float(design.power(planned.detectable_holm)),
                float(replace(design, tests=1).power(planned.detectable))] == pytest.approx(
            [0.8, 0.8])  # fmt: skip
    assert any(planned.design.assumption.seed_sd > 0 for planned in sensitivities(table))


def test_rows_of_fewer_queries_have_a_panel_and_an_axis_of_their_own(table):
    teacher = next(row.name for row in table.spec.rows if row.system == "teacher")
    scores = dict(table.scores)
    for key, own in table.scores.items():
        if key[:2] == (teacher, "trec-dl-2019"):
            scores[key] = replace(own, queries=own.queries[:16], values=own.values[:16])
    places = [(c, m) for c in table.collections for m in table.spec.measures]
    tests = run_tests(table.spec, places, scores, {row.name for row in table.spec.rows})
    part = replace(table, scores=scores, against=tests.against)
    panels, apart = inputs.overview(part)
    title = "trec-dl-2019: 16 of 43 queries"
    assert list(panels) == ["trec-dl-2019: 43 queries", "trec-dl-2020: 54 queries"]
    assert list(apart) == [title]
    assert [point.name for point in apart[title]] == [teacher]
    assert teacher not in [point.name for point in panels["trec-dl-2019: 43 queries"]]
    figure = figures.sketches(part)["differences"].draw()
    first, second, last = figure.axes
    assert first.get_xlim() == second.get_xlim() != last.get_xlim()
    assert len(inputs.wins(part)["trec-dl-2019"][teacher].differences) == 16
    names = [inputs._on_its_queries(part, row, ["trec-dl-2019"]) for row in part.spec.rows]
    assert f"{teacher} (16 of 43 queries)" in names and "RankNet" in names


def test_many_panels_are_split_into_pages():
    panels = {"a": [1] * 3, "b": [2] * 3, "c": [3] * 7, "d": [4]}
    pages = figures._pages(panels, 6)
    assert [list(page) for page in pages] == [["a", "b"], ["c"], ["c (continued)", "d"]]
    assert [sum(map(len, page.values())) for page in pages] == [6, 6, 2]


def test_nothing_to_draw():
    for draw in (
        lambda: differences({}, baseline="x", measure="RR@10", interval=""),
        lambda: curves.lines({}, measure="m"),
        lambda: curves.interaction([], measure="m"),
        lambda: curves.power({}, measure="m"),
        lambda: maps.heat_map([], rows="r", columns="c", measure="m"),
        lambda: queries.wins({}, baseline="b", measure="m"),
        lambda: scatter.scatter([], x="s", measure="m"),
        lambda: ranks.critical_differences({}, note=""),
    ):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw()


def test_words_stand_at_equal_steps_and_numbers_to_scale():
    words = Line("", ("a", "b", "10"), (0.1, 0.2, 0.3), (0, 0, 0), (1, 1, 1))
    numbers = replace(words, x=("1", "2", "4"))
    one, two = (curves.lines({"x": [line]}, measure="m").axes[0] for line in (words, numbers))
    assert list(one.get_xticks()) == [0, 1, 2] and list(two.get_xticks()) == [1, 2, 4]
    assert two.get_xscale() == "linear" and not one.figure.legends


@pytest.mark.parametrize("high", [0.0301, 0.086, 0.12, 0.4])
def test_tick_labels_do_not_run_into_each_other(high):
    name = "RankNet, shuffled teacher + BM25"  # long names leave little room
    points = [Point(name, high / 3, -0.024, high, ())]
    against = {"baseline": "First stage (BM25)", "measure": "nDCG@10", "interval": "95 %"}
    drawn = differences({"pydocs": points}, **against)
    (ax,) = drawn.axes
    low, top = ax.get_xlim()
    shown = [
        label
        for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
        if low <= tick <= top
    ]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) >= 2
    assert all(one.x1 < other.x0 for one, other in zip(boxes, boxes[1:], strict=False))


def test_long_names_of_levels_are_broken_or_turned():
    def labels(*levels):
        n = len(levels)
        line = Line("", levels, (0.1,) * n, (0.0,) * n, (0.2,) * n)
        return curves.lines({"x": [line]}, measure="m").axes[0].get_xticklabels()

    turned = labels(*(f"aratherlonglevel{i}" for i in range(6)))
    assert {label.get_rotation() for label in turned} == {90.0}
    broken = labels("bm25 + random", "colbert + random", "union of all")
    assert {label.get_rotation() for label in broken} == {0.0}
    assert [label.get_text() for label in broken][0] in ("bm25 + random", "bm25 +\nrandom")


def test_labels_are_broken_at_words_and_signs():
    assert wrapped("RankNet, shuffled teacher", 12) == "RankNet,\nshuffled\nteacher"
    assert wrapped("msmarco-passage/trec-dl-2019", 16) == "msmarco-passage/\ntrec-dl-2019"
    assert wrapped("x" * 25, 10) == f"{'x' * 10}\n{'x' * 10}\n{'x' * 5}"
    assert wrapped("one\ntwo", 10) == "one\ntwo" and wrapped("", 10) == ""
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 9) == "abcd…hijk"
