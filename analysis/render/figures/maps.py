"""The heat map of a grid: every cell of it at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from analysis.render.figures.style import (
    LINE,
    STYLE,
    finish,
    panels,
    title,
    wrapped,
)
from analysis.significance import FloatArray

MAP = "cividis"  # made for any colour vision, and steadily lighter in grey
MOST_NUMBERS = 10  # columns beyond which a cell has no room for its score
EQUAL = 0.001  # a range of scores below which the colours would show rounding errors


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


def heat_map(
    grids: Sequence[Grid],
    *,
    rows: str,
    columns: str,
    measure: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Mean score of every cell of a grid, written into it; one panel per setting of what is held.

    Parameters
    ----------
    grids : sequence of Grid
        Panels, all on one colour scale.
    rows, columns, measure : str
        Names of the two factors and of the measure.
    limits : (float, float) or None
        Ends of the colour scale; None = lowest and highest score of these panels.
    """
    if not grids or not any(np.isfinite(grid.values).any() for grid in grids):
        raise ValueError("nothing to draw")
    low, high = limits or bounds(grids)
    if high - low < EQUAL:
        low, high = low - EQUAL / 2, high + EQUAL / 2
    labels = {name: wrapped(name, 18) for grid in grids for name in grid.rows}
    cell = max(0.22, LINE * max(label.count("\n") + 1 for label in labels.values()) + 0.04)
    heights = [cell * len(grid.rows) for grid in grids]
    figure, axes = panels(heights, sharex=True)
    empty: Any = {"hatch": "////", "facecolor": "white", "edgecolor": "#8C8C8C", "linewidth": 0}
    with mpl.rc_context(STYLE):
        for ax, grid in zip(axes[:, 0], grids, strict=True):
            image = ax.imshow(grid.values, cmap=MAP, vmin=low, vmax=high, aspect="auto")
            ax.set_xticks(range(len(grid.columns)), grid.columns)
            ax.set_yticks(range(len(grid.rows)), [labels[name] for name in grid.rows])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            if grid.title:
                title(ax, grid.title)
            for r, c in np.ndindex(grid.values.shape):
                value = float(grid.values[r, c])
                if np.isnan(value):
                    ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, gid="not run", **empty))
                elif len(grid.columns) <= MOST_NUMBERS:
                    dark = (value - low) / (high - low) < 0.5
                    text = _cell(value, len(grid.columns))
                    ax.text(c, r, text, ha="center", va="center", fontsize=6.5,
                            color="white" if dark else "black")  # fmt: skip
        figure.supylabel(wrapped(rows, int(14 * sum(heights))), fontsize=7)
        axes[-1, 0].set_xlabel(wrapped(columns, 44))
        bar = figure.colorbar(
            image,
            ax=axes[:, 0],
            location="bottom",
            aspect=30,
            pad=0.02,
            fraction=min(0.3, 0.08 / sum(heights)),
        )
        bar.set_label(measure)
        bar.ax.xaxis.set_major_locator(MaxNLocator(3))
        bar.outline.set_visible(False)
    missing = any(np.isnan(grid.values).any() for grid in grids)
    return finish(figure, axes, heights, [Patch(label="not run", **empty)] * missing)


def bounds(grids: Sequence[Grid]) -> tuple[float, float]:
    """Lowest and highest score of some panels."""
    scores = np.concatenate([grid.values.ravel() for grid in grids])
    return float(np.nanmin(scores)), float(np.nanmax(scores))


def _cell(value: float, columns: int) -> str:
    """Write a score with as many decimals as there is room for, without the leading zero."""
    text = f"{value:.{3 if columns <= 7 else 2}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
