"""Tokenise the texts of a collection, once for all students of one tokenizer and lengths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rdx.artifacts import Tokenised
from rdx.job import TRAINING, Job, source
from rdx.stages.retrieval import judged
from rdx.stages.stage import Inputs
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
    tokenizer = student.tokenizer()
    Table.write(
        *(folder / Tokenised.QUERIES, tokenizer, texts.queries.items(), student.query_length),
        *(len(texts.queries), "tokenising queries"),
    )
    Table.write(
        *(folder / Tokenised.PASSAGES, tokenizer, passages, student.passage_length),
        *(total, "tokenising passages"),
    )
