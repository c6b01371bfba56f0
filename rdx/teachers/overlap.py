"""Rank-biased overlap: how alike two rankings are, above all at their top."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

P = 0.9  # of RBO: the first ten ranks have 86 % of the weight


def rbo(ranking: Sequence[Hashable], other: Sequence[Hashable], p: float = P) -> float:
    """Rank-biased overlap, extrapolated beyond the end of the rankings (RBO_ext).

    Webber, Moffat and Zobel: A similarity measure for indefinite rankings. TOIS 28(4), 2010,
    equation 32 (equation 23 if both are equally long). With X_d items shared by the first d of
    both, the mean of X_d / d weighted by p^(d-1), as if the agreement at the end went on.

    Parameters
    ----------
    ranking, other
        Items, best first, without repetition; they may differ in length and content.
    p
        Persistence in (0, 1): the smaller, the more the top counts.

    Returns
    -------
    float
        0 (nothing shared) to 1 (the same, or one a prefix of the other).

    Examples
    --------
    >>> rbo("ab", "ba", 0.5)
    0.5
    """
    if not 0 < p < 1:
        raise ValueError(f"p={p}: must be between 0 and 1")
    short, long = sorted((ranking, other), key=len)
    s, n = len(short), len(long)
    if not s:
        raise ValueError("an empty ranking")
    if len(set(short)) < s or len(set(long)) < n:
        raise ValueError("a ranking names an item twice")
    place = {item: i for i, item in enumerate(long)}
    # an item counts from the depth on at which both rankings have shown it
    met = np.array([max(i, place[item]) for i, item in enumerate(short) if item in place], int)
    shared = np.cumsum(np.bincount(met, minlength=n))
    depth = np.arange(1, n + 1)
    agreement = shared / depth
    # beyond its end the short ranking is taken to go on as it agreed at its end
    agreement[s:] += shared[s - 1] * (depth[s:] - s) / (s * depth[s:])
    weight = p**depth
    return float((1 - p) / p * (agreement @ weight) + agreement[-1] * weight[-1])
