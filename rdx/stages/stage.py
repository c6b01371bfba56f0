"""What a stage is, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import pandas as pd
from pydantic import JsonValue

from rdx.artifacts import (
    Artifact,
    Candidates,
    Checkpoint,
    Ranking,
    Selected,
    TeacherRanking,
    Tokenised,
)
from rdx.devices import CPU
from rdx.job import DEV, STAGE_1, TRAINING, Job, Parts, test_role

if TYPE_CHECKING:
    from rdx.students import CrossEncoder
    from rdx.tokens import Tokens
    from rdx.trainer.sizes import Size

A = TypeVar("A", bound=Artifact)
A_co = TypeVar("A_co", bound=Artifact, covariant=True)


@dataclass(frozen=True)
class Step:
    """A stage of a cell; of a stage that works on collections, the role of one of them.

    `of` is the path of the cell that it is a stage of: "" of this one, "start" of the one that this
    begins from, "start/start" of the one that that begins from.
    """

    stage: str
    role: str = ""
    of: str = ""

    def __str__(self) -> str:
        """As in "teach", "reference test dl19", "distill of start"."""
        return f"{self.stage} {self.role}".rstrip() + (f" of {self.of}" if self.of else "")

    @staticmethod
    def stage_of(name: str) -> str:
        """The stage of a step by its name: a stage's is one word."""
        return name.split()[0]

    def within(self, path: str) -> Step:
        """The same step, seen from a cell that the path leads away from."""
        return replace(self, of=f"{path}/{self.of}".strip("/"))


@dataclass(frozen=True)
class Work:
    """How much there is to do, for estimates.

    Attributes
    ----------
    like
        What results took the same time for equal work on one device; their seconds a unit are
        compared.
    units
        Pairs to train on, passages to rank, queries to search for; None if the configuration does
        not tell.
    size
        What results of other work are as large on disk; None: nothing but those that are `like`.
    device
        What it asks for: "cpu", or a name of torch, or "auto"; None: it is not done by this
        machine, and takes as long whatever that is.
    precision
        Of what is computed; "" where there is no choice.
    scales
        What results took time in proportion to the parameters of their students; None: none did.
    model
        The size of the student; None where nothing here tells.
    """

    like: JsonValue
    units: float | None = 1
    size: JsonValue = None
    device: str | None = CPU
    precision: str = ""
    scales: JsonValue = None
    model: Callable[[], Size | None] = lambda: None


def collection_of(role: str) -> Step:
    """The collection in a role: those of the training share one."""
    return Step("collection", TRAINING if role in (STAGE_1, DEV) else role)


def tokens_of(role: str) -> Step:
    """The texts in a role as token ids: those of the training share all."""
    return Step("tokens", collection_of(role).role)


def trained(parts: Parts) -> Step:
    """The step that gives the student of a cell."""
    return Step("distill" if parts.loss else "prefinetune")


class Inputs:
    """The artifacts that a stage gets, and the role that it works in."""

    def __init__(self, role: str, artifacts: Mapping[Step, Artifact]) -> None:
        self.role, self._artifacts = role, artifacts

    def _of(self, kind: type[A], stage: str, role: str = "") -> A:
        artifact = self._artifacts[Step(stage, role)]
        assert isinstance(artifact, kind)
        return artifact

    def collection(self, role: str) -> Path:
        """The folder of the collection in a role."""
        return self._artifacts[collection_of(role)].folder

    def index(self, role: str) -> Path:
        """The folder of the index in a role."""
        return self._of(Artifact, "index", role).folder

    def first_stage(self, role: str) -> pd.DataFrame:
        """What was retrieved in a role."""
        return self._of(Ranking, "retrieve", role).ranking

    def tokens(self, role: str, student: CrossEncoder) -> Tokens:
        """The texts in a role, for a student."""
        return self._of(Tokenised, "tokens", tokens_of(role).role).tokens(student.pairs.form)

    @property
    def candidates(self) -> Candidates:
        """The candidates of the training queries."""
        return self._of(Candidates, "candidates")

    @property
    def labels(self) -> TeacherRanking:
        """The teacher's ranking of the candidates."""
        return self._of(TeacherRanking, "teach")

    @property
    def selected(self) -> Selected:
        """The passages of the training lists."""
        return self._of(Selected, "select")

    @property
    def start(self) -> Checkpoint:
        """The student of stage 1."""
        return self._of(Checkpoint, "prefinetune")

    @property
    def student(self) -> Checkpoint:
        """The student that is evaluated: of stage 2, or of stage 1 where there is no other."""
        distilled = Step("distill") in self._artifacts
        return self._of(Checkpoint, "distill") if distilled else self.start

    def student_of(self, key: str) -> Path:
        """The folder of the student of another cell, by the key that names it."""
        [folder] = [each.folder for step, each in self._artifacts.items() if step.of == key]
        return folder

    def reference(self, name: str) -> TeacherRanking | None:
        """The teacher's ranking of queries of a test set; None if it ranked none."""
        step = Step("reference", test_role(name))
        return (
            self._of(TeacherRanking, *(step.stage, step.role)) if step in self._artifacts else None
        )


Steps = Callable[[Parts, str], Sequence[Step]]


def _nothing(parts: Parts, role: str) -> Sequence[Step]:
    return ()


@dataclass(frozen=True)
class Stage(Generic[A_co]):
    """One stage.

    Attributes
    ----------
    name, artifact
        Its folder in the store, and what lies in there.
    decides
        What of the configuration decides the result, beside what the stage needs.
    make
        Writes the artifact into a folder; what a killed process left there is gone on from.
    needs
        Steps whose artifacts `make` gets; their signatures are part of this one.
    reads
        Steps whose artifacts `make` gets as well, about which `decides` says all that matters.
    work
        How much there is to do.
    again
        Whether ``force=true`` makes it again.
    together
        Whether all processes of a training take part.
    """

    name: str
    artifact: type[A_co]
    decides: Callable[[Parts, str], JsonValue]
    make: Callable[[Job, Inputs, Path], None]
    needs: Steps = _nothing
    reads: Steps = _nothing
    work: Callable[[Parts, str], Work] = lambda parts, role: Work(None)
    again: bool = False
    together: bool = False

    def inputs(self, parts: Parts, role: str) -> Sequence[Step]:
        """All steps whose artifacts `make` gets."""
        return (*self.needs(parts, role), *self.reads(parts, role))
