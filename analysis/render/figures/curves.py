"""Figures of lines: over an axis of the grid, interactions of two factors, power."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.render.figures.style import (
    GREY,
    LIGHT,
    finish,
    line_style,
    number,
    panels,
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
class PowerCurve:
    """Power of a test at true differences in units of the measure."""

    differences: tuple[float, ...]
    power: tuple[float, ...]


# Drawn on a scale of powers if the largest level is this many times the smallest.
WIDE = 8


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
    figure, axes = panels(1.5 * rows + 0.14 * len(labels) + 0.5, rows, columns, sharey=True)
    for i, (ax, (title, group)) in enumerate(zip(axes.flat, groups.items(), strict=True)):
        _panel(ax, group, labels)
        ax.set_xlabel(wrapped(title, 28 if beside else 52))
        if i == 0 or not beside:
            ax.set_ylabel(measure)
    return finish(figure, _handles(axes.flat, labels), columns=3)


def interaction(groups: Mapping[tuple[str, str], Sequence[Line]], *, measure: str) -> Figure:
    """Interaction plots: lines that are not parallel are an interaction.

    Parameters
    ----------
    groups : mapping of (str, str) to sequence of Line
        (factor on the axis, factor of the lines) -> the lines.
    measure : str
        For the axis label.
    """
    if not groups or not all(groups.values()):
        raise ValueError("nothing to draw")
    tall = max(0.9 + 0.13 * (len(group) + 1) for group in groups.values())
    figure, axes = panels(max(1.55, tall) * len(groups) + 0.1, len(groups), 1)
    for ax, ((across, by), group) in zip(axes[:, 0], groups.items(), strict=True):
        _panel(ax, group, {line.label: i for i, line in enumerate(group)})
        ax.set_xlabel(across)
        ax.set_ylabel(measure)
        legend = ax.legend(
            handles=_handles([ax], {line.label: i for i, line in enumerate(group)}),
            title=wrapped(by, 14),
            loc="upper left",
            bbox_to_anchor=(1.01, 1.03),
            frameon=False,
            handlelength=2.4,
            borderaxespad=0.2,
            title_fontsize=6.5,
            fontsize=6.5,
        )
        legend.get_title().set_fontweight("bold")
    return finish(figure)


def power(
    curves: Mapping[str, PowerCurve],
    *,
    measure: str,
    wanted: float = 0.8,
) -> Figure:
    """Power against the true difference, one line per entry.

    Parameters
    ----------
    curves : mapping of str to PowerCurve
        Label -> curve.
    measure : str
        For the axis label.
    wanted : float
        Power that is asked for, drawn as a horizontal line.
    """
    if not curves:
        raise ValueError("nothing to draw")
    figure, axes = panels(1.9 + 0.14 * len(curves), 1, 1)
    ax = axes[0, 0]
    ax.axhline(wanted, color=GREY, linewidth=0.8, gid="wanted")
    for i, (label, curve) in enumerate(curves.items()):
        spacing = max(1, len(curve.differences) // 6)
        look: dict[str, Any] = {"linewidth": 1.1, "markersize": 3.4}
        look |= {"markevery": (i % spacing, spacing)}
        look |= {"label": wrapped(label, 48), "gid": label, **line_style(i)}
        ax.plot(curve.differences, curve.power, **look)
    ax.set_ylim(0, 1.02)
    ax.set_xlim(left=0)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.set_xlabel(f"true difference in {measure}")
    ax.set_ylabel("power")
    ax.grid(color=LIGHT, linewidth=0.4)
    return finish(figure, ax.get_legend_handles_labels()[0], columns=2)


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
            x = [value + 0.09 * (k - (len(group) - 1) / 2) for value in x]
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


def _handles(axes: Iterable[Axes], labels: Mapping[str, int]) -> list[Line2D]:
    """One handle per label; none where a single line needs no name."""
    if list(labels) == [""]:
        return []
    lines = {line.get_gid(): line for ax in axes for line in ax.lines if line.get_gid() in labels}
    for name, line in lines.items():
        line.set_label(wrapped(name or "all", 40))
    return [lines[name] for name in labels]
