"""Measure runs, and compare what finished cells cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import config
from rdx import evaluation as ev
from rdx import store as stores
from rdx.artifacts import TRIAL
from rdx.facts import Quality, QueryTiming, TrialFacts
from rdx.samplers import top
from rdx.systems.runs import ReadRun, Run, outside
from rdx.systems.testbed import Testbed


@dataclass(frozen=True)
class Scored:
    """A measured system.

    Attributes
    ----------
    system
        Its name.
    means
        Measure -> mean over queries.
    quality
        What stands beside them.
    queries, missing
        Judged queries, and those that it does not rank: they count 0.
    outside
        Share of passages that the first stage does not have; None without one.
    run
        What is odd in its file; None of the first stage.
    """

    system: str
    means: dict[str, float]
    quality: Quality
    queries: int
    missing: int
    outside: float | None
    run: ReadRun | None = None


def evaluate(
    testbed: Testbed, name: str, runs: Sequence[Run], with_first_stage: bool
) -> tuple[pd.DataFrame, list[Scored]]:
    """Measure runs on one test collection; the per-query table and what is known of each system.

    Runs are measured as deep as they are. Without a first stage, a run's ceiling is the best order
    of its own top k.
    """
    evaluation, test = testbed.evaluation, testbed.queries(name)
    systems: dict[str, pd.DataFrame] = {}
    odd: dict[str, ReadRun] = {}
    for run in runs:
        if run.name in systems:
            raise config.ConfigError(
                f"{run.path}: a second system {run.name!r}; rename one of the files"
            )
        odd[run.name] = run.read(test, evaluation.self_retrieval_of(name))
        systems[run.name] = odd[run.name].ranking
    first = testbed.candidates(name, test) if with_first_stage else None
    if first is not None:
        systems = {"first_stage": first, **systems}
    scored, tables = [], []
    for system, ranking in systems.items():
        candidates = top(ranking, evaluation.depth(name)) if first is None else first
        tested = ev.measure(name, test, candidates, {system: ranking}, evaluation)
        per_query = tested.table[tested.table.system == system]
        tables.append(per_query)
        scored.append(
            Scored(
                system,
                per_query.groupby("measure", sort=False).value.mean().to_dict(),
                tested.quality,
                queries=test.qrels.query_id.nunique(),
                missing=len(set(test.qrels.query_id) - set(ranking.query_id)),
                outside=None if first is None else float(outside(ranking, first).mean()),
                run=odd.get(system),
            )
        )
    return pd.concat(tables, ignore_index=True), scored


@dataclass(frozen=True)
class Cost:
    """What re-ranking the queries of a collection one by one costs a finished cell.

    Attributes
    ----------
    cell, collection
        Its signature as it was given; the name of the collection.
    timing
        What was measured.
    ratio
        Seconds per query in units of the first cell's, with the bounds of the 95 % interval; None
        of the first cell itself.
    """

    cell: str
    collection: str
    timing: QueryTiming
    ratio: tuple[float, float, float] | None


def timings(store: Path, signatures: Sequence[str]) -> list[Cost]:
    """The costs of finished cells, by cell and collection."""
    costs: list[Cost] = []
    first: dict[str, QueryTiming] = {}
    for beginning in signatures:
        paths = sorted((store / "evaluate").glob(f"{beginning}*/{TRIAL}"))
        if len(paths) != 1:
            raise config.ConfigError(
                f"{beginning}: {len(paths)} finished cells in {store}/evaluate"
            )
        timing = stores.read(TrialFacts, paths[0]).timing
        timed = {
            name: timing_of.single
            for name, timing_of in timing.items()
            if timing_of.single is not None
        }
        if not timed:
            raise config.ConfigError(
                f"{beginning}: was not timed; run its command with evaluation.efficiency=3"
            )
        for name, single in timed.items():
            unit = first.setdefault(name, single)
            ratio = None if unit is single else ev.ratio(single.seconds, unit.seconds)
            costs.append(Cost(beginning, name, single, ratio))
    return costs
