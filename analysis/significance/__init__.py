"""Tests on paired per-query scores: arrays in, numbers out.

Every function names its null hypothesis and its source, and takes one comparison ([n] differences)
or many ([m, n]) at a time. Tests are over queries; `runs` adds training runs to their error.
Nothing here knows of MLflow, tables or files. ``docs/statistics.md`` says when to use which, and
how often each errs.

Corrections are statsmodels' (Holm's our own, for speed). Own code is what libraries lack: tests of
many comparisons in one go (all pairs of a hundred systems) that give 1 for equal systems where
scipy gives NaN; Wilcoxon's exact distribution with ties; a randomisation test whose p is never 0;
BCa intervals of many comparisons (the numbers of scipy's); compact letters. Where
both exist, the tests compare them.
"""

from analysis.significance.comparison import Comparison, compare, paired_t
from analysis.significance.corrections import correct, levels
from analysis.significance.differences import FloatArray, paired_differences, score_table
from analysis.significance.pairs import all_pairs, compact_letters
from analysis.significance.ranks import wilcoxon
from analysis.significance.resampling import (
    RANDOMISATIONS,
    RESAMPLES,
    SEED,
    bca_interval,
    randomisation,
)
from analysis.significance.runs import Runs, counted_in, t_of
from analysis.significance.student import (
    cohens_dz,
    equivalence,
    margin_p,
    mean_error,
    non_inferiority,
    t_interval,
    t_test,
)

__all__ = [
    "RANDOMISATIONS",
    "RESAMPLES",
    "SEED",
    "Comparison",
    "FloatArray",
    "Runs",
    "all_pairs",
    "bca_interval",
    "cohens_dz",
    "compact_letters",
    "compare",
    "correct",
    "counted_in",
    "equivalence",
    "levels",
    "margin_p",
    "mean_error",
    "non_inferiority",
    "paired_differences",
    "paired_t",
    "randomisation",
    "score_table",
    "t_interval",
    "t_of",
    "t_test",
    "wilcoxon",
]
