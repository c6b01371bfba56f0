"""Make training lists: the same in every epoch, or drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from rdx.draws import generator
from rdx.lists.picks import Picker, Pool


@dataclass(frozen=True)
class TrainingList:
    """A query's passages, their teacher ranks (1 = best), and perhaps the teacher's scores."""

    query_id: str
    doc_ids: tuple[str, ...]
    teacher_ranks: tuple[int, ...]
    teacher_scores: tuple[float, ...] | None = None


# Training lists of an epoch; the same lists every time, or drawn anew as a function of the epoch.
Lists = Callable[[int], Sequence[TrainingList]]


@dataclass(frozen=True, eq=False)
class Fixed:
    """The same lists in every epoch."""

    lists: Sequence[TrainingList]

    def __call__(self, epoch: int) -> Sequence[TrainingList]:
        """The lists of an epoch."""
        return self.lists


@dataclass(frozen=True, eq=False)
class Drawn:
    """Lists of at most k passages, picked anew in every epoch; see `drawn`.

    The rows of a query are together in `table`, and of every query a list can be picked.
    """

    table: pd.DataFrame
    picker: Picker
    k: int
    seed: int

    def __call__(self, epoch: int) -> Sequence[TrainingList]:
        """The lists of an epoch."""
        return [
            _whole(pool, self.picker.pick(pool, self.k, generator(self.seed, epoch, pool.query_id)))
            for pool in _pools(self.table)
        ]


def fixed(selected: pd.DataFrame) -> Lists:
    """The lists of a table, whole, in every epoch.

    Parameters
    ----------
    selected
        [query_id, doc_id, teacher_rank], and perhaps `teacher_score`: the teacher's scores, NaN
        where it has none. (A column `score` is the first stage's.)
    """
    return Fixed([_whole(pool) for pool in _pools(_grouped(selected))])


def drawn(table: pd.DataFrame, picker: Picker, k: int, seed: int) -> Lists:
    """Lists of at most k passages, picked anew in every epoch.

    What is picked is a pure function of (seed, epoch, query id) and of the query's own passages,
    whatever other queries there are, in whatever order epochs are asked for, and in however many
    processes. Queries of which no list can be picked are left out, in all epochs alike.

    Parameters
    ----------
    table
        [query_id, doc_id, teacher_rank] and perhaps [score, teacher_score, relevant], best first:
        the order that a picker sees.
    """
    grouped = _grouped(table)
    usable = [pool.query_id for pool in _pools(grouped) if picker.possible(pool)]
    lists = Drawn(grouped[grouped.query_id.isin(usable)], picker, k, seed)
    return lists if picker.changes else Fixed(lists(0))


def with_relevance(table: pd.DataFrame, relevant: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """The table with a column `relevant`."""
    judged = [
        doc_id in relevant.get(query_id, {})
        for query_id, doc_id in zip(table.query_id, table.doc_id, strict=True)
    ]
    return table.assign(relevant=np.array(judged, dtype=bool))


def labelled(candidates: pd.DataFrame, relevant: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Candidates whose labels are the judgements: relevant passages have rank 1, all others 2.

    Relevant passages outside the ranking are added behind it, with no score; to queries that have
    candidates only.
    """
    known = set(zip(candidates.query_id, candidates.doc_id, strict=True))
    outside = [
        (query_id, doc_id)
        for query_id in candidates.query_id.unique()
        for doc_id in sorted(relevant.get(query_id, {}))
        if (query_id, doc_id) not in known
    ]
    added = pd.DataFrame(outside, columns=["query_id", "doc_id"]).astype(object)
    both = pd.concat(
        [candidates[["query_id", "doc_id", "score"]], added.assign(score=np.float32("nan"))],
        ignore_index=True,
    )
    order = np.argsort(pd.factorize(both.query_id)[0], kind="stable")
    table = with_relevance(both.iloc[order].reset_index(drop=True), relevant)
    return table.assign(teacher_rank=np.where(table.relevant, 1, 2))


def _grouped(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the rows of each query together, in their order."""
    codes = pd.factorize(table.query_id)[0]
    if (np.diff(codes) >= 0).all():
        return table
    return table.iloc[np.argsort(codes, kind="stable")]


def _pools(table: pd.DataFrame) -> Iterator[Pool]:
    """One query of a grouped table after the other; views, so that a table is held once."""
    query_ids = table.query_id.to_numpy(dtype=object)
    new = np.append(True, query_ids[1:] != query_ids[:-1])[: len(table)]
    edges = [*np.flatnonzero(new).tolist(), len(table)]
    none = np.full(len(table), np.nan)
    columns = {
        "doc_ids": table.doc_id.to_numpy(dtype=object),
        "ranks": table.teacher_rank.to_numpy(),
        "first": table.score.to_numpy() if "score" in table else none,
        "teacher": table.teacher_score.to_numpy(dtype=float) if "teacher_score" in table else none,
        "relevant": table.relevant.to_numpy() if "relevant" in table else none == 0,
    }
    for start, end in pairwise(edges):
        yield Pool(str(query_ids[start]), **{k: v[start:end] for k, v in columns.items()})


def _whole(pool: Pool, positions: np.ndarray | slice = slice(None)) -> TrainingList:
    """Some passages of a pool, by default all, as a training list."""
    scores = pool.teacher[positions]
    return TrainingList(
        pool.query_id,
        tuple(pool.doc_ids[positions].tolist()),
        tuple(pool.ranks[positions].tolist()),
        None if np.isnan(scores).all() else tuple(scores.tolist()),
    )
