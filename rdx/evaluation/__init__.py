"""Re-rank test sets and measure every query with ir_measures."""

from rdx.evaluation.corpora import (
    Beside,
    Tested,
    all_means,
    beside,
    by_corpus,
    collection_means,
    measure,
    overlapping,
    pool,
    pooled,
)
from rdx.evaluation.efficiency import ratio, timed
from rdx.evaluation.measures import (
    JUDGED,
    half_width,
    judged,
    measured,
    per_query,
    tie_range,
    tied,
)
from rdx.evaluation.quality import Gates, facts, health
from rdx.evaluation.reranking import (
    WEIGHTS,
    as_ranking,
    best_weight,
    interpolated,
    oracle,
    rerank,
)
from rdx.evaluation.settings import Evaluation, TestSet, check_measures
from rdx.evaluation.ties import check as check_expected

__all__ = [
    "Beside",
    "Evaluation",
    "Gates",
    "JUDGED",
    "TestSet",
    "Tested",
    "WEIGHTS",
    "all_means",
    "as_ranking",
    "beside",
    "best_weight",
    "by_corpus",
    "check_expected",
    "check_measures",
    "collection_means",
    "facts",
    "half_width",
    "health",
    "interpolated",
    "judged",
    "measure",
    "measured",
    "oracle",
    "overlapping",
    "per_query",
    "pool",
    "pooled",
    "ratio",
    "rerank",
    "tie_range",
    "tied",
    "timed",
]
