"""TREC runs and qrels, read and written."""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rdx.rankings.order import may_repeat, order_within
from rdx.rankings.table import (
    FormatError,
    check,
    float32,
    query_starts,
    trec_eval_order,
)
from rdx.rankings.text import line_of, tables

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


def read_trec(path: str | Path, order: Order = "score") -> pd.DataFrame:
    """Read a ranking from a TREC run file.

    Parameters
    ----------
    path
        Six columns a line, separated by spaces or tabs: query id, a constant, doc id, rank,
        score, tag. `.gz` and `.zst` are decompressed; blank lines are skipped.
    order
        "score": score descending, then doc id descending, as trec_eval does; the rank column
        is ignored. "rank": the rank column decides and must be distinct within a query; for
        permutations whose scores are a copy of another ranking's.

    Returns
    -------
    pandas.DataFrame
        A ranking; ranks are counted anew from 1, scores are those of the file.

    Raises
    ------
    FormatError
        On anything else than such lines, a duplicate (query, doc) pair, a score that is not a
        finite float32, a rank that is not an integer, or a file without lines.
    """
    _check_order(order)
    table = pa.concat_tables(tables(path, _RUN)).combine_chunks()
    rows = None
    if len(pc.unique(table["query_id"])) < len(query_starts(table["query_id"])) - 1:
        codes, _ = pd.factorize(table["query_id"].to_pandas())
        rows = np.argsort(codes, kind="stable")
        table = table.take(rows)
    return _ranked(table, order, path, rows)


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
        A ranking of at least one query; its index starts at 0.

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
    for table in _whole_queries(tables(path, _RUN)):
        _refuse_split(table["query_id"], seen, path, done)
        yield _ranked(table, order, path, np.arange(done, done + table.num_rows))
        done += table.num_rows


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
            if word.split() != [word]:
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
    """Read relevance judgements in TREC format.

    Parameters
    ----------
    path
        Four columns a line, separated by spaces or tabs: query id, a constant, doc id,
        relevance. `.gz` and `.zst` are decompressed; blank lines are skipped.

    Returns
    -------
    pandas.DataFrame
        `query_id` (str), `doc_id` (str), `relevance` (int32), in the order of the file.

    Raises
    ------
    FormatError
        On anything else than such lines, a duplicate (query, doc) pair, a relevance that is
        not an integer, or a file without lines.
    """
    frame = pa.concat_tables(tables(path, _QRELS)).to_pandas()
    again = frame.duplicated(["query_id", "doc_id"]).to_numpy()
    if again.any():
        raise _repeated(frame, again, ["query_id", "doc_id"], path, None, "duplicate row")
    return frame.astype({"relevance": "int32"})


def _check_order(order: str) -> None:
    if order not in ("score", "rank"):
        raise ValueError(f"order={order!r}: expected 'score' or 'rank'")


def _whole_queries(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables anew so that no query runs over from one to the next."""
    held: list[pa.Table] = []
    for table in parts:
        last = int(query_starts(table["query_id"])[-2])
        if last:
            held.append(table.slice(0, last))
            table = table.slice(last)
            yield pa.concat_tables(held).combine_chunks()
            held = []
        elif held and table["query_id"][0] != held[0]["query_id"][0]:
            yield pa.concat_tables(held).combine_chunks()
            held = []
        held.append(table)
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _ranked(
    table: pa.Table, order: Order, path: str | Path, rows: np.ndarray | None
) -> pd.DataFrame:
    """Put the lists of a table into order.

    Parameters
    ----------
    table
        Whole queries, each with contiguous rows; one chunk a column.
    order
        As of `read_trec`.
    path, rows
        Where the table came from: the file, and the row in it of each row; None = the same.
    """
    starts = query_starts(table["query_id"])
    codes = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    if may_repeat(starts, table["doc_id"].chunk(0)):
        frame = table.to_pandas()
        again = frame.duplicated(["query_id", "doc_id"]).to_numpy()
        if again.any():
            raise _repeated(frame, again, ["query_id", "doc_id"], path, rows, "duplicate row")
    scores = table["score"].to_numpy()
    key = -scores if order == "score" else table["rank"].to_numpy()
    moved = order_within(key, starts, table["doc_id"])
    if order == "rank":
        ranks = key if moved is None else key[moved]
        if ((ranks[1:] == ranks[:-1]) & (codes[1:] == codes[:-1])).any():
            frame = table.to_pandas()
            again = frame.duplicated(["query_id", "rank"]).to_numpy()
            raise _repeated(frame, again, ["query_id", "rank"], path, rows, "rank given twice")
    frame = table.select(["query_id", "doc_id"]).to_pandas()
    if moved is not None:
        frame["doc_id"] = frame["doc_id"].array.take(moved)
        scores = scores[moved]
    frame["rank"] = (np.arange(len(codes)) - starts[codes] + 1).astype(np.int32)
    frame["score"] = scores
    return frame


def _refuse_split(queries: pa.ChunkedArray, seen: set[str], path: str | Path, done: int) -> None:
    """Refuse a query that comes again after another one; `done` rows came before these."""
    starts = query_starts(queries)[:-1]
    found = queries.take(starts).to_pylist()
    if len(set(found)) == len(found) and seen.isdisjoint(found):
        seen.update(found)
        return
    for start, query_id in zip(starts.tolist(), found, strict=True):
        if query_id in seen:
            raise FormatError(
                f"{path}:{line_of(path, done + start)}: query {query_id!r} comes again after "
                "another query; to be streamed, the rows of a query must be contiguous"
            )
        seen.add(query_id)


def _repeated(
    frame: pd.DataFrame,
    again: np.ndarray,
    key: list[str],
    path: str | Path,
    rows: np.ndarray | None,
    what: str,
) -> FormatError:
    """The error for the first row of a file that repeats the key of another."""
    rows = np.arange(len(frame)) if rows is None else rows
    at = min(np.flatnonzero(again), key=lambda i: rows[i])
    row = frame.iloc[at]
    first = rows[(frame[key] == row[key]).all(axis=1).to_numpy()].min()
    named = ", ".join(f"{name} {str(row[name])!r}" for name in key)
    return FormatError(
        f"{path}:{line_of(path, int(rows[at]))}: {what}: {named}; "
        f"first on line {line_of(path, int(first))}"
    )
