"""Every system against every other, and the letters that say which ones differ."""

from __future__ import annotations

import string

import numpy as np
import numpy.typing as npt

from analysis.significance.differences import FloatArray, paired_differences
from analysis.significance.ranks import wilcoxon
from analysis.significance.resampling import (
    RANDOMISATIONS,
    SEED,
    p_value,
    sign_flips,
    tolerance,
)
from analysis.significance.student import t_test
from rdx.equality import settled


def all_pairs(
    scores: npt.ArrayLike,
    test: str = "t",
    randomisations: int = RANDOMISATIONS,
    seed: int = SEED,
) -> FloatArray:
    """Uncorrected two-sided p values of all pairs of systems.

    Parameters
    ----------
    scores : array_like, shape [k, n]
        Scores of k systems on the same n queries.
    test : str
        ``t``, ``wilcoxon`` or ``randomisation``; null hypotheses as in the tests of two systems.
    randomisations, seed : int
        Of the randomisation test. The signs are those of a single comparison with this seed, so
        the p values are too.

    Returns
    -------
    ndarray, shape [k, k]
        Symmetric; NaN on the diagonal.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"scores must have the shape [systems, queries], not {values.shape}")
    k = len(values)
    p = np.full((k, k), np.nan)
    if test == "randomisation":
        return _randomisation_pairs(values, randomisations, seed)
    if test not in ("t", "wilcoxon"):
        raise ValueError(f"test {test!r} is not one of: t, wilcoxon, randomisation")
    for i in range(k - 1):
        d = paired_differences(values[i + 1 :], values[i])
        p[i, i + 1 :] = p[i + 1 :, i] = t_test(d) if test == "t" else wilcoxon(d)
    return p


def _randomisation_pairs(values: FloatArray, randomisations: int, seed: int) -> FloatArray:
    """As `randomisation` of each pair.

    The signed sum of a difference is the difference of the signed sums: one matrix product over
    the systems serves all pairs.
    """
    k, n = values.shape
    count = np.zeros((k, k))
    least = np.zeros((k, k))
    for i in range(k - 1):
        d = paired_differences(values[i + 1 :], values[i])
        least[i, i + 1 :] = np.abs(d.sum(axis=1)) - tolerance(d)
    total = values.sum(axis=1, keepdims=True)
    for flips in sign_flips(n, randomisations, seed, k):
        sums = 2 * (values @ flips.T) - total
        for i in range(k - 1):
            apart = np.abs(sums[i + 1 :] - sums[i])
            count[i, i + 1 :] += np.count_nonzero(apart >= least[i, i + 1 :, None], axis=1)
    p = np.full((k, k), np.nan)
    if n:
        upper = np.triu_indices(k, 1)
        p[upper] = p_value(count[upper], n, randomisations)
        p.T[upper] = p[upper]
    return p


def compact_letters(different: npt.ArrayLike, means: npt.ArrayLike) -> tuple[str, ...]:
    """Letters for k systems: two share a letter if and only if they do not differ significantly.

    Parameters
    ----------
    different : array_like of bool, shape [k, k]
        Symmetric: which pairs differ significantly. The diagonal is ignored.
    means : array_like, shape [k]
        "a" goes to the best (the first of equals), and the letters descend from there.

    Returns
    -------
    tuple of str, k
        One or more letters each. After "z" come capitals, then numbers in brackets.

    Notes
    -----
    Each letter is a set of systems of which no two differ; the sets are grown greedily from the
    best down until every such pair shares one, and sets that are not needed are dropped. So there
    may be a few letters more than necessary, but none that says something wrong. Piepho (2004), *An
    algorithm for a letter-based representation of all-pairwise comparisons*; Gramm et al. (2007),
    *Algorithms for compact letter displays*.

    Examples
    --------
    >>> compact_letters([[0, 0, 1], [0, 0, 0], [1, 0, 0]], [0.6, 0.5, 0.4])
    ('a', 'ab', 'b')
    """
    apart = np.asarray(different, dtype=bool)
    k = len(apart)
    if apart.shape != (k, k) or (apart != apart.T).any() or np.shape(means) != (k,):
        raise ValueError(f"needs a symmetric [k, k] and [k], not {apart.shape}, {np.shape(means)}")
    order = np.argsort(-settled(means), kind="stable")
    alike = ~apart[np.ix_(order, order)]
    np.fill_diagonal(alike, True)
    covered = np.zeros((k, k), dtype=np.int64)  # how many sets hold both
    sets: list[npt.NDArray[np.int64]] = []
    for i in range(k):
        for j in range(i, k):
            # A system alone (j = i) needs a set of its own only if it is in no other.
            lonely = j > i or not alike[i].sum() > 1
            if alike[i, j] and not covered[i, j] and lonely:
                sets.append(_grow(alike, i, j))
                covered[np.ix_(sets[-1], sets[-1])] += 1
    needed = []
    for members in sets:
        block = np.ix_(members, members)
        if (covered[block] > 1).all():
            covered[block] -= 1
        else:
            needed.append(members)
    letters = [""] * k
    for number, members in enumerate(sorted(needed, key=lambda members: tuple(members))):
        for member in members:
            letters[order[member]] += _letter(number)
    return tuple(letters)


def _grow(alike: npt.NDArray[np.bool_], i: int, j: int) -> npt.NDArray[np.int64]:
    """Largest set with i and j of systems that are all alike, added in their order; sorted."""
    members = sorted({i, j})
    free = alike[i] & alike[j]
    free[members] = False
    for candidate in np.flatnonzero(free):
        if free[candidate]:
            members.append(int(candidate))
            free &= alike[candidate]
    return np.array(sorted(members))


def _letter(number: int) -> str:
    plain = string.ascii_lowercase + string.ascii_uppercase
    return plain[number] if number < len(plain) else f"({number + 1})"
