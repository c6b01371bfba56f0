"""What is odd in a collection is counted or refused as a whole: empty texts, ids, judgements."""

import json
import uuid

import ir_datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdx import config, rankings
from rdx.collection import Collection
from rdx.data import Files, IrDatasets, catalogue
from rdx.data.blank import blank
from rdx.declared import converted
from rdx.evaluation import Evaluation, measured, oracle
from rdx.rankings import FormatError, alike, read_qrels
from rdx.rankings.ids import SPELLINGS, difference
from rdx.samplers import BM25, Others, Random

NOTHING = ["", " ", "\t\u00a0", "\u200b", "\ufeff \u00ad", "\u2060\u200d\x07"]
SOMETHING = ["a", "\u200ba", ".", "\u0301", "\U0001f600", "\ue000", "Ã©", "&nbsp;", "nan", "null"]


@pytest.mark.parametrize("text", NOTHING + SOMETHING)
def test_a_text_is_blank_if_nothing_of_it_can_be_seen(text):
    assert blank(text) is (text in NOTHING)


# --- passages and queries without text ---

# d2, d4 and d5 and q2 have none; d2 is judged relevant, and so is d1 for q2
PASSAGES = {"d1": "river stone", "d2": "", "d3": "garden stone", "d4": None, "d5": "\u200b "}
QUERIES = {"q1": "stone", "q2": "\u00ad", "q3": "river", "q4": "garden"}
QRELS = [("q1", "d2", 1), ("q1", "d1", 1), ("q2", "d1", 1), ("q3", "d3", -1), ("q3", "d1", 0)]


def put(folder, passages=PASSAGES, queries=QUERIES, qrels=QRELS):
    """The three files of a collection, as keys of `Files`."""
    lines = [json.dumps({"_id": key, "text": text}) for key, text in passages.items()]
    (folder / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")  # no last line end
    (folder / "q.tsv").write_text("".join(f"{key}\t{text}\r\n" for key, text in queries.items()))
    rows = "".join(f"{q} 0 {d} {grade}\n" for q, d, grade in qrels)
    (folder / "r.txt").write_text(rows, encoding="utf-8")
    names = {"corpus": "c.jsonl", "queries": "q.tsv", "qrels": "r.txt"}
    return {key: str(folder / name) for key, name in names.items()}


def test_all_that_is_empty_is_named_at_once(tmp_path):
    files = Files(**put(tmp_path))
    with pytest.raises(FormatError) as error:
        files.load()
    said = str(error.value)
    assert said.startswith(f"{files.corpus}:2: ") and f"{files.queries}:2: " in said
    for part in ("3 passages", "'d2', 'd4', 'd5'", "1 query", "'q2'", "data.empty=drop"):
        assert part in said
    many = {f"d{i}": "" for i in range(9)} | {"x": "text"}
    with pytest.raises(FormatError, match=r"9 passages without text: 'd0', 'd1', 'd2', \.\.\.;"):
        Files(**put(tmp_path, passages=many, queries={"q1": "a"}, qrels=QRELS[:1])).load()


def test_what_is_empty_is_dropped_or_kept(tmp_path):
    paths = put(tmp_path)
    kept, dropped = (Files(**paths, empty=rule).load() for rule in ("keep", "drop"))
    texts = {key: text or "" for key, text in PASSAGES.items()}
    assert dict(kept.passages) == texts and kept.queries == QUERIES
    assert len(kept.qrels) == 5
    assert dict(dropped.passages) == {"d1": "river stone", "d3": "garden stone"}
    assert list(dropped.queries) == ["q1", "q3", "q4"]
    # the judgement of d2 stays, that of the query without text goes
    assert dropped.qrels.values.tolist() == [list(row) for row in QRELS if row[0] != "q2"]
    odd = {
        **{"repeated_texts": 0, "empty_passages": 3, "empty_queries": 1, "qrels_of_empty": 2},
        **{"queries_without_qrels": 1, "queries_without_relevant": 1, "negative_qrels": 1},
        "qrels_spelt_otherwise": 0,
    }
    assert kept.counts == odd | {"qrels_without_passage": 0}
    assert dropped.counts == odd | {"qrels_without_passage": 1}


def test_the_values_of_what_is_kept_and_dropped(tmp_path):
    """BM25 finds no passage without a term; the ideal ranking is that of the qrels either way."""
    values = {}
    for rule in ("keep", "drop"):
        collection = Files(**put(tmp_path), empty=rule).load()
        ranking = BM25().candidates(collection, 5)
        found = measured(ranking, collection.qrels, ["nDCG@10", "R@5"]).set_index(
            ["query_id", "measure"]
        )
        values[rule] = {f"{q} {m}": round(v, 6) for (q, m), v in found.value.items()}
        drawn = Random().candidates(collection, 9).groupby("query_id").size()
        assert set(drawn) == {len(collection.passages)}
    ideal = 1 + 1 / np.log2(3)
    # q1's ranking is d3, d1 (equal lengths and terms: doc id descending)
    q1 = {"q1 nDCG@10": round(1 / np.log2(3) / ideal, 6), "q1 R@5": 0.5}
    rest = {"q3 nDCG@10": 0.0, "q3 R@5": 0.0}
    assert values["drop"] == q1 | rest
    assert values["keep"] == q1 | {"q2 nDCG@10": 0.0, "q2 R@5": 0.0} | rest


def test_counts_of_what_is_empty_are_those_of_the_split(tmp_path):
    queries = {str(i): "" if i % 3 == 0 else "river" for i in range(30)}
    qrels = [(q, "d1", 1) for q in queries]
    files = Files(**put(tmp_path, {"d1": "river"}, queries, qrels), empty="drop", dev=0.4)
    parts = [files.load(split) for split in ("train", "dev")]
    assert sum(part.counts["empty_queries"] for part in parts) == 10
    assert sum(part.counts["qrels_of_empty"] for part in parts) == 10
    assert sum(len(part.queries) for part in parts) == 20 == sum(len(p.qrels) for p in parts)


def test_nothing_but_empty_texts_is_refused(tmp_path):
    with pytest.raises(FormatError, match="no passage has a text"):
        Files(**put(tmp_path, passages={"d1": ""}), empty="drop").load()
    with pytest.raises(ValueError, match="no query has a text"):
        Files(**put(tmp_path, queries={"q1": ""}, qrels=QRELS[:1]), empty="drop").load()


def test_an_id_twice_is_refused_although_one_of_them_is_dropped(tmp_path):
    paths = put(tmp_path, passages={"d1": ""})
    with open(paths["corpus"], "a") as file:
        file.write('\n{"_id": "d1", "text": "other"}\n')
    with pytest.raises(FormatError, match=r"c\.jsonl:2: id 'd1'"):
        Files(**paths, empty="drop").load()


@pytest.mark.parametrize("key", ["corpus", "queries"])
def test_all_lines_with_an_id_of_another_are_counted(tmp_path, key):
    path = tmp_path / "twice.tsv"
    path.write_text("q1\ta\nx\tb\nq1\tc\nq1\td\nx\te\n")
    with pytest.raises(FormatError, match=r"twice\.tsv:3: id 'q1' .*3 such lines"):
        Files(**put(tmp_path) | {key: str(path)}, empty="keep").load()


def test_words_that_are_kept_may_be_invisible(tmp_path):
    paths = put(tmp_path, passages={"d1": "\u200b seen", "d2": "seen"})
    assert Files(**paths, empty="keep").load().counts["empty_passages"] == 0
    assert Files(**paths, empty="keep", max_words=1).load().counts["empty_passages"] == 1


@pytest.mark.parametrize("cls", [Files, IrDatasets])
def test_the_rule_is_declared(cls):
    own = {"corpus": "c.tsv", "queries": "q.tsv"} if cls is Files else {"id": "vaswani"}
    with pytest.raises(ValueError, match=r"data\.empty='skip'"):
        config.build({"_target_": f"rdx.data.{cls.__name__}", **own, "empty": "skip"}, "data")
    identities = [json.dumps(config.identity(cls(**own, empty=e), config.PASSAGES), sort_keys=True)
                  for e in ("error", "drop", "keep")]  # fmt: skip
    assert len(set(identities)) == 3


@pytest.fixture
def registered(tmp_path):
    """A data set of ir_datasets out of texts by id."""
    ids = []

    def register(passages, queries, qrels):
        paths = {}
        for name, rows in (("docs_tsv", passages), ("queries_tsv", queries)):
            paths[name] = tmp_path / f"{uuid.uuid4().hex}.{name}"
            paths[name].write_text("".join(f"{key}\t{text or ''}\n" for key, text in rows.items()))
        paths["qrels_trec"] = tmp_path / f"{uuid.uuid4().hex}.qrels"
        paths["qrels_trec"].write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in qrels))
        ids.append(f"rdx-{uuid.uuid4().hex}")
        ir_datasets.registry.register(ids[-1], ir_datasets.create_dataset(**paths))
        return ids[-1]

    yield register
    for dataset_id in ids:
        del ir_datasets.registry._registered[dataset_id]


def test_ir_datasets_have_the_same_rules(registered, tmp_path):
    dataset_id = registered(PASSAGES, QUERIES, QRELS)
    own = Files(**put(tmp_path), empty="drop").load()
    with pytest.raises(FormatError, match=r"3 passages .*'d2', 'd4', 'd5'; .*1 query .*'q2'"):
        IrDatasets(dataset_id).load()
    dropped = IrDatasets(dataset_id, empty="drop").load()
    assert dict(dropped.passages) == dict(own.passages) == dict(dropped.passages.items())
    assert len(dropped.passages) == 2 and "d2" not in dropped.passages
    assert dropped.queries == own.queries
    pd.testing.assert_frame_equal(dropped.qrels, own.qrels)
    shared = own.counts.keys() & dropped.counts.keys()
    assert {name: own.counts[name] for name in shared} == {n: dropped.counts[n] for n in shared}
    assert "empty_passages" in shared and "negative_qrels" in shared
    kept = IrDatasets(dataset_id, empty="keep").load()
    assert len(kept.passages) == 5 and kept.passages["d2"] == "" and len(kept.queries) == 4


def test_what_was_found_empty_is_kept_for_data_that_were_fetched(monkeypatch, tmp_path):
    class Doc:
        def __init__(self, doc_id, text):
            self.doc_id, self.default_text = doc_id, lambda: text

    class Dataset:
        has = staticmethod(lambda part: True)
        docs_count = staticmethod(lambda: 2)
        reads = 0

        def docs_iter(self):
            self.reads += 1
            return iter([Doc("1", "\ufeff"), Doc("2", "x")])

    monkeypatch.setattr(catalogue, "home", lambda: tmp_path)
    monkeypatch.setattr(catalogue, "sources", lambda dataset, parts: ["a download"])
    dataset = Dataset()
    monkeypatch.setattr(catalogue, "built", lambda dataset: False)
    assert catalogue.blank_docs("vaswani", dataset) == () and dataset.reads == 0  # not there
    monkeypatch.setattr(catalogue, "built", lambda dataset: True)
    assert [catalogue.blank_docs("vaswani", dataset) for _ in range(2)] == [("1",), ("1",)]
    assert dataset.reads == 1


# --- judgements ---


def frame(*rows):
    kinds = {"query_id": "str", "doc_id": "str", "relevance": "int32"}
    return pd.DataFrame(list(rows), columns=list(kinds)).astype(kinds)


@pytest.mark.parametrize("grade", [-1, -2])
def test_grades_below_0_are_not_relevant_but_judged(grade):
    """nDCG gives them no gain, thresholds are above them, Judged@10 counts them."""
    ranking = rankings.rank(["q"] * 4, list("abcd"), [4, 3, 2, 1])
    qrels = frame(("q", "a", grade), ("q", "b", 2), ("q", "d", 1))
    ndcg = (2 / np.log2(3) + 1 / np.log2(5)) / (2 + 1 / np.log2(3))
    expected = {"nDCG@10": ndcg, "P@2": 0.5, "RR": 0.5, "AP": 0.5, "R@4": 1.0}
    for rule in ("trec_eval", "rank", "expected"):
        names = [name for name in expected if rule != "expected" or name != "AP"]
        found = measured(ranking, qrels, names, rule).set_index("measure").value
        assert found.to_dict() == pytest.approx({name: expected[name] for name in names})
    assert measured(ranking, qrels, ["Judged@10"]).value.tolist() == [0.75]
    assert oracle(ranking, qrels).doc_id.tolist() == ["b", "d", "c", "a"]


BEIR = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    "first", [BEIR, "\n" + BEIR.replace("\t", " ").upper(), "qid docid rel\r\n"]
)
def test_judgements_in_the_form_of_beir_are_read(tmp_path, first):
    path = tmp_path / "test.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + first.encode() + b"1\t31715818\t1\n\n3 14717500 -1")
    assert read_qrels(path).values.tolist() == [["1", "31715818", 1], ["3", "14717500", -1]]
    assert read_qrels(path).relevance.dtype == "int32"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1\t2\t1\n", 1),  # perhaps (query, positive, negative)
        ("query-id\tcorpus-id\n1\t2\n", 1),
        (BEIR + "1\t2\t1\n1\t3\n", 3),
        (BEIR + "1\t2\t0.5\n", 2),
        (BEIR + "\n1\t2\t1\n1\t2\t1\n", 4),
        (BEIR + "1 0 2 1\n", 2),
        ("q 0 d\u00a0x 1\n", 1),
        ("q\u2003x 0 d 1\n", 1),
        ("q 0 d\x1fx 1\n", 1),
    ],
)
def test_the_line_of_judgements_that_is_wrong_is_named(tmp_path, text, line):
    path = tmp_path / "test.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=f"test.tsv:{line}: "):
        read_qrels(path)
    path.write_text(BEIR)
    with pytest.raises(FormatError, match="the file is empty"):
        read_qrels(path)


def test_a_collection_of_beir_is_read_as_it_comes(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "4983", "title": "Micro", "text": "Alterations &amp; more", "metadata": {}}\n'
        '{"_id": 5836, "title": "", "text": "Caf\u00c3\u00a9", "metadata": {"url": "x"}}\n'
    )
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "1", "text": "0-dimensional", "metadata": {}}\n{"_id": "2", "text": "other"}\n'
    )
    (tmp_path / "test.tsv").write_text(f"{BEIR}1\t4983\t1\n1\t99\t2\n")
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "test.tsv"}
    paths = {key: str(tmp_path / name) for key, name in names.items()}
    loaded = Files(**paths, judged=True).load()
    # mojibake and entities are left alone
    assert dict(loaded.passages) == {
        "4983": "Micro Alterations &amp; more", "5836": "Caf\u00c3\u00a9",
    }  # fmt: skip
    assert loaded.queries == {"1": "0-dimensional"}
    assert loaded.relevant() == {"1": {"4983": 1, "99": 2}}
    assert loaded.counts["qrels_without_passage"] == 1


def test_all_judged_queries_that_are_unknown_are_named(tmp_path):
    for first, line in (("", 2), (BEIR, 3)):
        zero = "" if first else "0 "
        text = "".join(f"{q} {zero}d1 1\n" for q in ("q1", "Q3", "q8", "q9", "q8"[:1] + "10"))
        paths = put(tmp_path)
        (tmp_path / "r.txt").write_text(first + text)
        with pytest.raises(FormatError) as error:
            Files(**paths, empty="keep").load()
        said = str(error.value)
        assert said.startswith(f"{paths['qrels']}:{line}: query 'Q3'")
        assert "4 such queries" in said and "'Q3' for 'q3' (case)" in said


# --- ids that are spelt otherwise ---

PAIRS = {
    "Unicode normal form": ("Cafe\u0301", "Caf\u00e9"),
    "compatibility characters": ("\uff24\uff11", "D1"),
    "invisible characters": ("\ufeffd7", "d7"),
    "case": ("DOC-a", "doc-A"),
    "zeros of a number": ("0042", "42"),
    "what stands before the number": ("D123", "123"),
}


@pytest.mark.parametrize("what", PAIRS)
def test_ids_that_are_alike_are_found_in_both_directions(what):
    for own, other in (PAIRS[what], PAIRS[what][::-1]):
        assert alike([own, "nowhere"], ["x", other]) == {own: other}
        assert difference(own, other) == what


@pytest.mark.parametrize(
    ("own", "other"), [("7.0", "7"), ("doc_007", "7"), ("7", "doc_007"), ("D7", "d07"), ("0", "00")]
)
def test_numbers_are_alike_however_they_are_written(own, other):
    assert alike([own], [other]) == {own: other}


@pytest.mark.parametrize(
    ("own", "other"),
    [("D7", "Q7"), ("7.5", "7"), ("70", "7"), ("a-1-2", "2"), ("AP88-1", "1"), ("1.0.0", "1"),
     ("7", "7a"), ("", "x")],
)  # fmt: skip
def test_other_ids_are_not_alike(own, other):
    assert alike([own], [other]) == {} == alike([other], [own])


WRITTEN = st.text(st.sampled_from("aAdD01.e\u0301\u00e9\u200b"), min_size=1, max_size=4)


@given(st.lists(WRITTEN, max_size=6), st.lists(WRITTEN, max_size=6))
def test_alike_is_what_pairs_are(own, others):
    """Beside a comparison of all pairs; the first known id of several counts."""

    def behind(text):
        """The number that ends an id which begins otherwise and has no other digit."""
        head = text.rstrip("0123456789")
        number = text[len(head) :]
        alone = head and number and not any(c.isdigit() for c in head)
        return (number.lstrip("0") or "0") if alone else None

    def same(a, b):
        for _, step in SPELLINGS:
            a, b = step(a), step(b)
        return a == b or behind(a) == b or behind(b) == a

    naive = {}
    for a in dict.fromkeys(own):
        matching = [b for b in others if same(a, b)]
        if matching:
            naive[a] = matching[0]
    assert alike(own, others) == naive


def test_judged_passages_in_another_spelling_are_counted(tmp_path):
    passages = {"Caf\u00e9": "a", "D12": "b", "x": "c"}
    rows = [
        ("q1", "Cafe\u0301", 1),
        ("q1", "12", 2),
        ("q1", "x", 1),
        ("q2", "12", 0),
        ("q2", "y", 1),
    ]
    paths = put(tmp_path, passages, {"q1": "a", "q2": "b"}, rows)
    loaded = Files(**paths).load()
    assert loaded.counts["qrels_without_passage"] == 4
    assert loaded.counts["qrels_spelt_otherwise"] == 3
    named = loaded.examples["qrels_spelt_otherwise"]
    assert len(named) == 2 and named[0].isascii()  # each pair once, and to be told apart
    assert loaded.subset(["q1"]).counts == loaded.counts


# --- the query's own passage ---


def test_others_fills_up_to_k_and_closes_the_ranks(tmp_path):
    passages = {f"d{i}": "stone" for i in range(4)} | {"q1": "stone", "q2": "river"}
    queries = {"q1": "stone", "q2": "stone"}
    collection = Collection("c", queries, passages, frame())
    with_own, others = BM25(), Others(BM25())
    assert with_own.candidates(collection, 3).doc_id.tolist() == ["q1", "d3", "d2"] * 2
    ranking = others.candidates(collection, 3)
    assert ranking.query_id.tolist() == ["q1"] * 3 + ["q2"] * 3
    assert ranking.doc_id.tolist() == ["d3", "d2", "d1"] + ["q1", "d3", "d2"]
    assert ranking["rank"].tolist() == [1, 2, 3] * 2
    rankings.check(ranking)
    everything = others.candidates(collection, 9)
    assert everything.groupby("query_id").size().to_dict() == {"q1": 4, "q2": 5}
    folder = tmp_path / "index"
    folder.mkdir()
    others.prepare(collection, folder)  # the index is the sampler's
    pd.testing.assert_frame_equal(others.candidates(collection, 3, folder), ranking)
    assert others.index_of({"x": 1}) == with_own.index_of({"x": 1})
    assert others.covered(queries) == list(queries)
    assert config.identity(others) != config.identity(with_own)
    assert others.fingerprint() == with_own.fingerprint() | {"self_retrieval": "drop"}


def test_the_rule_for_own_passages_is_checked():
    for rule in ("drop", "keep", None):
        assert converted(Evaluation, "self_retrieval", rule) == rule
    with pytest.raises(ValueError, match="must be one of"):
        converted(Evaluation, "self_retrieval", "yes")
