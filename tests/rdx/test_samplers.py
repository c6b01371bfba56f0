"""Samplers against naive scores, and which passages make a training list."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rdx import rankings, samplers
from rdx.data.collection import Collection
from rdx.samplers import BM25, Depth, Random, Recorded

DL19 = Path(__file__).parents[2] / ".." / "shared" / "data" / "trec-dl-2019"
PASSAGES = {
    "d1": "river engine river garden",
    "d2": "engine engine planet",
    "d3": "violin market garden river planet stone",
    "d4": "market",
    "d5": "stone stone stone stone garden violin river engine planet market",
}
QUERIES = {"q1": "river engine", "q2": "garden violin violin", "q3": "market unknownword"}


def collection(passages=PASSAGES, queries=QUERIES, qrels=()) -> Collection:
    frame = pd.DataFrame(list(qrels), columns=["query_id", "doc_id", "relevance"])
    return Collection("toy", dict(queries), dict(passages), frame)


def ranked(frame: pd.DataFrame) -> dict[str, list[str]]:
    rankings.check(frame)
    return {q: list(rows.doc_id) for q, rows in frame.groupby("query_id", sort=False)}


# --- BM25 ---


def lucene(passages, query, k1, b):
    """Scores of the passages that share a term; the idf of Lucene, no (k1 + 1) factor."""
    words = {doc_id: text.split() for doc_id, text in passages.items()}
    average = sum(map(len, words.values())) / len(words)
    scores = {}
    for doc_id, found in words.items():
        for term in query.split():
            tf, df = found.count(term), sum(term in other for other in words.values())
            if tf:
                idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
                norm = k1 * (1 - b + b * len(found) / average)
                scores[doc_id] = scores.get(doc_id, 0.0) + idf * tf / (tf + norm)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (0.0, 0.0), (2.0, 1.0)])
def test_bm25_equals_naive_scores(k1, b):
    bm25 = BM25(k1=k1, b=b, stopwords="none", stemmer="none")
    found = bm25.candidates(collection(), 10)
    rankings.check(found)
    for query_id, query in QUERIES.items():
        rows = found[found.query_id == query_id]
        expected = lucene(PASSAGES, query, k1, b)
        assert dict(zip(rows.doc_id, rows.score, strict=True)) == pytest.approx(expected, rel=1e-5)


def test_bm25_keeps_the_top_k_of_each_query():
    bm25 = BM25(stemmer="none")
    full, cut = (ranked(bm25.candidates(collection(), k)) for k in (1000, 2))
    assert {len(doc_ids) for doc_ids in full.values()} == {3, 4}
    assert cut == {query_id: doc_ids[:2] for query_id, doc_ids in full.items()}


def test_bm25_leaves_out_queries_that_match_nothing():
    queries = {"nothing": "xylophone", "stop": "the of", "empty": "", "q": "market"}
    found = BM25().candidates(collection(queries=queries), 3)
    assert list(ranked(found)) == ["q"]


@pytest.mark.parametrize("k", [1, 3, 50, 120])
def test_bm25_ties_are_cut_in_the_order_of_trec_eval(k):
    # more equal passages than any margin, and better and worse ones around them
    passages = {f"d{(37 * i) % 100:03}": "stone garden" for i in range(100)}
    passages |= {"best": "stone", "worst": "stone garden garden garden"} | {
        f"x{i}": "planet" for i in range(20)
    }
    expected = ["best", *sorted((d for d in passages if d[0] == "d"), reverse=True), "worst"]
    bm25 = BM25(stopwords="none", stemmer="none", b=1.0)
    found = bm25.candidates(collection(passages, {"q": "stone"}), k)
    assert ranked(found) == {"q": expected[:k]}


@pytest.mark.parametrize("variant", samplers.VARIANTS)
def test_bm25_never_returns_a_passage_without_a_query_term(variant):
    bm25 = BM25(variant=variant, stopwords="none", stemmer="none")
    found = ranked(bm25.candidates(collection(queries={"q": "violin stone"}), 10))
    assert set(found["q"]) == {"d3", "d5"}


@pytest.mark.parametrize("other", ["robertson", "atire", "bm25l", "bm25+"])
def test_bm25_variants_give_other_scores(other):
    plain = {"stopwords": "none", "stemmer": "none"}
    one = BM25(**plain).candidates(collection(), 10)
    two = BM25(variant=other, **plain).candidates(collection(), 10)
    merged = one.merge(two, on=["query_id", "doc_id"])
    assert not np.allclose(merged.score_x, merged.score_y, rtol=1e-2)


def test_bm25_every_parameter_changes_something():
    passages = PASSAGES | {"d6": "the engines of rivers", "d7": "the and of"}
    queries = {"q": "the river engines"}
    base = BM25()

    def scores(sampler):
        found = sampler.candidates(collection(passages, queries), 10)
        return dict(zip(found.doc_id, found.score.round(4), strict=True))

    assert scores(BM25(k1=2.0)) != scores(base)
    assert scores(BM25(b=0.9)) != scores(base)
    assert "d7" not in scores(base) and "d7" in scores(BM25(stopwords="none"))
    assert set(scores(base)) == {"d1", "d2", "d3", "d5", "d6"}
    assert set(scores(BM25(stemmer="none"))) == {"d1", "d3", "d5", "d6"}


def test_bm25_indexes_each_collection_anew():
    one = collection({"a": "river bank", "b": "engine"}, {"q": "river"})
    two = collection({"c": "river bank", "d": "engine"}, {"q": "river"})
    assert [ranked(BM25().candidates(c, 5))["q"] for c in (one, two, one)] == [["a"], ["c"], ["a"]]


def test_bm25_fingerprint_names_engine_versions_and_parameters():
    found = BM25(k1=1.5).fingerprint()
    assert found["engine"] == "bm25s" and found["k1"] == 1.5 and found["variant"] == "lucene"
    assert set(found["versions"]) == {"bm25s", "PyStemmer"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "bm26"}, r"sampler\.variant='bm26'.*'lucene'"),
        ({"stemmer": "klingon"}, r"sampler\.stemmer='klingon'.*'english'"),
        ({"k1": -0.1}, r"sampler\.k1=-0\.1"),
        ({"b": 1.1}, r"sampler\.b=1\.1"),
    ],
)
def test_bm25_refuses_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        BM25(**values)


# --- Random ---


def test_random_is_a_function_of_seed_and_query():
    queries = {f"q{i}": "river" for i in range(20)}
    passages = {f"d{i}": "river" for i in range(50)}
    all_of_them = ranked(Random(seed=3).candidates(collection(passages, queries), 10))
    alone = ranked(Random(seed=3).candidates(collection(passages, {"q7": "other text"}), 10))
    assert alone == {"q7": all_of_them["q7"]}
    assert all(len(set(found)) == 10 for found in all_of_them.values())
    assert len({tuple(found) for found in all_of_them.values()}) == 20
    other = ranked(Random(seed=4).candidates(collection(passages, queries), 10))
    assert all(other[q] != all_of_them[q] for q in queries)


def test_random_draws_uniformly():
    queries = {f"q{i}": "river" for i in range(3000)}
    found = Random().candidates(collection(queries=queries), 2)
    shares = found.groupby(["doc_id", "rank"]).size() / len(queries)
    assert shares.to_dict() == pytest.approx(
        {(d, r): 0.2 for d in PASSAGES for r in (1, 2)}, abs=0.03
    )


def test_random_of_a_small_collection_takes_all():
    found = ranked(Random().candidates(collection(), 99))
    assert all(sorted(doc_ids) == sorted(PASSAGES) for doc_ids in found.values())


def test_random_puts_positives_among_the_drawn():
    passages = {f"d{i}": "river" for i in range(200)}
    queries = {f"q{i}": "river" for i in range(200)}
    qrels = [(f"q{i}", "d7", 2) for i in range(100)]
    qrels += [(f"q{i}", "d8", 1) for i in range(100)] + [("q0", "elsewhere", 1)]
    world = collection(passages, queries, qrels)
    with_them = ranked(Random(positives=True).candidates(world, 10))
    without = ranked(Random().candidates(world, 10))
    place = [with_them[f"q{i}"].index("d7") for i in range(100)]
    assert set(place) == set(range(10))  # no position gives them away
    for query_id, doc_ids in with_them.items():
        assert len(set(doc_ids)) == 10
        kept = set(without[query_id]) & set(doc_ids)
        assert len(kept) == 10 if query_id in [f"q{i}" for i in range(100, 200)] else 8
    assert ranked(Random(positives=True).candidates(world, 1))["q0"] in (["d7"], ["d8"])
    assert with_them["q150"] == without["q150"]


# --- Recorded ---


def run_file(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def test_recorded_keeps_the_order_of_the_file(tmp_path):
    lines = ["q1 Q0 d1 1 5.0 x", "q1 Q0 d2 2 7.0 x", "q1 Q0 d3 3 6.0 x", "other Q0 d9 1 1 x"]
    run = run_file(tmp_path / "a.run", *lines)
    assert ranked(Recorded(run).candidates(collection(), 2)) == {"q1": ["d2", "d3"]}
    by_rank = Recorded(run, order="rank").candidates(collection(), 9)
    assert list(by_rank.doc_id) == ["d1", "d2", "d3"]
    assert list(by_rank.score) == [5, 7, 6]


def test_recorded_names_the_line_of_an_unknown_passage(tmp_path):
    lines = ["q1 Q0 d1 1 5 x", "q1 Q0 gone 2 4 x", "q1 Q0 d2 3 3 x", "q2 Q0 lost 1 9 x"]
    run = run_file(tmp_path / "a.run", *lines)
    message = re.escape(f"{run}:2: passage 'gone' of query 'q1'") + r".*\(2 such.*missing=drop"
    with pytest.raises(rankings.FormatError, match=message):
        Recorded(run).candidates(collection(), 10)
    dropped = Recorded(run, missing="drop").candidates(collection(), 2)
    assert ranked(dropped) == {"q1": ["d1", "d2"]}  # filled up from below the cut
    assert ranked(Recorded(run).candidates(collection(queries={"q1": ""}), 1)) == {"q1": ["d1"]}


def test_recorded_without_a_shared_query_is_an_error(tmp_path):
    run = run_file(tmp_path / "a.run", "q9 Q0 d1 1 5 x")
    with pytest.raises(rankings.FormatError, match=r"a\.run: none of its queries.*'toy'"):
        Recorded(run).candidates(collection(), 10)


def test_recorded_fingerprint_changes_with_the_file(tmp_path):
    one = Recorded(run_file(tmp_path / "a.run", "q1 Q0 d1 1 5 x")).fingerprint()
    two = Recorded(run_file(tmp_path / "a.run", "q1 Q0 d1 1 6 x")).fingerprint()
    assert one["run"] == two["run"] == "a.run" and one["sha256"] != two["sha256"]


def test_recorded_refuses_bad_values(tmp_path):
    run = run_file(tmp_path / "a.run", "q1 Q0 d1 1 5 x")
    with pytest.raises(ValueError, match=r"sampler\.order='ranks'"):
        Recorded(run, order="ranks")
    with pytest.raises(ValueError, match=r"sampler\.missing='skip'"):
        Recorded(run, missing="skip")
    with pytest.raises(ValueError, match=r"sampler\.run=.*nowhere\.run: no such file"):
        Recorded(str(tmp_path / "nowhere.run"))


def test_recorded_knows_which_queries_can_be_drawn(tmp_path):
    run = run_file(tmp_path / "a.run", "q3 Q0 d1 1 5 x\nq9 Q0 d1 1 5 x\nq1 Q0 d2 1 5 x")
    assert Recorded(run).covered(QUERIES) == ["q1", "q3"]


# --- Depth ---


def candidates(n=6, queries=("q1",)) -> pd.DataFrame:
    rows = [(q, f"d{i}", -float(i)) for q in queries for i in range(1, n + 1)]
    return rankings.rank(*zip(*rows, strict=True))


def taught(ranks: dict[str, list[int]], state: str = "ok") -> pd.DataFrame:
    rows = [
        (q, f"d{i}", r, float("nan"), state) for q, order in ranks.items()
        for i, r in enumerate(order, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "teacher_rank", "score", "state"])


def labels(lists: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {
        str(q): dict(zip(rows.doc_id, rows.teacher_rank, strict=True))
        for q, rows in lists.groupby("query_id")
    }


def test_depth_modes_keep_different_passages():
    # the teacher reverses six candidates; asked about three, it puts the first of them last
    pool, reverse = candidates(), taught({"q1": [6, 5, 4, 3, 2, 1]})
    first = Depth(3, "first_stage", pool=6)
    teacher = Depth(3, "teacher", pool=6)
    relabel = Depth(3, "relabel")
    assert (first.asked, teacher.asked, relabel.asked) == (6, 6, 3)
    assert labels(first.select(pool, reverse)) == {"q1": {"d1": 6, "d2": 5, "d3": 4}}
    assert labels(teacher.select(pool, reverse)) == {"q1": {"d4": 3, "d5": 2, "d6": 1}}
    again = relabel.select(candidates(3), taught({"q1": [3, 1, 2]}))
    assert labels(again) == {"q1": {"d1": 3, "d2": 1, "d3": 2}}
    assert list(first.select(pool, reverse).doc_id) == ["d1", "d2", "d3"]


def test_depth_teacher_mode_breaks_ties_by_first_stage():
    tied = taught({"q1": [2, 1, 2, 2, 1, 2], "q2": [1, 1, 1, 1, 1, 1]})
    lists = Depth(3, "teacher", pool=6).select(candidates(queries=("q1", "q2")), tied)
    assert {q: set(one) for q, one in labels(lists).items()} == {
        "q1": {"d2", "d5", "d1"},
        "q2": {"d1", "d2", "d3"},
    }


def test_depth_leaves_out_failed_and_short_lists():
    good = taught({"q1": [1, 2, 3]})
    parts = [good]
    for query_id, state in [("q2", "failed"), ("q3", "refused"), ("q4", "malformed")]:
        parts.append(taught({query_id: [1, 2, 3]}, state))
    parts += [taught({"q5": [3, 2, 1]}, "repaired"), taught({"q6": [1]})]
    pool = candidates(3, [f"q{i}" for i in range(1, 8)])
    for mode in samplers.MODES:
        lists = Depth(2, mode, pool=3).select(pool, pd.concat(parts))
        assert set(lists.query_id) == {"q1", "q5"}, mode


def test_depth_allows_gaps_in_teacher_ranks():
    lists = Depth(3, pool=6).select(candidates(), taught({"q1": [10, 900, 4, 5, 6, 7]}))
    assert labels(lists) == {"q1": {"d1": 10, "d2": 900, "d3": 4}}


def test_depth_of_a_published_teacher():
    if not DL19.exists():
        pytest.skip("no TREC DL 2019")
    first = rankings.read_trec(DL19 / "runs" / "bm25-pyserini.run")
    run = DL19 / "runs" / "teacher-gpt-3.5-turbo.bm25-pyserini.run"
    given = rankings.read_trec(run, order="rank").rename(columns={"rank": "teacher_rank"})
    given = given.assign(state="ok")
    assert given.groupby("query_id").size().eq(100).all()
    ten = {m: Depth(10, m).select(first, given) for m in ("first_stage", "teacher")}
    for mode, lists in ten.items():
        assert lists.groupby("query_id").size().eq(10).all(), mode
        assert lists.query_id.nunique() == 43
    assert ten["first_stage"]["rank"].max() == 10
    assert ten["first_stage"].teacher_rank.max() > 10
    assert set(ten["teacher"].teacher_rank) == set(range(1, 11))
    assert ten["teacher"]["rank"].max() > 10
    kept = [set(zip(x.query_id, x.doc_id, strict=True)) for x in ten.values()]
    assert 0 < len(kept[0] & kept[1]) < len(kept[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 1}, r"depth\.k=1"),
        ({"k": 10, "mode": "both"}, r"depth\.mode='both'.*'relabel'"),
        ({"k": 10, "pool": 9}, r"depth\.pool=9.*depth\.k=10"),
        ({"k": 10, "queries": 0}, r"depth\.queries=0"),
    ],
)
def test_depth_refuses_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        Depth(**values)
    assert Depth(10, "relabel", pool=9).asked == 10  # the pool is not used
