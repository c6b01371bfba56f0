"""Sliding windows over a list, shuffles of it, and the central ranking of several rankings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

from rdx.draws import generator

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)

MERGES = ("borda", "kemeny")


def check(window: int, stride: int, passes: int = 1) -> None:
    """Raise ValueError unless the windows reach every passage in a bounded number of steps."""
    if window < 2:
        raise ValueError(f"window={window}: must be at least 2")
    if not 0 < stride <= window:
        raise ValueError(
            f"stride={stride}: must be at least 1 and at most teacher.window={window}, "
            "or passages between windows would never be shown"
        )
    if passes < 1:
        raise ValueError(f"passes={passes}: must be at least 1")


def positions(size: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Windows [start, end) of one pass, from the back of the list to its front.

    Every window is `stride` further to the front than the one before; the last is cut at the front
    (so that good passages travel up from the end: Sun et al. 2023, section 3.2). A list of at most
    `window` passages is one window. A window of a single passage has nothing to rank and is left
    out: lists of one passage, and the first one when `stride` equals `window`.

    Examples
    --------
    >>> positions(25, 10, 5)
    [(15, 25), (10, 20), (5, 15), (0, 10)]
    >>> positions(7, 4, 2)
    [(3, 7), (1, 5), (0, 3)]
    """
    check(window, stride)
    spans = []
    end = size
    while end > 1:
        start = max(end - window, 0)
        spans.append((start, end))
        if start == 0:
            break
        end -= stride
    return spans


def applied(order: Sequence[T], start: int, permutation: Sequence[int]) -> list[T]:
    """Return the list with the window that begins at `start` put in the order of a permutation.

    Parameters
    ----------
    permutation
        Positions in the window from 0, best first.

    Examples
    --------
    >>> applied(["a", "b", "c", "d"], 1, (2, 0, 1))
    ['a', 'd', 'b', 'c']
    """
    end = start + len(permutation)
    if not 0 <= start <= end <= len(order):
        raise ValueError(f"window [{start}, {end}) in a list of {len(order)}")
    if sorted(permutation) != list(range(len(permutation))):
        raise ValueError(f"not a permutation: {list(permutation)}")
    return [*order[:start], *(order[start + position] for position in permutation), *order[end:]]


def shuffled(n: int, seed: int, query_id: str, number: int) -> list[int]:
    """The order in which a list is shown for the given time: number 0 is the input order."""
    if number == 0:
        return list(range(n))
    draw = generator("teacher shuffle", seed, query_id, number)
    order: list[int] = draw.permutation(n).tolist()
    return order


def merged(rankings: Sequence[Sequence[H]], method: str = "borda") -> list[H]:
    """The central ranking of several rankings of the same items.

    Permutation self-consistency (Tang et al. 2024): what an LLM says of several shuffles of one
    list differs by its position bias, which the ranking nearest to all of them averages out.

    Parameters
    ----------
    method
        "borda": by mean rank; ties in the order of the first ranking. "kemeny": the smallest sum
        of Kendall tau distances (pairs in opposite order) to the rankings that a local search
        finds: from Borda's ranking on, single items are moved to their best place until no move
        helps. Finding the smallest of all is NP-hard; on short lists it nearly always is.

    Examples
    --------
    >>> merged([["a", "b", "c"], ["b", "a", "c"], ["b", "c", "a"]])
    ['b', 'a', 'c']
    """
    if method not in MERGES:
        raise ValueError(f"teacher.merge={method!r}: must be one of {', '.join(map(repr, MERGES))}")
    if not rankings:
        raise ValueError("no rankings to merge")
    items = list(rankings[0])
    if len(set(items)) < len(items):
        raise ValueError("a ranking names an item twice")
    ranks = np.array([_ranks(ranking, items) for ranking in rankings])
    order = np.argsort(ranks.sum(0), kind="stable")
    if method == "kemeny":
        order = _local_optimum(order, ranks)
    return [items[item] for item in order]


def _ranks(ranking: Sequence[H], items: list[H]) -> list[int]:
    """Where a ranking has each of the items."""
    place = {item: rank for rank, item in enumerate(ranking)}
    if len(ranking) != len(items) or place.keys() != set(items):
        raise ValueError("the rankings to merge do not hold the same items")
    return [place[item] for item in items]


def _local_optimum(order: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Move items until no single move lowers the sum of Kendall tau distances.

    Parameters
    ----------
    order
        [n] items, best first.
    ranks
        [rankings, n] rank of each item.
    """
    before = (ranks[:, :, None] < ranks[:, None, :]).sum(0)  # [a, b]: how many put a before b
    margin = before - before.T
    moved = True
    while moved:
        moved = False
        for item in range(len(order)):
            at = int(np.flatnonzero(order == item)[0])
            rest = np.delete(order, at)
            # With the item at place p, those before it are right by margin[those, item] and those
            # after it wrong by as much: what changes with p is twice the sum over those before.
            right = np.concatenate([[0], np.cumsum(margin[rest, item])])
            if right.max() > right[at]:  # strictly better, hence it ends; equal places stay
                order = np.insert(rest, int(right.argmax()), item)
                moved = True
    return order
