"""Means of a row over collections: columns of their own, which no test is made on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from scipy import stats

from analysis.rows import Row
from analysis.scores import Scores
from analysis.spec import Mean
from rdx.facts import CollectionFacts, TrialFacts

Key = tuple[str, str, str]


def declared(facts: Iterable[TrialFacts], collections: Iterable[str]) -> tuple[Mean, ...]:
    """The means that trials name themselves (``evaluation.means``), over collections shown.

    Of two trials with other test sets under one name, none is.
    """
    shown = set(collections)
    named = [
        (name, of.corpora) for trial in facts for name, of in trial.over_collections.named.items()
    ]
    distinct = dict.fromkeys(named)
    names = [name for name, _ in distinct]
    return tuple(
        Mean(name, of, "arithmetic")
        for name, of in distinct
        if names.count(name) == 1 and shown.issuperset(of)
    )


def averaged(
    mean: Mean, collections: Iterable[str], facts: Mapping[str, CollectionFacts]
) -> list[str]:
    """The collections of a mean: those that it names; else all but degenerate ones.

    A trial also says of some collections that they do not count (``in_mean``), e.g. of the pooled
    ones, which hold the queries of others.
    """
    if mean.of:
        return list(mean.of)
    return [c for c in collections if c not in facts or not why_left_out(facts[c])]


def why_left_out(facts: CollectionFacts) -> str:
    """Why a collection counts in no mean that does not name it; "" if it does."""
    if facts.selected_on:
        return "weights were selected on it"
    return facts.reason or ("" if facts.in_mean else "not one of the sets that are averaged")


def over_collections(
    means: Iterable[Mean],
    rows: Iterable[Row],
    measures: Iterable[str],
    collections: Iterable[str],
    facts: Mapping[str, CollectionFacts],
    scores: dict[Key, Scores],
) -> dict[Key, Scores]:
    """(row, name of the mean, measure) -> its value, one for each seed.

    Every collection weighs the same, however many queries it has; arithmetic or geometric (0 if one
    of them is 0). The mean of a row is that of its seeds' values. Absent if a collection is.

    Returns
    -------
    dict
        `Scores` of shape [1, s]: the mean stands in the place of a query.
    """
    names, rows, measures = list(collections), list(rows), list(measures)
    columns: dict[Key, Scores] = {}
    for mean in means:
        averaged_over = averaged(mean, names, facts)
        for row in rows:
            for measure in measures:
                parts = [scores.get((row.name, c, measure)) for c in averaged_over]
                present = [part for part in parts if part is not None]
                if present and len(present) == len(averaged_over):
                    columns[row.name, mean.name, measure] = _mean(mean, present)
    return columns


def _mean(mean: Mean, parts: list[Scores]) -> Scores:
    seeds = next((part.seeds for part in parts if part.seeds), ())
    width = max(part.values.shape[1] for part in parts)
    values = np.stack([np.broadcast_to(part.seed_means, width) for part in parts])
    if mean.kind == "arithmetic":
        return Scores((mean.name,), values.mean(axis=0)[None], seeds)
    with np.errstate(divide="ignore"):
        return Scores((mean.name,), np.asarray(stats.gmean(values, axis=0))[None], seeds)
