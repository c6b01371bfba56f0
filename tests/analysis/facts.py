"""Facts of synthetic trials: whole records, of which a test names what it is about."""

from dataclasses import replace

import yaml

from rdx.config import GROUPS, Cell
from rdx.facts import (
    OK,
    CollectionFacts,
    Energy,
    Hardware,
    Imported,
    Latency,
    Means,
    OverCollections,
    Peak,
    QueryTiming,
    Ties,
    Timing,
    TrialFacts,
)

COLLECTION = CollectionFacts(
    queries=4,
    k=10,
    digest="d",
    first_stage={"engine": "bm25s"},
    judged_at_10=0.5,
    judged_at_10_first_stage=0.5,
    ceiling=0.9,
    reason="",
    missing_queries=0,
    ties=Ties("trec_eval", 0.0, 0.0),
)
HARDWARE = Hardware(device="CPU", cpu="x86", cores=2, threads=2, torch="2")
NOTHING = OverCollections(
    collections=Means(corpora=(), left_out={}, arithmetic={}, geometric={}), paper_compat=None
)


def cell(overrides, grid="", signature="", levels=(), **cfg):
    """A cell whose options and values are those of its overrides, and what else is given."""
    levels = dict(levels)
    for override in overrides:
        key, _, value = override.removeprefix("+").partition("=")
        if key in GROUPS or "/" in key:
            levels[key] = value
        elif key != "experiments":
            *parents, name = key.split(".")
            node = cfg
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = yaml.safe_load(value)
    return Cell(tuple(overrides), grid, cfg, levels, signature)


def collection(**changes):
    """Facts of a collection."""
    return replace(COLLECTION, **changes)


def trial(signature, seed=1, collections=None, health=OK, **more):
    """Facts of a trial; by default it was evaluated on nothing."""
    known = {"signatures": {}, "levels": {}, "over_collections": NOTHING, "means": {}}
    return TrialFacts(
        signature=signature, seed=seed, health=health, collections=collections or {},
        **{**known, **more},
    )  # fmt: skip


def imported(name, **changes):
    """How a run was imported."""
    return replace(Imported(name=name, file="", sha256="", files={}), **changes)


def timing(seconds, memory=10**9, pairs_per_second=50.0, **changes):
    """Timing of single queries: query -> seconds per repetition."""
    single = QueryTiming(
        seconds=seconds,
        pairs={},
        latency=Latency(p50=0, p95=0, mean=0),
        pairs_per_second=pairs_per_second,
        peak_memory=Peak(rss=memory),
        energy=Energy(),
        hardware=HARDWARE,
        warm_up=1,
        repetitions=1,
        precision="fp32",
        max_tokens=1,
    )
    return Timing(
        seconds=8.0, pairs_per_second=1.0, queries=len(seconds), texts=1, texts_truncated=0,
        single=replace(single, **changes),
    )  # fmt: skip
