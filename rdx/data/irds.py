"""Load collections of ir_datasets (MacAvaney et al. 2021; https://ir-datasets.com)."""

import difflib
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from annotated_types import MinLen

from rdx import facts
from rdx.collection import Collection
from rdx.data import catalogue
from rdx.data.blank import Empty, blank, of_blank, refuse, without
from rdx.data.sources import TOPICS, Dataset, DocStore, Text
from rdx.data.splits import oddities, of_split, qrels_of
from rdx.declared import CATALOGUED, SPLITS, BelowOne, PassagesBy, settings
from rdx.rankings import FormatError, one_word


def _passages(dataset_id: str) -> str:
    """What decides the passages: one data set of the many that share them."""
    import ir_datasets

    try:
        parent: str = ir_datasets.docs_parent_id(dataset_id)
    except KeyError:  # no such data set: refused where all values are checked
        return dataset_id
    return parent


@settings(frozen=True)
class IrDatasets:
    """A data set of ir_datasets that was fetched before (docs/data.md).

    Parameters
    ----------
    id
        Id in the catalogue, such as "msmarco-passage/trec-dl-2019/judged".
    dev
        Share of the queries that is held out as split "dev", by hash of the query id.
    empty
        Passages and queries without text, as of `Files`.
    """

    id: Annotated[str, MinLen(1), CATALOGUED, PassagesBy(_passages)]
    dev: Annotated[BelowOne, SPLITS] = 0.0
    empty: Empty = "error"

    @property
    def name(self) -> str:
        """Name of the collection: the id."""
        return self.id

    @property
    def has_dev(self) -> bool:
        """Whether queries are held out."""
        return self.dev > 0

    def check(self) -> None:
        """Raise ValueError if ir_datasets has no such data set; nothing is fetched."""
        _find(self.id)

    def prepare(self, folder: Path) -> None:
        """Write down what was fetched; the passages stay in the store of ir_datasets."""
        (folder / "fetched.json").write_text(facts.dump(catalogue.inventory(self.id)))

    def load(self, split: str = "all", folder: Path | None = None) -> Collection:
        """Load queries and qrels; passages stay on disk and are looked up by id.

        Parameters
        ----------
        split
            "train" (queries that are not held out), "dev" (those that are) or "all".
        folder
            Not needed: ir_datasets has a place of its own.

        Returns
        -------
        Collection
            `counts` holds "repeated_qrels" (equal rows, of which one is kept),
            "qrels_without_query" (dropped; with all queries of the data set, not of the split),
            "empty_passages" (of passages that were fetched, see `catalogue.blank_docs`),
            "empty_queries" and "qrels_of_empty" as of `Files`, and those of
            `rdx.data.splits.oddities`. Without judgements, qrels is empty.

        Raises
        ------
        FileNotFoundError
            If its queries and judgements have not been fetched; names the command that does.
            Passages are asked for when one is looked up.
        ValueError
            If the id or the split is unknown, the data set has no queries or no documents, or
            the split has no query.
        FormatError
            If, with empty="error", passages or queries have no text, if a query id is not one word
            or occurs twice, or the judgements of a pair contradict each other.
        """
        dataset = _find(self.id)
        catalogue.refuse_absent(self.id, dataset, TOPICS)
        queries = _queries(dataset, self.id)
        no_passages = catalogue.blank_docs(self.id, dataset)
        no_queries = [query_id for query_id, text in queries.items() if blank(text)]
        if self.empty == "error":
            refuse(no_passages, no_queries, dict.fromkeys(("passage", "query"), self.id))
        qrels, counts = _qrels(dataset, self.id)
        if dataset.has("qrels"):
            known = qrels["query_id"].isin(list(queries))
            counts["qrels_without_query"] = int((~known).sum())
        queries, qrels = of_split(queries, qrels, split, self.dev, self.id)
        counts |= of_blank(queries, qrels, no_passages, no_queries)
        dropped: frozenset[str] = frozenset()
        if self.empty == "drop":
            queries, qrels = without(no_queries, queries, qrels, self.id)
            dropped = frozenset(no_passages)
        if dataset.has("qrels"):
            counts |= oddities(queries, qrels)
        return Collection(self.name, queries, Passages(self.id, dataset, dropped), qrels, counts)


class Passages(Mapping[str, str]):
    """The documents of a data set as a lazy mapping from doc id to text.

    Single passages come from the document store; iteration, which runs over the whole corpus,
    reads it in order. Those with the ids `dropped` are none of it.
    """

    def __init__(
        self, dataset_id: str, dataset: Dataset, dropped: frozenset[str] = frozenset()
    ) -> None:
        self._id, self._dataset, self._dropped = dataset_id, dataset, dropped
        self._opened: DocStore | None = None

    @property
    def _store(self) -> DocStore:
        if self._opened is None:
            catalogue.refuse_absent(self._id, self._dataset, ("docs",))
            self._opened = self._dataset.docs_store()
        return self._opened

    def __getitem__(self, doc_id: str) -> str:
        """Return the text of a passage; KeyError if there is none with this id."""
        if doc_id in self._dropped:
            raise KeyError(doc_id)
        return str(self._store.get(doc_id).default_text())

    def holds(self, doc_ids: Sequence[str]) -> np.ndarray:
        """Whether there is a passage with each of these ids, without reading it where that goes."""
        from ir_datasets.indices import PickleLz4FullStore

        store = self._store
        if not isinstance(store, PickleLz4FullStore) or store.lookup._key_field_prefix:
            return np.array([doc_id in self for doc_id in doc_ids], dtype=bool)
        index = store.lookup.idx()
        indexed = np.array(index[doc_ids], dtype=np.int64) >= 0
        # the index compares the beginning of a key that is longer than all of its own
        fits = (len(doc_id.encode()) <= index.keylen for doc_id in doc_ids)
        known = (doc_id not in self._dropped for doc_id in doc_ids)
        return np.asarray(indexed & np.fromiter(fits, bool) & np.fromiter(known, bool))

    def __iter__(self) -> Iterator[str]:
        """Iterate over doc ids in corpus order."""
        return (doc.doc_id for doc in self._docs())

    def __len__(self) -> int:
        """Return the number of passages; counted if ir_datasets does not know it."""
        known = self._dataset.docs_count()
        return sum(1 for _ in self) if known is None else int(known) - len(self._dropped)

    def items(self) -> ItemsView[str, str]:
        """Return (doc id, text) pairs, read in corpus order rather than fetched one by one."""
        return _Items(self)

    def _docs(self) -> Iterator[Text]:
        catalogue.refuse_absent(self._id, self._dataset, ("docs",))
        return (doc for doc in self._dataset.docs_iter() if doc.doc_id not in self._dropped)


class _Items(ItemsView[str, str]):
    _mapping: Passages

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for doc in self._mapping._docs():
            yield doc.doc_id, str(doc.default_text())


def _find(dataset_id: str) -> Dataset:
    try:
        dataset = catalogue.load(dataset_id)
    except KeyError:
        known = catalogue.ids()
        close = difflib.get_close_matches(dataset_id, known, n=3)
        hint = f"; close: {', '.join(close)}" if close else ""
        raise ValueError(f"data.id={dataset_id}: ir_datasets has no such data set{hint}") from None
    for what in ("docs", "queries"):
        if not dataset.has(what):
            below = [name for name in catalogue.ids() if name.startswith(f"{dataset_id}/")][:5]
            hint = f"; below it are: {', '.join(below)}" if below else ""
            raise ValueError(f"data.id={dataset_id}: the data set has no {what}{hint}")
    return dataset


def _queries(dataset: Dataset, where: str) -> dict[str, str]:
    queries: dict[str, str] = {}
    for query in dataset.queries_iter():
        text = str(query.default_text())
        if query.query_id in queries:
            raise FormatError(f"{where}: query {query.query_id!r} occurs a second time")
        if not one_word(query.query_id):
            raise FormatError(f"{where}: query id {query.query_id!r} must be one word")
        queries[query.query_id] = text
    return queries


def _qrels(dataset: Dataset, where: str) -> tuple[pd.DataFrame, dict[str, int]]:
    if not dataset.has("qrels"):
        return qrels_of(), {}
    qrels = qrels_of((row.query_id, row.doc_id, row.relevance) for row in dataset.qrels_iter())
    kept = qrels.drop_duplicates()
    clash = kept.duplicated(["query_id", "doc_id"]).to_numpy()
    if clash.any():
        row = kept.iloc[int(clash.argmax())]
        raise FormatError(
            f"{where}: query {row['query_id']!r}, doc {row['doc_id']!r} has two relevances"
        )
    return kept.reset_index(drop=True), {"repeated_qrels": len(qrels) - len(kept)}
