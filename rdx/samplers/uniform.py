"""Draw candidates uniformly at random."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
from pydantic import JsonValue

from rdx import rankings
from rdx.collection import Collection
from rdx.declared import Seed, settings
from rdx.draws import generator
from rdx.facts import Fingerprint
from rdx.samplers.indexes import Ids, prepared, write_ids


@settings(frozen=True)
class Random:
    """Passages drawn uniformly without replacement: a pure function of (seed, query id).

    Parameters
    ----------
    seed
        Another seed draws others.
    positives
        Whether the query's relevant passages are put among them (replacing the last drawn).
    """

    seed: Seed = 0
    positives: bool = False
    scores = False  # they say nothing of relevance

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index, which is the list of the doc ids."""
        return {"ids": corpus}

    def prepare(self, collection: Collection, folder: Path) -> None:
        """Write the doc ids of a collection, so that one can be looked up by its position."""
        write_ids(folder, collection.passages)

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Return all queries: there are passages for each."""
        return list(queries)

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """Draw k passages for every query; the score is the negative position.

        What is drawn are positions in the collection, so that the time does not grow with it.

        Parameters
        ----------
        collection
            Its queries are drawn for.
        k
            Passages of a query, at most.
        folder
            Where `prepare` wrote the doc ids; None lists them now.
        """
        relevant = collection.relevant() if self.positives else {}
        query_ids: list[str] = []
        doc_ids: list[str] = []
        scores: list[float] = []
        with prepared(partial(self.prepare, collection), folder) as index:
            ids = Ids(index)
            for query_id in collection.queries:
                draw = generator(self.seed, query_id)
                size = min(k, len(ids))
                drawn = ids.at(draw.choice(len(ids), size=size, replace=False)).tolist()
                positives = [d for d in relevant.get(query_id, {}) if d in collection.passages][:k]
                others = [d for d in drawn if d not in positives][: size - len(positives)]
                passages = positives + others
                order = draw.permutation(len(passages)) if positives else range(len(passages))
                query_ids += [query_id] * len(passages)
                doc_ids += [passages[i] for i in order]
                scores += [-float(i) for i in range(len(passages))]
        return rankings.rank(query_ids, doc_ids, scores)

    def fingerprint(self) -> Fingerprint:
        """Engine and parameters, for table footers."""
        return {"engine": "random", **asdict(self)}
