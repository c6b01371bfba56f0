"""Build ranking tables from scores, check them, and hash their content."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rdx.faults import Mendable
from rdx.rankings.scales import scaled

COLUMNS = ("query_id", "doc_id", "rank", "score")

# States of a teacher's ranking of a list; only usable ones are labels.
STATES = ("ok", "repaired", "malformed", "refused", "failed")
USABLE = ("ok", "repaired")


class FormatError(Mendable, ValueError):
    """Data that break a format; the message starts with `path:line: ` where a line is known."""


def rank(
    query_id: Iterable[object], doc_id: Iterable[object], score: Iterable[float]
) -> pd.DataFrame:
    """Rank the passages of each query by score.

    Parameters
    ----------
    query_id, doc_id
        Ids, one per row; converted to strings.
    score
        Scores, one per row, higher is better. They are rounded to float32 first, so that what
        is stored and what is ordered agree.

    Returns
    -------
    pandas.DataFrame
        A ranking; ties as in trec_eval (score descending, then doc id descending).

    Raises
    ------
    FormatError
        If a (query, doc) pair occurs twice, an id is missing or a score is not finite.
    """
    frame = pd.DataFrame(
        {"query_id": _strings(query_id), "doc_id": _strings(doc_id), "score": float32(score)}
    )
    _check_rows(frame, "ranking")
    return _ranked(frame, trec_eval_order(frame))


def check(ranking: pd.DataFrame, where: str = "ranking") -> None:
    """Check that a frame is a ranking.

    Parameters
    ----------
    ranking
        The frame to check. Scores need not agree with the ranks (a permutation has none).
    where
        What the error message calls the frame.

    Raises
    ------
    FormatError
        On missing columns, missing ids, a duplicate (query, doc) pair, a score that is not
        finite, or queries whose rows are not contiguous with the ranks 1, 2, .., n.
    """
    missing = [name for name in COLUMNS if name not in ranking.columns]
    if missing:
        raise FormatError(f"{where}: columns missing: {', '.join(missing)}")
    _check_rows(ranking, where)
    codes, queries = pd.factorize(ranking["query_id"])
    # factorize numbers queries by first appearance: contiguous rows never step back
    split = np.flatnonzero(np.diff(codes) < 0)
    if split.size:
        raise FormatError(
            f"{where}: the rows of query {queries[codes[split[0] + 1]]!r} are not contiguous"
        )
    ranks = ranking["rank"].to_numpy()
    wrong = np.flatnonzero(ranks != _positions(codes))
    if wrong.size:
        at = wrong[0]
        raise FormatError(
            f"{where}: query {queries[codes[at]]!r}: rank {ranks[at]} "
            f"where {_positions(codes)[at]} is due; ranks run 1, 2, .., n in row order"
        )


@dataclass(frozen=True)
class Content:
    """The lists of a ranking.

    Attributes
    ----------
    queries, rows
        Numbers of lists and of passages in all of them.
    shortest, longest
        Passages of a list; 0 without any.
    permutation_hash
        64 hexadecimal digits: the sum modulo 2^256, over queries, of the sha256 of the lines
        "query id, doc id at rank 1, doc id at rank 2, ..", joined by line feeds. It depends on the
        set of queries, the lengths of the lists and the order of each; not on the order of the
        queries, on scores, or on the numbers that ranks are given.
    """

    queries: int
    rows: int
    shortest: int
    longest: int
    permutation_hash: str


def content(ranking: pd.DataFrame | Iterable[pd.DataFrame]) -> Content:
    """Count and hash the lists of a ranking, however it was written down.

    Two files of one ranking can differ in their bytes, by the order of the queries, scores or tags;
    they agree here.

    Parameters
    ----------
    ranking
        A frame with `query_id` and `doc_id` whose rows are in rank order within a query, or blocks
        of such frames, each of whole queries; only one block is held at a time.
    """
    total, lengths = 0, Counter[int]()
    for block in [ranking] if isinstance(ranking, pd.DataFrame) else ranking:
        for query_id, docs in _lists(block):
            digest = hashlib.sha256("\n".join([query_id, *docs]).encode()).digest()
            total += int.from_bytes(digest)
            lengths[len(docs)] += 1
    return Content(
        queries=lengths.total(),
        rows=sum(length * times for length, times in lengths.items()),
        shortest=min(lengths, default=0),
        longest=max(lengths, default=0),
        permutation_hash=f"{total % 2**256:064x}",
    )


def without_own(ranking: pd.DataFrame) -> pd.DataFrame:
    """Leave out each query's own passage, that with the id of the query, and close the ranks."""
    kept = ranking[ranking["query_id"] != ranking["doc_id"]].reset_index(drop=True)
    codes, _ = pd.factorize(kept["query_id"])
    return kept.assign(rank=_positions(codes))


def z_scores(frame: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Z-scores of a column within each query, as `scaled` makes them."""
    return pd.Series(scaled(frame[column], frame["query_id"], "zscore"), frame.index)


def query_starts(query_id: "pd.Series[str] | pa.Array | pa.ChunkedArray") -> np.ndarray:
    """Row at which each stretch of equal query ids starts, then the number of rows."""
    ids = pa.array(query_id) if isinstance(query_id, pd.Series) else query_id
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if not len(ids):
        return np.zeros(1, np.int64)
    changed = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    inner = np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1
    return np.concatenate(([0], inner, [len(ids)]))


def _lists(block: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """Query id and doc ids of each query, in row order."""
    starts = query_starts(block["query_id"])
    queries = block["query_id"].to_numpy()[starts[:-1]]
    docs = block["doc_id"].tolist()
    for query_id, start, end in zip(queries, starts[:-1], starts[1:], strict=True):
        yield query_id, docs[start:end]


def _strings(ids: Iterable[object]) -> "pd.Series[str]":
    series = ids if isinstance(ids, pd.Series) else pd.Series(list(ids), dtype=object)
    return series.reset_index(drop=True).astype("str")


def float32(score: Iterable[float]) -> np.ndarray:
    """Scores as 32-bit floats, without a negative zero; too large ones become infinite."""
    values = np.asarray(score if hasattr(score, "__len__") else list(score), dtype=np.float64)
    with np.errstate(over="ignore"):
        # adding zero turns -0.0 into 0.0: the two tie, so they should also be written alike
        return values.astype(np.float32) + np.float32(0)


def check_pairs(frame: pd.DataFrame, where: str) -> None:
    """Refuse rows without an id, and (query, doc) pairs that occur twice."""
    for name in ("query_id", "doc_id"):
        if frame[name].isna().any():
            raise FormatError(f"{where}: {name} missing in row {frame[name].isna().argmax()}")
    again = frame.duplicated(["query_id", "doc_id"]).to_numpy()
    if again.any():
        row = frame.iloc[again.argmax()]
        raise FormatError(
            f"{where}: query {row['query_id']!r} holds doc {row['doc_id']!r} more than once"
        )


def _check_rows(frame: pd.DataFrame, where: str) -> None:
    check_pairs(frame, where)
    scores = frame["score"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        row = frame.iloc[wrong[0]]
        raise FormatError(
            f"{where}: query {row['query_id']!r}, doc {row['doc_id']!r}: "
            f"score {row['score']} is not a finite float32"
        )


def trec_eval_order(frame: pd.DataFrame) -> np.ndarray:
    """Row numbers by query (first appearance), score descending, doc id descending."""
    codes, _ = pd.factorize(frame["query_id"])
    table = pa.table(
        {"query": codes, "score": frame["score"].to_numpy(), "doc": pa.array(frame["doc_id"])}
    )
    keys = [("query", "ascending"), ("score", "descending"), ("doc", "descending")]
    return np.asarray(pc.sort_indices(table, sort_keys=keys), dtype=np.int64)


def _positions(codes: np.ndarray) -> np.ndarray:
    """1, 2, .., n within each stretch of equal codes."""
    rows = np.arange(len(codes))
    starts = np.concatenate(([True], codes[1:] != codes[:-1])) if len(codes) else rows > 0
    return (rows - np.maximum.accumulate(np.where(starts, rows, 0)) + 1).astype(np.int32)


def _ranked(frame: pd.DataFrame, order: np.ndarray) -> pd.DataFrame:
    frame = frame[["query_id", "doc_id", "score"]].take(order).reset_index(drop=True)
    codes, _ = pd.factorize(frame["query_id"])
    return frame.assign(rank=_positions(codes))[list(COLUMNS)]
