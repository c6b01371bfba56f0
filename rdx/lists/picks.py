"""How a training list is picked out of a query's pool: a pure function of pool and generator.

The names are those of the paper's library, Lightning IR (Schlatt et al. 2025), where it has them;
its `random`, `log_random` and `top_and_random` are `RandomDepth`, `LogRank`, `HalfTopHalfRandom`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np
from annotated_types import Len
from pydantic import Strict

from rdx.declared import Positive, one_of, settings
from rdx.lists.pools import Pool, Pools

OF = ("first_stage", "teacher")


@runtime_checkable
class Picker(Protocol):
    """What picks a list."""

    # whether the lists of two epochs differ
    changes: ClassVar[bool]

    @property
    def needs(self) -> str:
        """What it reads of the teacher: "ranks" or "scores"."""
        ...

    def check_depth(self, k: int, asked: int) -> None:
        """Raise ValueError if no list of k can be drawn from so many passages of the teacher."""
        ...

    def possible(self, pools: Pools) -> np.ndarray:
        """Of which queries a list of two passages or more can be picked, in any epoch alike."""
        ...

    def sizes(self, pools: Pools, k: int) -> np.ndarray | None:
        """Passages of each query's list, in any epoch alike; None: a pick alone tells."""
        ...

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in the pool of at most k passages, none twice."""
        ...


class _Drawn:
    """Pickers whose lists are drawn anew in every epoch."""

    changes: ClassVar[bool] = True

    def check_depth(self, k: int, asked: int) -> None:
        """A draw needs more passages than it takes."""
        if asked <= k:
            raise ValueError(
                f"there is nothing to draw from, the teacher ranks no more than depth.k={k} "
                'passages; give a depth.pool above that, and a depth.mode other than "relabel"'
            )


class _Order(_Drawn):
    """Pickers of min(k, passages of the query) passages; they need an order only."""

    needs: ClassVar[str] = "ranks"

    def possible(self, pools: Pools) -> np.ndarray:
        return pools.sizes >= 2

    def sizes(self, pools: Pools, k: int) -> np.ndarray | None:
        return np.asarray(np.minimum(pools.sizes, k))


@settings(frozen=True)
class Top(_Order):
    """The first k: the same list in every epoch (the paper)."""

    changes: ClassVar[bool] = False

    def check_depth(self, k: int, asked: int) -> None:
        """It draws nothing."""

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions 0 to k - 1."""
        return np.arange(min(k, len(pool)))


@settings(frozen=True)
class RandomDepth(_Order):
    """K passages drawn uniformly, without replacement, in every epoch anew."""

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in rising order."""
        return _weighted(np.ones(len(pool)), k, draw)


@settings(frozen=True)
class LogRank(_Order):
    """K passages drawn one after the other without replacement, those at the top more often.

    The weight of place r (1 = best) is 1 / log(1 + r), to any base.
    """

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in rising order."""
        return _weighted(1 / np.log1p(np.arange(1, len(pool) + 1)), k, draw)


@settings(frozen=True)
class HalfTopHalfRandom(_Order):
    """The first k // 2, and the others drawn uniformly from what follows, in every epoch anew."""

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in rising order."""
        top = min(k // 2, len(pool))
        rest = _weighted(np.ones(len(pool) - top), k - top, draw)
        return np.concatenate([np.arange(top), top + rest])


@settings(frozen=True)
class ScoreQuantiles(_Order):
    """K passages that cover the range of the teacher's scores, in every epoch anew.

    Stratified sampling, after Jang et al. 2026 (arXiv 2604.04734), who draw from all of the
    teacher's scores and not from the best. The strata are ours: passage i of n is at the quantile
    q_i = (lower + equal / 2) / n of its query's scores, where `lower` of them are below its score
    and `equal` are equal to it, itself included, and is in stratum floor(k q_i) of k. One passage
    is drawn of each stratum, uniformly; without ties each holds n / k, rounded up or down.

    Equal scores are in one stratum, in whatever order their passages come. Strata that are empty
    for that give their place to passages drawn uniformly from all that are left. A query with k
    passages or fewer has them all. A passage without a score counts as below all others.
    """

    needs: ClassVar[str] = "scores"

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in rising order."""
        n = len(pool)
        strata = _quantiles(np.nan_to_num(pool.teacher, nan=-np.inf)) * k // (2 * n)
        order = draw.permutation(n)  # the first of a stratum is the drawn one
        first = np.zeros(n, dtype=bool)
        first[np.unique(strata[order], return_index=True)[1]] = True
        # those of a stratum, then the others as they come
        return np.sort(order[np.argsort(~first, kind="stable")][:k])


@settings(frozen=True)
class HeadAndBand(_Drawn):
    """The teacher's best, and passages of medium difficulty from a band of its ranking.

    Ettin's retrieval data (Aarsen 2026, "Introducing the Ettin Reranker Family", Dataset): 64 of
    256 passages, 32 from the top of the teacher's ranking and 32 out of a band further down. Its
    places are not in that text. Ties keep the order of the first stage, or of the teacher with
    depth.mode=teacher.

    Parameters
    ----------
    head
        Passages from the top of the teacher's ranking, the same in every epoch.
    band
        First and last place of the band in the teacher's ranking of the query, from 1. The other
        k - head passages are drawn from it, uniformly, in every epoch anew; of a query whose
        ranking ends before, there are fewer.
    """

    head: Positive = 5
    band: Annotated[tuple[int, ...], Strict(False), Len(2, 2)] = (11, 30)

    needs: ClassVar[str] = "ranks"

    def __post_init__(self) -> None:
        """Check values together."""
        start, end = self.band
        if not self.head < start <= end:
            raise ValueError(
                f"band={list(self.band)}: must be its first and last place, below head={self.head}"
            )

    def check_depth(self, k: int, asked: int) -> None:
        """Whether the band holds the k - head passages that are drawn from it."""
        start, end = self.band
        there = max(min(end, asked) - start + 1, 0)
        if k <= self.head:
            raise ValueError(f"depth.k={k} leaves none to draw beside head={self.head}")
        if there < k - self.head:
            raise ValueError(
                f"of the band {list(self.band)} the teacher ranks {there} passages, "
                f"depth.k={k} minus head={self.head} are to be drawn from it"
            )

    def possible(self, pools: Pools) -> np.ndarray:
        """Where two passages are in head and band."""
        return np.asarray(np.minimum(pools.sizes, self.head) + self._there(pools.sizes) >= 2)

    def sizes(self, pools: Pools, k: int) -> np.ndarray | None:
        """The head, and what the band has of the others."""
        top = np.minimum(pools.sizes, min(self.head, k))
        return np.asarray(top + np.minimum(self._there(pools.sizes), max(k - self.head, 0)))

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in the teacher's order."""
        order = np.argsort(pool.ranks, kind="stable")
        start, end = self.band
        band = order[start - 1 : end]
        drawn = _weighted(np.ones(len(band)), k - self.head, draw)
        return np.concatenate([order[: min(self.head, k)], band[drawn]])

    def _there(self, sizes: np.ndarray) -> np.ndarray:
        """Passages of the band of rankings of these sizes."""
        start, end = self.band
        return np.asarray(np.maximum(np.minimum(sizes, end) - start + 1, 0))


@settings(frozen=True)
class SingleRelevant(_Drawn):
    """One relevant passage and k - 1 others, hard negatives; all drawn uniformly in every epoch.

    Relevant is what the qrels give a grade of 1 or more, so that no judged positive is drawn as a
    negative. Queries without a relevant passage or a negative are left out.

    Parameters
    ----------
    margin
        Negatives whose score is above that of the list's relevant passage minus this margin may be
        relevant and unjudged: they are left out (Moreira et al. 2024, NV-Retriever, section 4,
        TopK-MarginPos). In units of the score. None: no such filter. Where one of the two has no
        score, as a relevant passage outside the ranking, nothing is left out.
    of
        Whose scores: "first_stage" or "teacher".
    """

    margin: float | None = None
    of: Annotated[str, one_of(*OF)] = "first_stage"

    @property
    def needs(self) -> str:
        """The teacher's scores, where they filter."""
        return "scores" if self.margin is not None and self.of == "teacher" else "ranks"

    def possible(self, pools: Pools) -> np.ndarray:
        """Where there is a relevant passage, and a negative beside it."""
        relevant = pools.column("relevant")
        if self.margin is None:
            positives = pools.each(np.add, relevant)
            return (positives > 0) & (positives < pools.sizes)
        scores = pools.column(self._of)
        # the lowest negative is the one that is left if any is; one without a score always is
        others = np.where(relevant, np.inf, np.nan_to_num(scores, nan=-np.inf))
        lowest = np.repeat(pools.each(np.minimum, others), pools.sizes)
        usable = relevant & ~(lowest > scores - self.margin) & (lowest < np.inf)
        return pools.each(np.logical_or, usable)

    def sizes(self, pools: Pools, k: int) -> np.ndarray | None:
        """The relevant passage and the negatives; with a margin these depend on the former."""
        if self.margin is not None:
            return None
        negatives = pools.each(np.add, ~pools.column("relevant"))
        return np.asarray(1 + np.minimum(k - 1, negatives))

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """The relevant passage first, then the negatives as drawn."""
        negatives, positives = np.flatnonzero(~pool.relevant), self._positives(pool)
        # all are put into an order where some may have to be passed over
        count = min(k - 1, len(negatives)) if self.margin is None else len(negatives)
        order = negatives[draw.choice(len(negatives), size=count, replace=False)]
        positive = positives[draw.integers(len(positives))]
        kept = order[self._apart(pool, positive, order)][: k - 1]
        return np.concatenate([[positive], kept])

    def _positives(self, pool: Pool) -> np.ndarray:
        """The relevant passages that have a negative, by doc id."""
        negatives, relevant = np.flatnonzero(~pool.relevant), np.flatnonzero(pool.relevant)
        usable = [i for i in relevant.tolist() if self._apart(pool, i, negatives).any()]
        if len(usable) > 1:
            doc_ids = pool.doc_ids(np.array(usable))
            usable = [i for _, i in sorted(zip(doc_ids, usable, strict=True))]
        return np.array(usable, dtype=int)

    def _apart(self, pool: Pool, positive: int, negatives: np.ndarray) -> np.ndarray:
        """Which negatives the filter leaves."""
        if self.margin is None:
            return np.ones(len(negatives), dtype=bool)
        scores: np.ndarray = getattr(pool, self._of)
        too_close: np.ndarray = scores[negatives] > scores[positive] - self.margin
        return ~too_close

    @property
    def _of(self) -> str:
        """Whose scores, as pools name them."""
        return "first" if self.of == "first_stage" else "teacher"


def _weighted(weights: np.ndarray, k: int, draw: np.random.Generator) -> np.ndarray:
    """Draw k of n one after the other, each with its weight among those that are left; sorted.

    The k largest of log(u) / weight with u uniform (Efraimidis and Spirakis 2006, algorithm A): as
    every passage has its own u, a list of k is part of the list of k + 1.
    """
    with np.errstate(divide="ignore"):  # u may be 0
        keys = np.log(draw.random(len(weights))) / weights
    return np.sort(np.argsort(-keys, kind="stable")[: max(k, 0)])


def _quantiles(scores: np.ndarray) -> np.ndarray:
    """Of each score, twice how many are lower, and how many are equal, itself included."""
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, scores, side="left")
    return np.asarray(below + np.searchsorted(ordered, scores, side="right"))
