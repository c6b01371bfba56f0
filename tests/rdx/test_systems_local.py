"""Runs measured on local copies of a catalogue's collections."""

import pytest

from rdx import systems
from rdx.config import ConfigError


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n{"_id": "d2", "text": "b"}\n')
    (folder / "queries.tsv").write_text("q1\triver\nq2\tnot judged\n")
    (folder / "qrels.txt").write_text("q1 0 d2 1\n")
    (folder / "first.run").write_text("q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\n")
    return folder


def chosen(copy, *names):
    return systems.compose(["trec_dl", *names], str(copy / "first.run"), (), copy)


def test_a_copy_keeps_the_name_and_has_a_digest_of_its_own(copy):
    testbed = chosen(copy, "dl19_bm25", "dl20_bm25")
    assert testbed.names == ["dl19_bm25", "dl20_bm25"] and testbed.local
    tests = testbed.tests("dl19_bm25")
    collection, first = tests.collection, tests.first_stage
    assert collection.name == "msmarco-passage/trec-dl-2019/judged"
    assert list(collection.queries) == ["q1"] and first.doc_id.tolist() == ["d1", "d2"]
    assert tests.baselines.systems["first_stage"] is first
    assert set(tests.baselines.table.query_id) == {"q1"}
    assert testbed.setting("dl19_bm25", collection).passages_of_copy == 2
    assert testbed.tests("dl19_bm25") is tests  # read once
    node = testbed.job.cell.cfg["evaluation"]["collections"]["dl19_bm25"]["data"]
    assert node["_target_"] == "rdx.data.Files" and "id" not in node


def test_each_collection_may_have_a_folder_of_its_own(copy):
    own = copy / "dl20_bm25"
    own.mkdir()
    for name in ("corpus.jsonl", "qrels.txt"):
        (own / name).write_text((copy / name).read_text())
    (own / "queries.jsonl").write_text('{"_id": "q1", "text": "other"}\n')
    testbed = chosen(copy, "dl19_bm25", "dl20_bm25")
    texts = [testbed.tests(name).collection.queries["q1"] for name in testbed.names]
    assert texts == ["river", "other"]


def test_a_folder_must_hold_one_file_of_each_kind(copy):
    (copy / "qrels.txt").rename(copy / "judgements.txt")
    with pytest.raises(FileNotFoundError, match="qrels"):
        chosen(copy, "dl19_bm25")
    for name in ("qrels.txt", "qrels.tsv"):
        (copy / name).write_text("q1 0 d2 1\n")
    with pytest.raises(FileNotFoundError, match=r"qrels\.tsv, qrels\.txt"):
        chosen(copy, "dl19_bm25")
    with pytest.raises(ConfigError, match="nonsense"):
        chosen(copy, "nonsense")
