"""Language models out of a wheel, a folder or the Hub."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from rdx.assets import PREFIX, gguf_file, model_path, seal, sealed
from rdx.loading import ModelClass, explained, pretrained


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


def folder_of(model: str, revision: str | None = None) -> Path:
    """The folder of a causal LM, fetched if need be; an asset's weights are float32 safetensors."""
    folder = model_path(model, revision)
    if model.startswith(PREFIX) and gguf_file(folder):
        return _as_safetensors(Path(folder))
    return Path(folder)


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
    tokenizer, loaded = _load(str(folder_of(model, revision)), dtype, kind)
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


def _load(
    folder: str, dtype: torch.dtype, kind: ModelClass = AutoModelForCausalLM
) -> tuple[PreTrainedTokenizerBase, Any]:
    gguf = gguf_file(folder)
    source: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **source)
    return tokenizer, pretrained(kind, folder, dtype=dtype, **source, **_plain(gguf))


def _as_safetensors(folder: Path) -> Path:
    """An asset's GGUF file as float32 safetensors in a folder beside it, made once.

    Taking the quantisation back took 2 to 40 s, reading the result takes .2. It is made again when
    a package that reads GGUF has another version, or when its checksums do not hold.
    """
    versions = "-".join(f"{name}-{importlib.metadata.version(name)}" for name in ENGINES)
    target = folder / f"safetensors-{versions}"
    with FileLock(f"{folder}.lock"):
        if not sealed(target):
            print(f"converting {folder.name} to safetensors, once", flush=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                converted = Path(scratch) / target.name
                tokenizer, model = _load(str(folder), torch.float32)
                tokenizer.save_pretrained(converted)
                model.save_pretrained(converted)
                seal(converted)
                if target.exists():
                    os.replace(target, Path(scratch) / "damaged")
                os.replace(converted, target)
    return target


ENGINES = ("gguf", "transformers")  # they decide what is read from a GGUF file


def _plain(gguf: str | None) -> dict[str, Any]:
    """Newer Transformers keep GGUF weights quantised unless told otherwise."""
    if gguf is None:
        return {}
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
