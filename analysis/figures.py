"""Draw finished numbers. No arithmetic on results, no files read.

Colours are Okabe and Ito's (2008), told apart by people with any colour vision; meaning never
hangs on colour alone, so a grey print says the same. Fonts are embedded as TrueType.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

COLUMN_WIDTH = 3.4  # inches: one column of a two-column page
BLUE, ORANGE, GREY, LIGHT = "#0072B2", "#D55E00", "#595959", "#C9C9C9"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Point:
    """One row of the dot plot.

    Attributes
    ----------
    name : str
        Label at the left.
    difference, low, high : float
        Mean difference to the baseline and its interval.
    seeds : tuple of float
        Difference of each seed, drawn small; empty if there are none.
    significant : bool
        Filled marker if true, hollow if not.
    reference : bool
        Drawn as a grey square: a row that no trial trained.
    """

    name: str
    difference: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()
    significant: bool = False
    reference: bool = False


def differences(panels: Mapping[str, Sequence[Point]], *, baseline: str, measure: str) -> Figure:
    """Dot plot of differences to a baseline, one panel per collection, one line per row.

    Parameters
    ----------
    panels : mapping of str to sequence of Point
        Title -> rows, top to bottom.
    baseline, measure : str
        For the axis label.

    Returns
    -------
    Figure
        Not yet on disk; see `save`. Empty `panels` are a ValueError.
    """
    if not panels or not any(panels.values()):
        raise ValueError("nothing to draw")
    counts = [max(1, len(points)) for points in panels.values()]
    with mpl.rc_context(STYLE):
        height = sum(0.26 * count + 0.24 for count in counts) + 0.52
        layout = ConstrainedLayoutEngine(h_pad=0.02, w_pad=0.02)
        figure = Figure(figsize=(COLUMN_WIDTH, height), layout=layout)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=counts)[
            :, 0
        ]
        for ax, (title, points) in zip(axes, panels.items(), strict=True):
            _panel(ax, title, points)
        axes[-1].set_xlabel(f"{measure}, difference to {baseline}\n(mean over queries, 95 % CI)")
        figure.legend(
            handles=_legend(panels),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=6,
            handletextpad=0.2,
            columnspacing=1.0,
            borderaxespad=0.2,
        )
        figure.draw_without_rendering()
    return figure


def save(figure: Figure, stem: Path) -> tuple[Path, ...]:
    """Write ``STEM.pdf`` and ``STEM.png``; the same figure gives the same bytes."""
    paths = (stem.with_suffix(".pdf"), stem.with_suffix(".png"))
    with mpl.rc_context(STYLE):
        figure.savefig(paths[0], metadata={"CreationDate": None, "Creator": "rdx"})
        figure.savefig(paths[1], metadata={"Software": "rdx"})
    return paths


def _panel(ax: Any, title: str, points: Sequence[Point]) -> None:
    ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=1)
    for y, point in enumerate(points):
        colour = GREY if point.reference else BLUE
        ax.plot([point.low, point.high], [y, y], color=colour, linewidth=1.3, zorder=2)
        ax.plot(
            [point.difference],
            [y],
            marker="s" if point.reference else "o",
            markersize=4.6,
            markerfacecolor=colour if point.significant else "white",
            markeredgecolor=colour,
            markeredgewidth=1.0,
            linestyle="none",
            zorder=4,
            gid=f"mean:{point.name}",
        )
        if len(point.seeds) > 1:
            # Below the line, so that they neither hide the mean nor are hidden by it.
            ax.plot(
                list(point.seeds),
                [y + 0.26] * len(point.seeds),
                marker="|",
                markersize=4,
                markeredgewidth=0.9,
                color=ORANGE,
                linestyle="none",
                zorder=3,
                gid=f"seeds:{point.name}",
            )
        ax.annotate(
            f"{point.difference:+.3f}".replace("-", "−"),
            xy=(1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
            color=GREY,
            annotation_clip=False,
        )
    ax.set_yticks(range(len(points)), [point.name for point in points])
    ax.set_ylim(len(points) - 0.4, -0.6)
    ax.set_title(title, loc="left", pad=3, fontweight="bold")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=LIGHT, linewidth=0.4)
    ax.set_axisbelow(True)
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.margins(x=0.06)


def _legend(panels: Mapping[str, Sequence[Point]]) -> list[Any]:
    points = [point for panel in panels.values() for point in panel]
    handles = []

    def handle(label: str, **style: Any) -> None:
        handles.append(Line2D([], [], linestyle="none", label=label, **style))

    if any(point.significant for point in points):
        handle("significant (Holm)", marker="o", markersize=4.2, color=BLUE)
    if any(not point.significant for point in points):
        handle(
            "not significant",
            marker="o",
            markersize=4.2,
            markerfacecolor="white",
            markeredgecolor=BLUE,
        )
    if any(point.reference for point in points):
        handle("not trained", marker="s", markersize=4.2, color=GREY)
    if any(len(point.seeds) > 1 for point in points):
        handle("each seed", marker="|", markersize=5, markeredgewidth=0.9, color=ORANGE)
    return handles
