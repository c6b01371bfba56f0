"""What is measured, where, and how deep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from typing import Annotated, ClassVar

import ir_measures
import pandas as pd
from annotated_types import MinLen

from rdx.declared import (
    READ,
    SCHEDULES,
    Group,
    NotNegative,
    Positive,
    Texts,
    one_of,
    settings,
)
from rdx.evaluation import ties as tied_orders
from rdx.evaluation.measures import MeasureError, measured
from rdx.evaluation.quality import Gates
from rdx.parts import DataSource, Sampler

SelfRetrieval = Annotated[str, one_of("drop", "keep")] | None
MEAN = "mean"  # stands where a collection's name does in names of means over collections


@settings(frozen=True)
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
    corpus
        What it is averaged with: test sets of one corpus are averaged over their queries before
        corpora are averaged; None = a corpus of its own.
    in_mean
        Whether it takes part in means over collections.
    self_retrieval
        As of `Evaluation`, for this test set alone; None: as for all of them.
    k
        Passages of the first stage that are re-ranked; None = as the evaluation has it.
    """

    __test__: ClassVar[bool] = False  # not a test case of pytest

    data: Annotated[DataSource, Group("data")]
    first_stage: Annotated[Sampler, Group("sampler")]
    split: Annotated[str, one_of("train", "dev", "test", "all")] = "all"
    queries: Positive | None = None
    corpus: Annotated[str, MinLen(1)] | None = None
    in_mean: bool = True
    self_retrieval: SelfRetrieval = None
    k: Positive | None = None


@settings(frozen=True)
class Evaluation:
    """What is measured, where, and how deep.

    Parameters
    ----------
    collections
        Test sets by name.
    measures
        ir_measures strings, relevance thresholds included, e.g. "RR(rel=2)@10". The first decides
        on weights, health and ceilings.
    means
        Names of test sets by the name of a mean over them: one number, in which each of them weighs
        the same, degenerate ones too. So of several first stages of a collection, which are a test
        set each.
    k
        Passages of the first stage that are re-ranked, where a test set does not say it.
    ties
        "trec_eval": by score, ties by doc id descending; "expected": the expected value over all
        orders of tied passages; "rank": by the rank column (differs from "trec_eval" where a first
        stage was read with order=rank).
    self_retrieval
        The passage with the id of the query, where queries are passages of the corpus (ArguAna,
        Quora): "drop" leaves it out of all candidates, those of trainings too, and of the runs of
        others, as BEIR does; "keep" takes it; None: the same, with a warning where such a passage
        has the query's text. Not for collections whose queries and passages are merely numbered
        alike.
    gates
        When a collection is degenerate.
    paper_compat
        Also measure what Schlatt et al. 2025 did: the queries of all test sets of a corpus pooled
        into one collection CORPUS.pooled, as if equal query ids were equal queries.
    interpolate
        Also report ``w z(student) + (1 - w) z(first stage)``, z being the z-score within a query's
        candidates; w of {0, 0.1, ..., 1} has the best first measure on the dev split of the
        *training* collection (the smallest such w). The student alone is always reported.
    dev_first_stage
        Sampler whose top k are re-ranked for dev queries, to choose w and to validate trainings:
        one for all cells, whatever their training candidates come from.
    dev_queries
        Dev queries that are re-ranked, at most.
    teacher_queries
        Test queries that the teacher ranks too, where it can rank queries it has not seen; 0: none.
    efficiency
        Repetitions of a timing of single queries, after a warm-up (docs/evaluation.md); 0: none.
    efficiency_queries
        Queries that are timed, at most.
    runs
        Folder that options take first stages from, one TREC run a test set; theirs alone.
    folder
        Folder that the option `beir_folders` takes collections from; its alone.
    max_tokens
        A batch holds at most this many tokens. Not part of the identity.
    """

    collections: Annotated[Mapping[str, TestSet], MinLen(1)]
    measures: Annotated[Texts, MinLen(1)]
    dev_first_stage: Annotated[Sampler | None, Group("sampler")] = None
    means: Mapping[str, Annotated[Texts, MinLen(2)]] = field(default_factory=dict)
    k: Positive = 100
    ties: Annotated[str, one_of(*tied_orders.RULES)] = "trec_eval"
    self_retrieval: SelfRetrieval = None
    gates: Gates = Gates()
    paper_compat: bool = False
    interpolate: bool = False
    dev_queries: Positive = 48
    teacher_queries: NotNegative = 0
    efficiency: NotNegative = 0
    efficiency_queries: Positive = 32
    runs: Annotated[str | None, READ, SCHEDULES] = None  # the files in it are told by their content
    folder: Annotated[str | None, READ, SCHEDULES] = None  # likewise
    max_tokens: Annotated[Positive, SCHEDULES] = 4096

    def __post_init__(self) -> None:
        """Check values together; measures must be known to ir_measures."""
        check_measures(self.measures)
        if self.ties == "expected":
            tied_orders.check(self.measures)
        if self.interpolate and self.dev_first_stage is None:
            raise ValueError("interpolate=true: needs a sampler as evaluation.dev_first_stage")
        for key, name in (*self._keys("collections"), *self._keys("means")):
            if name.endswith(".pooled"):
                raise ValueError(f"{key}: such names are for paper_compat=true")
            if name == MEAN or not re.fullmatch(r"[\w+-][\w.+-]*", name):
                raise ValueError(
                    f"{key}: names files and results; give it letters, digits and "
                    f"any of _ . + - alone, and not {MEAN!r}"
                )
        for name, of in self.means.items():
            if name in self.collections:
                raise ValueError(f"means.{name}: a test set has this name")
            unknown = [one for one in of if one not in self.collections]
            if unknown or len(set(of)) < len(of):
                wrong = f"there is no test set {unknown[0]!r}" if unknown else "one is there twice"
                raise ValueError(
                    f"means.{name}: {wrong}; name others, or leave the mean out: "
                    f"~evaluation.means.{name}"
                )

    def _keys(self, field_name: str) -> list[tuple[str, str]]:
        """Keys of a field, each with its last part."""
        return [(f"{field_name}.{name}", name) for name in getattr(self, field_name)]

    def self_retrieval_of(self, name: str) -> str | None:
        """The rule for a test set."""
        return self.collections[name].self_retrieval or self.self_retrieval

    def depth(self, name: str) -> int:
        """How many passages of its first stage are re-ranked for a test set."""
        return self.collections[name].k or self.k

    def check(self) -> None:
        """Compute the measures of a toy: some need a program or a package that may be lacking.

        Raises
        ------
        ValueError
            Naming the measure.
        """
        compute(self.measures)


def check_measures(measures: Sequence[str]) -> None:
    """Raise ValueError naming a measure that there is not, or not with these parameters."""
    known: dict[str, str] = {}
    for name in measures:
        try:
            measure = ir_measures.parse_measure(name)
            parameters = dict(measure.params)
        except Exception as error:  # also its AssertionError
            raise ValueError(
                f"measures: {name!r} is not a measure of ir_measures; "
                "e.g. nDCG@10, RR@10, RR(rel=2)@10, R@100, AP"
            ) from error
        # a provider in C ends the process at a cut-off of 0; others give 0 or divide by it
        if parameters.get("cutoff", 1) < 1:
            raise ValueError(f"measures: {name!r}: its cut-off must be at least 1")
        if not 0 <= parameters.get("recall", 0) <= 1:
            raise ValueError(f"measures: {name!r}: its recall must be a share from 0 to 1")
        if (other := known.setdefault(str(measure), name)) != name or measures.count(name) > 1:
            raise ValueError(f"measures: {other!r} and {name!r} are the same measure; keep one")


@lru_cache(maxsize=64)
def compute(measures: tuple[str, ...]) -> None:
    """Compute measures of a toy that checked out; ValueError naming one that cannot be."""
    graded = [("q/1", "d 1", 1), ("q/1", "d#2", 0), ("10-2", "1", 2), ("10-2", "2", 0)]
    qrels = pd.DataFrame(graded, columns=["query_id", "doc_id", "relevance"])
    ranking = qrels.assign(rank=[2, 1, 1, 2], score=[1.0, 2.0, 2.0, 1.0])
    try:
        measured(ranking, qrels, measures)
    except MeasureError as error:
        raise ValueError(f"measures: {error}") from error
