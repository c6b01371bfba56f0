"""How every figure looks: sizes, colours, markers, legends, and labels that do not collide.

Colours are Okabe and Ito's (2008), told apart by people with any colour vision. Meaning never hangs
on colour alone: lines differ in marker and dashes too, so that a grey print says the same.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

COLUMN_WIDTH = 3.3  # inches: one column of a two-column page
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


def panels(height: float, rows: int = 1, columns: int = 1, **how: Any) -> tuple[Figure, Any]:
    """Return an empty figure of column width and its axes, an array of shape [rows, columns]."""
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(COLUMN_WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03)
        )
        FigureCanvasAgg(figure)  # where texts are measured
        axes = figure.subplots(rows, columns, squeeze=False, **how)
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
    """Break a long label between words."""
    return "\n".join(textwrap.wrap(label, width, break_long_words=False)) or label


def title(ax: Axes, text: str, width: int = 52) -> None:
    """Name a panel at its upper left."""
    ax.set_title(wrapped(text, width), loc="left", pad=3, fontsize=7, fontweight="bold")


def finish(figure: Figure, handles: Sequence[Line2D] = (), *, columns: int = 4) -> Figure:
    """Put the legend below, as wide as fits, and turn tick labels that would collide."""
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
        figure.draw_without_rendering()
        crowded = [ax for ax in figure.axes if _collide(ax)]
        for ax in crowded:
            for label in ax.get_xticklabels():
                label.set(rotation=35, ha="right", rotation_mode="anchor")
        if crowded:
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # what has been laid out stays so, in every file
    return figure


def _collide(ax: Axes) -> bool:
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    ends = sorted((box.x0, box.x1) for box in boxes)
    return any(right[0] < left[1] + 2 for left, right in pairwise(ends))
