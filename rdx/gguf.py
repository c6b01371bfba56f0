"""Language models whose weights are a GGUF file, which comes quantised."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from rdx.assets import PREFIX, gguf_file, model_path, seal, sealed
from rdx.loading import ModelClass, pretrained

ENGINES = ("gguf", "transformers")  # they decide what is read from a GGUF file


def folder_of(model: str, revision: str | None = None) -> Path:
    """The folder of a model, fetched if need be; an asset's GGUF file as float32 safetensors."""
    folder = model_path(model, revision)
    if model.startswith(PREFIX) and gguf_file(folder):
        return _as_safetensors(Path(folder))
    return Path(folder)


def load_lm(
    folder: str, dtype: torch.dtype, kind: ModelClass = AutoModelForCausalLM
) -> tuple[PreTrainedTokenizerBase, Any]:
    """Tokeniser and language model of a folder (Hugging Face or GGUF); `kind` reads the model."""
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
                tokenizer, model = load_lm(str(folder), torch.float32)
                tokenizer.save_pretrained(converted)
                model.save_pretrained(converted)
                seal(converted)
                if target.exists():
                    os.replace(target, Path(scratch) / "damaged")
                os.replace(converted, target)
    return target


def _plain(gguf: str | None) -> dict[str, Any]:
    """Newer Transformers keep GGUF weights quantised unless told otherwise."""
    if gguf is None:
        return {}
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
