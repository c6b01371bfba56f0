"""How much scores vary over queries and over training runs: what power rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdx.equality import same

# What to assume of nDCG@10 where nothing is stored. Differences of re-rankers on TREC Deep Learning
# have a standard deviation over queries of .08 to .12; the means of three training runs of 1,334
# settings one of .0057 over seeds (median; a quarter lies above .0113).
ASSUMED_SD = 0.10
ASSUMED_SEED_SD = 0.0057


@dataclass(frozen=True)
class Assumption:
    """What a power calculation rests on, in units of the measure.

    Attributes
    ----------
    sd : float
        Standard deviation over queries of the difference of two systems.
    seed_sd : float
        Standard deviation over training runs of one system's mean score.
    source : str
        Where they come from, for the reader: "assumed", or the trials.
    """

    sd: float = ASSUMED_SD
    seed_sd: float = ASSUMED_SEED_SD
    source: str = "assumed"

    def __post_init__(self) -> None:
        """Reject what is no standard deviation."""
        if not (math.isfinite(self.sd) and self.sd > 0):
            raise ValueError(f"sd must be a positive number, not {self.sd}")
        if not (math.isfinite(self.seed_sd) and self.seed_sd >= 0):
            raise ValueError(f"seed_sd must be zero or more, not {self.seed_sd}")


def spread(treatment: npt.ArrayLike, baseline: npt.ArrayLike) -> float:
    """Standard deviation over queries of the paired difference; 0 with less than two queries.

    Parameters
    ----------
    treatment, baseline : array_like, shape [n]
        Scores of the same n queries in the same order, means over seeds where there are several.
        Scores that differ by rounding alone are the same.
    """
    a, b = np.asarray(treatment, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    differences = np.where(same(a, b), 0.0, a - b)
    return float(differences.std(ddof=1)) if len(differences) > 1 else 0.0


def pooled_seed_sd(groups: Sequence[npt.ArrayLike]) -> tuple[float, int] | None:
    """Standard deviation over runs of the mean score, pooled over systems.

    Parameters
    ----------
    groups : sequence of array_like, shapes [S_i]
        Mean score of every run, per system; systems with one run add nothing.

    Returns
    -------
    (float, int) or None
        The standard deviation and its degrees of freedom, the sum of S_i - 1; None if no system
        has two runs.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    df = sum(max(0, len(array) - 1) for array in arrays)
    if not df:
        return None
    squares = sum(float(((array - array.mean()) ** 2).sum()) for array in arrays if len(array) > 1)
    return math.sqrt(squares / df), df


def pooled_run_sd(tables: Sequence[npt.ArrayLike]) -> tuple[float, int] | None:
    """Standard deviation over runs that more queries do not remove, pooled over systems.

    Parameters
    ----------
    tables : sequence of array_like, shapes [n_i, S_i]
        Scores of n queries in S runs, per system; one run or one query adds nothing.

    Returns
    -------
    (float, int) or None
        √((mean square between runs - that of query x run) / n), 0 if that is negative, and the
        degrees of freedom, the sum of S_i - 1; None if no system has two runs. As
        `analysis.significance.Runs` where all have the same queries.
    """
    excess, total = 0.0, 0
    for values in tables:
        table = np.asarray(values, dtype=np.float64)
        if table.ndim != 2 or min(table.shape) < 2:
            continue
        n, s = table.shape
        runs = table.mean(axis=0)
        rest = table - table.mean(axis=1, keepdims=True) - runs + table.mean()
        between = float(((runs - table.mean()) ** 2).sum())
        excess += between - float((rest**2).sum()) / (n * (n - 1))
        total += s - 1
    return (math.sqrt(max(0.0, excess) / total), total) if total else None
