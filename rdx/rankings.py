"""Ranking tables and qrels: built, checked, and moved in and out of TREC and parquet files.

A ranking is a data frame with the columns `query_id` (str), `doc_id` (str), `rank` (int32,
1 = best, dense) and `score` (float32, finite). The rows of a query are contiguous and in rank
order; queries keep the order of their first appearance.

Ties follow trec_eval everywhere: score descending, then doc id descending. trec_eval holds
scores as 32-bit floats and compares doc ids byte by byte; both hold here too.
"""

import gzip
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

COLUMNS = ("query_id", "doc_id", "rank", "score")

_RUN = {
    "query_id": "text",
    "iteration": "text",
    "doc_id": "text",
    "rank": "integer",
    "score": "number",
    "tag": "text",
}
_QRELS = {"query_id": "text", "iteration": "text", "doc_id": "text", "relevance": "integer"}
_ARROW = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INT32 = np.iinfo(np.int32)

# States of a teacher's ranking of a list; only usable ones are labels.
STATES = ("ok", "repaired", "malformed", "refused", "failed")
USABLE = ("ok", "repaired")


class FormatError(ValueError):
    """Data that break a format; the message starts with `path:line: ` where a line is known."""


def rank(query_id: Iterable[Any], doc_id: Iterable[Any], score: Iterable[float]) -> pd.DataFrame:
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
        {"query_id": _strings(query_id), "doc_id": _strings(doc_id), "score": _float32(score)}
    )
    _check_rows(frame, "ranking")
    return _ranked(frame, _trec_eval_order(frame))


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


def read_trec(path: str | Path, order: Literal["score", "rank"] = "score") -> pd.DataFrame:
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
    if order not in ("score", "rank"):
        raise ValueError(f"order={order!r}: expected 'score' or 'rank'")
    frame = _read_columns(path, _RUN)
    _refuse_repeats(frame, ["query_id", "doc_id"], path, "duplicate row")
    if order == "score":
        return _ranked(frame, _trec_eval_order(frame))
    _refuse_repeats(frame, ["query_id", "rank"], path, "rank given twice")
    codes, _ = pd.factorize(frame["query_id"])
    return _ranked(frame, np.lexsort((frame["rank"].to_numpy(), codes)))


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
    scores = _float32(ranking["score"])
    frame = pd.DataFrame(
        {"query_id": ranking["query_id"], "doc_id": ranking["doc_id"], "score": scores}
    )
    moved = np.flatnonzero(_trec_eval_order(frame) != np.arange(len(frame)))
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


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a frame that `write_parquet` wrote.

    Raises
    ------
    FormatError
        If the file is not a readable parquet file.
    """
    try:
        return pd.read_parquet(path)
    except pa.ArrowInvalid as error:
        raise FormatError(f"{path}: not a readable parquet file: {error}") from error


def write_parquet(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a frame with its column types; the index is left out."""
    frame.to_parquet(path, index=False)


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
    frame = _read_columns(path, _QRELS)
    _refuse_repeats(frame, ["query_id", "doc_id"], path, "duplicate row")
    return frame[["query_id", "doc_id", "relevance"]].astype({"relevance": "int32"})


def line_of(path: str | Path, row: int) -> int:
    """Return the line, counted from 1, that holds row `row` (from 0) of a run or qrels file."""
    filled = (n for n, line in enumerate(_read_bytes(path).split(b"\n"), 1) if line.split())
    return next(n for at, n in enumerate(filled) if at == row)


def line_with(path: str | Path, query_id: str, doc_id: str) -> int:
    """Return the line, counted from 1, of a run or qrels file that holds this pair; 0 if none."""
    for number, line in enumerate(_read_bytes(path).decode().split("\n"), 1):
        fields = line.split()
        if fields and fields[0] == query_id and fields[2] == doc_id:
            return number
    return 0


def z_scores(frame: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """Z-scores of a column within each query (population SD); 0 where a query has no spread."""
    groups = frame.groupby("query_id")[column]
    spread = groups.transform("std", ddof=0).replace(0, 1).fillna(1)
    return (frame[column] - groups.transform("mean")) / spread


def _strings(ids: Iterable[Any]) -> "pd.Series[Any]":
    series = ids if isinstance(ids, pd.Series) else pd.Series(list(ids), dtype=object)
    return series.reset_index(drop=True).astype("str")


def _float32(score: Iterable[float]) -> np.ndarray:
    values = np.asarray(score if hasattr(score, "__len__") else list(score), dtype=np.float64)
    with np.errstate(over="ignore"):
        # adding zero turns -0.0 into 0.0: the two tie, so they should also be written alike
        return values.astype(np.float32) + np.float32(0)


def _check_rows(frame: pd.DataFrame, where: str) -> None:
    for name in ("query_id", "doc_id"):
        if frame[name].isna().any():
            raise FormatError(f"{where}: {name} missing in row {frame[name].isna().argmax()}")
    scores = frame["score"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        row = frame.iloc[wrong[0]]
        raise FormatError(
            f"{where}: query {row['query_id']!r}, doc {row['doc_id']!r}: "
            f"score {row['score']} is not a finite float32"
        )
    again = frame.duplicated(["query_id", "doc_id"]).to_numpy()
    if again.any():
        row = frame.iloc[again.argmax()]
        raise FormatError(
            f"{where}: query {row['query_id']!r} holds doc {row['doc_id']!r} more than once"
        )


def _trec_eval_order(frame: pd.DataFrame) -> np.ndarray:
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


def _read_bytes(path: str | Path) -> bytes:
    data = Path(path).read_bytes()
    try:
        if str(path).endswith(".gz"):
            data = gzip.decompress(data)
        elif str(path).endswith(".zst"):
            data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be decompressed: {error}") from error
    return data.removeprefix(b"\xef\xbb\xbf")


def _read_columns(path: str | Path, columns: dict[str, str]) -> pd.DataFrame:
    data = _read_bytes(path)
    if not data.strip():
        raise FormatError(f"{path}: the file is empty")
    frame = _parse_fast(data, columns)
    return _parse_lines(data, columns, path) if frame is None else frame


def _parse_fast(data: bytes, columns: dict[str, str]) -> pd.DataFrame | None:
    """Parse with Arrow, or give None for a file that needs the line-by-line rules."""
    data = data.replace(b"\r\n", b"\n").replace(b"\t", b" ").strip(b"\n")
    # what Arrow takes for an empty field, another line end, or a hexadecimal number
    odd = (b"  ", b" \n", b"\n ", b"\r", b"\v", b"\f", b" 0x", b" 0X")
    if data.startswith(b" ") or data.endswith(b" ") or any(mark in data for mark in odd):
        return None
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(column_names=list(columns)),
            parse_options=csv.ParseOptions(
                delimiter=" ", quote_char=False, double_quote=False, escape_char=False
            ),
            convert_options=csv.ConvertOptions(
                column_types={name: _ARROW[kind] for name, kind in columns.items()},
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None
    kept = {name: table[name] for name in columns if name not in ("iteration", "tag")}
    frame = pa.table(kept).to_pandas().astype({"query_id": "str", "doc_id": "str"})
    if "score" in frame:
        frame["score"] = _float32(frame["score"])
        if not np.isfinite(frame["score"]).all():
            return None
    if "relevance" in frame and not frame["relevance"].between(_INT32.min, _INT32.max).all():
        return None
    return frame


def _parse_lines(data: bytes, columns: dict[str, str], path: str | Path) -> pd.DataFrame:
    """Parse line by line; slower than Arrow, but can name the line that is wrong."""
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            if len(fields) != len(columns):
                raise ValueError(_wrong_width(len(fields), len(columns)))
            for (name, kind), field in zip(columns.items(), fields, strict=True):
                values[name].append(_value(name, kind, field))
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}") from None
    frame = pd.DataFrame(values).astype({"query_id": "str", "doc_id": "str"})
    return frame.assign(score=_float32(frame["score"])) if "score" in frame else frame


def _wrong_width(found: int, expected: int) -> str:
    if (found, expected) == (4, 6):
        return "4 columns: this looks like a qrels file, a run is expected"
    if (found, expected) == (6, 4):
        return "6 columns: this looks like a run, qrels are expected"
    return f"{found} columns, expected {expected}"


def _value(name: str, kind: str, field: bytes) -> str | int | float:
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name} {field!r} is not UTF-8") from None
    if kind == "text":
        return text
    if kind == "integer":
        limits = np.iinfo(np.int64) if name == "rank" else _INT32
        if not (_INTEGER.fullmatch(text) and limits.min <= int(text) <= limits.max):
            raise ValueError(f"{name} {text!r} is not an integer of {limits.bits} bits")
        return int(text)
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise ValueError(f"{name} {text!r} is not finite")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} {text!r} is not a number")
    if not np.isfinite(_float32([float(text)]))[0]:
        raise ValueError(f"{name} {text!r} is too large for a float32")
    return float(text)


def _refuse_repeats(frame: pd.DataFrame, key: list[str], path: str | Path, what: str) -> None:
    again = frame.duplicated(key).to_numpy()
    if again.any():
        at = int(again.argmax())
        row = frame.iloc[at]
        first = int((frame[key] == row[key]).all(axis=1).to_numpy().argmax())
        named = ", ".join(f"{name} {str(row[name])!r}" for name in key)
        raise FormatError(
            f"{path}:{line_of(path, at)}: {what}: {named}; first on line {line_of(path, first)}"
        )
