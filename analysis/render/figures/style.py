"""How every figure looks: sizes, colours, markers, legends, and labels that do not collide.

Colours are Okabe and Ito's (2008), told apart by people with any colour vision. Meaning never hangs
on colour alone: lines differ in marker and dashes too, so that a grey print says the same.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

COLUMN_WIDTH = 3.3  # inches: one column of a two-column page
TITLE = 46  # letters of a title as wide as a column
PIECE = r"[^\s/_=+-]*[\s/_=+-]+|[^\s/_=+-]+"  # of a label, up to where it may be broken
LETTER = 4.2  # points: the width of a letter of a tick's label, about
LINE = 0.118  # inches: a line of a label, with its share of the space between lines
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
GREY, LIGHT = "#595959", "#C9C9C9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, BLACK, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1)),
    (0, (4, 1, 1, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
)
# Fonts go into a PDF as TrueType; in an SVG letters are paths, which look alike on any machine.
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "rdx",
    "savefig.dpi": 300,
}


def panels(heights: Sequence[float], columns: int = 1, **how: Any) -> tuple[Figure, Any]:
    """Return an empty figure of column width and its axes, an array of shape [rows, columns].

    `heights` are those of the rows of axes in inches; `finish` gives the figure what they need.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(COLUMN_WIDTH, sum(heights) + len(heights) + 2),
            layout=ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03),
        )
        FigureCanvasAgg(figure)  # where texts are measured
        axes = figure.subplots(
            len(heights), columns, squeeze=False, height_ratios=list(heights), **how
        )
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
    return figure, axes


def line_style(i: int) -> dict[str, Any]:
    """Look of the i-th line: colour, marker and dashes all change."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i % len(DASHES)],
    }


def handle(label: str, **look: Any) -> Line2D:
    """Entry of a legend that stands for no line in particular."""
    return Line2D([], [], label=label, **{"linestyle": "none", "markersize": 4.2, **look})


def number(text: str) -> float:
    """Value of a level that is a number; NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def wrapped(label: str, width: int = 26) -> str:
    """Break a label into lines of at most `width` letters.

    Between words; a word that is longer, as names of collections and files are, behind a slash,
    underscore, equals sign, plus or hyphen, and where it has none anywhere. Lines that end already
    stay apart.
    """
    lines: list[str] = []
    for line in label.splitlines():
        words = [part for word in line.split() for part in _parts(word, width)]
        lines += textwrap.wrap(" ".join(words), width, break_on_hyphens=False)
    return "\n".join(lines) or label


def shortened(label: str, most: int = 30) -> str:
    """Leave out the middle of a label of more than `most` letters."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"


def _parts(word: str, width: int) -> list[str]:
    """A word in parts of at most `width` letters, each as long as fits."""
    if len(word) <= width:
        return [word]
    parts = [""]
    for piece in re.findall(PIECE, word):
        for start in range(0, len(piece), width):
            chunk = piece[start : start + width]
            if len(parts[-1]) + len(chunk) > width:
                parts.append("")
            parts[-1] += chunk
    return parts


def stacked(labels: Sequence[str], least: float) -> tuple[list[float], float]:
    """Middles of rows below each other, and how high they are together, both in inches.

    A row is as high as its label's lines, and at least `least`.
    """
    heights = [max(least, LINE * (label.count("\n") + 1) + 0.04) for label in labels]
    return [sum(heights[:i]) + heights[i] / 2 for i in range(len(heights))], sum(heights)


def rows(ax: Axes, labels: Sequence[str], middles: Sequence[float], height: float) -> None:
    """Name the rows of a panel at its left; the first is at the top."""
    ax.set_yticks(middles, labels)
    ax.set_ylim(height, 0)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def upright(ax: Axes, text: str, height: float) -> None:
    """Name the vertical axis of a panel that is `height` inches high."""
    ax.set_ylabel(wrapped(text, int(15 * height)))


def beside(ax: Axes, y: float, text: str) -> None:
    """Write at the right of a panel's row; such texts make a column of their own."""
    ax.annotate(
        text,
        xy=(1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=6.5,
        annotation_clip=False,
    )


def title(ax: Axes, text: str, width: int = TITLE) -> None:
    """Name a panel at its upper left."""
    ax.set_title(wrapped(text, width), loc="left", pad=3, fontsize=7, fontweight="bold")


def finish(
    figure: Figure,
    axes: Any,
    heights: Sequence[float],
    handles: Sequence[Artist] = (),
    *,
    columns: int = 4,
) -> Figure:
    """Lay out a figure of `panels`: the legend below, every axis as high as it should be.

    The legend is as wide as fits, tick labels that would collide are broken or turned, and titles
    and labels are moved to the left where they would be cut off.
    """
    engine = figure.get_layout_engine()
    assert engine is not None, "laid out once"
    with mpl.rc_context(STYLE):
        for number in range(min(columns, len(handles)), 0, -1):
            legend = figure.legend(
                handles=list(handles),
                loc="outside lower center",
                ncols=number,
                frameon=False,
                handletextpad=0.4,
                columnspacing=1.0,
                borderaxespad=0.2,
            )
            if number == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
                break
            legend.remove()
        if handles:
            tall = legend.get_window_extent().height / figure.dpi
            figure.set_figheight(figure.get_figheight() + tall)
        named = {ax: [label.get_text() for label in ax.get_xticklabels()]
                 for ax in figure.axes if _named(ax)}  # fmt: skip
        for ax, names in named.items():
            ax.set_xticklabels([""] * len(names))  # long ones would leave no room to an axis
        engine.execute(figure)
        for ax in figure.axes:
            _fit(ax, named.get(ax, []), ax.get_position().width * COLUMN_WIDTH)
        if named:
            engine.execute(figure)
        drawn = sum(ax.get_position().height for ax in axes[:, 0]) * figure.get_figheight()
        figure.set_figheight(figure.get_figheight() + sum(heights) - drawn)
        engine.execute(figure)
        figure.set_layout_engine("none")  # what has been laid out stays so, in every file
        for ax in figure.axes:
            _inside(ax)
    return figure


def _named(ax: Axes) -> bool:
    """Whether the ticks of the horizontal axis have labels of their own."""
    labels = isinstance(ax.xaxis.get_major_formatter(), FixedFormatter | FuncFormatter)
    return labels and isinstance(ax.xaxis.get_major_locator(), FixedLocator)


def _fit(ax: Axes, names: Sequence[str], inches: float) -> None:
    """Break the tick labels of the horizontal axis, or turn them upright, if they would collide."""
    if names:
        ax.set_xticklabels(names)
    if not _collide(ax):
        return
    if names:
        room = int(72 * inches / len(names) / LETTER)
        longest = max(len(piece.strip()) for name in names for piece in re.findall(PIECE, name))
        if longest <= room:
            ax.set_xticklabels([wrapped(name, room) for name in names])
            if not _collide(ax):
                return
        ax.set_xticklabels([shortened(name) for name in names])
    for label in ax.get_xticklabels():
        label.set(rotation=90, ha="center", va="top")


def _inside(ax: Axes) -> None:
    """Move the title and the label below to the left, as far as they stand beyond the figure."""
    right = ax.get_figure().bbox.x1  # type: ignore[union-attr]
    texts = [text for text in ax.get_children() if isinstance(text, Text)]
    for text in (*texts, ax.xaxis.label):
        own = text is ax.xaxis.label or text.get_text() == ax.get_title(loc="left")
        beyond = text.get_window_extent().x1 - right + 2
        if own and text.get_text() and beyond > 0:
            text.set_x(text.get_position()[0] - beyond / ax.bbox.width)


def _collide(ax: Axes) -> bool:
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    ends = sorted((box.x0, box.x1) for box in boxes)
    return any(right[0] < left[1] + 2 for left, right in pairwise(ends))
