"""The form of a teacher ranking, and how rankings are turned into it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rdx.rankings import USABLE

COLUMNS = ["query_id", "doc_id", "teacher_rank", "score", "state"]


def permutation(candidates: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The teacher ranking that sorts every list by some columns; scores are NaN."""
    order = candidates.sort_values(by, kind="stable")
    ranks = (order.groupby("query_id").cumcount() + 1).reindex(candidates.index).astype("int32")
    return as_teacher_ranking(candidates.assign(teacher_rank=ranks, score=np.float32("nan")))


def as_teacher_ranking(ranking: pd.DataFrame) -> pd.DataFrame:
    """Columns of a teacher ranking, all lists in state "ok"."""
    return ranking.assign(state="ok")[COLUMNS].reset_index(drop=True)


def worst(states: Sequence[str]) -> str:
    """The state of a list that was ranked several times: an unusable one decides."""
    unusable = [state for state in states if state not in USABLE]
    return unusable[0] if unusable else "repaired" if "repaired" in states else "ok"
