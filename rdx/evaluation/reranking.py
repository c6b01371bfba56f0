"""Rankings of test queries: a student's, the best possible one, and mixtures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from rdx import late, rankings
from rdx.bars import bar
from rdx.equality import settled
from rdx.evaluation.measures import measured
from rdx.facts import Timing

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from rdx import batches
    from rdx.students import CrossEncoder
    from rdx.tokens import Tokens
else:
    torch, batches = late.module("torch"), late.module("rdx.batches")

WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))  # of the student, tried on the dev split


class Runtime(Protocol):
    """Where scores are computed, and how precisely: `rdx.trainer.Trainer` is one."""

    @property
    def precision(self) -> str:
        """For example "bf16"."""

    def accelerator(self) -> Accelerator:
        """Device and mixed precision."""


def rerank(
    student: CrossEncoder,
    candidates: pd.DataFrame,
    tokens: Tokens,
    runtime: Runtime,
    max_tokens: int,
    name: str = "re-ranking",
) -> tuple[pd.DataFrame, Timing]:
    """Score candidates with a student; ties as trec_eval.

    All pairs are sorted by length and cut into batches of at most `max_tokens` tokens, those of a
    query together if the student scores lists; the progress bar is called `name`.
    """
    accelerator = runtime.accelerator()
    student = student.to(accelerator.device).eval()
    query_ids, doc_ids = list(candidates.query_id), list(candidates.doc_id)
    start = time.perf_counter()
    rows = tokens.rows(query_ids, doc_ids)
    with (
        torch.inference_mode(),
        accelerator.autocast(),
        bar(total=len(rows), desc=name, unit="pair") as progress,
    ):
        scores = batches.scores(
            *(student, tokens, rows, accelerator.device, max_tokens, progress.update),
            lists=rows.queries if student.scores_lists else None,
        )
    seconds = time.perf_counter() - start
    queries, passages = np.unique(rows.queries), np.unique(rows.passages)
    timing = Timing(
        seconds=seconds,
        pairs_per_second=len(rows) / max(seconds, 1e-9),
        queries=int(candidates.query_id.nunique()),
        texts=len(queries) + len(passages),
        texts_truncated=int(
            tokens.queries.truncated[queries].sum() + tokens.passages.truncated[passages].sum()
        ),
    )
    return rankings.rank(query_ids, doc_ids, scores), timing


def score(
    student: CrossEncoder, pairs: pd.DataFrame, runtime: Runtime, max_tokens: int = 4096
) -> pd.Series:
    """Score pairs of texts, as an evaluation scores candidates.

    Parameters
    ----------
    pairs
        [query_id, query, text], one row a pair; rows with a query id are a list, for students that
        score lists.
    max_tokens
        Of a batch, at most.

    Returns
    -------
    pandas.Series
        A float32 score per row, with the index of `pairs`.
    """
    places = pd.Series([str(i) for i in range(len(pairs))])  # ids need not be unique
    query_ids = [str(query_id) for query_id in pairs["query_id"]]
    tokens = student.pairs.tokens(
        dict(zip(query_ids, map(str, pairs["query"]), strict=True)),
        dict(zip(places, map(str, pairs["text"]), strict=True)),
    )
    rows = pd.DataFrame({"query_id": query_ids, "doc_id": places})
    ranking, _ = rerank(student, rows, tokens, runtime, max_tokens)
    return ranking.set_index("doc_id").score.reindex(places).set_axis(pairs.index)


def oracle(candidates: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """The best order of the candidates: by relevance, ties by first-stage rank."""
    graded = candidates.merge(qrels, on=["query_id", "doc_id"], how="left")
    # Distinct scores, so that no tie rule can change the order.
    scores = graded.relevance.fillna(0) - graded["rank"] / (graded["rank"].max() + 1)
    return rankings.rank(graded.query_id, graded.doc_id, scores)


def as_ranking(teacher: pd.DataFrame) -> pd.DataFrame:
    """A teacher ranking as a ranking whose scores are the negative ranks."""
    return rankings.rank(teacher.query_id, teacher.doc_id, -teacher.teacher_rank)


def interpolated(student: pd.DataFrame, first_stage: pd.DataFrame, weight: float) -> pd.DataFrame:
    """``weight * z(student) + (1 - weight) * z(first stage)`` within each query's candidates."""
    return next(_mixtures(student, first_stage, [weight]))


def _mixtures(
    student: pd.DataFrame, first_stage: pd.DataFrame, weights: Iterable[float]
) -> Iterator[pd.DataFrame]:
    """`interpolated` with each weight; both are standardised once."""
    both = student.merge(first_stage, on=["query_id", "doc_id"], suffixes=("", "_first"))
    own, first = rankings.z_scores(both, "score"), rankings.z_scores(both, "score_first")
    for weight in weights:
        mixed = weight * own + (1 - weight) * first
        yield rankings.rank(both.query_id, both.doc_id, mixed)


def best_weight(
    student: pd.DataFrame, first_stage: pd.DataFrame, qrels: pd.DataFrame, measure: str
) -> float:
    """The weight with the highest mean of a measure; the smallest of equals."""
    means = [
        measured(mixture, qrels, [measure]).value.mean()
        for mixture in _mixtures(student, first_stage, WEIGHTS)
    ]
    return WEIGHTS[int(np.argmax(settled(means)))]
