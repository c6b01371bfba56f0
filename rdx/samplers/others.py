"""Candidates without the query's own passage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import JsonValue

from rdx import rankings
from rdx.collection import Collection
from rdx.declared import Group, settings
from rdx.facts import Fingerprint
from rdx.parts import Sampler


@settings(frozen=True)
class Others:
    """What another sampler finds, but for the passage with the id of the query.

    In ArguAna, Quora and other collections queries are passages of the corpus, under the same id;
    BEIR leaves them out of rankings (Thakur et al. 2021, `ignore_identical_ids`). The sampler is
    asked for one passage more, so that k are left where it has them.

    Parameters
    ----------
    sampler
        Where the candidates come from.
    """

    sampler: Annotated[Sampler, Group("sampler")]

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index: that of the sampler."""
        return self.sampler.index_of(corpus)

    def prepare(self, collection: Collection, folder: Path) -> None:
        """Index the passages of a collection."""
        self.sampler.prepare(collection, folder)

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Return the queries that the sampler has candidates for."""
        return self.sampler.covered(queries, folder)

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """Return at most k passages of every query, none of them the query itself."""
        ranking = self.sampler.candidates(collection, k + 1, folder)
        others = rankings.without_own(ranking)
        others = others[others["rank"] <= k].reset_index(drop=True)
        others.attrs = ranking.attrs
        return others

    def fingerprint(self) -> Fingerprint:
        """The sampler's, for table footers, and what is left out."""
        return {**self.sampler.fingerprint(), "self_retrieval": "drop"}
