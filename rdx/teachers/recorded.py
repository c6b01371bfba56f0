"""A recorded teacher ranking, such as the published run of an LLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.collection import Collection
from rdx.declared import READ, RELEASED, one_of, settings
from rdx.teachers.tables import permutation


@settings(frozen=True)
class Recorded:
    """A given teacher ranking, such as an LLM's published run.

    Parameters
    ----------
    run
        TREC run, plain, `.gz` or `.zst`; or a parquet file with `query_id`, `doc_id`, `rank` and
        `score`, whose lists are looked up. Only the lists that are asked for are held in memory.
    order
        "rank": the rank column is the permutation, and scores are left out (those of such files
        are often copies of the first stage's); "score": trec_eval's order, and scores are kept.
    scale
        Of the scores that a student learns from, per query (docs/teachers.md).
    """

    run: Annotated[str, READ, RELEASED]
    order: Annotated[str, one_of("rank", "score")] = "rank"
    scale: rankings.Scale = "none"

    ranks_unseen = False
    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"scores": {"order": "score"}}

    def check(self) -> None:
        """Raise FileNotFoundError if the file is not there."""
        if not Path(self.run).is_file():
            raise FileNotFoundError(
                f"run={self.run}: no such file (docs/paper.md lists those of the paper; "
                "`python -m rdx data status` says which can be fetched)"
            )

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Look the candidates up; a list of which a passage is not in the run is "failed".

        Raises
        ------
        FormatError
            If the run covers no list of the candidates.
        """
        recorded = self._lists(list(dict.fromkeys(candidates.query_id)))
        joined = candidates[["query_id", "doc_id", "rank"]].merge(
            recorded.rename(columns={"rank": "recorded_rank"})[
                ["query_id", "doc_id", "recorded_rank", "score"]
            ],
            on=["query_id", "doc_id"],
            how="left",
        )
        complete = joined.recorded_rank.notna().groupby(joined.query_id).transform("all")
        if not complete.any():
            raise rankings.FormatError(
                f"{self.run}: ranks all candidates of none of the {joined.query_id.nunique()} "
                "training queries; are the candidates those that the teacher was given?"
            )
        joined["recorded_rank"] = joined.recorded_rank.fillna(np.inf)
        scores = joined.score.to_numpy() if self.order == "score" else np.nan
        return permutation(joined, ["recorded_rank", "rank"]).assign(
            score=np.float32(scores), state=np.where(complete, "ok", "failed")
        )

    def _lists(self, queries: list[str]) -> pd.DataFrame:
        """The lists of some queries, those that the run has, as a ranking."""
        if not self.run.endswith(".parquet"):
            blocks = rankings.stream_trec(self.run, self.order)  # type: ignore[arg-type]
            parts = [block[block.query_id.isin(queries)] for block in blocks]
            return pd.concat(parts, ignore_index=True)
        stored = rankings.StoredRanking(self.run)
        lists = stored.of([query_id for query_id in queries if query_id in stored])
        if self.order == "score":
            return rankings.rank(lists.query_id, lists.doc_id, lists.score)
        lists = lists.sort_values("rank", kind="stable")
        return lists.assign(rank=lists.groupby("query_id").cumcount() + 1)
