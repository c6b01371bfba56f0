"""Wins and losses: what every query makes of a difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.render.figures.style import (
    BLUE,
    GREY,
    STYLE,
    VERMILION,
    finish,
    handle,
    panels,
    title,
    wrapped,
)
from analysis.significance import FloatArray
from rdx.text import counted

HATCH = "////"  # of losses, which are below the line as well
ROOM = 1.5  # of the axis above the largest difference: the counts stand there


@dataclass(frozen=True)
class Wins:
    """Per-query differences to the baseline, largest first, and how many are of each kind."""

    differences: FloatArray
    wins: int
    ties: int
    losses: int


def wins(
    wins_of: Mapping[str, Wins], *, baseline: str, measure: str, limit: float | None = None
) -> Figure:
    """Sorted per-query differences to the baseline, one small panel per row.

    Every panel is as wide as all of its queries, however many there are, and all have the same
    heights; a panel says how many queries it has.

    Parameters
    ----------
    wins_of : mapping of str to Wins
        Row -> differences.
    baseline, measure : str
        For the axis label.
    limit : float or None
        Largest difference that the axis shows, to both sides; None = that of these rows.
    """
    if not wins_of:
        raise ValueError("nothing to draw")
    columns = min(2, len(wins_of))
    rows = -(-len(wins_of) // columns)
    width = 19 if columns == 2 else 44
    heights = [0.8] * rows
    figure, axes = panels(heights, columns, sharex=True, sharey=True)
    largest = max(float(np.abs(row.differences).max(initial=0.0)) for row in wins_of.values())
    top = (largest if limit is None else limit) or 1.0
    for ax, (name, row) in zip(axes.flat, wins_of.items(), strict=False):
        _panel(ax, row)
        title(ax, name, width)
        ax.set_ylim(-1.1 * top, ROOM * top)
        ax.yaxis.set_major_locator(MaxNLocator(3))
    for ax in list(axes.flat)[len(wins_of) :]:
        ax.set_visible(False)
    for ax in axes.flat[len(wins_of) - columns : len(wins_of)]:
        ax.tick_params(bottom=True, labelbottom=True)
        ax.set_xlabel("queries (%)")
    with mpl.rc_context(STYLE):
        figure.supylabel(
            wrapped(f"{measure} minus {baseline}, per query", int(22 * sum(heights) + 4)),
            fontsize=7,
        )
    handles = [
        Patch(facecolor=BLUE, label="win"),
        handle("tie", marker="_", color=GREY, markeredgewidth=2),
        Patch(facecolor=VERMILION, edgecolor="white", linewidth=0, hatch=HATCH, label="loss"),
        handle("counts: win / tie / loss", marker=""),
    ]
    return finish(figure, axes, heights, handles)


def _panel(ax: Axes, row: Wins) -> None:
    values = row.differences
    edges = np.linspace(0, 100, max(len(values), 1) + 1)
    first_loss = len(values) - row.losses
    for kind, start, end, look in (
        ("wins", 0, row.wins, {"color": BLUE}),
        ("losses", first_loss, len(values),
         {"facecolor": VERMILION, "edgecolor": "white", "linewidth": 0, "hatch": HATCH}),
    ):  # fmt: skip
        if end > start:
            ax.stairs(values[start:end], edges[start : end + 1], fill=True, gid=kind, **look)
    if row.ties:
        ends = [edges[row.wins], edges[first_loss]]
        ax.plot(ends, [0, 0], color=GREY, linewidth=2.2, gid="ties", solid_capstyle="butt")
    ax.axhline(0, color=GREY, linewidth=0.5)
    counts = f"{row.wins} / {row.ties} / {row.losses}\n{counted(len(values), 'query')}"
    ax.text(0.98, 0.99, counts, transform=ax.transAxes, ha="right", va="top", fontsize=6.5,
            linespacing=1.1)  # fmt: skip
    ax.set_xlim(0, 100)
    ax.set_xticks([0, 50, 100])
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    ax.spines["bottom"].set_visible(False)
