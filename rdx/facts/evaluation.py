"""Test collections: what must be equal of two systems, how good one is, and means."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue

Fingerprint = dict[str, JsonValue]  # what identifies a first stage: engine, version, parameters


@dataclass(frozen=True)
class Ties:
    """The rule for ties, and the shares of neighbours in the top k with equal scores."""

    rule: str
    first_stage: float
    system: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What must be equal before two systems may stand in one table, and where it is averaged.

    Attributes
    ----------
    queries, k
        Tested queries; passages of the first stage that are re-ranked.
    digest
        Of the collection's identity and the tested queries.
    first_stage
        Its fingerprint; of a pooled corpus, those of its test sets by name.
    corpus, in_mean
        As of `rdx.evaluation.TestSet`.
    passages_of_copy
        Passages of a local copy that was measured in place of the original; None of an original.
    """

    queries: int
    k: int
    digest: str
    first_stage: Fingerprint
    corpus: str | None = None
    in_mean: bool = True
    passages_of_copy: int | None = None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What stands beside the score of a ranking in a collection (`rdx.evaluation.quality`).

    Attributes
    ----------
    judged_at_10, judged_at_10_first_stage
        Judged@10 of the ranking and of the first stage.
    ceiling
        The oracle's mean of the first measure.
    reason
        Why the collection is degenerate; "" if it is not.
    missing_queries
        Judged queries without a candidate, which count 0.
    own_passages
        Candidates with the id of their query (`evaluation.self_retrieval`).
    ties
        Rule and shares.
    tie_range
        System with tied passages -> measure -> lowest and highest mean that an order of them gives.
    """

    judged_at_10: float
    judged_at_10_first_stage: float
    ceiling: float
    reason: str
    missing_queries: int
    ties: Ties
    tie_range: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    own_passages: int = 0

    @property
    def degenerate(self) -> bool:
        """Whether the collection says nothing about re-rankers."""
        return bool(self.reason)


@dataclass(frozen=True, kw_only=True)
class CollectionFacts(Setting, Quality):
    """A test collection of a trial.

    Attributes
    ----------
    weight
        Of the student in its interpolation with the first stage; None without one.
    shared
        Query ids that an earlier test set of the corpus has, too: they count once in means.
    pooled, colliding_queries
        Of a corpus that was pooled as in the paper: its test sets, and queries whose ids collide.
    oddities
        What is odd in its files, by name (docs/data.md).
    selected_on
        Whether scores on it decided which weights were kept (`trainer.validate_on`), in this cell
        or in one that its students come from: it is no test of them.
    """

    weight: float | None = None
    shared: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()
    colliding_queries: int = 0
    oddities: dict[str, int] = field(default_factory=dict)
    selected_on: bool = False


@dataclass(frozen=True, kw_only=True)
class Means:
    """Means over corpora.

    Attributes
    ----------
    corpora
        Their names.
    left_out
        Collection -> why it takes no part.
    arithmetic, geometric
        SYSTEM/MEASURE -> mean; systems that some corpus lacks are absent.
    """

    corpora: tuple[str, ...]
    left_out: dict[str, str]
    arithmetic: dict[str, float]
    geometric: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class OverCollections:
    """Means over collections.

    Attributes
    ----------
    collections
        Over all that take part.
    paper_compat
        The paper's, if corpora were pooled.
    named
        Those of ``evaluation.means``, each over the test sets that its `corpora` are.
    """

    collections: Means
    paper_compat: Means | None = None
    named: dict[str, Means] = field(default_factory=dict)
