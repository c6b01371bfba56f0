"""Tests on paired per-query scores: arrays in, numbers out.

Every function names its null hypothesis and its source. Nothing here knows of MLflow, tables or
files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests

FloatArray = npt.NDArray[np.float64]

# Two scores closer than this are the same score. Means over seeds differ from the values they are
# means of in the last bit, and a t-test would call a handful of such bits highly significant.
SAME_REL = 1e-9
SAME_ABS = 1e-12


@dataclass(frozen=True)
class Comparison:
    """Outcome of one paired comparison, in units of the measure.

    Attributes
    ----------
    n : int
        Number of pairs (queries).
    difference : float
        Mean of treatment - baseline.
    low, high : float
        Ends of the confidence interval of the mean difference.
    p : float
        Two-sided p value, not corrected.
    d_z : float
        Cohen's d for paired samples: mean difference / standard deviation of the differences.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    d_z: float


def paired_differences(treatment: npt.ArrayLike, baseline: npt.ArrayLike) -> FloatArray:
    """Differences treatment - baseline, exactly zero where both are the same up to rounding.

    Parameters
    ----------
    treatment, baseline : array_like, shape [n]
        Scores of the same n queries in the same order.

    Returns
    -------
    ndarray, shape [n]

    Raises
    ------
    ValueError
        If the shapes differ, are not one-dimensional, or a value is not finite.
    """
    a = np.asarray(treatment, dtype=np.float64)
    b = np.asarray(baseline, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"paired scores must be two arrays of shape [n], got {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired scores must be finite")
    return np.where(np.isclose(a, b, rtol=SAME_REL, atol=SAME_ABS), 0.0, a - b)


def paired_t(
    treatment: npt.ArrayLike, baseline: npt.ArrayLike, confidence: float = 0.95
) -> Comparison:
    """Two-sided paired t-test with the t-interval of the mean difference and Cohen's d_z.

    Null hypothesis: over the population that the queries are drawn from, the mean difference
    treatment - baseline is zero. What is tested is the mean over *queries*; that the scores come
    from one or from several training runs does not enter.

    Parameters
    ----------
    treatment, baseline : array_like, shape [n]
        Scores of the same n queries in the same order.
    confidence : float
        Coverage of the interval.

    Returns
    -------
    Comparison
        Degenerate input: n = 0 gives NaN everywhere; n = 1 the difference, and NaN for interval,
        p and d_z; all differences zero gives p = 1, d_z = 0 and the interval [0, 0]; all
        differences equal and not zero gives p = 0, d_z = ±inf and an interval of no width.

    Notes
    -----
    `scipy.stats.ttest_1samp` on the differences, n - 1 degrees of freedom. Student (1908), *The
    probable error of a mean*; as a test for retrieval systems: Smucker, Allan and Carterette
    (CIKM 2007). d_z: Cohen (1988), *Statistical power analysis*, §2.3.5.

    Examples
    --------
    >>> paired_t([0.5, 0.7, 0.9], [0.4, 0.5, 0.6]).difference.__round__(3)
    0.2
    """
    differences = paired_differences(treatment, baseline)
    n = len(differences)
    nan = float("nan")
    if n == 0:
        return Comparison(0, nan, nan, nan, nan, nan)
    mean = float(differences.mean())
    if n == 1:
        return Comparison(1, mean, nan, nan, nan, nan)
    if np.allclose(differences, differences[0], rtol=SAME_REL, atol=0.0):
        if mean == 0.0:
            return Comparison(n, 0.0, 0.0, 0.0, 1.0, 0.0)
        return Comparison(n, mean, mean, mean, 0.0, float(np.copysign(np.inf, mean)))
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(confidence)
    return Comparison(
        n=n,
        difference=mean,
        low=float(interval.low),
        high=float(interval.high),
        p=float(test.pvalue),
        d_z=mean / float(differences.std(ddof=1)),
    )


def holm(p: npt.ArrayLike, alpha: float = 0.05) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Holm's step-down correction of one family of p values.

    Null hypothesis of each member: that of its own test. The correction holds the probability of
    at least one false rejection in the family at `alpha`, whatever the dependence between the
    tests.

    Parameters
    ----------
    p : array_like, shape [m]
        Uncorrected p values. NaN (a cell that is missing or could not be tested) is left out: it
        does not count towards the size of the family.
    alpha : float
        Family-wise error rate.

    Returns
    -------
    adjusted : ndarray, shape [m]
        Corrected p values, at most 1; NaN where `p` is NaN.
    reject : ndarray of bool, shape [m]
        Whether ``adjusted <= alpha``; False where `p` is NaN.

    Raises
    ------
    ValueError
        If a p value lies outside [0, 1].

    Notes
    -----
    `statsmodels.stats.multitest.multipletests(method="holm")`. Holm (1979), *A simple sequentially
    rejective multiple test procedure*, Scandinavian Journal of Statistics 6.

    Examples
    --------
    >>> adjusted, reject = holm([0.01, 0.04, float("nan")])
    >>> adjusted.tolist(), reject.tolist()
    ([0.02, 0.04, nan], [True, True, False])
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p values must have shape [m], got {values.shape}")
    adjusted = np.full(values.shape, np.nan)
    reject = np.zeros(values.shape, dtype=bool)
    valid = ~np.isnan(values)
    if not valid.any():
        return adjusted, reject
    if (values[valid] < 0).any() or (values[valid] > 1).any():
        raise ValueError("p values must lie in [0, 1]")
    reject[valid], adjusted[valid] = multipletests(values[valid], alpha=alpha, method="holm")[:2]
    return adjusted, reject
