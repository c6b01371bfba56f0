"""Several teachers as one: their scores averaged, or their rankings merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.collection import Collection
from rdx.declared import Group, gives, one_of, settings
from rdx.parts import Teacher
from rdx.rankings import SCALES, USABLE, Scale, scaled
from rdx.teachers import pointwise
from rdx.teachers.tables import COLUMNS, as_teacher_ranking, worst

MEAN, BORDA = "mean", "borda"
LABELS = "labels.parquet"  # of a member, in a folder of its own
KEYS = ["query_id", "doc_id"]


@settings(frozen=True)
class Fused:
    """Several teachers rank the same candidates; what they give becomes one ranking.

    A list is usable if it is usable of every member. Otherwise it has the state that the first such
    member, by name, gave it, the order of the first stage and no scores.

    Parameters
    ----------
    teachers
        The members by name, two or more.
    how
        "mean": of the members' scores, each brought to `member_scale` first; ties as trec_eval.
        "borda": of each member a passage has a point for every passage that it ranks below, and
        half a point for every other that it ties with; more points are better, and equal sums are
        ties (teacher_rank 1, 2, 2, 3, ...). It reads no scores and gives none.
    member_scale
        Of each member's scores, per query (docs/teachers.md); "none" takes them as they are.
        A member has no `scale` of its own.
    scale
        Of the mean, per query, as a student is given it.
    """

    teachers: Mapping[str, Annotated[Teacher, Group("teacher")]]
    how: Annotated[str, one_of(MEAN, BORDA)] = MEAN
    member_scale: Annotated[str, one_of(*SCALES)] = "zscore"
    scale: Scale = "none"

    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"scores": {"how": MEAN}}

    def __post_init__(self) -> None:
        """Check that there are members, and that they give what is fused."""
        if len(self.teachers) < 2:
            raise ValueError(
                f"teachers={list(self.teachers)}: must be two or more; "
                "+teacher@teacher.teachers.NAME=OPTION adds one"
            )
        for name, teacher in self.teachers.items():
            if not name.isidentifier():
                raise ValueError(f"teachers={name!r}: must be a name of letters, digits and _")
            if self.how == MEAN and not gives(teacher, "scores"):
                raise ValueError(
                    f"teachers.{name}: {type(teacher).__name__}, as it is set, gives no scores to "
                    "average; give teacher.how=borda"
                )
            if (scale := getattr(teacher, "scale", "none")) != "none":
                raise ValueError(
                    f"teachers.{name}.scale={scale}: members are scaled by teacher.member_scale"
                )

    @property
    def ranks_unseen(self) -> bool:
        """Whether all members rank any query."""
        return all(teacher.ranks_unseen for teacher in self.teachers.values())

    @property
    def service(self) -> str:
        """The services that members ask, as `Listwise.service`; "" if they ask none."""
        services = (getattr(teacher, "service", "") for teacher in self.teachers.values())
        return " and ".join(filter(None, services))

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Let one member after the other rank, and fuse; a finished one is not asked again.

        Raises
        ------
        FormatError
            If no list is usable of every member; and what the members raise.
        """
        candidates = candidates.reset_index(drop=True)
        members = [
            candidates[KEYS].merge(
                _labels(self.teachers[name], candidates, collection, _folder(work, name)),
                on=KEYS,
                how="left",
                validate="1:1",
            )
            for name in sorted(self.teachers)
        ]
        states = pd.Series([*map(worst, zip(*(frame.state for frame in members), strict=True))])
        usable = states.isin(USABLE)
        names = f"teachers={sorted(self.teachers)}"
        if len(usable) and not usable.any():
            raise rankings.FormatError(f"{names}: no list is usable of every one of them")
        if self.how == MEAN:
            scores = [scaled(f.score.where(usable), f.query_id, self.member_scale) for f in members]
            mean = pd.Series(np.mean(scores, 0), dtype="float32")
            labels = pointwise.ranked(candidates, mean, names)
        else:
            labels = _borda(candidates, members, usable)
        # of two members that contradict each other throughout, the mean may order nothing
        fused = labels.merge(candidates[KEYS].assign(given=states), on=KEYS)
        lost = (fused.state == "malformed") & fused.given.isin(USABLE)
        return fused.assign(state=fused.given.mask(lost, "malformed"))[COLUMNS]


def _borda(
    candidates: pd.DataFrame, members: Sequence[pd.DataFrame], usable: pd.Series[bool]
) -> pd.DataFrame:
    """The ranking by points; the first stage's where a list is not usable."""
    # of n passages, one at the mean rank r has n - r points
    lost = sum(f.groupby("query_id").teacher_rank.rank() for f in members)
    ranks = lost.groupby(candidates.query_id).rank(method="dense").where(usable, candidates["rank"])
    ranked = candidates.assign(teacher_rank=ranks.astype("int32"), score=np.float32("nan"))
    return as_teacher_ranking(ranked)


def _labels(
    teacher: Teacher, candidates: pd.DataFrame, collection: Collection, folder: Path
) -> pd.DataFrame:
    """What a member gives; it is kept in the folder."""
    path = folder / LABELS
    if not path.exists():
        folder.mkdir(exist_ok=True)
        rankings.store_ranking(teacher.rank(candidates, collection, folder), path)
    return rankings.read_parquet(path)


def _folder(work: Path, name: str) -> Path:
    """A member's own: its name begins as that of `work`, which a ledger knows its answers by."""
    return work / f"{work.name.partition('.')[0]}-{name}"
