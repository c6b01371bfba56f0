"""The design of a grid: columns of its terms, least squares on the runs' means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from analysis.significance import FloatArray


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


def residual(means: FloatArray, blocks: Iterable[FloatArray], runs: int) -> tuple[float, int]:
    """Residual sum of squares of the runs' means, and the rank of the design."""
    design = np.hstack([np.ones((runs, 1)), *blocks])
    centred = means - means.mean()  # the intercept is in the design; less is lost to rounding
    beta, _, rank, _ = np.linalg.lstsq(design, centred, rcond=None)
    return float(((centred - design @ beta) ** 2).sum()), int(rank)


def empty(labels: Mapping[str, tuple[str, ...]], term: tuple[str, ...]) -> bool:
    """Whether some combination of the term's levels was not run."""
    combinations = set(zip(*(labels[factor] for factor in term), strict=True))
    return len(combinations) < math.prod(len(set(labels[factor])) for factor in term)


def clean(squares: float, total: float) -> float:
    """Sum of squares; exactly zero where it is nothing but rounding errors of `total`."""
    return squares if total and squares > 1e-12 * total else 0.0
