"""A student as MLflow loads it: a frame of (query, passage) pairs to their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rdx.students import Student

BATCH = 32  # pairs scored at once
AS_TRAINED = {"lora": None, "compile": False, "attention_implementation": None}


class Scorer:
    """Scores pairs with a saved student."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "rdx_student.json").read_text(encoding="utf-8"))
        known = {key: value for key, value in settings.items() if key != "_target_"}
        self.student = Student(**(known | AS_TRAINED)).load(folder).eval()

    @torch.inference_mode()
    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Scores [P] (float32) of the pairs in the columns "query" and "passage"."""
        pairs = list(zip(frame["query"], frame["passage"], strict=True))
        scores = [
            self.student(*self.student.pairs.batch(pairs[i : i + BATCH]))
            for i in range(0, len(pairs), BATCH)
        ]
        return torch.cat(scores).numpy() if scores else np.empty(0, np.float32)


def _load_pyfunc(path: str) -> Scorer:
    """What MLflow calls to load a model of this kind."""
    return Scorer(Path(path))
