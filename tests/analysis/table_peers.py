"""Another library makes a table: a process of its own, started by `test_peers.py`.

    PYTHON table_peers.py LIBRARY MEASURES QRELS BASELINE RUN...

LIBRARY is ranx or pyterrier, which only PYTHON needs to have; MEASURES are nDCG@10, RR@10 or P@10,
with commas. Systems are named as the files of their runs, without the ending. Prints JSON: "means":
system -> measure -> mean; "p": "a b" -> measure -> p value of the paired t-test of two systems;
"corrected": system -> measure -> p value against the baseline, corrected by Holm over the systems
(pyterrier only).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OF_RANX = {"nDCG@10": "ndcg@10", "RR@10": "mrr@10", "P@10": "precision@10"}


def read(path: Path, value: int) -> dict[str, dict[str, float]]:
    """Query -> document -> the number in a column of a file of TREC."""
    found: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        found.setdefault(words[0], {})[words[2]] = float(words[value])
    return found


def ranx(measures: list[str], qrels: Path, baseline: str, runs: list[Path]) -> dict[str, Any]:
    """What `ranx.compare` finds for all pairs."""
    from ranx import Qrels, Run, compare

    named = {OF_RANX[measure]: measure for measure in measures}
    grades = {q: {d: int(g) for d, g in one.items()} for q, one in read(qrels, 3).items()}
    systems = [Run(read(path, 4), name=path.stem) for path in runs]
    found = compare(Qrels(grades), systems, list(named), stat_test="student").to_dict()
    names = found["model_names"]
    pairs = {f"{a} {b}": found[a]["comparisons"][b] for a in names for b in names if a != b}
    return {
        "means": {a: {named[m]: v for m, v in found[a]["scores"].items()} for a in names},
        "p": {pair: {named[m]: float(v) for m, v in p.items()} for pair, p in pairs.items()},
    }


def pyterrier(measures: list[str], qrels: Path, baseline: str, runs: list[Path]) -> dict[str, Any]:
    """What `pt.Experiment` finds against a baseline; it needs no Java for rankings."""
    import ir_measures
    import pandas as pd
    import pyterrier as pt

    def frame(path: Path, column: int, names: list[str]) -> pd.DataFrame:
        rows = [(q, d, v) for q, docs in read(path, column).items() for d, v in docs.items()]
        return pd.DataFrame(rows, columns=names)

    judged = frame(qrels, 3, ["qid", "docno", "label"]).astype({"label": int})
    topics = pd.DataFrame({"qid": judged.qid.unique(), "query": "x"})
    names = [path.stem for path in runs]
    found = pt.Experiment(
        [frame(path, 4, ["qid", "docno", "score"]) for path in runs],
        topics,
        judged,
        [ir_measures.parse_measure(m) for m in measures],
        names=names,
        baseline=names.index(baseline),
        test="t",
        correction="holm",
    ).set_index("name")
    tested = [name for name in names if name != baseline]
    p, corrected = "{} p-value", "{} p-value corrected"
    return {
        "means": {a: {m: float(found.loc[a, m]) for m in measures} for a in names},
        "p": {
            f"{a} {baseline}": {m: float(found.loc[a, p.format(m)]) for m in measures}
            for a in tested
        },
        "corrected": {
            a: {m: float(found.loc[a, corrected.format(m)]) for m in measures} for a in tested
        },
    }


if __name__ == "__main__":
    library, names, qrels_file, base, *run_files = sys.argv[1:]
    make = {"ranx": ranx, "pyterrier": pyterrier}[library]
    print(
        json.dumps(
            make(names.split(","), Path(qrels_file), base, [Path(path) for path in run_files])
        )
    )
