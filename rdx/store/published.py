"""Results of a grid as they are published: ``results.json``, per-query values, checksums.

A folder as those of the store are, with a manifest. Nothing in it but what was measured: no
weights, no texts, no judgements, no rankings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import rankings, store
from rdx.facts import Manifest, Published, PublishedTrial
from rdx.faults import Mendable

RESULTS, SCORES = "results.json", "per_query.parquet"
TAKEN = "published.json"  # beside a result that was taken into the store
STAGE = "results"


class DamagedResults(Mendable, ValueError):
    """Published results that are not what was written."""


@dataclass(frozen=True)
class Results:
    """What a folder of published results holds.

    Attributes
    ----------
    record
        The trials.
    per_query
        [signature, factors ..., seed, collection, system, query_id, measure, value].
    """

    record: Published
    per_query: pd.DataFrame

    def of(self, signature: str) -> pd.DataFrame:
        """The rows of a trial."""
        return self.per_query[self.per_query["signature"] == signature].reset_index(drop=True)


def write(folder: Path, record: Published, per_query: pd.DataFrame) -> None:
    """Fill a folder; the same in, the same out."""
    store.write(folder / RESULTS, record)
    rankings.write_parquet(per_query, folder / SCORES)
    manifest = Manifest(stage=STAGE, signature=record.grid, signed=None, files={}, seconds=0.0)
    store.seal(folder, manifest)


def read(folder: Path) -> Results:
    """Read a folder, its checksums compared.

    Raises
    ------
    DamagedResults
        If there are no results, or a file is not as it was written.
    Unreadable
        If another version of rdx wrote them.
    """
    if not (folder / RESULTS).is_file():
        raise DamagedResults(f"{folder}: no {RESULTS}; python -m rdx export results makes one")
    if problem := store.damage(folder):
        raise DamagedResults(
            f"{folder}: {problem}; take the folder anew from where it was published"
        )
    return Results(store.read(Published, folder / RESULTS), rankings.read_parquet(folder / SCORES))


def write_taken(folder: Path, trial: PublishedTrial) -> None:
    """Keep what was published of a trial beside its result: only that tells what made it."""
    store.write(folder / TAKEN, trial)


def taken(folder: Path) -> PublishedTrial | None:
    """What was published of a trial that was taken into the store; None of one made here."""
    path = folder / TAKEN
    return store.read(PublishedTrial, path) if path.is_file() else None
