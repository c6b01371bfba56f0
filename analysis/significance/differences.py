"""Scores and paired differences, the input of every test here."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rdx.equality import SAME_ABS, SAME_REL, same

FloatArray = npt.NDArray[np.float64]


def paired_differences(treatment: npt.ArrayLike, baseline: npt.ArrayLike) -> FloatArray:
    """Differences treatment - baseline, exactly zero where both are the same up to rounding.

    Parameters
    ----------
    treatment : array_like, shape [..., n]
        Scores of n queries, of one system or of several.
    baseline : array_like, shape [n] or that of `treatment`
        Scores of the same n queries in the same order.

    Returns
    -------
    ndarray, the shape of `treatment`

    Raises
    ------
    ValueError
        If the shapes do not fit or a value is not finite.
    """
    a = np.asarray(treatment, dtype=np.float64)
    b = np.asarray(baseline, dtype=np.float64)
    if a.ndim == 0 or b.shape not in (a.shape, a.shape[-1:]):
        raise ValueError(
            f"paired scores must have the shapes [..., n] and [n] or [..., n], "
            f"not {a.shape} and {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired scores must be finite")
    difference = a - b
    # As `rdx.equality.same`, in a third of the time. A t-test would call a handful of last bits
    # highly significant.
    difference[np.abs(difference) <= SAME_ABS + SAME_REL * np.abs(b)] = 0.0
    return difference


def score_table(values: npt.ArrayLike, axes: str) -> FloatArray:
    """Scores as a finite array of two dimensions, which `axes` names.

    Raises
    ------
    ValueError
        If the table is empty, not two-dimensional or not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"scores must have shape [{axes}], got {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("scores must be finite")
    return table


def rows(differences: npt.ArrayLike) -> tuple[FloatArray, tuple[int, ...]]:
    """Differences as [m, n], and the shape of a result that has one number per comparison."""
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim == 0:
        raise ValueError("differences must have the shape [n] or [m, n], not that of one number")
    shape = d.shape[:-1]
    return d.reshape(math.prod(shape), d.shape[-1]), shape


def constant(d: FloatArray) -> npt.NDArray[np.bool_]:
    """Which rows of [m, n] hold one value only, up to rounding; n must be at least 1."""
    return np.asarray(same(d, d[:, :1]).all(axis=1))
