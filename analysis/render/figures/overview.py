"""The overview: every row's difference to the baseline, with its interval and its seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.render.figures.style import (
    BLUE,
    GREY,
    LIGHT,
    VERMILION,
    finish,
    handle,
    panels,
    title,
    wrapped,
)


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


def differences(
    points_of: Mapping[str, Sequence[Point]],
    *,
    baseline: str,
    measure: str,
    correction: str = "Holm",
    margin: float | None = None,
    apart: Collection[str] = (),
) -> Figure:
    """Dot plot of differences to a baseline, one panel per collection, one line per row.

    Parameters
    ----------
    points_of : mapping of str to sequence of Point
        Title -> rows, top to bottom.
    baseline, measure : str
        For the axis label.
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
    labels = {p.name: wrapped(p.name) for points in points_of.values() for p in points}
    tall = 0.26 if max(label.count("\n") for label in labels.values()) < 2 else 0.36
    counts = [max(1, len(points)) for points in points_of.values()]
    height = sum(tall * count + 0.26 for count in counts) + 0.6
    figure, axes = panels(height + 0.16 * len(apart), len(points_of), height_ratios=counts)
    together = [ax for ax, name in zip(axes[:, 0], points_of, strict=True) if name not in apart]
    for ax in together[:-1]:
        ax.sharex(together[-1])
        ax.tick_params(labelbottom=False)
    for ax, (name, points) in zip(axes[:, 0], points_of.items(), strict=True):
        if margin is not None:
            ax.axvspan(-margin, margin, color=LIGHT, alpha=0.45, linewidth=0, gid="margin")
        _panel(ax, name, points, labels)
    axes[-1, 0].set_xlabel(
        wrapped(f"{measure}, difference to {baseline}", 52)
        + "\n(mean over queries; 95 % CI, not corrected)"
    )
    return finish(figure, _legend(points_of, correction, margin))


def _panel(ax: Axes, name: str, points: Sequence[Point], labels: Mapping[str, str]) -> None:
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
                color=VERMILION,
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
    ax.set_yticks(range(len(points)), [labels[point.name] for point in points])
    ax.set_ylim(len(points) - 0.4, -0.6)
    title(ax, name)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=LIGHT, linewidth=0.4)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.margins(x=0.06)


def _legend(
    points_of: Mapping[str, Sequence[Point]], correction: str, margin: float | None
) -> list[Line2D]:
    points = [point for panel in points_of.values() for point in panel]
    handles = []
    if any(point.significant for point in points):
        handles.append(handle(f"significant ({correction})", marker="o", color=BLUE))
    if any(not point.significant for point in points):
        hollow = {"markerfacecolor": "white", "markeredgecolor": BLUE}
        handles.append(handle("not significant", marker="o", **hollow))
    if any(point.reference for point in points):
        handles.append(handle("not trained", marker="s", color=GREY))
    if any(len(point.seeds) > 1 for point in points):
        handles.append(handle("each seed", marker="|", markersize=5, color=VERMILION))
    if margin is not None:
        band = {"markersize": 7, "color": LIGHT, "alpha": 0.6}
        handles.append(handle(f"margin ±{margin:g}", marker="s", **band))
    return handles
