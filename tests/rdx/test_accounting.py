"""What is lost on the way to training lists, and query sets that overlap; worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from rdx import accounting, config, rankings
from rdx.accounting import Count, QuerySet, collisions, leaks
from rdx.data import sample_queries
from rdx.lists import Depth, SingleRelevant


def frame(rows, *columns):
    return pd.DataFrame(rows, columns=list(columns))


ASKED = ["gone", "bad", "no", "cut", "one", "plain", "good", "fixed"]
FIRST = rankings.rank(
    *zip(*((q, f"d{i}", -i) for q in ASKED[1:] for i in range(1, 5)), strict=True)
)
STATES = {"bad": "malformed", "no": "refused", "cut": "failed", "fixed": "repaired"}
# the teacher has ranked one passage of "one", and three of "good"
TAUGHT = frame(
    [
        (q, f"d{i}", i, math.nan, STATES.get(q, "ok"))
        for q in ASKED[1:]
        for i in range(1, {"one": 2, "good": 4}.get(q, 5))
    ],
    *("query_id", "doc_id", "teacher_rank", "score", "state"),
)


def accounted(depth, relevant=None):
    selected = depth.select(FIRST, TAUGHT)
    used = [drawn.query_id for drawn in depth.draws(selected, relevant or {}, 0)(0)]
    fates = accounting.fates(ASKED, FIRST, TAUGHT, selected, used)
    drawn = selected[selected.query_id.isin(used)]
    return fates, accounting.of_queries(fates) | accounting.of_labels(FIRST, TAUGHT, drawn, depth.k)


def test_every_query_has_one_fate():
    fates, counts = accounted(Depth(4))
    assert fates == {
        "gone": "no_candidates", "bad": "malformed", "no": "refused", "cut": "failed",
        "one": "too_short", "plain": "used", "good": "used", "fixed": "used",
    }  # fmt: skip
    expected = {f"queries_{fate}": Count(1, 8) for fate in accounting.LOST}
    expected |= {"queries_not_drawn": Count(0, 8), "lists_left_out": Count(5, 8)}
    expected |= {"labels_repaired": Count(1, 7), "lists_below_k": Count(1, 3)}
    # of the usable lists' 16 candidates, three of "one" and one of "good"
    assert counts == expected | {"passages_unlabelled": Count(4, 16)}


def test_a_query_that_cannot_be_drawn_is_counted():
    fates, counts = accounted(Depth(2, pool=4, lists=SingleRelevant()), {"plain": {"d2": 1}})
    assert [q for q, fate in fates.items() if fate == "not_drawn"] == ["good", "fixed"]
    assert counts["lists_left_out"] == Count(7, 8) and counts["queries_not_drawn"] == Count(2, 8)


def test_nothing_is_lost_of_nothing():
    assert accounting.of_queries({})["lists_left_out"].share == 0.0
    assert accounting.left_out(7, 9) == {"lists_left_out": Count(2, 9)}


def test_repeated_texts():
    selected = frame(
        [("a", "d1"), ("a", "d2"), ("a", "d3"), ("b", "d2"), ("b", "d4"), ("c", "d4")],
        *("query_id", "doc_id"),
    )
    passages = {"d1": "same", "d2": "same", "d3": "same", "d4": "other", "d5": "same"}
    counts = accounting.of_texts(selected, {"a": "x", "b": "x", "c": "y", "d": "x"}, passages)
    assert counts == {"duplicate_queries": Count(1, 3), "duplicate_passages": Count(2, 6)}


def test_cut_queries_are_told_from_cut_passages():
    counts = accounting.of_truncation(np.array([True, False, True]), np.array([False, True]))
    assert counts == {"queries_truncated": Count(2, 3), "passages_truncated": Count(1, 2)}


def test_the_block_shows_what_is_not_zero():
    counts = {"a": Count(3, 40), "b": Count(0, 40), "c": Count(1234, 2468)}
    text = accounting.block("data", counts, {"qrels_without_passage": 7, "none": 0})
    _, *lines = text.splitlines()
    assert [line.partition(" (of")[0] for line in lines] == [
        "  a: 3 of 40 (7.5%)", "  c: 1,234 of 2,468 (50.0%)", "  qrels_without_passage: 7",
    ]  # fmt: skip
    assert len(accounting.block("data", {"b": Count(0, 40)}, {}).splitlines()) == 1


def test_limits_are_shares():
    counts = {"a": Count(1, 10), "b": Count(5, 10)}
    accounting.check(counts, {"a": 0.1, "b": None, "unmeasured": 0.0})  # 10 % are not more
    with pytest.raises(accounting.TooMany, match=r"^b: 5 of 10 .*limits\.b=0\.49$"):
        accounting.check(counts, {"a": 0.1, "b": 0.49})
    with pytest.raises(accounting.TooMany, match=r"a: .*; b: "):
        accounting.check(counts, {"a": 0, "b": 0})


def test_the_configuration_has_a_limit_for_every_count():
    assert list(OmegaConf.load(config.CONF / "config.yaml").limits) == list(accounting.NAMES)
    _, counts = accounted(Depth(4))
    assert set(counts) <= set(accounting.NAMES)
    [with_limit] = config.cells(["limits.lists_left_out=0.1"])
    [without] = config.cells(["seed=1"])
    assert with_limit.signature == without.signature  # it changes no result
    config.check(with_limit)
    for wrong in ("1.5", "many"):
        [cell] = config.cells([f"limits.lists_left_out={wrong}"])
        with pytest.raises(config.ConfigError, match=r"limits\.lists_left_out="):
            config.check(cell)
    with pytest.raises(config.ConfigError, match=r"limits\.lists_out"):
        config.cells(["limits.lists_out=0.1"])


# --- query sets ---

ROBUST = QuerySet("disks45", {"351": "Falkland oil", "401": "foreign minorities", "601": "Turkey"})
TREC7 = QuerySet("disks45", {"351": "falkland  oil"})
GENOMICS = QuerySet("medline", {"1": "ferroportin", "2": "iron"})
PM = QuerySet("medline", {"1": "melanoma", "3": "Iron"})


def names(message, *quoted):
    """Whether a message quotes each of some names, ids or texts."""
    return all(repr(text) in message for text in quoted)


def test_the_same_id_may_be_another_query():
    """The paper's pooled averages put such queries into one."""
    unlike, shared = collisions({"g04": GENOMICS, "pm": PM})
    assert names(unlike, "g04", "pm", "1", "ferroportin", "melanoma") and "1 query" in unlike
    assert names(shared, "g04", "pm", "2", "iron") and "1 query" in shared


def test_a_subset_is_an_overlap_and_no_collision():
    [shared] = collisions({"robust04": ROBUST, "trec7": TREC7})
    assert names(shared, "robust04", "trec7", "351", "Falkland oil") and "1 query" in shared


def test_two_first_stages_of_one_set_are_no_collision():
    assert collisions({"dl19_bm25": ROBUST, "dl19_colbert": ROBUST}) == []
    assert collisions({"robust": ROBUST, "genomics": GENOMICS}) == []
    assert collisions({}) == collisions({"one": PM}) == []


def test_training_queries_that_are_tested():
    train = QuerySet("disks45", {"a": "FALKLAND OIL", "601": "something else", "c": "unseen"})
    count, [message] = leaks(train, {"robust04": ROBUST, "pm": PM})
    assert count == Count(2, 3)  # "a" by its words, "601" by collection and id
    assert names(message, "disks45", "robust04", "601", "something else") and "2 " in message
    elsewhere = QuerySet("other", dict(train.queries))
    assert leaks(elsewhere, {"robust04": ROBUST})[0] == Count(1, 3)  # an id alone is no key
    assert leaks(elsewhere, {"pm": PM}) == (Count(0, 3), [])


# --- samples ---


def test_query_samples_are_nested():
    ids = [f"q{i}" for i in range(12_000)]
    samples = [sample_queries(ids, n, 0) for n in (1000, 2000, 5000, 10_000)]
    for small, large in zip(samples, samples[1:], strict=False):
        assert large[: len(small)] == small and len(set(large)) == len(large) > len(small)
    assert set(sample_queries(ids, 1000, 1)) != set(samples[0])
