"""Register runs of a system as a trial that has the form of a cell's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rdx import config, rankings
from rdx import evaluation as ev
from rdx.artifacts import Evaluated
from rdx.facts import OK, CollectionFacts, Counts, Imported, TrialFacts, dump, shallow
from rdx.samplers import top
from rdx.store import signature
from rdx.systems.runs import Run, outside
from rdx.systems.testbed import Testbed
from rdx.tracking import MLflow


def register(
    testbed: Testbed,
    name: str,
    runs: Mapping[str, Run],
    drop_outside: bool = False,
    source: str = "",
) -> TrialFacts:
    """Register runs of one system, by collection, as a trial in the form of a cell's.

    A system may stand beside re-rankers if it orders the same candidates: its own top k, of which
    every passage must be among the first stage's top k.

    Parameters
    ----------
    testbed
        What the runs are measured on.
    name
        Of the system; tables select it as ``run:NAME``.
    runs
        Its run for every collection.
    drop_outside
        Cut a run to the candidates of the first stage, rather than refuse it.
    source
        Where the runs come from.
    """
    tracking = testbed.job.parts.tracking
    if not isinstance(tracking, MLflow):
        raise config.ConfigError("tracking=none: an import is nothing but a record in MLflow")
    evaluation, system = testbed.evaluation, f"run:{name}"
    tests, settings, odd = {}, {}, {}
    for collection, run in runs.items():
        on = testbed.tests(collection)
        read = run.read(on.collection, evaluation.self_retrieval_of(collection))
        odd[collection] = read.counts
        for message in read.warnings():
            print(f"WARNING  {run.path}: {message}")
        depth = evaluation.depth(collection)
        ranking = _within(run, read.ranking, on.first_stage, depth, drop_outside)
        tests[collection] = ev.measure(
            *(collection, on.collection, on.first_stage, {system: ranking}, evaluation),
            known=on.baselines,
        )
        settings[collection] = testbed.setting(collection, on.collection)
    imported = _imported(name, runs, odd, source)
    table, facts = ev.by_corpus(evaluation, tests, settings)
    means = {name: of for name, of in evaluation.means.items() if set(of) <= set(runs)}
    over = ev.over_collections(table, facts, means)
    trial = TrialFacts(
        signature=_signature(testbed, imported, drop_outside, facts),
        signatures={},
        levels={},
        seed=0,
        health=OK,
        collections=facts,
        over_collections=over,
        means=ev.named_means(table, over),
        imported=imported,
    )
    systems = {collection: test.systems[system] for collection, test in tests.items()}
    _record(testbed, tracking, imported, trial, table, systems)
    return trial


def _imported(
    name: str, runs: Mapping[str, Run], odd: Mapping[str, Counts], source: str
) -> Imported:
    files = {collection: run.imported for collection, run in runs.items()}
    contents = [file.sha256 for file in files.values()]
    return Imported(
        name=name,
        file=", ".join(dict.fromkeys(file.file for file in files.values())),
        sha256=contents[0] if len(contents) == 1 else signature(contents),
        files=files,
        source=source,
        oddities={
            collection: {what: count for what, count in counts.items() if count.n}
            for collection, counts in odd.items()
        },
    )


def _signature(
    testbed: Testbed,
    imported: Imported,
    drop_outside: bool,
    facts: Mapping[str, CollectionFacts],
) -> str:
    return signature([
        "import",
        imported.name,
        {collection: shallow(file) for collection, file in imported.files.items()},
        drop_outside,
        config.identity(testbed.evaluation),
        {collection: dump(facts_of) for collection, facts_of in facts.items()},
    ])  # fmt: skip


def _within(
    run: Run, ranking: pd.DataFrame, first: pd.DataFrame, k: int, drop: bool
) -> pd.DataFrame:
    """A run's top k, all of them candidates."""
    if drop:
        ranking = ranking[~outside(ranking, first)]
        if ranking.empty:
            raise rankings.FormatError(f"{run.path}: holds none of the first stage's candidates")
        ranking = rankings.rank(ranking.query_id, ranking.doc_id, ranking.score)
    ranking = top(ranking, k)
    strange = outside(ranking, first)
    if strange.any():
        example = ranking[strange].iloc[0]
        raise rankings.FormatError(
            f"{run.path}: {int(strange.sum())} of its {len(ranking)} passages (e.g. "
            f"{example.doc_id!r} of query {example.query_id!r}) are not in the first stage's top "
            f"{k}: it re-ranks another first stage, or a deeper one; --outside drop cuts it to this"
        )
    return ranking


def _record(
    testbed: Testbed,
    tracking: MLflow,
    imported: Imported,
    trial: TrialFacts,
    table: pd.DataFrame,
    runs: Mapping[str, pd.DataFrame],
) -> None:
    """Write the trial's files into the store and its record into MLflow, unless both are there."""
    description = {
        "imported": json.loads(dump(imported)),
        "evaluation": testbed.job.cell.cfg["evaluation"],
    }

    def make(folder: Path) -> None:
        Evaluated.write_runs(folder, runs)
        Evaluated.write(folder, trial, table, description)

    store = testbed.job.store
    folder = store.cached("import", trial.signature, make)
    tracking = replace(tracking, system_metrics=False)
    if tracking.finished(store.root, trial.signature):
        return
    with tracking.trial(
        store=store.root, signature=trial.signature, levels={}, config=description, grid="", seed=0
    ) as recorded:
        recorded.set_tag("rdx.imported", imported.name)
        recorded.set_tag("mlflow.runName", f"run:{imported.name}")
        recorded.set_health(trial.health)
        recorded.log_result(folder, trial)
