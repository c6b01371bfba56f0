"""Teachers re-order candidates: small LLMs, recorded rankings, labels and controls.

Every teacher has ``rank(candidates, collection, work) -> teacher ranking`` with the columns
query_id, doc_id, teacher_rank (1 = best), score (NaN = permutation only), state ("ok", "repaired",
"malformed", "refused", "failed"). `work` is a folder that outlives a killed process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from rdx import rankings
from rdx.assets import check_model, gguf_file, model_path
from rdx.draws import generator


@dataclass(frozen=True)
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
        "bf16" or "fp32" weights and arithmetic; log-probabilities are float32.
    device
        "auto", "cpu", "cuda", ...
    """

    model: str
    passage_length: int = 96
    query_length: int = 32
    interpolation: float = 0.0
    chunk: int = 8
    precision: str = "bf16"
    device: str = "auto"

    ranks_unseen = True

    def __post_init__(self) -> None:
        """Check values; nothing is fetched."""
        check_model(self.model)
        for name in ("passage_length", "query_length", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"teacher.{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"teacher.interpolation={self.interpolation}: must be in [0, 1]")
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(f"teacher.precision={self.precision!r}: must be 'bf16' or 'fp32'")

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Score every candidate, and rank by the interpolated score."""
        answers = dict(_read_ledger(work / "ledger.jsonl"))
        queries = list(dict.fromkeys(candidates.query_id))
        lists = {q: list(rows.doc_id) for q, rows in candidates.groupby("query_id", sort=False)}
        chunks = [queries[i : i + self.chunk] for i in range(0, len(queries), self.chunk)]
        todo = [chunk for chunk in chunks if any(q not in answers for q in chunk)]
        scorer = _Scorer(self) if todo else None
        total = sum(len(lists[q]) for chunk in todo for q in chunk)
        with tqdm(total=total, desc="teaching", unit="pair", disable=not todo) as bar:
            for chunk in todo:
                assert scorer is not None
                pairs = [(collection.queries[q], collection.passages[d])
                         for q in chunk for d in lists[q]]  # fmt: skip
                scores = iter(scorer.scores(pairs, bar))
                fresh = {q: {d: next(scores) for d in lists[q]} for q in chunk}
                _append_ledger(work / "ledger.jsonl", fresh)
                answers.update(fresh)
        likelihood = [answers[q][d] for q, d in zip(*_ids(candidates), strict=True)]
        return _by_score(candidates.assign(llm=likelihood), self.interpolation)


@dataclass(frozen=True)
class Recorded:
    """A given teacher ranking, such as an LLM's published run.

    Parameters
    ----------
    run
        TREC run.
    order
        "rank": the rank column is the permutation (scores of such files are often copies of the
        first stage's); "score": trec_eval's order.
    """

    run: str
    order: str = "rank"

    ranks_unseen = False

    def __post_init__(self) -> None:
        """Check values and that the file is there."""
        if self.order not in ("rank", "score"):
            raise ValueError(f"teacher.order={self.order!r}: must be 'rank' or 'score'")
        if not Path(self.run).is_file():
            raise ValueError(f"teacher.run={self.run}: no such file")

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Look the candidates up; a list of which a passage is not in the run is "failed".

        Raises
        ------
        FormatError
            If the run covers no list of the candidates.
        """
        given = rankings.read_trec(self.run, order=self.order)  # type: ignore[arg-type]
        found = candidates.merge(
            given.rename(columns={"rank": "given"})[["query_id", "doc_id", "given"]],
            on=["query_id", "doc_id"],
            how="left",
        )
        complete = found.given.notna().groupby(found.query_id).transform("all")
        if not complete.any():
            raise rankings.FormatError(
                f"{self.run}: ranks all candidates of none of the {found.query_id.nunique()} "
                "training queries; are the candidates those that the teacher was given?"
            )
        found["given"] = found.given.fillna(np.inf)
        taught = _permutation(found, ["given", "rank"])
        state = np.where(complete.to_numpy(), "ok", "failed")
        order = found[["query_id", "doc_id"]].assign(state=state)
        return taught.drop(columns="state").merge(order, on=["query_id", "doc_id"])


@dataclass(frozen=True)
class Labels:
    """The relevance judgements: higher grades first, equal grades tied (teacher_rank 1, 2, ...)."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Rank by grade; unjudged counts as 0."""
        grade = _grades(candidates, collection)
        ranks = (-grade).groupby(candidates.query_id).rank(method="dense").astype("int32")
        return _taught(candidates.assign(teacher_rank=ranks, score=grade.astype("float32")))


@dataclass(frozen=True)
class Oracle:
    """Control: by relevance judgement, ties in the order of the first stage; a permutation."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Rank by grade, then first-stage rank."""
        graded = candidates.assign(grade=-_grades(candidates, collection))
        return _permutation(graded, ["grade", "rank"])


@dataclass(frozen=True)
class Identity:
    """Control: the candidates as the first stage ranked them."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Keep the first-stage order."""
        return _permutation(candidates, ["rank"])


@dataclass(frozen=True)
class Shuffled:
    """Control: a random permutation of every list, a pure function of (seed, query id)."""

    seed: int = 0

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Shuffle every list."""
        sizes = candidates.groupby("query_id", sort=False).size()
        drawn = [generator(self.seed, "shuffled", q).permutation(n) for q, n in sizes.items()]
        ordered = candidates.sort_values("query_id", key=_first_seen(candidates), kind="stable")
        return _permutation(ordered.assign(drawn=np.concatenate(drawn)), ["drawn"])


class _Scorer:
    """A causal LM that scores queries given passages."""

    def __init__(self, settings: QueryLikelihood) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.settings = settings
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        folder = model_path(settings.model)
        gguf = gguf_file(folder)
        source = {"gguf_file": gguf} if gguf else {}
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        plain = _plain(gguf)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **source, **plain)
        self.model = model.to(self.device, dtype).eval()

    def scores(self, pairs: list[tuple[str, str]], bar: Any) -> list[float]:
        """Mean log-probability of the query tokens, per (query, passage) pair."""
        encoded = [self._encode(query, passage) for query, passage in pairs]
        order = sorted(range(len(pairs)), key=lambda i: (len(encoded[i][0]), i))
        result = [0.0] * len(pairs)
        for start in range(0, len(order), 16):
            batch = order[start : start + 16]
            for i, value in zip(batch, self._batch([encoded[i] for i in batch]), strict=True):
                result[i] = value
            bar.update(len(batch))
        return result

    def _encode(self, query: str, passage: str) -> tuple[list[int], int]:
        """Token ids of prompt + query, and how many of them are the query's."""

        def ids(text: str, limit: int | None = None) -> list[int]:
            return self.tokenizer(text, add_special_tokens=False)["input_ids"][:limit]

        passage_ids = ids(f"Documentation: {passage}", self.settings.passage_length)
        query_ids = ids(f" {query}", self.settings.query_length)
        return passage_ids + ids("\nA one-line summary of it:") + query_ids, len(query_ids)

    @torch.inference_mode()
    def _batch(self, encoded: list[tuple[list[int], int]]) -> list[float]:
        width = max(len(ids) for ids, _ in encoded)
        longest = max(n for _, n in encoded)
        # Left padding: every query ends at the last position, and only the last positions that
        # some query needs go through the vocabulary matrix.
        tokens = torch.tensor([[0] * (width - len(ids)) + ids for ids, _ in encoded])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in encoded])
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
            use_cache=False,
        )
        logp = output.logits[:, :-1].float().log_softmax(-1)  # predicts the last `longest` tokens
        picked = logp.gather(2, tokens[:, -longest:, None]).squeeze(2).cpu()
        return [picked[i, longest - n :].mean().item() for i, (_, n) in enumerate(encoded)]


def _plain(gguf: str | None) -> dict[str, Any]:
    """Newer Transformers keep GGUF weights quantised unless told otherwise."""
    if gguf is None:
        return {}
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _by_score(candidates: pd.DataFrame, interpolation: float) -> pd.DataFrame:
    """Rank by (1 - w) z(llm) + w z(score), ties as trec_eval."""
    mixed = (1 - interpolation) * rankings.z_scores(candidates, "llm")
    mixed += interpolation * rankings.z_scores(candidates, "score")
    ranked = rankings.rank(candidates.query_id, candidates.doc_id, mixed)
    return _taught(ranked.rename(columns={"rank": "teacher_rank"}))


def _permutation(candidates: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    order = candidates.sort_values(by, kind="stable")
    ranks = (order.groupby("query_id").cumcount() + 1).reindex(candidates.index).astype("int32")
    return _taught(candidates.assign(teacher_rank=ranks, score=np.float32("nan")))


def _taught(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["query_id", "doc_id", "teacher_rank", "score", "state"]
    return frame.assign(state="ok")[columns].reset_index(drop=True)


def _grades(candidates: pd.DataFrame, collection: Any) -> pd.Series:
    relevant = collection.relevant()
    if not relevant:
        raise rankings.FormatError(f"collection {collection.name!r} has no relevance judgements")
    pairs = zip(*_ids(candidates), strict=True)
    return pd.Series([relevant.get(q, {}).get(d, 0) for q, d in pairs], index=candidates.index)


def _ids(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return frame.query_id, frame.doc_id


def _first_seen(frame: pd.DataFrame) -> Any:
    seen = {q: i for i, q in enumerate(dict.fromkeys(frame.query_id))}
    return lambda ids: ids.map(seen)


def _read_ledger(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Whole lines of the ledger; a line that a killed process did not finish is left out."""
    if path.exists():
        lines = path.read_bytes().split(b"\n")
        whole = b"".join(line + b"\n" for line in lines[:-1])
        if lines[-1]:
            path.write_bytes(whole)
        for line in whole.splitlines():
            row = json.loads(line)
            yield row["query_id"], row["log_likelihood"]


def _append_ledger(path: Path, answers: dict[str, dict[str, float]]) -> None:
    rows = [{"query_id": q, "log_likelihood": scores} for q, scores in answers.items()]
    with path.open("ab") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        file.flush()
        os.fsync(file.fileno())
