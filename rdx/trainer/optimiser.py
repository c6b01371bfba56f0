"""Which parameters learn how fast, and which decay."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")


def groups(student: Any, decay: float, layer_decay: float, head_rate: float) -> list[Any]:
    """Parameter groups of AdamW.

    Each has a "factor", by which its learning rate is multiplied. Weight decay is on matrices only:
    not on biases and norms.

    Parameters
    ----------
    student
        An `rdx.students.CrossEncoder`.
    decay
        Weight decay.
    layer_decay, head_rate
        See `factors`.
    """
    factor = factors(student, layer_decay, head_rate)
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            found.setdefault((factor[name], parameter.dim() >= 2), []).append(parameter)
    return [
        {"params": found[key], "factor": key[0], "weight_decay": decay if key[1] else 0.0}
        for key in sorted(found, reverse=True)
    ]


def factors(student: Any, layer_decay: float, head_rate: float) -> dict[str, float]:
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
    found = _LAYER.search(name)
    return int(found[1]) + 1 if found else None
