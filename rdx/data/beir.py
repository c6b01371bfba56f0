"""Load a collection in the files that BEIR ships (Thakur et al. 2021)."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import JsonValue

from rdx.collection import Collection
from rdx.data.blank import Empty
from rdx.data.layout import collection, lay_out
from rdx.data.splits import of_split
from rdx.data.texts import PACKED
from rdx.declared import (
    READ,
    SPLITS,
    BelowOne,
    DecidedBy,
    PassagesBy,
    Positive,
    content,
    settings,
)

SPLIT_FILES = ("train", "dev", "test")


def _text_file(folder: str, name: str) -> Path:
    """A file of texts, packed or not; if there is none, the one that BEIR ships."""
    paths = [Path(folder) / f"{name}.jsonl{packed}" for packed in PACKED]
    return next(filter(Path.is_file, paths), paths[0])


def _qrels(folder: str) -> dict[str, Path]:
    """The files of judgements by their split."""
    paths = {split: Path(folder) / "qrels" / f"{split}.tsv" for split in SPLIT_FILES}
    return {split: path for split, path in paths.items() if path.is_file()}


def _content(*paths: Path) -> JsonValue:
    return {path.name: content(path)[""] for path in paths if path.is_file()}


def _passages(folder: str) -> JsonValue:
    """What decides the passages."""
    return _content(_text_file(folder, "corpus"))


def _all(folder: str) -> JsonValue:
    """What decides the collection: the files that are read, and no others of the folder."""
    texts = [_text_file(folder, name) for name in ("corpus", "queries")]
    return _content(*texts, *_qrels(folder).values())


@settings(frozen=True)
class Beir:
    """A folder of BEIR: `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev,test}.tsv`.

    A passage is its title, a blank and its text, as BEIR joins them; without a title, its text. A
    split has the queries that its file of judgements names; "all" is all queries of the folder.

    Parameters
    ----------
    folder
        Where the files are. `corpus` and `queries` may end in `.gz` or `.zst` besides; fields
        other than `_id`, `title` and `text` are not read.
    name
        Name of the collection; None = that of the folder.
    dev
        Share of the training queries that is held out as split "dev", by hash of the query id,
        where the folder has no `qrels/dev.tsv`.
    max_words
        Keep this many words of each passage; None keeps the text as it is.
    empty
        Passages and queries without text, as of `Files`.
    """

    folder: Annotated[str, PassagesBy(_passages), DecidedBy(_all), READ]
    name: Annotated[str | None, SPLITS] = None
    dev: Annotated[BelowOne, SPLITS] = 0.0
    max_words: Positive | None = None
    empty: Empty = "error"

    def check(self) -> None:
        """Check that the files are there, without opening them.

        Raises
        ------
        FileNotFoundError
            If the folder, its texts or all of its judgements are missing; names the file.
        ValueError
            If queries are to be held out beside `qrels/dev.tsv`.
        """
        for name in ("corpus", "queries"):
            path = _text_file(self.folder, name)
            if not path.is_file():
                raise FileNotFoundError(f"folder={self.folder}: no such file: {path}")
        qrels = _qrels(self.folder)
        if not qrels:
            expected = ", ".join(f"{split}.tsv" for split in SPLIT_FILES)
            raise FileNotFoundError(
                f"folder={self.folder}: {Path(self.folder) / 'qrels'} has none of {expected}"
            )
        if self.dev and "dev" in qrels:
            raise ValueError(f"dev={self.dev}: {qrels['dev']} has the dev queries; give dev=0")

    @property
    def has_dev(self) -> bool:
        """Whether there are dev queries."""
        return self.dev > 0 or "dev" in _qrels(self.folder)

    def prepare(self, folder: Path) -> None:
        """Read and check the files once; write what `load` maps into memory to a folder.

        Raises
        ------
        FileNotFoundError, ValueError
            As `check`.
        FormatError
            Naming file and line, as of `Files`.
        """
        self.check()
        qrels = {split: str(path) for split, path in _qrels(self.folder).items()}
        lay_out(folder, self._corpus, self._queries, qrels, self.max_words, self.empty)

    def load(self, split: str = "all", folder: Path | None = None) -> Collection:
        """Load the collection with the queries of a split; passages stay on disk.

        Parameters
        ----------
        split
            "train", "dev", "test" or "all".
        folder
            Where `prepare` wrote; None: the files are read for this use alone.

        Returns
        -------
        Collection
            With counts as of `Files`.

        Raises
        ------
        FileNotFoundError
            If the split has no file of judgements.
        FormatError, ValueError
            As of `Files`.
        """
        if folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                self.prepare(Path(scratch))
                return self.load(split, Path(scratch))  # mapped files outlive their names
        files, cut = self._of(split)
        return collection(
            *(folder, self.name or Path(self.folder).resolve().name, files),
            partial(of_split, split=cut, dev=self.dev, where=self._queries),
            where=self._queries,
            empty=self.empty,
            judged=split != "all",
        )

    def _of(self, split: str) -> tuple[tuple[str, ...], str]:
        """The files of judgements of a split, and which of their queries it has."""
        there = _qrels(self.folder)
        if split == "all":
            return tuple(there), "all"
        file = "train" if split == "dev" and self.dev else split
        if file not in there:
            raise FileNotFoundError(
                f"{self.folder}: split {split!r} needs qrels/{file}.tsv; there are those of "
                f"{', '.join(there)}"
            )
        return (file,), split if file == "train" else "all"

    @property
    def _corpus(self) -> str:
        return str(_text_file(self.folder, "corpus"))

    @property
    def _queries(self) -> str:
        return str(_text_file(self.folder, "queries"))
