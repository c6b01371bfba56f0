"""Read files of lines with columns between white space, block by block, in bounded memory."""

import gzip
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import csv

from rdx.rankings.ids import one_word
from rdx.rankings.table import FormatError, float32

T = TypeVar("T")

# Bytes of a block: whole lines, about so many.
BLOCK = 4 * 2**20
# Threads that parse blocks.
THREADS = 2
# Bytes asked of a decompressor at once: how exactly damage is located.
_PIECE = 2**20
# Bytes that a core's own cache takes in.
_CACHED = 2**17

_ARROW = {"text": pa.large_string(), "integer": pa.int64(), "number": pa.float64()}
_UNUSED = ("iteration", "tag")
# White space beyond ASCII: columns are not cut there, but no id that holds any can be written.
_SPACES = re.compile(f"[{''.join(c for c in map(chr, range(128, 0x3001)) if c.isspace())}]")

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INT32 = np.iinfo(np.int32)


def blocks(
    path: str | Path, end: Callable[[bytes], int] = lambda data: data.rfind(b"\n") + 1
) -> Iterator[tuple[int, bytes]]:
    """Yield a file as blocks of whole lines, each with the number (from 1) of its first line.

    `.gz` and `.zst` are decompressed; a byte order mark at the start is left out. Where a block
    ends, `end` says, in octets of what was read; 0 to read on.

    Raises
    ------
    FormatError
        If the file cannot be decompressed; says up to which line it could.
    """
    number, rest = 1, b""
    with _open(path) as file:
        while True:
            data = _read(file, rest, path, number)
            if len(data) == len(rest):
                break
            if number == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            cut = end(data)
            rest = data[cut:]
            if cut:
                yield number, data[:cut]
                number += _newlines(memoryview(data)[:cut])
    if rest:
        yield number, rest


def tables(path: str | Path, columns: dict[str, str], header: bool = False) -> Iterator[pa.Table]:
    """Yield the rows of a file, block by block; blank lines are skipped.

    Parameters
    ----------
    path
        The file.
    columns
        Name to kind, "text", "integer" or "number", of each column of a line.
    header
        Whether the first line that is not blank is none of the rows.

    Yields
    ------
    pyarrow.Table
        The columns but for `iteration` and `tag`: large_string, int64 and float32.

    Raises
    ------
    FormatError
        If a line does not hold such columns, or no line of the file holds any.
    """
    empty = True
    parts = _headless(blocks(path)) if header else blocks(path)
    for table in in_threads(lambda part: parse(part, columns, path), parts):
        if table.num_rows:
            empty = False
            yield table
    if empty:
        raise FormatError(f"{path}: the file is empty")


def first_fields(path: str | Path) -> list[bytes]:
    """Return the columns of the first line of a file that is not blank; [] if there is none."""
    return next((fields for _, line in _lines(path) if (fields := line.split())), [])


def _headless(parts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file without the first line that is not blank."""
    for number, block in parts:
        start = len(block) - len(block.lstrip())
        if start < len(block):
            end = block.find(b"\n", start) + 1 or len(block)
            yield number + _newlines(block[:end]), block[end:]
            break
    yield from parts


def in_threads(
    function: Callable[[tuple[int, bytes]], T], parts: Iterable[tuple[int, bytes]]
) -> Iterator[T]:
    """Yield what a function makes of blocks, in their order; a few blocks are held at once."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for part in parts:
            waiting.append(pool.submit(function, part))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def parse(part: tuple[int, bytes], columns: dict[str, str], path: str | Path) -> pa.Table:
    """The rows of a block; arguments, result and errors as of `tables`, but it may be empty."""
    number, block = part
    table = _parse_fast(block, columns)
    return _parse_lines(block, columns, path, number) if table is None else table


def last_query(data: bytes) -> int:
    """Where the last query's stretch of lines starts; an `end` of `blocks` that cuts none."""
    query, at = b"", data.rfind(b"\n") + 1
    while at > 0:
        start = data.rfind(b"\n", 0, at - 1) + 1
        fields = data[start:at].split(None, 1)
        if fields and query and fields[0] != query:
            return at
        query, at = query or b"".join(fields[:1]), start
    return 0


def line_of(path: str | Path, row: int) -> int:
    """Return the line, counted from 1, that holds row `row` (from 0) of a run or qrels file."""
    return _filled(_lines(path), row)


def line_in(part: tuple[int, bytes], row: int) -> int:
    """Return the line of a file that holds row `row` (from 0) of one of its blocks."""
    number, block = part
    return _filled(enumerate(block.split(b"\n"), number), row)


def _filled(lines: Iterable[tuple[int, bytes]], row: int) -> int:
    filled = (number for number, line in lines if line.split())
    return next(number for at, number in enumerate(filled) if at == row)


def line_with(path: str | Path, query_id: str, doc_id: str) -> int:
    """Return the line, counted from 1, of a run or qrels file that holds this pair; 0 if none."""
    wanted = query_id.encode(), doc_id.encode()
    for number, line in _lines(path):
        fields = line.split()
        if fields and (fields[0], fields[2]) == wanted:
            return number
    return 0


def _lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    for number, block in blocks(path):
        yield from enumerate(block.split(b"\n"), number)


def _open(path: str | Path) -> Any:
    if str(path).endswith(".gz"):
        return gzip.open(path, "rb")
    if str(path).endswith(".zst"):
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return Path(path).open("rb")


def _read(file: IO[bytes], rest: bytes, path: str | Path, line: int) -> bytes:
    """Read on behind `rest`, where line number `line` starts: a block, or as much again."""
    pieces = [rest]
    size = 0
    try:
        while size < max(BLOCK, len(rest)) and (piece := file.read(_PIECE)):
            pieces.append(piece)
            size += len(piece)
    except (OSError, EOFError, zlib.error) as error:
        line += sum(piece.count(b"\n") for piece in pieces)
        raise FormatError(f"{path}:{line}: cannot be decompressed further: {error}") from error
    return b"".join(pieces)


def _parse_fast(data: bytes, columns: dict[str, str]) -> pa.Table | None:
    """Parse with Arrow, or give None for a block that needs the line-by-line rules."""
    plain = _plain(data)
    if plain is None:
        return None
    used = {name: _ARROW[kind] for name, kind in columns.items() if name not in _UNUSED}
    try:
        table = csv.read_csv(
            pa.BufferReader(plain),
            # one chunk a column
            read_options=csv.ReadOptions(
                column_names=list(columns), block_size=len(plain) + 1, use_threads=False
            ),
            parse_options=csv.ParseOptions(
                delimiter=" ", quote_char=False, double_quote=False, escape_char=False
            ),
            convert_options=csv.ConvertOptions(
                column_types=used, include_columns=list(used), null_values=[], check_utf8=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    if "score" in used:
        scores = float32(table["score"])
        if not np.isfinite(scores).all():
            return None
        table = table.set_column(table.column_names.index("score"), "score", pa.array(scores))
    if "relevance" in used:
        grades = table["relevance"].to_numpy()
        if grades.min() < _INT32.min or grades.max() > _INT32.max:
            return None
    return table


def _plain(data: bytes) -> bytes | None:
    """The lines with one space between two fields, or None where Arrow would read them otherwise.

    Arrow takes two separators for an empty field, a carriage return for the end of a line, and
    0x1f for a number.
    """
    if not data.isascii():
        try:
            if _SPACES.search(data.decode()):
                return None
        except UnicodeDecodeError:
            return None
    if not _evenly_spaced(data):
        data = data.replace(b"\r\n", b"\n").replace(b"\t", b" ")
        if not _evenly_spaced(data):
            fields = (line.split() for line in data.split(b"\n"))
            data = b"\n".join(b" ".join(line) for line in fields if line)
            if not _evenly_spaced(data):
                return None
    if b"x" in data or b"X" in data:
        octets = np.frombuffer(data, np.uint8)
        crosses = np.flatnonzero((octets[2:] | 32) == ord("x"))
        if ((octets[crosses + 1] == ord("0")) & (octets[crosses] == ord(" "))).any():
            return None
    return data


def _evenly_spaced(data: bytes) -> bool:
    """Whether lines hold no control character, and no space but single ones between fields."""
    if not data or data[0] <= 32 or data[-1] == 32:
        return False
    for piece in _pieces(data):
        gaps = piece <= 32
        lines = np.count_nonzero(piece == ord("\n"))
        if (gaps[1:] & gaps[:-1]).any() or np.count_nonzero(piece < 32) != lines:
            return False
    return True


def _newlines(data: bytes | memoryview) -> int:
    """How many: what `bytes.count` finds, several times faster where lines are short."""
    return sum(int(np.count_nonzero(piece[:_CACHED] == ord("\n"))) for piece in _pieces(data))


def _pieces(data: bytes | memoryview) -> Iterator[np.ndarray]:
    """Octets, so many at once that a core's cache holds them, each with the first of the next."""
    octets = np.frombuffer(data, np.uint8)
    for start in range(0, len(octets), _CACHED):
        yield octets[start : start + _CACHED + 1]


def _parse_lines(data: bytes, columns: dict[str, str], path: str | Path, first: int) -> pa.Table:
    """Parse line by line; slower than Arrow, but can name the line that is wrong."""
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for number, line in enumerate(data.split(b"\n"), first):
        fields = line.split()
        if not fields:
            continue
        try:
            if b"\0" in line:
                raise ValueError("a NUL byte; a text file in UTF-8 is expected")
            if len(fields) != len(columns):
                raise ValueError(_wrong_width(len(fields), len(columns)))
            for (name, kind), field in zip(columns.items(), fields, strict=True):
                values[name].append(_value(name, kind, field))
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}") from None
    types = {name: _ARROW[kind] for name, kind in columns.items() if name not in _UNUSED}
    arrays = {name: pa.array(values[name], kind) for name, kind in types.items()}
    if "score" in arrays:
        arrays["score"] = pa.array(float32(values["score"]))
    return pa.table(arrays)


def _wrong_width(width: int, expected: int) -> str:
    if (width, expected) == (4, 6):
        return "4 columns: this looks like a qrels file, a run is expected"
    if (width, expected) == (6, 4):
        return "6 columns: this looks like a run, qrels are expected"
    if (width, expected) == (3, 4):
        return "3 columns, expected 4, or 3 below a first line: query-id corpus-id score"
    return f"{width} columns, expected {expected}"


def _value(name: str, kind: str, field: bytes) -> str | int | float:
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name} {field!r} is not UTF-8") from None
    if kind == "text":
        if name not in _UNUSED and not one_word(text):
            raise ValueError(f"{name} {text!r} holds white space of Unicode: it must be one word")
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
    if not np.isfinite(float32([float(text)]))[0]:
        raise ValueError(f"{name} {text!r} is too large for a float32")
    return float(text)
