"""Measures, re-ranking, ceilings, interpolation and health."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rdx import job, rankings, stages
from rdx.data import Files
from rdx.evaluation import (
    WEIGHTS,
    Evaluation,
    TestSet,
    as_ranking,
    best_weight,
    health,
    interpolated,
    judged,
    measured,
    oracle,
    per_query,
    rerank,
)
from rdx.facts import TrainingFacts, Validation
from rdx.samplers import BM25
from rdx.trainer import Trainer
from tests.rdx.configured import configured
from tests.rdx.small_tokens import letters

SOURCES = (Files("corpus.tsv", "queries.tsv"), BM25())  # never read


def ranking(lists: dict[str, dict[str, float]]) -> pd.DataFrame:
    rows = [(q, d, score) for q, scores in lists.items() for d, score in scores.items()]
    return rankings.rank(*zip(*rows, strict=True))


def judgements(grades: dict[str, dict[str, int]]) -> pd.DataFrame:
    rows = [(q, d, grade) for q, one in grades.items() for d, grade in one.items()]
    frame = pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])
    return frame.astype({"relevance": "int32"})


def values(table: pd.DataFrame, measure: str) -> dict[str, float]:
    rows = table[table.measure == measure]
    return dict(zip(rows.query_id, rows.value, strict=True))


def order(frame: pd.DataFrame) -> dict[str, list[str]]:
    rankings.check(frame)
    return {q: list(rows.doc_id) for q, rows in frame.groupby("query_id", sort=False)}


# --- measured ---

QRELS = judgements({
    "q1": {"a": 2, "b": 0, "c": 1},
    "q2": {"a": 1},
    "q3": {"x": 1},
    "q4": {"a": 0},
})  # fmt: skip


def test_measured_equals_hand_worked_values():
    run = ranking({"q1": {"b": 3, "a": 2, "n": 1, "c": 0}, "q2": {"a": 9}, "q5": {"a": 1}})
    measures = ["nDCG@10", "RR@10", "RR(rel=2)@10", "nDCG@1", "RR", "R@100"]
    table = measured(run, QRELS, measures)
    assert list(dict.fromkeys(table.measure)) == measures  # as they are spelt
    # q1: grades 0 2 0 1 where 2 1 0 0 is best; linear gains
    ndcg = (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3))
    missing = {"q3": 0.0, "q4": 0.0}
    assert values(table, "nDCG@10") == pytest.approx({"q1": ndcg, "q2": 1.0} | missing)
    assert values(table, "nDCG@1") == {"q1": 0.0, "q2": 1.0} | missing
    assert values(table, "RR@10") == {"q1": 0.5, "q2": 1.0} | missing
    assert values(table, "RR") == {"q1": 0.5, "q2": 1.0} | missing
    assert values(table, "RR(rel=2)@10") == {"q1": 0.5, "q2": 0.0} | missing
    assert values(table, "R@100") == {"q1": 1.0, "q2": 1.0} | missing
    assert len(table) == 4 * 6 and "q5" not in set(table.query_id)


@pytest.mark.parametrize("measure", ["RR@10", "RR", "nDCG@10", "P@1"])
def test_measured_breaks_ties_by_doc_id_descending(measure):
    qrels = judgements({"low": {"a": 1}, "high": {"z": 1}})
    tied = {d: 1.0 for d in "akz"}
    found = values(measured(ranking({"low": tied, "high": tied}), qrels, [measure]), measure)
    expected = {"RR@10": 1 / 3, "RR": 1 / 3, "nDCG@10": 0.5, "P@1": 0.0}[measure]
    assert found == pytest.approx({"low": expected, "high": 1.0})


def test_measured_tells_scores_apart_that_float32_tells_apart():
    one = np.float32(1.0)
    run = ranking({"q": {"a": np.nextafter(one, np.float32(2)), "z": one}})
    assert values(measured(run, judgements({"q": {"a": 1}}), ["RR@10"]), "RR@10") == {"q": 1.0}


def test_measured_goes_by_the_rank_column():
    # as a permutation that is recorded with another ranking's scores
    run = ranking({"q": {"a": 3, "b": 2, "c": 1}}).assign(doc_id=["c", "a", "b"])
    run = run.assign(score=np.float32([1, 3, 2]))
    rankings.check(run)
    for measure in ("RR@10", "nDCG@10"):
        found = values(measured(run, judgements({"q": {"c": 1}}), [measure]), measure)
        assert found == {"q": 1.0}


def test_judged_is_the_share_of_judged_passages():
    run = ranking({"q1": {"a": 4, "n": 3, "b": 2, "m": 1}, "q2": {"a": 1.0}})
    qrels = QRELS[QRELS.query_id.isin(["q1", "q2"])]
    assert judged(run, qrels) == pytest.approx((0.5 + 1) / 2)


def test_per_query_names_collection_and_system():
    systems = {"x": ranking({"q1": {"a": 1.0}}), "y": ranking({"q2": {"a": 1.0}})}
    table = per_query("toy", systems, QRELS, ["RR@10"])
    assert list(table.columns) == ["collection", "system", "query_id", "measure", "value"]
    assert set(table.collection) == {"toy"} and len(table) == 8
    means = table.groupby("system").value.sum()
    assert means.to_dict() == {"x": 1.0, "y": 1.0}
    assert values(table[table.system == "x"], "RR@10")["q1"] == 1.0


# --- oracle ---


def test_oracle_is_the_best_permutation():
    random = np.random.default_rng(0)
    for trial in range(5):
        grades = {f"d{i}": int(g) for i, g in enumerate(random.integers(-1, 4, 5)) if i != 3}
        qrels = judgements({"q": grades | {"elsewhere": 3, "d9": 1}})
        first = ranking({"q": {f"d{i}": float(s) for i, s in enumerate(random.random(5))}})
        best = measured(oracle(first, qrels), qrels, ["nDCG@10"]).value[0]
        orders = [*itertools.permutations(first.doc_id)]
        copies = {  # a query of its own for each order: they are measured together
            f"q{i}": {d: -float(rank) for rank, d in enumerate(permutation)}
            for i, permutation in enumerate(orders)
        }
        of_each = judgements(dict.fromkeys(copies, grades | {"elsewhere": 3, "d9": 1}))
        tried = measured(ranking(copies), of_each, ["nDCG@10"]).value.tolist()
        assert best == pytest.approx(max(tried)), trial
        assert len(tried) == 120 and min(tried) < best


def test_oracle_keeps_the_first_stage_order_among_equals():
    first = ranking({"q1": {"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, "q2": {"x": 2, "a": 1}})
    qrels = judgements({"q1": {"d": 2, "e": 2, "b": 0}, "q2": {"b": 1}})
    assert order(oracle(first, qrels)) == {"q1": ["d", "e", "a", "b", "c"], "q2": ["x", "a"]}


def test_as_ranking_reverses_teacher_ranks():
    taught = pd.DataFrame({
        "query_id": ["q", "q", "q"], "doc_id": ["a", "b", "c"], "teacher_rank": [3, 1, 2],
    })  # fmt: skip
    assert order(as_ranking(taught)) == {"q": ["b", "c", "a"]}


# --- interpolation ---


def pair(seed=0, queries=4, n=8):
    random = np.random.default_rng(seed)
    made = []
    for scale in (1.0, 40.0):
        draw = random.normal(3, scale, (queries, n))
        made.append(ranking({f"q{i}": {f"d{j}": s for j, s in enumerate(row)}
                             for i, row in enumerate(draw)}))  # fmt: skip
    return made


def test_interpolation_ends_are_the_inputs():
    student, first = pair()
    assert order(interpolated(student, first, 1.0)) == order(student) != order(first)
    mixed = order(interpolated(student, first, 0.0))
    assert mixed == order(first)


def test_interpolation_equals_naive_z_scores():
    student, first = pair()
    found = interpolated(student, first, 0.3)
    for query_id, rows in found.groupby("query_id"):
        expected = {d: 0.0 for d in rows.doc_id}
        for frame, weight in ((student, 0.3), (first, 0.7)):
            one = frame[frame.query_id == query_id]
            scores = [float(s) for s in one.score]
            mean = sum(scores) / len(scores)
            spread = math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores))
            for doc_id, score in zip(one.doc_id, scores, strict=True):
                expected[doc_id] += weight * (score - mean) / spread
        assert dict(zip(rows.doc_id, rows.score, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_interpolation_of_constant_scores_is_the_other_ranking():
    _, first = pair()
    flat = first.assign(score=np.float32(0.1))
    flat = rankings.rank(flat.query_id, flat.doc_id, flat.score)
    assert order(interpolated(flat, first, 0.9)) == order(first)
    assert order(interpolated(first, flat, 0.1)) == order(first)


def test_best_weight_picks_the_smallest_of_equals():
    first = ranking({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    student = ranking({"q": {"a": 1.0, "b": 2.0, "c": 3.0}})

    def best(relevant):
        return best_weight(student, first, judgements({"q": {relevant: 1}}), "nDCG@10")

    assert best("a") == 0.0
    assert best("nowhere") == 0.0
    # c leads as soon as the student weighs more than one half; at one half c wins the tie
    assert best("c") == pytest.approx(0.5)
    means = [
        measured(interpolated(student, first, w), judgements({"q": {"c": 1}}), ["nDCG@10"]).value[0]
        for w in WEIGHTS
    ]
    assert WEIGHTS == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
    assert [value == max(means) for value in means] == [False] * 5 + [True] * 6


def test_best_weight_can_lie_inside():
    student = ranking({"p": {"a": 3, "b": 2.9, "c": 0}, "q": {"a": 0.0, "b": 3, "c": 2.9}})
    first = ranking({"p": {"a": 2.9, "b": 0, "c": 3}, "q": {"a": 3, "b": 2.9, "c": 0}})
    qrels = judgements({"p": {"a": 1}, "q": {"b": 1}})
    weight = best_weight(student, first, qrels, "RR@10")
    assert weight == 0.1
    assert values(measured(interpolated(student, first, 0.1), qrels, ["RR@10"]), "RR@10") == {
        "p": 1.0, "q": 1.0,
    }  # fmt: skip


# --- health ---


def table(**means: tuple[float, float]) -> pd.DataFrame:
    rows = [
        (collection, system, "q", "nDCG@10", value)
        for collection, pair in means.items()
        for system, value in zip(("first_stage", "student"), pair, strict=True)
    ]
    rows += [
        (c, s, "q", "RR@10", v) for c in means for s, v in (("first_stage", 1), ("student", 0))
    ]
    return pd.DataFrame(rows, columns=["collection", "system", "query_id", "measure", "value"])


SPREAD = ranking({q: {"a": 1.0, "b": 0.0} for q in ("q1", "q2", "q3")})
FLAT = ranking({"q1": {"a": 1, "b": 1}, "q2": {"a": 5, "b": 5}, "q3": {"a": 0, "b": 1}})
MOSTLY_SPREAD = ranking({"q1": {"a": 1, "b": 1}, "q2": {"a": 5, "b": 4}, "q3": {"a": 0, "b": 1}})


def trained(change, start=0.4, kept=None):
    validation = kept and Validation(start=start, kept=kept, best_step=1, kept_step=1)
    return TrainingFacts(
        **dict.fromkeys(("steps", "pairs", "lists", "tokens", "flops", "max_tokens"), 1),
        **{"padding": 0.0, "truncated_texts": 0, "last_loss": 0.5, "weight_change": change},
        validation=validation,
    )


@pytest.mark.parametrize(
    ("means", "student", "training", "state"),
    [
        ({"x": (0.4, 0.5)}, SPREAD, trained(0.1), "ok"),
        ({"x": (0.4, 0.5)}, MOSTLY_SPREAD, trained(0.1), "ok"),
        ({"x": (0.4, 0.4)}, SPREAD, None, "ok"),
        ({"x": (0.1 + 0.2, 0.3)}, SPREAD, trained(0.1, start=0.1 + 0.2, kept=0.3), "ok"),
        ({"x": (0.4, 0.5), "y": (0.4, 0.3)}, SPREAD, trained(0.1), "below_first_stage"),
        ({"x": (0.4, 0.3)}, FLAT, trained(0.1), "constant_scores"),
        ({"x": (0.4, 0.3)}, FLAT, trained(0.0), "weights_unchanged"),
        ({"x": (0.4, 0.5)}, SPREAD, trained(0.0), "weights_unchanged"),
        ({"x": (0.4, 0.5)}, SPREAD, trained(0.1, kept=0.39), "below_start"),
        ({"x": (0.4, 0.5)}, SPREAD, trained(0.1, kept=0.4), "ok"),
        ({"x": (0.4, 0.3)}, SPREAD, trained(0.1, kept=0.39), "below_first_stage"),
    ],
)
def test_health_is_the_gravest_state(means, student, training, state):
    assert health(table(**means), student, "nDCG@10", training) == state


# --- settings ---


def test_a_test_set_may_be_re_ranked_to_a_depth_of_its_own():
    sets = {"x": TestSet(*SOURCES), "deep": TestSet(*SOURCES, k=50)}
    evaluation = Evaluation(sets, ["nDCG@10"], k=10)
    assert (evaluation.depth("x"), evaluation.depth("deep")) == (10, 50)
    [cell] = stages.cells(["evaluation=pydocs_depths"])
    parts = job.Parts(cell.cfg)
    roles = job.test_roles(parts)
    depths = [job.source(parts, role).k for role in roles]
    assert sorted(depths) == [10, 30, 100, 300, 1000]
    [other] = stages.cells(["evaluation=pydocs_depths", "evaluation.collections.pydocs_30.k=31"])
    moved = {step for step in cell.keys if cell.keys[step] != other.keys[step]}
    of_it = {f"{stage} test pydocs_30" for stage in ("retrieve", "tokens", "reference")}
    assert moved == {*of_it, "evaluate"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ties": "random"}, r"evaluation\.ties='random'.*'expected'"),
        ({"efficiency": -1}, "efficiency=-1"),
        ({"efficiency_queries": 0}, "efficiency_queries=0"),
        ({"collections": {"x.pooled": TestSet(*SOURCES)}}, r"x\.pooled.*paper_compat"),
        ({"measures": ("nDCG@10", "nDGC@10")}, "'nDGC@10' is not a measure"),
        ({"measures": ("__import__('os')",)}, "is not a measure"),
        ({"measures": ("nDCG@",)}, "'nDCG@' is not a measure"),
        ({"measures": ()}, r"evaluation\.measures"),
        ({"collections": {}}, r"evaluation\.collections"),
        ({"k": 0}, "k=0"),
        ({"dev_queries": 0}, "dev_queries=0"),
        ({"interpolate": True}, "interpolate=true: needs a sampler"),
        ({"teacher_queries": -1}, "teacher_queries=-1"),
    ],
)
def test_evaluation_refuses_bad_values(settings, message):
    good = {"collections": {"x": TestSet(*SOURCES)}, "measures": ["nDCG@10", "RR(rel=2)@10"]}
    assert Evaluation(**good).measures == ("nDCG@10", "RR(rel=2)@10")
    with pytest.raises(ValueError, match=message):
        configured("evaluation", Evaluation, **(good | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dve"}, "split='dve'.*'dev'"),
        ({"queries": 0}, "queries=0"),
        ({"corpus": ""}, "corpus=''"),
    ],
)
def test_test_set_refuses_bad_values(settings, message):
    with pytest.raises(ValueError, match=message):
        configured("test", TestSet, *SOURCES, **settings)


# --- rerank ---


class Letters:
    """What a student tokenises with: a token per letter."""

    tokens = staticmethod(letters)


class Counting(nn.Module):
    """Scores a pair by its passage's length, times the query's."""

    scores_lists = False

    def __init__(self):
        super().__init__()
        self.pairs, self.shapes = Letters(), []

    def forward(self, inputs, parts):
        assert not self.training and not torch.is_grad_enabled()
        self.shapes.append(tuple(inputs["input_ids"].shape))
        return ((parts == 1).sum(1) * (parts == 2).sum(1)).float()


@pytest.mark.parametrize("max_tokens", [1, 10, 1000])
def test_rerank_gives_every_pair_its_own_score(max_tokens):
    passages = {f"d{i}": "x" * (1 + (7 * i) % 10) for i in range(10)} | {"unseen": "x" * 20}
    queries = {"q1": "a", "q2": "bb"}
    first = ranking({
        "q1": {f"d{i}": float(i) for i in range(10)}, "q2": {f"d{i}": -float(i) for i in range(4)},
    })  # fmt: skip
    student, tokens = Counting().train(), letters(queries, passages, most=9)
    found, timing = rerank(
        student, first, tokens, Trainer(precision="fp32", device="cpu"), max_tokens
    )
    rankings.check(found)
    assert found.set_index(["query_id", "doc_id"]).score.to_dict() == {
        (q, d): min(len(passages[d]), 9) * len(queries[q])
        for q, d in zip(first.query_id, first.doc_id, strict=True)
    }
    assert order(found)["q2"] == ["d1", "d2", "d3", "d0"]  # of 8, 5, 2 and 1 letters
    assert all(rows * width <= max_tokens or rows == 1 for rows, width in student.shapes)
    widths = [width for _, width in student.shapes]
    assert widths == sorted(widths, reverse=True)  # too little memory shows at once
    assert timing.queries == 2 and timing.pairs_per_second > 0
    # 12 texts: two queries, and passages of 1 to 10 letters, of which 9 are kept
    assert (timing.texts, timing.texts_truncated) == (12, 1)
