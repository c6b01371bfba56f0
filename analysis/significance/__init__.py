"""Tests on paired per-query scores: arrays in, numbers out.

Every function names its null hypothesis and its source, and takes one comparison ([n] differences)
or many ([m, n]) at a time. Nothing here knows of MLflow, tables or files. ``docs/statistics.md``
says when to use which, and how often each errs.
"""

from analysis.significance.comparison import Comparison, compare, paired_t
from analysis.significance.corrections import benjamini_hochberg, correct, hochberg, holm
from analysis.significance.differences import (
    SAME_ABS,
    SAME_REL,
    FloatArray,
    paired_differences,
)
from analysis.significance.pairs import all_pairs, compact_letters
from analysis.significance.ranks import wilcoxon
from analysis.significance.resampling import (
    RANDOMISATIONS,
    RESAMPLES,
    SEED,
    bca_interval,
    randomisation,
)
from analysis.significance.student import (
    cohens_dz,
    equivalence,
    non_inferiority,
    t_interval,
    t_test,
)

__all__ = [
    "RANDOMISATIONS",
    "RESAMPLES",
    "SAME_ABS",
    "SAME_REL",
    "SEED",
    "Comparison",
    "FloatArray",
    "all_pairs",
    "bca_interval",
    "benjamini_hochberg",
    "cohens_dz",
    "compact_letters",
    "compare",
    "correct",
    "equivalence",
    "hochberg",
    "holm",
    "non_inferiority",
    "paired_differences",
    "paired_t",
    "randomisation",
    "t_interval",
    "t_test",
    "wilcoxon",
]
