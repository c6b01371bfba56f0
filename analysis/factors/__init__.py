"""Which choices of a grid matter: analysis of variance with the queries as blocks.

The "grid of points" of Ferro and Silvello (2016), *A general linear mixed models approach to study
system component effects*, SIGIR: every query is answered by every run of the grid, and its score is

    score[run, query] = mean + query + factors of the run and their interactions + rest

Every run has the same queries, so queries are orthogonal to the factors whatever the grid looks
like: all sums of squares come from the mean scores of the runs, a small least-squares problem, and
no design matrix with a column per query is needed. In a balanced grid type II and III sums of
squares coincide; type II (each term after all that do not contain it) is the default.

The rest is the variance that differs from query to query. A test against it asks what other
queries would give, with these trained models. Where cells were run with several seeds, `p_runs`
tests against the variance between runs of one cell instead: whether a choice does more than
another seed does.
"""

from analysis.factors.anova import (
    QUERY,
    Effect,
    Grid,
    analyse,
    omega_squared,
    simple_effects,
)
from analysis.factors.levels import Pair, marginal_means, tukey
from analysis.factors.tables import level_of, tables

__all__ = [
    "QUERY",
    "Effect",
    "Grid",
    "Pair",
    "analyse",
    "level_of",
    "marginal_means",
    "omega_squared",
    "simple_effects",
    "tables",
    "tukey",
]
