"""Collections from own files: a corpus, queries and, if there are any, qrels."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import MinLen
from pydantic import AfterValidator

from rdx.collection import Collection, split_of
from rdx.data.texts import ENDINGS, StoredTexts, store_texts, unique
from rdx.declared import QUERIES, READ, SPLITS, BelowOne, Positive, settings
from rdx.rankings import FormatError, line_of, read_qrels

_QUERIES, _QRELS, _COUNTS = "queries.json", "qrels.parquet", "counts.json"


def _known(path: str) -> str:
    if not path.endswith(ENDINGS):
        raise ValueError(f"expected a name that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return path


_Texts = Annotated[str, AfterValidator(_known), READ]


@settings(frozen=True)
class Files:
    """A collection in files; relative paths start at the working directory.

    Parameters
    ----------
    corpus
        Passages: `.jsonl` with the fields `_id` (or `docid`, `id`), `text` and, if it is there,
        `title`, which is put before the text; or `.tsv` with id and text. Either may end in `.gz`
        or `.zst`.
    queries
        Queries: `.tsv` with id and text, or `.jsonl` with `_id` and `text`, packed or not.
    qrels
        Judgements in TREC format; None for a collection without any.
    name
        Name of the collection.
    dev
        Share of the queries, 0 <= dev < 1, that is held out as split "dev" (see `split_of`).
    max_words
        Keep this many words of each passage; None keeps the text as it is.
    judged
        Whether queries that the qrels do not name are left out: of a file with the queries of all
        splits, the qrels of one split then choose its own.
    """

    corpus: _Texts
    queries: Annotated[_Texts, QUERIES]
    qrels: Annotated[str | None, READ, QUERIES] = None
    name: Annotated[str, MinLen(1), SPLITS] = "files"
    dev: Annotated[BelowOne, SPLITS] = 0.0
    max_words: Positive | None = None
    judged: Annotated[bool, SPLITS] = False

    def __post_init__(self) -> None:
        """Check values together."""
        if self.judged and self.qrels is None:
            raise ValueError("judged=true: needs data.qrels")

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
                raise FileNotFoundError(f"{key}={path}: {what} (in {Path.cwd()})")

    def prepare(self, folder: Path) -> None:
        """Read and check the files once; write what `load` maps into memory to a folder.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        FormatError
            If a file breaks its format, or if the qrels name a query that the queries lack.
        """
        self.check()
        queries = unique(self.queries)
        (folder / _QUERIES).write_text(json.dumps(queries))
        self._read_qrels(queries).to_parquet(folder / _QRELS, index=False)
        counts = store_texts(self.corpus, folder, self.max_words)
        (folder / _COUNTS).write_text(json.dumps(counts))

    def load(self, split: str = "all", folder: Path | None = None) -> Collection:
        """The collection with the queries of a split; passages stay on disk.

        Parameters
        ----------
        split
            "train" (queries that are not held out), "dev" (those that are) or "all".
        folder
            Where `prepare` wrote; None: the files are read for this use alone.

        Returns
        -------
        Collection
            All passages, and the queries and qrels of the split. `counts` holds
            "repeated_texts", the passages whose text an earlier one has; given qrels, also, for
            the split, "qrels_without_passage", the judgements whose passage the corpus lacks (TREC
            pools go beyond most corpora), and "queries_without_qrels" (left out
            with `judged`).

        Raises
        ------
        FileNotFoundError, FormatError
            As `prepare`, without a folder.
        ValueError
            If the split is unknown or has no query.
        """
        if split not in ("train", "dev", "all"):
            raise ValueError(f"split {split!r}: expected 'train', 'dev' or 'all'")
        if folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                self.prepare(Path(scratch))
                return self.load(split, Path(scratch))  # mapped files outlive their names
        queries = json.loads((folder / _QUERIES).read_text())
        qrels = pd.read_parquet(folder / _QRELS)
        if split != "all":
            queries = {q: text for q, text in queries.items() if split_of(q, self.dev) == split}
            qrels = qrels[qrels["query_id"].isin(list(queries))].reset_index(drop=True)
        if not queries:
            raise FormatError(f"{self.queries}: no query in split {split!r} (data.dev={self.dev})")
        passages = StoredTexts(folder)
        counts = json.loads((folder / _COUNTS).read_text())
        if self.qrels is not None:
            found = set(qrels["query_id"])
            lacking = sum(doc_id not in passages for doc_id in qrels["doc_id"])
            counts["qrels_without_passage"] = lacking
            counts["queries_without_qrels"] = len(queries.keys() - found)
            if self.judged:
                queries = {q: text for q, text in queries.items() if q in found}
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
