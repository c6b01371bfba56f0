"""Let the teacher rank: training candidates, with an audit, and first stages of test queries."""

from __future__ import annotations

from pathlib import Path

from rdx.artifacts import TeacherRanking
from rdx.job import TRAINING, Job
from rdx.stages.retrieval import judged, split
from rdx.stages.stage import Inputs
from rdx.teachers.audit import audit


def teach(job: Job, inputs: Inputs, folder: Path) -> None:
    """Rank the candidates, and audit the labels."""
    queries, candidates = split(job, inputs, TRAINING), inputs.candidates.ranking
    TeacherRanking.write(folder, job.parts.teacher.rank(candidates, queries, folder))
    TeacherRanking.write_config(folder, job.cell.cfg)
    labels = TeacherRanking(folder)
    qrels = queries.qrels if len(queries.qrels) else None
    labels.write_audit(folder, audit(labels.ranking, candidates, labels.windows, qrels))


def rank_tests(job: Job, inputs: Inputs, folder: Path) -> None:
    """Rank what the first stage found for some test queries."""
    first_stage, test = inputs.first_stage(inputs.role), judged(job, inputs, inputs.role)
    most = job.parts.evaluation.teacher_queries
    chosen = test.subset(test.ordered(test.queries, 0)[:most])
    candidates = first_stage[first_stage.query_id.isin(chosen.queries)].reset_index(drop=True)
    TeacherRanking.write(folder, job.parts.teacher.rank(candidates, chosen, folder))
