"""Degenerate collections, means over collections, shared queries, the paper's pooling."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rdx import rankings
from rdx.collection import Collection
from rdx.evaluation import (
    Evaluation,
    Gates,
    Tested,
    TestSet,
    all_means,
    beside,
    by_corpus,
    collection_means,
    facts,
    measure,
    measured,
    oracle,
    overlapping,
    per_query,
    pool,
    pooled,
)


def ranking(lists):
    rows = [(q, d, score) for q, scores in lists.items() for d, score in scores.items()]
    return rankings.rank(*zip(*rows, strict=True))


def judgements(grades):
    rows = [(q, d, grade) for q, one in grades.items() for d, grade in one.items()]
    frame = pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])
    return frame.astype({"relevance": "int32"})


# --- gates and facts ---


def test_gates_name_what_is_too_low():
    gates = Gates(ceiling=0.2, judged=0.3)
    assert gates.reason(0.2, 0.3, "nDCG@10") == ""
    assert gates.reason(0.19, 0.3, "nDCG@10") == "oracle nDCG@10 0.190 < 0.2"
    low = gates.reason(0.0, 0.1, "RR")
    assert low == "oracle RR 0.000 < 0.2; Judged@10 of the first stage 0.100 < 0.3"
    for bad in ({"ceiling": -0.1}, {"judged": 1.1}):
        with pytest.raises(ValueError, match=rf"gates\.{next(iter(bad))}=.*between 0 and 1"):
            Gates(**bad)


@pytest.mark.parametrize(
    ("gates", "degenerate"),
    [(Gates(0.5, 0.3), False), (Gates(0.6, 0), True), (Gates(0, 0.4), True)],
)
def test_facts_beside_a_score(gates, degenerate):
    first = ranking({"q1": {"a": 3, "b": 3, "n": 1}, "q2": {"n": 1}})
    student = ranking({"q1": {"b": 3, "a": 2, "n": 1}, "q2": {"n": 1}})
    qrels = judgements({"q1": {"b": 1, "a": 0}, "q2": {"x": 1}, "q3": {"y": 1}})
    qrels = qrels[qrels.query_id != "q3"]
    settings = Evaluation({"x": TestSet(None, None)}, ("RR",), gates=gates)
    systems = {"first_stage": first, "oracle": oracle(first, qrels), "student": student}
    table = per_query("x", systems, qrels, ("RR",))
    found = facts(first, student, qrels, table, settings)
    assert found["ceiling"] == pytest.approx(1 / 2)  # q1 can be 1, q2's passage is not there
    assert found["judged@10"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["degenerate"] is degenerate and bool(found["reason"]) is degenerate
    assert found["ties"] == {"rule": "trec_eval", "first_stage": 0.5, "system": 0.0}
    assert found["missing_queries"] == 0
    assert facts(first[:3], student, qrels, table, settings)["missing_queries"] == 1


def test_the_gate_looks_at_the_first_stage_alone():
    """So that no collection is in one system's mean and out of another's."""
    first = ranking({"q": {f"d{i}": -float(i) for i in range(12)}})
    qrels = judgements({"q": {"d11": 1}})
    settings = Evaluation({"x": TestSet(None, None)}, ("RR",))
    for system in (first, oracle(first, qrels)):
        table = per_query(
            "x", {"first_stage": first, "oracle": oracle(first, qrels)}, qrels, ["RR"]
        )
        found = facts(first, system, qrels, table, settings)
        assert found["degenerate"] and found["judged@10_first_stage"] == 0.0
    assert found["judged@10"] == 0.1


@pytest.mark.parametrize("ties", ["trec_eval", "expected", "rank"])
def test_what_systems_stand_beside_is_measured_once_for_all(ties):
    first = ranking({"q1": {"a": 3, "b": 3, "n": 1}, "q2": {"n": 1, "x": 0.5}})
    qrels = judgements({"q1": {"b": 1, "a": 0}, "q2": {"x": 2}, "q3": {"y": 1}})
    settings = Evaluation({"c": TestSet(None, None)}, ("nDCG@10", "RR@10"), ties=ties)
    test = Collection("c", dict.fromkeys(("q1", "q2", "q3"), "?"), {}, qrels)
    known = beside("c", test, first, settings)
    for lists in ({"q1": {"b": 1.0, "a": 1.0}}, {"q2": {"x": 3, "n": 2}, "q1": {"a": 1}}):
        systems = {"s": ranking(lists)}
        alone = measure("c", test, first, systems, settings)
        together = measure("c", test, first, systems, settings, known=known)
        pd.testing.assert_frame_equal(together.table, alone.table)
        assert together.facts == alone.facts and list(together.systems) == list(alone.systems)
    assert ("s" in together.facts["tie_range"]) is False
    assert ("first_stage" in together.facts["tie_range"]) is (ties != "rank")


# --- means ---


def rows(values):
    """(collection, query) -> value, of a system s and one measure."""
    table = [(c, "s", q, "RR", v) for (c, q), v in values.items()]
    return pd.DataFrame(table, columns=["collection", "system", "query_id", "measure", "value"])


VALUES = {("a", "1"): 1.0, ("a", "2"): 0.0, ("b", "1"): 0.25, ("c", "1"): 0.0, ("c", "9"): 0.02}


def test_means_are_over_queries_then_corpora():
    plain = collection_means(rows(VALUES), {"a": {}, "b": {}, "c": {}})
    assert plain["arithmetic"] == {"s/RR": pytest.approx((0.5 + 0.25 + 0.01) / 3)}
    assert plain["geometric"] == {"s/RR": pytest.approx((0.5 * 0.25 * 0.01) ** (1 / 3))}
    assert plain["corpora"] == ["a", "b", "c"] and plain["left_out"] == {}
    # a's and b's query 1 are two queries, whatever their ids
    together = {"a": {"corpus": "x"}, "b": {"corpus": "x"}, "c": {}}
    found = collection_means(rows(VALUES), together)
    assert found["arithmetic"]["s/RR"] == pytest.approx(((1 + 0 + 0.25) / 3 + 0.01) / 2)
    # unless they are one, which then counts once
    together["b"]["shared"] = ["1"]
    found = collection_means(rows(VALUES), together)
    assert found["arithmetic"]["s/RR"] == pytest.approx(((1 + 0) / 2 + 0.01) / 2)


def test_degenerate_collections_are_left_out_by_default():
    given = {"a": {}, "b": {"in_mean": False}, "c": {"degenerate": True, "reason": "why"}}
    found = collection_means(rows(VALUES), given)
    assert found["arithmetic"]["s/RR"] == 0.5 and found["left_out"] == {"c": "degenerate: why"}
    found = collection_means(rows(VALUES), given, degenerate=True)
    assert found["arithmetic"]["s/RR"] == pytest.approx((0.5 + 0.01) / 2)
    nothing = collection_means(rows(VALUES), {"c": given["c"]})
    assert nothing["arithmetic"] == {} and nothing["corpora"] == []


def test_a_system_that_lacks_a_corpus_has_no_mean():
    table = pd.concat([rows(VALUES), rows({("a", "1"): 1.0}).assign(system="teacher")])
    found = collection_means(table, {"a": {}, "b": {}, "c": {}})
    assert set(found["arithmetic"]) == {"s/RR"}


def test_overlapping_queries_have_equal_ids_and_texts():
    found = overlapping({
        "robust": {"351": "oil  Spill", "600": "x"}, "trec7": {"351": "oil spill", "352": "y"},
        "web": {"351": "another", "600": "X"}, "later": {"352": "y", "351": "another"},
    })  # fmt: skip
    assert found == {"robust": [], "trec7": ["351"], "web": ["600"], "later": ["352", "351"]}


# --- the paper's pooling ---


def collection(name, queries, grades):
    return Collection(name, queries, {}, judgements(grades))


MEDLINE = {
    "genomics": Tested(
        collection("g", {"1": "iron", "2": "bone"}, {"1": {"a": 1}, "2": {"b": 1}}),
        {"first_stage": ranking({"1": {"a": 5, "z": 4}, "2": {"b": 1}}),
         "oracle": ranking({"1": {"a": 5, "z": 4}, "2": {"b": 1}}),
         "student": ranking({"1": {"a": 0.9, "z": 0.1}, "2": {"b": 1}})},
    ),
    "pm": Tested(
        collection("p", {"1": "lung", "3": "skin"}, {"1": {"c": 1, "a": 0}, "3": {"d": 1}}),
        {"first_stage": ranking({"1": {"y": 9, "c": 8}}),
         "oracle": ranking({"1": {"c": 9, "y": 8}}),
         "student": ranking({"1": {"y": 2.0, "c": 0.5}})},
    ),
}  # fmt: skip


def test_pooling_takes_equal_ids_for_one_query():
    settings = Evaluation({"x": TestSet(None, None)}, ("RR", "P@1"))
    table, found = pool(MEDLINE.values(), "medline.pooled", settings)
    # query 1 of either: y 9, c 8, a 5, z 4; c relevant, a's grade 1 overwritten by 0; 3 is unranked
    own = table[(table.system == "first_stage") & (table.measure == "RR")]
    assert dict(zip(own.query_id, own.value, strict=True)) == {"1": 0.5, "2": 1.0}
    student = table[(table.system == "student") & (table.measure == "P@1")]
    assert dict(zip(student.query_id, student.value, strict=True)) == {"1": 0.0, "2": 1.0}
    assert found["colliding_queries"] == 1 and found["queries"] == 2 and not found["in_mean"]
    assert set(table.collection) == {"medline.pooled"}
    merged = pooled(one.systems["student"] for one in MEDLINE.values())
    rankings.check(merged)
    assert merged[merged.query_id == "1"].doc_id.tolist() == ["y", "a", "c", "z"]


@pytest.mark.parametrize("paper_compat", [False, True])
def test_both_means_are_shown_side_by_side(paper_compat):
    sets = {name: TestSet(None, None, corpus="medline") for name in MEDLINE}
    sets["alone"] = TestSet(None, None)
    settings = Evaluation(sets, ("RR",), paper_compat=paper_compat)
    alone = Tested(MEDLINE["pm"].collection, MEDLINE["pm"].systems)
    tests = {**MEDLINE, "alone": alone}
    known = {
        name: {"digest": name, "first_stage": {"run": name}, "corpus": sets[name].corpus}
        for name in tests
    }
    for name, one in tests.items():
        own = per_query(name, one.systems, one.collection.qrels, ("RR",))
        tests[name] = replace(one, table=own)
    table = by_corpus(settings, tests, known)
    assert known["pm"]["shared"] == [] == known["genomics"]["shared"]  # other texts
    assert not table.duplicated(["collection", "system", "query_id", "measure"]).any()
    means = all_means(table, known)
    # medline: 1, 1 of genomics, 1/2 and 0 (not ranked) of pm; alone: 1/2 and 0
    expected = (np.mean([1, 1, 0.5, 0]) + 0.25) / 2
    assert means["collections"]["arithmetic"]["first_stage/RR"] == pytest.approx(expected)
    assert ("paper_compat" in means) == ("medline.pooled" in known) == paper_compat
    if paper_compat:
        assert means["paper_compat"]["arithmetic"]["first_stage/RR"] == pytest.approx(0.75)
        assert known["medline.pooled"]["pooled"] == ["genomics", "pm"]
        assert known["medline.pooled"]["digest"] not in ("", *known)
        known["pm"]["in_mean"] = False
        assert all_means(table, known)["paper_compat"]["corpora"] == ["medline"]
        known["genomics"]["in_mean"] = False  # now none of the corpus counts
        assert all_means(table, known)["paper_compat"]["corpora"] == []


def test_equal_ids_in_two_collections_stay_two_rows():
    """Keys are (collection, query id): no value can be taken for another's."""
    tables = [per_query(n, {"s": t.systems["student"]}, t.collection.qrels, ("RR",))
              for n, t in MEDLINE.items()]  # fmt: skip
    both = pd.concat(tables).set_index(["collection", "query_id"]).value
    assert both["genomics", "1"] == 1.0 and both["pm", "1"] == 0.5 and both.index.is_unique
    alone = measured(MEDLINE["pm"].systems["student"], MEDLINE["pm"].collection.qrels, ["RR"])
    assert alone.value.tolist() == both["pm"].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ties": "random"}, r"evaluation\.ties='random'.*'expected'"),
        ({"efficiency": -1}, "efficiency=-1"),
        ({"efficiency_queries": 0}, "efficiency_queries=0"),
        ({"collections": {"x.pooled": TestSet(None, None)}}, r"'x\.pooled'.*paper_compat"),
    ],
)
def test_settings_that_are_refused(settings, message):
    good = {"collections": {"x": TestSet(None, None)}, "measures": ("RR",)}
    with pytest.raises(ValueError, match=message):
        Evaluation(**(good | settings))
    with pytest.raises(ValueError, match="corpus=''"):
        TestSet(None, None, corpus="")
