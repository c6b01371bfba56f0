"""The texts that all benchmarks run on: 43 queries and BM25's first 100 passages of each.

Those of TREC DL 2019 where its files are at hand, and random words of the same lengths otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rdx import rankings

TEXTS = Path(__file__).parents[2] / "shared" / "data" / "trec-dl-2019"
DEPTH = 100

Listed = tuple[str, str, list[str]]  # query id, query, passages from rank 1 on


def ranked_lists(folder: Path = TEXTS) -> list[Listed]:
    """Queries with their first 100 passages."""
    if not folder.exists():
        return _made_up()
    with (folder / "corpus.jsonl").open() as file:
        passages = {row["_id"]: row["text"] for row in map(json.loads, file)}
    lines = (folder / "queries.tsv").read_text().splitlines()
    queries = dict(line.split("\t") for line in lines)
    ranking = rankings.read_trec(folder / "runs" / "bm25-pyserini.run")
    return [
        (str(q), queries[str(q)], [passages[d] for d in one.sort_values("rank").doc_id[:DEPTH]])
        for q, one in ranking.groupby("query_id")
    ]


def source(folder: Path = TEXTS) -> str:
    """What `ranked_lists` gives, in words."""
    return "TREC DL 2019 passages" if folder.exists() else "random words of MS MARCO's lengths"


def _made_up() -> list[Listed]:
    """Random words; lengths as in MS MARCO, 56 words on average."""
    draw = np.random.default_rng(0)
    known = [
        "".join(draw.choice(list("aeioubdfgklmnprstv"), n)) for n in draw.integers(2, 11, 5000)
    ]
    likely = 1 / np.arange(1, len(known) + 1)
    likely /= likely.sum()
    found = []
    for query in range(43):
        lengths = np.clip(draw.lognormal(3.95, 0.4, DEPTH), 8, 200).astype(int)
        listed = [" ".join(draw.choice(known, n, p=likely)) for n in lengths]
        found.append((str(query), " ".join(draw.choice(known, 6, p=likely)), listed))
    return found
