"""Read and write TREC runs and qrels."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from rdx.rankings.ids import one_word
from rdx.rankings.order import may_repeat, misordered, order_within
from rdx.rankings.table import (
    FormatError,
    check,
    float32,
    query_starts,
    trec_eval_order,
)
from rdx.rankings.text import (
    blocks,
    first_fields,
    in_threads,
    last_query,
    line_in,
    line_of,
    parse,
    tables,
)

Order = Literal["score", "rank"]

_RUN = {
    "query_id": "text",
    "iteration": "text",
    "doc_id": "text",
    "rank": "integer",
    "score": "number",
    "tag": "text",
}
_QRELS = {"query_id": "text", "iteration": "text", "doc_id": "text", "relevance": "integer"}
_BEIR = {name: kind for name, kind in _QRELS.items() if name != "iteration"}
# The names of BEIR's columns, and those that exports of it give them.
_BEIR_NAMES = (
    ("queryid", "qid", "query"),
    ("corpusid", "docid", "docno", "pid", "passageid"),
    ("score", "relevance", "rel", "label", "grade"),
)
MISRANKED = "queries_misranked"  # in `attrs` of a ranking that was read by its scores


def read_trec(path: str | Path, order: Order = "score") -> pd.DataFrame:
    """Read a ranking from a TREC run file.

    Parameters
    ----------
    path
        Six columns a line, separated by spaces or tabs: query id, a constant, doc id, rank,
        score, tag. `.gz` and `.zst` are decompressed; blank lines are skipped. Tags are not
        read.
    order
        "score": score descending, then doc id descending, as trec_eval does; the rank column
        decides nothing. "rank": the rank column decides and must be distinct within a query; for
        permutations whose scores are a copy of another ranking's.

    Returns
    -------
    pandas.DataFrame
        A ranking; ranks are counted anew from 1, scores are those of the file. With
        order="score", `attrs["queries_misranked"]` tells how many queries have a passage that the
        rank column puts above one of a higher score (ties contradict nothing, nor do equal ranks).

    Raises
    ------
    FormatError
        On anything else than such lines, an id that holds white space of Unicode (no run could be
        written with it), a duplicate (query, doc) pair, a score that is not a finite float32, a
        rank that is not an integer, or a file without lines.
    """
    _check_order(order)
    frames = []
    seen: set[str] = set()
    for frame, queries in _frames(path, order):
        if len(set(queries)) < len(queries) or not seen.isdisjoint(queries):
            return _scattered(path, order)
        seen.update(queries)
        frames.append(frame)
    ranking = pd.concat(frames, ignore_index=True)
    if order == "score":
        ranking.attrs = {MISRANKED: sum(frame.attrs[MISRANKED] for frame in frames)}
    return ranking


def stream_trec(path: str | Path, order: Order = "score") -> Iterator[pd.DataFrame]:
    """Read a TREC run file as a stream of rankings, each of some whole queries.

    Reads and refuses what `read_trec` does, and the blocks joined are what it returns, but only a
    block of the file, the longest list, and the ids of the queries so far are held.

    Parameters
    ----------
    path, order
        As of `read_trec`. The rows of a query must be contiguous in the file.

    Yields
    ------
    pandas.DataFrame
        A ranking of at least one query; its index starts at 0, `attrs` are as of `read_trec`.

    Raises
    ------
    FormatError
        As `read_trec`, and if a query comes again after another one.
    """
    _check_order(order)
    if not Path(path).is_file():
        # now, not when the first block is asked for
        raise FileNotFoundError(f"{path}: no such file")
    return _stream(path, order)


def _stream(path: str | Path, order: Order) -> Iterator[pd.DataFrame]:
    done = 0
    seen: set[str] = set()
    for frame, queries in _frames(path, order):
        if len(set(queries)) < len(queries) or not seen.isdisjoint(queries):
            raise _split(frame["query_id"], seen, path, done)
        seen.update(queries)
        yield frame
        done += len(frame)


def write_trec(ranking: pd.DataFrame, path: str | Path, tag: str) -> None:
    """Write a ranking as a TREC run file that trec_eval orders just as the frame does.

    Parameters
    ----------
    ranking
        The ranking. Scores are written with the digits that restore the float32.
    path
        Where to write; compressed if the name ends in `.gz` or `.zst`. Equal rankings give
        equal bytes.
    tag
        Last column; one word.

    Raises
    ------
    FormatError
        If the frame is no ranking (see `check`).
    ValueError
        If an id or the tag is empty or has white space in it, or if the ranks disagree with
        (score descending, doc id descending).
    """
    path = Path(path)
    check(ranking, str(path))
    for name, words in (
        ("tag", [tag]),
        ("query_id", ranking["query_id"].unique()),
        ("doc_id", ranking["doc_id"].unique()),
    ):
        for word in words:
            if not one_word(word):
                raise ValueError(f"{path}: {name} {word!r} must be one word")
    scores = float32(ranking["score"])
    frame = pd.DataFrame(
        {"query_id": ranking["query_id"], "doc_id": ranking["doc_id"], "score": scores}
    )
    moved = np.flatnonzero(trec_eval_order(frame) != np.arange(len(frame)))
    if moved.size:
        row = ranking.iloc[moved[0]]
        raise ValueError(
            f"{path}: trec_eval would put another passage at rank {row['rank']} of query "
            f"{row['query_id']!r}, where the ranking has {row['doc_id']!r}: ranks must follow "
            "score descending, then doc_id descending"
        )
    # Arrow prints a float32 with the fewest digits that restore it
    printed = pa.array(scores).cast(pa.string()).to_pylist()
    rows = zip(ranking["query_id"], ranking["doc_id"], ranking["rank"], printed, strict=True)
    data = "".join(f"{q} Q0 {d} {place} {score} {tag}\n" for q, d, place, score in rows).encode()
    if path.suffix == ".gz":
        with (
            path.open("wb") as raw,
            # no file name and no time in the header: equal rankings give equal bytes
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        ):
            packed.write(data)
    elif path.suffix == ".zst":
        path.write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    else:
        path.write_bytes(data)


def read_qrels(path: str | Path) -> pd.DataFrame:
    """Read relevance judgements in the format of TREC or of BEIR.

    Parameters
    ----------
    path
        Four columns a line, separated by spaces or tabs: query id, a constant, doc id,
        relevance; or, below a first line that names them (BEIR: query-id, corpus-id, score), three:
        query id, doc id, relevance. `.gz` and `.zst` are decompressed; blank lines are skipped.

    Returns
    -------
    pandas.DataFrame
        `query_id` (str), `doc_id` (str), `relevance` (int32), in the order of the file.

    Raises
    ------
    FormatError
        On anything else than such lines, an id that holds white space of Unicode, a duplicate
        (query, doc) pair, a relevance that is not an integer, or a file without lines.
    """
    named = has_header(path)
    frame = pa.concat_tables(tables(path, _BEIR if named else _QRELS, header=named)).to_pandas()
    pair = ["query_id", "doc_id"]
    _refuse_repeats(frame, pair, path, lambda row: line_of(path, row + named), "duplicate row")
    return frame.astype({"relevance": "int32"})


def has_header(path: str | Path) -> bool:
    """Whether a file of judgements has three columns that its first line names, as BEIR's have.

    Three columns without names are none: they may be (query, positive, negative).
    """
    fields = [field.lower().translate(None, b"-_").decode(errors="replace")
              for field in first_fields(path)]  # fmt: skip
    return len(fields) == len(_BEIR_NAMES) and all(
        field in names for field, names in zip(fields, _BEIR_NAMES, strict=True)
    )


def _check_order(order: str) -> None:
    if order not in ("score", "rank"):
        raise ValueError(f"order={order!r}: expected 'score' or 'rank'")


def _frames(path: str | Path, order: Order) -> Iterator[tuple[pd.DataFrame, list[str]]]:
    """Yield rankings, each with its query ids by stretch: twice in it where rows are scattered.

    All but the cutting of blocks is done in threads, since Arrow and numpy let go of Python's lock.
    """

    def ranked(part: tuple[int, bytes]) -> tuple[pd.DataFrame, list[str]]:
        table = parse(part, _RUN, path)
        if not table.num_rows:
            return pd.DataFrame(), []
        starts = query_starts(table["query_id"])
        queries = table["query_id"].take(starts[:-1]).to_pylist()
        return _ranked(table, starts, order, path, lambda row: line_in(part, row)), queries

    empty = True
    for frame, queries in in_threads(ranked, blocks(path, last_query)):
        if queries:
            empty = False
            yield frame, queries
    if empty:
        raise FormatError(f"{path}: the file is empty")


def _scattered(path: str | Path, order: Order) -> pd.DataFrame:
    """Read a run in which the rows of a query are not contiguous."""
    table = pa.concat_tables(tables(path, _RUN)).combine_chunks()
    codes, _ = pd.factorize(table["query_id"].to_pandas())
    rows = np.argsort(codes, kind="stable")
    table = table.take(rows).combine_chunks()
    starts = query_starts(table["query_id"])
    return _ranked(table, starts, order, path, lambda row: line_of(path, int(rows[row])))


def _ranked(
    table: pa.Table,
    starts: np.ndarray,
    order: Order,
    path: str | Path,
    line: Callable[[int], int],
) -> pd.DataFrame:
    """Put the lists of a table into order.

    Parameters
    ----------
    table
        Whole queries; one chunk a column.
    starts
        As of `query_starts`.
    order, path
        As of `read_trec`.
    line
        Line of the file that a row comes from.
    """
    docs = table["doc_id"].chunk(0)
    if may_repeat(starts, docs):
        _refuse_repeats(table.to_pandas(), ["query_id", "doc_id"], path, line, "duplicate row")
    scores = table["score"].chunk(0).to_numpy()
    ranks = table["rank"].chunk(0).to_numpy()
    wrong = misordered(ranks, scores, starts) if order == "score" else 0
    key = -scores if order == "score" else ranks
    moved = order_within(key, starts, docs)
    if order == "rank":
        ranks = key if moved is None else key[moved]
        again = ranks[1:] == ranks[:-1]
        again[starts[1:-1] - 1] = False
        if again.any():
            _refuse_repeats(table.to_pandas(), ["query_id", "rank"], path, line, "rank given twice")
    frame = table.select(["query_id", "doc_id"]).to_pandas()
    if moved is not None:
        frame["doc_id"] = frame["doc_id"].array.take(moved)
        scores = scores[moved]
    firsts = np.repeat(starts[:-1].astype(np.int32), np.diff(starts))
    frame["rank"] = np.arange(1, len(scores) + 1, dtype=np.int32) - firsts
    # a frame of its own, not a view of what Arrow lent
    frame["score"] = scores.copy() if moved is None else scores
    if order == "score":
        frame.attrs = {MISRANKED: wrong}
    return frame


def _split(query_id: "pd.Series[str]", seen: set[str], path: str | Path, done: int) -> FormatError:
    """The error for a query that comes again after another one; `done` rows came before these."""
    before = set(seen)
    for start in query_starts(query_id)[:-1].tolist():
        if (query := query_id.iloc[start]) in before:
            break
        before.add(query)
    return FormatError(
        f"{path}:{line_of(path, done + start)}: query {query!r} comes again after "
        "another query; to be streamed, the rows of a query must be contiguous"
    )


def _refuse_repeats(
    frame: pd.DataFrame, key: list[str], path: str | Path, line: Callable[[int], int], what: str
) -> None:
    """Refuse the first line of a file that repeats the key of another."""
    again = np.flatnonzero(frame.duplicated(key))
    if not again.size:
        return
    at = min(again.tolist(), key=line)
    row = frame.iloc[at]
    first = int(np.flatnonzero((frame[key] == row[key]).all(axis=1))[0])
    named = ", ".join(f"{name} {str(row[name])!r}" for name in key)
    raise FormatError(f"{path}:{line(at)}: {what}: {named}; first on line {line(first)}")
