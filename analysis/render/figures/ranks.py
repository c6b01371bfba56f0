"""Critical-difference diagrams: mean ranks, and which systems no test tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.render.figures.style import (
    BLUE,
    LIGHT,
    beside,
    finish,
    handle,
    panels,
    rows,
    stacked,
    title,
    wrapped,
)

ROW = 0.16  # inches at least
BAR = 0.06  # inches from one column of bars to the next
PLOT = 1.5  # inches, about, of the axis of ranks and the bars beside it


@dataclass(frozen=True)
class Ranking:
    """One panel of the diagram.

    Attributes
    ----------
    ranks : dict
        System -> mean rank, 1 = best.
    bars : tuple of tuple of str
        Systems that are not told apart, best first: neighbours in the order of their ranks.
    distance : float or None
        Critical difference of mean ranks, drawn to scale; None if the bars rest on other tests.
    """

    ranks: dict[str, float]
    bars: tuple[tuple[str, ...], ...]
    distance: float | None = None

    @property
    def order(self) -> list[str]:
        """Systems, best first; of equals the one that was given first."""
        return sorted(self.ranks, key=lambda name: self.ranks[name])


def critical_differences(rankings: Mapping[str, Ranking], *, note: str) -> Figure:
    """Mean ranks as points below each other, best first; a bar joins what no test tells apart.

    Names, ranks and bars are columns of their own, so that there may be many of each.

    Parameters
    ----------
    rankings : mapping of str to Ranking
        Title -> ranks and bars.
    note : str
        Which tests the bars come from.
    """
    if not rankings:
        raise ValueError("nothing to draw")
    places = [stacked(_labels(ranking), ROW) for ranking in rankings.values()]
    columns = [_columns(ranking) for ranking in rankings.values()]
    most = max(max(own, default=0) + 1 for own in columns)
    gutter = min(BAR * (most + 1), PLOT / 2)
    heights = [height for _, height in places]
    figure, axes = panels(heights, 2, width_ratios=[PLOT - gutter, gutter])
    low, high = _limits(list(rankings.values()))
    for (ax, bars), (name, ranking), (middles, height), column in zip(
        axes, rankings.items(), places, columns, strict=True
    ):
        _points(ax, ranking, middles, height)
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(MaxNLocator(3 if most > 4 else 5, integer=True))
        title(ax, name)
        bars.axis("off")
        bars.set_xlim(-1, most)
        bars.set_ylim(height, 0)
        for i, (bar, x) in enumerate(zip(ranking.bars, column, strict=True)):
            at = [middles[_labelled(ranking).index(bar[end])] for end in (0, -1)]
            ends = [at[0] - 0.04, at[1] + 0.04]
            bars.plot([x, x], ends, color="black", linewidth=2, gid=f"bar:{i}",
                      solid_capstyle="butt")  # fmt: skip
    axes[-1, 0].set_xlabel("mean rank (1 = best)")
    mark = handle(wrapped(note, 56), marker="|", color="black", markersize=9, markeredgewidth=2)
    return finish(figure, axes, heights, [mark], columns=1)


def _labelled(ranking: Ranking) -> list[str]:
    """Rows of a panel: the scale of the critical difference has one of its own, named ""."""
    return [""] * (ranking.distance is not None) + ranking.order


def _labels(ranking: Ranking) -> list[str]:
    return [wrapped(name, 22) if name else "critical difference" for name in _labelled(ranking)]


def _columns(ranking: Ranking) -> list[int]:
    """Column of each bar: the first in which none stands beside it already."""
    order = {name: i for i, name in enumerate(ranking.order)}
    columns: list[int] = []
    last: list[int] = []  # row at which the latest bar of each column ends
    for bar in ranking.bars:
        first, end = order[bar[0]], order[bar[-1]]
        free = next((i for i, row in enumerate(last) if row < first), len(last))
        last[free:] = [end, *last[free + 1 :]]
        columns.append(free)
    return columns


def _limits(rankings: Sequence[Ranking]) -> tuple[float, float]:
    """Ends of the axis of all panels: every rank, and the longest critical difference."""
    every = [rank for ranking in rankings for rank in ranking.ranks.values()]
    scales = [min(r.ranks.values()) + r.distance for r in rankings if r.distance is not None]
    low, high = min(every), max(*every, *scales, min(every) + 1)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _points(ax: Axes, ranking: Ranking, middles: Sequence[float], height: float) -> None:
    best = min(ranking.ranks.values())
    for name, y in zip(_labelled(ranking), middles, strict=True):
        if name:
            rank = ranking.ranks[name]
            ax.axhline(y, color=LIGHT, linewidth=0.4, zorder=1)
            ax.plot([rank], [y], marker="o", markersize=4, color=BLUE, gid=f"rank:{name}")
            beside(ax, y, f"{rank:.2f}")
        elif ranking.distance is not None:
            ends = [best, best + ranking.distance]
            ax.plot(ends, [y, y], color="black", linewidth=1.0, marker="|", gid="distance")
            beside(ax, y, f"{ranking.distance:.2f}")
    rows(ax, _labels(ranking), middles, height)
