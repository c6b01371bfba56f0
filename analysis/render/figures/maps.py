"""Figures of whole grids and of whole query sets: heat map, wins and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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

MAP = "cividis"  # made for any colour vision, and steadily lighter in grey


@dataclass(frozen=True)
class Grid:
    """One panel of the heat map.

    Attributes
    ----------
    title : str
        What is held in this panel; "" if there is one panel only.
    rows, columns : tuple of str
        Levels.
    values : ndarray, shape [rows, columns]
        Means; NaN = not run.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: FloatArray


@dataclass(frozen=True)
class Wins:
    """Per-query differences to the baseline, largest first, and how many are of each kind."""

    differences: FloatArray
    wins: int
    ties: int
    losses: int


def heat_map(grids: Sequence[Grid], *, rows: str, columns: str, measure: str) -> Figure:
    """Mean score of every cell of a grid, written into it; one panel per level of what is held.

    Parameters
    ----------
    grids : sequence of Grid
        Panels, all on one colour scale.
    rows, columns, measure : str
        Names of the two factors and of the measure.
    """
    if not grids or not any(np.isfinite(grid.values).any() for grid in grids):
        raise ValueError("nothing to draw")
    scores = np.concatenate([grid.values.ravel() for grid in grids])
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    high = high if high > low else low + 1e-9
    heights = [len(grid.rows) for grid in grids]
    height = 0.24 * sum(heights) + (0.2 + 0.05 * len(grids)) * len(grids) + 0.95
    figure, axes = panels(height, len(grids), 1, sharex=True, height_ratios=heights)
    with mpl.rc_context(STYLE):
        for ax, grid in zip(axes[:, 0], grids, strict=True):
            image = ax.imshow(grid.values, cmap=MAP, vmin=low, vmax=high, aspect="auto")
            ax.set_xticks(range(len(grid.columns)), grid.columns)
            ax.set_yticks(range(len(grid.rows)), [wrapped(name, 20) for name in grid.rows])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.set_ylabel(rows)
            if grid.title:
                title(ax, grid.title)
            for r, c in np.ndindex(grid.values.shape):
                value = float(grid.values[r, c])
                if np.isnan(value):
                    empty: Any = {"fill": False, "hatch": "////", "edgecolor": "#BFBFBF"}
                    ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, linewidth=0, **empty))
                dark = np.isfinite(value) and (value - low) / (high - low) < 0.5
                ax.text(
                    c,
                    r,
                    "–" if np.isnan(value) else _cell(value, len(grid.columns)),
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if dark else "black",
                )
        axes[-1, 0].set_xlabel(columns)
        bar = figure.colorbar(
            image, ax=axes[:, 0], location="bottom", aspect=40, fraction=0.03, pad=0.02
        )
        bar.set_label(measure)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
        bar.outline.set_visible(False)
    return finish(figure)


def _cell(value: float, columns: int) -> str:
    """Write a score with as many decimals as there is room for, without the leading zero."""
    text = f"{value:.{3 if columns <= 7 else 2}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def wins(wins_of: Mapping[str, Wins], *, baseline: str, measure: str) -> Figure:
    """Sorted per-query differences to the baseline, one small panel per row.

    Parameters
    ----------
    wins_of : mapping of str to Wins
        Row -> differences.
    baseline, measure : str
        For the axis label.
    """
    if not wins_of:
        raise ValueError("nothing to draw")
    columns = min(2, len(wins_of))
    rows = -(-len(wins_of) // columns)
    width = 21 if columns == 2 else 52
    lines = max(wrapped(name, width).count("\n") for name in wins_of)
    figure, axes = panels(
        (0.92 + 0.11 * lines) * rows + 0.5, rows, columns, sharey=True, sharex=False
    )
    limit = max(float(np.abs(row.differences).max(initial=0.0)) for row in wins_of.values()) or 1.0
    for ax, (name, row) in zip(axes.flat, wins_of.items(), strict=False):
        values = row.differences
        places = np.arange(len(values))
        first_loss = len(values) - row.losses
        draws = slice(row.wins, first_loss)
        for part, colour, kind in (
            (slice(row.wins), BLUE, "wins"),
            (slice(first_loss, None), VERMILION, "losses"),
        ):
            edges = np.append(places[part], places[part][-1:] + 1) - 0.5
            if len(edges) > 1:
                ax.stairs(values[part], edges, fill=True, color=colour, gid=kind)
        ax.plot(places[draws], values[draws], color=GREY, linewidth=2.2, gid="ties")
        ax.axhline(0, color=GREY, linewidth=0.5)
        title(ax, name, width)
        # Beside the counts only empty paper: differences fall from the upper left.
        counts = f"{row.wins} / {row.ties} / {row.losses}"
        ax.text(0.98, 0.97, counts, transform=ax.transAxes, ha="right",
                va="top", fontsize=6.5)  # fmt: skip
        ax.set_ylim(-1.12 * limit, 1.12 * limit)
        ax.set_xlim(-0.5, max(len(values), 1) - 0.5)
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.yaxis.set_major_locator(MaxNLocator(3))
    for ax in list(axes.flat)[len(wins_of) :]:
        ax.set_visible(False)
    with mpl.rc_context(STYLE):
        figure.supylabel(
            wrapped(f"{measure} minus {baseline}, per query", int(18 * figure.get_figheight())),
            fontsize=7,
        )
    handles = [
        handle("win", marker="s", color=BLUE),
        handle("tie", marker="_", color=GREY, markeredgewidth=2),
        handle("loss", marker="s", color=VERMILION),
        handle("counts: win / tie / loss", marker=""),
    ]
    return finish(figure, handles)
