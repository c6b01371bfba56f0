"""What the stages of a cell work on: collections, indexes and first stages, each made once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from rdx import config, rankings
from rdx.data import Collection, sample_queries
from rdx.store import Store, signature


def assemble(cfg: dict[str, Any]) -> SimpleNamespace:
    """A cell's configuration, signatures, store, and the objects of its groups."""
    return SimpleNamespace(
        cfg=cfg,
        keys=config.signatures(cfg),
        store=Store(Path(cfg["store"])),
        parts={group: config.build(cfg[group], group) for group in config.GROUPS},
    )


def load(cell: Any, group: str, split: str) -> Collection:
    """A split of the training collection."""
    return loaded(cell, cell.parts[group], cell.cfg[group], split)


def loaded(cell: Any, data: Any, node: Any, split: str) -> Collection:
    """Load a split of a collection, which is read, checked and laid out on disk once."""
    key = signature(config.identity(data, config.FILES))
    return data.load(split, cell.store.cached("collection", key, data.prepare))


def indexed(cell: Any, sampler: Any, data: Any, split: Collection) -> Path:
    """The folder of a sampler's index of a collection's passages, made once for all its queries.

    `data` is the configuration of the collection.
    """
    of = {
        "schema": config.SCHEMA,
        "index": sampler.index_of(config.identity(config.built(data, "data"), config.PASSAGES)),
    }
    return cell.store.cached("index", signature(of), partial(sampler.prepare, split))


def retrieved(
    cell: Any, sampler: Any, nodes: tuple[Any, Any], split: Collection, k: int
) -> pd.DataFrame:
    """A sampler's ranking of all queries of a collection, retrieved once for all cells.

    `nodes` are the configurations of the sampler and of the collection.
    """

    def make(folder: Path) -> None:
        ranking = sampler.candidates(split, k, indexed(cell, sampler, nodes[1], split))
        rankings.write_parquet(ranking, folder / "candidates.parquet")

    part = [config.identity(config.built(node, "")) for node in nodes]
    asked = (*part, sorted(split.queries), k)
    key = signature({"stage": "retrieve", "schema": config.SCHEMA, "needs": asked})
    return rankings.read_parquet(cell.store.cached("retrieve", key, make) / "candidates.parquet")


def tested(cell: Any, name: str) -> tuple[Collection, pd.DataFrame]:
    """A test collection, cut down to the queries that are tested, and its first stage."""
    evaluation = cell.parts["evaluation"]
    test, sampler = tested_queries(cell, name), evaluation.collections[name].first_stage
    node = cell.cfg["evaluation"]["collections"][name]
    nodes = (node["first_stage"], node["data"])
    return test, retrieved(cell, sampler, nodes, test, evaluation.k)


def tested_queries(cell: Any, name: str) -> Collection:
    """A test collection, cut down to the queries that are tested."""
    test_set = cell.parts["evaluation"].collections[name]
    node = cell.cfg["evaluation"]["collections"][name]
    test = loaded(cell, test_set.data, node["data"], test_set.split)
    judged = [q for q in dict.fromkeys(test.qrels.query_id) if q in test.queries]
    count = None if test_set.queries is None else min(test_set.queries, len(judged))
    return test.subset(sample_queries(judged, count, 0))


def compared(cell: Any, name: str, test: Collection) -> dict[str, Any]:
    """What must be equal before two systems may stand in one table, and where it is averaged."""
    evaluation = cell.parts["evaluation"]
    test_set = evaluation.collections[name]
    identity = config.identity(test_set.data)
    return {
        "queries": len(test.queries),
        "k": evaluation.k,
        "first_stage": test_set.first_stage.fingerprint(),
        "digest": signature([identity, sorted(test.queries)]),
        "corpus": test_set.corpus,
        "in_mean": test_set.in_mean,
    }


def dev(cell: Any) -> tuple[Collection, pd.DataFrame]:
    """Some judged dev queries of the training collection, and their first stage.

    What is re-ranked is what the first stage found; no relevant passage is added to it.
    """
    evaluation = cell.parts["evaluation"]
    split = load(cell, "data", "dev")
    judged = [q for q in dict.fromkeys(split.qrels.query_id) if q in split.queries]
    some = split.subset(sample_queries(judged, min(evaluation.dev_queries, len(judged)), 0))
    nodes = (cell.cfg["evaluation"]["dev_first_stage"], cell.cfg["data"])
    return some, retrieved(cell, evaluation.dev_first_stage, nodes, some, evaluation.k)
