"""Records of finished trials, whole: a test or a benchmark names what it is about."""

from dataclasses import replace

from rdx.facts import OK, CollectionFacts, Means, OverCollections, Ties, TrialFacts

COLLECTION = CollectionFacts(
    queries=4,
    k=10,
    digest="d",
    first_stage={"engine": "bm25s"},
    judged_at_10=0.5,
    judged_at_10_first_stage=0.5,
    ceiling=0.9,
    reason="",
    missing_queries=0,
    ties=Ties("trec_eval", 0.0, 0.0),
)
NO_MEANS = Means(corpora=(), left_out={}, arithmetic={}, geometric={})


def collection(**changes):
    """Facts of a collection."""
    return replace(COLLECTION, **changes)


def trial(signature, seed=1, collections=None, health=OK, **more):
    """Facts of a trial; by default it was evaluated on nothing."""
    over = OverCollections(collections=NO_MEANS)
    known = {"signatures": {}, "levels": {}, "over_collections": over, "means": {}}
    return TrialFacts(
        signature=signature, seed=seed, health=health, collections=collections or {},
        **{**known, **more},
    )  # fmt: skip
