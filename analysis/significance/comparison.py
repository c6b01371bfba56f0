"""One record per comparison, by the test and the interval of choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from analysis.significance.differences import FloatArray, paired_differences, rows
from analysis.significance.ranks import wilcoxon
from analysis.significance.resampling import bca_interval, randomisation
from analysis.significance.student import cohens_dz, t_interval, t_test


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


def compare(
    differences: npt.ArrayLike, test: str = "t", interval: str = "t", confidence: float = 0.95
) -> list[Comparison]:
    """Compare m pairs of systems on the same number of queries.

    Parameters
    ----------
    differences : array_like, shape [m, n]
        One row per pair; see `paired_differences`.
    test : str
        ``t``, ``wilcoxon`` or ``randomisation``, each with the null hypothesis of its function.
    interval : str
        ``t`` or ``bca``.
    confidence : float
        Coverage of the interval.

    Returns
    -------
    list of Comparison, m
        n = 0 gives NaN everywhere; n = 1 the difference and, of the t-test, the intervals and d_z,
        NaN.
    """
    tests = {"t": t_test, "wilcoxon": wilcoxon, "randomisation": randomisation}
    intervals = {"t": t_interval, "bca": bca_interval}
    for name, chosen, valid in (("test", test, tests), ("interval", interval, intervals)):
        if chosen not in valid:
            raise ValueError(f"{name} {chosen!r} is not one of: {', '.join(valid)}")
    d, _ = rows(differences)
    n = d.shape[1]
    mean = d.mean(axis=1) if n else d.sum(axis=1) + float("nan")
    low, high = intervals[interval](d, confidence)
    columns: list[FloatArray] = [mean, low, high, tests[test](d), cohens_dz(d)]
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    return [Comparison(n, *line) for line in numbers]


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

    Examples
    --------
    >>> paired_t([0.5, 0.7, 0.9], [0.4, 0.5, 0.6]).difference.__round__(3)
    0.2
    """
    differences = paired_differences(treatment, baseline)
    if differences.ndim != 1:
        raise ValueError(f"scores must have the shape [n], not {differences.shape}")
    return compare(differences[None], confidence=confidence)[0]
