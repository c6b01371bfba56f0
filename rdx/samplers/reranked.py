"""Candidates that a student draws from those of another sampler."""

from __future__ import annotations

from typing import Annotated

from rdx.declared import STUDENT, Group, Positive, Texts, settings
from rdx.parts import Sampler


@settings(frozen=True)
class Reranked:
    """The best of a sampler's top `pool` by a student: candidates of a further round.

    The student of one round says which passages the teacher is asked about in the next, as in
    iterative hard-negative mining (Xiong et al. 2021, ANCE). It draws candidates of training
    queries alone: what it is compared with at test time stays the first stage. Its stage is
    "candidates", which has the student; this says what it works on.

    Parameters
    ----------
    first
        Where the student's candidates come from.
    pool
        Passages of it that the student scores for every query; at least as many as the teacher is
        asked about. Ties as trec_eval.
    student
        As the root's `start`: a signature, a folder, or overrides. Its settings may be others than
        those of the student that is trained.
    """

    first: Annotated[Sampler, Group("sampler")]
    pool: Positive = 100
    student: Annotated[str | int | Texts | None, STUDENT] = None
