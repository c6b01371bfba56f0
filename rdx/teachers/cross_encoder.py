"""Cross-encoders as teachers: a student of rdx, or anybody's re-ranker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from tqdm import tqdm

from rdx import late
from rdx.assets import Model
from rdx.collection import Collection
from rdx.declared import PRECISION, SCHEDULES, Positive, one_of, settings
from rdx.precision import AUTO
from rdx.rankings import Scale
from rdx.teachers import pointwise

if TYPE_CHECKING:
    import torch

    from rdx.students import making
    from rdx.teachers import models
else:
    torch = late.module("torch")
    making, models = late.module("rdx.students.making"), late.module("rdx.teachers.models")

CHUNK = 16  # batches of passages between two writes


@settings(frozen=True)
class CrossEncoder(pointwise.Settings):
    """The scores of a trained cross-encoder, as they are: its logits.

    Parameters
    ----------
    model
        A folder: a student that rdx stored or exported, with whatever head; or a folder or Hub id
        of a sequence classifier of Transformers, with one label, or with two: the score is then the
        logit of the second minus that of the first.
    query_length, passage_length
        Tokens kept of each, special tokens not counted.
    batch
        Pairs scored at a time. In float32 it changes no score beyond rounding.
    precision
        "bf16" (autocast), "fp32", or "auto": bf16 where the device computes it, else fp32.
    device
        "auto", "cpu", "cuda", ...
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    scale
        Of the scores, per query, as a student is given them.
    """

    model: Model
    query_length: Positive = 32
    passage_length: Positive = 256
    batch: Annotated[Positive, SCHEDULES] = 32
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Annotated[str, SCHEDULES] = "auto"
    revision: str | None = None
    scale: Scale = "none"

    def rank(self, candidates: pd.DataFrame, collection: Collection, work: Path) -> pd.DataFrame:
        """Score every candidate.

        Raises
        ------
        FormatError
            If the model orders the passages of no list (`pointwise.ranked`).
        """
        scores = pointwise.scored(
            *(candidates, collection, work / pointwise.LEDGER, CHUNK * self.batch),
            lambda: _Scorer(self),
        )
        return pointwise.ranked(candidates, scores, self.model)


class _Scorer:
    """A loaded cross-encoder."""

    def __init__(self, settings: CrossEncoder) -> None:
        self._batch, self._bf16 = settings.batch, settings.precision == "bf16"
        self._device = models.device_of(settings.device)
        self._student = making.trained(
            settings.model, settings.revision, settings.query_length, settings.passage_length
        ).to(self._device)

    def scores(self, asked: Sequence[pointwise.Asked], progress: tqdm) -> list[list[float]]:
        """Scores of each passage and query."""
        return pointwise.of_pairs(asked, lambda pairs: self._of(pairs, progress))

    def _of(self, pairs: list[tuple[str, str]], progress: tqdm) -> list[float]:
        queries, passages = ([*own] for own in zip(*pairs, strict=True))
        # a text is its own id
        tokens = self._student.pairs.tokens({q: q for q in queries}, {p: p for p in passages})
        rows = tokens.rows(queries, passages)

        def score(numbers: list[int]) -> list[float]:
            inputs, parts = tokens.assemble(rows[np.array(numbers)])
            moved = {name: each.to(self._device) for name, each in inputs.items()}
            with (
                torch.autocast(self._device.type, torch.bfloat16, self._bf16),
                torch.inference_mode(),
            ):
                values: list[float] = self._student(moved, parts.to(self._device)).tolist()
            progress.update(len(values))
            return values

        return pointwise.by_length(tokens.lengths(rows).tolist(), self._batch, score)
