"""Tokenise the texts of a collection, once for all students of one tokenizer and lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from rdx.artifacts import Tokenised
from rdx.job import TRAINING, Job, source
from rdx.stages.retrieval import judged
from rdx.stages.stage import Inputs
from rdx.students import Student
from rdx.tokens import Table


def tokenise(job: Job, inputs: Inputs, folder: Path) -> None:
    """Tokenise all of the training collection; of a test set, what its first stage ranked."""
    role, student = inputs.role, job.parts.student
    passages: Iterable[tuple[str, str]]
    if role == TRAINING:
        place = replace(source(job.parts, role), split="all")
        texts = job.split(place, inputs.collection(role))
        passages, total = texts.passages.items(), len(texts.passages)
    else:
        texts = judged(job, inputs, role)
        doc_ids = inputs.first_stage(role).doc_id.unique()
        passages, total = ((d, texts.passages[d]) for d in doc_ids), len(doc_ids)
    write(folder, student, texts.queries, passages, total)


def write(
    folder: Path,
    student: Student,
    queries: Mapping[str, str],
    passages: Iterable[tuple[str, str]],
    count: int,
) -> None:
    """Tokenise queries and passages for a student; `count` is the number of passages."""
    tokenizer = student.tokenizer()
    Table.write(
        *(folder / Tokenised.QUERIES, tokenizer, queries.items(), student.query_length),
        *(len(queries), "tokenising queries"),
    )
    Table.write(
        *(folder / Tokenised.PASSAGES, tokenizer, passages, student.passage_length),
        *(count, "tokenising passages"),
    )
