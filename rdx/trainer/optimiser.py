"""Learning rates and weight decay by parameter."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from rdx.students import CrossEncoder

_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")


def groups(
    student: CrossEncoder, decay: float, layer_decay: float, head_rate: float
) -> list[dict[str, Any]]:
    """Parameter groups of AdamW.

    Each has a "factor", by which its learning rate is multiplied. Weight decay is on matrices only:
    not on biases and norms.

    Parameters
    ----------
    decay
        Weight decay.
    layer_decay, head_rate
        See `factors`.
    """
    factor = factors(student, layer_decay, head_rate)
    parameters: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() >= 2
            parameters.setdefault((factor[name], matrix), []).append(parameter)
    return [
        {"params": parameters[key], "factor": key[0], "weight_decay": decay if key[1] else 0.0}
        for key in sorted(parameters, reverse=True)
    ]


def factors(student: CrossEncoder, layer_decay: float, head_rate: float) -> dict[str, float]:
    """Factor of every parameter's learning rate, by name.

    ``layer_decay ** (n - l)`` for layer l of n (1 = next to the embeddings), ``layer_decay ** n``
    for embeddings, 1 for what comes after the last layer (poolers, norms), ``head_rate`` for the
    head: `student.head`, or what a sequence-classification model has outside its base model.
    After the layer-wise decay of Clark et al. (ICLR 2020, ELECTRA), whose head counts as a layer.
    """
    base = {id(p) for p in student.encoder.base_model.parameters()}
    layers = {name: _layer(name) for name, _ in student.named_parameters()}
    deepest = max((layer for layer in layers.values() if layer is not None), default=0)

    def factor(name: str, parameter: nn.Parameter) -> float:
        if id(parameter) not in base:
            return head_rate
        layer = layers[name]
        if layer is None:
            layer = 0 if "embed" in name else deepest
        return layer_decay ** (deepest - layer)

    return {name: factor(name, parameter) for name, parameter in student.named_parameters()}


def _layer(name: str) -> int | None:
    """Layer of a parameter, from 1; None outside the layers."""
    match = _LAYER.search(name)
    return int(match[1]) + 1 if match else None
