"""The design of a grid: columns of its terms, and what each adds to others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from analysis.significance import FloatArray

# Directions that hold less than this share of a term's columns are rounding errors.
RANK = 1e-9


def block(labels: Mapping[str, tuple[str, ...]], term: tuple[str, ...]) -> FloatArray:
    """Columns of one term in sum-to-zero coding, shape [R, product of (levels - 1)]."""
    columns = np.ones((len(next(iter(labels.values()))), 1))
    for factor in term:
        levels = labels[factor]
        names = list(dict.fromkeys(levels))
        coded = np.array(
            [[float(o == name) - float(o == names[-1]) for name in names[:-1]] for o in levels]
        )
        columns = (columns[:, :, None] * coded[:, None, :]).reshape(len(levels), -1)
    return columns


def added(columns: FloatArray, others: Iterable[FloatArray]) -> FloatArray:
    """Orthonormal contrasts of runs, shape [R, r], that columns add to the mean and to others.

    The sum of squares of a term is n times that of the products of its contrasts with the runs'
    means: what least squares gains by the term.
    """
    runs = len(columns)
    basis = _orthonormal(np.hstack([np.ones((runs, 1)), *others]))
    for _ in range(2):  # once more, for what rounding left
        columns = columns - basis @ (basis.T @ columns)
    return _orthonormal(columns)


def _orthonormal(columns: FloatArray) -> FloatArray:
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    kept: FloatArray = left[:, sizes > RANK * max(1.0, float(sizes.max(initial=0.0)))]
    return kept


def cells(labels: Mapping[str, tuple[str, ...]]) -> FloatArray:
    """Which cell each run is of, shape [R, cells], ones and zeros."""
    each = list(zip(*labels.values(), strict=True))
    return np.array([[float(own == cell) for cell in dict.fromkeys(each)] for own in each])


def empty(labels: Mapping[str, tuple[str, ...]], term: tuple[str, ...]) -> bool:
    """Whether some combination of the term's levels was not run."""
    combinations = set(zip(*(labels[factor] for factor in term), strict=True))
    return len(combinations) < math.prod(len(set(labels[factor])) for factor in term)


def clean(squares: float, total: float) -> float:
    """Sum of squares; exactly zero where it is nothing but rounding errors of `total`."""
    return squares if total and squares > 1e-12 * total else 0.0
