"""Power analysis: how small a difference an experiment can find.

One model throughout. Two systems are compared on the same n queries, each trained with S seeds;
the mean difference has the standard error

    sqrt(sd² / n + k · seed_sd² / S)

where `sd` is the standard deviation over queries of the per-query difference (of means over
seeds), `seed_sd` that over training runs of one system's mean score, the part that more queries do
not remove, and k the number of sides that are trained (2, or 1 against a first stage). The test is
the one of `analysis.significance.runs`: a two-sided t-test with queries and runs random, its
degrees of freedom after Satterthwaite (1946) from n - 1 of the queries and m (S - 1) of the runs,
where m systems tell together how far a run carries. With seed_sd = 0 this is the paired t-test
exactly. With one seed that test cannot be made: what is given is the power of the paired t-test
over queries, n - 1 degrees of freedom, against differences that the runs blur.
Cohen (1988), *Statistical power analysis*, §2; for retrieval experiments Sakai (2016), *Statistical
significance, power, and sample sizes*, SIGIR.

Own code, since `statsmodels.stats.power.TTestPower` knows no variance between training runs, takes
one number at a time, and gives NaN far out.
"""

from rdx.power.model import Design, Sensitivity, detectable, sensitivity
from rdx.power.spreads import (
    ASSUMED_SD,
    ASSUMED_SEED_SD,
    Assumption,
    pooled_run_sd,
    pooled_seed_sd,
    spread,
)

__all__ = [
    "ASSUMED_SD",
    "ASSUMED_SEED_SD",
    "Assumption",
    "Design",
    "Sensitivity",
    "detectable",
    "pooled_run_sd",
    "pooled_seed_sd",
    "sensitivity",
    "spread",
]
