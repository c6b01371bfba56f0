"""The token by which the passages of a list see each other (`rdx.students.between`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def int_token(encoder: PreTrainedModel) -> int:
    """The id of [INT]; a model that `add_int_token` was not called on has none (`AttributeError`).

    The tokeniser does not know it: it stands in no text.
    """
    return int(encoder.config.int_token_id)


def add_int_token(encoder: PreTrainedModel) -> None:
    """Give a model an embedding of [INT], behind those that it has, if it has none.

    It is drawn as the model draws embeddings.
    """
    if getattr(encoder.config, "int_token_id", None) is None:
        rows = cast(nn.Embedding, encoder.get_input_embeddings()).num_embeddings
        encoder.resize_token_embeddings(rows + 1, mean_resizing=False)
        encoder.config.int_token_id = rows
