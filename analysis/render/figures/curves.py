"""Figures of lines: over an axis of the grid, interactions of two factors, power."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.render.figures.style import (
    GREY,
    LIGHT,
    LINE,
    finish,
    handle,
    line_style,
    number,
    panels,
    title,
    upright,
    wrapped,
)


@dataclass(frozen=True)
class Line:
    """One line of a figure: points with intervals, in units of the measure.

    Attributes
    ----------
    label : str
        What tells it from the other lines.
    x : tuple of str, j
        Levels on the horizontal axis.
    mean, low, high : tuple of float, j
        NaN where there is nothing to show.
    """

    label: str
    x: tuple[str, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Interaction:
    """One interaction plot.

    Attributes
    ----------
    across, by : str
        Factor on the axis, and factor whose levels are lines.
    lines : tuple of Line
        NaN where a combination was not run.
    note : str
        Over what the means are taken, and what was not run; "" if there is nothing to say.
    """

    across: str
    by: str
    lines: tuple[Line, ...]
    note: str = ""


@dataclass(frozen=True)
class PowerCurve:
    """Power of one test at true differences, in units of the measure.

    Attributes
    ----------
    label : str
        Which test; curves of one label look alike in all panels.
    differences, power : tuple of float
        The curve.
    detectable : float
        Smallest difference that the table of power gives for this test: its power is `wanted`.
    """

    label: str
    differences: tuple[float, ...]
    power: tuple[float, ...]
    detectable: float


# Drawn on a scale of powers if the largest level is this many times the smallest.
WIDE = 8
# Letters of a line: of a level in the legend of an interaction, and of its note.
LEVEL, NOTE = 15, 50


def lines(groups: Mapping[str, Sequence[Line]], *, measure: str) -> Figure:
    """Means with intervals over the levels of an axis, one panel per axis.

    Parameters
    ----------
    groups : mapping of str to sequence of Line
        Axis label -> its lines. Levels that are all numbers stand to scale (logarithmic if they
        span a factor of `WIDE`), others at equal steps.
    measure : str
        For the axis label.

    Returns
    -------
    Figure
        Panels beside each other if there are two, else below each other; nothing to draw is a
        ValueError.
    """
    if not groups or not all(groups.values()):
        raise ValueError("nothing to draw")
    labels = _labels(groups)
    beside = len(groups) == 2
    rows, columns = (1, 2) if beside else (len(groups), 1)
    heights = [1.2] * rows
    figure, axes = panels(heights, columns, sharey=True)
    for i, (ax, (axis, group)) in enumerate(zip(axes.flat, groups.items(), strict=True)):
        _panel(ax, group, labels)
        ax.set_xlabel(wrapped(axis, 28 if beside else 52))
        if i == 0 or not beside:
            upright(ax, measure, 1.2)
    return finish(figure, axes, heights, _handles(axes.flat, labels), columns=3)


def interaction(pairs: Sequence[Interaction], *, measure: str) -> Figure:
    """Interaction plots: lines that are not parallel are an interaction.

    Parameters
    ----------
    pairs : sequence of Interaction
        A panel each, all of one scale.
    measure : str
        For the axis label.
    """
    if not pairs or not all(pair.lines for pair in pairs):
        raise ValueError("nothing to draw")
    heights = [max(1.15, LINE * _legend_lines(pair) + 0.1) for pair in pairs]
    figure, axes = panels(heights, sharey=True)
    for ax, pair, height in zip(axes[:, 0], pairs, heights, strict=True):
        places = {line.label: i for i, line in enumerate(pair.lines)}
        _panel(ax, pair.lines, places)
        ax.set_xlabel(wrapped(pair.across, 36))
        upright(ax, measure, height)
        ax.set_title(wrapped(pair.note, NOTE), loc="left", pad=3, fontsize=6.5)
        legend = ax.legend(
            handles=_handles([ax], places, LEVEL),
            title=wrapped(pair.by, LEVEL),
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            frameon=False,
            handlelength=2.4,
            borderaxespad=0.0,
            labelspacing=0.2,
            title_fontsize=6.5,
            fontsize=6.5,
        )
        legend.get_title().set_fontweight("bold")
    return finish(figure, axes, heights)


def _legend_lines(pair: Interaction) -> int:
    labels = [pair.by, *(line.label for line in pair.lines)]
    return sum(wrapped(label, LEVEL).count("\n") + 1 for label in labels)


def power(
    curves: Mapping[str, Sequence[PowerCurve]],
    *,
    measure: str,
    wanted: float = 0.8,
) -> Figure:
    """Power against the true difference, one panel per collection, a mark where it is enough.

    Parameters
    ----------
    curves : mapping of str to sequence of PowerCurve
        Title -> curves, that of the easiest test first.
    measure : str
        For the axis label.
    wanted : float
        Power that is asked for, drawn as a horizontal line.
    """
    if not curves or not all(curves.values()):
        raise ValueError("nothing to draw")
    heights = [0.95] * len(curves)
    figure, axes = panels(heights, sharex=True)
    labels: dict[str, int] = {}
    for ax, (name, group) in zip(axes[:, 0], curves.items(), strict=True):
        ax.axhline(wanted, color=GREY, linewidth=0.8, gid="wanted")
        for i, curve in enumerate(group):
            place = labels.setdefault(curve.label, len(labels))
            look = line_style(place)
            ax.plot(curve.differences, curve.power, linewidth=1.1, gid=curve.label,
                    color=look["color"], linestyle=look["linestyle"])  # fmt: skip
            ax.plot([curve.detectable], [wanted], marker=look["marker"], markersize=4,
                    color=look["color"], gid=f"detectable:{curve.label}")  # fmt: skip
            # Left of the first curve and right of the others there is nothing but paper.
            left = i == 0
            ax.annotate(
                f"{curve.detectable:.3f}",
                (curve.detectable, wanted),
                xytext=(-4, 3) if left else (4, -3),
                textcoords="offset points",
                ha="right" if left else "left",
                va="bottom" if left else "top",
                fontsize=6.5,
                gid=f"number:{curve.label}",
            )
        ax.set_ylim(0, 1.08)
        ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        ax.set_ylabel("power")
        ax.grid(color=LIGHT, linewidth=0.4)
        title(ax, name)
    axes[-1, 0].set_xlim(left=0)
    axes[-1, 0].set_xlabel(f"true difference in {measure}")
    looks = {label: line_style(i) for label, i in labels.items()}
    handles = [Line2D([], [], label=label, markersize=4, linewidth=1.1, **look)
               for label, look in looks.items()]  # fmt: skip
    handles.append(handle(f"mark: found with power {wanted:g}", marker=""))
    return finish(figure, axes, heights, handles, columns=3)


def _labels(groups: Mapping[str, Sequence[Line]]) -> dict[str, int]:
    """Place of each label among all panels, so that it looks the same in each."""
    names = dict.fromkeys(line.label for group in groups.values() for line in group)
    return {name: i for i, name in enumerate(names)}


def _panel(ax: Axes, group: Sequence[Line], place: Mapping[str, int]) -> None:
    levels = list(dict.fromkeys(level for line in group for level in line.x))
    values = [number(level) for level in levels]
    scaled = not any(map(math.isnan, values)) and len(values) > 1
    if not scaled:
        values = [float(i) for i in range(len(levels))]
    at = dict(zip(levels, values, strict=True))
    for k, line in enumerate(group):
        look = line_style(place[line.label])
        x = [at[level] for level in line.x]
        if not scaled:  # side by side, so that intervals do not hide each other
            step = min(0.09, 0.7 / len(group))
            x = [value + step * (k - (len(group) - 1) / 2) for value in x]
        ax.plot(x, line.mean, linewidth=1.1, markersize=3.6, gid=line.label, zorder=3, **look)
        ax.vlines(x, line.low, line.high, color=look["color"], linewidth=0.9, zorder=2)
    if scaled and min(values) > 0 and max(values) / min(values) >= WIDE:
        ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(values, [_short(level) if scaled else level for level in levels])
    ax.margins(x=0.1)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="y", color=LIGHT, linewidth=0.4)


def _short(level: str) -> str:
    """1000 -> 1k, 1000000 -> 1M; others as they are."""
    value = number(level)
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size and value % (size / 10) == 0:
            return f"{value / size:g}{letter}"
    return level


def _handles(axes: Iterable[Axes], labels: Mapping[str, int], width: int = 40) -> list[Line2D]:
    """One handle per label; none where a single line needs no name."""
    if list(labels) == [""]:
        return []
    lines = {line.get_gid(): line for ax in axes for line in ax.lines if line.get_gid() in labels}
    for name, line in lines.items():
        line.set_label(wrapped(name or "all", width))
    return [lines[name] for name in labels]
