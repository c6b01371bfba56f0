"""Collections from own files: a corpus, queries and, if there are any, qrels."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pandas as pd

from rdx.data.collection import Collection, split_of
from rdx.rankings import FormatError, line_of, read_qrels

_ENDINGS = (".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz")
_ID_FIELDS = ("_id", "docid", "id")


@dataclass(frozen=True)
class Files:
    """A collection in files; relative paths start at the working directory.

    Parameters
    ----------
    corpus
        Passages: `.jsonl` with the fields `_id` (or `docid`, `id`), `text` and, if it is there,
        `title`, which is put before the text; or `.tsv` with id and text. Either may end in `.gz`.
    queries
        Queries: `.tsv` with id and text, or `.jsonl` with `_id` and `text`, or either as `.gz`.
    qrels
        Judgements in TREC format; None for a collection without any.
    name
        Name of the collection.
    dev
        Share of the queries, 0 <= dev < 1, that is held out as split "dev" (see `split_of`).
    max_words
        Keep this many words of each passage; None keeps the text as it is.
    """

    corpus: str
    queries: str
    qrels: str | None = None
    name: str = "files"
    dev: float = 0.0
    max_words: int | None = None

    def __post_init__(self) -> None:
        """Check the values; the files themselves are looked at by `check` and `load`."""
        for key in ("corpus", "queries"):
            if not str(getattr(self, key)).endswith(_ENDINGS):
                raise ValueError(
                    f"data.{key}={getattr(self, key)}: expected a name that ends in "
                    f"{', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}"
                )
        if not self.name:
            raise ValueError("data.name='': expected a name")
        if not 0 <= self.dev < 1:
            raise ValueError(f"data.dev={self.dev}: expected a share, 0 <= dev < 1")
        if self.max_words is not None and self.max_words < 1:
            raise ValueError(f"data.max_words={self.max_words}: expected at least 1, or null")

    def check(self) -> None:
        """Check that the files are there, without opening them.

        Raises
        ------
        FileNotFoundError
            If one is missing or is a folder; names the configuration key and the path.
        """
        for key in ("corpus", "queries", "qrels"):
            path = getattr(self, key)
            if path is not None and not Path(path).is_file():
                what = "is not a file" if Path(path).exists() else "no such file"
                raise FileNotFoundError(f"data.{key}={path}: {what} (in {Path.cwd()})")

    def load(self, split: str = "all") -> Collection:
        """Read the collection.

        Parameters
        ----------
        split
            "train" (queries that are not held out), "dev" (those that are) or "all".

        Returns
        -------
        Collection
            All passages, and the queries and qrels of the split. Given qrels, `counts` holds
            for the split "qrels_without_passage", the judgements whose passage the corpus lacks
            (TREC pools go beyond most corpora), and "queries_without_qrels".

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        FormatError
            If a file breaks its format, or if the qrels name a query that the queries lack.
        ValueError
            If the split is unknown or has no query.
        """
        if split not in ("train", "dev", "all"):
            raise ValueError(f"split {split!r}: expected 'train', 'dev' or 'all'")
        self.check()
        queries = _read_texts(self.queries)
        qrels = self._read_qrels(queries)
        if split != "all":
            queries = {q: text for q, text in queries.items() if split_of(q, self.dev) == split}
            qrels = qrels[qrels["query_id"].isin(list(queries))].reset_index(drop=True)
        if not queries:
            raise ValueError(f"{self.queries}: no query in split {split!r} (data.dev={self.dev})")
        passages = _read_texts(self.corpus, self.max_words)
        counts = {}
        if self.qrels is not None:
            counts["qrels_without_passage"] = int((~qrels["doc_id"].isin(list(passages))).sum())
            counts["queries_without_qrels"] = len(set(queries) - set(qrels["query_id"]))
        return Collection(self.name, queries, passages, qrels, counts)

    def _read_qrels(self, queries: dict[str, str]) -> pd.DataFrame:
        if self.qrels is None:
            columns = {"query_id": "str", "doc_id": "str", "relevance": "int32"}
            return pd.DataFrame(columns=list(columns)).astype(columns)
        qrels = read_qrels(self.qrels)
        unknown = (~qrels["query_id"].isin(list(queries))).to_numpy()
        if unknown.any():
            row = int(unknown.argmax())
            raise FormatError(
                f"{self.qrels}:{line_of(self.qrels, row)}: query {qrels['query_id'].iloc[row]!r} "
                f"is not in {self.queries}"
            )
        return qrels


def _read_texts(path: str, max_words: int | None = None) -> dict[str, str]:
    """Read id to text from `.jsonl` or `.tsv`, plain or gzipped."""
    parse = _parse_json if path.removesuffix(".gz").endswith(".jsonl") else _parse_tsv
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        try:
            key, text = parse(line.decode())
            _refuse_bad(key, text)
            if key in texts:
                raise ValueError(f"id {key!r} occurs a second time")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}:{number}: byte {error.start + 1} of the line is not UTF-8"
            ) from None
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}") from None
        texts[key] = text if max_words is None else _first_words(text, max_words)
    if not texts:
        raise FormatError(f"{path}: the file is empty")
    return texts


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 1, without line ends."""
    with _open(path) as handle:
        try:
            for number, line in enumerate(handle, 1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(f"{path}: cannot be decompressed: {error}") from error


def _open(path: str) -> BinaryIO:
    file = gzip.open(path, "rb") if path.endswith(".gz") else Path(path).open("rb")
    return cast(BinaryIO, file)


def _parse_json(line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
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
    title, text = _text_field(record, "title"), _text_field(record, "text")
    return str(key), f"{title} {text}".strip() if title.strip() else text


def _text_field(record: dict[str, Any], name: str) -> str:
    value = record.get(name, "")
    if value is None and name == "title":
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
    if key.split() != [key]:
        raise ValueError(f"id {key!r} must be one word")
    if not text.strip():
        raise ValueError(f"the text of {key!r} is empty")
    for value in (key, text):
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON can spell half a surrogate pair, which no UTF-8 file can hold
            raise ValueError(f"{key!r} holds half of a surrogate pair") from None


def _first_words(text: str, count: int) -> str:
    words = text.split(maxsplit=count)
    return text if len(words) <= count else " ".join(words[:count])
