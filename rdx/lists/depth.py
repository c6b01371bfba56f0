"""How deep training lists are, and what they are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.declared import Positive, Seed, at_least, one_of, settings
from rdx.lists.picks import Picker, Top
from rdx.lists.pools import Pools
from rdx.lists.training import Drawn, drawn, fixed, with_relevance

MODES = ("first_stage", "relabel", "teacher")


@settings(frozen=True)
class Depth:
    """How many candidates a training list holds, and which lists there are.

    Parameters
    ----------
    k
        Passages of a training list, at most.
    mode
        "first_stage": the teacher ranks `pool` candidates, those with first-stage rank <= k are
        kept in the teacher's order (the paper); "relabel": the teacher ranks the top k only;
        "teacher": the teacher ranks `pool`, its own top k are kept.
    pool
        Candidates that the teacher is given in the modes "first_stage" and "teacher"; >= k.
    queries
        Number of training queries; None = all. Samples of one seed are nested.
    seed
        Of the query sample.
    lists
        How a list's k passages are picked, a class of `rdx.lists`. `Top` takes those that
        `mode` says. The others draw them, in every epoch anew, out of all that the teacher ranked,
        in the order of the first stage ("first_stage") or of the teacher ("teacher"); they need a
        pool that is larger than k.
    """

    k: Annotated[int, at_least(2)]
    mode: Annotated[str, one_of(*MODES)] = "first_stage"
    pool: Positive = 100
    queries: Positive | None = None
    seed: Seed = 0
    lists: Picker = Top()

    def __post_init__(self) -> None:
        """Check values together."""
        if self.mode != "relabel" and self.pool < self.k:
            raise ValueError(f"pool={self.pool}: must be at least depth.k={self.k}")
        try:
            self.lists.check_depth(self.k, self.asked)
        except ValueError as error:
            raise ValueError(f"lists={type(self.lists).__name__}: {error}") from error

    @property
    def asked(self) -> int:
        """How many candidates the teacher is given."""
        return self.k if self.mode == "relabel" else self.pool

    def select(
        self, candidates: pd.DataFrame, ranking: pd.DataFrame, scale: str = "none"
    ) -> pd.DataFrame:
        """Keep the passages that training lists are made of, out of a teacher ranking.

        Columns: query_id, doc_id, rank, score (both of the first stage), teacher_rank,
        teacher_score (NaN where the teacher gives an order only), brought to a scale of
        `rdx.rankings.scaled` over all that the teacher ranked for the query. Where lists are drawn,
        all of these are kept, in the order that they are drawn by.

        Lists whose teacher ranking failed (state other than ok and repaired) and lists of fewer
        than two passages are left out. Teacher ranks are those of the longer list, so that they
        may have gaps; every loss only compares them or ranks them again.
        """
        usable = ranking[ranking.state.isin(rankings.USABLE)]
        scores = rankings.scaled(usable.score, usable.query_id, scale).astype(np.float32)
        labels = usable.assign(teacher_score=scores)
        columns = ["query_id", "doc_id", "teacher_rank", "teacher_score"]
        kept = rankings.joined(candidates, labels[columns])
        if self.mode == "teacher":
            by_teacher = kept.sort_values(["teacher_rank", "rank"], kind="stable")
            if self.lists.changes:
                kept = by_teacher
            else:
                place = by_teacher.groupby("query_id").cumcount()
                kept = kept[place.reindex(kept.index) < self.k]
        elif not self.lists.changes:
            kept = kept[kept["rank"] <= self.k]
        size = kept.groupby("query_id").doc_id.transform("size")
        return kept[size >= 2].reset_index(drop=True)

    def draws(
        self, selected: pd.DataFrame, relevant: Mapping[str, Mapping[str, int]], seed: int
    ) -> Drawn:
        """The training lists of what `select` kept, in every epoch.

        Parameters
        ----------
        relevant
            The relevant passages of each query. One that the teacher has not ranked is in no list.
        seed
            Another seed draws others.
        """
        if not self.lists.changes:
            return fixed(selected)
        return drawn(with_relevance(Pools.of(selected), relevant), self.lists, self.k, seed)
