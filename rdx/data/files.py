"""Load a collection from files: a corpus, queries and, if there are any, qrels."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen
from pydantic import AfterValidator

from rdx.collection import Collection
from rdx.data.blank import Empty
from rdx.data.layout import collection, lay_out
from rdx.data.splits import of_split
from rdx.data.texts import ENDINGS
from rdx.declared import QUERIES, READ, SPLITS, BelowOne, Positive, settings


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
        Share of the queries that is held out as split "dev", by hash of the query id.
    max_words
        Keep this many words of each passage; None keeps the text as it is.
    judged
        Whether queries that the qrels do not name are left out: of a file with the queries of all
        splits, the qrels of one split then choose its own.
    empty
        Passages and queries without text: "error" names them, "drop" leaves them out, "keep"
        takes them as they are.
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
        lay_out(folder, self.corpus, self.queries, self._qrels, self.max_words, self.empty)

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
        return collection(
            *(folder, self.name, tuple(self._qrels)),
            partial(of_split, split=split, dev=self.dev, where=self.queries),
            where=self.queries,
            empty=self.empty,
            judged=self.judged,
        )

    @property
    def has_dev(self) -> bool:
        """Whether queries are held out."""
        return self.dev > 0

    @property
    def _qrels(self) -> dict[str, str]:
        return {} if self.qrels is None else {"all": self.qrels}
