"""A student as MLflow loads it: a frame of (query, passage) pairs to their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rdx.students import Student

BATCH = 32  # pairs scored at once by students that score each alone
AS_TRAINED = {"lora": None, "compile": False, "attention_implementation": None}


class Scorer:
    """Scores pairs with a saved student."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "rdx_student.json").read_text(encoding="utf-8"))
        known = {key: value for key, value in settings.items() if key != "_target_"}
        self.student = Student(**(known | AS_TRAINED)).load(folder).eval()

    @torch.inference_mode()
    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Scores [P] (float32) of the pairs in the columns "query" and "passage".

        To a student that scores lists, the rows of a query are a list.
        """
        pairs = list(zip(frame["query"], frame["passage"], strict=True))
        if self.student.scores_lists:
            together = [*frame.groupby("query", sort=False).indices.values()]
        else:
            together = np.split(np.arange(len(pairs)), range(BATCH, len(pairs), BATCH))
        scores = np.empty(len(pairs), np.float32)
        for own in filter(len, together):
            inputs, parts = self.student.pairs.batch([pairs[i] for i in own], [len(own)])
            scores[own] = self.student(inputs, parts).numpy()
        return scores


def _load_pyfunc(path: str) -> Scorer:
    """What MLflow calls to load a model of this kind."""
    return Scorer(Path(path))
