"""Whole summaries of synthetic trials, for the tests of figures and of the report page."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest

from analysis.spec import parse
from analysis.summary import summarise
from analysis.trials import Trials
from tests.analysis.facts import cell, timing, trial
from tests.analysis.facts import collection as collection_facts

REFERENCES = {"first_stage": -0.12, "oracle": 0.3, "teacher": 0.03}


def trials_of(grid, collections, effect, measures=("nDCG@10",)):
    """Trials of sub-grids: name -> list of override tuples, seed included.

    `collections` maps a name to (queries, engine of the first stage); `effect(overrides)` is the
    mean score of a student above .5.
    """
    cells, facts, frames, runs = [], {}, [], {}
    for name, settings in grid.items():
        for overrides in settings:
            seed = int(dict(o.split("=") for o in overrides)["seed"])
            signature = sha256(repr(overrides).encode()).hexdigest()[:16]
            cells.append(cell(overrides, name, signature))
            runs[signature] = f"run{len(cells):02}{signature[:6]}"
            facts[signature] = trial(signature, seed)
            for c, (collection, (n, engine)) in enumerate(collections.items()):
                queries = [f"{collection}-{i:03}" for i in range(n)]
                hard = np.random.default_rng(c).normal(0, 0.2, n)
                noise = np.random.default_rng(abs(len(cells) * 31 + c)).normal(0, 0.08, n)
                facts[signature].collections[collection] = collection_facts(
                    queries=n, k=100, digest=f"{c:016x}", first_stage={"engine": engine}
                )
                seconds = {query: (0.02 * len(cells),) for query in queries}
                facts[signature].timing[collection] = timing(seconds)
                student = 0.5 + hard + effect(overrides) + noise
                student[::9] = (0.5 + hard + REFERENCES["first_stage"])[::9]  # ties with it
                systems = {k: 0.5 + hard + v for k, v in REFERENCES.items()}
                for system, values in {**systems, "student": student}.items():
                    for measure in measures:
                        frames.append(
                            pd.DataFrame({"query_id": queries, "value": values.clip(0, 1)}).assign(
                                grid=name,
                                signature=signature,
                                seed=seed,
                                collection=collection,
                                system=system,
                                measure=measure,
                            )
                        )
    frame = pd.concat(frames, ignore_index=True)
    return Trials(frame=frame, cells=tuple(cells), missing=(), facts=facts, runs=runs)


def summary_of(spec, grid, collections, effect):
    """Summary of such trials."""
    node = {"name": "synthetic", "measures": ["nDCG@10"], "grid": dict.fromkeys(grid, []), **spec}
    return summarise(parse(node), trials_of(grid, collections, effect, node["measures"]))


def table_summary():
    """Return a table as a paper has it: references, five students, two collections."""
    names = ["RankNet", "ADR-MSE", "Stage 1 only", "LambdaRank <&> co", "shuffled"]
    means = dict(zip(names, (0.03, 0.02, -0.06, 0.025, -0.16), strict=True))
    grid = {
        name: [(f"loss={name}", f"seed={s}") for s in ((1, 2) if name != "shuffled" else (1,))]
        for name in names
    }
    rows = [
        {"name": "First stage (BM25)", "system": "first_stage"},
        {"name": "Teacher", "system": "teacher", "grid": names},
        {"name": "Oracle", "system": "oracle"},
        {"name": "Stage 1 only", "grid": "Stage 1 only"},
        {"name": "RankNet", "grid": "RankNet"},
        {"name": "ADR-MSE", "grid": "ADR-MSE"},
        {"name": "LambdaRank <&> co, a rather long name", "grid": "LambdaRank <&> co"},
        {"name": "RankNet, shuffled teacher", "grid": "shuffled"},
    ]
    spec = {
        "claim": "Students <b>beat</b> the first stage & each other.",
        "baseline": "First stage (BM25)",
        "measures": ["nDCG@10", "RR@10"],
        "rows": rows,
        "margin": 0.02,
        "comparisons": [["RankNet", "ADR-MSE"]],
    }
    collections = {"trec-dl-2019": (43, "bm25"), "trec-dl-2020": (54, "bm25")}
    summary = summary_of(spec, grid, collections, lambda o: means[o[0].split("=")[1]])
    sick = summary.signatures["RankNet, shuffled teacher"][0]
    facts = summary.trials.facts
    facts[sick] = replace(facts[sick], health="below_first_stage")
    return summary


def depth_summary():
    """Return the paper's subsampling study: depths at 10k queries, numbers of queries at 100."""
    pairs = [(k, 10000) for k in (10, 20, 50, 100)] + [(100, q) for q in (1000, 2000, 5000)]
    grid = {
        f"k{k}q{q}": [(f"depth.k={k}", f"depth.queries={q}", f"seed={s}") for s in (1, 2)]
        for k, q in pairs
    }

    def effect(overrides):
        k, q = (float(o.split("=")[1]) for o in overrides[:2])
        return 0.06 * np.log10(k / 100) + 0.1 * np.log10(q / 10000)

    rows = [{"name": name, "grid": name} for name in grid]
    collections = {
        f"dl-{year}-{engine}": (n, engine)
        for engine in ("bm25", "colbert")
        for year, n in ((19, 43), (20, 54))
    }
    return summary_of({"rows": rows, "x": "depth.k"}, grid, collections, effect)


def grid_summary(levels=None):
    """Return a crossed grid of three factors and a control outside it."""
    levels = levels or {
        "sampler": ["bm25", "colbert_v2", "union", "random"],
        "depth.k": [10, 20, 50, 100],
        "loss": ["ranknet", "adr_mse"],
    }
    names = list(levels)
    settings = [()]
    for name in names:
        settings = [(*s, f"{name}={level}") for s in settings for level in levels[name]]
    grid = {f"g{i}": [(*s, "seed=1"), (*s, "seed=2")] for i, s in enumerate(settings)}
    grid["control"] = [("sampler=bm25", "depth.k=10", "loss=ranknet", "teacher=shuffled", "seed=1")]

    def effect(overrides):
        return sum(0.02 * levels[name].index(_typed(o, levels[name])) for o, name in
                   zip(overrides, names, strict=False)) - 0.05  # fmt: skip

    rows = [{"name": name, "grid": name} for name in grid]
    spec = {"rows": rows, "factors": names}
    return summary_of(spec, grid, {"docs": (60, "bm25")}, effect)


def _typed(override, levels):
    value = override.split("=")[1]
    return next(level for level in levels if str(level) == value)


@pytest.fixture(scope="session")
def table():
    return table_summary()


@pytest.fixture(scope="session")
def depth():
    return depth_summary()


@pytest.fixture(scope="session")
def grid():
    return grid_summary()
