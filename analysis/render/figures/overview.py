"""The overview: every row's difference to the baseline, with its interval and its seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.render.figures.style import (
    BLUE,
    GREY,
    LIGHT,
    VERMILION,
    beside,
    finish,
    handle,
    panels,
    rows,
    stacked,
    title,
    wrapped,
)

SHAPES = {(False, False): "o", (False, True): "D", (True, False): "s", (True, True): "^"}
ROW = 0.2  # inches at least: a marker with its seeds below


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
        Filled marker if true, hollow if not; the interval leaves out 0 if true, not if not.
    reference : bool
        Grey, of another shape: a row that no trial trained.
    equivalent : bool
        Of another shape again: shown to lie within the margin.
    """

    name: str
    difference: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()
    significant: bool = False
    reference: bool = False
    equivalent: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """Of the marker, in the panel and in the legend."""
        colour = GREY if self.reference else BLUE
        return {
            "marker": SHAPES[self.reference, self.equivalent],
            "markersize": 4.6,
            "markerfacecolor": colour if self.significant else "white",
            "markeredgecolor": colour,
            "markeredgewidth": 1.0,
            "linestyle": "none",
        }

    def meaning(self, correction: str) -> str:
        """What the marker says."""
        words = ["not trained"] * self.reference
        words.append(f"significant ({correction})" if self.significant else "not significant")
        return ", ".join(words + ["equivalent"] * self.equivalent)


def differences(
    points_of: Mapping[str, Sequence[Point]],
    *,
    baseline: str,
    measure: str,
    interval: str,
    correction: str = "Holm",
    margin: float | None = None,
    apart: Collection[str] = (),
) -> Figure:
    """Dot plot of differences to a baseline, one panel per collection, one line per row.

    Parameters
    ----------
    points_of : mapping of str to sequence of Point
        Title -> rows, top to bottom.
    baseline, measure, interval : str
        For the axis label; `interval` says which one is drawn.
    correction : str
        For the legend.
    margin : float or None
        Equivalence margin, drawn as a band around zero.
    apart : collection of str
        Titles of panels with an axis of their own: what they show is of other queries.

    Returns
    -------
    Figure
        Not yet on disk. Nothing to draw is a ValueError.
    """
    if not points_of or not any(points_of.values()):
        raise ValueError("nothing to draw")
    places = {
        name: stacked([wrapped(point.name) for point in points], ROW)
        for name, points in points_of.items()
    }
    heights = [max(ROW, height) for _, height in places.values()]
    figure, axes = panels(heights)
    together = [ax for ax, name in zip(axes[:, 0], points_of, strict=True) if name not in apart]
    for ax in together[:-1]:
        ax.sharex(together[-1])
        ax.tick_params(labelbottom=False)
    for ax, (name, points) in zip(axes[:, 0], points_of.items(), strict=True):
        if margin is not None:
            ax.axvspan(-margin, margin, color=LIGHT, alpha=0.45, linewidth=0, gid="margin")
        _panel(ax, points, *places[name])
        title(ax, name)
    axes[-1, 0].set_xlabel(
        wrapped(f"{measure}, mean difference to {baseline}", 48) + "\n" + wrapped(interval, 56)
    )
    return finish(figure, axes, heights, _legend(points_of, correction, margin))


def _panel(ax: Axes, points: Sequence[Point], middles: Sequence[float], height: float) -> None:
    ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=1)
    for y, point in zip(middles, points, strict=True):
        colour = GREY if point.reference else BLUE
        ax.plot([point.low, point.high], [y, y], color=colour, linewidth=1.3, zorder=2,
                gid=f"interval:{point.name}")  # fmt: skip
        ax.plot([point.difference], [y], zorder=4, gid=f"mean:{point.name}", **point.look)
        if len(point.seeds) > 1:
            # Below the line, so that they neither hide the mean nor are hidden by it.
            ax.plot(
                list(point.seeds),
                [y + 0.05] * len(point.seeds),
                marker="|",
                markersize=3.6,
                markeredgewidth=0.9,
                color=VERMILION,
                linestyle="none",
                zorder=3,
                gid=f"seeds:{point.name}",
            )
        beside(ax, y, f"{point.difference:+.3f}".replace("-", "−"))
    rows(ax, [wrapped(point.name) for point in points], middles, height)
    ax.grid(axis="x", color=LIGHT, linewidth=0.4)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.margins(x=0.06)


def _legend(
    points_of: Mapping[str, Sequence[Point]], correction: str, margin: float | None
) -> list[Line2D]:
    points = [point for panel in points_of.values() for point in panel]
    order = sorted(points, key=lambda p: (p.reference, p.equivalent, not p.significant))
    looks = {point.meaning(correction): point.look for point in order}
    handles = [handle(meaning, **look) for meaning, look in looks.items()]
    if any(len(point.seeds) > 1 for point in points):
        handles.append(handle("each seed", marker="|", markersize=5, color=VERMILION))
    if margin is not None:
        band = {"markersize": 7, "color": LIGHT, "alpha": 0.6}
        handles.append(handle(f"margin ±{margin:g}", marker="s", **band))
    return handles
