"""Rankings and qrels: tie rule, strict reading, and agreement with ir_measures."""

import gzip
import re
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import nDCG

from rdx import rankings
from rdx.rankings import (
    FormatError,
    check,
    rank,
    read_parquet,
    read_qrels,
    read_trec,
    write_parquet,
    write_trec,
)

DL19 = Path(__file__).parents[2] / ".." / "shared" / "data" / "trec-dl-2019"


def rows(ranking: pd.DataFrame) -> list[tuple[str, str, int, float]]:
    return list(ranking[["query_id", "doc_id", "rank", "score"]].itertuples(index=False, name=None))


def put(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def fails(path: Path, line: int | None, cause: str, reader=read_trec, **options) -> None:
    """Assert that reading fails with the path, the line and the cause."""
    start = f"{path}: " if line is None else f"{path}:{line}: "
    with pytest.raises(FormatError, match=f"^{re.escape(start)}.*{re.escape(cause)}"):
        reader(path, **options)


# --- rank ---


def test_rank_orders_by_score_then_doc_id_descending():
    ranking = rank(["q"] * 4, ["d10", "d9", "d2", "a"], [1.0, 1.0, 2.0, 1.0])
    # as strings "d9" > "d10" > "a"
    assert rows(ranking) == [
        ("q", "d2", 1, 2),
        ("q", "d9", 2, 1),
        ("q", "d10", 3, 1),
        ("q", "a", 4, 1),
    ]
    assert ranking.dtypes.astype(str).to_dict() == {
        "query_id": "str", "doc_id": "str", "rank": "int32", "score": "float32",
    }  # fmt: skip
    assert ranking.index.tolist() == [0, 1, 2, 3]


def test_rank_keeps_queries_in_order_of_first_appearance():
    ranking = rank(["b", "a", "b", "c", "a"], ["1", "1", "2", "1", "2"], [0, 5, 1, 2, 9])
    assert ranking["query_id"].tolist() == ["b", "b", "a", "a", "c"]
    assert ranking["doc_id"].tolist() == ["2", "1", "2", "1", "1"]
    assert ranking["rank"].tolist() == [1, 2, 1, 2, 1]


@pytest.mark.parametrize(
    "scores", [[1.00000001, 1.0, 1.0], [0.0, -0.0, 0.0]], ids=["one float32", "both zeros"]
)
def test_rank_orders_what_it_stores(scores):
    ranking = rank(["q"] * 3, ["a", "b", "c"], scores)
    assert ranking["doc_id"].tolist() == ["c", "b", "a"]  # ties
    assert ranking["score"].nunique() == 1 and not np.signbit(ranking["score"]).any()


def test_rank_compares_doc_ids_byte_by_byte():
    ids = ["é", "z", "Z", "e", "\U0001f600", "\uffff", "中"]
    ranking = rank(["q"] * len(ids), ids, [0.0] * len(ids))
    assert ranking["doc_id"].tolist() == sorted(ids, key=str.encode, reverse=True)


def test_rank_converts_ids_and_takes_series_with_any_index():
    frame = pd.DataFrame({"q": [7, 7], "d": [1, 2], "s": [0.5, 1.5]}, index=[9, 3])
    assert rows(rank(frame["q"], frame["d"], frame["s"])) == [
        ("7", "2", 1, 1.5),
        ("7", "1", 2, 0.5),
    ]


def test_rank_of_nothing_is_an_empty_ranking():
    ranking = rank([], [], [])
    assert len(ranking) == 0
    check(ranking)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_rank_refuses_scores_that_are_not_finite_float32(score):
    with pytest.raises(FormatError, match="query 'q', doc 'b': score"):
        rank(["q", "q"], ["a", "b"], [1.0, score])


def test_rank_refuses_duplicates_and_missing_ids():
    with pytest.raises(FormatError, match="query 'q' holds doc 'a'"):
        rank(["q", "p", "q"], ["a", "a", "a"], [1, 2, 3])
    with pytest.raises(FormatError, match="doc_id missing in row 1"):
        rank(["q", "q"], ["a", None], [1, 2])


# few distinct values and ids of several lengths, so that ties and prefixes are common
SCORES = st.sampled_from([-1.5, 0.0, -0.0, 0.1, 0.1 + 1e-9, 2.0, 1e-30]) | st.floats(
    -1e30, 1e30, width=64
)
IDS = st.text(alphabet="ab1é", min_size=1, max_size=3)
PAIRS = st.dictionaries(st.tuples(IDS, IDS), SCORES, min_size=1, max_size=30)


def naive(pairs: dict[tuple[str, str], float]) -> list[tuple[str, str, int, float]]:
    """Rank with plain loops."""
    ranking = []
    for query in dict.fromkeys(q for q, _ in pairs):
        docs = [(np.float32(s), d.encode()) for (q, d), s in pairs.items() if q == query]
        for place, (score, doc) in enumerate(sorted(docs, reverse=True), 1):
            ranking.append((query, doc.decode(), place, float(score)))
    return ranking


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_rank_agrees_with_loops(pairs):
    ranking = rank([q for q, _ in pairs], [d for _, d in pairs], list(pairs.values()))
    assert rows(ranking) == naive(pairs)
    check(ranking)


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.sampled_from([".run", ".run.gz", ".run.zst"]))
def test_written_ranking_is_read_back_unchanged(tmp_path_factory, pairs, ending):
    path = tmp_path_factory.mktemp("trip") / f"x{ending}"
    ranking = rank([q for q, _ in pairs], [d for _, d in pairs], list(pairs.values()))
    write_trec(ranking, path, "tag")
    for order in ("score", "rank"):
        pd.testing.assert_frame_equal(read_trec(path, order), ranking)


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_scores_survive_writing_exactly(tmp_path_factory, score):
    path = tmp_path_factory.mktemp("score") / "x.run"
    write_trec(rank(["q"], ["d"], [score]), path, "t")
    assert read_trec(path)["score"][0] == np.float32(score)


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.data())
def test_odd_white_space_changes_nothing(tmp_path_factory, pairs, data):
    """The fast parser and the line-by-line one agree."""
    folder = tmp_path_factory.mktemp("space")
    gap = st.sampled_from([" ", "\t", "  ", " \t"])
    lines = [
        [q, "Q0", d, str(place), repr(score), "tag"]
        for place, ((q, d), score) in enumerate(pairs.items())
    ]
    plain = put(folder / "plain.run", "".join(" ".join(line) + "\n" for line in lines))
    odd = ""
    for line in lines:
        line = [field + data.draw(gap) for field in line[:-1]] + line[-1:]
        odd += data.draw(st.sampled_from(["", " ", "\n"])) + "".join(line)
        odd += data.draw(st.sampled_from(["\n", "\r\n", " \n", "\n\n"]))
    pd.testing.assert_frame_equal(read_trec(plain), read_trec(put(folder / "odd.run", odd)))


# --- check ---


def good() -> pd.DataFrame:
    return rank(["q", "q", "p"], ["a", "b", "a"], [2.0, 1.0, 3.0])


def test_check_accepts_rankings_and_permutations():
    check(good())
    check(good().assign(score=np.array([1, 2, 3], np.float32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": None, "score": None}, "mine: columns missing: rank, score"),
        ({"doc_id": ["a", "a", "a"]}, "mine: query 'q' holds doc 'a'"),
        ({"score": [1.0, np.nan, 0.0]}, "mine: query 'q', doc 'b': score nan"),
        ({"rank": [1, 3, 1]}, "mine: query 'q': rank 3 where 2 is due"),
        ({"rank": [0, 1, 0]}, "mine: query 'q': rank 0 where 1 is due"),
        ({"rank": [2, 1, 1]}, "mine: query 'q': rank 2 where 1 is due"),
        ({"query_id": list("qpq"), "doc_id": list("abc")}, "mine: the rows of query 'q'"),
        ({"query_id": ["q", None, "p"]}, "mine: query_id missing in row 1"),
    ],
)
def test_check_names_what_is_wrong(change, message):
    frame = good()
    for name, values in change.items():
        frame = frame.drop(columns=name) if values is None else frame.assign(**{name: values})
    with pytest.raises(FormatError, match="^" + re.escape(message)):
        check(frame, "mine")


# --- read_trec ---

BAD_SCORES = b"nan NaN inf -Infinity 1e39 high 1,5 1_0 NULL 0x1p3".split()
BAD_RANKS = b"1.0 first 0x1 99999999999999999999".split()
RUN = "q1 Q0 d1 1 0.5 x\nq1 Q0 d2 2 0.5 x\nq2 Q0 d1 1 7 x\n"


def test_read_trec_by_score_ignores_the_rank_column(tmp_path):
    ranking = read_trec(put(tmp_path / "a.run", RUN))
    assert rows(ranking) == [("q1", "d2", 1, 0.5), ("q1", "d1", 2, 0.5), ("q2", "d1", 1, 7.0)]


def test_read_trec_by_rank_keeps_ranks_and_scores(tmp_path):
    # ranks with a gap, from 0, out of order, queries interleaved, scores against the ranks
    text = "b 0 d1 5 9.5 x\na 0 d1 1 1 x\nb 0 d2 0 8.5 x\na 0 d2 2 3 x\nb 0 d3 2 9.5 x\n"
    ranking = read_trec(put(tmp_path / "a.run", text), order="rank")
    assert rows(ranking) == [
        ("b", "d2", 1, 8.5), ("b", "d3", 2, 9.5), ("b", "d1", 3, 9.5),
        ("a", "d1", 1, 1.0), ("a", "d2", 2, 3.0),
    ]  # fmt: skip
    check(ranking)


def test_read_trec_by_rank_refuses_a_rank_given_twice(tmp_path):
    text = "q Q0 d1 1 3 x\np Q0 d1 1 3 x\n\nq Q0 d2 1 2 x\n"
    path = put(tmp_path / "a.run", text)
    fails(path, 4, "query_id 'q', rank '1'; first on line 1", order="rank")
    assert len(read_trec(path)) == 3


def test_read_trec_refuses_another_order(tmp_path):
    with pytest.raises(ValueError, match="order='best'"):
        read_trec(put(tmp_path / "a.run", RUN), order="best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        RUN.encode(),
        RUN.replace(" ", "\t").encode(),
        RUN.replace(" ", "  ").encode(),
        RUN.replace("\n", "\r\n").encode(),
        RUN.replace("\n", " \n\n").encode(),
        b"\xef\xbb\xbf" + RUN.encode(),
        RUN.rstrip().encode(),
    ],
    ids=["spaces", "tabs", "wide", "crlf", "blank lines", "bom", "no last newline"],
)
def test_read_trec_takes_any_usual_form(tmp_path, data):
    expected = rank(["q1", "q1", "q2"], ["d1", "d2", "d1"], [0.5, 0.5, 7])
    pd.testing.assert_frame_equal(read_trec(put(tmp_path / "a.run", data)), expected)
    packed = put(tmp_path / "a.run.gz", gzip.compress(data[:20]) + gzip.compress(data[20:]))
    pd.testing.assert_frame_equal(read_trec(packed), expected)
    packed = put(tmp_path / "a.run.zst", pa.compress(data, codec="zstd", asbytes=True))
    pd.testing.assert_frame_equal(read_trec(str(packed)), expected)


def test_read_trec_takes_ids_as_text(tmp_path):
    text = '007 Q0 NA 1 1e2 x\n007 Q0 "a 2 +.5 x\n007 Q0 nan 3 -1.5E-3 x\n007 Q0 0x1f 4 -2. x\n'
    ranking = read_trec(put(tmp_path / "a.run", text))
    assert rows(ranking) == [
        ("007", "NA", 1, 100.0), ("007", '"a', 2, 0.5),
        ("007", "nan", 3, float(np.float32(-1.5e-3))), ("007", "0x1f", 4, -2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"q1 0 d1 2", "4 columns: this looks like a qrels file"),
        (b"q1 Q0 d1 1 2.5", "5 columns"),
        (b"q1 Q0 d1 1 2.5 a tag", "7 columns"),
        (b"q1 Q0 d0 7 2.5 x", "query_id 'q1', doc_id 'd0'; first on line 1"),
        *((b"q1 Q0 d1 1 %s x" % score, f"score '{score.decode()}'") for score in BAD_SCORES),
        *((b"q1 Q0 d1 %s 2 x" % rank, f"rank '{rank.decode()}'") for rank in BAD_RANKS),
        (b"q1 Q0 caf\xe9 2 2 x", "doc_id b'caf\\xe9'"),
        (b"q1 Q0 d1 2 2 caf\xe9", "tag b'caf\\xe9'"),
    ],
)
@pytest.mark.parametrize("ending", ["a.run", "a.run.gz"])
def test_read_trec_names_the_line_that_is_wrong(tmp_path, line, cause, ending):
    # a good line and a blank one: the third is the bad one
    data = b"q1 Q0 d0 1 1 x\n\n" + line + b"\nq9 Q0 d9 1 1 x\n"
    path = put(tmp_path / ending, gzip.compress(data) if ending.endswith("gz") else data)
    for order in ("score", "rank"):
        fails(path, 3, cause, order=order)


@pytest.mark.parametrize("data", [b"", b"\n\n", b" \n"])
@pytest.mark.parametrize("reader", [read_trec, read_qrels])
def test_an_empty_file_is_refused(tmp_path, data, reader):
    fails(put(tmp_path / "a.txt", data), None, "empty", reader=reader)


@pytest.mark.parametrize("name", ["a.run.gz", "a.run.zst"])
def test_read_trec_refuses_damaged_compression(tmp_path, name):
    whole = gzip.compress(RUN.encode() * 50)
    whole = whole if name.endswith("gz") else pa.compress(RUN.encode() * 50, "zstd", asbytes=True)
    for data in (RUN.encode(), whole[: len(whole) // 2]):
        fails(put(tmp_path / name, data), 1, "decompressed")


def test_read_trec_leaves_a_missing_file_to_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_trec(tmp_path / "none.run")


# --- write_trec ---


def test_write_trec_writes_the_usual_lines(tmp_path):
    ranking = rank(["q", "q", "p"], ["a", "b", "a"], [0.1, 1e-7, 12345678.0])
    write_trec(ranking, tmp_path / "a.run", "bm25")
    assert (tmp_path / "a.run").read_text() == (
        "q Q0 a 1 0.1 bm25\nq Q0 b 2 1e-7 bm25\np Q0 a 1 12345678 bm25\n"
    )


def test_write_trec_gives_equal_bytes_for_equal_rankings(tmp_path):
    for name in ("a.run.gz", "b.run.gz"):
        write_trec(good(), tmp_path / name, "t")
    data = (tmp_path / "a.run.gz").read_bytes()
    assert data == (tmp_path / "b.run.gz").read_bytes()
    assert data[3:8] == bytes(5)  # flags (no file name) and time stamp
    assert gzip.decompress(data).count(b"\n") == 3


def test_write_trec_refuses_an_order_that_trec_eval_would_change(tmp_path):
    for score, doc, first in (
        ([1.0, 2.0], ["a", "b"], "a"),
        ([1.0, 1.0], ["a", "b"], "a"),
        ([1.0, 1.00000001], ["a", "b"], "a"),
    ):
        frame = rank(["q", "q"], doc, [2, 1]).assign(score=score)
        with pytest.raises(ValueError, match=f"at rank 1 of query 'q', where .* has '{first}'"):
            write_trec(frame, tmp_path / "a.run", "t")
    assert not (tmp_path / "a.run").exists()


@pytest.mark.parametrize(
    ("ids", "tag", "message"),
    [
        (("q", "d 1"), "t", "doc_id 'd 1'"),
        (("q\t", "d"), "t", "query_id 'q\\t'"),
        (("q", ""), "t", "doc_id ''"),
        (("q", "d\u00a01"), "t", "doc_id 'd\\xa01'"),
        (("q", "d"), "my tag", "tag 'my tag'"),
        (("q", "d"), "", "tag ''"),
    ],
)
def test_write_trec_refuses_what_would_not_be_read_back(tmp_path, ids, tag, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write_trec(rank([ids[0]], [ids[1]], [1.0]), tmp_path / "a.run", tag)


def test_write_trec_checks_the_ranking(tmp_path):
    with pytest.raises(FormatError, match=r"a\.run: query 'q': rank 3 where 2 is due"):
        write_trec(good().assign(rank=[1, 3, 1]), tmp_path / "a.run", "t")


# --- parquet ---


def test_parquet_keeps_values_and_types(tmp_path):
    write_parquet(good(), tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a.parquet"), good())
    teacher = pd.DataFrame(
        {
            "query_id": ["q"], "doc_id": ["d"], "teacher_rank": np.array([1], np.int32),
            "score": np.array([np.nan], np.float32), "state": ["ok"],
        },
        index=[5],
    )  # fmt: skip
    write_parquet(teacher, tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(
        read_parquet(tmp_path / "b.parquet"), teacher.reset_index(drop=True)
    )


def test_read_parquet_refuses_other_files(tmp_path):
    write_parquet(good(), tmp_path / "a.parquet")
    half = put(tmp_path / "half.parquet", (tmp_path / "a.parquet").read_bytes()[:400])
    for path in (put(tmp_path / "b.parquet", "no parquet"), half):
        fails(path, None, "parquet", reader=read_parquet)


# --- read_qrels ---


BAD_GRADES = (b"1.0", b"yes", b"2147483648")


def test_read_qrels_keeps_order_and_grades(tmp_path):
    text = "q2 0 d1 3\nq1\t0\td7  -1\n\nq2 0 d0 0\n"
    qrels = read_qrels(put(tmp_path / "a.qrels", text))
    assert qrels.values.tolist() == [["q2", "d1", 3], ["q1", "d7", -1], ["q2", "d0", 0]]
    assert qrels.dtypes.astype(str).to_dict() == {
        "query_id": "str", "doc_id": "str", "relevance": "int32",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"q1 Q0 d1 1 2.5 x", "6 columns: this looks like a run"),
        (b"q1 d1 1", "3 columns"),
        (b"q1 0 d0 0", "query_id 'q1', doc_id 'd0'; first on line 1"),
        *((b"q1 0 d1 " + grade, f"relevance '{grade.decode()}'") for grade in BAD_GRADES),
        (b"q1 0 \xff 1", "doc_id b'\\xff'"),
    ],
)
def test_read_qrels_names_the_line_that_is_wrong(tmp_path, line, cause):
    path = put(tmp_path / "a.qrels", b"q1 0 d0 1\n\n" + line + b"\nq9 0 d9 1\n")
    fails(path, 3, cause, reader=read_qrels)


# --- against other libraries ---


def test_order_is_that_of_trec_eval(tmp_path):
    """P@1, P@2, .. by trec_eval reveal its order among tied scores."""
    docs = ["d1", "d10", "d2", "D2", "é", "d02"]
    ranking = rank(["q"] * 6, docs, [1, 1, 1, 1, 1, 1])
    for place, doc in enumerate(ranking["doc_id"], 1):
        qrels = pd.DataFrame({"query_id": ["q"], "doc_id": [doc], "relevance": [1]})
        run = ranking.sample(frac=1, random_state=place)
        rr = ir_measures.pytrec_eval.calc_aggregate([ir_measures.RR], qrels, run)
        assert rr[ir_measures.RR] == pytest.approx(1 / place)


@pytest.mark.skipif(not DL19.exists(), reason="needs the TREC DL 2019 files")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("bm25-terrier", 0.4795), ("colbertv2", 0.7320), ("bm25-pyserini", 0.5058)],
)
def test_published_values_of_trec_dl_2019(tmp_path, name, expected):
    qrels = read_qrels(DL19 / "qrels.txt")
    ranking = read_trec(DL19 / "runs" / f"{name}.run")
    assert ranking["query_id"].nunique() == 43
    by_rank = read_trec(DL19 / "runs" / f"{name}.run", order="rank")
    assert set(zip(ranking["query_id"], ranking["doc_id"], strict=True)) == set(
        zip(by_rank["query_id"], by_rank["doc_id"], strict=True)
    )
    write_trec(ranking, tmp_path / "again.run.gz", name)
    again = list(ir_measures.read_trec_run(str(tmp_path / "again.run.gz")))
    for run in (ranking, again):
        value = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
        assert value == pytest.approx(expected, abs=5e-5)
    # the same through ir_measures' own readers of both files
    theirs = ir_measures.calc_aggregate(
        [nDCG @ 10],
        ir_measures.read_trec_qrels(str(DL19 / "qrels.txt")),
        ir_measures.read_trec_run(str(DL19 / "runs" / f"{name}.run")),
    )
    assert theirs[nDCG @ 10] == pytest.approx(value, abs=1e-12)


def test_line_of_counts_blank_lines(tmp_path):
    path = put(tmp_path / "a.qrels", "\nq 0 a 1\n\n\nq 0 b 1\n")
    assert [rankings.line_of(path, row) for row in (0, 1)] == [2, 5]
