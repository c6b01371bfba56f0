"""Corrections for testing more than once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.significance.differences import FloatArray
from rdx.equality import at_most

METHODS = {"holm": "holm", "hochberg": "simes-hochberg", "bh": "fdr_bh"}  # of statsmodels
NAN = float("nan")
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


def levels(p: npt.ArrayLike, method: str = "holm", alpha: float = 0.05) -> FloatArray:
    """The level at which a correction tests each member of a family.

    A member is rejected if and only if its p value is at most its level. So an interval that
    inverts its test with coverage 1 - level leaves out the null hypothesis exactly where `correct`
    rejects it. Each such interval by itself covers at least 1 - `alpha`; together they promise
    nothing more than the correction does.

    Parameters
    ----------
    p, method, alpha
        As of `correct`.

    Returns
    -------
    ndarray, shape [m]
        Of m tests with r rejections. ``holm``: alpha / (m - j + 1) for the j-th smallest p value if
        it is rejected (equal ones count as the first of them), alpha / (m - r), the step at which
        Holm stops, if not. ``hochberg``: alpha / (m - r + 1) if it is rejected, else alpha /
        (m - r). ``bh``: alpha r / m, else alpha (r + 1) / m. NaN where `p` is NaN.

    Notes
    -----
    Of the rejections of ``bh`` these are the intervals of Benjamini and Yekutieli (2005), *False
    discovery rate-adjusted multiple confidence intervals for selected parameters*: on average a
    share of at most alpha of them is wrong. Holm's procedure has no simultaneous intervals that say
    more than it does itself (Guilbaud 2008).

    Examples
    --------
    >>> levels([0.01, 0.04, 0.9], alpha=0.06).round(3).tolist()
    [0.02, 0.03, 0.03]
    """
    reject = correct(p, method, alpha)[1]
    values = np.asarray(p, dtype=np.float64)
    valid = ~np.isnan(values)
    size, rejected = int(valid.sum()), int(reject.sum())
    if method == "bh":
        return np.where(valid, np.where(reject, rejected, rejected + 1) * alpha / max(size, 1), NAN)
    step = np.full(values.shape, float(rejected))
    if method == "holm":
        step[valid] = stats.rankdata(values[valid], method="min")
    left = np.where(reject, size - step + 1, size - rejected)
    return np.where(valid, alpha / np.maximum(left, 1), NAN)


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
