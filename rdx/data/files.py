"""Load a collection from files: a corpus, queries and, if there are any, qrels."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import MinLen
from pydantic import AfterValidator

from rdx import facts
from rdx.collection import SPELT_OTHERWISE, Collection
from rdx.data.blank import NAMED, Empty, of_blank, refuse, without
from rdx.data.splits import oddities, of_split, qrels_of
from rdx.data.texts import ENDINGS, Oddities, StoredTexts, store_texts, unique
from rdx.declared import QUERIES, READ, SPLITS, BelowOne, Positive, settings
from rdx.rankings import FormatError, alike, has_header, line_of, read_qrels, shown

_TOPICS, _QRELS = "topics.json", "qrels.parquet"


@dataclass(frozen=True)
class _Topics:
    """Queries, and what is odd in the files.

    Attributes
    ----------
    queries
        All of them, without text too.
    repeated_texts
        As of `Files.load`.
    blank_passages, blank_queries
        Ids of those without text.
    alike
        Judged passage that the corpus lacks -> the one that it has in another spelling.
    """

    queries: dict[str, str]
    repeated_texts: int
    blank_passages: tuple[str, ...]
    blank_queries: tuple[str, ...]
    alike: dict[str, str]


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
        `title`, which is put before the text (BEIR's form); or `.tsv` with id and text. Either may
        end in `.gz` or `.zst`.
    queries
        Queries: `.tsv` with id and text, or `.jsonl` with `_id` and `text`, packed or not.
    qrels
        Judgements in TREC format, or BEIR's (query-id, corpus-id, score, below a line that says
        so); None for a collection without any.
    name
        Name of the collection.
    dev
        Share of the queries, 0 <= dev < 1, that is held out as split "dev" (see `split_of`).
    max_words
        Keep this many words of each passage; None keeps the text as it is.
    judged
        Whether queries that the qrels do not name are left out: of a file with the queries of all
        splits, the qrels of one split then choose its own.
    empty
        Passages and queries without text: "error" names them, "drop" leaves them out, "keep"
        takes them as they are (`rdx.data.blank`).
    """

    corpus: _Texts
    queries: Annotated[_Texts, QUERIES]
    qrels: Annotated[str | None, READ, QUERIES] = None
    name: Annotated[str, MinLen(1), SPLITS] = "files"
    dev: Annotated[BelowOne, SPLITS] = 0.0
    max_words: Positive | None = None
    judged: Annotated[bool, SPLITS] = False
    empty: Empty = "error"

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
            If a file breaks its format, if the qrels name queries that the queries file lacks, or,
            with empty="error", if passages or queries have no text.
        """
        self.check()
        queries, odd_queries = unique(self.queries)
        qrels = self._read_qrels(queries)
        qrels.to_parquet(folder / _QRELS, index=False)
        odd = store_texts(self.corpus, folder, self.max_words, drop=self.empty == "drop")
        if self.empty == "error":
            refuse(
                *(list(odd.blank), list(odd_queries.blank)),
                {"passage": _first(self.corpus, odd), "query": _first(self.queries, odd_queries)},
            )
        passages = StoredTexts(folder)
        absent = [d for d in qrels["doc_id"].unique() if d not in passages and d not in odd.blank]
        topics = _Topics(
            queries,
            odd.repeated,
            tuple(odd.blank),
            tuple(odd_queries.blank),
            alike(absent, passages),
        )
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
            "repeated_texts", the passages whose text an earlier one has; "empty_passages", and
            of the split "empty_queries" and "qrels_of_empty", the judgements of either (dropped
            with the query, kept with the passage); given qrels, also, of the split,
            "qrels_without_passage", the judgements whose passage the corpus lacks (TREC pools go
            beyond most corpora), "qrels_spelt_otherwise", those of them whose passage it has with
            an id that is alike (`rdx.rankings.alike`), and those of `rdx.data.splits.oddities`
            (queries without judgements are left out with `judged`).

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
        queries, qrels = of_split(
            *(topics.queries, pd.read_parquet(folder / _QRELS), split, self.dev, self.queries)
        )
        counts = {"repeated_texts": topics.repeated_texts}
        examples = {}
        counts |= of_blank(queries, qrels, topics.blank_passages, topics.blank_queries)
        if self.empty == "drop":
            queries, qrels = without(topics.blank_queries, queries, qrels, self.queries)
        passages = StoredTexts(folder)
        if self.qrels is not None:
            absent = [doc_id for doc_id in qrels["doc_id"] if doc_id not in passages]
            otherwise = [doc_id for doc_id in absent if doc_id in topics.alike]
            counts["qrels_without_passage"] = len(absent)
            counts[SPELT_OTHERWISE] = len(otherwise)
            examples[SPELT_OTHERWISE] = shown({d: topics.alike[d] for d in otherwise})
            counts |= oddities(queries, qrels)
            if self.judged:
                judged = set(qrels["query_id"])
                queries = {q: text for q, text in queries.items() if q in judged}
        return Collection(self.name, queries, passages, qrels, counts, examples)

    def _read_qrels(self, queries: dict[str, str]) -> pd.DataFrame:
        if self.qrels is None:
            return qrels_of()
        qrels = read_qrels(self.qrels)
        unknown = (~qrels["query_id"].isin(list(queries))).to_numpy()
        if unknown.any():
            row = int(unknown.argmax()) + has_header(self.qrels)
            ids = list(qrels["query_id"][unknown].unique())
            more = ", ".join(map(repr, ids[1:NAMED]))
            otherwise = "; ".join(shown(alike(ids, queries)))
            raise FormatError(
                f"{self.qrels}:{line_of(self.qrels, row)}: query {ids[0]!r} is not in "
                f"{self.queries} ({len(ids)} such queries{f', also {more}' if more else ''})"
                + (f"; it has in another spelling: {otherwise}" if otherwise else "")
            )
        return qrels


def _first(path: str, odd: Oddities) -> str:
    """File and line of the first text of which nothing can be seen."""
    return f"{path}:{next(iter(odd.blank.values()), 0)}"
