"""Query likelihood: a small causal LM scores single passages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import pandas as pd
import torch
from tqdm import tqdm

from rdx import rankings
from rdx.assets import Model, check_model
from rdx.bars import bar
from rdx.collection import Collection
from rdx.declared import PRECISION, SCHEDULES, Positive, Share, one_of, settings
from rdx.precision import AUTO, chosen
from rdx.teachers.models import left_padded, load_causal, positions
from rdx.teachers.tables import as_teacher_ranking


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
    chunk
        Queries scored and appended to the ledger at a time; batches never cross chunks, so that
        an interrupted teacher gives the same numbers as an undisturbed one.
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
    chunk: Positive = 8
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
        answers = dict(_read_ledger(work / "ledger.jsonl"))
        queries = list(dict.fromkeys(candidates.query_id))
        lists = {q: list(rows.doc_id) for q, rows in candidates.groupby("query_id", sort=False)}
        chunks = [queries[i : i + self.chunk] for i in range(0, len(queries), self.chunk)]
        todo = [chunk for chunk in chunks if any(q not in answers for q in chunk)]
        scorer = _Scorer(self) if todo else None
        total = sum(len(lists[q]) for chunk in todo for q in chunk)
        with bar(total=total, desc="teaching", unit="pair", disable=not todo) as progress:
            for chunk in todo:
                assert scorer is not None
                pairs = [(collection.queries[q], collection.passages[d])
                         for q in chunk for d in lists[q]]  # fmt: skip
                scores = iter(scorer.scores(pairs, progress))
                fresh = {q: {d: next(scores) for d in lists[q]} for q in chunk}
                _append_ledger(work / "ledger.jsonl", fresh)
                answers.update(fresh)
        rows = zip(candidates.query_id, candidates.doc_id, strict=True)
        likelihood = [answers[q][d] for q, d in rows]
        return _by_score(candidates.assign(llm=likelihood), self.interpolation)


class _Scorer:
    """A causal LM that scores queries given passages."""

    def __init__(self, settings: QueryLikelihood) -> None:
        self.settings = settings
        self.tokenizer, self.model = load_causal(
            settings.model, settings.precision, settings.device, settings.revision
        )

    def scores(self, pairs: list[tuple[str, str]], progress: tqdm) -> list[float]:
        """Mean log-probability of the query tokens, per (query, passage) pair."""
        encoded = [self._encode(query, passage) for query, passage in pairs]
        order = sorted(range(len(pairs)), key=lambda i: (len(encoded[i][0]), i))
        result = [0.0] * len(pairs)
        for start in range(0, len(order), 16):
            batch = order[start : start + 16]
            for i, value in zip(batch, self._batch([encoded[i] for i in batch]), strict=True):
                result[i] = value
            progress.update(len(batch))
        return result

    def _encode(self, query: str, passage: str) -> tuple[list[int], int]:
        """Token ids of prompt + query, and how many of them are the query's."""

        def ids(text: str, limit: int | None = None) -> list[int]:
            tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            return tokens[:limit]

        passage_ids = ids(f"Documentation: {passage}", self.settings.passage_length)
        query_ids = ids(f" {query}", self.settings.query_length)
        return passage_ids + ids("\nA one-line summary of it:") + query_ids, len(query_ids)

    @torch.inference_mode()
    def _batch(self, encoded: list[tuple[list[int], int]]) -> list[float]:
        longest = max(n for _, n in encoded)
        # Every query ends at the last position, and only the last positions that some query needs
        # go through the vocabulary matrix.
        tokens, mask = left_padded([ids for ids, _ in encoded], self.model.device)
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions(mask),
            logits_to_keep=longest + 1,
            use_cache=False,
        )
        logp = output.logits[:, :-1].float().log_softmax(-1)  # predicts the last `longest` tokens
        picked = logp.gather(2, tokens[:, -longest:, None]).squeeze(2).cpu()
        return [picked[i, longest - n :].mean().item() for i, (_, n) in enumerate(encoded)]


def _by_score(candidates: pd.DataFrame, interpolation: float) -> pd.DataFrame:
    """Rank by (1 - w) z(llm) + w z(score), ties as trec_eval."""
    mixed = (1 - interpolation) * rankings.z_scores(candidates, "llm")
    mixed += interpolation * rankings.z_scores(candidates, "score")
    ranked = rankings.rank(candidates.query_id, candidates.doc_id, mixed)
    return as_teacher_ranking(ranked.rename(columns={"rank": "teacher_rank"}))


def _read_ledger(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Whole lines of the ledger; a line that a killed process did not finish is left out."""
    if path.exists():
        lines = path.read_bytes().split(b"\n")
        whole = b"".join(line + b"\n" for line in lines[:-1])
        if lines[-1]:
            path.write_bytes(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            yield entry["query_id"], entry["log_likelihood"]


def _append_ledger(path: Path, answers: dict[str, dict[str, float]]) -> None:
    entries = [{"query_id": q, "log_likelihood": scores} for q, scores in answers.items()]
    with path.open("ab") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        file.flush()
        os.fsync(file.fileno())
