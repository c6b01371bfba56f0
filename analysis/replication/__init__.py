"""Does a number come out again? A verdict per published number, and measures of how close.

A published mean and ours are of the same queries, so other queries are no excuse for a difference
between them. What is: rounding in print, what the authors' own releases differ by, ties in a
ranking that another program orders differently, and that a training run is a draw.

The measures of closeness are those of Breuer et al. (2020), *How to measure the reproducibility of
system-oriented IR experiments*, SIGIR, and give the values of their package repro_eval (0.5).
"""

from analysis.replication.closeness import (
    delta_relative_improvement,
    effect_ratio,
    kendall_tau_union,
    rbo,
    rmse,
)
from analysis.replication.table import judge, table
from analysis.replication.verdicts import (
    DIFFERS,
    NOT_RUN,
    REPRODUCED,
    VERDICTS,
    WITHIN_NOISE,
    Noise,
    Verdict,
    printed_decimals,
    verdict,
)

__all__ = [
    "DIFFERS",
    "NOT_RUN",
    "REPRODUCED",
    "VERDICTS",
    "WITHIN_NOISE",
    "Noise",
    "Verdict",
    "delta_relative_improvement",
    "effect_ratio",
    "judge",
    "kendall_tau_union",
    "printed_decimals",
    "rbo",
    "rmse",
    "table",
    "verdict",
]
