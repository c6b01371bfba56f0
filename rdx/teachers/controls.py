"""Teachers that need no model: the relevance judgements, and controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.collection import Collection
from rdx.declared import Seed, settings
from rdx.draws import generator
from rdx.teachers.tables import as_teacher_ranking, permutation


@settings(frozen=True)
class Labels:
    """The relevance judgements: higher grades first, equal grades tied (teacher_rank 1, 2, ...).

    Parameters
    ----------
    scale
        Of the grades, as the scores that a student learns from (docs/teachers.md).
    """

    scale: rankings.Scale = "none"

    ranks_unseen = False
    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"labels": {}, "scores": {}}

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Rank by grade; unjudged counts as 0."""
        grade = _grades(candidates, collection)
        ranks = (-grade).groupby(candidates.query_id).rank(method="dense").astype("int32")
        return as_teacher_ranking(
            candidates.assign(teacher_rank=ranks, score=grade.astype("float32"))
        )


@settings(frozen=True)
class Oracle:
    """Control: by relevance judgement, ties in the order of the first stage; a permutation."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Rank by grade, then first-stage rank."""
        graded = candidates.assign(grade=-_grades(candidates, collection))
        return permutation(graded, ["grade", "rank"])


@settings(frozen=True)
class Identity:
    """Control: the candidates as the first stage ranked them."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Keep the first-stage order."""
        return permutation(candidates, ["rank"])


@settings(frozen=True)
class Shuffled:
    """Control: a random permutation of every list, a pure function of (seed, query id).

    Parameters
    ----------
    seed
        Another seed gives other permutations.
    """

    seed: Seed = 0

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Shuffle every list."""
        lists = candidates.groupby("query_id", sort=False).indices
        place = np.empty(len(candidates), dtype=np.int64)
        for query_id, rows in lists.items():
            place[rows] = generator(self.seed, "shuffled", query_id).permutation(len(rows))
        return permutation(candidates.assign(place=place), ["place"])


def _grades(candidates: pd.DataFrame, collection: Collection) -> pd.Series:
    relevant = collection.relevant()
    if not relevant:
        raise rankings.FormatError(f"collection {collection.name!r} has no relevance judgements")
    pairs = zip(candidates.query_id, candidates.doc_id, strict=True)
    return pd.Series([relevant.get(q, {}).get(d, 0) for q, d in pairs], index=candidates.index)
