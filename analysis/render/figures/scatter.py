"""Effectiveness against what it costs, or what it was learned from: systems as points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.render.figures.style import (
    BLUE,
    GREY,
    LIGHT,
    STYLE,
    finish,
    handle,
    panels,
    upright,
    wrapped,
)

# Where a number may stand beside its marker, in points, near places first: the first free one is
# taken.
OFFSETS = tuple(
    (radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle)))
    for radius in (6.5, 9.0, 12.0, 16.0, 20.0, 25.0, 31.0)
    for angle in (0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338)
)


@dataclass(frozen=True)
class System:
    """One system.

    Attributes
    ----------
    name : str
        Label in the key.
    x : float
        Where it stands; more than 0 on a logarithmic axis.
    score : float
        Mean in units of the measure.
    front : bool
        Filled, and joined by the line: on the Pareto front of cost and score.
    """

    name: str
    x: float
    score: float
    front: bool = False


def scatter(
    systems: Sequence[System], *, x: str, measure: str, logarithmic: bool = False, front: str = ""
) -> Figure:
    """Effectiveness against a number, with the Pareto front if there is one.

    Systems are numbered, since their names would not fit beside their markers.

    Parameters
    ----------
    systems : sequence of System
        In the order of their numbers.
    x, measure : str
        For the axis labels.
    logarithmic : bool
        How `x` is drawn.
    front : str
        What the filled markers and their line mean, for the key; "" if there are none.
    """
    if not systems:
        raise ValueError("nothing to draw")
    heights = [1.5]
    figure, axes = panels(heights)
    ax = axes[0, 0]
    if best := sorted((s.x, s.score) for s in systems if s.front):
        ax.step(*zip(*best, strict=True), where="post", color=GREY, linewidth=0.9, gid="front")
    for system in systems:
        ax.plot(
            [system.x],
            [system.score],
            marker="o",
            markersize=5,
            linestyle="none",
            markerfacecolor=BLUE if system.front else "white",
            markeredgecolor=BLUE if system.front else GREY,
            zorder=3,
            gid=system.name,
        )
    ax.set_xlabel(x)
    upright(ax, measure, *heights)
    ax.margins(x=0.12, y=0.14)
    ax.grid(color=LIGHT, linewidth=0.4)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    if logarithmic:
        _logarithmic(ax)
    handles = [
        handle(f"{i}  {wrapped(system.name, 44)}", marker="o", markersize=4)
        for i, system in enumerate(systems, 1)
    ]
    for mark, system in zip(handles, systems, strict=True):
        mark.set(markerfacecolor=BLUE if system.front else "white")
        mark.set(markeredgecolor=BLUE if system.front else GREY)
    if front:
        handles.append(handle(front, marker=""))
    finish(figure, axes, heights, handles, columns=2)
    _numbers(figure, ax, systems)
    return figure


def _logarithmic(ax: Axes) -> None:
    """Scale x by its logarithm, with a few round numbers below it."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    few = MaxNLocator(4, steps=[1, 2, 5, 10])  # less than a power of ten has no ticks of its own
    decades = LogLocator(subs=(1.0,) if high / low > 50 else (1.0, 2.0, 5.0))
    ax.xaxis.set_major_locator(few if high / low < 8 else decades)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _numbers(figure: Figure, ax: Axes, systems: Sequence[System]) -> None:
    """Write each system's number where neither a marker nor another number is."""
    occupied = [line.get_window_extent() for line in ax.lines if line.get_gid() != "front"]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # Agg's, of `panels`
    with mpl.rc_context(STYLE):
        for i, system in enumerate(systems, 1):
            note = ax.annotate(
                str(i),
                (system.x, system.score),
                xytext=OFFSETS[0],
                textcoords="offset points",
                fontsize=6.5,
                va="center",
                ha="center",
                arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": GREY, "shrinkB": 2},
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
                zorder=2.5,  # above the front, below the markers
                gid=f"number:{system.name}",
            )
            for offset in OFFSETS:
                note.xyann = offset
                note.update_positions(renderer)
                box = Text.get_window_extent(note)  # without its leader
                inside = ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1
                if inside and not any(box.overlaps(other) for other in occupied):
                    break
            occupied.append(box)
