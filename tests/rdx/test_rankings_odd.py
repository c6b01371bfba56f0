"""Ranks that contradict scores are counted; ids that could not be written are refused."""

import gzip
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdx import rankings
from rdx.collection import Collection
from rdx.rankings import MISRANKED, FormatError, read_trec, stream_trec, write_trec
from rdx.rankings.order import misordered
from rdx.samplers import Recorded

ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.sampled_from([0.0, 1.0, 1.5, 2.0])),
    min_size=1,
    max_size=9,
)


def naive(rows):
    """Queries with two passages of which the better rank has the lower score."""
    return sum(
        any(r < s and x < y for (_, r, x), (_, s, y) in itertools.product(own, repeat=2))
        for own in ([row for row in rows if row[0] == q] for q in {row[0] for row in rows})
    )


@given(ROWS)
def test_contradictions_are_those_of_all_pairs(rows):
    rows = sorted(rows, key=lambda row: row[0])
    starts = [0, *(i for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]), len(rows)]
    ranks = np.array([rank for _, rank, _ in rows])
    scores = np.array([score for _, _, score in rows], dtype=np.float32)
    assert misordered(ranks, scores, np.array(starts)) == naive(rows)


RUN = {
    "agrees": ["1 3", "2 2", "3 1"],
    "ties": ["1 3", "2 3", "3 1"],
    "ties by doc id ascending": ["3 1", "2 1", "1 1"],
    "no ranks": ["0 1", "0 2", "0 3"],
    "from 0, in any order": ["2 1", "0 3", "1 2"],
    "contradicts": ["1 1", "2 2", "3 3"],
    "contradicts once": ["3 1", "1 3", "2 3.5"],
}


def write(path, rows):
    lines = [f"q Q0 d{i} {row} tag{i}\n" for i, row in enumerate(rows)]  # tags are not read
    lines += [f"z Q0 d{i} {i} {-i} t\n" for i in range(2)]
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("name", RUN)
def test_scores_decide_and_ranks_that_contradict_them_are_counted(tmp_path, name):
    path = write(tmp_path / "a.run", RUN[name])
    wrong = int(name.startswith("contradicts"))
    ranking = read_trec(path)
    assert ranking.attrs[MISRANKED] == wrong
    assert sum(block.attrs[MISRANKED] for block in stream_trec(path)) == wrong
    scores = {f"d{i}": float(row.split()[1]) for i, row in enumerate(RUN[name])}
    own = ranking[ranking.query_id == "q"].doc_id.tolist()
    assert own == sorted(scores, key=lambda d: (scores[d], d), reverse=True)
    scattered = tmp_path / "b.run"
    lines = path.read_text().splitlines()
    scattered.write_text("\n".join([lines[-1], *lines[:-1]]))
    assert read_trec(scattered).attrs[MISRANKED] == wrong
    if name != "no ranks":
        assert MISRANKED not in read_trec(path, order="rank").attrs


def test_a_recorded_sampler_warns_when_it_reads_the_file(tmp_path, capsys):
    collection = Collection("c", {"q": "a", "z": "b"}, {f"d{i}": "t" for i in range(3)},
                            pd.DataFrame())  # fmt: skip
    for name, order, warned in (
        *(("contradicts", "score", True), ("contradicts", "rank", False)),
        ("agrees", "score", False),
    ):
        path = write(tmp_path / "a.run", RUN[name])
        ranking = Recorded(str(path), order).candidates(collection, 2)
        assert ("contradicts the scores" in capsys.readouterr().out) is warned
        assert MISRANKED not in ranking.attrs
        best = {"score": "d2", "rank": "d0"}[order] if name == "contradicts" else "d0"
        assert ranking.doc_id[0] == best


ODD_IDS = ["a\u00a0b", "\u2003", "a\u2028", "a\x1cb", "a\x85b", "\u3000x"]


@pytest.mark.parametrize("odd", ODD_IDS)
@pytest.mark.parametrize("column", [0, 2])
def test_what_cannot_be_written_is_not_read(tmp_path, odd, column):
    fields = ["q", "Q0", "d", "1", "2", "t"]
    fields[column] = odd
    data = ("x Q0 y 1 1 t\n" + " ".join(fields) + "\n").encode()
    for path, packed in ((tmp_path / "a.run", data), (tmp_path / "a.run.gz", gzip.compress(data))):
        path.write_bytes(packed)
        for read in (read_trec, lambda p: list(stream_trec(p))):
            with pytest.raises(FormatError, match=f"{path}:2: "):
                read(path)
    ranking = rankings.rank([fields[0]], [fields[2]], [1.0])
    with pytest.raises(ValueError, match="must be one word"):
        write_trec(ranking, tmp_path / "b.run", "t")
    table = tmp_path / "a.parquet"
    ranking.to_parquet(table)
    texts = Collection("c", {fields[0]: "a"}, {fields[2]: "b"}, pd.DataFrame())
    with pytest.raises(
        FormatError, match=f"a.parquet: 1 values of {['query_id', 'doc_id'][column // 2]}"
    ):
        Recorded(str(table)).candidates(texts, 1)


READ_IDS = ["caf\u00e9", "cafe\u0301", "\u200bd", "D-1_x.y", "Ã©", "\U0001f600"]


def test_what_is_read_can_be_written(tmp_path):
    ranking = rankings.rank(["q"] * len(READ_IDS), READ_IDS, range(len(READ_IDS)))
    write_trec(ranking, tmp_path / "a.run", "t")
    again = read_trec(tmp_path / "a.run")
    pd.testing.assert_frame_equal(again, ranking)
    # white space of Unicode in a column that is not read is no matter
    (tmp_path / "b.run").write_text("q Q0 d 1 1 my\u00a0tag\n", encoding="utf-8")
    assert read_trec(tmp_path / "b.run").doc_id.tolist() == ["d"]


def test_unknown_passages_in_another_spelling_are_named(tmp_path, capsys):
    path = tmp_path / "a.run"
    path.write_text("q Q0 12 1 3 t\nq Q0 D13 2 2 t\nq Q0 x 3 1 t\n")
    collection = Collection("c", {"q": "a"}, {"D12": "t", "D13": "t"}, pd.DataFrame())
    with pytest.raises(FormatError, match=r"2 such passages.*1 of them.*'12' for 'D12'"):
        Recorded(str(path)).candidates(collection, 3)
    kept = Recorded(str(path), missing="drop").candidates(collection, 3)
    assert kept.doc_id.tolist() == ["D13"] and kept.attrs == {"passages_missing": (2, 3)}
    assert "'12' for 'D12'" in capsys.readouterr().out
