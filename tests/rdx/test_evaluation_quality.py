"""Degenerate collections, means over collections, shared queries, the paper's pooling."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_evaluation import SOURCES, judgements, ranking

from rdx import facts as facts_module
from rdx import rankings
from rdx.collection import Collection
from rdx.evaluation import (
    Evaluation,
    Gates,
    TestSet,
    baselines,
    by_corpus,
    collection_means,
    concatenated,
    measure,
    measured,
    named_means,
    oracle,
    over_collections,
    overlapping,
    per_query,
    pool,
    quality_of,
)
from rdx.facts import CollectionFacts, OverCollections, Setting, Ties, shallow
from tests.rdx.configured import check_refused, configured


def settings(*names, measures=("RR",), **more):
    return Evaluation({name: TestSet(*SOURCES) for name in names or "x"}, measures, **more)


# --- gates and facts ---


def test_gates_name_what_is_too_low():
    gates = Gates(ceiling=0.2, judged=0.3)
    assert gates.reason(0.2, 0.3, "nDCG@10") == ""
    assert gates.reason(0.19, 0.3, "nDCG@10") == "oracle nDCG@10 0.190 < 0.2"
    low = gates.reason(0.0, 0.1, "RR")
    assert low == "oracle RR 0.000 < 0.2; Judged@10 of the first stage 0.100 < 0.3"
    for bad in ({"ceiling": -0.1}, {"judged": 1.1}):
        with pytest.raises(ValueError, match=rf"gates\.{next(iter(bad))}="):
            configured("gates", Gates, **bad)


@pytest.mark.parametrize(
    ("gates", "degenerate"),
    [(Gates(0.5, 0.3), False), (Gates(0.6, 0), True), (Gates(0, 0.4), True)],
)
def test_facts_beside_a_score(gates, degenerate):
    first = ranking({"q1": {"a": 3, "b": 3, "n": 1}, "q2": {"n": 1}})
    student = ranking({"q1": {"b": 3, "a": 2, "n": 1}, "q2": {"n": 1}})
    qrels = judgements({"q1": {"b": 1, "a": 0}, "q2": {"x": 1}, "q3": {"y": 1}})
    qrels = qrels[qrels.query_id != "q3"]
    evaluation = settings(gates=gates)
    systems = {"first_stage": first, "oracle": oracle(first, qrels), "student": student}
    table = per_query("x", systems, qrels, ("RR",))
    quality = quality_of(first, student, qrels, table, evaluation)
    assert quality.ceiling == pytest.approx(1 / 2)  # q1 can be 1, q2's passage is not there
    assert quality.judged_at_10 == pytest.approx((2 / 3 + 0) / 2)
    assert quality.degenerate is degenerate
    assert quality.ties == Ties("trec_eval", first_stage=0.5, system=0.0)
    assert quality.missing_queries == 0
    assert quality_of(first[:3], student, qrels, table, evaluation).missing_queries == 1


def test_the_gate_looks_at_the_first_stage_alone():
    """So that no collection is in one system's mean and out of another's."""
    first = ranking({"q": {f"d{i}": -float(i) for i in range(12)}})
    qrels = judgements({"q": {"d11": 1}})
    table = per_query("x", {"first_stage": first, "oracle": oracle(first, qrels)}, qrels, ["RR"])
    for system, judged in ((first, 0.0), (oracle(first, qrels), 0.1)):
        quality = quality_of(first, system, qrels, table, settings())
        assert quality.degenerate and quality.judged_at_10_first_stage == 0.0
        assert quality.judged_at_10 == judged


@pytest.mark.parametrize("ties", ["trec_eval", "expected", "rank"])
def test_what_systems_stand_beside_is_measured_once_for_all(ties):
    first = ranking({"q1": {"a": 3, "b": 3, "n": 1}, "q2": {"n": 1, "x": 0.5}})
    qrels = judgements({"q1": {"b": 1, "a": 0}, "q2": {"x": 2}, "q3": {"y": 1}})
    evaluation = settings("c", measures=("nDCG@10", "RR@10"), ties=ties)
    test = Collection("c", dict.fromkeys(("q1", "q2", "q3"), "?"), {}, qrels)
    known = baselines("c", test, first, evaluation)
    for lists in ({"q1": {"b": 1.0, "a": 1.0}}, {"q2": {"x": 3, "n": 2}, "q1": {"a": 1}}):
        systems = {"s": ranking(lists)}
        alone = measure("c", test, first, systems, evaluation)
        together = measure("c", test, first, systems, evaluation, known=known)
        pd.testing.assert_frame_equal(together.table, alone.table)
        assert together.quality == alone.quality
        assert list(together.systems) == list(alone.systems)
    assert set(together.quality.tie_range) == ({"first_stage"} if ties != "rank" else set())


# --- means ---


def rows(values):
    """(collection, query) -> value, of a system s and one measure."""
    table = [(c, "s", q, "RR", v) for (c, q), v in values.items()]
    return pd.DataFrame(table, columns=["collection", "system", "query_id", "measure", "value"])


VALUES = {("a", "1"): 1.0, ("a", "2"): 0.0, ("b", "1"): 0.25, ("c", "1"): 0.0, ("c", "9"): 0.02}


def facts(**more):
    plain = Setting(queries=2, k=10, digest="d", first_stage={"run": "x"})
    quality = quality_of(*QUALITY, settings(gates=Gates(0, 0)))
    return CollectionFacts(**(shallow(plain) | shallow(quality) | more))


ONE = ranking({"1": {"a": 1.0}})
RELEVANT = judgements({"1": {"a": 1}})
QUALITY = (ONE, ONE, RELEVANT, per_query("x", {"oracle": ONE}, RELEVANT, ("RR",)))


def test_means_are_over_queries_then_corpora():
    means = collection_means(rows(VALUES), {"a": facts(), "b": facts(), "c": facts()})
    assert means.arithmetic == {"s/RR": pytest.approx((0.5 + 0.25 + 0.01) / 3)}
    assert means.geometric == {"s/RR": pytest.approx((0.5 * 0.25 * 0.01) ** (1 / 3))}
    assert means.corpora == ("a", "b", "c") and means.left_out == {}
    # a's and b's query 1 are two queries, whatever their ids; unless they are one, counted once
    for shared, of_x in (((), (1 + 0 + 0.25) / 3), (("1",), (1 + 0) / 2)):
        together = {"a": facts(corpus="x"), "b": facts(corpus="x", shared=shared), "c": facts()}
        means = collection_means(rows(VALUES), together)
        assert means.arithmetic["s/RR"] == pytest.approx((of_x + 0.01) / 2)


def test_a_mean_with_a_name_is_over_its_test_sets_each_alike():
    """Whatever their corpus, which queries they share, and whether they count in other means."""
    collections = {
        "a": facts(corpus="x"),
        "b": facts(corpus="x", shared=("1",), in_mean=False),
        "c": facts(reason="why"),
    }
    more = rows({("a", "1"): 1.0}).assign(system="teacher")
    table = pd.concat([rows(VALUES), more])
    over = over_collections(table, collections, {"ab": ("a", "b"), "bc": ["c", "b"]})
    assert over.named["ab"].arithmetic == {"s/RR": pytest.approx((0.5 + 0.25) / 2)}
    assert over.named["bc"].arithmetic == {"s/RR": pytest.approx((0.25 + 0.01) / 2)}
    assert over.named["bc"].corpora == ("c", "b") and over.named["bc"].left_out == {}
    assert over.named["ab"].geometric == {"s/RR": pytest.approx((0.5 * 0.25) ** 0.5)}
    assert over.collections == over_collections(table, collections).collections
    means = named_means(table, over)
    assert means["ab/s/RR"] == pytest.approx(0.375) and "ab/teacher/RR" not in means
    assert facts_module.parse(OverCollections, facts_module.dump(over)) == over


def test_names_of_means_are_checked():
    sets = settings("a", "b", means={"both": ("a", "b")}).collections
    for means, key in [
        ({"both": ("a", "c")}, "both"),
        ({"both": ("a", "a")}, "both"),
        ({"a": ("a", "b")}, "a"),
        ({"mean": ("a", "b")}, "mean"),
        ({"x/y": ("a", "b")}, "x/y"),
        ({"x.pooled": ("a", "b")}, "x.pooled"),
    ]:
        values = {"collections": sets, "measures": ("RR",), "means": means}
        check_refused("evaluation", Evaluation, f"means.{key}", **values)
    with pytest.raises(ValueError, match="means"):
        settings("a", "b", means={"one": ("a",)})


def test_degenerate_collections_are_left_out_by_default():
    collections = {"a": facts(), "b": facts(in_mean=False), "c": facts(reason="why")}
    means = collection_means(rows(VALUES), collections)
    assert means.arithmetic["s/RR"] == 0.5 and means.left_out == {"c": "degenerate: why"}
    means = collection_means(rows(VALUES), collections, degenerate=True)
    assert means.arithmetic["s/RR"] == pytest.approx((0.5 + 0.01) / 2)
    nothing = collection_means(rows(VALUES), {"c": facts(reason="why")})
    assert nothing.arithmetic == {} and nothing.corpora == ()


def test_a_system_that_lacks_a_corpus_has_no_mean():
    table = pd.concat([rows(VALUES), rows({("a", "1"): 1.0}).assign(system="teacher")])
    means = collection_means(table, {"a": facts(), "b": facts(), "c": facts()})
    assert set(means.arithmetic) == {"s/RR"}


def test_overlapping_queries_have_equal_ids_and_texts():
    shared = overlapping({
        "robust": {"351": "oil  Spill", "600": "x"}, "trec7": {"351": "oil spill", "352": "y"},
        "web": {"351": "another", "600": "X"}, "later": {"352": "y", "351": "another"},
    })  # fmt: skip
    assert shared == {
        "robust": (), "trec7": ("351",), "web": ("600",), "later": ("352", "351"),
    }  # fmt: skip


# --- the paper's pooling ---


def evaluated(name, queries, grades, first, student, measures):
    collection = Collection(name, queries, {}, judgements(grades))
    evaluation = settings(measures=measures)
    return measure(name, collection, ranking(first), {"student": ranking(student)}, evaluation)


def medline(*measures):
    return {
        "genomics": evaluated(
            "genomics", {"1": "iron", "2": "bone"}, {"1": {"a": 1}, "2": {"b": 1}},
            {"1": {"a": 5, "z": 4}, "2": {"b": 1}}, {"1": {"a": 0.9, "z": 0.1}, "2": {"b": 1}},
            measures,
        ),
        "pm": evaluated(
            "pm", {"1": "lung", "3": "skin"}, {"1": {"c": 1, "a": 0}, "3": {"d": 1}},
            {"1": {"y": 9, "c": 8}}, {"1": {"y": 2.0, "c": 0.5}}, measures,
        ),
    }  # fmt: skip


def test_pooling_takes_equal_ids_for_one_query():
    tests = list(medline("RR", "P@1").values())
    pooled = pool(tests, "medline.pooled", settings(measures=("RR", "P@1")))
    table = pooled.table
    # query 1 of either: y 9, c 8, a 5, z 4; c relevant, a's grade 1 overwritten by 0; 3 is unranked
    own = table[(table.system == "first_stage") & (table.measure == "RR")]
    assert dict(zip(own.query_id, own.value, strict=True)) == {"1": 0.5, "2": 1.0}
    student = table[(table.system == "student") & (table.measure == "P@1")]
    assert dict(zip(student.query_id, student.value, strict=True)) == {"1": 0.0, "2": 1.0}
    assert set(table.collection) == {"medline.pooled"}
    merged = concatenated(test.systems["student"] for test in tests)
    rankings.check(merged)
    assert merged[merged.query_id == "1"].doc_id.tolist() == ["y", "a", "c", "z"]


@pytest.mark.parametrize("paper_compat", [False, True])
def test_both_means_are_shown_side_by_side(paper_compat):
    tests = medline("RR")
    sets = {name: TestSet(*SOURCES, corpus="medline") for name in tests}
    pm = tests["pm"]
    tests["alone"] = replace(pm, table=pm.table.assign(collection="alone"))
    sets["alone"] = TestSet(*SOURCES)
    evaluation = Evaluation(sets, ("RR",), paper_compat=paper_compat)
    compared = {
        name: Setting(queries=2, k=9, digest=name, first_stage={"run": name}, corpus=one.corpus)
        for name, one in sets.items()
    }
    table, facts = by_corpus(evaluation, tests, compared, weight=0.3)
    assert facts["pm"].shared == () == facts["genomics"].shared  # other texts
    assert {facts[name].weight for name in tests} == {0.3}
    assert not table.duplicated(["collection", "system", "query_id", "measure"]).any()
    means = over_collections(table, facts)
    # medline: 1, 1 of genomics, 1/2 and 0 (not ranked) of pm; alone: 1/2 and 0
    expected = (np.mean([1, 1, 0.5, 0]) + 0.25) / 2
    assert means.collections.arithmetic["first_stage/RR"] == pytest.approx(expected)
    assert (means.paper_compat is not None) == ("medline.pooled" in facts) == paper_compat
    if paper_compat:
        assert means.paper_compat.arithmetic["first_stage/RR"] == pytest.approx(0.75)
        pooled = facts["medline.pooled"]
        assert pooled.pooled == ("genomics", "pm") and pooled.digest not in ("", *compared)
        assert (pooled.colliding_queries, pooled.queries, pooled.in_mean) == (1, 2, False)
        for left_out, corpora in (("pm", ("medline",)), ("genomics", ())):  # then none counts
            facts[left_out] = replace(facts[left_out], in_mean=False)
            assert over_collections(table, facts).paper_compat.corpora == corpora


def test_equal_ids_in_two_collections_stay_two_rows():
    """Keys are (collection, query id): no value can be taken for another's."""
    tests = medline("RR")
    both = pd.concat(test.table for test in tests.values())
    both = both[both.system == "student"].set_index(["collection", "query_id"]).value
    assert both["genomics", "1"] == 1.0 and both["pm", "1"] == 0.5 and both.index.is_unique
    alone = measured(tests["pm"].systems["student"], tests["pm"].collection.qrels, ["RR"])
    assert alone.value.tolist() == both["pm"].tolist()
