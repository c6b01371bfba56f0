"""Re-rank test sets and measure every query with ir_measures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm import tqdm

from rdx import rankings
from rdx.batches import micro_batches
from rdx.students import CrossEncoder

WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))  # of the student, tried on the dev split
JUDGED = "Judged@10"


@dataclass(frozen=True)
class TestSet:
    """A test collection and its first stage.

    Parameters
    ----------
    data
        Where the collection comes from.
    first_stage
        The sampler whose top k is re-ranked.
    split
        Split of `data` that is tested: "train", "dev", "test" or "all" as the data has it.
    queries
        How many of the split's judged queries, a sample by hash; None = all.
    """

    __test__ = False  # not a test case of pytest

    data: Any
    first_stage: Any
    split: str = "all"
    queries: int | None = None

    def __post_init__(self) -> None:
        """Check values."""
        splits = ("train", "dev", "test", "all")
        if self.split not in splits:
            raise ValueError(f"evaluation: split={self.split!r}: must be one of {list(splits)}")
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"evaluation: queries={self.queries}: must be at least 1, or null")


@dataclass(frozen=True)
class Evaluation:
    """What is measured, where, and how deep.

    Parameters
    ----------
    collections
        Test sets by name.
    measures
        ir_measures strings, relevance thresholds included, e.g. "RR(rel=2)@10".
    k
        Passages of the first stage that are re-ranked.
    interpolate
        Also report ``w z(student) + (1 - w) z(first stage)``, z being the z-score within a query's
        candidates; w of {0, 0.1, ..., 1} has the best first measure on the dev split of the
        *training* collection (the smallest such w). The student alone is always reported.
    dev_queries
        Dev queries for choosing w.
    teacher_queries
        Test queries that the teacher ranks too, where it can rank queries it has not seen; 0: none.
    max_tokens
        A batch holds at most this many tokens. Not part of the identity.
    """

    collections: Mapping[str, TestSet]
    measures: tuple[str, ...]
    k: int = 100
    interpolate: bool = False
    dev_queries: int = 48
    teacher_queries: int = 0
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        """Check values; measures must be known to ir_measures."""
        object.__setattr__(self, "measures", tuple(self.measures))
        if not self.collections or not self.measures:
            raise ValueError("evaluation: needs at least one collection and one measure")
        for name in self.measures:
            try:
                ir_measures.parse_measure(name)
            except (NameError, ValueError, SyntaxError) as error:
                raise ValueError(
                    f"evaluation.measures: {name!r} is not a measure of ir_measures; "
                    "e.g. nDCG@10, RR@10, RR(rel=2)@10, R@100, AP"
                ) from error
        if self.k < 1 or self.dev_queries < 1 or self.teacher_queries < 0:
            raise ValueError(
                f"evaluation: k={self.k} and dev_queries={self.dev_queries} must be at least 1, "
                f"teacher_queries={self.teacher_queries} at least 0"
            )


def rerank(
    student: CrossEncoder,
    candidates: pd.DataFrame,
    collection: Any,
    trainer: Any,
    max_tokens: int,
    name: str = "re-ranking",
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Score candidates with a student; ties as trec_eval.

    All pairs are sorted by length and cut into batches of at most `max_tokens` tokens.

    Returns
    -------
    ranking, timing
        timing: seconds, pairs_per_second, queries.
    """
    accelerator = trainer.accelerator()
    student = student.to(accelerator.device).eval()
    query_ids, doc_ids = list(candidates.query_id), list(candidates.doc_id)
    pairs = [
        (collection.queries[q], collection.passages[d])
        for q, d in zip(query_ids, doc_ids, strict=True)
    ]
    scores = np.zeros(len(pairs), dtype=np.float32)
    start = time.perf_counter()
    with (
        torch.inference_mode(),
        accelerator.autocast(),
        tqdm(total=len(pairs), desc=name, unit="pair") as bar,
    ):
        for micro in micro_batches(pairs, range(len(pairs)), student.pairs, max_tokens):
            inputs = {key: value.to(accelerator.device) for key, value in micro.inputs.items()}
            found = student(inputs, micro.parts.to(accelerator.device)).float().cpu()
            scores[micro.positions.numpy()] = found.numpy()
            bar.update(len(micro.positions))
    seconds = time.perf_counter() - start
    timing = {
        "seconds": seconds,
        "pairs_per_second": len(pairs) / max(seconds, 1e-9),
        "queries": float(candidates.query_id.nunique()),
    }
    return rankings.rank(query_ids, doc_ids, scores), timing


def oracle(candidates: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """The best order of the candidates: by relevance, ties by first-stage rank."""
    graded = candidates.merge(qrels, on=["query_id", "doc_id"], how="left")
    # Distinct scores, so that no tie rule can change the order.
    scores = graded.relevance.fillna(0) - graded["rank"] / (graded["rank"].max() + 1)
    return rankings.rank(graded.query_id, graded.doc_id, scores)


def as_ranking(taught: pd.DataFrame) -> pd.DataFrame:
    """A teacher ranking as a ranking whose scores are the negative ranks."""
    return rankings.rank(taught.query_id, taught.doc_id, -taught.teacher_rank)


def interpolated(student: pd.DataFrame, first_stage: pd.DataFrame, weight: float) -> pd.DataFrame:
    """``weight * z(student) + (1 - weight) * z(first stage)`` within each query's candidates."""
    both = student.merge(first_stage, on=["query_id", "doc_id"], suffixes=("", "_first"))
    mixed = weight * rankings.z_scores(both, "score")
    mixed += (1 - weight) * rankings.z_scores(both, "score_first")
    return rankings.rank(both.query_id, both.doc_id, mixed)


def best_weight(
    student: pd.DataFrame, first_stage: pd.DataFrame, qrels: pd.DataFrame, measure: str
) -> float:
    """The weight with the highest mean of a measure; the smallest of equals."""
    means = [
        measured(interpolated(student, first_stage, w), qrels, [measure]).value.mean()
        for w in WEIGHTS
    ]
    return WEIGHTS[int(np.argmax(np.round(means, 12)))]


def measured(ranking: pd.DataFrame, qrels: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """Per-query values [query_id, measure, value] for every query of the qrels.

    A judged query without a ranked passage counts 0. The rank column decides, in which ties are
    broken as trec_eval does.
    """
    parsed = {str(ir_measures.parse_measure(m)): m for m in measures}
    # Not the scores: ir_measures' providers break ties differently (RR@10 by doc id ascending).
    run = ranking[["query_id", "doc_id"]].assign(score=-ranking["rank"].astype("float64"))
    found = ir_measures.iter_calc(list(map(ir_measures.parse_measure, parsed)), qrels, run)
    values = {(str(one.query_id), parsed[str(one.measure)]): float(one.value) for one in found}
    rows = [
        (query_id, measure, values.get((query_id, measure), 0.0))
        for query_id in dict.fromkeys(qrels.query_id)
        for measure in parsed.values()
    ]
    return pd.DataFrame(rows, columns=["query_id", "measure", "value"])


def per_query(
    collection: str,
    systems: Mapping[str, pd.DataFrame],
    qrels: pd.DataFrame,
    measures: Sequence[str],
) -> pd.DataFrame:
    """The per-query table [collection, system, query_id, measure, value] of several rankings."""
    parts = [
        measured(ranking, qrels, measures).assign(collection=collection, system=system)
        for system, ranking in systems.items()
    ]
    return pd.concat(parts)[["collection", "system", "query_id", "measure", "value"]]


def half_width(values: pd.Series) -> float:
    """Half the width of the 95 % t interval of a mean over queries; infinite for one query."""
    n = len(values)
    if n < 2:
        return float("inf")
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))


def judged(ranking: pd.DataFrame, qrels: pd.DataFrame) -> float:
    """Mean share of judged passages in the top 10."""
    return float(measured(ranking, qrels, [JUDGED]).value.mean())


def health(
    table: pd.DataFrame,
    student: pd.DataFrame,
    measure: str,
    weight_change: float | None,
    validation: tuple[float, float] | None = None,
) -> str:
    """State of a finished trial; the gravest that applies.

    "weights_unchanged": training left the probed weights as they were; "constant_scores": the
    student gives all passages of most queries one score; "below_first_stage": its mean of the
    first measure is below the first stage's in some collection; "below_start": of `validation`, the
    values before training and of the weights that were kept, the second is lower; else "ok".
    """
    if weight_change == 0:
        return "weights_unchanged"
    spread = student.groupby("query_id").score.agg(lambda s: s.max() - s.min())
    if (spread < 1e-6).mean() > 0.5:
        return "constant_scores"
    means = table[table.measure == measure].groupby(["collection", "system"]).value.mean()
    for name in table.collection.unique():
        if means[name, "student"] < means[name, "first_stage"]:
            return "below_first_stage"
    if validation is not None and validation[1] < validation[0]:
        return "below_start"
    return "ok"
