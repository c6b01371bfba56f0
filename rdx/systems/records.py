"""Register runs of a system as a trial in the form of a cell's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rdx import config, materials, pipeline, rankings
from rdx import evaluation as ev
from rdx.samplers import top
from rdx.store import signature, write_json
from rdx.systems.chosen import Run, outside, tested


def register(
    cell: Any, name: str, runs: Mapping[str, Run], drop_outside: bool = False, source: str = ""
) -> tuple[str, dict[str, Any]]:
    """Register runs of one system, by collection, as a trial in the form of a cell's.

    A system may stand beside re-rankers if it orders the same candidates: its own top k, of which
    every passage must be among the first stage's top k.

    Parameters
    ----------
    cell
        As of `collections`.
    name
        Of the system; tables select it as ``run:NAME``.
    runs
        Its run for every collection.
    drop_outside
        Cut a run to the candidates of the first stage, rather than refuse it.
    source
        Where the runs come from.

    Returns
    -------
    signature, facts
        Of the trial.
    """
    if not hasattr(cell.parts["tracking"], "uri"):
        raise config.ConfigError("tracking=none: an import is nothing but a record in MLflow")
    evaluation, system = cell.parts["evaluation"], f"run:{name}"
    tests, found = {}, {}
    for collection, run in runs.items():
        test, first, beside = tested(cell, collection)
        ranking = _within(run, run.read(test), first, evaluation.k, drop_outside)
        tests[collection] = ev.measure(
            collection, test, first, {system: ranking}, evaluation, known=beside
        )
        found[collection] = {
            **materials.compared(cell, collection, test),
            **tests[collection].facts,
        }
        if cell.local:
            found[collection]["local_copy"] = {"passages": len(test.passages)}
    files = {
        c: {"file": Path(r.path).name, "sha256": r.sha256, "order": r.order}
        for c, r in runs.items()
    }
    content = [one["sha256"] for one in files.values()]
    imported = {
        "name": name,
        "file": ", ".join(dict.fromkeys(one["file"] for one in files.values())),
        "sha256": content[0] if len(content) == 1 else signature(content),
        "files": files,
        "source": source,
    }
    settings = config.identity(evaluation)
    key = signature(["import", name, files, drop_outside, settings, found])
    table = ev.by_corpus(evaluation, tests, found)
    facts = {
        "signature": key,
        "levels": {},
        "seed": 0,
        "health": "ok",
        "collections": found,
        "over_collections": ev.all_means(table, found),
        "imported": imported,
    }
    given = {"imported": imported, "evaluation": cell.cfg["evaluation"]}
    _record(cell, key, facts, given, table, {c: one.systems[system] for c, one in tests.items()})
    return key, facts


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
        one = ranking[strange].iloc[0]
        raise rankings.FormatError(
            f"{run.path}: {int(strange.sum())} of its {len(ranking)} passages (e.g. "
            f"{one.doc_id!r} of query {one.query_id!r}) are not in the first stage's top {k}: it "
            "re-ranks another first stage, or a deeper one; --outside drop cuts it to this one"
        )
    return ranking


def _record(
    cell: Any,
    key: str,
    facts: dict[str, Any],
    given: dict[str, Any],
    table: pd.DataFrame,
    rank: Mapping[str, pd.DataFrame],
) -> None:
    """Write the trial's files into the store and its record into MLflow, unless both are there."""

    def make(folder: Path) -> None:
        (folder / "runs").mkdir(exist_ok=True)
        for collection, ranking in rank.items():
            rankings.write_trec(ranking, folder / "runs" / f"{collection}.run.gz", "rdx")
        rankings.write_parquet(table, folder / pipeline.PER_QUERY)
        write_json(folder / pipeline.FACTS, facts)
        (folder / pipeline.CONFIG).write_text(
            yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
        )

    folder = cell.store.cached("import", key, make)
    track = replace(cell.parts["tracking"], system_metrics=False)
    if track.finished(key):
        return
    name = facts["imported"]["name"]
    means = table.groupby(["collection", "system", "measure"]).value.mean()
    with track.trial(signature=key, levels={}, config=given, grid="", seed=0) as trial:
        trial.set_tag("rdx.imported", name)
        trial.set_tag("mlflow.runName", f"run:{name}")
        trial.set_health(facts["health"])
        trial.log_result(folder, facts, {"/".join(i): float(v) for i, v in means.items()})
