"""Re-rank test sets and measure every query with ir_measures."""

from rdx.evaluation.corpora import (
    by_corpus,
    collection_means,
    concatenated,
    named_means,
    over_collections,
    overlapping,
    pool,
)
from rdx.evaluation.efficiency import ratio, timed
from rdx.evaluation.measurement import Baselines, Tested, baselines, measure
from rdx.evaluation.measures import (
    JUDGED,
    MeasureError,
    judged,
    measured,
    per_query,
    tie_range,
    tied,
)
from rdx.evaluation.quality import Gates, health, quality_of
from rdx.evaluation.reranking import (
    WEIGHTS,
    Runtime,
    as_ranking,
    best_weight,
    interpolated,
    oracle,
    rerank,
    score,
)
from rdx.evaluation.settings import Evaluation, TestSet, check_measures

__all__ = [
    "Baselines",
    "Evaluation",
    "Gates",
    "JUDGED",
    "MeasureError",
    "Runtime",
    "TestSet",
    "Tested",
    "WEIGHTS",
    "as_ranking",
    "baselines",
    "best_weight",
    "by_corpus",
    "check_measures",
    "collection_means",
    "concatenated",
    "health",
    "interpolated",
    "judged",
    "measure",
    "measured",
    "named_means",
    "oracle",
    "over_collections",
    "overlapping",
    "per_query",
    "pool",
    "quality_of",
    "ratio",
    "rerank",
    "score",
    "tie_range",
    "tied",
    "timed",
]
