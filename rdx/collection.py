"""Collections: queries, passages and relevance judgements, and how queries are split."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from rdx.text import counted

SPELT_OTHERWISE = "qrels_spelt_otherwise"  # in `Collection.counts`


@runtime_checkable
class Holding(Protocol):
    """Passages of which many can be looked for at once, without reading them."""

    def holds(self, doc_ids: Sequence[str]) -> np.ndarray:
        """Whether there is a passage with each of these ids."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Queries, passages and qrels.

    Parameters
    ----------
    name
        Name of the collection; with a query id it identifies a query.
    queries
        Query id to text.
    passages
        Doc id to text; may be lazy, so look ids up rather than copy it.
    qrels
        `query_id` (str), `doc_id` (str), `relevance` (int32); may name passages that are not
        in `passages`.
    counts
        Oddities that were met while loading, by name (docs/data.md).
    examples
        The first few of some of them.
    """

    name: str
    queries: dict[str, str]
    passages: Mapping[str, str]
    qrels: pd.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def relevant(self, min_relevance: int = 1) -> dict[str, dict[str, int]]:
        """Return the relevant passages of each query.

        Parameters
        ----------
        min_relevance
            Lowest grade that counts as relevant.

        Returns
        -------
        dict
            Query id to {doc id: relevance}; queries without a relevant passage are absent.
        """
        found: dict[str, dict[str, int]] = {}
        kept = self.qrels[self.qrels["relevance"] >= min_relevance]
        for query_id, doc_id, grade in zip(
            kept["query_id"], kept["doc_id"], kept["relevance"], strict=True
        ):
            found.setdefault(query_id, {})[doc_id] = int(grade)
        return found

    def holds(self, doc_ids: Sequence[str]) -> np.ndarray:
        """Whether there is a passage with each of these ids."""
        if isinstance(self.passages, Holding):
            return self.passages.holds(doc_ids)
        return np.array([doc_id in self.passages for doc_id in doc_ids], dtype=bool)

    def ordered(self, ids: Iterable[str], seed: int) -> list[str]:
        """Put some of its query ids into the order whose beginnings are samples.

        That of `sample_queries`.
        """
        return sample_queries(ids, None, seed)

    def sample(
        self, ids: Iterable[str], n: int | None, seed: int, key: str = "queries"
    ) -> list[str]:
        """Draw a sample of some of its query ids; parameters and errors as of `sample_queries`."""
        return _first(self.ordered(ids, seed), n, key)

    def subset(self, query_ids: Iterable[str]) -> "Collection":
        """Restrict queries and qrels to some queries; the passages are shared, not copied.

        Parameters
        ----------
        query_ids
            Ids to keep, in the order wanted.

        Returns
        -------
        Collection
            With the same `counts`: they describe the collection as it was loaded.

        Raises
        ------
        ValueError
            If an id is not in the collection.
        """
        wanted = list(dict.fromkeys(query_ids))
        unknown = [query_id for query_id in wanted if query_id not in self.queries]
        if unknown:
            raise ValueError(
                f"collection {self.name!r} has no query {unknown[0]!r} "
                f"({len(unknown)} of {len(wanted)} ids are unknown)"
            )
        queries = {query_id: self.queries[query_id] for query_id in wanted}
        qrels = self.qrels[self.qrels["query_id"].isin(wanted)].reset_index(drop=True)
        return replace(self, queries=queries, qrels=qrels)


def split_of(query_id: str, dev: float) -> str:
    """Tell whether a query is held out.

    Depends on nothing but the query id and the share, so that a query stays on its side
    whatever else a collection holds, and a larger share only adds dev queries.

    Parameters
    ----------
    query_id
        The query id.
    dev
        Share of queries to hold out, 0 to 1.

    Returns
    -------
    str
        "dev" if the first 8 bytes of the id's SHA-256, read as a fraction in [0, 1), are below
        `dev`, else "train".
    """
    digest = hashlib.sha256(query_id.encode()).digest()
    # integers up to 2**53 are exact in a float, so the comparison is too
    fraction = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    return "dev" if fraction < dev else "train"


def sample_queries(ids: Iterable[str], n: int | None, seed: int, key: str = "queries") -> list[str]:
    """Draw a sample of query ids such that smaller samples are contained in larger ones.

    Parameters
    ----------
    ids
        Query ids; their order has no influence.
    n
        How many to draw; None takes all.
    seed
        Another seed gives another order.
    key
        Where `n` was given, for the error.

    Returns
    -------
    list of str
        The first `n` ids in the order of SHA-256 of "seed:id".

    Raises
    ------
    ValueError
        If `n` is negative or there are fewer ids.
    """
    ordered = sorted(
        dict.fromkeys(ids), key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest()
    )
    return _first(ordered, n, key)


def _first(ordered: list[str], n: int | None, key: str) -> list[str]:
    """The first n; None: all."""
    if n is None:
        return ordered
    if not 0 <= n <= len(ordered):
        raise ValueError(f"{key}={n}: {counted(len(ordered), 'query')} to draw from")
    return ordered[:n]


@dataclass(frozen=True, eq=False)
class Mixed(Collection):
    """Several collections as one.

    Every id of a query or passage is that of its part with the name of the part before it, as in
    ``web/1048585`` (`in_part`), so that equal ids of two parts never meet.

    Parameters
    ----------
    parts
        The collections by name, whole; their ids have no name before them.
    shares
        What of a sample of queries each part has, relative to the others; of those that have any.
    """

    parts: Mapping[str, Collection] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    def ordered(self, ids: Iterable[str], seed: int) -> list[str]:
        """Put query ids into an order of which every beginning has the shares.

        Of a part, the queries come in the order that they have in the part alone. Whose turn it is
        decides the method of Webster and Sainte-Laguë: the part whose (2 n + 1) / share is lowest,
        n being how many of its queries there are so far (of equals, the first part). It ends with
        the first part that has no more when its turn comes, so that the order may hold fewer ids
        than were given.
        """
        own = {name: sample_queries(known, None, seed) for name, known in by_part(ids).items()}
        turns = [
            ((2 * n + 1) / self.shares[name], place, name, n)
            for place, name in enumerate(self.shares)
            for n in range(len(own.get(name, ())) + 1)  # the last is the turn that it misses
        ]
        chosen = []
        for _, _, name, n in sorted(turns):
            if n == len(own.get(name, ())):
                break
            chosen.append(in_part(name, own[name][n]))
        return chosen

    def sample(
        self, ids: Iterable[str], n: int | None, seed: int, key: str = "queries"
    ) -> list[str]:
        """Draw a sample with these shares; an error names the part that has too few queries."""
        known = list(ids)
        ordered = self.ordered(known, seed)
        if n is not None and n > len(ordered):
            drawn, sizes = by_part(ordered), by_part(known)
            short = [p for p in self.shares if len(drawn.get(p, ())) == len(sizes.get(p, ()))]
            raise ValueError(
                f"{key}={n}: with these shares {counted(len(ordered), 'query')} can be drawn, "
                f"since {', '.join(short)} has no more; null takes as many as that"
            )
        return _first(ordered, n, key)


def in_part(name: str, own: str) -> str:
    """The id of a query or passage of a part."""
    return f"{name}/{own}"


def by_part(ids: Iterable[str]) -> dict[str, list[str]]:
    """Ids of several parts as each has them, by its name."""
    own: dict[str, list[str]] = {}
    for one in ids:
        name, _, rest = one.partition("/")
        own.setdefault(name, []).append(rest)
    return own
