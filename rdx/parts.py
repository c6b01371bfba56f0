"""What a cell is made of, as the stages see it: one protocol per config group that is open.

A class of rdx, or of a package that RDX_EXTENSIONS names, fits where it has these methods. Rankings
are data frames as `rdx.rankings` describes them. Objects are built from configurations by
`rdx.config.build`; building one loads and computes nothing.

What else a class may say of itself and of its fields: `rdx.declared`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pandas as pd
from pydantic import JsonValue

from rdx.collection import Collection
from rdx.facts import Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

WINDOWS = "windows.parquet"  # where a teacher may leave a table of what it asked, in its `work`


@runtime_checkable
class DataSource(Protocol):
    """Where a collection comes from.

    One whose `has_dev` is false has no split "dev", so that what needs it is refused at once.
    """

    def prepare(self, folder: Path) -> None:
        """Lay out in a folder what takes long to make of the collection, for all its splits."""

    def load(self, split: str, folder: Path | None = None) -> Collection:
        """The collection with the queries of a split: "train", "dev", "test" or "all".

        `folder` is where `prepare` laid it out; None does that on the spot.
        """


@runtime_checkable
class Sampler(Protocol):
    """Where candidates come from."""

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index, given what decides the passages."""

    def prepare(self, collection: Collection, folder: Path) -> None:
        """Index the passages of a collection."""

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Those of the queries that there are candidates for, in the order of `candidates`.

        `folder` is of `prepare`.
        """

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """A ranking of at most k passages for every query of a collection."""

    def fingerprint(self) -> Fingerprint:
        """Engine, version and parameters, for the footers of tables."""


@runtime_checkable
class Redrawn(Protocol):
    """Candidates that a student draws from those of a sampler."""

    @property
    def first(self) -> Sampler:
        """What the student re-ranks."""

    @property
    def pool(self) -> int:
        """So many passages of it for every query."""


@runtime_checkable
class Teacher(Protocol):
    """What re-orders candidates."""

    @property
    def ranks_unseen(self) -> bool:
        """Whether it ranks any query, and not only those that it has an order for."""

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """A teacher ranking [query_id, doc_id, teacher_rank, score, state] of the candidates.

        `work` is the folder of the result; what is left there by a killed process is gone on from.
        """


@runtime_checkable
class Loss(Protocol):
    """Called as the losses of `rdx.losses` are."""

    @property
    def needs(self) -> str:
        """What it reads of the teacher: "ranks", "labels" or "scores"."""

    def __call__(
        self,
        student_scores: Tensor,
        teacher_ranks: Tensor,
        mask: Tensor,
        teacher_scores: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch [B, N]."""


class Schedule(Protocol):
    """Which training lists make which optimiser step (`rdx.batches.Schedule`)."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""

    def pairs(self, step: int) -> int:
        """(Query, passage) pairs of a step."""


@dataclass(frozen=True)
class Length:
    """How long a training is: optimiser steps and (query, passage) pairs."""

    steps: int
    pairs: int


@runtime_checkable
class Budget(Protocol):
    """What is held equal between cells."""

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""

    def length(self, queries: int, k: int, batch: int) -> Length:
        """How long it is, if every query has a list of k passages; `batch` queries make a step."""


class OnStep(Protocol):
    """Told the step of a training, from 0, and its numbers by name."""

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called after each step."""
