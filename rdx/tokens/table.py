"""The token ids of many texts, one after the other in a flat array."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from rdx.bars import bar
from rdx.ids import Places, hash_of
from rdx.tokens.cutting import cut, parallel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = npt.NDArray[np.unsignedinteger]
Rows = npt.NDArray[np.int64]

BLOCK = 10_000  # texts that are tokenised at once
_IDS, _OFFSETS, _TRUNCATED = "ids.npy", "offsets.npy", "truncated.npy"


class UnknownText(KeyError):
    """An id of which there is no text."""

    def __str__(self) -> str:
        """The message as it is, not as a key is shown."""
        return str(self.args[0])


@dataclass(frozen=True, eq=False)
class Table:
    """Token ids of texts, without special tokens, each cut to a number of tokens.

    Attributes
    ----------
    ids
        Of all texts, one after the other, of the smallest unsigned type that holds the vocabulary.
    offsets
        [texts + 1]: where in `ids` every text begins, and where the last one ends.
    truncated
        [texts]: of which the beginning alone was kept.
    places
        Id of a text -> its row.
    """

    ids: Ids
    offsets: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]
    places: Places

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str], limit: int) -> Table:
        """Tokenise a few texts, in memory."""
        ids, truncated = cut(tokenizer, list(texts.values()), limit)
        flat = np.fromiter((i for own in ids for i in own), _type(tokenizer))
        hashes = np.fromiter(map(hash_of, texts), np.uint64, len(texts))
        return cls(flat, _offsets([len(own) for own in ids]), truncated, _places(hashes))

    @classmethod
    def write(
        cls,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[tuple[str, str]],
        limit: int,
        total: int,
        name: str,
    ) -> None:
        """Tokenise texts over all cores into a folder, a block at a time; `open` reads it.

        Parameters
        ----------
        texts
            (Id, text), each id once.
        limit
            Tokens that are kept of each.
        total, name
            For the progress bar.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lengths, hashes, truncated = array("q"), array("Q"), array("b")
        dtype = _type(tokenizer)
        shown = bar(desc=name, unit="text", total=total)
        with (folder / _IDS).open("w+b") as file, parallel(), shown:
            _header(file, dtype, 0)
            left = iter(texts)
            while block := list(islice(left, BLOCK)):
                ids, short = cut(tokenizer, [text for _, text in block], limit)
                lengths.extend(map(len, ids))
                hashes.extend(hash_of(key) for key, _ in block)
                truncated.frombytes(short.tobytes())
                file.write(np.fromiter((i for own in ids for i in own), dtype).tobytes())
                shown.update(len(block))
            file.seek(0)
            _header(file, dtype, sum(lengths))
        np.save(folder / _OFFSETS, _offsets(lengths))
        np.save(folder / _TRUNCATED, np.array(truncated, dtype=bool))
        _places(hashes).save(folder)

    @classmethod
    def open(cls, folder: Path) -> Table:
        """Map what `write` wrote."""
        ids, offsets, truncated = (
            np.load(folder / name, mmap_mode="r") for name in (_IDS, _OFFSETS, _TRUNCATED)
        )
        return cls(ids, offsets, truncated, Places.open(folder))

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.truncated)

    def rows(self, keys: Sequence[str]) -> Rows:
        """The rows [n] of ids.

        Raises
        ------
        UnknownText
            If there is no such text; names the first.
        """
        rows = self.places.find(keys)
        if len(rows) and rows.min() < 0:
            unknown = list(dict.fromkeys(np.asarray(keys, dtype=object)[rows < 0]))
            raise UnknownText(f"no text with the id {unknown[0]!r} ({len(unknown)} unknown)")
        return rows

    def cut(self, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Of which texts [n] the beginning alone was kept, by their ids."""
        short: npt.NDArray[np.bool_] = self.truncated[self.rows(keys)]
        return short

    def lengths(self, rows: Rows) -> Rows:
        """Tokens of every text."""
        lengths: Rows = self.offsets[rows + 1] - self.offsets[rows]
        return lengths


def _type(tokenizer: PreTrainedTokenizerBase) -> np.dtype[np.unsignedinteger]:
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _places(hashes: npt.ArrayLike) -> Places:
    places = Places.of(hashes)
    if places.ambiguous:
        raise ValueError("two text ids have the same hash of 64 bits: rename one of the texts")
    return places


def _header(file: BinaryIO, dtype: np.dtype[np.unsignedinteger], length: int) -> None:
    """Begin an array file; numpy leaves room for a length that is known at the end only."""
    description = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, description)
