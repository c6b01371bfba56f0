"""Lay out collections, build indexes, retrieve first stages."""

from __future__ import annotations

from pathlib import Path

from rdx.artifacts import Ranking
from rdx.collection import Collection
from rdx.job import Job, source
from rdx.stages.stage import Inputs


def split(job: Job, inputs: Inputs, role: str) -> Collection:
    """The split of a collection that is worked on in a role."""
    return job.split(source(job.parts, role), inputs.collection(role))


def judged(job: Job, inputs: Inputs, role: str) -> Collection:
    """The split of a role, cut down to the judged queries that are retrieved for."""
    return source(job.parts, role).judged(split(job, inputs, role))


def lay_out(job: Job, inputs: Inputs, folder: Path) -> None:
    """Lay out a collection."""
    source(job.parts, inputs.role).data.prepare(folder)


def index(job: Job, inputs: Inputs, folder: Path) -> None:
    """Index the passages of a collection."""
    passages = split(job, inputs, inputs.role)
    source(job.parts, inputs.role).sampler.prepare(passages, folder)


def retrieve(job: Job, inputs: Inputs, folder: Path) -> None:
    """Rank passages for the judged queries of a collection."""
    place, role = source(job.parts, inputs.role), inputs.role
    queries = judged(job, inputs, role)
    Ranking.write(folder, place.sampler.candidates(queries, place.k, inputs.index(role)))
