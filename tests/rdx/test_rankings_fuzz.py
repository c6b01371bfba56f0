"""Any file is read like a naive reader reads it, or refused with the file and a line."""

import gzip
import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdx import rankings
from rdx.rankings import FormatError, read_qrels, read_trec, stream_trec, text

# few ids, so that queries come again and pairs repeat; mojibake is an id like any other
IDS = st.sampled_from(["q1", "2", "Ã©", "doc_10", "0x1f", "a-very-long-document-id", "nan"])
ODD_IDS = st.sampled_from(["a b", "a\0b", "\udcff", "", "\x1c", "\xa0x"])
NUMBERS = st.sampled_from(["1", "0.5", "-2.", "1e-3", "+7", "0", "-0", "3.00000001", ".5"])
ODD_NUMBERS = st.sampled_from(["1e400", "-1e39", "nan", "inf", "0x10", "1_0", "1,5", "", "ten"])
RANKS = st.sampled_from(["1", "-3", "0", "007", "+2", "12"])
ODD_RANKS = st.sampled_from(["1.0", "0x1", "first", "99999999999999999999", ""])
GAPS = st.sampled_from([" ", "\t", "  ", " \t"])
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", " \n"])
WORDS = st.sampled_from(["Q0", "0", "tag", "Ã¼"])
RUN = (IDS, WORDS, IDS, RANKS, NUMBERS, WORDS)
ODD_RUN = (IDS | ODD_IDS, WORDS, IDS | ODD_IDS, RANKS | ODD_RANKS, NUMBERS | ODD_NUMBERS, WORDS)
QRELS = (IDS, WORDS, IDS, RANKS)
ODD_QRELS = (IDS | ODD_IDS, WORDS, IDS | ODD_IDS, RANKS | ODD_RANKS)


@st.composite
def files(draw, columns, least=0):
    """Bytes of a file: lines of fields, with varied white space, in one of four packings."""
    lines = draw(st.lists(st.tuples(*columns), min_size=least, max_size=8))
    gap, end = draw(GAPS), draw(ENDS)
    text = "".join(gap.join(line) + end for line in lines)
    data = text.encode(errors="surrogateescape")
    data = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + data
    return draw(st.sampled_from([data, data.rstrip(b"\n")]))


def put(folder: Path, name: str, data: bytes) -> Path:
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    (folder / name).write_bytes(data)
    return folder / name


NAMES = st.sampled_from(["a.run", "a.run.gz", "a.run.zst"])


def lines_of(data: bytes, width: int) -> list[list[str]]:
    """Fields of each line that has any; ValueError for what is no such file."""
    found = []
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if fields := [field.decode() for field in line.split()]:
            if len(fields) != width or b"\0" in line:
                raise ValueError
            if any(field.split() != [field] for field in (fields[0], fields[2])):
                raise ValueError  # white space of Unicode in an id
            found.append(fields)
    if not found:
        raise ValueError
    return found


def integer(field: str, bits: int) -> int:
    value = int(field)
    if not re.fullmatch("[+-]?[0-9]+", field) or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError
    return value


def naive_run(data: bytes, order: str) -> list[tuple[str, str, int, float]]:
    """A run read with plain loops; ValueError where it breaks the format."""
    lists: dict[str, dict[str, tuple[int, float]]] = {}
    for query, _, doc, rank, number, _ in lines_of(data, 6):
        with np.errstate(over="ignore"):
            score = float(np.float32(float(number))) + 0.0
        if not math.isfinite(score) or "_" in number or doc in lists.get(query, {}):
            raise ValueError
        lists.setdefault(query, {})[doc] = integer(rank, 64), score
    found = []
    for query, docs in lists.items():
        if order == "rank" and len({rank for rank, _ in docs.values()}) < len(docs):
            raise ValueError
        by_doc = sorted(docs, key=str.encode, reverse=True)
        by_key = sorted(by_doc, key=lambda d: docs[d][0] if order == "rank" else -docs[d][1])
        found += [(query, doc, place, docs[doc][1]) for place, doc in enumerate(by_key, 1)]
    return found


def rows(ranking: pd.DataFrame) -> list[tuple[str, str, int, float]]:
    return list(ranking[["query_id", "doc_id", "rank", "score"]].itertuples(index=False, name=None))


def attempt(read, path: Path):
    """What a reader returns, or None for a FormatError that names the file and a line."""
    try:
        return read()
    except FormatError as error:
        empty = f"{path}: the file is empty"
        assert re.match(re.escape(str(path)) + r":[0-9]+: ", str(error)) or str(error) == empty
        return None


def expected(read):
    try:
        return read()
    except ValueError:
        return None


@settings(max_examples=150, deadline=None)
@given(files(RUN) | files(ODD_RUN), NAMES, st.sampled_from(["score", "rank"]))
def test_runs_are_read_as_by_loops_or_refused_with_a_line(tmp_path_factory, data, name, order):
    path = put(tmp_path_factory.mktemp("run"), name, data)
    wanted = expected(lambda: naive_run(data, order))
    assert attempt(lambda: rows(read_trec(path, order)), path) == wanted
    # the same as a stream, if the lists are in one piece
    queries = [line[0] for line in lines_of(data, 6)] if wanted else []
    pieces = sum(a != b for a, b in zip(queries, [None, *queries], strict=False))
    streamed = attempt(lambda: rows(pd.concat(stream_trec(path, order))), path)
    assert streamed == (wanted if pieces == len(set(queries)) else None)


@settings(max_examples=100, deadline=None)
@given(files(QRELS) | files(ODD_QRELS), NAMES)
def test_qrels_are_read_as_by_loops_or_refused_with_a_line(tmp_path_factory, data, name):
    def naive() -> list[list]:
        found = [[q, d, integer(grade, 32)] for q, _, d, grade in lines_of(data, 4)]
        if len({(q, d) for q, d, _ in found}) < len(found):
            raise ValueError
        return found

    path = put(tmp_path_factory.mktemp("qrels"), name, data)
    assert attempt(lambda: read_qrels(path).to_numpy().tolist(), path) == expected(naive)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["a.run", "a.run.gz", "a.run.zst"]), st.booleans())
def test_any_bytes_are_refused_with_a_line(tmp_path_factory, data, name, packed):
    path = tmp_path_factory.mktemp("bytes") / name
    put(path.parent, name, data) if packed else path.write_bytes(data)
    for read in (read_trec, read_qrels, lambda p: list(stream_trec(p))):
        attempt(lambda read=read: read(path), path)


@pytest.mark.parametrize("name", ["a.run.gz", "a.run.zst"])
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    data = b"".join(b"q%d Q0 d%d 1 %d x\n" % (i, 7919 * i, -i) for i in range(40))
    whole = put(tmp_path, name, data).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(FormatError, match=re.escape(str(tmp_path / name)) + ":"):
            read_trec(tmp_path / name)


@pytest.mark.parametrize("block", [30, 64, 1000])
@pytest.mark.parametrize("order", ["score", "rank"])
def test_blocks_change_nothing(tmp_path, monkeypatch, block, order):
    """Wherever blocks are cut: the joined stream is the ranking, and lines are counted on."""
    monkeypatch.setattr(text, "BLOCK", block)
    monkeypatch.setattr(text, "_PIECE", max(block // 3, 1))
    draw = np.random.default_rng(block)
    lines = []
    for query in range(12):
        for rank in draw.permutation(int(draw.integers(1, 9))):
            lines.append(f"q{query} Q0 d{rank} {rank} {draw.integers(3)} x\n")
            lines += ["\r\n"] * int(draw.integers(2))
    data = ("\n" + "".join(lines)).encode()
    for name in ("a.run", "a.run.gz", "a.run.zst"):
        path = put(tmp_path, name, data)
        parts = list(stream_trec(path, order))
        assert rows(pd.concat(parts)) == naive_run(data, order) == rows(read_trec(path, order))
        assert all(part.index.tolist() == list(range(len(part))) for part in parts)
        ids = [set(part.query_id) for part in parts]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 12
        bad = put(tmp_path, "bad" + name[1:], data + b"q12 Q0 d1 1 high x\n")
        line = data.count(b"\n") + 1
        with pytest.raises(FormatError, match=f":{line}: score 'high' is not a number"):
            list(stream_trec(bad, order))
        again = put(tmp_path, "again" + name[1:], data + b"q0 Q0 d99 99 1 x\n")
        with pytest.raises(FormatError, match=f":{line}: query 'q0' comes again after another"):
            list(stream_trec(again, order))
        assert len(read_trec(again, order)) == len(naive_run(data, order)) + 1
        twice = put(tmp_path, "twice" + name[1:], data + b"q11 Q0 d0 99 1 x\n")
        with pytest.raises(FormatError, match=f":{line}: duplicate row: query_id 'q11'"):
            list(stream_trec(twice, order))


def test_a_stream_holds_a_few_blocks_however_long_the_file(tmp_path, monkeypatch):
    """What Arrow holds while blocks go by stays below what a few of the 70 blocks take."""
    monkeypatch.setattr(text, "BLOCK", 2**14)
    monkeypatch.setattr(text, "_PIECE", 2**14)
    path = tmp_path / "a.run"
    line = "q{} Q0 doc{} {} {} x\n"
    path.write_text(
        "".join(line.format(q, 31 * i + q, i, -i) for q in range(3000) for i in range(20))
    )
    assert path.stat().st_size > 70 * 2**14
    start, held = pa.total_allocated_bytes(), []
    for _ in stream_trec(path):
        held.append(pa.total_allocated_bytes() - start)
    assert max(held) < 20 * 2**14


def test_a_stream_refuses_a_missing_file_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        stream_trec(tmp_path / "none.run")
    with pytest.raises(ValueError, match="order='best': expected 'score' or 'rank'"):
        stream_trec(tmp_path / "none.run", "best")  # type: ignore[arg-type]


def test_repeats_are_found_among_lists_of_any_lengths(tmp_path):
    """Hashes are compared in three ways, by the lengths of the lists."""
    for lengths in ([3, 3, 3], [3, 2, 3], [1] * 20 + [30]):
        for doc in ("d{}", "a-document-id-of-more-than-sixteen-bytes-{}"):
            lines = [
                f"q{q} Q0 {doc.format(i)} {i} {-i} x\n"
                for q, length in enumerate(lengths)
                for i in range(length)
            ]
            path = tmp_path / "a.run"
            path.write_text("".join(lines))
            assert len(read_trec(path)) == len(lines)
            path.write_text("".join([*lines, lines[-1]]))
            with pytest.raises(FormatError, match=rf":{len(lines) + 1}: duplicate row"):
                read_trec(path)


def test_content_is_the_same_however_a_ranking_is_written(tmp_path):
    path = tmp_path / "a.run"
    path.write_text("b Q0 d1 1 9 x\nb Q0 d2 2 8 x\na Q0 d1 1 3 x\n")
    other = tmp_path / "b.run"
    other.write_text("a Q0 d1 7 0.5 other\n\nb Q0 d1 3 200 other\nb Q0 d2 4 100 other\n")
    found = rankings.content(read_trec(path))
    # by hand: sha256 of "b\nd1\nd2" plus sha256 of "a\nd1", modulo 2^256
    parts = [int(hashlib.sha256(t).hexdigest(), 16) for t in (b"b\nd1\nd2", b"a\nd1")]
    assert found == rankings.Content(2, 3, 1, 2, f"{sum(parts) % 2**256:064x}")
    assert rankings.content(stream_trec(other)) == found
    for change in ("a Q0 d2 1 3 x\n", "c Q0 d1 1 3 x\n", "", "a Q0 d1 1 3 x\na Q0 d2 2 1 x\n"):
        path.write_text("b Q0 d1 1 9 x\nb Q0 d2 2 8 x\n" + change)
        assert rankings.content(stream_trec(path)).permutation_hash != found.permutation_hash
    path.write_text("b Q0 d2 1 9 x\nb Q0 d1 2 8 x\na Q0 d1 1 3 x\n")
    assert rankings.content(stream_trec(path)).permutation_hash != found.permutation_hash
    assert rankings.content([]).queries == 0
