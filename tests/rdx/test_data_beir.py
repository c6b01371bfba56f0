"""Folders of BEIR: three files of judgements, texts with titles."""

import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from rdx import config
from rdx.config import ConfigError
from rdx.config.identity import FILES, PASSAGES, identity
from rdx.data import Beir, Files
from rdx.rankings import FormatError, read_qrels
from tests.rdx.configured import check_refused

SCIFACT = Path(__file__).parents[2] / ".." / "shared" / "data" / "scifact"
HEAD = "query-id\tcorpus-id\tscore\n"
CORPUS = [
    {"_id": "d1", "title": "A title", "text": "and a text", "metadata": {"url": "x"}},
    {"_id": "d2", "title": "", "text": "no title"},
    {"_id": "d3", "text": "no such field"},
]
QUERIES = [{"_id": f"q{i}", "text": f"query {i}", "metadata": {}} for i in range(1, 6)]
SPLITS = {"train": "q1\td1\t1\nq2\td2\t1\nq3\td9\t1\n", "test": "q4\td1\t2\nq4\td3\t0\n"}


def put(folder: Path, splits=SPLITS, corpus=CORPUS, queries=QUERIES, name=None) -> Path:
    """Write a folder as BEIR ships it."""
    (folder / "qrels").mkdir(parents=True)
    for file, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{file}.jsonl").write_text(lines, encoding="utf-8")
    for split, rows in splits.items():
        (folder / "qrels" / f"{split}.tsv").write_text(HEAD + rows)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return put(tmp_path / "facts")


def test_each_split_has_the_queries_that_its_file_judges(folder, tmp_path):
    beir = Beir(str(folder))
    beir.prepare(tmp_path)
    for place in (tmp_path, None):  # laid out once, and read for each use
        train, test, whole = (beir.load(split, place) for split in ("train", "test", "all"))
        assert list(train.queries) == ["q1", "q2", "q3"] and list(test.queries) == ["q4"]
        assert list(whole.queries) == ["q1", "q2", "q3", "q4", "q5"]
        assert {one.name for one in (train, test, whole)} == {"facts"}
        expected = read_qrels(folder / "qrels" / "test.tsv")
        pd.testing.assert_frame_equal(test.qrels, expected, check_dtype=False)
        assert (len(train.qrels), len(whole.qrels)) == (3, 5)
        assert train.counts["qrels_without_passage"] == 1 and test.counts["negative_qrels"] == 0
        assert dict(test.passages) == {
            "d1": "A title and a text",
            "d2": "no title",
            "d3": "no such field",
        }


def test_a_collection_is_that_of_its_files_one_by_one(folder):
    paths = (str(folder / "corpus.jsonl"), str(folder / "queries.jsonl"))
    for split in SPLITS:
        own = Beir(str(folder)).load(split)
        files = Files(*paths, str(folder / "qrels" / f"{split}.tsv"), judged=True).load()
        assert own.queries == files.queries and dict(own.passages) == dict(files.passages)
        pd.testing.assert_frame_equal(own.qrels, files.qrels)
        # those of the other split are not in the collection
        assert own.counts == files.counts


def test_dev_queries_are_a_file_or_a_share(folder, tmp_path):
    assert not Beir(str(folder)).has_dev
    many = put(
        tmp_path / "many",
        {"train": "".join(f"q{i}\td1\t1\n" for i in range(200)), "test": "t\td1\t1\n"},
        queries=[{"_id": q, "text": q} for q in (*(f"q{i}" for i in range(200)), "t")],
    )
    held = Beir(str(many), dev=0.2)
    train, dev = held.load("train"), held.load("dev")
    assert held.has_dev and {*train.queries, *dev.queries} == {f"q{i}" for i in range(200)}
    assert 20 < len(dev.queries) < 60 and not {*train.queries} & {*dev.queries}
    assert set(dev.qrels.query_id) == {*dev.queries}
    with_file = put(tmp_path / "with", SPLITS | {"dev": "q5\td2\t1\n"})
    assert Beir(str(with_file)).has_dev
    assert list(Beir(str(with_file)).load("dev").queries) == ["q5"]
    check_refused("data", Beir, folder=str(with_file), dev=0.2)


def test_what_is_absent_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("qrels/dev.tsv")):
        Beir(str(folder)).load("dev")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        (folder / name).rename(folder / "away")
        if name.startswith("qrels/train"):  # the other split is still there
            assert list(Beir(str(folder)).load("test").queries) == ["q4"]
            continue
        if name.startswith("qrels"):
            name = "qrels"
        with pytest.raises(FileNotFoundError, match=rf"^folder=.*{re.escape(str(folder / name))}"):
            Beir(str(folder)).check()
        if name != "qrels":
            (folder / "away").rename(folder / name)


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [
        ("corpus.jsonl", 4, '{"_id": "d4"}'),
        ("corpus.jsonl", 4, '{"_id": "d1", "text": "again"}'),
        ("queries.jsonl", 6, '{"_id": "q6", "text": ""}'),
        ("qrels/train.tsv", 5, "q9\td1\t1"),
        ("qrels/test.tsv", 4, "q4\td1"),
        ("qrels/test.tsv", 4, "q4\td1\tyes"),
        ("qrels/test.tsv", 4, "q4\td1\t1"),  # a second time
    ],
)
def test_a_bad_line_is_named(folder, tmp_path, file, line, text):
    with (folder / file).open("a") as out:
        out.write(f"{text}\n")
    with pytest.raises(FormatError, match=rf"^{re.escape(str(folder / file))}:{line}: "):
        Beir(str(folder)).load("test")


def test_packed_texts_are_read(folder):
    before = Beir(str(folder)).load("test")
    for name in ("corpus", "queries"):
        path = folder / f"{name}.jsonl"
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    after = Beir(str(folder)).load("test")
    assert dict(after.passages) == dict(before.passages) and after.queries == before.queries


def test_its_identity_is_what_is_read(folder, tmp_path):
    beir = Beir(str(folder))
    known = identity(beir), identity(beir, FILES), identity(beir, PASSAGES)
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "README.md").write_text("no part of it")
    (moved / "qrels" / "notes.txt").write_text("no part of it")
    there = Beir(str(moved))
    assert (identity(there), identity(there, FILES), identity(there, PASSAGES)) == known
    with_dev = Beir(str(moved), dev=0.5)
    assert identity(with_dev) != known[0] and identity(with_dev, FILES) == known[1]
    with (moved / "qrels" / "test.tsv").open("a") as out:
        out.write("q5\td2\t1\n")
    assert identity(there) != known[0] and identity(there, PASSAGES) == known[2]
    with (moved / "corpus.jsonl").open("a") as out:
        out.write('{"_id": "d7", "text": "more"}\n')
    assert identity(there, PASSAGES) != known[2]


def test_its_option_names_what_is_wrong(folder, tmp_path, monkeypatch):
    def check(*overrides):
        [cell] = config.cells(["data=beir", "evaluation.interpolate=false", *overrides])
        config.check(cell)

    check(f"data.folder={folder}")
    monkeypatch.chdir(folder.parent)
    check("data.folder=facts")
    with pytest.raises(ConfigError, match=r"^data\.folder=.*none"):
        check("data.folder=none")
    with pytest.raises(ConfigError, match=r"^evaluation\.interpolate=true.*data\.dev"):
        check("data.folder=facts", "evaluation.interpolate=true")
    check("data.folder=facts", "evaluation.interpolate=true", "data.dev=0.3")


@pytest.mark.skipif(not SCIFACT.exists(), reason="needs the files of SciFact")
def test_scifact_in_the_form_of_beir_is_scifact(tmp_path):
    """The same texts and judgements, written as BEIR writes them."""
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").symlink_to((SCIFACT / "corpus.jsonl").resolve())
    rows = [line.split("\t", 1) for line in (SCIFACT / "queries.tsv").read_text().splitlines()]
    lines = (json.dumps({"_id": q, "text": text}) + "\n" for q, text in rows)
    (tmp_path / "queries.jsonl").write_text("".join(lines))
    for split in ("train", "test"):
        table = read_qrels(SCIFACT / f"qrels.{split}.txt")
        text = HEAD + "".join(f"{q}\t{d}\t{r}\n" for q, d, r in table.itertuples(index=False))
        (tmp_path / "qrels" / f"{split}.tsv").write_text(text)
    beir = Beir(str(tmp_path))
    beir.prepare(tmp_path)
    train, test = beir.load("train", tmp_path), beir.load("test", tmp_path)
    assert (len(train.queries), len(test.queries), len(test.passages)) == (809, 300, 5183)
    assert not {*train.queries} & {*test.queries}
    pd.testing.assert_frame_equal(test.qrels, read_qrels(SCIFACT / "qrels.test.txt"))
