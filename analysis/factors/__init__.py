"""Which choices of a grid matter: analysis of variance with queries and training runs random.

The "grid of points" of Ferro and Silvello (2016), *A general linear mixed models approach to study
system component effects*, SIGIR: every query is answered by every run of the grid. Here queries
are random, runs are random within their cell, and so is what a query makes of a factor; see
`analysis.factors.errors` for the expected mean squares and the error of an effect. Where cells have
several seeds, a test speaks about the choice, on other queries and with other runs; where none has,
about these models on other queries.

Every run has the same queries, so all sums of squares come from contrasts of the runs, whatever the
grid looks like, and no design matrix with a column per query is needed. In a balanced grid type II
and III sums of squares coincide; type II (each term after all that do not contain it) is the
default.
"""

from analysis.factors.anova import (
    QUERY,
    Effect,
    Grid,
    analyse,
    simple_effects,
)
from analysis.factors.errors import Error, Spread
from analysis.factors.levels import Pair, marginal_means, tukey
from analysis.factors.omega import omega_squared
from analysis.factors.tables import Corrected, Design, corrected, designs_of, level_of, tables

__all__ = [
    "QUERY",
    "Corrected",
    "Design",
    "Effect",
    "Error",
    "Grid",
    "Pair",
    "Spread",
    "analyse",
    "corrected",
    "designs_of",
    "level_of",
    "marginal_means",
    "omega_squared",
    "simple_effects",
    "tables",
    "tukey",
]
