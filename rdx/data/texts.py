"""Read texts by id from `.jsonl` and `.tsv` files, and keep them memory-mapped.

A corpus of millions of passages is read once, written as an Arrow file and memory-mapped from then
on, so that it takes disk, not memory.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from array import array
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from rdx import ids
from rdx.data.blank import blank
from rdx.rankings import FormatError, one_word

PACKED = ("", ".gz", ".zst")
ENDINGS = tuple(f"{form}{packed}" for form in (".jsonl", ".tsv") for packed in PACKED)
BLOCK = 10_000
_ID_FIELDS = ("_id", "docid", "id")
_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])
_TEXTS = "texts.arrow"


@dataclass
class Oddities:
    """What is odd in a file of texts.

    Attributes
    ----------
    blank
        Id of each text of which nothing can be seen -> its line.
    repeated
        How many texts an earlier one equals, word for word; without the blank ones.
    """

    blank: dict[str, int] = field(default_factory=dict)
    repeated: int = 0


def read_texts(path: str, max_words: int | None = None) -> Iterator[tuple[int, str, str]]:
    """Yield (line, id, text) of a file, `.jsonl` or `.tsv`, plain, `.gz` or `.zst`, in its order.

    Parameters
    ----------
    path
        The file. Blank lines are skipped.
    max_words
        Keep this many words of a text; None keeps it as it is.

    Raises
    ------
    FormatError
        Naming file and line: no UTF-8, not the form, an id that is not one word.
        Ids that occur twice are not found here, nor are blank texts.
    """
    for number, key, text in _read(path):
        yield number, key, text if max_words is None else _first_words(text, max_words)


def unique(path: str) -> tuple[dict[str, str], Oddities]:
    """Read the texts of a file by id, into memory, the blank ones too.

    Raises
    ------
    FormatError
        As `read_texts`; also if the file is empty or an id occurs twice.
    """
    texts: dict[str, str] = {}
    odd = Oddities()
    again: list[tuple[int, str]] = []
    for number, key, text in read_texts(path):
        if key in texts:
            again.append((number, key))
            continue
        texts[key] = text
        if blank(text):
            odd.blank[key] = number
    _refuse_again(path, again)
    if not texts:
        raise FormatError(f"{path}: the file is empty")
    return texts, odd


def store_texts(
    path: str, folder: Path, max_words: int | None = None, drop: bool = False
) -> Oddities:
    """Write the texts of a file into a folder that `StoredTexts` opens; holds a block at a time.

    Parameters
    ----------
    path, max_words
        As of `read_texts`.
    folder
        Where to write.
    drop
        Whether blank texts are left out.

    Raises
    ------
    FormatError
        As `unique`; also if all texts are left out.
    """
    hashes, dropped, texts = array("Q"), array("Q"), array("Q")
    odd = Oddities()

    def kept() -> Iterator[tuple[str, str]]:
        for number, key, text in read_texts(path, max_words):
            nothing = blank(text)
            if nothing:
                odd.blank[key] = number
            else:
                texts.append(ids.hash_of(text))
            (dropped if nothing and drop else hashes).append(ids.hash_of(key))
            if not (nothing and drop):
                yield key, text

    with pa.OSFile(str(folder / _TEXTS), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as out:
        pairs = kept()
        while block := list(islice(pairs, BLOCK)):
            columns = [pa.array(column, pa.large_string()) for column in zip(*block, strict=True)]
            out.write_batch(pa.record_batch(columns, schema=_SCHEMA))
    if not hashes:
        raise FormatError(f"{path}: {'no passage has a text' if dropped else 'the file is empty'}")
    values = np.array(hashes, dtype=np.uint64)
    ids.Places.of(values).save(folder)
    _refuse_repeats(path, np.sort(np.append(values, np.array(dropped, dtype=np.uint64))))
    odd.repeated = len(texts) - len(np.unique(np.array(texts, dtype=np.uint64)))
    return odd


class StoredTexts(Mapping[str, str]):
    """Id to text, memory-mapped; in the order of the file.

    Parameters
    ----------
    folder
        Where `store_texts` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table = pa.ipc.open_file(pa.memory_map(str(folder / _TEXTS))).read_all()
        self._places = ids.Places.open(folder)

    def __reduce__(self) -> tuple[type[StoredTexts], tuple[Path]]:
        """Let another process map the same files."""
        return StoredTexts, (self._folder,)

    def __getitem__(self, key: str) -> str:
        """Return the text of a passage; KeyError if there is none with this id."""
        place = self._place(key)
        if place is None:
            raise KeyError(key)
        return str(self._table["text"][place].as_py())

    def __contains__(self, key: object) -> bool:
        """Return whether there is a passage with this id, without reading its text."""
        return isinstance(key, str) and self._place(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over ids in the order of the file."""
        for chunk in self._table["id"].chunks:
            yield from chunk.to_pylist()

    def __len__(self) -> int:
        """Return the number of passages."""
        return int(self._table.num_rows)

    def items(self) -> ItemsView[str, str]:
        """Return (id, text) pairs, read in order rather than looked up one by one."""
        return _Items(self)

    def _place(self, key: str) -> int | None:
        column = self._table["id"]
        possible = self._places.possible(key)
        return next((place for place in possible if column[place].as_py() == key), None)


class _Items(ItemsView[str, str]):
    _mapping: StoredTexts

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for batch in self._mapping._table.to_batches():
            yield from zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True)


def _refuse_repeats(path: str, ordered: np.ndarray) -> None:
    """Refuse ids that occur twice; the file is read again only where their hashes agree."""
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    suspects, seen = set(again.tolist()), set()
    repeats: list[tuple[int, str]] = []
    for number, key, _ in _read(path) if suspects else ():
        if key in seen:
            repeats.append((number, key))
        if ids.hash_of(key) in suspects:
            seen.add(key)
    _refuse_again(path, repeats)


def _refuse_again(path: str, lines: list[tuple[int, str]]) -> None:
    """Refuse lines, by number, whose id an earlier one has; names the first and counts all."""
    if lines:
        number, key = lines[0]
        more = f" ({len(lines):,} such lines)" if len(lines) > 1 else ""
        raise FormatError(f"{path}:{number}: id {key!r} occurs a second time{more}")


def _read(path: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, id and text."""
    name = path.removesuffix(".gz").removesuffix(".zst")
    parse = _parse_json if name.endswith(".jsonl") else _parse_tsv
    for number, line in _lines(path):
        try:
            key, text = parse(line.decode())
            _refuse_bad(key, text)
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}:{number}: byte {error.start + 1} of the line is not UTF-8"
            ) from None
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}") from None
        yield number, key, text


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1, without line ends."""
    with _open(path) as handle:
        for number, line in enumerate(_whole(handle, path), 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def _whole(handle: Iterable[bytes], path: str) -> Iterator[bytes]:
    try:
        yield from handle
    except (OSError, EOFError, zlib.error) as error:
        if not path.endswith((".gz", ".zst")):
            raise
        raise FormatError(f"{path}: cannot be decompressed: {error}") from error


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.endswith(".zst"):
        stream: Any = pa.input_stream(path, compression="zstd")
        return cast(BinaryIO, io.BufferedReader(stream))
    return Path(path).open("rb")


def _parse_json(line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    id_field = next((name for name in _ID_FIELDS if name in record), None)
    if id_field is None:
        raise ValueError(f"no field {_ID_FIELDS[0]!r}; found: {', '.join(record) or 'none'}")
    if "text" not in record:
        raise ValueError(f"no field 'text'; found: {', '.join(record)}")
    key = record[id_field]
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ValueError(f"field {id_field!r} is {key!r}, a string is expected")
    title, text = _text_field(record, "title"), _text_field(record, "text")  # null: no text
    return str(key), f"{title} {text}".strip() if title.strip() else text


def _text_field(record: dict[str, Any], name: str) -> str:
    value = record.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} is {value!r}, a string is expected")
    return value


def _parse_tsv(line: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) != 2:
        raise ValueError(f"{len(fields)} columns, expected 2: id TAB text")
    return fields[0], fields[1]


def _refuse_bad(key: str, text: str) -> None:
    # TREC files separate columns by white space, so such an id could never be written to a run
    if not one_word(key):
        raise ValueError(f"id {key!r} must be one word")
    for value in (key, text):
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON can spell half a surrogate pair, which no UTF-8 file can hold
            raise ValueError(f"{key!r} holds half of a surrogate pair") from None


def _first_words(text: str, count: int) -> str:
    words = text.split(maxsplit=count)
    return text if len(words) <= count else " ".join(words[:count])
