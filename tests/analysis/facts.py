"""Facts of synthetic trials: whole records, of which a test names what it is about."""

from dataclasses import replace

import yaml

from rdx.config import GROUPS, Cell
from rdx.facts import Energy, Hardware, Imported, Latency, Peak, QueryTiming, Timing
from tests.records import COLLECTION, collection, trial

__all__ = ["COLLECTION", "HARDWARE", "cell", "collection", "imported", "timing", "trial"]
HARDWARE = Hardware(device="CPU", cpu="x86", cores=2, threads=2, torch="2")


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
