"""Make training lists: the same in every epoch, or drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np
import pandas as pd
import pyarrow as pa

from rdx.draws import generator
from rdx.lists.picks import Picker, Top
from rdx.lists.pools import Judged, Pools, numbers


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
class Drawn:
    """Lists of at most k passages, picked anew in every epoch; see `drawn`.

    Of every pool a list can be picked.
    """

    pools: Pools
    picker: Picker
    k: int
    seed: int

    def __call__(self, epoch: int) -> Epoch:
        """The lists of an epoch."""
        return Epoch(self, epoch if self.picker.changes else 0)

    @property
    def query_ids(self) -> list[str]:
        """Whose lists they are, in their order."""
        return list(self.pools.query_ids)


@dataclass(frozen=True, eq=False)
class Epoch(Sequence[TrainingList]):
    """The lists of an epoch; each is picked when it is asked for."""

    drawn: Drawn
    epoch: int

    def __len__(self) -> int:
        """Number of lists."""
        return len(self.drawn.pools)

    @overload
    def __getitem__(self, i: int) -> TrainingList: ...
    @overload
    def __getitem__(self, i: slice) -> list[TrainingList]: ...
    def __getitem__(self, i: int | slice) -> TrainingList | list[TrainingList]:
        """Pick a list, or several."""
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        drawn, pool = self.drawn, self.drawn.pools[range(len(self))[i]]
        draw = generator(drawn.seed, self.epoch, pool.query_id)
        positions = drawn.picker.pick(pool, drawn.k, draw)
        scores = pool.teacher[positions]
        return TrainingList(
            pool.query_id,
            tuple(pool.doc_ids(positions)),
            tuple(pool.ranks[positions].tolist()),
            None if np.isnan(scores).all() else tuple(scores.tolist()),
        )

    def __eq__(self, other: object) -> bool:
        """Whether these are the same lists in the same order."""
        return isinstance(other, Sequence) and list(self) == list(other)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Passages of each list."""
        known = self.drawn.picker.sizes(self.drawn.pools, self.drawn.k)
        return np.array([len(one.doc_ids) for one in self]) if known is None else known


def sizes(lists: Sequence[TrainingList]) -> np.ndarray:
    """Passages of each list; those of an epoch need not be picked for it."""
    return lists.sizes if isinstance(lists, Epoch) else np.array([len(o.doc_ids) for o in lists])


def fixed(selected: pd.DataFrame) -> Drawn:
    """The lists of a table, whole, in every epoch.

    Parameters
    ----------
    selected
        [query_id, doc_id, teacher_rank], and perhaps `teacher_score`: the teacher's scores, NaN
        where it has none. (A column `score` is the first stage's.)
    """
    return Drawn(Pools.of(selected), Top(), len(selected), seed=0)


def drawn(pools: Pools, picker: Picker, k: int, seed: int) -> Drawn:
    """Lists of at most k passages, picked anew in every epoch.

    What is picked is a pure function of (seed, epoch, query id) and of the query's own passages,
    whatever other queries there are, in whatever order epochs are asked for, and in however many
    processes. Queries of which no list can be picked are left out, in all epochs alike.
    """
    return Drawn(pools.kept(picker.possible(pools)), picker, k, seed)


def with_relevance(pools: Pools, relevant: Mapping[str, Mapping[str, int]]) -> Pools:
    """The pools, and which of their passages are relevant, given these of each query."""
    return replace(pools, more={**pools.more, "relevant": Judged.of(pools, relevant).relevant})


def labelled(candidates: Pools, relevant: Mapping[str, Mapping[str, int]]) -> Pools:
    """Candidates whose labels are the judgements: relevant passages have rank 1, all others 2.

    Relevant passages outside the ranking are added behind it, by doc id and with no score; to
    queries that have candidates only.
    """
    judged = Judged.of(candidates, relevant)
    queries = np.array([number for number, _ in judged.outside], dtype=np.int64)
    names, docs = _numbered([doc_id for _, doc_id in judged.outside], candidates.names)
    ends = candidates.starts[queries + 1]
    is_relevant = np.insert(judged.relevant, ends, True)
    added = np.bincount(queries, minlength=len(candidates))
    first = candidates.more.get("first")
    return Pools(
        candidates.query_ids,
        candidates.starts + np.append(0, np.cumsum(added)),
        np.insert(candidates.docs, ends, docs),
        names,
        np.where(is_relevant, np.int8(1), np.int8(2)),
        {
            "relevant": is_relevant,
            **({} if first is None else {"first": np.insert(first, ends, np.nan)}),
        },
    )


def _numbered(doc_ids: list[str], names: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The names with those of some passages added, and the numbers of these."""
    codes = numbers(doc_ids, names)
    new = [doc_id for doc_id, code in zip(doc_ids, codes.tolist(), strict=True) if code < 0]
    if new:
        names = pa.concat_arrays([names, pa.array(new, names.type).unique()])
        codes = numbers(doc_ids, names)
    return names, codes.astype(np.int32)
