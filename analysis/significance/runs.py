"""Training runs as a random factor: how far they carry a mean, and the error that counts them.

The scores of S runs of one system on the same n queries are a two-way table,

    score[q, s] = mean + query[q] + run[s] + rest[q, s]

and a claim about a *choice* (this loss, that sampler), rather than about the models at hand, must
hold for other runs as well as for other queries. What separates two choices beyond them is then

    variance over queries of the difference + (between - rest) x share,

where `between` and `rest` are mean squares of the table above and `share` counts the runs: the
"quasi F" of Winer, Brown and Michels (1991, *Statistical Principles in Experimental Design*, §5),
Clark's (1973) argument for language, and the design of Raaijmakers, Schrijnemakers and Gremmen
(1999) and Westfall, Kenny and Judd (2014), with stimuli for queries. Degrees of freedom after
Satterthwaite (1946, *An approximate distribution of estimates of variance components*).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.significance.differences import FloatArray

NAN = float("nan")
# What rounding leaves of a mean square that is zero.
TINY = 1e-20


def _zero() -> FloatArray:
    return np.zeros(())


@dataclass(frozen=True)
class Runs:
    """Sums of squares of the runs of one system, or of several together.

    Systems share these variances by assumption: a few runs of one say little. Arrays of one shape,
    () or that of many comparisons.

    Attributes
    ----------
    between, between_df : ndarray
        Sum of squares between runs of one system, times the number of queries, and its degrees of
        freedom: S - 1 each.
    rest, rest_df : ndarray
        Of the interaction of query and run, (n - 1)(S - 1) each.
    """

    between: FloatArray = field(default_factory=_zero)
    between_df: FloatArray = field(default_factory=_zero)
    rest: FloatArray = field(default_factory=_zero)
    rest_df: FloatArray = field(default_factory=_zero)

    @classmethod
    def of(cls, table: FloatArray) -> Runs:
        """Those of one system's scores, shape [n, S]; nothing of a single run or query."""
        n, s = table.shape
        if s < 2 or n < 2:
            return cls()
        columns, mean = table.mean(axis=0), table.mean()
        rest = table - table.mean(axis=1)[:, None] - columns[None, :] + mean
        between_df, rest_df = s - 1, (n - 1) * (s - 1)
        between = n * float(((columns - mean) ** 2).sum())
        within = float((rest**2).sum())
        return cls(
            np.array(between if between > TINY * between_df else 0.0),
            np.array(float(between_df)),
            np.array(within if within > TINY * rest_df else 0.0),
            np.array(float(rest_df)),
        )

    @classmethod
    def pooled(cls, tables: Iterable[FloatArray]) -> Runs:
        """Those of several systems together, on the same queries."""
        return reduce(cls.__add__, map(cls.of, tables), cls())

    def __add__(self, other: Runs) -> Runs:
        """Both together."""
        return Runs(
            np.asarray(self.between + other.between),
            np.asarray(self.between_df + other.between_df),
            np.asarray(self.rest + other.rest),
            np.asarray(self.rest_df + other.rest_df),
        )

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether there is a system with two runs, so that runs can be told from queries."""
        return np.asarray(self.between_df > 0)

    @property
    def squares(self) -> tuple[FloatArray, FloatArray]:
        """Mean squares between runs, and of the rest; NaN where nothing is known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return (
                np.asarray(self.between / self.between_df),
                np.asarray(self.rest / self.rest_df),
            )


def counted_in(
    square: npt.ArrayLike, df: npt.ArrayLike, runs: Runs, share: npt.ArrayLike = 1.0
) -> tuple[FloatArray, FloatArray]:
    """An error over queries, and the same with the runs counted in.

    Parameters
    ----------
    square, df : array_like
        Mean square (or variance) over queries, and its degrees of freedom.
    runs : Runs
        Mean squares of the runs.
    share : array_like
        What one unit of `between - rest` adds: 1 on the scale of a mean square of the analysis of
        variance, (1/S_a + 1/S_b) / n on that of a squared standard error, 0 where no side is
        trained.

    Returns
    -------
    square + share (between - rest), and its degrees of freedom
        Where the variance between runs is estimated as 0 or less, or not known, it counts as 0:
        then both are as they were. So the test is a little cautious where runs do not differ (3 to
        4.5 % in place of 5), and never below the test over queries.
    """
    own, freedom, part = (np.asarray(x, dtype=np.float64) for x in (square, df, share))
    between, rest = runs.squares
    counts = runs.known & (part > 0) & (between > rest)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = own + part * (between - rest)
        spread = own**2 / freedom
        spread = spread + (part * between) ** 2 / runs.between_df
        spread = spread + (part * rest) ** 2 / runs.rest_df
        satterthwaite = total**2 / spread
    return np.where(counts, total, own), np.where(counts, satterthwaite, freedom)


def t_of(
    difference: npt.ArrayLike, error: npt.ArrayLike, df: npt.ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Ends of the t-interval of a difference with a known standard error, and its two-sided p.

    Null hypothesis: the difference is zero. NaN where the error is; without width, and p 1 or 0, as
    the difference is zero or not, where the error is 0.
    """
    mean, scale = np.asarray(difference, np.float64), np.asarray(error, np.float64)
    half = special.stdtrit(df, 0.5 + confidence / 2) * scale
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where((mean == 0) & (scale == 0), 0.0, mean / scale)
    p = 2.0 * special.stdtr(df, -np.abs(t))
    return np.asarray(mean - half), np.asarray(mean + half), np.asarray(p)
