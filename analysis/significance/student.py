"""Student's t for paired scores: the test, its interval, the effect size, and equivalence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.significance.differences import FloatArray, constant, rows
from rdx.equality import same


def t_test(differences: npt.ArrayLike) -> FloatArray:
    """Two-sided p values of paired t-tests.

    Null hypothesis: over the population that the queries are drawn from, the mean difference is
    zero. Assumes that the mean of n differences is about normal, which holds for tens of queries
    unless a few of them decide everything.

    Parameters
    ----------
    differences : array_like, shape [n] or [m, n]
        See `paired_differences`.

    Returns
    -------
    ndarray, shape [] or [m]
        NaN for n < 2; 1 if all differences are zero; 0 if all are equal and not zero.

    Notes
    -----
    Student (1908), *The probable error of a mean*; for retrieval systems Smucker, Allan and
    Carterette (CIKM 2007). As `scipy.stats.ttest_1samp`, in one go for all rows.
    """
    t, df, shape = _t(differences)
    return np.asarray(2.0 * special.stdtr(df, -np.abs(t))).reshape(shape)


def t_interval(
    differences: npt.ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Ends of the t-intervals of the mean differences, each of shape [] or [m].

    NaN for n < 2; without width if all differences are equal. Agrees with `t_test`: 0 is outside
    of the interval if and only if p < 1 - `confidence`.
    """
    d, shape = rows(differences)
    n = d.shape[1]
    if n < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    half = special.stdtrit(n - 1, 0.5 + confidence / 2) * _standard_error(d)
    mean = d.mean(axis=1)
    return (mean - half).reshape(shape), (mean + half).reshape(shape)


def cohens_dz(differences: npt.ArrayLike) -> FloatArray:
    """Cohen's d for paired samples: mean difference / standard deviation of the differences.

    Returns
    -------
    ndarray, shape [] or [m]
        In standard deviations. NaN for n < 2; 0 if all differences are zero; infinite if all are
        equal and not zero.

    Notes
    -----
    Cohen (1988), *Statistical power analysis for the behavioral sciences*, §2.3.5.
    """
    t, df, shape = _t(differences)
    return np.asarray(t / np.sqrt(df + 1)).reshape(shape)


def non_inferiority(differences: npt.ArrayLike, margin: float) -> FloatArray:
    """One-sided p values for "not worse by more than the margin".

    Null hypothesis: the mean difference is -`margin` or less. Rejecting it says that the treatment
    is at most `margin` worse; it may be better.

    Parameters
    ----------
    differences : array_like, shape [n] or [m, n]
        Treatment - baseline, higher is better.
    margin : float
        Above 0, in units of the measure; to be declared before the results are seen.

    Returns
    -------
    ndarray, shape [] or [m]
        NaN for n < 2.

    Notes
    -----
    One-sided paired t-test shifted by the margin: Schuirmann (1987), whose first test it is.
    """
    d, shape = rows(differences)
    return margin_p(*mean_error(d), margin)[1].reshape(shape)


def equivalence(differences: npt.ArrayLike, margin: float) -> FloatArray:
    """P values of two one-sided t-tests (TOST) for "the same up to the margin".

    Null hypothesis: the mean difference lies outside of (-`margin`, `margin`). Rejecting it at
    alpha is the same as a 1 - 2 alpha t-interval within the margins.

    Parameters
    ----------
    differences : array_like, shape [n] or [m, n]
        See `paired_differences`.
    margin : float
        Above 0, in units of the measure; to be declared before the results are seen.

    Returns
    -------
    ndarray, shape [] or [m]
        The larger of the two one-sided p values. NaN for n < 2.

    Notes
    -----
    Schuirmann (1987), *A comparison of the two one-sided tests procedure and the power approach*,
    Journal of Pharmacokinetics and Biopharmaceutics 15.
    """
    d, shape = rows(differences)
    return margin_p(*mean_error(d), margin)[0].reshape(shape)


def margin_p(
    difference: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike, margin: float
) -> tuple[FloatArray, FloatArray]:
    """P values of `equivalence` and `non_inferiority` of differences with known standard errors.

    Parameters
    ----------
    difference, error, df : array_like
        Mean differences, their standard errors, and the degrees of freedom of these; NaN where
        there are none.
    margin : float
        Above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, in units of the measure, not {margin}")
    above = special.stdtr(df, -_distance(np.asarray(difference), -margin, error))
    below = special.stdtr(df, -_distance(-np.asarray(difference), -margin, error))
    return np.asarray(np.maximum(above, below)), np.asarray(above)


def _t(differences: npt.ArrayLike) -> tuple[FloatArray, int, tuple[int, ...]]:
    """Mean differences in standard errors, and degrees of freedom."""
    d, shape = rows(differences)
    means, error, df = mean_error(d)
    return _distance(means, 0.0, error), df, shape


def mean_error(d: FloatArray) -> tuple[FloatArray, FloatArray, int]:
    """Means of [m, n] differences, their standard errors, degrees of freedom; NaN for n < 2."""
    n = d.shape[1]
    if n < 2:
        return np.full(len(d), np.nan), np.full(len(d), np.nan), 1
    return np.asarray(d.mean(axis=1)), _standard_error(d), n - 1


def _distance(means: FloatArray, mean: float, error: npt.ArrayLike) -> FloatArray:
    """Distance of means to that of the null hypothesis in standard errors; 0 where it is that."""
    distance = np.where(same(means, mean), 0.0, means - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            np.where((distance == 0) & np.equal(error, 0), 0.0, np.divide(distance, error))
        )


def _standard_error(d: FloatArray) -> FloatArray:
    """Of the means of the rows; exactly zero where all values are equal up to rounding."""
    error = d.std(axis=1, ddof=1) / np.sqrt(d.shape[1])
    # Few rows can be constant, and to look at every value of all takes longer than the test.
    suspects = np.flatnonzero(error <= 1e-8 * np.abs(d[:, 0]))
    error[suspects[constant(d[suspects])]] = 0.0
    return np.asarray(error)
