"""Candidates of the training queries: what the teacher is asked about."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from rdx import accounting
from rdx import evaluation as ev
from rdx.artifacts import Candidates, Tokenised
from rdx.collection import Collection
from rdx.facts import Count, QuerySample
from rdx.job import REDRAWS, TRAINING, Job
from rdx.samplers import top
from rdx.stages.retrieval import split
from rdx.stages.stage import Inputs
from rdx.stages.tokenising import write


def rank_candidates(job: Job, inputs: Inputs, folder: Path) -> None:
    """Rank candidates for sampled training queries, as deep as the teacher is asked."""
    queries, index = split(job, inputs, TRAINING), inputs.index(TRAINING)
    sampler, depth, redrawn = job.parts.sampler, job.parts.depth, job.parts.redrawn
    # of a given run, only the queries that it has can be drawn
    known = sampler.covered(queries.queries, index)
    chosen = queries.subset(queries.sample(known, depth.queries, depth.seed, "depth.queries"))
    ranking = sampler.candidates(chosen, redrawn.pool if redrawn else depth.asked, index)
    accounting.warn(queries)
    rule = job.parts.evaluation.self_retrieval
    accounting.warn_of_own(queries.name, ranking, chosen, rule)
    missing = ranking.attrs.get("passages_missing")
    sample = QuerySample(queries.name, tuple(chosen.queries), Count(*missing) if missing else None)
    fingerprint = sampler.fingerprint()
    if redrawn is not None:
        student = _redrawing(job, inputs)
        ranking = top(_redrawn(job, student, chosen, ranking), depth.asked)
        fingerprint = {
            "engine": "reranked",
            "first": fingerprint,
            "pool": redrawn.pool,
            "student": student.name,
        }
    Candidates.write_all(folder, ranking, sample, fingerprint)


def _redrawing(job: Job, inputs: Inputs) -> Path:
    """The folder of the student that re-draws candidates."""
    return job.parts.origins[REDRAWS].folder or inputs.student_of(REDRAWS)


def _redrawn(job: Job, folder: Path, queries: Collection, candidates: pd.DataFrame) -> pd.DataFrame:
    """The candidates in the order of a student."""
    origin = job.parts.origins[REDRAWS]
    settings = (origin.parts or job.parts).student
    student = settings.load(folder)
    doc_ids = candidates.doc_id.unique()
    passages = ((doc_id, queries.passages[doc_id]) for doc_id in doc_ids)
    with TemporaryDirectory() as scratch:
        write(Path(scratch), settings, queries.queries, passages, len(doc_ids))
        ranking, _ = ev.rerank(
            *(student, candidates, Tokenised(Path(scratch)).tokens(student.pairs.form)),
            *(job.parts.trainer, job.parts.evaluation.max_tokens, "re-drawing candidates"),
        )
    return ranking
