"""Where an id stands in a file: hashes in order, memory-mapped, instead of a dict of millions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

HASHES, PLACES = "hashes.npy", "places.npy"


def hash_of(text: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


@dataclass(frozen=True, eq=False)
class Places:
    """The place, counted from 0, of every id.

    Attributes
    ----------
    hashes
        Of the ids, rising (uint64).
    places
        Of the id with each hash (int64).
    """

    hashes: npt.NDArray[np.uint64]
    places: npt.NDArray[np.int64]

    @classmethod
    def of(cls, hashes: npt.ArrayLike) -> Places:
        """The places of ids that are given by their hashes, in their order."""
        values = np.asarray(hashes, dtype=np.uint64)
        order = np.argsort(values, kind="stable")
        return cls(values[order], order.astype(np.int64))

    @classmethod
    def open(cls, folder: Path) -> Places:
        """Map what `save` wrote."""
        hashes, places = (np.load(folder / name, mmap_mode="r") for name in (HASHES, PLACES))
        return cls(hashes, places)

    def save(self, folder: Path) -> None:
        """Write into a folder."""
        np.save(folder / HASHES, self.hashes)
        np.save(folder / PLACES, self.places)

    @property
    def ambiguous(self) -> bool:
        """Whether two ids have the same hash."""
        return bool((self.hashes[1:] == self.hashes[:-1]).any())

    def possible(self, key: str) -> Iterator[int]:
        """Where an id may stand: the places of its hash, rarely more than one."""
        wanted = np.uint64(hash_of(key))
        at = int(np.searchsorted(self.hashes, wanted))
        while at < len(self.hashes) and self.hashes[at] == wanted:
            yield int(self.places[at])
            at += 1

    def find(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """The places [n] of ids, -1 of those that are not there; none may be `ambiguous`."""
        codes, distinct = pd.factorize(np.asarray(keys, dtype=object))
        wanted = np.fromiter(map(hash_of, distinct), np.uint64, len(distinct))
        at = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        place_of = np.full(len(distinct), -1, dtype=np.int64)
        if len(self.hashes):
            known = self.hashes[at] == wanted
            place_of[known] = self.places[at[known]]
        places: npt.NDArray[np.int64] = place_of[codes]
        return places
