"""Collections from own files and ir_datasets, and how queries are split and sampled."""

import gzip
import hashlib
import json
import pickle
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import ir_datasets
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdx import ids
from rdx.data import Collection, Files, IrDatasets, catalogue, sample_queries, split_of
from rdx.data import texts as module
from rdx.data.irds import Passages
from rdx.data.texts import StoredTexts, store_texts
from rdx.rankings import FormatError
from tests.rdx.configured import configured

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


# what is odd in a collection of files without judgements, and with some; here nothing
TEXTS_ODD = {"repeated_texts": 0, "empty_passages": 0, "empty_queries": 0, "qrels_of_empty": 0}
JUDGED_ODD = {"queries_without_qrels": 0, "queries_without_relevant": 0, "negative_qrels": 0}
FILES_ODD = TEXTS_ODD | JUDGED_ODD | {"qrels_without_passage": 0, "qrels_spelt_otherwise": 0}
IRDS_ODD = {
    **{"empty_passages": 0, "empty_queries": 0, "qrels_of_empty": 0},
    **{"repeated_qrels": 0, "qrels_without_query": 0},
    **JUDGED_ODD,
}


def qrels_frame(*rows: tuple[str, str, int]) -> pd.DataFrame:
    columns = {"query_id": "str", "doc_id": "str", "relevance": "int32"}
    return pd.DataFrame(list(rows), columns=list(columns)).astype(columns)


# --- collection ---


def small() -> Collection:
    return Collection(
        name="small",
        queries={"q1": "one", "q2": "two", "q3": "three"},
        passages={"d1": "a", "d2": "b"},
        qrels=qrels_frame(("q1", "d1", 2), ("q1", "d2", 1), ("q2", "d1", 0), ("q2", "d9", 3)),
        counts={"queries_without_qrels": 1},
    )


def test_relevant_keeps_grades_from_the_minimum_on():
    assert small().relevant() == {"q1": {"d1": 2, "d2": 1}, "q2": {"d9": 3}}
    assert small().relevant(2) == {"q1": {"d1": 2}, "q2": {"d9": 3}}
    assert small().relevant(0)["q2"] == {"d1": 0, "d9": 3}
    assert small().relevant(4) == {}
    assert type(small().relevant()["q1"]["d1"]) is int


def test_subset_restricts_queries_and_qrels_and_shares_passages():
    whole = small()
    part = whole.subset(["q3", "q1", "q3"])
    assert list(part.queries.items()) == [("q3", "three"), ("q1", "one")]
    pd.testing.assert_frame_equal(part.qrels, qrels_frame(("q1", "d1", 2), ("q1", "d2", 1)))
    assert part.passages is whole.passages
    assert part.name == "small"
    assert part.counts == whole.counts  # of the collection as it was loaded
    assert len(whole.queries) == 3
    assert len(whole.subset([]).qrels) == 0


def test_subset_names_an_unknown_query():
    with pytest.raises(ValueError, match="'q8'"):
        small().subset(["q1", "q8", "q9"])


def test_split_of_is_the_hash_of_the_id():
    digest = hashlib.sha256(b"1030303").hexdigest()
    fraction = int(digest[:16], 16) / 2**64
    assert split_of("1030303", fraction + 1e-9) == "dev"
    assert split_of("1030303", fraction - 1e-9) == "train"


def test_split_of_holds_out_about_the_share():
    ids = [str(number) for number in range(4000)]
    held = [one for one in ids if split_of(one, 0.1) == "dev"]
    assert abs(len(held) - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5
    # a larger share only adds
    assert set(held) < {one for one in ids if split_of(one, 0.2) == "dev"}
    assert all(split_of(one, 0.0) == "train" for one in ids)
    assert all(split_of(one, 1.0) == "dev" for one in ids)


@given(st.sets(st.text(max_size=4), max_size=20), st.integers(0, 3), st.data())
def test_samples_are_nested_and_ignore_order(ids, seed, data):
    n = data.draw(st.integers(0, len(ids)))
    shuffled = data.draw(st.permutations(sorted(ids)))
    everything = sample_queries(ids, None, seed)
    assert set(everything) == ids
    assert sample_queries(shuffled, n, seed) == everything[:n]


def test_samples_follow_the_hash_of_seed_and_id():
    ids = [str(number) for number in range(50)]
    naive = sorted(ids, key=lambda one: hashlib.sha256(f"7:{one}".encode()).hexdigest())
    assert sample_queries(ids, 10, 7) == naive[:10]
    assert sample_queries(ids, 10, 8) != naive[:10]


def test_sample_names_both_numbers():
    with pytest.raises(ValueError, match="queries=3: 2 "):
        sample_queries(["a", "b", "a"], 3, 0)
    with pytest.raises(ValueError, match="queries=-1: 1 "):
        sample_queries(["a"], -1, 0)


# --- files ---

CORPUS = [
    {"_id": "d1", "text": "first passage  of four words"},
    {"_id": "d2", "title": "Title", "text": "second"},
    {"_id": "d3", "title": "", "text": "third\ttab"},
]
QUERIES = "q1\tone query\nq2\tanother query\n"
QRELS = "q1 0 d1 2\nq1 0 d9 1\nq1 0 d8 0\n"


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """Write a small, correct collection."""
    found = {
        "corpus": tmp_path / "corpus.jsonl",
        "queries": tmp_path / "queries.tsv",
        "qrels": tmp_path / "qrels.txt",
    }
    found["corpus"].write_text("".join(json.dumps(one) + "\n" for one in CORPUS))
    found["queries"].write_text(QUERIES)
    found["qrels"].write_text(QRELS)
    return found


def files(paths: dict[str, Path], **options) -> Files:
    given: dict[str, Any] = {key: str(path) for key, path in paths.items()}
    return Files(**given, **options)


def fails(paths: dict[str, Path], path: Path, line: int, cause: str) -> None:
    start = re.escape(f"{path}:{line}: ")
    with pytest.raises(FormatError, match=f"^{start}.*{re.escape(cause)}"):
        files(paths).load()


def test_files_are_loaded(paths):
    collection = files(paths, name="mine").load()
    assert collection.name == "mine"
    assert collection.queries == {"q1": "one query", "q2": "another query"}
    assert dict(collection.passages) == {
        "d1": "first passage  of four words",
        "d2": "Title second",
        "d3": "third\ttab",
    }
    expected = qrels_frame(("q1", "d1", 2), ("q1", "d9", 1), ("q1", "d8", 0))
    pd.testing.assert_frame_equal(collection.qrels, expected)
    assert collection.counts == FILES_ODD | {"qrels_without_passage": 2, "queries_without_qrels": 1}


def test_files_without_qrels(paths):
    del paths["qrels"]
    collection = files(paths).load()
    pd.testing.assert_frame_equal(collection.qrels, qrels_frame())
    assert collection.counts == TEXTS_ODD
    assert collection.relevant() == {}


def zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACK = {"": bytes, ".gz": gzip.compress, ".zst": zst}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("form", ["jsonl", "tsv"])
def test_every_form_gives_the_same_texts(tmp_path, form, packed):
    texts = {"1": "eins", "zwei": "zw\u00f6i, \u4e2d", "d-3": 'dr"ei" \U0001f600'}
    if form == "jsonl":
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
    else:
        lines = [f"{key}\t{text}" for key, text in texts.items()]
    # a byte order mark, DOS line ends, blank lines
    data = b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode()
    path = tmp_path / f"x.{form}{packed}"
    path.write_bytes(PACK[packed](data))
    collection = Files(corpus=str(path), queries=str(path)).load()
    assert collection.queries == texts
    assert dict(collection.passages) == texts


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"docid": "a", "text": "t"}, ("a", "t")),
        ({"id": 7, "text": "t", "more": [1]}, ("7", "t")),
        ({"id": "b", "_id": "a", "text": "t"}, ("a", "t")),
        ({"_id": "a", "text": "", "title": "only a title"}, ("a", "only a title")),
        ({"_id": "a", "text": "t", "title": None}, ("a", "t")),
        ({"_id": "a", "text": " t ", "title": " "}, ("a", " t ")),
    ],
)
def test_json_fields(paths, record, expected):
    paths["corpus"].write_text(json.dumps(record))
    assert list(files(paths).load().passages.items()) == [expected]


def test_what_was_prepared_is_what_is_loaded(paths, tmp_path):
    """A prepared collection is mapped; the files may be gone."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    data = files(paths, dev=0.5)
    whole = data.load()
    data.prepare(folder)
    for path in paths.values():
        path.unlink()
    again = data.load("all", folder)
    assert again.queries == whole.queries and again.counts == whole.counts
    assert list(again.passages.items()) == list(whole.passages.items())
    pd.testing.assert_frame_equal(again.qrels, whole.qrels)


def test_passages_are_mapped_and_looked_up(tmp_path, monkeypatch):
    texts = {f"d{i}": f"text {i % 7}" for i in range(100)}
    path = tmp_path / "corpus.tsv"
    path.write_text("".join(f"{key}\t{text}\n" for key, text in texts.items()))
    for bits in (8, 2, 64):  # few bits: ids collide
        monkeypatch.setattr(module, "BLOCK", bits)
        whole = hashed(bits)
        monkeypatch.setattr(ids, "hash_of", whole)
        assert store_texts(str(path), tmp_path).repeated >= 93
        found = StoredTexts(tmp_path)
        assert list(found) == list(texts) and len(found) == 100
        assert dict(found.items()) == texts == found == pickle.loads(pickle.dumps(found))
        assert {key: found[key] for key in reversed(texts)} == texts
        assert "d100" not in found and 7 not in found and found.get("x") is None
        with pytest.raises(KeyError):
            found["d100"]
    path.write_text("a\tb\nc\td\n\na\tx\n")
    monkeypatch.setattr(ids, "hash_of", hashed(1))
    with pytest.raises(FormatError, match=f"{path}:4: id 'a' occurs a second time"):
        store_texts(str(path), tmp_path)


def hashed(bits: int):
    def short(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> (64 - bits)

    return short


def test_repeated_texts_are_counted(paths):
    more = [{"_id": "d4", "text": "first passage  of four words"}, {"_id": "d5", "text": "first"}]
    with paths["corpus"].open("a") as file:
        file.write("".join(json.dumps(one) + "\n" for one in more))
    assert files(paths).load().counts["repeated_texts"] == 1
    assert files(paths, max_words=1).load().counts["repeated_texts"] == 2  # as they are kept


def test_judged_keeps_the_queries_that_the_qrels_name(paths):
    loaded = files(paths, judged=True).load()
    assert loaded.queries == {"q1": "one query"}
    assert loaded.counts["queries_without_qrels"] == 1
    with pytest.raises(ValueError, match="data.judged=true: needs data.qrels"):
        configured("data", Files, corpus="c.tsv", queries="q.tsv", judged=True)


def test_max_words_cuts_passages_only(paths):
    collection = files(paths, max_words=2).load()
    assert collection.passages["d1"] == "first passage"
    assert collection.passages["d2"] == "Title second"
    assert collection.passages["d3"] == "third\ttab"  # nothing to cut, nothing changed
    assert collection.queries["q1"] == "one query"
    assert files(paths, max_words=1).load().passages["d3"] == "third"


def test_splits_divide_the_queries(paths):
    ids = [str(number) for number in range(40)]
    paths["queries"].write_text("".join(f"{one}\ttext\n" for one in ids))
    paths["qrels"].write_text("".join(f"{one} 0 d1 1\n{one} 0 d9 1\n" for one in ids[:20]))
    data = files(paths, dev=0.25)
    train, dev, both = data.load("train"), data.load("dev"), data.load("all")
    assert list(dev.queries) == [one for one in ids if split_of(one, 0.25) == "dev"]
    assert 0 < len(dev.queries) < 20
    assert list(train.queries) == [one for one in ids if split_of(one, 0.25) == "train"]
    assert list(both.queries) == ids
    for part in (train, dev, both):
        judged = [one for one in part.queries if int(one) < 20]
        assert part.qrels["query_id"].unique().tolist() == judged
        assert part.qrels.index.tolist() == list(range(2 * len(judged)))
        assert part.counts == FILES_ODD | {
            "qrels_without_passage": len(judged),
            "queries_without_qrels": len(part.queries) - len(judged),
        }
        assert len(part.passages) == 3


@pytest.mark.parametrize("split", ["dev", "test"])
def test_an_empty_or_unknown_split_is_an_error(paths, registered, split):
    for data in (files(paths), IrDatasets(registered())):
        with pytest.raises(ValueError, match=f"'{split}'"):
            data.load(split)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("dev", share) for share in (1.5, 1.0, -0.1, float("nan"))),
        *(("max_words", 0), ("corpus", "corpus.csv"), ("queries", "q.txt"), ("name", "")),
    ],
)
def test_values_are_checked_at_once(key, value):
    with pytest.raises(ValueError, match=rf"data\.{key}\b"):
        configured("data", Files, **{"corpus": "c.jsonl", "queries": "q.tsv", key: value})


@pytest.mark.parametrize("key", ["corpus", "queries", "qrels"])
@pytest.mark.parametrize("verb", ["check", "load"])
def test_a_missing_file_is_named_with_its_key(paths, key, verb):
    files(paths).check()
    path = paths[key]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{key}={path}: no such file")):
        getattr(files(paths), verb)()
    path.mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{key}={path}: is not a file")):
        getattr(files(paths), verb)()


def test_relative_paths_start_at_the_working_directory(paths, monkeypatch):
    monkeypatch.chdir(paths["corpus"].parent)
    collection = Files(corpus="corpus.jsonl", queries="queries.tsv", qrels="qrels.txt").load()
    assert len(collection.passages) == 3


JSON = b'{"_id": "d1", "text": "t"}\n\n'  # and a blank line: the third line is the bad one


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b'{"_id": "d2", "text": ', "not JSON"),
        (b"d2\ttext", "not JSON"),
        (b'["d2", "text"]', "object"),
        (b'{"_id": "d2", "contents": "t"}', "'text'"),
        (b'{"text": "t"}', "'_id'"),
        (b"{}", "'_id'"),
        (b'{"_id": null, "text": "t"}', "'_id' is None"),
        (b'{"_id": true, "text": "t"}', "'_id' is True"),
        (b'{"_id": 1.5, "text": "t"}', "'_id' is 1.5"),
        (b'{"_id": "d2", "text": null}', "without text: 'd2'"),
        (b'{"_id": "d2", "text": "t", "title": 3}', "'title' is 3"),
        (b'{"_id": "d1", "text": "again"}', "'d1' occurs a second time"),
        (b'{"_id": "d2", "text": " \\n"}', "without text: 'd2'"),
        (b'{"_id": "d 2", "text": "t"}', "'d 2'"),
        (b'{"_id": "", "text": "t"}', "''"),
        (b'{"_id": "d2", "text": "caf\xe9"}', "byte 27"),
        (b'{"_id": "d2", "text": "\\ud83d"}', "surrogate"),
    ],
)
@pytest.mark.parametrize("packed", PACK)
def test_the_bad_line_of_a_json_corpus_is_named(paths, line, cause, packed):
    data = JSON + line + b'\n{"_id": "d9", "text": "t"}\n'
    paths["corpus"] = paths["corpus"].with_suffix(f".jsonl{packed}")
    paths["corpus"].write_bytes(PACK[packed](data))
    fails(paths, paths["corpus"], 3, cause)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"q2 no tab", "1 columns"),
        (b"q2\ta\tb", "3 columns"),
        (b"q1\tagain", "'q1' occurs a second time"),
        (b"q2\t", "without text: 'q2'"),
        (b"\ttext", "''"),
        (b"q2\tcaf\xe9", "byte 7"),
    ],
)
@pytest.mark.parametrize("key", ["corpus", "queries"])
def test_the_bad_line_of_a_tsv_file_is_named(paths, key, line, cause):
    paths[key] = paths[key].with_suffix(".tsv")
    paths[key].write_bytes(b"q1\ttext\n\n" + line + b"\n")
    fails(paths, paths[key], 3, cause)


def test_a_bad_line_of_json_queries_is_named(paths):
    paths["queries"] = paths["queries"].with_suffix(".jsonl")
    paths["queries"].write_text('{"_id": "q1", "text": "t"}\n{"_id": "q2"}\n')
    fails(paths, paths["queries"], 2, "'text'")


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("q1 0 d1 1\n\nq7 0 d1 1\nq8 0 d1 1\n", 3, "'q7'"),
        ("q1 0 d1 1\nq1 0 d1 2\n", 2, "duplicate"),
        ("q1 Q0 d1 1 2.0 x\n", 1, "6 columns"),
    ],
)
def test_the_bad_line_of_the_qrels_is_named(paths, text, line, cause):
    paths["qrels"].write_text(text)
    fails(paths, paths["qrels"], line, cause)


@pytest.mark.parametrize("key", ["corpus", "queries", "qrels"])
def test_empty_files_are_refused(paths, key):
    paths[key].write_text("\n")
    with pytest.raises(FormatError, match=re.escape(f"{paths[key]}: the file is empty")):
        files(paths).load()


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_damaged_packed_file_is_refused(paths, packed):
    paths["corpus"] = paths["corpus"].with_suffix(f".jsonl{packed}")
    whole = PACK[packed](b"".join(b'{"_id": "%d", "text": "t%d"}\n' % (i, i) for i in range(999)))
    for data in (JSON, whole[: len(whole) // 2]):
        paths["corpus"].write_bytes(data)
        message = re.escape(f"{paths['corpus']}: cannot be decompressed")
        with pytest.raises(FormatError, match=message):
            files(paths).load()


@pytest.mark.skipif(not DATA.exists(), reason="needs the TREC DL 2019 and SciFact files")
def test_real_collections():
    folder = DATA / "trec-dl-2019"
    deep = Files(
        corpus=str(folder / "corpus.jsonl"),
        queries=str(folder / "queries.tsv"),
        qrels=str(folder / "qrels.txt"),
    ).load()
    assert (len(deep.queries), len(deep.passages), len(deep.qrels)) == (43, 11_843, 9260)
    assert deep.counts["queries_without_qrels"] == 0
    without = sum(doc not in deep.passages for doc in deep.qrels["doc_id"])
    assert deep.counts["qrels_without_passage"] == without > 0
    facts = Files(
        corpus=str(DATA / "scifact" / "corpus.jsonl"),
        queries=str(DATA / "scifact" / "queries.tsv"),
        qrels=str(DATA / "scifact" / "qrels.train.txt"),
    ).load()
    assert (len(facts.queries), len(facts.passages)) == (1109, 5183)
    assert facts.counts["qrels_without_passage"] == 0
    assert facts.counts["queries_without_qrels"] == 300


# --- ir_datasets ---


@pytest.fixture
def registered(tmp_path: Path):
    """Register a data set made from local files with ir_datasets, under a fresh id."""

    def register(
        docs: str | None = "d1\tfirst\nd2\tsecond\nd3\tthird\n",
        queries: str | None = QUERIES,
        qrels: str | None = QRELS,
        name: str = "",
    ) -> str:
        parts = {"docs_tsv": docs, "queries_tsv": queries, "qrels_trec": qrels}
        given = {}
        for key, text in parts.items():
            if text is not None:
                given[key] = tmp_path / f"{uuid.uuid4().hex}.{key}"
                given[key].write_text(text)
        dataset_id = name or f"rdx-{uuid.uuid4().hex}"
        ir_datasets.registry.register(dataset_id, ir_datasets.create_dataset(**given))
        added.append(dataset_id)
        return dataset_id

    added: list[str] = []
    yield register
    for dataset_id in added:
        del ir_datasets.registry._registered[dataset_id]


def test_a_registered_data_set_is_loaded(registered):
    dataset_id = registered()
    collection = IrDatasets(dataset_id).load()
    assert collection.name == IrDatasets(dataset_id).name == dataset_id
    assert collection.queries == {"q1": "one query", "q2": "another query"}
    expected = qrels_frame(("q1", "d1", 2), ("q1", "d9", 1), ("q1", "d8", 0))
    pd.testing.assert_frame_equal(collection.qrels, expected)
    assert collection.counts == IRDS_ODD | {"queries_without_qrels": 1}


def test_a_data_set_that_was_not_fetched_is_not_downloaded(monkeypatch):
    monkeypatch.setattr(catalogue, "inventory", lambda dataset_id: catalogue.Inventory())
    message = (
        "data.id=vaswani: not fetched, and no cell downloads anything; run first: python -m rdx "
        "data fetch --without-passages data=ir_datasets data.id=vaswani"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        IrDatasets("vaswani").load()
    passages = Passages("vaswani", catalogue.load("vaswani"))
    for use in (lambda: passages["1"], lambda: next(iter(passages)), lambda: passages.items()):
        with pytest.raises(FileNotFoundError, match="data fetch data=ir_datasets data.id=vaswani"):
            list(use())


def test_passages_are_a_lazy_mapping(registered):
    passages = IrDatasets(registered()).load().passages
    texts = {"d1": "first", "d2": "second", "d3": "third"}
    assert len(passages) == 3  # before the document store is built
    assert list(passages) == list(texts)
    assert list(passages.items()) == list(texts.items())
    assert passages["d2"] == "second"
    assert dict(passages) == texts
    assert len(passages) == len(passages.items()) == 3
    assert "d3" in passages and "d9" not in passages
    assert passages.get("d9") is None
    with pytest.raises(KeyError):
        passages["d9"]


def test_a_data_set_without_qrels(registered):
    collection = IrDatasets(registered(qrels=None)).load()
    pd.testing.assert_frame_equal(collection.qrels, qrels_frame())
    texts = ("empty_passages", "empty_queries", "qrels_of_empty")
    assert collection.counts == dict.fromkeys(texts, 0)


def test_ir_datasets_has_splits(registered):
    ids = [str(number) for number in range(40)]
    queries = "".join(f"{query_id}\ttext\n" for query_id in ids)
    qrels = "".join(f"{query_id} 0 d1 1\n" for query_id in ids)
    dev = IrDatasets(registered(queries=queries, qrels=qrels), dev=0.25).load("dev")
    assert list(dev.queries) == [q for q in ids if split_of(q, 0.25) == "dev"]
    assert dev.qrels["query_id"].tolist() == list(dev.queries)


def test_qrels_of_ir_datasets_are_cleaned_and_counted(registered):
    repeated = registered(qrels="q1 0 d1 1\nq1 0 d1 1\nq7 0 d1 1\n")
    collection = IrDatasets(repeated).load()
    pd.testing.assert_frame_equal(collection.qrels, qrels_frame(("q1", "d1", 1)))
    assert collection.counts == IRDS_ODD | {
        "repeated_qrels": 1,
        "qrels_without_query": 1,
        "queries_without_qrels": 1,
    }
    clash = registered(qrels="q1 0 d1 1\nq1 0 d1 2\n")
    with pytest.raises(FormatError, match=f"{clash}: query 'q1', doc 'd1' has two relevances"):
        IrDatasets(clash).load()


def test_bad_queries_of_ir_datasets_are_refused(registered):
    with pytest.raises(FormatError, match="query 'q1' occurs a second time"):
        IrDatasets(registered(queries="q1\ta\nq1\tb\n")).load()
    with pytest.raises(FormatError, match="1 query without text: 'q1'"):
        IrDatasets(registered(queries="q1\t\n")).load()


def test_an_unknown_id_gets_close_ones():
    message = (
        "data.id=msmarco-passage/trec-dl-2019/judge: ir_datasets has no such data set; "
        "close: msmarco-passage/trec-dl-2019/judged"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        IrDatasets("msmarco-passage/trec-dl-2019/judge").load()
    with pytest.raises(ValueError, match="has no such data set$"):
        IrDatasets("#").load()


def test_a_data_set_without_queries_or_docs_is_refused(registered):
    above = registered(queries=None, qrels=None)
    registered(name=f"{above}/train")
    with pytest.raises(
        ValueError, match=f"data.id={above}: the data set has no queries; below it are: {above}/tr"
    ):
        IrDatasets(above).load()
    with pytest.raises(ValueError, match="the data set has no docs$"):
        IrDatasets(registered(docs=None)).load()


@pytest.mark.parametrize("options", [{"id": "x", "dev": 1.5}, {"id": ""}])
def test_values_of_ir_datasets_are_checked_at_once(options):
    with pytest.raises(ValueError, match=r"data\.(dev=1\.5|id=''):"):
        configured("data", IrDatasets, **options)


def test_importing_data_imports_neither_torch_nor_ir_datasets():
    code = "import sys, rdx.data; print(sorted({'torch', 'ir_datasets'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"
