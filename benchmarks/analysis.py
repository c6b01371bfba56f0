"""All tests of a large table: this project's, ranx's and PyTerrier's, in one process.

``python -m benchmarks.analysis`` prints Markdown. 200 systems x 1,000 queries x 3 measures by
default. ranx and PyTerrier are no dependencies of this project; what of them is installed is timed.
Both begin with rankings and this project with stored per-query values, so the time of their
measures is given apart.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402

from analysis.significance import (  # noqa: E402
    all_pairs,
    bca_interval,
    cohens_dz,
    correct,
    equivalence,
    non_inferiority,
    paired_differences,
    randomisation,
    t_interval,
    t_test,
    wilcoxon,
)

MEASURES = ("nDCG@10", "RR@10", "P@10")
DOCS = 10


def seconds(call: Callable[[], Any], repeat: int = 1) -> tuple[float, Any]:
    """Least time of `repeat` calls, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return best, result


def rankings(systems: int, queries: int) -> tuple[dict, list[dict]]:
    """Judgements, and per system query -> passage -> score; systems differ in their noise."""
    generator = np.random.default_rng(0)
    grades = generator.choice(4, (queries, DOCS), p=(0.5, 0.2, 0.2, 0.1))
    ids = [f"q{i}" for i in range(queries)]
    docs = [f"d{i}" for i in range(DOCS)]
    qrels = {
        q: dict(zip(docs, map(int, row), strict=True)) for q, row in zip(ids, grades, strict=True)
    }
    runs = []
    for i in range(systems):
        scores = grades + generator.normal(0, 1.5 + i / systems, grades.shape)
        runs.append(
            {
                q: dict(zip(docs, map(float, row), strict=True))
                for q, row in zip(ids, scores, strict=True)
            }
        )
    return qrels, runs


def ours(values: np.ndarray) -> list[tuple[str, float]]:
    """Times of this project; values are [measures, systems, queries]."""
    lines = []

    def against(test: Callable[..., Any]) -> np.ndarray:
        d = [paired_differences(table[1:], table[0]) for table in values]
        return correct(np.concatenate([test(one) for one in d]))[0]

    total = 0.0
    for name, test in (("t", t_test), ("Wilcoxon", wilcoxon), ("randomisation", randomisation)):
        took, _ = seconds(lambda test=test: against(test))
        lines.append((f"rdx: {name}, one baseline, Holm", took))
        total += took

    def further() -> None:
        for table in values:
            d = paired_differences(table[1:], table[0])
            t_interval(d), bca_interval(d), cohens_dz(d)
            equivalence(d, 0.01), non_inferiority(d, 0.01)

    took, _ = seconds(further)
    lines.append(("rdx: t and BCa intervals, d_z, TOST, non-inferiority", took))
    lines.append(("rdx: all of these, one baseline", total + took))
    upper = np.triu_indices(values.shape[1], 1)
    total = 0.0
    for name in ("t", "randomisation", "wilcoxon"):
        took, _ = seconds(
            lambda name=name: correct(np.concatenate([all_pairs(t, name)[upper] for t in values]))
        )
        lines.append((f"rdx: {name}, all pairs, Holm", took))
        total += took
    lines.append(("rdx: all three, all pairs", total))
    return lines


def ranx(qrels: dict, runs: list[dict], with_fisher: bool) -> list[tuple[str, float]]:
    """Times of ranx: its `compare`, all pairs (it knows no single baseline)."""
    from ranx import Qrels, Run, compare

    judged = Qrels(qrels)
    systems = [Run(run, name=f"s{i}") for i, run in enumerate(runs)]
    names = ["ndcg@10", "mrr@10", "precision@10"]
    from ranx import evaluate

    evaluate(judged, systems[0], names)  # compiles
    alone, _ = seconds(lambda: [evaluate(judged, run, names) for run in systems])
    whole, _ = seconds(lambda: compare(judged, systems, names, stat_test="student"))
    lines = [
        ("ranx: measures alone", alone),
        ("ranx compare: t, all pairs", whole),
        ("ranx compare: t, all pairs, without the measures", whole - alone),
    ]
    if with_fisher:
        few = systems[:6]  # 15 of the pairs, scaled up
        compare(judged, systems[:2], names, stat_test="fisher", n_permutations=10)
        took, _ = seconds(
            lambda: compare(judged, few, names, stat_test="fisher", n_permutations=10_000)
        )
        pairs = len(systems) * (len(systems) - 1) / 2
        lines.append(
            (
                "ranx compare: randomisation, all pairs (15 pairs timed, scaled up)",
                took / 15 * pairs,
            )
        )
    return lines


def pyterrier(qrels: dict, runs: list[dict]) -> list[tuple[str, float]]:
    """Times of `pt.Experiment` with a baseline and without."""
    import ir_measures
    import pandas as pd
    import pyterrier as pt

    judged = pd.DataFrame(
        [(q, d, grade) for q, docs in qrels.items() for d, grade in docs.items()],
        columns=["qid", "docno", "label"],
    )
    topics = pd.DataFrame({"qid": list(qrels), "query": "x"})
    frames = []
    for run in runs:
        lines = [(q, d, score) for q, docs in run.items() for d, score in docs.items()]
        frame = pd.DataFrame(lines, columns=["qid", "docno", "score"])
        frame["rank"] = frame.groupby("qid")["score"].rank(ascending=False, method="first") - 1
        frames.append(frame)
    measures = [ir_measures.parse_measure(name) for name in MEASURES]

    def run_it(**more: Any) -> Any:
        return pt.Experiment(frames, topics, judged, measures, **more)

    pt.Experiment(frames[:2], topics, judged, measures, baseline=0)  # loads what it needs
    alone, _ = seconds(run_it)
    whole, _ = seconds(lambda: run_it(baseline=0, test="t", correction="holm"))
    return [
        ("pt.Experiment: measures alone", alone),
        ("pt.Experiment: t, one baseline, Holm", whole),
        ("pt.Experiment: t, one baseline, Holm, without the measures", whole - alone),
    ]


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--systems", type=int, default=200)
    arguments.add_argument("--queries", type=int, default=1000)
    arguments.add_argument("--no-fisher", action="store_true", help="leave ranx's fisher away")
    given = arguments.parse_args()
    generator = np.random.default_rng(0)
    queries = generator.normal(0.5, 0.25, (3, 1, given.queries))
    values = queries + generator.normal(0, 0.1, (3, given.systems, given.queries))
    values += np.linspace(0, 0.05, given.systems)[:, None]
    lines = ours(np.round(values, 3))
    single, _ = seconds(lambda: randomisation(values[0, 1] - values[0, 0]), repeat=3)
    lines.append(("rdx: 10,000 randomisations of one comparison", single))
    qrels, runs = rankings(given.systems, given.queries)
    for rival in (lambda: ranx(qrels, runs, not given.no_fisher), lambda: pyterrier(qrels, runs)):
        try:
            lines += rival()
        except ImportError as error:
            print(f"left out: {error}\n")
    took = dict(lines)
    print(f"{given.systems} systems x {given.queries} queries x 3 measures\n")
    print("| what | seconds | ratio to rdx |\n|---|--:|--:|")
    peers = {
        "ranx compare: t": "rdx: t, all pairs, Holm",
        "ranx compare: randomisation": "rdx: randomisation, all pairs, Holm",
        "pt.Experiment: t": "rdx: t, one baseline, Holm",
    }
    for what, time_ in lines:
        peer = next((own for start, own in peers.items() if what.startswith(start)), None)
        print(f"| {what} | {time_:.3f} | {f'{time_ / took[peer]:.0f}' if peer else ''} |")


if __name__ == "__main__":
    main()
