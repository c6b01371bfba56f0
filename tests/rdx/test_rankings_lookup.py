"""Rankings in parquet files, looked up query by query."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from rdx import rankings
from rdx.rankings import FormatError, StoredRanking, lookup, order, read_parquet, store_ranking


def frame(lists: dict[str, list[str]], **columns) -> pd.DataFrame:
    """Lists as a frame; further columns as given."""
    pairs = [(q, d) for q, docs in lists.items() for d in docs]
    ids = pd.DataFrame(pairs, columns=["query_id", "doc_id"], dtype="str")
    return ids.assign(**columns)


def many(queries: int, length: int) -> pd.DataFrame:
    """Lists of one length, each with doc ids of its own."""
    return frame({f"q{i}": [f"d{i}-{j}" for j in range(length)] for i in range(queries)})


LISTS = {"b": ["d1", "d2", "d3"], "a": ["d2"], "é": ["d3", "d1"]}


def test_lists_are_looked_up(tmp_path):
    """By hand: lengths, order of queries, rows and further columns with their types."""
    table = frame(
        LISTS,
        teacher_rank=np.array([1, 2, 3, 1, 1, 2], np.int32),
        score=np.array([3, 2, 1, 9, 8, np.nan], np.float32),
        state=["ok", "ok", "ok", "repaired", "ok", "ok"],
    )
    stored = store_ranking(table, tmp_path / "a.parquet")
    assert stored.queries == ["b", "a", "é"]
    assert len(stored) == 3
    assert "a" in stored and "c" not in stored and 3 not in stored
    assert stored.of(["a"]).to_dict("list") == {
        "query_id": ["a"], "doc_id": ["d2"], "teacher_rank": [1], "score": [9.0],
        "state": ["repaired"],
    }  # fmt: skip
    assert stored.of(["é"]).score.isna().tolist() == [False, True]
    picked = stored.of(["é", "b", "é"])
    assert picked.doc_id.tolist() == ["d3", "d1", "d1", "d2", "d3", "d3", "d1"]
    assert picked.index.tolist() == list(range(7))
    assert picked.dtypes.to_dict() == table.dtypes.to_dict()
    assert len(stored.of([])) == 0 and list(stored.of([])) == list(table)
    pd.testing.assert_frame_equal(pd.concat(stored.blocks()), table)
    pd.testing.assert_frame_equal(read_parquet(stored.path), table)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.randoms(), st.integers(1, 50))
def test_any_lists_come_back(tmp_path_factory, lengths, random, rows):
    """Against a dict; whatever the row groups and the blocks they were written from."""
    lists = {f"q{i}": [f"d{i}-{j}" for j in range(n)] for i, n in enumerate(lengths)}
    parts = [frame({q: docs}) for q, docs in lists.items()]
    path = tmp_path_factory.mktemp("stored") / "a.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "GROUP_ROWS", rows)
        stored = store_ranking(iter(parts), path)
        whole = path.read_bytes()
        store_ranking(pd.concat(parts), path)
    assert path.read_bytes() == whole
    asked = random.choices(list(lists), k=5)
    assert stored.of(asked).doc_id.tolist() == [d for q in asked for d in lists[q]]
    assert all(stored.of([q]).doc_id.tolist() == lists[q] for q in asked)
    assert [set(b.query_id) <= set(lists) for b in stored.blocks()] == [True]


def test_lists_run_over_row_groups_of_other_files(tmp_path):
    """Files of other programs have no index and cut lists anywhere."""
    table = frame({"a": list("uvwxyz"), "b": ["u"], "c": list("xyz")})
    for rows in range(1, 11):
        parquet.write_table(
            pa.Table.from_pandas(table), tmp_path / "a.parquet", row_group_size=rows
        )
        stored = StoredRanking(tmp_path / "a.parquet", memory=0)
        assert stored.queries == ["a", "b", "c"]
        assert stored.of(["a"]).doc_id.tolist() == list("uvwxyz")
        assert stored.of(["c", "a"]).doc_id.tolist() == list("xyzuvwxyz")


def test_decoded_row_groups_are_kept_up_to_the_memory(tmp_path, monkeypatch):
    """Least recently used go first; lists are the same whatever is kept."""
    monkeypatch.setattr(lookup, "GROUP_ROWS", 10)
    path = store_ranking(many(8, 10), tmp_path / "a.parquet").path

    def decoded(memory: int, queries: str) -> list[int]:
        stored = StoredRanking(path, memory)
        for i in queries:
            assert stored.of([f"q{i}"]).doc_id.tolist() == [f"d{i}-{j}" for j in range(10)]
        return list(stored._decoded)

    probe = StoredRanking(path)
    probe.of(["q0"])
    group = probe._bytes
    assert decoded(2**20, "01230") == [1, 2, 3, 0]
    assert decoded(0, "0123") == [3]
    assert decoded(2 * group, "0102") == [0, 2]


def test_the_content_is_that_of_the_frame(tmp_path):
    """It depends on lists, not on how they are stored or on the order of queries."""
    table = frame(LISTS)
    path = store_ranking(table, tmp_path / "a.parquet").path
    turned = frame(dict(reversed(LISTS.items())), score=0.5)
    store_ranking(turned, tmp_path / "b.parquet")
    expected = rankings.content(table)
    assert (expected.queries, expected.rows) == (3, 6)
    for other in (path, tmp_path / "b.parquet"):
        assert rankings.content(StoredRanking(other).blocks()) == expected
    changed = frame({**LISTS, "b": ["d1", "d3", "d2"]})
    assert rankings.content(changed).permutation_hash != expected.permutation_hash


@settings(max_examples=40, deadline=None)
@given(st.permutations(list(LISTS)), st.permutations(range(3)))
def test_the_permutation_hash_sees_lists_and_nothing_else(queries, places):
    same = frame({q: LISTS[q] for q in queries}, rank=7)
    assert (
        rankings.content(same).permutation_hash == rankings.content(frame(LISTS)).permutation_hash
    )
    moved = frame({**LISTS, "b": [LISTS["b"][i] for i in places]})
    equal = rankings.content(moved).permutation_hash == rankings.content(same).permutation_hash
    assert equal == (places == [0, 1, 2])


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "there is no list to store"),
        ([frame({})], "there is no list to store"),
        ([frame(LISTS).drop(columns="doc_id")], "columns missing: doc_id"),
        ([frame(LISTS).drop(columns="query_id")], "columns missing: query_id"),
        ([frame({"a": ["d1", None]})], "doc_id missing in row 1"),
        ([frame({"a": ["d1", "d2", "d1"]})], "query 'a' holds doc 'd1' more than once"),
        ([frame({"a": ["d1"]}), frame({"a": ["d2"]})], "rows of query 'a' are not contiguous"),
        (
            [pd.concat([frame({q: [d]}) for q, d in [("a", "x"), ("b", "x"), ("a", "y")]])],
            "rows of query 'a' are not contiguous",
        ),
    ],
)
def test_what_is_no_ranking_is_not_stored(tmp_path, blocks, message):
    """Neither the file nor a part of it is left, and an earlier file stays."""
    path = tmp_path / "a.parquet"
    with pytest.raises(FormatError, match=re.escape(str(path)) + ".*" + message):
        store_ranking(iter(blocks), path)
    assert list(tmp_path.iterdir()) == []
    store_ranking(frame(LISTS), path)
    with pytest.raises(FormatError):
        store_ranking(iter(blocks), path)
    assert StoredRanking(path).queries == ["b", "a", "é"]
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_queries_are_named(tmp_path):
    stored = store_ranking(frame(LISTS), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match="a.parquet: query 'z'"):
        stored.of(["a", "z"])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    frame(LISTS).rename(columns={"query_id": "qid"}).to_parquet(path)
    with pytest.raises(FormatError, match="columns missing: query_id"):
        StoredRanking(path)
    pd.concat([frame({"a": ["x"]}), frame({"b": ["x"]}), frame({"a": ["y"]})]).to_parquet(path)
    with pytest.raises(FormatError, match="rows of query 'a' are not contiguous"):
        StoredRanking(path)


def test_damaged_files_are_refused(tmp_path):
    """Cut anywhere: no file. Pages overwritten, the footer whole: refused at the look-up."""
    path = store_ranking(many(20, 50), tmp_path / "a.parquet").path
    whole = path.read_bytes()
    for length in (0, 3, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for read in (StoredRanking, read_parquet):
            with pytest.raises(FormatError, match=re.escape(str(path))):
                read(path)
    path.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    with pytest.raises(FormatError, match=re.escape(str(path))):
        StoredRanking(path).of(["q0"])
    with pytest.raises(FormatError, match=re.escape(str(path))):
        read_parquet(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_parquet(tmp_path / "none.parquet")
    with pytest.raises((FormatError, FileNotFoundError), match=r"none\.parquet"):
        StoredRanking(tmp_path / "none.parquet")


def test_the_index_is_stored(tmp_path):
    """Opening does not decode the ids: the footer holds the lengths."""
    path = store_ranking(frame(LISTS), tmp_path / "a.parquet").path
    index = parquet.read_metadata(path).metadata[b"rdx.lists"]
    assert json.loads(index) == {"b": 3, "a": 1, "é": 2}


@pytest.mark.parametrize("dtypes", [("str", "str"), (object, "str"), (object, object)])
@pytest.mark.parametrize("rows", [0, 1, 60])
@pytest.mark.parametrize("clashing", [False, True])
def test_a_join_is_the_merge_of_the_ids(monkeypatch, dtypes, rows, clashing):
    """Same rows, order, columns and types, even where all hashes agree; repeats multiply."""
    if clashing:
        monkeypatch.setattr(order, "_hashes", lambda ids: np.zeros(len(ids), np.uint64))
    draw = np.random.default_rng(rows)
    pair = ["query_id", "doc_id"]

    def side(name: str, kind) -> pd.DataFrame:
        ids = [[f"{c}{i}" for i in draw.integers(0, 9, rows)] for c in ("q", "long-doc-id-")]
        table = pd.DataFrame(dict(zip(pair, ids, strict=True)), dtype="str").astype(kind)
        return table.assign(**{name: draw.random(rows)})

    left, right = side("score", dtypes[0]), side("teacher_rank", dtypes[1])
    right.index = right.index[::-1]
    expected = left.merge(right, on=pair)
    assert rows < 60 or 0 < len(expected)
    pd.testing.assert_frame_equal(rankings.joined(left, right), expected)
