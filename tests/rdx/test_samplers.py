"""Samplers against naive scores, and their indexes in the store."""

import gzip
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rdx import config, pipeline, rankings, samplers, stages
from rdx.collection import Collection
from rdx.data import IrDatasets
from rdx.job import TRAINING, Job, Parts
from rdx.samplers import BM25, Random, Recorded, indexes
from rdx.stages import Signatures, Step
from tests.rdx.configured import check_refused

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


# idf and the part of the term frequency (with the length norm), as in Kamphuis et al. (2020)
def robertson_idf(n, df):
    return math.log(max(1, (n - df + 0.5) / (df + 0.5)))


FORMULAS = {
    "robertson": (robertson_idf, lambda tf, norm, k1: tf / (tf + k1 * norm)),
    "lucene": (
        lambda n, df: math.log(1 + (n - df + 0.5) / (df + 0.5)),
        lambda tf, norm, k1: tf / (tf + k1 * norm),
    ),
    "atire": (
        lambda n, df: math.log(n / df),
        lambda tf, norm, k1: (k1 + 1) * tf / (tf + k1 * norm),
    ),
    "bm25l": (
        lambda n, df: math.log((n + 1) / (df + 0.5)),
        lambda tf, norm, k1: (k1 + 1) * (tf / norm + 0.5) / (k1 + tf / norm + 0.5),
    ),
    "bm25+": (
        lambda n, df: math.log((n + 1) / df),
        lambda tf, norm, k1: 0.5 + (k1 + 1) * tf / (tf + k1 * norm),
    ),
}


def naive_bm25(passages, query, variant, k1, b):
    """Scores above what a passage without any of the terms gets."""
    idf_of, part = FORMULAS[variant]
    words = {doc_id: text.split() for doc_id, text in passages.items()}
    average = sum(map(len, words.values())) / len(words)
    scores = {}
    for doc_id, terms in words.items():
        for term in query.split():
            tf, df = terms.count(term), sum(term in other for other in words.values())
            if tf:
                idf = idf_of(len(words), df)
                norm = 1 - b + b * len(terms) / average
                absent = part(0, 1, k1) if variant in ("bm25l", "bm25+") else 0
                scores[doc_id] = scores.get(doc_id, 0.0) + idf * (part(tf, norm, k1) - absent)
    return {doc_id: score for doc_id, score in scores.items() if score > 0}


@pytest.mark.parametrize("variant", samplers.VARIANTS)
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (0.01, 0.0), (2.0, 1.0)])
def test_bm25_equals_naive_scores(variant, k1, b):
    bm25 = BM25(variant=variant, k1=k1, b=b, stopwords="none", stemmer="none")
    passages = PASSAGES | {f"x{i}": f"filler words number{i}" for i in range(7)}
    ranking = bm25.candidates(collection(passages), 10)
    rankings.check(ranking)
    for query_id, query in QUERIES.items():
        rows = ranking[ranking.query_id == query_id]
        expected = naive_bm25(passages, query, variant, k1, b)
        assert dict(zip(rows.doc_id, rows.score, strict=True)) == pytest.approx(expected, rel=1e-5)


def random_collection(passages=300, queries=20, seed=0) -> Collection:
    draw, words = np.random.default_rng(seed), [f"w{i}" for i in range(60)]

    def text(size):
        return " ".join(draw.choice(words, size=size, p=SHARES))

    return collection(
        {f"d{i}": text(draw.integers(0, 12)) for i in draw.permutation(passages)},
        {f"q{i}": text(draw.integers(1, 5)) for i in range(queries)},
    )


SHARES = 1 / np.arange(1, 61)
SHARES = SHARES / SHARES.sum()


@pytest.mark.parametrize("variant", samplers.VARIANTS)
@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_bm25_index_on_disk_equals_bm25s_in_memory(variant, block, tmp_path, monkeypatch):
    """However it is cut into blocks: the library's own index, its scores sorted as trec_eval."""
    import bm25s

    world = random_collection()
    monkeypatch.setattr("rdx.samplers.bm25.BLOCK", block)
    sampler = BM25(variant=variant, stopwords="none", stemmer="none")
    sampler.prepare(world, tmp_path)
    ranking = sampler.candidates(world, 25, tmp_path)
    index = bm25s.BM25(method=variant, k1=0.9, b=0.4)
    split = {"stopwords": None, "show_progress": False}
    index.index(bm25s.tokenize(list(world.passages.values()), **split), show_progress=False)
    index.nonoccurrence_array = None
    rows = []
    for query_id, terms in zip(
        world.queries,
        bm25s.tokenize(list(world.queries.values()), return_ids=False, **split),
        strict=True,
    ):
        scores = index.get_scores(terms)
        rows += [(query_id, d, s) for d, s in zip(world.passages, scores, strict=True) if s > 0]
    expected = samplers.top(rankings.rank(*zip(*rows, strict=True)), 25)
    pd.testing.assert_frame_equal(ranking, expected)


def test_bm25_reads_lazy_passages_once_in_order(tmp_path):
    """A corpus on disk is iterated over; no text is looked up, no list of all of them is made."""

    class Lazy(Mapping):
        read = 0

        def __getitem__(self, doc_id):
            raise AssertionError(f"{doc_id} was looked up")

        def __iter__(self):
            return iter(PASSAGES)

        def __len__(self):
            return len(PASSAGES)

        def items(self):
            for doc_id, text in PASSAGES.items():
                Lazy.read += 1
                yield doc_id, text

    sampler, lazy = BM25(), replace(collection(), passages=Lazy())
    sampler.prepare(lazy, tmp_path)
    assert Lazy.read == len(PASSAGES)
    ranking = sampler.candidates(lazy, 4, tmp_path)
    pd.testing.assert_frame_equal(ranking, sampler.candidates(collection(), 4))
    assert Lazy.read == len(PASSAGES)


def test_bm25_of_nothing():
    with pytest.raises(ValueError, match="'toy'"):  # no passage has a term
        BM25().candidates(collection({"d": "the of and", "e": ""}), 3)
    ranking = BM25().candidates(collection(queries={}), 3)
    assert list(ranking.columns) == list(rankings.COLUMNS) and ranking.empty
    rankings.check(ranking)


@pytest.mark.parametrize("k", [1, 4, 100])
def test_best_is_the_order_of_trec_eval(k):
    draw = np.random.default_rng(k)
    scores = draw.integers(-3, 4, size=50).astype(np.float32) / 2
    scores[:4] = [-0.0, 0.0, -1e-30, np.float32(3e38)]
    doc_ids = [f"d{i}" for i in draw.permutation(50)]
    places = np.argsort(np.argsort(doc_ids)).astype(np.int32)
    positions = indexes.best(scores, places, k)
    expected = rankings.rank(["q"] * 50, doc_ids, scores).doc_id[:k]
    assert [doc_ids[i] for i in positions] == list(expected)


def test_ids_are_in_the_order_of_their_bytes(tmp_path):
    doc_ids = ["b", "ä", "a10", "a9", "A", "😀", "\uffee", ""]
    assert indexes.write_ids(tmp_path, iter(doc_ids)) == len(doc_ids)
    ids = indexes.Ids(tmp_path)
    assert ids.at([1, 0, 5]).tolist() == ["ä", "b", "😀"] and len(ids) == 8
    assert ids.at([]).tolist() == []
    order = sorted(range(8), key=lambda i: doc_ids[i].encode())
    assert np.argsort(ids.places).tolist() == order


def test_bm25_keeps_the_top_k_of_queries_that_match():
    queries = QUERIES | {"nothing": "xylophone", "stop": "the of", "empty": ""}
    full, cut = (ranked(BM25().candidates(collection(queries=queries), k)) for k in (1000, 2))
    assert {query_id: len(doc_ids) for query_id, doc_ids in full.items()} == dict.fromkeys(
        QUERIES, 3
    ) | {"q1": 4}
    assert cut == {query_id: doc_ids[:2] for query_id, doc_ids in full.items()}


@pytest.mark.parametrize("k", [1, 3, 50, 120])
def test_bm25_ties_are_cut_in_the_order_of_trec_eval(k):
    # more equal passages than any margin, and better and worse ones around them
    passages = {f"d{(37 * i) % 100:03}": "stone garden" for i in range(100)}
    passages |= {"best": "stone", "worst": "stone garden garden garden"} | {
        f"x{i}": "planet" for i in range(20)
    }
    expected = ["best", *sorted((d for d in passages if d[0] == "d"), reverse=True), "worst"]
    bm25 = BM25(stopwords="none", stemmer="none", b=1.0)
    ranking = bm25.candidates(collection(passages, {"q": "stone"}), k)
    assert ranked(ranking) == {"q": expected[:k]}


def test_bm25_every_parameter_changes_something():
    passages = PASSAGES | {"d6": "the engines of rivers", "d7": "the and of"}
    queries = {"q": "the river engines"}
    base = BM25()

    def scores(sampler):
        ranking = sampler.candidates(collection(passages, queries), 10)
        return dict(zip(ranking.doc_id, ranking.score.round(4), strict=True))

    assert scores(BM25(k1=2.0)) != scores(base)
    assert scores(BM25(b=0.9)) != scores(base)
    assert "d7" not in scores(base) and "d7" in scores(BM25(stopwords="none"))
    assert set(scores(base)) == {"d1", "d2", "d3", "d5", "d6"}
    assert set(scores(BM25(stemmer="none"))) == {"d1", "d3", "d5", "d6"}


def test_bm25_indexes_each_collection_anew():
    first = collection({"a": "river bank", "b": "engine"}, {"q": "river"})
    second = collection({"c": "river bank", "d": "engine"}, {"q": "river"})
    lists = [ranked(BM25().candidates(c, 5))["q"] for c in (first, second, first)]
    assert lists == [["a"], ["c"], ["a"]]


def test_bm25_fingerprint_names_engine_versions_and_parameters():
    facts = BM25(k1=1.5).fingerprint()
    assert facts["engine"] == "bm25s" and facts["k1"] == 1.5 and facts["variant"] == "lucene"
    assert set(facts["versions"]) == {"bm25s", "PyStemmer"}


@pytest.mark.parametrize(
    "values", [{"variant": "bm26"}, {"stemmer": "klingon"}, {"k1": -0.1}, {"b": 1.1}]
)
def test_bm25_refuses_bad_values(values):
    check_refused("sampler", BM25, **values)


# --- Random ---


def test_random_is_a_function_of_seed_and_query():
    queries = {f"q{i}": "river" for i in range(20)}
    passages = {f"d{i}": "river" for i in range(50)}
    all_of_them = ranked(Random(seed=3).candidates(collection(passages, queries), 10))
    alone = ranked(Random(seed=3).candidates(collection(passages, {"q7": "other text"}), 10))
    assert alone == {"q7": all_of_them["q7"]}
    assert all(len(set(doc_ids)) == 10 for doc_ids in all_of_them.values())
    assert len({tuple(doc_ids) for doc_ids in all_of_them.values()}) == 20
    other = ranked(Random(seed=4).candidates(collection(passages, queries), 10))
    assert all(other[q] != all_of_them[q] for q in queries)


def test_random_draws_uniformly():
    """Chi-square of how often each pair of passages is drawn, of all ordered pairs."""
    passages = {f"d{i}": "river" for i in range(7)}
    queries = {f"q{i}": "river" for i in range(4200)}
    ranking = Random(seed=5).candidates(collection(passages, queries), 2)
    pairs = ranking.groupby("query_id").doc_id.agg(" ".join).value_counts()
    assert len(pairs) == 7 * 6  # without replacement
    expected = len(queries) / 42
    assert ((pairs - expected) ** 2 / expected).sum() < 74.7  # 41 degrees of freedom, p = .001


DRAWN = ["d319", "d188", "d478", "d221"]


def test_random_is_independent_of_the_order_of_queries_and_of_the_index(tmp_path):
    passages = {f"d{i}": "river" for i in range(500)}
    queries = {f"q{i}": "river" for i in range(40)}
    turned = collection(passages, dict(reversed(queries.items())))
    sampler = Random(seed=2)
    sampler.prepare(turned, tmp_path)
    lists = ranked(sampler.candidates(collection(passages, queries), 20))
    assert ranked(sampler.candidates(turned, 20, tmp_path)) == lists
    # what was drawn when this was written, and must be drawn for ever
    assert lists["q7"][:4] == DRAWN


def test_random_of_a_small_collection_takes_all():
    lists = ranked(Random().candidates(collection(), 99))
    assert all(sorted(doc_ids) == sorted(PASSAGES) for doc_ids in lists.values())


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
    for i in range(100):  # they replace the last drawn
        others = [doc_id for doc_id in without[f"q{i}"] if doc_id not in ("d7", "d8")]
        assert sorted(with_them[f"q{i}"]) == sorted(["d7", "d8", *others[:8]])
    assert ranked(Random(positives=True).candidates(world, 1))["q0"] in (["d7"], ["d8"])
    assert all(with_them[f"q{i}"] == without[f"q{i}"] for i in range(100, 200))


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
    with pytest.raises(rankings.FormatError, match=re.escape(f"{run}:2: ") + ".*'gone'.*'q1'"):
        Recorded(run).candidates(collection(), 10)
    dropped = Recorded(run, missing="drop").candidates(collection(), 2)
    assert ranked(dropped) == {"q1": ["d1", "d2"]}  # filled up from below the cut
    assert dropped.attrs == {"passages_missing": (2, 4)}
    assert ranked(Recorded(run).candidates(collection(queries={"q1": ""}), 1)) == {"q1": ["d1"]}


def test_recorded_without_a_shared_query_is_an_error(tmp_path):
    run = run_file(tmp_path / "a.run", "q9 Q0 d1 1 5 x")
    with pytest.raises(rankings.FormatError, match=r"a\.run: .*'toy'"):
        Recorded(run).candidates(collection(), 10)


def test_recorded_fingerprint_changes_with_the_file(tmp_path):
    before = Recorded(run_file(tmp_path / "a.run", "q1 Q0 d1 1 5 x")).fingerprint()
    after = Recorded(run_file(tmp_path / "a.run", "q1 Q0 d1 1 6 x")).fingerprint()
    assert before["run"] == after["run"] == "a.run" and before["sha256"] != after["sha256"]


def test_recorded_refuses_bad_values(tmp_path):
    run = run_file(tmp_path / "a.run", "q1 Q0 d1 1 5 x")
    check_refused("sampler", Recorded, run=run, order="ranks")
    check_refused("sampler", Recorded, run=run, missing="skip")
    absent = str(tmp_path / "nowhere.run")
    check_refused("sampler", Recorded, run=absent, told=f"run={absent}")


def test_samplers_know_which_queries_they_cover(tmp_path):
    run = run_file(tmp_path / "a.run", "q3 Q0 d1 1 5 x\nq9 Q0 d1 1 5 x\nq1 Q0 d2 1 5 x")
    assert Recorded(run).covered(QUERIES) == ["q3", "q1"]  # as they stand in the run
    Recorded(run).prepare(None, tmp_path)
    assert Recorded(run).covered(QUERIES, tmp_path) == ["q3", "q1"]
    assert BM25().covered(QUERIES) == Random().covered(QUERIES) == list(QUERIES)


@pytest.mark.parametrize("order", ["score", "rank"])
def test_recorded_reads_every_form_alike(tmp_path, order):
    rows = [("q2", "d4", 2, 1.5), ("q2", "d1", 1, 1.5), ("q1", "d3", 1, 0.25), ("q1", "d5", 2, 9.0)]
    rows += [("q1", "d2", 3, 0.25), ("other", "d9", 1, 1.0)]
    text = "".join(f"{q} Q0 {d} {r} {s} x\n" for q, d, r, s in rows).encode()
    (tmp_path / "a.run").write_bytes(text)
    (tmp_path / "a.run.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.run.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    pd.DataFrame(rows, columns=list(rankings.COLUMNS)).to_parquet(tmp_path / "a.parquet")
    files = [tmp_path / name for name in ("a.run", "a.run.gz", "a.run.zst", "a.parquet")]
    tables = [Recorded(str(path), order).candidates(collection(), 2) for path in files]
    expected = {"score": ["d5", "d3"], "rank": ["d3", "d5"]}[order]
    assert ranked(tables[0]) == {"q2": ["d4", "d1"] if order == "score" else ["d1", "d4"],
                                "q1": expected}  # fmt: skip
    for path, table in zip(files, tables, strict=True):
        pd.testing.assert_frame_equal(table, tables[0])
        stored = tmp_path / f"{path.name}.index"
        stored.mkdir()
        Recorded(str(path), order).prepare(collection(), stored)
        table = Recorded(str(path), order).candidates(collection(), 2, stored)
        pd.testing.assert_frame_equal(table, tables[0])


def test_recorded_says_what_is_wrong_with_a_parquet_file(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame([("q1", "d1", 1, 1.0), ("q1", "gone", 2, 0.5)], columns=rankings.COLUMNS)
    for write, named in (
        (frame.drop(columns="score").to_parquet, ".*score"),
        (frame.to_parquet, ".*'gone'.*'q1'"),
        (lambda path: path.write_bytes(b"no parquet"), ""),
    ):
        write(path)
        with pytest.raises(rankings.FormatError, match=rf"a\.parquet: {named}"):
            Recorded(str(path)).candidates(collection(), 3)


# --- indexes in the store ---


def files(tmp_path):
    """The configuration of a collection of two judged queries, which is written."""
    for name, texts in (("corpus", PASSAGES), ("queries", QUERIES)):
        lines = (f"{key}\t{text}\n" for key, text in texts.items())
        (tmp_path / f"{name}.tsv").write_text("".join(lines))
    (tmp_path / "qrels.txt").write_text("q1 0 d1 1\nq2 0 d2 1\n")
    names = {"corpus": "corpus.tsv", "queries": "queries.tsv", "qrels": "qrels.txt"}
    data = {key: str(tmp_path / name) for key, name in names.items()}
    return {"_target_": "rdx.data.Files", **data}


def index_key(data, sampler):
    """The signature of a sampler's index of a collection."""
    test = {"_target_": "rdx.evaluation.TestSet", "data": data, "first_stage": sampler}
    evaluation = {"_target_": "rdx.evaluation.Evaluation", "collections": {"t": test}}
    evaluation["measures"] = ["nDCG@10"]
    parts = Parts({"data": data, "sampler": sampler, "seed": 1, "evaluation": evaluation})
    return Signatures(parts).key(Step("index", TRAINING))


def test_an_index_is_shared_by_all_queries_of_a_corpus(tmp_path):
    data = files(tmp_path)
    other = {**data, "dev": 0.5, "name": "other", "qrels": None}
    bm25, random = {"_target_": "rdx.samplers.BM25"}, {"_target_": "rdx.samplers.Random"}
    before = index_key(data, bm25)
    assert index_key(other, bm25) == before != index_key(other, {**bm25, "k1": 2.0})
    assert index_key(other, random) == index_key(data, {**random, "seed": 9, "positives": True})
    (tmp_path / "corpus.tsv").write_text("d1\triver\n")
    assert index_key(data, bm25) != before


def test_a_run_is_converted_once_whatever_the_collection(tmp_path):
    run = run_file(tmp_path / "a.run", "q3 Q0 d1 1 5 x", "q1 Q0 d2 1 5 x")
    recorded = {"_target_": "rdx.samplers.Recorded", "run": str(run)}
    pydocs = {"_target_": "rdx.data.PyDocs", "libraries": ["numpy"]}
    before = index_key(files(tmp_path), recorded)
    assert index_key(pydocs, {**recorded, "missing": "drop"}) == before
    assert index_key(pydocs, {**recorded, "order": "rank"}) != before


def retrieve(tmp_path, k, queries=None, **bm25):
    """What a cell retrieves for the judged queries of a test set, and how."""
    test_set = {
        "_target_": "rdx.evaluation.TestSet",
        "data": files(tmp_path),
        "first_stage": {"_target_": "rdx.samplers.BM25", **bm25},
        "queries": queries,
    }
    evaluation = {
        "_target_": "rdx.evaluation.Evaluation",
        "collections": {"files": test_set},
        "measures": ["nDCG@10"],
        "k": k,
    }
    job = Job.of(config.Cell((), "", {"evaluation": evaluation, "seed": 1, "store": str(tmp_path)}))
    return pipeline.obtain(job, stages.RETRIEVE, "test files").ranking, job.store.log


def test_a_first_stage_is_retrieved_once_and_anew_for_other_queries(tmp_path):
    ranking, _ = retrieve(tmp_path, 2)
    test = config.build(files(tmp_path), "data").load("all")
    judged = test.subset(dict.fromkeys(ranking.query_id))  # the order is that of the sample
    assert set(judged.queries) == {"q1", "q2"}
    pd.testing.assert_frame_equal(ranking, BM25().candidates(judged, 2))
    again, log = retrieve(tmp_path, 2)
    pd.testing.assert_frame_equal(again, ranking)
    assert list(log.values()) == ["stored"]  # and the index is not even looked at
    assert retrieve(tmp_path, 2, queries=1)[0].query_id.nunique() == 1
    assert retrieve(tmp_path, 3)[0].groupby("query_id").size().max() == 3
    assert retrieve(tmp_path, 2, k1=2.0)[0].score.tolist() != ranking.score.tolist()


def test_data_sets_of_one_corpus_share_an_index():
    id_of = "msmarco-passage/{}".format
    names = ("train/judged", "trec-dl-2019/judged", "trec-dl-2020/judged")
    corpora = [config.identity(IrDatasets(id_of(name)), config.PASSAGES) for name in names]
    assert corpora[0] == corpora[1] == corpora[2]
    assert corpora[0] != config.identity(IrDatasets("vaswani"), config.PASSAGES)
