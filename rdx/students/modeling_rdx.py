"""A student with a head of rdx as a model of Transformers.

`rdx.export` puts this file, heads.py and between.py beside the weights, so that
``AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`` works where
rdx is not installed. It needs torch and Transformers alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

# Relative, because the files travel together.
from .between import attending, with_token
from .heads import OWN, bias, first_position, parts_of, sparse


class RdxConfig(PretrainedConfig):
    """An encoder's configuration, and what stands on top of it.

    A model type of its own: without `trust_remote_code`, Transformers says so, where with the
    encoder's type it would put an untrained head on the encoder.

    Parameters
    ----------
    encoder
        Configuration of the encoder, or its plain values.
    head, attention, between
        As `rdx.students.Student`.
    cls_token_id, sep_token_id
        By which query and passage are told apart.
    """

    model_type = "rdx_cross_encoder"
    sub_configs = {"encoder": AutoConfig}

    def __init__(
        self,
        encoder: Any = None,
        head: str = "interaction",
        attention: str = "full",
        between: str = "none",
        cls_token_id: int = 0,
        sep_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.encoder = AutoConfig.for_model(**encoder) if isinstance(encoder, dict) else encoder
        self.head, self.attention, self.between = head, attention, between
        self.cls_token_id, self.sep_token_id = cls_token_id, sep_token_id
        super().__init__(**({"num_labels": 1} | kwargs))


class RdxForSequenceClassification(PreTrainedModel):
    """The encoder and the head; logits [P, 1] are the scores."""

    config_class = RdxConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: RdxConfig) -> None:
        super().__init__(config)
        own = config.head in OWN
        auto: Any = AutoModel if own else AutoModelForSequenceClassification
        self.encoder = auto.from_config(config.encoder)
        self.head = OWN[config.head](config.encoder.hidden_size) if own else None
        self.first_position = first_position(self.encoder)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> SequenceClassifierOutput:
        """Logits [P, 1] of tokenised pairs [P, L].

        With `between`, all pairs of one query (of the same tokens) are a list, which is to come
        whole.
        """
        mask = input_ids.new_ones(input_ids.shape) if attention_mask is None else attention_mask
        tensors = {name: value for name, value in others.items() if isinstance(value, Tensor)}
        inputs = {"input_ids": input_ids, "attention_mask": mask, **tensors}
        parts = parts_of(input_ids, mask, self.config.cls_token_id, self.config.sep_token_id)
        layers: AbstractContextManager[None] = nullcontext()
        if self.config.attention == "sparse":
            inputs = sparse(inputs, parts, self.first_position)
        elif self.config.between != "none":
            lists = _of_one_query(input_ids.where(parts == 1, -1))
            inputs, parts = with_token(inputs, parts, self.config.encoder.int_token_id)
            mask = inputs["attention_mask"]
            inputs["attention_mask"] = bias(mask.bool()[:, None, None])
            layers = attending(self.encoder.base_model.encoder.layer, lists, len(mask))
        with layers:
            output = self.encoder(**inputs)
        if self.head is None:
            return SequenceClassifierOutput(logits=output.logits)
        scores = self.head(output.last_hidden_state, mask, parts)
        return SequenceClassifierOutput(logits=scores.unsqueeze(1))


def _of_one_query(queries: Tensor) -> Tensor:
    """Which rows of [P, L] are equal: their numbers [B, N], -1 at padding."""
    _, which, counts = torch.unique(queries, dim=0, return_inverse=True, return_counts=True)
    places = torch.arange(int(counts.max()), device=queries.device)
    lists = queries.new_full((len(counts), len(places)), -1)
    lists[places < counts[:, None]] = which.argsort(stable=True)
    return lists
