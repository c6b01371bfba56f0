"""What got lost between a cell's training queries and its lists: counted, shown, recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import accounting
from rdx.data import Collection
from rdx.materials import tested_queries
from rdx.store import write_json

QUERIES = "queries.json"
_WARNED: set[str] = set()  # once a process: both stages look, and so does every cell of a grid


def of_training(
    cell: Any,
    folder: Path,
    split: Collection,
    ranking: pd.DataFrame,
    taught: pd.DataFrame,
    selected: pd.DataFrame,
    used: list[str],
) -> accounting.Counts:
    """Counts of the data of stage 2; the fate of every query is written to `folder`.

    `selected` are the passages that the depth keeps, `used` the queries that have a list.
    """
    path = cell.store.root / "candidates" / cell.keys["candidates"] / QUERIES
    sampled = json.loads(path.read_text())
    asked = [str(query_id) for query_id in sampled["queries"]]
    fates = accounting.fates(asked, ranking, taught, selected, used)
    write_json(folder / QUERIES, {"collection": split.name, "queries": fates})
    kept = selected[selected.query_id.isin(used)]
    counts = accounting.of_queries(fates)
    counts["passages_missing"] = accounting.Count(
        *sampled.get("passages_missing", (0, len(ranking)))
    )
    counts |= accounting.of_labels(ranking, taught, kept, cell.parts["depth"].k)
    counts |= accounting.of_texts(kept, split.queries, split.passages)
    return counts | overlaps(cell, split.name, {q: split.queries[q] for q in fates})


def overlaps(cell: Any, collection: str, queries: Mapping[str, str]) -> accounting.Counts:
    """Count training queries that are tested; warn of these, and of test sets that collide."""
    tests = {}
    for name in cell.parts["evaluation"].collections:
        test = tested_queries(cell, name)
        tests[name] = accounting.QuerySet(test.name, test.queries)
    count, messages = accounting.leaks(accounting.QuerySet(collection, queries), tests)
    for message in (*messages, *accounting.collisions(tests)):
        if message not in _WARNED:
            print(f"WARNING  {message}")
            _WARNED.add(message)
    return {"train_queries_tested": count}


def show(
    cell: Any, trial: Any, name: str, counts: accounting.Counts, oddities: Mapping[str, int]
) -> None:
    """Print and record counts, and stop if one is beyond its limit."""
    if not counts:
        return
    print(accounting.block(name, counts, oddities))
    trial.log_step("labels", 0, {f"lost/{what}": float(one.n) for what, one in counts.items()})
    accounting.check(counts, cell.cfg.get("limits") or {})
