"""Corrections for testing more than once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from statsmodels.stats.multitest import multipletests

from analysis.significance.differences import FloatArray
from rdx.equality import at_most

METHODS = {"holm": "holm", "hochberg": "simes-hochberg", "bh": "fdr_bh"}  # of statsmodels
Corrected = tuple[FloatArray, npt.NDArray[np.bool_]]


def correct(p: npt.ArrayLike, method: str = "holm", alpha: float = 0.05) -> Corrected:
    """Correct one family of p values.

    Null hypothesis of each member: that of its own test.

    Parameters
    ----------
    p : array_like, shape [m]
        Uncorrected p values. NaN (a cell that is missing or could not be tested) is left out: it
        does not count towards the size of the family.
    method : str
        ``holm`` or ``hochberg``: the probability of at least one false rejection in the family is
        at most `alpha`; Hochberg's is never less powerful, but needs tests that are independent
        or positively dependent. ``bh``: of the rejections, a share of at most `alpha` is false on
        average (the same need); a weaker promise.
    alpha : float
        That error rate.

    Returns
    -------
    adjusted : ndarray, shape [m]
        Corrected p values, at most 1; NaN where `p` is NaN.
    reject : ndarray of bool, shape [m]
        Whether ``adjusted <= alpha`` up to rounding; False where `p` is NaN.

    Raises
    ------
    ValueError
        If a p value lies outside [0, 1], or the method is none of `METHODS`.

    Examples
    --------
    >>> adjusted, reject = correct([0.01, 0.04, float("nan")])
    >>> adjusted.tolist(), reject.tolist()
    ([0.02, 0.04, nan], [True, True, False])

    Notes
    -----
    Holm (1979), *A simple sequentially rejective multiple test procedure*. Hochberg (1988), *A
    sharper Bonferroni procedure for multiple tests of significance*. Benjamini and Hochberg (1995),
    *Controlling the false discovery rate*.
    """
    if method not in METHODS:
        raise ValueError(f"correction {method!r} is not one of: {', '.join(METHODS)}")
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p values must have shape [m], got {values.shape}")
    adjusted = np.full(values.shape, np.nan)
    valid = ~np.isnan(values)
    tested = values[valid]
    if (tested < 0).any() or (tested > 1).any():
        raise ValueError("p values must lie in [0, 1]")
    if len(tested):
        adjusted[valid] = _holm(tested) if method == "holm" else _by_statsmodels(tested, method)
    return adjusted, at_most(adjusted, alpha)


def _by_statsmodels(p: FloatArray, method: str) -> FloatArray:
    corrected: FloatArray = multipletests(p, method=METHODS[method])[1]
    return corrected


def _holm(p: FloatArray) -> FloatArray:
    """Holm's step-down; statsmodels' own collects garbage at every call, 20 ms of a report."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected
