"""Query likelihood: a small causal LM scores single passages.

A passage is read once, whatever the number of queries that it is a candidate of: the model's keys
and values of passage and instruction serve all of them (`_Scorer`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import pandas as pd

from rdx import late, rankings
from rdx.assets import Model, check_model
from rdx.bars import bar
from rdx.collection import Collection
from rdx.declared import PRECISION, SCHEDULES, Positive, Share, one_of, settings
from rdx.precision import AUTO, chosen
from rdx.teachers.tables import as_teacher_ranking

if TYPE_CHECKING:
    from rdx.teachers import scorer
else:
    scorer = late.module("rdx.teachers.scorer")  # torch and Transformers

LEDGER = "scores.jsonl"


@settings(frozen=True)
class QueryLikelihood:
    """Mean log p(query token | passage) under a causal LM, after Sachan et al. (EMNLP 2022).

    The LM reads the passage and an instruction, and scores the query's tokens; no label is used.
    With `interpolation` w, the ranking is by ``(1 - w) z(log p) + w z(first-stage score)``, z
    being the z-score within the list (Zhuang et al. 2023 interpolate likewise). Ties as trec_eval.

    Parameters
    ----------
    model
        "asset:NAME", a folder (Hugging Face or GGUF), or a Hub id.
    passage_length, query_length
        Tokens kept of each.
    interpolation
        Weight of the first stage, 0 (LLM alone) to 1.
    scale
        Of the scores that a student learns from (`rdx.rankings.scaled`).
    chunk
        Passages scored, each for all queries that it is a candidate of, and appended to the ledger
        at a time; batches never cross chunks, so that an interrupted teacher gives the same
        numbers as an undisturbed one.
    precision
        "bf16" or "fp32" weights and arithmetic, or "auto", which becomes one of them
        (`rdx.precision.chosen`); log-probabilities are float32.
    device
        "auto", "cpu", "cuda", ...
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model
    passage_length: Positive = 96
    query_length: Positive = 32
    interpolation: Share = 0.0
    scale: rankings.Scale = "none"
    chunk: Positive = 64
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Annotated[str, SCHEDULES] = "auto"
    revision: str | None = None

    ranks_unseen = True
    engines: ClassVar[tuple[str, ...]] = ("gguf",)
    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"scores": {}}

    def __post_init__(self) -> None:
        """Choose the precision."""
        object.__setattr__(self, "precision", chosen(self.precision, self.device))

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError if the model is none that could be loaded."""
        check_model(self.model, self.revision)

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Score every candidate, and rank by the interpolated score."""
        scores = dict(_read_ledger(work / LEDGER))
        asked = {d: list(rows.query_id) for d, rows in candidates.groupby("doc_id", sort=False)}
        passages = list(asked)
        chunks = [passages[i : i + self.chunk] for i in range(0, len(passages), self.chunk)]
        todo = [chunk for chunk in chunks if any(d not in scores for d in chunk)]
        model = scorer.Scorer(self) if todo else None
        total = sum(len(asked[d]) for chunk in todo for d in chunk)
        with bar(total=total, desc="teaching", unit="pair", disable=not todo) as progress:
            for chunk in todo:
                assert model is not None
                texts = [(collection.passages[d], [collection.queries[q] for q in asked[d]])
                         for d in chunk]  # fmt: skip
                values_of = model.scores(texts, progress)
                fresh = {d: dict(zip(asked[d], values, strict=True))
                         for d, values in zip(chunk, values_of, strict=True)}  # fmt: skip
                _append_ledger(work / LEDGER, fresh)
                scores.update(fresh)
        rows = zip(candidates.query_id, candidates.doc_id, strict=True)
        return _by_score(candidates.assign(llm=[scores[d][q] for q, d in rows]), self.interpolation)


def _by_score(candidates: pd.DataFrame, interpolation: float) -> pd.DataFrame:
    """Rank by (1 - w) z(llm) + w z(score), ties as trec_eval."""
    mixed = (1 - interpolation) * rankings.z_scores(candidates, "llm")
    mixed += interpolation * rankings.z_scores(candidates, "score")
    ranked = rankings.rank(candidates.query_id, candidates.doc_id, mixed)
    return as_teacher_ranking(ranked.rename(columns={"rank": "teacher_rank"}))


def _read_ledger(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Whole lines of the ledger; a line that a killed process did not finish is left out.

    Passage, and the score of each of its queries.
    """
    if path.exists():
        lines = path.read_bytes().split(b"\n")
        whole = b"".join(line + b"\n" for line in lines[:-1])
        if lines[-1]:
            path.write_bytes(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            yield entry["doc_id"], entry["log_likelihood"]


def _append_ledger(path: Path, scores: dict[str, dict[str, float]]) -> None:
    entries = [{"doc_id": d, "log_likelihood": by_query} for d, by_query in scores.items()]
    with path.open("ab") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        file.flush()
        os.fsync(file.fileno())
