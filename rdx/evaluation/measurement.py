"""Measure rankings of one test collection beside its first stage and the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from rdx.collection import Collection
from rdx.evaluation.measures import judged, per_query, tie_range
from rdx.evaluation.quality import quality_of
from rdx.evaluation.reranking import oracle
from rdx.evaluation.settings import Evaluation
from rdx.facts import Quality

TieRanges = dict[str, dict[str, tuple[float, float]]]


@dataclass(frozen=True)
class Tested:
    """A test collection, and what is known of the rankings of its queries.

    Attributes
    ----------
    collection
        Has the queries and their qrels.
    systems
        Rankings by system.
    table
        Their per-query table [collection, system, query_id, measure, value].
    quality
        What stands beside the scores.
    """

    __test__ = False  # not a test case of pytest

    collection: Collection
    systems: Mapping[str, pd.DataFrame]
    table: pd.DataFrame
    quality: Quality


@dataclass(frozen=True)
class Baselines:
    """The first stage of a collection and the oracle, the same for every system.

    Attributes
    ----------
    systems, table
        As of `Tested`, of "first_stage" and "oracle".
    tie_range
        As of `rdx.facts.Quality`.
    judged
        Judged@10 of the first stage.
    """

    systems: Mapping[str, pd.DataFrame]
    table: pd.DataFrame
    tie_range: TieRanges
    judged: float


def baselines(
    name: str, test: Collection, first: pd.DataFrame, evaluation: Evaluation
) -> Baselines:
    """Measure first stage and oracle of a collection; parameters as of `measure`."""
    systems = {"first_stage": first, "oracle": oracle(first, test.qrels)}
    table = per_query(name, systems, test.qrels, evaluation.measures, evaluation.ties)
    ranges = _tie_ranges({"first_stage": first}, test.qrels, evaluation)
    return Baselines(systems, table, ranges, judged(first, test.qrels))


def measure(
    name: str,
    test: Collection,
    first: pd.DataFrame,
    systems: Mapping[str, pd.DataFrame],
    evaluation: Evaluation,
    partial: Mapping[str, pd.DataFrame] | None = None,
    known: Baselines | None = None,
) -> Tested:
    """Measure rankings of a collection beside its first stage and the oracle.

    Parameters
    ----------
    name
        Of the collection.
    test
        The collection, cut down to the tested queries.
    first
        The candidates.
    systems
        Rankings of the tested queries; `Tested.quality` is about the first of them.
    evaluation
        The settings.
    partial
        Rankings of some of the queries, measured on these alone.
    known
        What `baselines` gave, where several systems are measured one after the other.
    """
    qrels, partial = test.qrels, partial or {}
    beside = known or baselines(name, test, first, evaluation)
    groups = [(systems, qrels)]
    for system, ranking in partial.items():
        groups.append(({system: ranking}, qrels[qrels.query_id.isin(ranking.query_id)]))
    tables, ranges = [beside.table], dict(beside.tie_range)
    for rankings, judgements in groups:
        tables.append(per_query(name, rankings, judgements, evaluation.measures, evaluation.ties))
        ranges |= _tie_ranges(rankings, judgements, evaluation)
    ranking = next(iter(systems.values()))
    quality = quality_of(first, ranking, qrels, beside.table, evaluation, beside.judged)
    return Tested(
        test,
        {**beside.systems, **systems, **partial},
        pd.concat(tables, ignore_index=True),
        replace(quality, tie_range=ranges),
    )


def _tie_ranges(
    systems: Mapping[str, pd.DataFrame], qrels: pd.DataFrame, evaluation: Evaluation
) -> TieRanges:
    """The `tie_range` of systems with tied passages, where scores decide."""
    if evaluation.ties == "rank":
        return {}
    ranges = {s: tie_range(ranking, qrels, evaluation.measures) for s, ranking in systems.items()}
    return {system: own for system, own in ranges.items() if own}
