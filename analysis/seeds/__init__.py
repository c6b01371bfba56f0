"""Training runs as a factor: how much of a difference another seed could take away.

A paired test over queries asks what other queries would give; it treats the trained models as
given. Here queries *and* training runs are random: the scores of S runs on the same n queries are
a two-way table with one value per cell,

    score[q, s] = mean + query[q] + run[s] + rest[q, s]

whose three variances are estimated from the mean squares of the two-way analysis of variance
(Searle, Casella and McCulloch, 1992, *Variance Components*, §4.6). On such a balanced table these
estimates are those of restricted maximum likelihood (REML) wherever none of them is negative.
"""

from analysis.seeds.model import Components, Difference, components, difference
from analysis.seeds.tables import seed_sd, tables

__all__ = ["Components", "Difference", "components", "difference", "seed_sd", "tables"]
