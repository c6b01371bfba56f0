"""Ties: as trec_eval, by ranks, and the expected value over all orders."""

import itertools
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
import pytest
from test_evaluation import SOURCES, judgements, ranking

from rdx import rankings
from rdx.evaluation import Evaluation, TestSet, measured, tie_range, tied

DL19 = Path(__file__).parents[3] / "shared/data/trec-dl-2019"
CLOSED = (
    *("nDCG@1", "nDCG@3", "nDCG@10", "nDCG", "P@2", "P(rel=2)@3", "P@9", "R@3", "R(rel=2)@2"),
    *("RR", "RR@2", "RR(rel=2)", "RR(rel=2)@3", "Success@1", "Success(rel=2)@3", "Success@9"),
)


def orders_of(scores):
    """All permutations of tied passages."""
    return [
        order
        for order in itertools.permutations(sorted(scores))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]


def by_enumeration(scores, qrels, measures):
    """Measure -> its value in ir_measures for each order of the ties."""
    orders = orders_of(scores)
    runs = pd.DataFrame(
        [(str(i), d, float(-j)) for i, order in enumerate(orders) for j, d in enumerate(order)],
        columns=["query_id", "doc_id", "score"],
    )
    copies = pd.concat([qrels.assign(query_id=str(i)) for i in range(len(orders))])
    parsed = {str(ir_measures.parse_measure(m)): m for m in measures}
    values = {m: [] for m in measures}
    for metric in ir_measures.iter_calc(map(ir_measures.parse_measure, parsed), copies, runs):
        values[parsed[str(metric.measure)]].append(metric.value)
    return values


SCORES = {
    "all tied": [1, 1, 1, 1, 1],
    "none tied": [5, 4, 3, 2, 1],
    "first tied": [3, 3, 3, 2, 1],
    "across the cutoff": [9, 5, 5, 5, 1],
    "two groups": [2, 2, 1, 1, 1],
    "one passage": [7],
}
GRADES = {
    "graded": {"a": 2, "c": 1, "e": 3, "elsewhere": 2},
    "one": {"d": 1, "a": 0},
    "none relevant": {"a": 0, "b": 0},
    "negative": {"a": -1, "b": 2, "c": 1},
}


@pytest.mark.parametrize("grades", GRADES.values(), ids=GRADES)
@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_expected_values_are_means_over_all_permutations(scores, grades):
    scored = dict(zip("abcde", scores, strict=False))
    run, qrels = ranking({"q": scored}), judgements({"q": grades})
    values = by_enumeration(scored, qrels, CLOSED)
    expected = {measure: sum(every) / len(every) for measure, every in values.items()}
    found = measured(run, qrels, CLOSED, "expected").set_index("measure").value.to_dict()
    assert found == pytest.approx(expected, abs=1e-12)
    # and its range is that of all orders
    exact = [m for m in CLOSED if "@" in m or m in ("nDCG", "RR")]
    ranges = tie_range(run, qrels, exact)
    assert bool(ranges) == (len(set(scores)) < len(scores))
    for measure, ends in ranges.items():
        assert ends == pytest.approx((min(values[measure]), max(values[measure]))), measure


@pytest.mark.parametrize(
    ("name", "orders"), [("all tied", 120), ("none tied", 1), ("first tied", 6)]
)
def test_all_orders_are_enumerated(name, orders):
    assert len(orders_of(dict(zip("abcde", SCORES[name], strict=True)))) == orders


def test_expected_values_worked_by_hand():
    # three tied passages, one of them relevant: it stands at 1, 2, 3 equally often
    run = rankings.rank(["q"] * 3, list("abc"), [1.0, 1.0, 1.0])
    qrels = judgements({"q": {"b": 1}, "absent": {"b": 1}})
    found = measured(run, qrels, ["RR", "RR@2", "P@1", "nDCG@3"], "expected")
    values = found[found.query_id == "q"].value.tolist()
    ndcg = (1 + 1 / np.log2(3) + 1 / 2) / 3
    assert values == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3, (1 + 1 / 2) / 3, 1 / 3, ndcg])
    assert (found[found.query_id == "absent"].value == 0).all() and len(found) == 8


def test_the_rules_differ_where_scores_and_ranks_do():
    run = pd.DataFrame({
        "query_id": "q", "doc_id": ["a", "b", "c"],
        "rank": np.int32([1, 2, 3]), "score": np.float32([1, 1, 2]),
    })  # fmt: skip
    qrels = judgements({"q": {"a": 1}})
    # by rank first; by score third, after c and, of the tied, b; on average at 2.5th
    found = [measured(run, qrels, ["RR"], t).value[0] for t in ("rank", "trec_eval", "expected")]
    assert found == pytest.approx([1, 1 / 3, (1 / 2 + 1 / 3) / 2])
    with pytest.raises(ValueError, match="ties='any'"):
        measured(run, qrels, ["RR"], "any")


@pytest.mark.parametrize("measure", ["AP", "AP@10", "Judged@10", "P", "nDCG(dcg='exp-log2')@10"])
def test_measures_without_a_closed_form_are_refused(measure):
    with pytest.raises(ValueError, match="ties=expected"):
        Evaluation({"x": TestSet(*SOURCES)}, ("nDCG@10", measure), ties="expected")
    Evaluation({"x": TestSet(*SOURCES)}, ("nDCG@10", "AP"))


def test_tied_is_the_share_of_equal_neighbours():
    run = rankings.rank(list("pppqq"), list("abcab"), [3, 3, 1, 2, 2])
    assert tied(run) == pytest.approx(2 / 3)  # a-b and b-c of p, a-b of q
    assert tied(run[run.query_id == "q"][:1]) == 0.0
    # told apart as 32-bit floats
    close = rankings.rank(["q", "q"], ["a", "b"], [1.0, 1.0 + 1e-12])
    assert tied(close) == 1.0


# --- TREC DL 2019 ---

needs_dl19 = pytest.mark.skipif(not DL19.exists(), reason="no TREC DL 2019 data here")
KNOWN = {  # nDCG@10, and how exactly it is known
    "bm25-terrier": (0.4795, 5e-5),
    "colbertv2": (0.7320, 5e-5),
    "bm25-pyserini": (0.5058, 5e-5),
    "splade++": (0.7308, 5e-5),
    "teacher-rankvicuna-7b.bm25-pyserini": (0.667, 6e-4),
    "teacher-gpt-3.5-turbo.bm25-pyserini": (0.68, 5e-3),
}


@needs_dl19
@pytest.mark.parametrize("name", KNOWN)
def test_dl19_gives_the_known_values(name):
    [path] = [p for p in (DL19 / "runs").iterdir() if p.name.startswith(f"{name}.run")]
    qrels = rankings.read_qrels(DL19 / "qrels.txt")
    run = rankings.read_trec(path, order="rank" if "teacher" in name else "score")
    ties = "rank" if "teacher" in name else "trec_eval"
    value = measured(run, qrels, ["nDCG@10"], ties).value.mean()
    known, tolerance = KNOWN[name]
    assert value == pytest.approx(known, abs=tolerance)


@needs_dl19
@pytest.mark.parametrize("name", ["bm25-terrier", "colbertv2"])
def test_dl19_equals_trec_eval_per_query(name):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels = rankings.read_qrels(DL19 / "qrels.txt")
    judged = {q: dict(zip(r.doc_id, map(int, r.relevance), strict=True))
              for q, r in qrels.groupby("query_id")}  # fmt: skip
    lists = {}
    for line in next((DL19 / "runs").glob(f"{name}.run*")).read_text().splitlines():
        query_id, _, doc_id, _, score, _ = line.split()
        lists.setdefault(query_id, {})[doc_id] = float(score)
    theirs = {"nDCG@10": "ndcg_cut_10", "RR(rel=2)": "recip_rank", "AP(rel=2)": "map",
              "R(rel=2)@100": "recall_100", "P(rel=2)@10": "P_10"}  # fmt: skip
    given = {"ndcg_cut.10", "recip_rank", "map", "recall.100", "P.10"}
    expected = pytrec_eval.RelevanceEvaluator(judged, given, relevance_level=2).evaluate(lists)
    run = rankings.read_trec(next((DL19 / "runs").glob(f"{name}.run*")))
    found = measured(run, qrels, list(theirs), "trec_eval")
    for row in found.itertuples():
        assert row.value == pytest.approx(expected[row.query_id][theirs[row.measure]], abs=1e-12)
    assert len(found) == 43 * 5


@needs_dl19
def test_dl19_expectation_lies_between_the_best_and_the_worst_order():
    qrels = rankings.read_qrels(DL19 / "qrels.txt")
    run = rankings.read_trec(next((DL19 / "runs").glob("colbertv2.run*")))
    graded = run.merge(qrels, on=["query_id", "doc_id"], how="left").fillna({"relevance": 0})
    ends = []
    for sign in (1, -1):
        order = graded.assign(grade=sign * graded.relevance)
        order = order.sort_values(["query_id", "score", "grade"], ascending=[True, False, True])
        order["rank"] = order.groupby("query_id").cumcount() + 1
        ends.append(measured(order, qrels, ["nDCG@10"], "rank").value.to_numpy())
    found = measured(run, qrels, ["nDCG@10"], "expected").value.to_numpy()
    order = list(dict.fromkeys(qrels.query_id))
    assert len(found) == len(order) == 43
    assert (ends[0] - 1e-9 <= found).all() and (found <= ends[1] + 1e-9).all()
    assert ends[0].mean() < found.mean() < ends[1].mean()
    assert 0.19 < tied(rankings.rank(*top_of(run))) < 0.30


def top_of(run):
    top = run[run["rank"] <= 100]
    return top.query_id, top.doc_id, top.score


def test_the_range_of_a_mean_is_over_all_judged_queries():
    qrels = judgements({"p": {"a": 1}, "q": {"b": 1}, "none": {"c": 1}})
    tied_p = rankings.rank(["p", "p", "q", "q"], ["a", "z", "b", "z"], [1.0, 1.0, 1.0, 2.0])
    # p: first or second; q: second; the third is not ranked
    assert tie_range(tied_p, qrels, ["RR"]) == {"RR": pytest.approx([1 / 3, 0.5])}
    # equal as 32-bit floats is tied
    close = tied_p.assign(score=tied_p.score.astype(float) + [0.0, 1e-12, 0.0, 0.0])
    assert tie_range(close, qrels, ["RR"]) == {"RR": pytest.approx([1 / 3, 0.5])}


@pytest.mark.skipif(not DL19.exists(), reason="no TREC DL 2019 data here")
def test_the_range_of_real_runs_holds_their_value():
    qrels = rankings.read_qrels(DL19 / "qrels.txt")
    for name, value in {"bm25-terrier": 0.4795, "colbertv2": 0.7320}.items():
        ranking = rankings.read_trec(DL19 / "runs" / f"{name}.run")
        low, high = tie_range(ranking, qrels, ["nDCG@10"])["nDCG@10"]
        expected = measured(ranking, qrels, ["nDCG@10"], "expected").value.mean()
        assert low <= round(value, 4) + 5e-5 and value - 5e-5 <= high and low < expected < high
