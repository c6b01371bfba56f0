"""Mix collections: each query is one of its own collection, and has passages of that alone."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from annotated_types import MinLen

from rdx.collection import Collection, Mixed, by_part, in_part
from rdx.data.splits import qrels_of
from rdx.declared import QUERIES, SPLITS, Above0, Group, settings
from rdx.parts import DataSource


@settings(frozen=True)
class Part:
    """A collection of a mixture.

    Parameters
    ----------
    data
        Where it comes from.
    share
        Its share of the training queries, relative to the others': 3 and 1 are three quarters and
        a quarter.
    """

    data: Annotated[DataSource, Group("data")]
    share: Annotated[Above0, QUERIES, SPLITS]


@settings(frozen=True)
class Mixture:
    """Several collections as one, of which samples of queries have given shares.

    Ids are those of the parts with their names before them, as in ``web/1048585``: so in every
    table and ranking, and in given runs of the whole mixture. Samplers search among the passages
    of a query's own collection (`rdx.samplers.ByPart`).

    Parameters
    ----------
    parts
        The collections by name: letters, digits and any of _ . + -.
    name
        Name of the collection.
    """

    parts: Annotated[Mapping[str, Part], MinLen(1)]
    name: Annotated[str, MinLen(1), SPLITS] = "mixture"

    def __post_init__(self) -> None:
        """Names stand before ids."""
        for name in self.parts:
            if not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(
                    f"parts.{name}: stands before ids; give it letters, digits and any of _ . + -"
                )

    @property
    def has_dev(self) -> bool:
        """Whether a part has dev queries."""
        return any(map(_has_dev, self.parts.values()))

    def prepare(self, folder: Path) -> None:
        """Lay out every part in a folder of its name; errors are theirs."""
        for name, part in self.parts.items():
            (folder / name).mkdir(exist_ok=True)
            part.data.prepare(folder / name)

    def load(self, split: str = "all", folder: Path | None = None) -> Mixed:
        """Load all parts with the queries of a split.

        Of "dev", a part that has no such queries gives its passages alone. `counts` are the sums
        of the parts'; errors are theirs.
        """
        parts = {name: self._part(name, split, folder and folder / name) for name in self.parts}
        counts: dict[str, int] = {}
        examples: dict[str, tuple[str, ...]] = {}
        for part in parts.values():
            for what, count in part.counts.items():
                counts[what] = counts.get(what, 0) + count
            for what, some in part.examples.items():
                examples[what] = (*examples.get(what, ()), *some)
        qrels = [_named(name, part.qrels) for name, part in parts.items()]
        return Mixed(
            self.name,
            {
                in_part(name, q): text
                for name, part in parts.items()
                for q, text in part.queries.items()
            },
            Passages({name: part.passages for name, part in parts.items()}),
            pd.concat(qrels, ignore_index=True),
            counts,
            examples,
            parts,
            {name: self.parts[name].share for name, part in parts.items() if part.queries},
        )

    def _part(self, name: str, split: str, folder: Path | None) -> Collection:
        part = self.parts[name]
        if split == "dev" and not _has_dev(part):
            return replace(part.data.load("all", folder).subset(()), counts={}, examples={})
        return part.data.load(split, folder)


class Passages(Mapping[str, str]):
    """The passages of several collections; those of one are looked up in it."""

    def __init__(self, parts: Mapping[str, Mapping[str, str]]) -> None:
        self._parts = parts

    def __getitem__(self, doc_id: str) -> str:
        """Return the text of a passage; KeyError if there is none with this id."""
        name, _, own = doc_id.partition("/")
        try:
            return self._parts[name][own]
        except KeyError:
            raise KeyError(doc_id) from None

    def __contains__(self, doc_id: object) -> bool:
        """Return whether there is a passage with this id."""
        name, _, own = str(doc_id).partition("/")
        return name in self._parts and own in self._parts[name]

    def holds(self, doc_ids: Sequence[str]) -> np.ndarray:
        """Whether there is a passage with each of these ids."""
        held: set[str] = set()
        for name, own in by_part(dict.fromkeys(doc_ids)).items():
            if name in self._parts:
                part = Collection(name, {}, self._parts[name], qrels_of())
                known = part.holds(own).tolist()
                held |= {in_part(name, o) for o, there in zip(own, known, strict=True) if there}
        return np.array([doc_id in held for doc_id in doc_ids], dtype=bool)

    def __iter__(self) -> Iterator[str]:
        """Iterate over ids, part after part."""
        return (in_part(name, own) for name, part in self._parts.items() for own in part)

    def __len__(self) -> int:
        """Return the number of passages."""
        return sum(map(len, self._parts.values()))

    def items(self) -> ItemsView[str, str]:
        """Return (id, text) pairs, each part read in its own order."""
        return _Items(self)


class _Items(ItemsView[str, str]):
    _mapping: Passages

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, part in self._mapping._parts.items():
            for own, text in part.items():
                yield in_part(name, own), text


def _has_dev(part: Part) -> bool:
    return bool(getattr(part.data, "has_dev", True))


def _named(name: str, qrels: pd.DataFrame) -> pd.DataFrame:
    """Judgements of a part with its name before all ids."""
    return qrels.assign(**{key: f"{name}/" + qrels[key] for key in ("query_id", "doc_id")})
