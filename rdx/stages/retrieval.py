"""Lay out collections, build indexes, retrieve first stages and candidates."""

from __future__ import annotations

from pathlib import Path

from rdx import accounting
from rdx.artifacts import Candidates, Ranking
from rdx.collection import Collection
from rdx.facts import Count, QuerySample
from rdx.job import TRAINING, Job, source
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


def rank_candidates(job: Job, inputs: Inputs, folder: Path) -> None:
    """Rank candidates for sampled training queries, as deep as the teacher is asked."""
    queries, index = split(job, inputs, TRAINING), inputs.index(TRAINING)
    sampler, depth = job.parts.sampler, job.parts.depth
    # of a given run, only the queries that it has can be drawn
    known = sampler.covered(queries.queries, index)
    chosen = queries.subset(queries.sample(known, depth.queries, depth.seed, "depth.queries"))
    ranking = sampler.candidates(chosen, depth.asked, index)
    accounting.warn(queries)
    rule = job.parts.evaluation.self_retrieval
    accounting.warn_of_own(queries.name, ranking, chosen, rule)
    missing = ranking.attrs.get("passages_missing")
    sample = QuerySample(queries.name, tuple(chosen.queries), Count(*missing) if missing else None)
    Candidates.write_all(folder, ranking, sample, sampler.fingerprint())
