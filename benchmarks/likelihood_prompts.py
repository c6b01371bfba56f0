"""Prompts of query likelihood: python -m benchmarks.likelihood_prompts.

nDCG@10 of the first 100 passages of BM25 for TREC DL 2019, re-ranked by query likelihood with each
prompt, with and without the token for the beginning of a text; alone, and interpolated half and
half with BM25. With --work FOLDER a measurement that was killed goes on. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import lru_cache
from itertools import product
from pathlib import Path

import pandas as pd

from benchmarks.texts import DEPTH, TEXTS
from rdx import rankings
from rdx.collection import Collection
from rdx.evaluation import as_ranking
from rdx.evaluation.measures import measured
from rdx.teachers import QueryLikelihood, scorer
from rdx.teachers.likelihood import PROMPTS

MODELS = ("asset:SmolLM2-135M-Instruct", "asset:gemma-3-270m")
MEASURE = "nDCG@10"
WEIGHTS = (0.0, 0.5)  # of BM25


def collection(folder: Path) -> Collection:
    """Texts and judgements of a folder with corpus.jsonl, queries.tsv and qrels.txt."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
        passages = {row["_id"]: row["text"] for row in map(json.loads, file)}
    lines = (folder / "queries.tsv").read_text(encoding="utf-8").splitlines()
    queries = dict(line.split("\t") for line in lines)
    return Collection(folder.name, queries, passages, rankings.read_qrels(folder / "qrels.txt"))


def ndcg(ranking: pd.DataFrame, qrels: pd.DataFrame) -> float:
    """Mean over the judged queries of the ranking."""
    asked = qrels[qrels.query_id.isin(ranking.query_id)]
    return float(measured(ranking, asked, [MEASURE]).value.mean())


def main() -> None:
    """Print a row for each model, prompt and first token."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=TEXTS, help="of TREC DL 2019")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS), help="names or texts")
    parser.add_argument("--queries", type=int, help="the first so many; default: all")
    parser.add_argument("--passages", type=int, default=DEPTH)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--work", type=Path, help="folder of the scores, kept")
    given = parser.parse_args()
    scorer.load_causal = lru_cache(1)(scorer.load_causal)  # once for all prompts
    texts = collection(given.folder)
    first = rankings.read_trec(given.folder / "runs" / "bm25-pyserini.run")
    chosen = sorted(set(first.query_id))[: given.queries]
    candidates = first[first.query_id.isin(chosen) & (first["rank"] <= given.passages)]
    candidates = candidates.reset_index(drop=True)
    scratch = tempfile.TemporaryDirectory()
    work = given.work or Path(scratch.name)
    print(f"{len(chosen)} queries, {given.passages} passages each; BM25 "
          f"{ndcg(candidates, texts.qrels):.4f}\n")  # fmt: skip
    print(f"| model | prompt | first token | {MEASURE} | with BM25 | lists left out | pairs/s |")
    print("|---|---|---|--:|--:|--:|--:|")
    for model, prompt, bos in product(given.models, given.prompts, (False, True)):
        folder = work / "-".join([model.replace("/", "_"), prompt.replace("/", "_"), str(bos)])
        folder.mkdir(parents=True, exist_ok=True)
        values, start = [], time.perf_counter()
        for weight in WEIGHTS:  # the second finds all scores of the first
            teacher = QueryLikelihood(
                *(model, 96, 32, weight), prompt=prompt, bos=bos, precision=given.precision
            )
            labels = teacher.rank(candidates, texts, folder)
            values.append(ndcg(as_ranking(labels), texts.qrels))
        rate = len(candidates) / (time.perf_counter() - start)
        lost = labels[labels.state != "ok"].query_id.nunique()
        shown = " | ".join(f"{value:.4f}" for value in values)
        print(
            f"| {model} | `{prompt!r}` | {'bos' if bos else 'none'} | {shown} | {lost} "
            f"| {rate:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
