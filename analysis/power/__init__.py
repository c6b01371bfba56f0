"""How small a difference an experiment can find: before it is run, and of one that was.

One model throughout. Two systems are compared on the same n queries, each trained with S seeds;
the mean difference has the standard error

    sqrt(sd² / n + k · seed_sd² / S)

where `sd` is the standard deviation over queries of the per-query difference (of means over
seeds), `seed_sd` that over training runs of one system's mean score, the part that more queries do
not remove, and k the number of sides that are trained (2, or 1 against a first stage). The test is
a two-sided t-test with n - 1 degrees of freedom. With seed_sd = 0 this is the paired t-test
exactly; with seed_sd > 0 its variance is taken as known, so a few seeds promise a little too much.
Cohen (1988), *Statistical power analysis*, §2; for retrieval experiments Sakai (2016), *Statistical
significance, power, and sample sizes*, SIGIR.
"""

from analysis.power.calculation import (
    ASSUMED_SD,
    ASSUMED_SEED_SD,
    Assumption,
    detectable,
    power_of,
    queries_needed,
    seeds_needed,
    spread,
    standard_error,
)
from analysis.power.plans import Plan, planned, report
from analysis.power.stored import measured

__all__ = [
    "ASSUMED_SD",
    "ASSUMED_SEED_SD",
    "Assumption",
    "Plan",
    "detectable",
    "measured",
    "planned",
    "power_of",
    "queries_needed",
    "report",
    "seeds_needed",
    "spread",
    "standard_error",
]
