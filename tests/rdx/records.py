"""Records as a small finished cell has them."""

from dataclasses import replace

from rdx.facts import CollectionFacts, Means, OverCollections, Ties, TrialFacts

COLLECTION = CollectionFacts(
    queries=24,
    k=10,
    digest="digest",
    first_stage={"engine": "bm25s"},
    judged_at_10=0.5,
    judged_at_10_first_stage=0.4,
    ceiling=0.8,
    reason="",
    missing_queries=0,
    ties=Ties("trec_eval", 0.0, 0.0),
)
MEANS = Means(corpora=("files",), left_out={}, arithmetic={}, geometric={})


def trial(signature="key", queries=24, **changes):
    """The facts of a finished trial of one collection, `files`."""
    facts = TrialFacts(
        signature=signature,
        signatures={"evaluate": signature},
        levels={},
        seed=1,
        health="ok",
        collections={"files": replace(COLLECTION, queries=queries)},
        over_collections=OverCollections(collections=MEANS),
        means={"files/student/nDCG@10": 0.5},
    )
    return replace(facts, **changes)
