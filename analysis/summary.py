"""Tidy frame + spec -> the numbers of the table: means, paired tests, corrections.

All arithmetic of a table happens here, on arrays; words and marks are `report`'s. Scores are
paired by (collection, query_id); a value of a row is the mean over queries of the per-query mean
over seeds, and the tests see those per-query means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from analysis.comparability import collection_facts
from analysis.contrasts import Contrast, Pairs, run_tests
from analysis.costs import costs
from analysis.health import sound
from analysis.means import declared, over_collections
from analysis.pools import pooled_facts, with_pools
from analysis.scores import Scores, check_queries, scores_of, series, signatures_of
from analysis.spec import Spec
from analysis.trials import Trials
from rdx.facts import CollectionFacts

__all__ = ["Contrast", "Pairs", "Scores", "Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    """The numbers of one table.

    Attributes
    ----------
    spec : Spec
        What was asked for.
    trials : Trials
        What it was computed from.
    collections : tuple of str
        In the order of the columns.
    collection_facts : dict
        collection -> its facts (queries, k, first stage, digest, ...), equal in every trial.
    scores : dict
        (row, collection, measure) -> `Scores`; absent = missing.
    against : tuple of Contrast
        Tests against the spec's baselines, by collection, measure, baseline and row.
    pairs : dict
        (collection, measure) -> `Pairs`; empty unless the spec wants all pairs.
    means : dict
        (row, name of a mean, measure) -> `Scores` [1, s] of the spec's means over collections.
    costs : dict
        (row, collection, cost) -> `Scores` of what its trials were timed at; see `analysis.costs`.
    comparisons : tuple of Contrast
        The spec's `comparisons`, in its order, then by collection and measure.
    signatures : dict
        row -> signatures of the trials found for it.
    """

    spec: Spec
    trials: Trials
    collections: tuple[str, ...]
    collection_facts: dict[str, CollectionFacts]
    scores: dict[tuple[str, str, str], Scores]
    against: tuple[Contrast, ...]
    comparisons: tuple[Contrast, ...]
    signatures: dict[str, tuple[str, ...]]
    pairs: dict[tuple[str, str], Pairs]
    means: dict[tuple[str, str, str], Scores]
    costs: dict[tuple[str, str, str], Scores]

    @cached_property
    def contrasts(self) -> dict[tuple[str, str, str], Contrast]:
        """(row, collection, measure) -> `Contrast` with the first baseline."""
        return {
            (c.treatment, c.collection, c.measure): c
            for c in self.against
            if c.baseline == self.spec.baseline
        }

    @property
    def places(self) -> list[tuple[str, str]]:
        """(collection, measure) of every column; before the first trial with a nameless one."""
        return [(c, m) for c in self.collections or ("",) for m in self.spec.measures]

    @cached_property
    def tested(self) -> tuple[str, ...]:
        """The collections of which tests and figures speak: parts of a pool are not seen twice."""
        pooled = {place for _, place, _ in self.scores}
        parts = {part for pool in self.spec.pools if pool.name in pooled for part in pool.of}
        return tuple(name for name in self.collections if name not in parts)

    def lookup(self, row: str, column: str, measure: str) -> Scores | None:
        """Scores of a row in a collection, its mean over collections, or a cost; None = missing."""
        key = (row, column, measure)
        return self.scores.get(key) or self.means.get(key) or self.costs.get(key)

    def queries(self, collection: str) -> int:
        """Queries of the collection that a row has, at most."""
        return max(
            (len(s.queries) for (_, c, _), s in self.scores.items() if c == collection), default=0
        )

    def apart(self, row: str) -> bool:
        """Whether a row covers only some of a collection's queries, so that it stands by itself."""
        return any(
            len(scores.queries) < self.queries(collection)
            for (name, collection, _), scores in self.scores.items()
            if name == row
        )

    @cached_property
    def sound(self) -> frozenset[str]:
        """Names of the rows that do not rest on a run that went wrong; see `analysis.health`."""
        return sound(self.spec.rows, self.signatures, self.trials.facts)

    def scores_of(self, row: str) -> list[Scores]:
        """Scores of one row in every column that has them."""
        return [self.scores[row, c, m] for c, m in self.places if (row, c, m) in self.scores]


def summarise(spec: Spec, trials: Trials) -> Summary:
    """All numbers of the table of `spec`.

    Raises
    ------
    ComparabilityError
        If two trials differ in the data of a collection; if two rows (a teacher and imported runs
        apart, which may cover a subset) or two seeds have other queries; if a row mixes cells that
        differ in more than the seed; if a reference row is not the same in all of its trials.
    """
    trials = with_pools(trials, spec.pools)
    facts = collection_facts(trials.facts)
    facts |= pooled_facts(spec.pools, facts)
    collections = spec.collections or tuple(facts)
    spec = replace(spec, means=spec.means or declared(trials.facts.values(), collections))
    signatures = {row.name: signatures_of(row, trials, spec.pools) for row in spec.rows}
    columns = series(trials.frame, collections, spec.measures)
    places = [(c, m) for c in collections for m in spec.measures]
    scores: dict[tuple[str, str, str], Scores] = {}
    for row in spec.rows:
        for collection, measure in places:
            own = scores_of(row, signatures[row.name], columns, collection, measure, trials)
            if own is not None:
                scores[row.name, collection, measure] = own
    for collection, measure in places:
        check_queries(spec.rows, scores, collection, measure)
    tests = run_tests(spec, places, scores, sound(spec.rows, signatures, trials.facts))
    return Summary(
        spec=spec,
        trials=trials,
        collections=collections,
        collection_facts=facts,
        scores=scores,
        against=tests.against,
        comparisons=tests.comparisons,
        signatures=signatures,
        pairs=tests.pairs,
        means=over_collections(spec.means, spec.rows, spec.measures, collections, facts, scores),
        costs=costs(spec.rows, signatures, collections, trials.facts),
    )
