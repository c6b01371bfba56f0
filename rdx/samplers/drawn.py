"""Passages drawn at random."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import rankings
from rdx.declared import settings
from rdx.draws import generator
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

    seed: int = 0
    positives: bool = False

    def index_of(self, corpus: Any) -> Any:
        """What decides the index, which is the list of the doc ids."""
        return {"ids": corpus}

    def prepare(self, collection: Any, folder: Path) -> None:
        """Write the doc ids of a collection, so that one can be looked up by its position."""
        write_ids(folder, collection.passages)

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Those of the queries that candidates can be drawn for: all."""
        return list(queries)

    def candidates(self, collection: Any, k: int, folder: Path | None = None) -> pd.DataFrame:
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
        with prepared(self, collection, folder) as place:
            ids = Ids(place)
            for query_id in collection.queries:
                draw = generator(self.seed, query_id)
                size = min(k, len(ids))
                drawn = ids.at(draw.choice(len(ids), size=size, replace=False)).tolist()
                wanted = [d for d in relevant.get(query_id, {}) if d in collection.passages][:k]
                mixed = wanted + [d for d in drawn if d not in wanted][: size - len(wanted)]
                order = draw.permutation(len(mixed)) if wanted else range(len(mixed))
                query_ids += [query_id] * len(mixed)
                doc_ids += [mixed[i] for i in order]
                scores += [-float(i) for i in range(len(mixed))]
        return rankings.rank(query_ids, doc_ids, scores)

    def fingerprint(self) -> dict[str, Any]:
        """Engine and parameters, for table footers."""
        return {"engine": "random", **asdict(self)}
