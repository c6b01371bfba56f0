"""Store rankings and other frames in parquet files; read them whole or query by query."""

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from rdx.rankings.table import FormatError, check_pairs, query_starts

# Rows of a row group, about: what is decoded at once to look one list up.
GROUP_ROWS = 32_768
_INDEX = b"rdx.lists"


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a frame that `write_parquet` or `store_ranking` wrote.

    Raises
    ------
    FormatError
        If the file is not a readable parquet file.
    """
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def write_parquet(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a frame with its column types; the index is left out."""
    frame.to_parquet(path, index=False)


def store_ranking(
    blocks: pd.DataFrame | Iterable[pd.DataFrame], path: str | Path
) -> "StoredRanking":
    """Write a ranking, block by block, to a parquet file that lists can be looked up in.

    Parameters
    ----------
    blocks
        A frame, or a stream of blocks of whole queries with the same columns. `query_id` and
        `doc_id` are needed; any other columns (`rank`, `score`, `teacher_rank`, `state`) are
        kept, with the types of the first block. Not more than a block and one row group are held.
    path
        The parquet file; it appears when it is complete. Equal blocks give an equal file.

    Returns
    -------
    StoredRanking
        The file, opened.

    Raises
    ------
    FormatError
        If there is no row, an id is missing, a query comes again after another one, or a list
        holds a passage twice.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    index: dict[str, int] = {}
    try:
        _write_groups(_groups(_checked(blocks, index, path)), index, unfinished, path)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return StoredRanking(path)


class StoredRanking:
    """Lists of a parquet file, looked up by query without reading the rest.

    Opening reads the index only: query ids and lengths. A look-up decodes the row group that
    holds the list; decoded row groups are kept, the last used ones, up to `memory` bytes.

    Parameters
    ----------
    path
        A file of `store_ranking`, or another parquet file with `query_id` (str) whose rows of a
        query are contiguous; its index is made from that column.
    memory
        Bytes of decoded row groups that are kept; 0 = only the last one.

    Raises
    ------
    FormatError
        If the file is not a readable parquet file, has no `query_id`, or if the rows of a query
        are not contiguous.
    """

    def __init__(self, path: str | Path, memory: int = 256 * 2**20) -> None:
        self.path = Path(path)
        self.memory = memory
        try:
            self._file = parquet.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
        groups = self._file.metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        self._group_starts = np.cumsum([0, *sizes])
        self.queries, lengths = self._index()
        self._starts = np.cumsum([0, *lengths])
        self._at = {query_id: i for i, query_id in enumerate(self.queries)}
        if len(self._at) != len(self.queries):
            again = next(q for i, q in enumerate(self.queries) if self._at[q] != i)
            raise FormatError(f"{path}: the rows of query {again!r} are not contiguous")
        self._decoded: OrderedDict[int, pa.Table] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of lists."""
        return len(self.queries)

    def __contains__(self, query_id: object) -> bool:
        """Return whether the query has a list."""
        return query_id in self._at

    def of(self, query_ids: Iterable[str], most: int | None = None) -> pd.DataFrame:
        """Return the lists of some queries, in the order in which they are asked for.

        Every row group is decoded once, however the queries are shuffled.

        Parameters
        ----------
        most
            Rows of a list, its first ones; None = all.

        Raises
        ------
        FormatError
            If a query has no list.
        """
        places = np.array([self._place(query_id) for query_id in query_ids], dtype=np.int64)
        starts, ends = self._starts[places], self._starts[places + 1]
        sizes = ends - starts if most is None else np.minimum(ends - starts, most)
        offsets = np.cumsum(sizes) - sizes
        rows = np.arange(sizes.sum()) + np.repeat(starts - offsets, sizes)
        if (np.diff(places) > 0).all():
            return self._taken(rows).to_pandas()
        order = np.argsort(rows, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return self._taken(rows[order]).take(back).to_pandas()

    def _taken(self, rows: np.ndarray) -> pa.Table:
        """Some rows, given in rising order."""
        cuts = np.searchsorted(rows, self._group_starts)
        parts = [self._file.schema_arrow.empty_table()]
        for i in np.flatnonzero(np.diff(cuts)):
            group, wanted = self._group(int(i)), rows[cuts[i] : cuts[i + 1]] - self._group_starts[i]
            parts.append(group if len(wanted) == len(group) else group.take(wanted))
        return pa.concat_tables(parts)

    def blocks(self) -> Iterator[pd.DataFrame]:
        """Yield all lists in the order of the file, as blocks of whole queries."""
        for start in range(0, len(self.queries), 1000):
            yield self.of(self.queries[start : start + 1000])

    def _place(self, query_id: str) -> int:
        i = self._at.get(query_id)
        if i is None:
            raise FormatError(f"{self.path}: query {query_id!r} has no list here")
        return i

    def _group(self, i: int) -> pa.Table:
        if i in self._decoded:
            self._decoded.move_to_end(i)
            return self._decoded[i]
        try:
            table = self._file.read_row_group(i).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from error
        self._decoded[i] = table
        self._bytes += table.nbytes
        while len(self._decoded) > 1 and self._bytes > self.memory:
            self._bytes -= self._decoded.popitem(last=False)[1].nbytes
        return table

    def _index(self) -> tuple[list[str], list[int]]:
        """Query ids and lengths of their lists, in the order of the file."""
        if "query_id" not in self._file.schema_arrow.names:
            raise FormatError(f"{self.path}: columns missing: query_id")
        stored = (self._file.metadata.metadata or {}).get(_INDEX)
        if stored is not None:
            index = json.loads(stored)
            return list(index), list(index.values())
        queries: list[str] = []
        lengths: list[int] = []
        for i in range(self._file.num_row_groups):
            column = self._file.read_row_group(i, ["query_id"]).column(0).combine_chunks()
            starts = query_starts(column)
            in_group, sizes = column.take(starts[:-1]).to_pylist(), np.diff(starts).tolist()
            if queries and in_group and queries[-1] == in_group[0]:
                lengths[-1] += sizes.pop(0)
                del in_group[0]
            queries += in_group
            lengths += sizes
        return queries, lengths


def _checked(
    blocks: pd.DataFrame | Iterable[pd.DataFrame], index: dict[str, int], path: Path
) -> Iterator[pa.Table]:
    """Yield the blocks as tables and enter their lists in the index."""
    schema = None
    for block in [blocks] if isinstance(blocks, pd.DataFrame) else blocks:
        missing = [name for name in ("query_id", "doc_id") if name not in block.columns]
        if missing:
            raise FormatError(f"{path}: columns missing: {', '.join(missing)}")
        check_pairs(block, str(path))
        starts = query_starts(block["query_id"])
        queries = block["query_id"].iloc[starts[:-1]]
        for query_id, length in zip(queries, np.diff(starts).tolist(), strict=True):
            if query_id in index:
                raise FormatError(f"{path}: the rows of query {query_id!r} are not contiguous")
            index[query_id] = length
        block = block.copy(deep=False)
        block.attrs = {}  # they are of a block, not of the file
        table = pa.Table.from_pandas(block, schema, preserve_index=False)
        schema = schema or table.schema
        yield table


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables of whole queries into row groups of whole queries."""
    rest: pa.Table | None = None
    for table in tables:
        table = table if rest is None else pa.concat_tables([rest, table])
        starts = query_starts(table["query_id"])
        done = 0
        for end in starts[1:-1]:
            if end - done >= GROUP_ROWS:
                yield table.slice(done, end - done)
                done = int(end)
        # a copy, so that the rows behind it can go
        rest = table.take(np.arange(done, table.num_rows))
    if rest is not None:
        yield rest


def _write_groups(
    groups: Iterable[pa.Table], index: dict[str, int], unfinished: Path, path: Path
) -> None:
    writer = None
    try:
        for group in groups:
            if writer is None:
                few = [name for name in ("query_id", "state") if name in group.column_names]
                writer = parquet.ParquetWriter(
                    unfinished,
                    group.schema,
                    compression="zstd",
                    use_dictionary=few,
                    write_statistics=False,
                )
            writer.write_table(group, row_group_size=max(group.num_rows, 1))
        if writer is None or not index:
            raise FormatError(f"{path}: there is no list to store")
        writer.add_key_value_metadata({_INDEX.decode(): json.dumps(index, ensure_ascii=False)})
    finally:
        if writer is not None:
            writer.close()


def _unreadable(path: str | Path, error: Exception) -> Exception:
    if isinstance(error, FileNotFoundError):
        return error
    first = (str(error).splitlines() or [""])[0]
    return FormatError(
        f"{path}: not a readable parquet file: {first}; its owner must let you read it, or move it "
        "away, and the command that made it makes it again"
    )
