import re
import struct

import pytest

from analysis.figures import COLUMN_WIDTH, Point, differences, save

POINTS = [
    Point("Teacher", 0.01, -0.02, 0.04, (), reference=True),
    Point("RankNet", 0.052, 0.031, 0.073, (0.048, 0.056), significant=True),
    Point("Control", -0.03, -0.05, -0.01, (-0.03,), significant=True),
]


@pytest.fixture(scope="module")
def figure():
    return differences({"pydocs": POINTS}, baseline="BM25", measure="nDCG@10")


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


def test_files(figure, tmp_path):
    pdf, png = save(figure, tmp_path / "figure")
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content and b"/Type3" not in content  # TrueType, embedded
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert float(box.group(1)) == pytest.approx(72 * COLUMN_WIDTH, abs=0.1)
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    assert width == round(300 * COLUMN_WIDTH) and height > 200
    again = save(figure, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [content, png.read_bytes()]


def test_one_panel_per_collection():
    figure = differences({"a": POINTS, "b": POINTS[:1]}, baseline="x", measure="RR@10")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b"]


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        differences({}, baseline="x", measure="RR@10")


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
