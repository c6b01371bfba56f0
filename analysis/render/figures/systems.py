"""Figures of systems beside each other: effectiveness against cost, critical differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    title,
    wrapped,
)

# Where a number may stand beside its marker, in points, near places first: the first free one is
# taken.
OFFSETS = tuple(
    (radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle)))
    for radius in (6.5, 9.0, 12.0, 16.0, 20.0, 25.0, 31.0)
    for angle in (0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338)
)
# Of the critical-difference diagram: inches a line, the axis in lines from the top, letters a line.
LINE, BASE, LABEL = 0.125, 2.0, 17


@dataclass(frozen=True)
class Cost:
    """One system of the cost figure.

    Attributes
    ----------
    name : str
        Label in the key.
    seconds : float
        Per query; more than 0.
    score : float
        Mean in units of the measure.
    best : bool
        On the Pareto front: no other is both as fast and as good.
    """

    name: str
    seconds: float
    score: float
    best: bool


def costs(systems: Sequence[Cost], *, measure: str, hardware: str = "") -> Figure:
    """Effectiveness against seconds per query (logarithmic), with the Pareto front.

    Systems are numbered, since their names would not fit beside their markers.

    Parameters
    ----------
    systems : sequence of Cost
        In the order of their numbers.
    measure, hardware : str
        For the axis labels.
    """
    if not systems:
        raise ValueError("nothing to draw")
    lines = sum(-(-len(system.name) // 44) for system in systems)
    figure, axes = panels(1.9 + 0.125 * lines, 1, 1)
    ax = axes[0, 0]
    front = sorted((s.seconds, s.score) for s in systems if s.best)
    ax.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=0.9, gid="front")
    for system in systems:
        ax.plot(
            [system.seconds],
            [system.score],
            marker="o",
            markersize=5,
            linestyle="none",
            markerfacecolor=BLUE if system.best else "white",
            markeredgecolor=BLUE if system.best else GREY,
            zorder=3,
            gid=system.name,
        )
    ax.set_xscale("log")
    ax.set_xlabel("seconds per query" + (f" ({hardware})" if hardware else ""))
    ax.set_ylabel(measure)
    ax.margins(x=0.12, y=0.14)
    ax.grid(color=LIGHT, linewidth=0.4)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    low, high = ax.get_xlim()
    few = MaxNLocator(4, steps=[1, 2, 5, 10])  # less than a power of ten has no ticks of its own
    decades = LogLocator(subs=(1.0,) if high / low > 50 else (1.0, 2.0, 5.0))
    ax.xaxis.set_major_locator(few if high / low < 8 else decades)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    handles = [
        handle(f"{i}  {wrapped(system.name, 44)}", marker="o", markersize=4)
        for i, system in enumerate(systems, 1)
    ]
    for mark, system in zip(handles, systems, strict=True):
        mark.set(markerfacecolor=BLUE if system.best else "white")
        mark.set(markeredgecolor=BLUE if system.best else GREY)
    handles.append(handle("filled, line: no other is as fast and as good", marker=""))
    finish(figure, handles, columns=2)
    _numbers(figure, ax, systems)
    return figure


def _numbers(figure: Figure, ax: Axes, systems: Sequence[Cost]) -> None:
    """Write each system's number where neither a marker nor another number is."""
    occupied = [line.get_window_extent() for line in ax.lines if line.get_gid() != "front"]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # Agg's, of `panels`
    with mpl.rc_context(STYLE):
        for i, system in enumerate(systems, 1):
            note = ax.annotate(
                str(i),
                (system.seconds, system.score),
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


@dataclass(frozen=True)
class Ranking:
    """One panel of the critical-difference diagram.

    Attributes
    ----------
    ranks : dict
        System -> mean rank, 1 = best.
    bars : tuple of tuple of str
        Systems that are not told apart, best first.
    """

    ranks: dict[str, float]
    bars: tuple[tuple[str, ...], ...]


def critical_differences(
    rankings: Mapping[str, Ranking], *, note: str, distance: float | None = None
) -> Figure:
    """Mean ranks on an axis; a thick bar joins systems that no test tells apart.

    Parameters
    ----------
    rankings : mapping of str to Ranking
        Title -> ranks and bars.
    note : str
        Which tests the bars come from.
    distance : float or None
        Critical difference of mean ranks, drawn to scale; None if the bars rest on other tests.
    """
    if not rankings:
        raise ValueError("nothing to draw")
    heights = [_height(ranking) for ranking in rankings.values()]
    figure, axes = panels(LINE * sum(heights) + 0.3, len(rankings), 1, height_ratios=heights)
    for ax, (name, ranking), height in zip(axes[:, 0], rankings.items(), heights, strict=True):
        _diagram(ax, ranking, height, distance)
        title(ax, name)
    return finish(figure, [handle(wrapped(note, 60), marker="")], columns=1)


def _sides(ranking: Ranking) -> tuple[list[str], list[str]]:
    """Better half (left) and worse half (right) of the systems, each from the outside in."""
    order = sorted(ranking.ranks, key=lambda name: ranking.ranks[name])
    half = -(-len(order) // 2)
    return order[:half], order[half:][::-1]


def _places(names: Sequence[str]) -> list[float]:
    """Middle of each label in lines below the bars; wrapped names take more than one."""
    lines = [1.0 + 0.85 * wrapped(name, LABEL).count("\n") for name in names]
    return [sum(lines[:i]) + lines[i] / 2 for i in range(len(lines))]


def _top(ranking: Ranking) -> float:
    """Where the labels begin, in lines from the top of the panel."""
    return BASE + 0.4 + 0.7 * len(ranking.bars)


def _height(ranking: Ranking) -> float:
    sides = [sum(1.0 + 0.85 * wrapped(n, LABEL).count("\n") for n in s) for s in _sides(ranking)]
    return _top(ranking) + max(sides) + 1.4  # and the title


def _diagram(ax: Axes, ranking: Ranking, height: float, distance: float | None) -> None:
    low = math.floor(min(ranking.ranks.values()))
    high = max(math.ceil(max(ranking.ranks.values())), low + 1)
    span = high - low
    ax.set_xlim(low - 1.2 * span, high + 1.2 * span)  # room for LABEL letters and a rank
    ax.set_ylim(height - 1.4, 0)
    ax.axis("off")
    ax.plot([low, high], [BASE, BASE], color="black", linewidth=0.8)
    for tick in range(low, high + 1, max(1, round(span / 5))):
        ax.plot([tick, tick], [BASE - 0.3, BASE], color="black", linewidth=0.8)
        ax.text(tick, BASE - 0.4, str(tick), ha="center", va="bottom", fontsize=6, gid="tick")
    for side, names in zip((-1, 1), _sides(ranking), strict=True):
        end = low - 0.05 * span if side < 0 else high + 0.05 * span
        for name, place in zip(names, _places(names), strict=True):
            y, rank = _top(ranking) + place, ranking.ranks[name]
            ax.plot([rank, rank, end], [BASE, y, y], color=GREY, linewidth=0.7, gid=f"rank:{name}")
            first, *more = wrapped(name, LABEL).split("\n")
            words = f"{first} {rank:.2f}" if side < 0 else f"{rank:.2f} {first}"
            label = ax.text(
                end + side * 0.03 * span,
                y,
                "\n".join([words, *more]),
                ha="right" if side < 0 else "left",
                va="center",
                fontsize=6,
                linespacing=1.0,
                gid=f"label:{name}",
            )
            label.set_in_layout(False)  # the axis limits leave room for it
    for i, bar in enumerate(ranking.bars):
        ends = [ranking.ranks[bar[0]] - 0.01 * span, ranking.ranks[bar[-1]] + 0.01 * span]
        y = BASE + 0.6 + 0.7 * i
        look: Mapping[str, Any] = {"color": "black", "linewidth": 2.6, "zorder": 4}
        ax.plot(ends, [y, y], gid=f"bar:{i}", solid_capstyle="butt", **look)
    if distance is not None:
        ends = [low, low + distance]
        ax.plot(ends, [0.3, 0.3], color="black", linewidth=1.0, marker="|", gid="distance")
        x = low + distance + 0.06 * span
        ax.text(x, 0.3, f"CD {distance:.2f}", va="center", fontsize=6).set_in_layout(False)
