"""Candidates for the queries of a mixture, each among the passages of its own collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
from annotated_types import MinLen
from pydantic import JsonValue

from rdx.collection import Collection, Mixed, by_part, in_part
from rdx.declared import Group, settings
from rdx.devices import CPU
from rdx.facts import Fingerprint
from rdx.parts import Sampler


@settings(frozen=True)
class ByPart:
    """Each part of a mixture (`data=mixture`) has an index of its own, and a sampler.

    One that searches, given for a mixture, is this with itself for every part (`of_mixture`). In a
    part, queries and passages have their own ids, so that given runs of it are read as they come.

    Parameters
    ----------
    samplers
        By the names of the parts.
    """

    samplers: Annotated[Mapping[str, Annotated[Sampler, Group("sampler")]], MinLen(1)]

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index: the indexes of the parts of the mixture."""
        return {name: sampler.index_of(corpus) for name, sampler in self.samplers.items()}

    def prepare(self, collection: Collection, folder: Path) -> None:
        """Index the passages of every part in a folder of its name."""
        for name, part in _parts(collection).items():
            (folder / name).mkdir(exist_ok=True)
            self.samplers[name].prepare(part, folder / name)

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Return the queries that the samplers of their parts have candidates for."""
        return [
            in_part(name, query_id)
            for name, own in by_part(queries).items()
            for query_id in self.samplers[name].covered(own, folder and folder / name)
        ]

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """Return at most k passages of every query, all of the query's own part."""
        rankings_of_parts = []
        for name, own in by_part(collection.queries).items():
            part = _parts(collection)[name].subset(own)
            ranking = self.samplers[name].candidates(part, k, folder and folder / name)
            ids = {key: f"{name}/" + ranking[key] for key in ("query_id", "doc_id")}
            rankings_of_parts.append(ranking.assign(**ids))
        together = pd.concat(rankings_of_parts, ignore_index=True)
        missing = [one.attrs[_MISSING] for one in rankings_of_parts if _MISSING in one.attrs]
        together.attrs = {_MISSING: tuple(map(sum, zip(*missing, strict=True)))} if missing else {}
        return together

    def fingerprint(self) -> Fingerprint:
        """Those of the samplers by part, for table footers."""
        return {
            "engine": "by part",
            "parts": {name: one.fingerprint() for name, one in self.samplers.items()},
        }

    @property
    def device(self) -> str:
        """What the first that has a choice computes on."""
        return next((d for one in self.samplers.values() if (d := _device(one)) != CPU), CPU)


_MISSING = "passages_missing"


def of_mixture(sampler: Sampler, names: Iterable[str]) -> Sampler:
    """The sampler of a mixture with these parts.

    Raises
    ------
    ValueError
        If one that names parts names others.
    """
    if isinstance(sampler, ByPart):
        if set(sampler.samplers) != set(names):
            raise ValueError(
                f"samplers: are for the parts {', '.join(sampler.samplers)}; the mixture has "
                f"{', '.join(names)}"
            )
        return sampler
    return sampler if given(sampler) else ByPart(dict.fromkeys(names, sampler))


def given(sampler: Sampler) -> bool:
    """Whether its candidates come from a file, ids and all, wherever it takes them from."""
    nested = (value for value in vars(sampler).values() if isinstance(value, Sampler))
    return getattr(sampler, "from_file", False) or any(map(given, nested))


def _parts(collection: Collection) -> Mapping[str, Collection]:
    assert isinstance(collection, Mixed)  # others have no such sampler
    return collection.parts


def _device(sampler: Sampler) -> str:
    return str(getattr(sampler, "device", CPU))
