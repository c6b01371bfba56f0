"""The passages that training lists are picked from: of one query, and of many as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rdx.rankings.table import query_starts

# What a table calls the columns that not every pool has, and their types (None: as they are).
OPTIONAL = {
    "first": ("score", None),
    "teacher": ("teacher_score", float),
    "relevant": ("relevant", bool),
}


@dataclass(frozen=True, eq=False)
class Pool:
    """A query's passages that lists are picked from, best first; all arrays have one shape [n].

    Attributes
    ----------
    query_id
        Whose they are.
    docs, names
        Number of each passage, and the doc ids by number.
    ranks
        The ranks that a student learns (1 = best; gaps and ties may occur).
    first, teacher
        Scores of the first stage and of the teacher, NaN where there is none.
    relevant
        Whether a passage is judged relevant.
    """

    query_id: str
    docs: np.ndarray
    names: pa.Array
    ranks: np.ndarray
    first: np.ndarray
    teacher: np.ndarray
    relevant: np.ndarray

    def __len__(self) -> int:
        """Number of passages."""
        return len(self.docs)

    def doc_ids(self, positions: np.ndarray | slice = slice(None)) -> list[str]:
        """The doc ids at some positions, by default all."""
        return list(self.names.take(pa.array(self.docs[positions])).to_pylist())


@dataclass(frozen=True, eq=False)
class Pools(Sequence[Pool]):
    """The pools of many queries: some 10 bytes a passage, and every doc id once.

    Attributes
    ----------
    query_ids
        [queries], objects.
    starts
        [queries + 1]: row at which the passages of each query start, then the number of rows.
    docs, names
        As of `Pool`; [rows] int32, [distinct doc ids].
    ranks
        [rows].
    more
        Those of `first`, `teacher` and `relevant` that are known, each [rows].
    """

    query_ids: np.ndarray
    starts: np.ndarray
    docs: np.ndarray
    names: pa.Array
    ranks: np.ndarray
    more: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Pools:
        """The pools of a table, whose rows of a query need not be together.

        Parameters
        ----------
        table
            [query_id, doc_id] and perhaps [teacher_rank (0 if absent), score, teacher_score,
            relevant], a query's passages in the order that a picker sees.
        """
        starts = query_starts(table.query_id)
        heads = table.query_id.iloc[starts[:-1]]
        if heads.duplicated().any():
            codes = pd.factorize(table.query_id)[0]
            return cls.of(table.iloc[np.argsort(codes, kind="stable")])
        encoded = _encoded(table.doc_id)
        ranks = table.teacher_rank if "teacher_rank" in table else np.zeros(len(table), np.int8)
        return cls(
            heads.to_numpy(dtype=object),
            starts,
            encoded.indices.to_numpy(),
            encoded.dictionary,
            np.asarray(ranks),
            {
                own: table[name].to_numpy(kind)
                for own, (name, kind) in OPTIONAL.items()
                if name in table
            },
        )

    @classmethod
    def joined(cls, parts: Sequence[Pools]) -> Pools:
        """The pools of several collections of queries, which have none in common."""
        dictionaries = pa.chunked_array([
            pa.DictionaryArray.from_arrays(pa.array(part.docs), part.names) for part in parts
        ]).unify_dictionaries()  # fmt: skip
        ends = np.cumsum([part.starts[-1] for part in parts])
        starts = [
            part.starts[:-1] + end - part.starts[-1] for part, end in zip(parts, ends, strict=True)
        ]
        return cls(
            np.concatenate([part.query_ids for part in parts]),
            np.append(np.concatenate(starts), ends[-1]),
            np.concatenate([chunk.indices.to_numpy() for chunk in dictionaries.chunks]),
            dictionaries.chunk(0).dictionary,
            np.concatenate([part.ranks for part in parts]),
            {name: np.concatenate([part.more[name] for part in parts]) for name in parts[0].more},
        )

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.query_ids)

    def __getitem__(self, i: int) -> Pool:  # type: ignore[override]
        """The pool of a query: views of the arrays."""
        rows = slice(self.starts[i], self.starts[i + 1])
        none = np.full(rows.stop - rows.start, np.nan)
        absent = {"first": none, "teacher": none, "relevant": none == 0}
        known = {name: column[rows] for name, column in self.more.items()}
        return Pool(
            self.query_ids[i], self.docs[rows], self.names, self.ranks[rows], **(absent | known)
        )

    def __iter__(self) -> Iterator[Pool]:
        """One after the other."""
        return map(self.__getitem__, range(len(self)))

    @property
    def sizes(self) -> np.ndarray:
        """Passages of each query."""
        return np.diff(self.starts)

    def column(self, name: str) -> np.ndarray:
        """One of `more`, or what stands for it [rows]."""
        absent = np.broadcast_to(False if name == "relevant" else np.nan, len(self.docs))
        return self.more.get(name, absent)

    def each(self, reduce: np.ufunc, rows: np.ndarray) -> np.ndarray:
        """What a reduction makes of the values [rows] of each query."""
        # of bytes, sums would be bytes
        kind = np.int64 if reduce is np.add else None
        return np.asarray(reduce.reduceat(rows, self.starts[:-1], dtype=kind))

    def kept(self, queries: np.ndarray) -> Pools:
        """Those of some queries, given as a mask."""
        if queries.all():
            return self
        rows = np.repeat(queries, self.sizes)
        return Pools(
            self.query_ids[queries],
            np.append(0, np.cumsum(self.sizes[queries])),
            self.docs[rows],
            self.names,
            self.ranks[rows],
            {name: column[rows] for name, column in self.more.items()},
        )


def _encoded(ids: pd.Series[str]) -> pa.DictionaryArray:
    """Ids as numbers, and every id once."""
    array = pa.array(ids)
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return whole.cast(pa.large_string()).dictionary_encode()


@dataclass(frozen=True, eq=False)
class Judged:
    """The relevant passages of the queries of some pools.

    Attributes
    ----------
    relevant
        Whether each passage of the pools is one [rows].
    outside
        Of those that are in none: number of the query and doc id, in order.
    """

    relevant: np.ndarray
    outside: list[tuple[int, str]]

    @classmethod
    def of(cls, pools: Pools, relevant: Mapping[str, Mapping[str, int]]) -> Judged:
        """Look them up; queries that have no pool are passed over."""
        pairs = [
            (number, doc_id)
            for number, query_id in enumerate(pools.query_ids.tolist())
            for doc_id in sorted(relevant.get(query_id, ()))
        ]
        relevant_rows = np.zeros(len(pools.docs), dtype=bool)
        if not pairs:
            return cls(relevant_rows, [])
        queries = np.array([number for number, _ in pairs])
        codes = numbers([doc_id for _, doc_id in pairs], pools.names)
        # all passages of each pair's query, compared with the pair's
        sizes = pools.sizes[queries]
        offsets = np.cumsum(sizes) - sizes
        rows = np.arange(sizes.sum()) + np.repeat(pools.starts[queries] - offsets, sizes)
        hits = pools.docs[rows] == np.repeat(codes, sizes)
        relevant_rows[rows[hits]] = True
        inside = np.logical_or.reduceat(hits, offsets).tolist()
        outside = [pair for pair, known in zip(pairs, inside, strict=True) if not known]
        return cls(relevant_rows, outside)


def numbers(doc_ids: Sequence[str], names: pa.Array) -> np.ndarray:
    """The number of each doc id; -1 of one that has none."""
    codes = pc.index_in(pa.array(doc_ids, names.type), names)
    return np.asarray(pc.fill_null(codes, -1))
