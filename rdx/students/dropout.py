"""Dropout with cheap random bits, for CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_STEPS = 2**16


class CheapDropout(TorchFunctionMode):
    """Within it, dropout on CPU draws 16 bits per element instead of a Bernoulli variate.

    torch's own takes several times as long, which at p = .1 was a fifth of a training step
    (benchmarks/README.md). Probabilities are rounded to multiples of 2 ** -16, and what is kept is
    scaled by the rounded one, so that expectations are exact. The bits come from torch's generator,
    so that the same seed drops the same. Other devices, and dropout outside of training, are as in
    torch.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace calls of `torch.nn.functional.dropout`; everything else is passed on."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.dropout:
            return _dropout(*args, **kwargs)
        return func(*args, **kwargs)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    dropped = round(p * _STEPS)
    if not training or input.device.type != "cpu" or not 0 < dropped < _STEPS:
        return torch.nn.functional.dropout(input, p, training, inplace)
    words = torch.empty(-(-input.numel() // 4), dtype=torch.int64)
    bits = words.random_(-(2**63), None).view(torch.int16)[: input.numel()].view(input.shape)
    kept = (bits >= dropped - _STEPS // 2).to(input.dtype).mul_(_STEPS / (_STEPS - dropped))
    return input.mul_(kept) if inplace else input * kept
