"""First stages: BM25 against other engines, exact MaxSim against a loop.

    python -m benchmarks.retrieval [--passages 100000] [--queries 1000] [--rank-bm25 PYTHON] \
        [--pyterrier PYTHON] [--pyserini PYTHON]

Every engine runs in processes of its own, in the environment of its PYTHON, on one thread: one
indexes, and one for each depth opens the index and retrieves; an engine whose index lives in memory
does both in one. Prints Markdown tables. The texts are random words with Zipf's frequencies, none
of them a stop word, and nothing is stemmed: 60 words a passage, out of 50,000; the 6 words of a
query are drawn from one passage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
DEPTHS = (100, 1000)
# rank-bm25 goes through all passages for every term: so many queries are measured, and scaled up.
SLOW = 50


def texts(passages: int, queries: int) -> tuple[dict[str, str], dict[str, str]]:
    """Passages and queries of random words."""
    draw = np.random.default_rng(0)
    shares = 1 / (np.arange(50_000) + 2.7)
    words = draw.choice(len(shares), size=(passages, 60), p=shares / shares.sum())
    chosen = draw.integers(passages, size=queries)
    asked = [draw.choice(words[i], size=6, replace=False) for i in chosen]
    named = [f"w{i}" for i in range(len(shares))]
    return (
        {f"d{i}": " ".join(named[w] for w in row) for i, row in enumerate(words)},
        {f"q{i}": " ".join(named[w] for w in row) for i, row in enumerate(asked)},
    )


def tables(args: argparse.Namespace) -> list[str]:
    """The tables as Markdown; `args` has what `options` adds."""
    return [bm25_table(args), maxsim_table()]


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tables`."""
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rank-bm25", metavar="PYTHON", help="an environment with rank-bm25")
    parser.add_argument("--pyterrier", metavar="PYTHON", help="an environment with PyTerrier")
    parser.add_argument("--pyserini", metavar="PYTHON", help="one with Pyserini, and Java")


def bm25_table(args: argparse.Namespace) -> str:
    """Seconds and peak memory of BM25 engines."""
    size = {"passages": args.passages, "queries": args.queries}
    lines = [
        f"| BM25, {args.queries:,} queries, {args.passages:,} passages | indexing (s) "
        "| peak (MB) | top 100 (s) | top 1,000 (s) | peak (MB) |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for engine, python in (
        ("rdx", sys.executable),
        ("rank_bm25", args.rank_bm25),
        ("pyterrier", args.pyterrier),
        ("pyserini", args.pyserini),
    ):
        if not python:
            continue
        with tempfile.TemporaryDirectory() as folder:
            task = {"engine": engine, "folder": folder, **size}
            if engine == "rank_bm25":
                both = _measured(python, {**task, "do": "both"})
                index, found = both, [both, both]
            else:
                index = _measured(python, {**task, "do": "index"})
                found = [_measured(python, {**task, "do": "search", "k": k}) for k in DEPTHS]
        seconds = " | ".join(f"{one['search']:.1f}" for one in found)
        lines.append(
            f"| {index['name']} | {index['index']:.1f} | {index['peak']:,.0f} | {seconds} "
            f"| {max(one['peak'] for one in found):,.0f} |"
        )
    return "\n".join(lines)


def maxsim_table() -> str:
    """Seconds of exact MaxSim, and of a loop over all pairs, on the same vectors."""
    import torch

    from rdx.samplers import maxsim

    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    queries = [torch.randn(32, 128, generator=random) for _ in range(20)]
    lengths = torch.randint(20, 120, (5000,), generator=random).tolist()
    tokens = torch.randn(sum(lengths), 128, generator=random)
    places = torch.randperm(len(lengths), generator=random)
    start = time.perf_counter()
    found = maxsim.search(queries, [(tokens, lengths)], places, 1000)
    fast = time.perf_counter() - start
    start = time.perf_counter()
    passages = tokens.split(lengths)
    scores = torch.stack(
        [torch.stack([(q @ p.T).amax(1).sum() for p in passages]) for q in queries]
    )
    slow = time.perf_counter() - start
    apart = max(
        float((scores[i][positions] - values).abs().max())
        for i, (positions, values) in enumerate(found)
    )
    missed = sum(
        len(set(row.topk(1000).indices.tolist()) - set(positions.tolist()))
        for row, (positions, _) in zip(scores, found, strict=True)
    )
    return "\n".join(
        [
            "| MaxSim, 20 queries of 32 tokens, 5,000 passages of 20 to 119, dimension 128 | s |",
            "|---|--:|",
            f"| rdx, blocks of products and a running top 1,000 | {fast:.2f} |",
            f"| a loop over queries and passages, one product each | {slow:.2f} |",
            "",
            f"Largest difference of two scores: {apart:.1g} (scores of about "
            f"{float(scores.mean()):.0f}); passages of the loop's top 1,000 that are not in the "
            f"other's: {missed}.",
        ]
    )


def _measured(python: str, task: dict[str, Any]) -> dict[str, Any]:
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [python, str(Path(__file__).resolve()), json.dumps(task)]
    done = subprocess.run(command, env=os.environ | single, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task['engine']}: {done.stderr[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """One engine does one thing."""
    passages, queries = texts(task["passages"], task["queries"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = ENGINES[task["engine"]](task, passages, queries)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {**found, "peak": peak / 1024}


def _rdx(task: dict[str, Any], passages: dict[str, str], queries: dict[str, str]) -> dict[str, Any]:
    from rdx.samplers import BM25

    sampler, folder = BM25(stopwords="none", stemmer="none"), Path(task["folder"])
    collection: Any = SimpleNamespace(name="random", passages=passages, queries=queries)
    start = time.perf_counter()
    if task["do"] == "index":
        sampler.prepare(collection, folder)
        return {"name": "rdx (bm25s, index on disk)", "index": time.perf_counter() - start}
    found = sampler.candidates(collection, task["k"], folder)
    assert found["rank"].max() == task["k"]
    return {"search": time.perf_counter() - start}


def _rank_bm25(
    task: dict[str, Any], passages: dict[str, str], queries: dict[str, str]
) -> dict[str, Any]:
    from rank_bm25 import BM25Okapi

    start = time.perf_counter()
    index = BM25Okapi([text.split() for text in passages.values()], k1=0.9, b=0.4)
    indexed = time.perf_counter() - start
    start = time.perf_counter()
    for query in list(queries.values())[:SLOW]:
        np.argsort(-index.get_scores(query.split()))[: max(DEPTHS)]
    search = (time.perf_counter() - start) * len(queries) / min(SLOW, len(queries))
    return {"name": f"rank-bm25 (in memory; {SLOW} queries, scaled)", "index": indexed} | {
        "search": search
    }


def _pyterrier(
    task: dict[str, Any], passages: dict[str, str], queries: dict[str, str]
) -> dict[str, Any]:
    import pandas as pd
    import pyterrier as pt

    if not pt.java.started():
        pt.java.init()
    start = time.perf_counter()
    folder = str(Path(task["folder"]) / "index")
    if task["do"] == "index":
        made = pt.IterDictIndexer(folder, stemmer="none", stopwords="none")
        made.index({"docno": doc_id, "text": text} for doc_id, text in passages.items())
        return {"name": f"PyTerrier {pt.__version__}", "index": time.perf_counter() - start}
    topics = pd.DataFrame({"qid": list(queries), "query": list(queries.values())})
    settings = {"bm25.k_1": 0.9, "bm25.b": 0.4}
    index = pt.IndexFactory.of(folder)
    engine = pt.terrier.Retriever(
        index, wmodel="BM25", num_results=task["k"], controls=settings,
        properties={"termpipelines": ""},
    )  # fmt: skip
    engine.transform(topics)
    return {"search": time.perf_counter() - start}


def _pyserini(
    task: dict[str, Any], passages: dict[str, str], queries: dict[str, str]
) -> dict[str, Any]:
    from importlib.metadata import version

    from pyserini.analysis import JWhiteSpaceAnalyzer
    from pyserini.pyclass import autoclass
    from pyserini.search.lucene import LuceneSearcher

    name, place = f"Pyserini {version('pyserini')} (Lucene)", Path(task["folder"])
    lines, index = place / "texts" / "texts.jsonl", str(place / "lucene")
    start = time.perf_counter()
    if task["do"] == "index":
        lines.parent.mkdir()
        with lines.open("w") as file:
            for doc_id, text in passages.items():
                file.write(json.dumps({"id": doc_id, "contents": text}) + "\n")
        given = {"collection": "JsonCollection", "input": str(lines.parent), "index": index}
        given |= {"generator": "DefaultLuceneDocumentGenerator", "threads": "1"}
        words = [word for name, value in given.items() for word in (f"-{name}", value)]
        autoclass("io.anserini.index.IndexCollection").main([*words, "-pretokenized"])
        return {"name": name, "index": time.perf_counter() - start}
    engine = LuceneSearcher(index)
    engine.set_analyzer(JWhiteSpaceAnalyzer())
    engine.set_bm25(0.9, 0.4)
    hits = engine.batch_search(list(queries.values()), list(queries), k=task["k"], threads=1)
    assert max(map(len, hits.values())) == task["k"]
    # what the others give: ids and scores
    [(hit.docid, hit.score) for q in queries for hit in hits[q]]
    return {"search": time.perf_counter() - start}


ENGINES = {
    "rdx": _rdx,
    "rank_bm25": _rank_bm25,
    "pyterrier": _pyterrier,
    "pyserini": _pyserini,
}


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(_work(json.loads(sys.argv[1]))))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        options(parser)
        print("\n\n".join(tables(parser.parse_args())))
