"""Walk the table of stages for a cell: what is needed and not stored is made, dependencies first.

The file to read first, with `rdx.stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rdx import devices, heap, rankings
from rdx import evaluation as ev
from rdx.artifacts import Evaluated, Ranking, TeacherRanking
from rdx.collection import Collection
from rdx.config import Cell, ConfigError
from rdx.facts import Audit, Device, TrialFacts
from rdx.faults import Diverged
from rdx.job import STAGE_1, Job, source, test_role
from rdx.spread import half_width
from rdx.stages import (
    CANDIDATES,
    COLLECTION,
    EVALUATE,
    LAST,
    PREFINETUNE,
    REFERENCE,
    RETRIEVE,
    STAGES,
    TEACH,
    Inputs,
    Signatures,
    Stage,
    Step,
    over_seeds,
    steps,
    work,
)
from rdx.stages.stage import A, collection_of, trained
from rdx.teachers.audit import audit
from rdx.tracking import Trial
from rdx.trainer import processes

if TYPE_CHECKING:
    from rdx.students import CrossEncoder


@dataclass(frozen=True)
class Summary:
    """What a cell gave.

    Attributes
    ----------
    facts
        Its outcome.
    stages
        Per stage and signature "computed" or "stored".
    folder
        Where its runs, tables and configuration lie in the store.
    """

    facts: TrialFacts
    stages: dict[str, str]
    folder: Path

    @property
    def per_query(self) -> pd.DataFrame:
        """Values [collection, system, query_id, measure, value]."""
        return Evaluated(self.folder).per_query


def run(cell: Cell) -> Summary:
    """Run one cell, or find it finished; with ``force=true`` distil and evaluate it again."""
    job, force = Job.of(cell), bool(cell.cfg["force"])
    tracking = job.parts.tracking
    if not force and tracking.finished(job.store.root, cell.signature):
        stored = job.store.find(EVALUATE.name, cell.signature)
        if stored is not None:
            return Summary(Evaluated(stored).facts, dict(job.store.log), stored)
    with _recorded(job, cell.signature, cell.cfg["grid"], over_seeds(cell)) as job.trial:
        try:
            anew = {name for name, stage in STAGES.items() if stage.again} if force else set()
            evaluated = EVALUATE.artifact(_Walk(job, anew).folder(LAST))
        except Diverged:
            job.trial.set_health("nan")
            raise
        job.trial.set_health(evaluated.facts.health)
        job.trial.log_result(evaluated.folder, evaluated.facts)
    return Summary(evaluated.facts, dict(job.store.log), evaluated.folder)


def _recorded(job: Job, signature: str, grid: str, cell: str = "") -> AbstractContextManager[Trial]:
    """The record of this execution of a cell."""
    return job.parts.tracking.trial(
        store=job.store.root,
        signature=signature,
        levels=job.cell.levels,
        config=job.cell.cfg,
        grid=grid,
        seed=job.parts.seed,
        cell=cell,
    )


def obtain(job: Job, stage: Stage[A], role: str = "", anew: set[str] | None = None) -> A:
    """The artifact of a stage, from the store or made now, with all that it needs.

    Parameters
    ----------
    anew
        Names of stages that are made again, although they are stored.
    """
    return stage.artifact(_Walk(job, anew or set()).folder(Step(stage.name, role)))


def student(cell: Cell) -> CrossEncoder:
    """The trained student of a cell, ready to score; trained now if the store does not have it."""
    job = Job.of(cell)
    return job.parts.student.load(_Walk(job, set()).folder(trained(job.parts))).eval()


class _Walk:
    """One walk over the table; each step is made once."""

    def __init__(self, job: Job, anew: set[str]) -> None:
        self.job, self.anew = job, anew
        self.signatures = Signatures(job.parts)
        self._folders: dict[Step, Path] = {}

    def folder(self, step: Step) -> Path:
        """The folder of a step's artifact."""
        if step not in self._folders:
            self._folders[step] = self.stored(step) or self._made(step)
        return self._folders[step]

    def stored(self, step: Step) -> Path | None:
        """Where a step's artifact is, if it is there and not to be made again."""
        if self._anew(step):
            return None
        return self.job.store.find(step.stage, self.signatures.key(step))

    def trained_from(self) -> list[Step]:
        """The steps of the cell, and of those other cells whose students are yet to be trained."""
        parts = self.job.parts
        every = steps(parts)
        others = {step.of for step in every if step.of}
        there = [of for of in others if self.stored(trained(parts.of(of)).within(of))]
        return [s for s in every if not any(f"{s.of}/".startswith(f"{of}/") for of in there)]

    def split(self, step: Step) -> Collection:
        """The split of the collection in the role of a step."""
        place = source(self.job.parts.of(step.of), step.role)
        return self.job.split(place, self.folder(collection_of(step.role).within(step.of)))

    def _anew(self, step: Step) -> bool:
        """Whether a step is made again; those of other cells are not."""
        return step.stage in self.anew and not step.of

    def _made(self, step: Step) -> Path:
        """Make a step under its lock; another process may have made it while this one waited."""
        stage, store, key = STAGES[step.stage], self.job.store, self.signatures.key(step)
        anew = self._anew(step)
        with store.lock(stage.name, key) as lock:
            if not anew and (folder := store.recheck(stage.name, key)) is not None:
                return folder
            make = self._work(step)
            return store.make(
                *(stage.name, key, self.signatures.signed(step), make, lock, anew),
                device=_device(self.job, step),
            )

    def _work(self, step: Step) -> Callable[[Path], None]:
        """What makes a step, once everything is there that it needs."""
        if step == LAST:
            _try_out(self)
        given = STAGES[step.stage].inputs(self.job.parts.of(step.of), step.role)
        folders = {need: self.folder(need.within(step.of)) for need in given}
        return partial(_make, self.job, step, folders)


def _device(job: Job, step: Step) -> Device | None:
    """What a step is made on; None if that is not this machine."""
    asked = work(job.parts, step).device
    count = processes.count() if STAGES[step.stage].together else 1
    return None if asked is None else devices.device(asked, count)


def _make(job: Job, step: Step, folders: Mapping[Step, Path], folder: Path) -> None:
    """Make a step; the processes of a training all do the same."""
    if not STAGES[step.stage].together:
        _make_here(job, step, folders, folder)
        return
    processes.together((job.cell, step, folders, folder))
    with processes.in_step():
        _make_here(job, step, folders, folder)


def _make_here(job: Job, step: Step, folders: Mapping[Step, Path], folder: Path) -> None:
    artifacts = {need: STAGES[need.stage].artifact(path) for need, path in folders.items()}
    STAGES[step.stage].make(job.within(step.of), Inputs(step.role, artifacts), folder)
    heap.give_back()  # this process may make many more


def take_part(order: tuple[Cell, Step, Mapping[Step, Path], Path]) -> None:
    """Do what the main process does in a training, without its record."""
    cell, step, folders, folder = order
    _make_here(Job.of(cell), step, folders, folder)


# --- what costs little, first ---


def _try_out(walk: _Walk) -> None:
    """Retrieve what a cell is tested and validated on, and measure it, before anything is paid.

    What fails over files, ids, measures or splits fails here, and not after the training.

    Raises
    ------
    ConfigError
        If there is nothing to measure, or a measure cannot be computed of a collection.
    ValueError
        If stage 1 has fewer queries than it asks for, or no candidates, or if the device lacks.
    """
    walk.job.parts.trainer.require_device()
    every = walk.trained_from()
    for step in (step for step in every if step.stage == RETRIEVE.name):
        parts = walk.job.parts.of(step.of)
        first_stage = Ranking(walk.folder(step)).ranking
        qrels = source(parts, step.role).judged(walk.split(step)).qrels
        try:
            ev.measured(first_stage, qrels, parts.evaluation.measures)
        except ev.MeasureError as error:
            raise ConfigError(f"evaluation.measures: {step}: {error}") from error
    for step in (step for step in every if step.stage == PREFINETUNE.name):
        stage_1, index = walk.job.parts.of(step.of).prefinetune, Step("index", STAGE_1, step.of)
        if stage_1 is not None and not walk.stored(step):
            drawn = stage_1.drawn(walk.split(index))
            stage_1.sampler.covered(drawn.queries, walk.folder(index))


# --- labels without training ---


def label(cell: Cell, again: bool = False) -> TeacherRanking:
    """Only the labels of a cell: candidates and teacher ranking; nothing is trained.

    Parameters
    ----------
    again
        Make a finished teacher ranking anew. Answers in the ledger stay: only what was not answered
        is asked.
    """
    job = Job.of(cell)
    with _recorded(job, cell.keys[TEACH.name], "teach") as job.trial:
        labels = obtain(job, TEACH, anew={TEACH.name} if again else None)
        job.trial.log_result(labels.folder, labels.audit)
    return labels


def audit_against(cell: Cell, labels: TeacherRanking, other: pd.DataFrame) -> Audit:
    """The audit of a teacher ranking, with its agreement with another ranking."""
    job = Job.of(cell)
    candidates = obtain(job, CANDIDATES).ranking
    theirs = other.rename(columns={"rank": "teacher_rank"})
    agreement = audit(labels.ranking, candidates, other=theirs).agreement
    return replace(labels.audit, agreement=agreement)


@dataclass(frozen=True)
class Calibration:
    """nDCG@10 of a teacher on a test set, beside its first stage and the best possible order.

    `half_width` is that of the teacher's 95 % t interval over queries; `left_out` lists failed.
    """

    teacher: float
    half_width: float
    first_stage: float
    oracle: float
    queries: int
    left_out: int


ALL = 10**9  # queries that the teacher ranks, at most: every one of a test set


def calibrate(cell: Cell) -> dict[str, Calibration]:
    """Let the teacher rank the first stages of the evaluation; by test set."""
    job = Job.of(cell)
    job.parts.evaluation = replace(job.parts.evaluation, teacher_queries=ALL)
    calibrations = {}
    for name in job.parts.evaluation.collections:
        role = test_role(name)
        first_stage = obtain(job, RETRIEVE, role).ranking
        labels = obtain(job, REFERENCE, role).ranking
        qrels = test_queries(job, name).qrels
        systems = {"teacher": ev.as_ranking(labels), "first_stage": first_stage}
        systems["oracle"] = ev.oracle(first_stage, qrels)
        table = ev.per_query(name, systems, qrels, ["nDCG@10"])
        values = {system: rows.value for system, rows in table.groupby("system")}
        failed = ~labels.state.isin(rankings.USABLE)
        calibrations[name] = Calibration(
            teacher=float(values["teacher"].mean()),
            half_width=half_width(values["teacher"]),
            first_stage=float(values["first_stage"].mean()),
            oracle=float(values["oracle"].mean()),
            queries=len(values["teacher"]),
            left_out=int(labels[failed].query_id.nunique()),
        )
    return calibrations


def test_queries(job: Job, name: str) -> Collection:
    """A test set, cut down to the queries that are tested."""
    role = test_role(name)
    folder = obtain(job, COLLECTION, role).folder
    place = source(job.parts, role)
    return place.judged(job.split(place, folder))
