"""Shared parts of the indexes on disk: doc ids, trec_eval's order, content hashes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

IDS, PLACES = "doc_ids.arrow", "places.npy"
BLOCK = 10_000

T = TypeVar("T")


class Ids:
    """Doc ids by position in the collection, memory-mapped: 8.8 million are no Python strings.

    Parameters
    ----------
    folder
        Where `write_ids` wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self._file = pa.memory_map(str(folder / IDS))
        self._ids = pa.ipc.open_file(self._file).read_all()["doc_id"]
        self._places = folder / PLACES

    def __len__(self) -> int:
        """Return the number of passages."""
        return len(self._ids)

    def at(self, positions: npt.ArrayLike) -> pd.Series[str]:
        """The ids at some positions."""
        taken = self._ids.take(pa.array(np.asarray(positions, dtype=np.int64)))
        return pd.Series(taken.to_pandas()).astype("str")

    @cached_property
    def places(self) -> np.ndarray:
        """Place of every passage when the ids are sorted byte by byte, from 0 (int32)."""
        places: np.ndarray = np.load(self._places, mmap_mode="r")
        return places


def write_ids(folder: Path, doc_ids: Iterable[str]) -> int:
    """Write the ids of a collection, block by block; returns how many there are."""
    schema = pa.schema([("doc_id", pa.large_string())])
    with pa.OSFile(str(folder / IDS), "wb") as file, pa.ipc.new_file(file, schema) as out:
        for block in blocks(doc_ids, 10 * BLOCK):
            out.write_batch(pa.record_batch([pa.array(block, pa.large_string())], schema=schema))
    with pa.memory_map(str(folder / IDS)) as file:
        ids = pa.ipc.open_file(file).read_all()["doc_id"]
        order = np.asarray(pc.sort_indices(ids))
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    np.save(folder / PLACES, places)
    return len(order)


def blocks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut any number of items into lists of `size`; the last may be shorter."""
    left = iter(items)
    while block := list(islice(left, size)):
        yield block


def best(scores: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k best: score descending, then doc id descending, as trec_eval.

    Parameters
    ----------
    scores
        [N], float32, finite.
    places
        [N], places of the doc ids in ascending order (`Ids.places`).
    k
        How many, at most.

    Notes
    -----
    Score and place are packed into one integer, so that ties at the cut cost nothing.
    """
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    # a float's bits rise with it, save that those of negative ones fall
    keys = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) << 32) | places
    if len(keys) > k:
        kept = np.argpartition(keys, len(keys) - k)[len(keys) - k :]
        return kept[np.argsort(-keys[kept])]
    return np.argsort(-keys)


def table(
    query_ids: Iterable[str],
    ids: Ids,
    positions: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
) -> pd.DataFrame:
    """A ranking out of the positions and scores of each query's passages, which are in order."""
    sizes = np.array([len(of_query) for of_query in positions], dtype=np.int64)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    queries = np.repeat(np.array(list(query_ids), dtype=object), sizes)
    rows = np.concatenate([*positions, np.empty(0, dtype=np.int64)])
    values = np.concatenate([*scores, np.empty(0, dtype=np.float32)]).astype(np.float32)
    return pd.DataFrame(
        {
            "query_id": pd.Series(queries, dtype="str"),
            "doc_id": ids.at(rows),
            "rank": (np.arange(len(rows)) - starts + 1).astype(np.int32),
            "score": values,
        }
    )


@contextmanager
def prepared(prepare: Callable[[Path], None], folder: Path | None) -> Iterator[Path]:
    """Give the folder of an index; without one, a temporary folder that `prepare` fills."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        yield Path(scratch)


def sha256(path: str | Path) -> str:
    """Content hash of a file, or of all files in a folder; computed once for each state of it."""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file()) or [Path(path)]
    digests = [_digest(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    if len(files) == 1:
        return digests[0]
    lines = [f"{f.relative_to(path)} {digest}" for f, digest in zip(files, digests, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _digest(path: str, modified: int, size: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
