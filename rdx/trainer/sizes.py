"""How large a student is, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import AutoModel

from rdx.assets import at_hand
from rdx.loading import ModelError
from rdx.students import Student
from rdx.students.weights import configuration, first_layers
from rdx.trainer.budgets import computing


@dataclass(frozen=True)
class Size:
    """Parameters of an encoder that multiply every token (`rdx.trainer.budgets.computing`); layers.

    Work on a token takes floating-point operations in proportion to these parameters.
    """

    parameters: int
    layers: int


@lru_cache(maxsize=256)
def size(student: Student) -> Size | None:
    """Of the configuration of its model; None if that is not on this machine. Fetches nothing."""
    folder = at_hand(student.model, student.revision)
    if folder is None:
        return None
    try:
        config = configuration(str(folder), student.model)
        if student.layers is not None:
            config.update(first_layers(config, student.layers, student.model))
        with torch.device("meta"):
            encoder = AutoModel.from_config(config, trust_remote_code=False)
    except (ModelError, OSError, ValueError):
        return None
    return Size(computing(encoder), int(getattr(config, "num_hidden_layers", 0)))
