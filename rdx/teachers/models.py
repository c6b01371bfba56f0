"""Causal language models out of a wheel, a folder or the Hub."""

from __future__ import annotations

from typing import Any

import torch

from rdx.assets import gguf_file, model_path
from rdx.loading import pretrained


def load_causal(
    model: str, precision: str, device: str, revision: str | None = None
) -> tuple[Any, Any]:
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
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = model_path(model, revision)
    gguf = gguf_file(folder)
    source: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **source)
    loaded = pretrained(AutoModelForCausalLM, folder, dtype=dtype, **source, **_plain(gguf))
    return tokenizer, loaded.to(torch.device(device), dtype).eval()


def _plain(gguf: str | None) -> dict[str, Any]:
    """Newer Transformers keep GGUF weights quantised unless told otherwise."""
    if gguf is None:
        return {}
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
