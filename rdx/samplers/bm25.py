"""Retrieve with BM25, from an index on disk."""

from __future__ import annotations

import importlib.metadata
import logging
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import AfterValidator, JsonValue

from rdx.bars import bar, terminal
from rdx.collection import Collection
from rdx.declared import From0, Share, one_of, settings
from rdx.facts import Fingerprint
from rdx.samplers.indexes import BLOCK, Ids, best, blocks, prepared, table, write_ids

VARIANTS = ("robertson", "atire", "bm25l", "bm25+", "lucene")


def _stemmer(name: str) -> str:
    import Stemmer

    valid = ["none", *Stemmer.algorithms()]
    if name not in valid:
        raise ValueError(f"must be one of {valid}")
    return name


@settings(frozen=True)
class BM25:
    """BM25 by bm25s (Lù 2024), with PyStemmer's Snowball stemmers.

    Passages that share no term with the query are not retrieved. Ties as trec_eval.

    Parameters
    ----------
    variant
        One of bm25s' variants.
    k1
        How soon further occurrences of a term count less.
    b
        How much the length of a passage counts: 0 not at all, 1 fully.
    stopwords
        A language code of bm25s' stop word lists, or "none".
    stemmer
        Name of a Snowball stemmer, or "none".
    """

    variant: Annotated[str, one_of(*VARIANTS)] = "lucene"
    k1: From0 = 0.9
    b: Share = 0.4
    stopwords: str = "en"
    stemmer: Annotated[str, AfterValidator(_stemmer)] = "english"

    engines: ClassVar[tuple[str, ...]] = ("bm25s", "PyStemmer")

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index: the passages, engine, versions and parameters."""
        return {"corpus": corpus, **self.fingerprint()}

    def prepare(self, collection: Collection, folder: Path) -> None:
        """Index the passages of a collection.

        The texts are read once, in blocks. What stays in memory until bm25s has sorted them is 4
        bytes for every word and some 36 for every distinct word of every passage (an estimate of
        10 GB for the 8.8 million passages of MS MARCO).

        Raises
        ------
        ValueError
            If no passage has a term.
        """
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it chooses DEBUG at its import
        count = write_ids(folder, collection.passages)
        texts = (text for _, text in collection.passages.items())
        large = count > 5 * BLOCK
        shown = bar(texts, desc="reading passages", total=count, unit="passage", disable=not large)
        corpus = _Corpus(self._tokens(block) for block in blocks(shown, BLOCK))
        if not corpus.vocab:
            raise ValueError(f"collection {collection.name!r}: no passage has a term to index")
        index = bm25s.BM25(method=self.variant, k1=self.k1, b=self.b)
        index.index(corpus, show_progress=large and terminal())
        index.save(folder)

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Return all queries: there are passages for each."""
        return list(queries)

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """Rank the top k passages for every query of a collection.

        Parameters
        ----------
        collection
            Its queries are searched for.
        k
            Passages of a query, at most.
        folder
            Where `prepare` indexed the passages, mapped into memory; None indexes them now.
        """
        import bm25s

        tokens = self._tokens(list(collection.queries.values()), return_ids=False)
        positions, values = [], []
        with prepared(partial(self.prepare, collection), folder) as place:
            index, ids = bm25s.BM25.load(place, mmap=True), Ids(place)
            # What BM25L and BM25+ give a passage for terms that it lacks is a constant per query:
            # without it the order is the same, and only passages that share a term are above 0.
            index.nonoccurrence_array = None
            for terms in tokens:
                known = [index.vocab_dict[t] for t in terms if t and t in index.vocab_dict]
                scores = index.get_scores_from_ids(known)
                hits = np.flatnonzero(scores > 0)
                hits = hits[best(scores[hits], ids.places[hits], k)]
                positions.append(hits)
                values.append(scores[hits])
            return table(collection.queries, ids, positions, values)

    def fingerprint(self) -> Fingerprint:
        """Engine, versions and parameters, for table footers."""
        versions: Fingerprint = {
            name: importlib.metadata.version(name) for name in ("bm25s", "PyStemmer")
        }
        return {"engine": "bm25s", "versions": versions, **asdict(self)}

    def _tokens(self, texts: list[str], return_ids: bool = True) -> Any:  # as bm25s gives them
        import bm25s
        import Stemmer

        return bm25s.tokenize(
            texts,
            stopwords=None if self.stopwords == "none" else self.stopwords,
            stemmer=None if self.stemmer == "none" else Stemmer.Stemmer(self.stemmer),
            return_ids=return_ids,
            show_progress=False,
        )


class _Corpus:
    """Tokenised blocks joined into one corpus as bm25s takes it, 4 bytes a token.

    Attributes
    ----------
    ids
        This object: iterating gives every passage's token ids.
    vocab
        Term to token id.
    """

    def __init__(self, tokenised: Iterable[Any]) -> None:
        self.vocab: dict[str, int] = {}
        self._flat, self._ends = array("i"), array("q", [0])
        for block in tokenised:
            merged = np.zeros(len(block.vocab), dtype=np.int32)
            for term in sorted(block.vocab):  # stems come as a set: in no fixed order
                merged[block.vocab[term]] = self.vocab.setdefault(term, len(self.vocab))
            local = np.fromiter(chain.from_iterable(block.ids), dtype=np.int64)
            self._flat.frombytes(merged[local].tobytes())
            for passage in block.ids:
                self._ends.append(self._ends[-1] + len(passage))

    @property
    def ids(self) -> _Corpus:
        return self

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            yield self._flat[start:end].tolist()
