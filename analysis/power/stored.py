"""Standard deviations for a plan, out of the per-query scores of trials that are there."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from statistics import fmean, median

from analysis.power.calculation import ASSUMED_SD, ASSUMED_SEED_SD, Assumption, spread
from analysis.replication import pooled_seed_sd

Runs = Mapping[int, Mapping[str, float]]


def measured(systems: Mapping[str, Runs]) -> Assumption:
    """What the trained systems of one collection say about the noise of the next ones.

    Parameters
    ----------
    systems : mapping of str to mapping of int to mapping of str to float
        System -> seed -> query -> score.

    Returns
    -------
    Assumption
        sd: the median over all pairs of systems of the standard deviation over their common
        queries of the difference of their means over seeds; pairs that never differ say nothing.
        seed_sd: of mean scores over seeds, pooled over the systems that have several. What no
        trial tells is assumed, and `source` says which is which.
    """
    means = {name: _mean_over_seeds(runs) for name, runs in systems.items() if runs}
    spreads = []
    for one, other in combinations(means.values(), 2):
        common = [query for query in one if query in other]
        sd = spread([one[q] for q in common], [other[q] for q in common])
        if sd > 0:
            spreads.append(sd)
    pooled = pooled_seed_sd(
        [
            [fmean(scores.values()) for scores in runs.values() if scores]
            for runs in systems.values()
        ]
    )
    told = (
        f"over queries of the stored trials (median of {len(spreads)} pairs of systems)"
        if spreads
        else "over queries assumed"
    )
    return Assumption(
        sd=median(spreads) if spreads else ASSUMED_SD,
        seed_sd=ASSUMED_SEED_SD if pooled is None else pooled[0],
        source=told
        + ", over seeds "
        + ("assumed" if pooled is None else f"of the stored trials ({pooled[1]} df)"),
    )


def _mean_over_seeds(runs: Runs) -> dict[str, float]:
    """Query -> mean over seeds, of the queries that all seeds have."""
    first, *others = runs.values()
    return {
        query: fmean([first[query], *(one[query] for one in others)])
        for query in first
        if all(query in one for one in others)
    }
