"""Language models out of a wheel, a folder or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from rdx.assets import gguf_file
from rdx.gguf import folder_of, load_lm
from rdx.loading import ModelClass, explained


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
    model: str,
    precision: str,
    device: str,
    revision: str | None = None,
    kind: ModelClass = AutoModelForCausalLM,
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
    kind
        The class of Transformers that reads it.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokenizer, loaded = load_lm(str(folder_of(model, revision)), dtype, kind)
    return tokenizer, loaded.to(device_of(device), dtype).eval()


def load_any(
    model: str, precision: str, device: str, revision: str | None = None
) -> tuple[PreTrainedTokenizerBase, CausalModel]:
    """A causal LM, or an encoder-decoder if its configuration says so; as `load_causal`."""
    folder = str(folder_of(model, revision))
    gguf = gguf_file(folder)
    with explained(f"model={model}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, gguf_file=gguf)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return load_causal(model, precision, device, revision, kind)


def device_of(device: str) -> torch.device:
    """The device that a setting names; "auto" is a GPU if there is one."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if device == "auto" else device)


def left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask [B, L] of rows that all end at the last position."""
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens.to(device), mask.to(device)


def right_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask [B, L] of rows that all begin at the first position."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return tokens.to(device), mask.to(device)


def positions(mask: Tensor) -> Tensor:
    """Position [B, L] of every token in its row, without the padding before it."""
    return (mask.cumsum(1) - 1).clamp(min=0)
