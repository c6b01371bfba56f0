"""How a training list is picked out of a query's pool: a pure function of pool and generator.

The names are those of the paper's library, Lightning IR (Schlatt et al. 2025), where it has them;
its `random`, `log_random` and `top_and_random` are `RandomDepth`, `LogRank`, `HalfTopHalfRandom`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Protocol, runtime_checkable

import numpy as np

from rdx.declared import one_of, settings
from rdx.lists.pools import Pool, Pools

OF = ("first_stage", "teacher")


@runtime_checkable
class Picker(Protocol):
    """What picks a list."""

    # whether the lists of two epochs differ
    changes: ClassVar[bool]

    def possible(self, pools: Pools) -> np.ndarray:
        """Of which queries a list of two passages or more can be picked, in any epoch alike."""
        ...

    def sizes(self, pools: Pools, k: int) -> np.ndarray | None:
        """Passages of each query's list, in any epoch alike; None: a pick alone tells."""
        ...

    def pick(self, pool: Pool, k: int, draw: np.random.Generator) -> np.ndarray:
        """Positions in the pool of at most k passages, none twice."""
        ...


class _Order:
    """Pickers that need an order only."""

    changes: ClassVar[bool] = True

    def possible(self, pools: Pools) -> np.ndarray:
        return pools.sizes >= 2

    def sizes(self, pools: Pools, k: int) -> np.ndarray | None:
        return np.asarray(np.minimum(pools.sizes, k))


@settings(frozen=True)
class Top(_Order):
    """The first k: the same list in every epoch (the paper)."""

    changes: ClassVar[bool] = False

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
class SingleRelevant:
    """One relevant passage and k - 1 others, hard negatives; all drawn uniformly in every epoch.

    Relevant is what the qrels give a grade of 1 or more, so that no judged positive is drawn as a
    negative. Queries without a relevant passage or a negative are left out.

    Parameters
    ----------
    margin
        Negatives whose score is above that of the list's relevant passage minus this margin may be
        relevant and unjudged: they are left out (Moreira et al. 2024, "NV-Retriever", section 4,
        `TopK-MarginPos`). In units of the score. None: no such filter. Where one of the two
        has no score, as a relevant passage outside the ranking, nothing is left out.
    of
        Whose scores: "first_stage" or "teacher".
    """

    margin: float | None = None
    of: Annotated[str, one_of(*OF)] = "first_stage"
    changes: ClassVar[bool] = True

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
