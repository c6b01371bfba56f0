"""Position bias: whether passages come out high because of where in the prompt they stand."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import scipy  # its parts load when used; scipy.stats takes half a second

from rdx.facts import Bias, PositionBias, Slope
from rdx.rankings import USABLE


def position_bias(windows: pd.DataFrame, candidates: pd.DataFrame) -> PositionBias:
    """Where the passages at each position of a window end up.

    "all" is confounded: what is shown first was ranked first, by the first stage or by the window
    before, and deserves it. "shuffled" is not: the first window of a list in random order.
    """
    lists = ["query_id", "shuffle"]
    first = windows[
        (windows["pass"] == 0) & (windows.end == windows.groupby(lists).end.transform("max"))
    ]
    ranks = candidates.set_index(["query_id", "doc_id"])["rank"].to_dict()
    # The first input order of a list may be the first stage's, of all lists or of none.
    plain = first[first.shuffle == 0]
    sorted_lists = [
        np.all(np.diff([ranks[query_id, doc_id] for doc_id in shown]) > 0)
        for query_id, shown in zip(plain.query_id, plain.shown, strict=True)
    ]
    shuffled = first if not all(sorted_lists) else first[first.shuffle > 0]
    return PositionBias(all=_bias(windows), shuffled=_bias(shuffled))


def _bias(windows: pd.DataFrame) -> Bias | None:
    """Mean rank in the answer by position in the prompt, and its slope."""
    usable = windows[windows.state.isin(USABLE)]
    usable = usable[usable.shown.map(len) > 1]
    if usable.empty:
        return None
    ranks = [
        _answered(shown, answer) for shown, answer in zip(usable.shown, usable.given, strict=True)
    ]
    sizes = [len(window) for window in ranks]
    size = max(set(sizes), key=lambda n: (sizes.count(n), n))
    mean_rank = np.mean([window for window in ranks if len(window) == size], axis=0)
    slopes = pd.Series([_slope(window) for window in ranks])
    return Bias(
        windows=len(ranks),
        size=size,  # the most frequent one, which these are the positions of
        mean_rank=tuple(mean_rank.tolist()),
        excess=tuple((mean_rank - (size + 1) / 2).tolist()),
        slope=_interval(slopes.groupby(usable.query_id.to_numpy()).mean().to_numpy()),
    )


def _answered(shown: Sequence[Hashable], answer: Sequence[Hashable]) -> np.ndarray:
    """[size] rank in the answer of the passage at each position of the prompt."""
    place = {doc_id: rank for rank, doc_id in enumerate(answer, start=1)}
    return np.array([place[doc_id] for doc_id in shown])


def _slope(ranks: np.ndarray) -> float:
    """Slope of rank on position: 0 they have nothing to do with each other, 1 the order is kept.

    Both are permutations of the same numbers, so that this is Spearman's correlation too.
    """
    centred = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    return float(centred @ ranks / (centred @ centred))


def _interval(values: np.ndarray) -> Slope:
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Slope(mean=mean, low=None, high=None, queries=n)
    half = float(scipy.special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))
    return Slope(mean=mean, low=mean - half, high=mean + half, queries=n)
