"""Load models by Transformers; refuse checkpoints that lack weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from transformers.utils import logging

from rdx.assets import TRUST

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Transformers would ask the Hub, from a thread of its own, to convert weights to safetensors.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
logging.disable_progress_bar()  # of reading and writing weights, which takes seconds


class ModelClass(Protocol):
    """A class of models, or one that chooses it by the configuration, as AutoModel does."""

    def from_pretrained(self, *arguments: Any, **options: Any) -> Any:
        """Load a model."""


def pretrained(
    kind: ModelClass,
    folder: str,
    fresh: Callable[[PreTrainedModel, str], bool] | None = None,
    **options: object,
) -> PreTrainedModel:
    """Load a model from a folder.

    Parameters
    ----------
    kind
        A class of Transformers.
    fresh
        Whether the weights of a name may be drawn anew; None = no weights may.

    Raises
    ------
    ValueError
        If the folder lacks weights that may not.
    """
    model: PreTrainedModel
    model, report = kind.from_pretrained(folder, output_loading_info=True, **TRUST, **options)
    missing = sorted(n for n in report["missing_keys"] if fresh is None or not fresh(model, n))
    if missing:
        raise ValueError(
            f"model={folder}: its weights lack {len(missing)} tensors of {type(model).__name__}, "
            f"e.g. {missing[0]}, which would be random; take a whole checkpoint of this "
            "architecture"
        )
    return model
