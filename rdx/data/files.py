"""Load a collection from files: a corpus, queries and, if there are any, qrels."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import MinLen
from pydantic import AfterValidator

from rdx import facts
from rdx.collection import Collection
from rdx.data.splits import of_split, qrels_of
from rdx.data.texts import ENDINGS, StoredTexts, store_texts, unique
from rdx.declared import QUERIES, READ, SPLITS, BelowOne, Positive, settings
from rdx.rankings import FormatError, line_of, read_qrels

_TOPICS, _QRELS = "topics.json", "qrels.parquet"


@dataclass(frozen=True)
class _Topics:
    """Queries, and how many passages have the text of an earlier one."""

    queries: dict[str, str]
    repeated_texts: int


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
        self._read_qrels(queries).to_parquet(folder / _QRELS, index=False)
        topics = _Topics(queries, store_texts(self.corpus, folder, self.max_words))
        (folder / _TOPICS).write_text(facts.dump(topics), encoding="utf-8")

    def load(self, split: str = "all", folder: Path | None = None) -> Collection:
        """Load the collection with the queries of a split; passages stay on disk.

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
        if folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                self.prepare(Path(scratch))
                return self.load(split, Path(scratch))  # mapped files outlive their names
        topics = facts.parse(_Topics, (folder / _TOPICS).read_bytes())
        queries, qrels = topics.queries, pd.read_parquet(folder / _QRELS)
        queries, qrels = of_split(queries, qrels, split, self.dev, self.queries)
        passages = StoredTexts(folder)
        counts = {"repeated_texts": topics.repeated_texts}
        if self.qrels is not None:
            judged = set(qrels["query_id"])
            without = sum(doc_id not in passages for doc_id in qrels["doc_id"])
            counts["qrels_without_passage"] = without
            counts["queries_without_qrels"] = len(queries.keys() - judged)
            if self.judged:
                queries = {q: text for q, text in queries.items() if q in judged}
        return Collection(self.name, queries, passages, qrels, counts)

    def _read_qrels(self, queries: dict[str, str]) -> pd.DataFrame:
        if self.qrels is None:
            return qrels_of()
        qrels = read_qrels(self.qrels)
        unknown = (~qrels["query_id"].isin(list(queries))).to_numpy()
        if unknown.any():
            row = int(unknown.argmax())
            raise FormatError(
                f"{self.qrels}:{line_of(self.qrels, row)}: query {qrels['query_id'].iloc[row]!r} "
                f"is not in {self.queries}"
            )
        return qrels
