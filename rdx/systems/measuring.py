"""Measure runs, and compare what finished cells cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import config, materials, pipeline
from rdx import evaluation as ev
from rdx.samplers import top
from rdx.store import read_json
from rdx.systems.chosen import Run, candidates, outside


def evaluate(
    cell: Any, name: str, runs: Sequence[Run], with_first_stage: bool
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Measure runs on one test collection.

    Runs are measured as deep as they are. Without a first stage, a run's ceiling is the best order
    of its own top k.

    Returns
    -------
    per_query, rows
        The per-query table, and per system its name, means by measure, "ceiling" of the first
        measure, "judged@10", "queries", "missing" (judged queries that it does not rank; they count
        0), "ties" (share of neighbours in the top k with equal scores), "outside" (share of
        passages that the first stage does not have, None without one) and "degenerate" (why; "" if
        it is not).
    """
    evaluation = cell.parts["evaluation"]
    test = materials.tested_queries(cell, name)
    systems = {}
    for run in runs:
        if run.name in systems:
            raise config.ConfigError(
                f"{run.path}: a second system {run.name!r}; rename one of the files"
            )
        systems[run.name] = run.read(test)
    first = candidates(cell, name, test) if with_first_stage else None
    if first is not None:
        systems = {"first_stage": first, **systems}
    rows, tables = [], []
    for system, ranking in systems.items():
        pool = top(ranking, evaluation.k) if first is None else first
        found = ev.measure(name, test, pool, {system: ranking}, evaluation)
        tables.append(found.table[found.table.system == system])
        rows.append({
            "system": system,
            **tables[-1].groupby("measure", sort=False).value.mean().to_dict(),
            "ceiling": found.facts["ceiling"],
            "judged@10": found.facts["judged@10"],
            "queries": test.qrels.query_id.nunique(),
            "missing": len(set(test.qrels.query_id) - set(ranking.query_id)),
            "ties": found.facts["ties"]["system"],
            "outside": None if first is None else float(outside(ranking, first).mean()),
            "degenerate": found.facts["reason"],
        })  # fmt: skip
    return pd.concat(tables, ignore_index=True), rows


def timings(store: Path, signatures: Sequence[str]) -> list[dict[str, Any]]:
    """The timings of single queries of finished cells, one row per cell and collection.

    Returns
    -------
    list of dict
        "cell", "collection", what `rdx.evaluation.timed` gave, and "ratio": seconds per query in
        units of the first cell's, with its 95 % interval; None for the first cell itself.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for given in signatures:
        found = sorted((store / "evaluate").glob(f"{given}*/{pipeline.FACTS}"))
        if len(found) != 1:
            raise config.ConfigError(f"{given}: {len(found)} finished cells in {store}/evaluate")
        timing = read_json(found[0]).get("timing", {})
        if not any("single" in one for one in timing.values()):
            raise config.ConfigError(
                f"{given}: was not timed; run its command with evaluation.efficiency=3"
            )
        for name, measured in timing.items():
            one = measured["single"]
            base = first.setdefault(name, one)
            ratio = None if base is one else ev.ratio(one["seconds"], base["seconds"])
            rows.append({"cell": given, "collection": name, **one, "ratio": ratio})
    return rows
