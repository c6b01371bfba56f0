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
from analysis.figures import inputs
from analysis.power import sensitivities
from analysis.render.figures import Sketch, curves, maps, save, systems
from analysis.render.figures.curves import Line
from analysis.render.figures.overview import Point, differences
from analysis.render.figures.style import COLUMN_WIDTH
from analysis.spec import Spec
from analysis.trials import Trials

POINTS = [
    Point("Teacher", 0.01, -0.02, 0.04, (), reference=True),
    Point("RankNet", 0.052, 0.031, 0.073, (0.048, 0.056), significant=True),
    Point("Control", -0.03, -0.05, -0.01, (-0.03,), significant=True),
]


@pytest.fixture(scope="module")
def figure():
    return differences({"pydocs": POINTS}, baseline="BM25", measure="nDCG@10")


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
    for y, point in enumerate(POINTS):
        mean = lines[f"mean:{point.name}"]
        assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([point.difference], [y])
    assert list(lines["seeds:RankNet"].get_xdata()) == [0.048, 0.056]
    assert "seeds:Control" not in lines  # one seed is the mean itself
    intervals = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    for point in POINTS:
        assert [point.low, point.high] in intervals
    assert [label.get_text() for label in ax.get_yticklabels()] == [p.name for p in POINTS]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is at the top
    low, high = ax.get_xlim()
    assert low < -0.05 and high > 0.073


def test_significance_and_reference_show_without_colour(figure):
    lines, _ = lines_of(figure)
    assert lines["mean:RankNet"].get_markerfacecolor() != "white"
    assert lines["mean:Teacher"].get_markerfacecolor() == "white"
    assert lines["mean:Teacher"].get_marker() == "s" and lines["mean:RankNet"].get_marker() == "o"


def test_correction_and_margin_are_said():
    other = differences(
        {"x": POINTS}, baseline="b", measure="m", correction="Hochberg", margin=0.02
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
        return systems.costs(shown, **words)

    cost = [systems.Cost("A", 0.1, 0.5, best=True), systems.Cost("B", 0.2, 0.4, best=False)]
    one = Sketch(partial(counted, cost, measure="m"))
    save({"one": one}, tmp_path)
    save({"one": one}, tmp_path)
    same = Sketch(partial(counted, list(cost), measure="m"))
    save({"one": same}, tmp_path)
    assert len(drawn) == 1
    for change in (
        Sketch(partial(counted, cost[:1], measure="m")),
        Sketch(partial(counted, cost, measure="other")),
        Sketch(partial(systems.costs, cost, measure="m")),
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
    queries = {"queries-trec-dl-2019", "queries-trec-dl-2020"}
    assert kinds["table"] == {"differences", "efficiency", "ranks", "power", *queries}
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


def test_no_two_texts_collide_and_none_is_cut_off(drawn):
    for name, figure in drawn.items():
        boxes = [(t.get_text(), Text.get_window_extent(t)) for t in shown_texts(figure)]
        assert len(boxes) > 5, name
        for text, box in boxes:
            inside = box.x0 > -1 and box.x1 < figure.bbox.width + 1
            assert inside and box.y0 > -1 and box.y1 < figure.bbox.height + 1, (name, text)
        for (one, a), (other, b) in combinations(boxes, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 0.5 or down < 0.5, (name, one, other)


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
    assert [ax.get_title(loc="left") for ax in panels] == ["loss = adr_mse", "loss = ranknet"]
    scores = {row.name: grid.scores[row.name, "docs", "nDCG@10"].mean for row in grid.spec.rows}
    values = panels[1].images[0].get_array()
    assert values[0, 0] == pytest.approx(np.mean([scores["g0"], scores["control"]]))
    texts = [text.get_text() for text in panels[0].texts]
    assert len(texts) == 16 and f"{scores['g1']:.3f}"[1:] == texts[0]


def test_a_cell_that_was_not_run_is_a_dash():
    table = np.array([[0.1, np.nan], [0.2, 0.3]])
    grid = maps.Grid("", ("a", "b"), ("c", "d"), table)
    figure = maps.heat_map([grid], rows="r", columns="c", measure="m")
    assert [t.get_text() for t in figure.axes[0].texts] == [".100", "–", ".200", ".300"]


def test_wins_and_losses(table):
    rows = inputs.wins(table)["trec-dl-2019"]
    wins = rows["RankNet"]
    values, counts = wins.differences, (wins.wins, wins.ties, wins.losses)
    scores = [table.scores[r, "trec-dl-2019", "nDCG@10"] for r in ("RankNet", "First stage (BM25)")]
    gained = scores[0].per_query - scores[1].per_query
    assert counts[0] == (gained > 1e-9).sum() and counts[1] == 5 and sum(counts) == 43
    figure = maps.wins({"RankNet": wins}, baseline="b", measure="m")
    bars = {p.get_gid(): p.get_data().values for p in figure.axes[0].patches if p.get_gid()}
    assert list(bars["wins"]) == [v for v in values if v > 0]
    assert list(bars.get("losses", [])) == [v for v in values if v < 0]
    assert " / ".join(map(str, counts)) in [t.get_text() for t in figure.axes[0].texts]


def test_costs_name_the_front(table):
    found, hardware = inputs.costs(table)
    assert hardware == "CPU" and len(found) == 5  # students only
    best = [one.name for one in found if one.best]
    assert "RankNet" in best
    seconds = {one.name: one.seconds for one in found}
    assert seconds["RankNet"] == pytest.approx(0.02 * 1.5)  # trials 1 and 2
    other = systems.costs(found, measure="m", hardware="CPU")
    assert other.axes[0].get_xscale() == "log" and "CPU" in other.axes[0].get_xlabel()


def test_ranks_take_the_specs_own_tests_where_it_has_them(table):
    drawn, distance, note = inputs.ranks(table)
    assert distance is None and "Nemenyi" in note  # 43 and 54 queries: no one distance
    names = list(drawn["trec-dl-2019"].ranks)
    assert "Oracle" not in names and len(names) == 7
    found = Pairs(names)
    own = replace(table, pairs={(c, "nDCG@10"): found for c in table.collections})
    drawn, distance, note = inputs.ranks(own)
    assert distance is None and "all-pairs tests, holm" in note
    assert [len(bar) for bar in drawn["trec-dl-2019"].bars] == [7]


class Pairs:
    """All pairs of some rows, none significant."""

    def __init__(self, rows):
        self.rows, self.significant = tuple(rows), np.zeros((len(rows), len(rows)), dtype=bool)


def test_power_rises_with_the_difference(table):
    found = inputs.power_curves(table)
    assert len(found) == 2
    for label, curve in found.items():
        x, y = curve.differences, curve.power
        assert x[0] == 0 and y[0] == pytest.approx(0.05) and y[-1] > 0.95, label
        assert all(a <= b + 1e-12 for a, b in zip(y, y[1:], strict=False))
    # test and noise are those of the table of power: the curve crosses .8 where the table says
    for one, (label, curve) in zip(sensitivities(table), found.items(), strict=True):
        assert label.startswith(
            f"{one.collection}: {one.design.queries} queries, {one.design.seeds} seed"
        )
        crossing = np.interp(0.8, curve.power, curve.differences)
        assert crossing == pytest.approx(one.detectable, rel=1e-3)
    assert any(one.design.assumption.seed_sd > 0 for one in sensitivities(table))
    figure = curves.power(found, measure="m", wanted=0.9)
    (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "wanted"]
    assert list(line.get_ydata()) == [0.9, 0.9]


def test_rows_of_fewer_queries_have_a_panel_and_an_axis_of_their_own(table):
    teacher = next(row.name for row in table.spec.rows if row.system == "teacher")
    scores = dict(table.scores)
    for key, own in table.scores.items():
        if key[:2] == (teacher, "trec-dl-2019"):
            scores[key] = replace(own, queries=own.queries[:16], values=own.values[:16])
    places = [(c, m) for c in table.collections for m in table.spec.measures]
    tests = run_tests(table.spec, places, scores, {row.name for row in table.spec.rows})
    part = replace(table, scores=scores, against=tests.against)
    panels = inputs.overview(part)
    title = "trec-dl-2019, 16 of 43 queries"
    assert list(panels) == ["trec-dl-2019", "trec-dl-2020", title]
    assert [point.name for point in panels[title]] == [teacher]
    assert teacher not in [point.name for point in panels["trec-dl-2019"]]
    figure = figures.sketches(part)["differences"].draw()
    first, second, last = figure.axes
    assert first.get_xlim() == second.get_xlim() != last.get_xlim()
    assert f"{teacher} (16 queries)" in inputs.wins(part)["trec-dl-2019"]
    names = [inputs._on_its_queries(part, row, ["trec-dl-2019"]) for row in part.spec.rows]
    assert f"{teacher} (16 of 43 queries)" in names and "RankNet" in names


def test_many_panels_are_split_into_pages(monkeypatch):
    monkeypatch.setattr(figures, "MOST_LINES", 6)
    pages = figures._pages({"a": POINTS, "b": POINTS, "c": POINTS * 3, "d": POINTS})
    assert [list(page) for page in pages] == [["a", "b"], ["c"], ["d"]]


def test_nothing_to_draw():
    for draw in (
        lambda: differences({}, baseline="x", measure="RR@10"),
        lambda: curves.lines({}, measure="m"),
        lambda: curves.interaction({}, measure="m"),
        lambda: curves.power({}, measure="m"),
        lambda: maps.heat_map([], rows="r", columns="c", measure="m"),
        lambda: maps.wins({}, baseline="b", measure="m"),
        lambda: systems.costs([], measure="m"),
        lambda: systems.critical_differences({}, note=""),
    ):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw()


def test_labels_of_ranks_are_not_cut_off():
    """Long lines, with ranks of two digits."""
    ranks = {"LambdaLoss (NDCG-Loss2++)": 10.03, "RankNet, MM teacher + BM25": 11.9, "KL": 11.0}
    drawn = systems.critical_differences({"c": systems.Ranking(ranks, ())}, note="note")
    for label in shown_texts(drawn):
        box = Text.get_window_extent(label)
        assert 0 <= box.x0 and box.x1 <= drawn.bbox.width, label.get_text()


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
    drawn = differences({"pydocs": points}, baseline="First stage (BM25)", measure="nDCG@10")
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


def test_long_names_of_levels_are_turned():
    levels = tuple(f"a_rather_long_level_{i}" for i in range(6))
    line = Line("", levels, (0.1,) * 6, (0.0,) * 6, (0.2,) * 6)
    (ax,) = curves.lines({"x": [line]}, measure="m").axes
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {35.0}
