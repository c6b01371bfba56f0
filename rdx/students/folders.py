"""What the folder of a model holds, as far as it can be told without reading weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

HEAD, FACTS = "head.safetensors", "student.json"  # what a student of rdx has beside its encoder
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# The model_type of what `rdx.export` writes: of students that Transformers has no class for, and in
# the form of Lightning IR.
PACKED = "rdx_cross_encoder"
LIGHTNING = ("mono", "set-encoder")
EXPORTED = (PACKED, *LIGHTNING)
INDEXES = ("*.safetensors.index.json", "pytorch_model*.bin.index.json")


def check_folder(folder: Path, name: str, head: str, between: str) -> None:
    """Check that a student can be made of a folder: whole, and trained as it is to be, if it was.

    Parameters
    ----------
    name
        Begins the message of errors.
    head, between
        Of the student.

    Raises
    ------
    FileNotFoundError, ValueError
        Saying what is missing, damaged, or not this student's.
    """
    check_whole(folder, name)
    if _read(folder / "config.json")["model_type"] in EXPORTED:
        raise ValueError(
            f"{name}: a student that was exported for other libraries, which rdx does not train; "
            "give the signature of its cell (rdx.yaml has it) as start=..., or the folder of its "
            "checkpoint in the store"
        )
    saved = saved_head(folder)
    if saved not in (None, head):
        raise ValueError(
            f"{name}: holds a student with a trained head={saved}, which head={head} would leave "
            f"out; give student.head={saved}, or take {HEAD} away for a fresh head"
        )
    if between == "none" and scores_lists(folder):
        raise ValueError(
            f"{name}: holds a student that scores lists, and not passages alone; give "
            "student.between=int_token"
        )


def scores_lists(folder: Path) -> bool:
    """Whether a folder holds a student whose scores depend on the list."""
    return _read(folder / "config.json").get("int_token_id") is not None


def check_whole(folder: Path, name: str) -> None:
    """Check that a folder has the files of a whole model; `name` begins the message of errors.

    Raises
    ------
    FileNotFoundError, ValueError
        Saying what is missing or damaged.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{name}: {what} (in {Path.cwd()})")
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{name}: its weights are adapters (of peft) on another model; give the folder that "
            "save_pretrained wrote after merge_and_unload"
        )
    if "model_type" not in _read(folder / "config.json"):
        raise FileNotFoundError(
            f"{name}: its config.json is missing, or names no model_type; "
            f"{_inner(folder) or 'give the folder that save_pretrained wrote'}"
        )
    names = [path.name for path in folder.iterdir()]
    if not any(n.startswith(("tokenizer", "vocab")) or n.endswith(".model") for n in names):
        raise FileNotFoundError(
            f"{name}: no tokenizer in this folder; save it there, too: "
            "tokenizer.save_pretrained(...)"
        )
    _check_weights(folder, name)


def saved_head(folder: Path) -> str | None:
    """The head of a student of rdx whose weights lie beside the encoder; None = there are none."""
    if not (folder / HEAD).exists():
        return None
    return str(_read(folder / FACTS).get("head", "unknown"))


def is_exported(folder: Path) -> bool:
    """Whether encoder and head of a student of rdx are one model in a folder (`rdx.export`)."""
    return _read(folder / "config.json").get("model_type") == PACKED


def trained_form(folder: Path) -> tuple[str, str]:
    """Head and attention of the cross-encoder in a folder: a student's, else those of Transformers.

    A student's attention is "unknown" where its version of rdx did not write it down.
    """
    if is_exported(folder):
        known = _read(folder / "config.json")
    elif (folder / FACTS).exists():
        known = {"attention": "unknown"} | _read(folder / FACTS)
    else:
        known = {}
    return str(known.get("head", "cls")), str(known.get("attention", "full"))


def _check_weights(folder: Path, name: str) -> None:
    weights = [path for form in WEIGHTS for path in sorted(folder.glob(form))]
    for index in (path for form in INDEXES for path in sorted(folder.glob(form))):
        named = sorted(set(_read(index).get("weight_map", {}).values()))
        absent = [part for part in named if not (folder / part).is_file()]
        if absent:
            raise FileNotFoundError(
                f"{name}: {len(absent)} of {len(named)} files of its weights are missing, the "
                f"first is {absent[0]}: copy it, too"
            )
    if not [path for path in weights if path.name != HEAD]:
        raise FileNotFoundError(
            f"{name}: no weights in this folder, as model.safetensors or pytorch_model.bin; give "
            "the folder that save_pretrained wrote"
        )
    for path in weights:
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, "numpy"):  # reads the header, and compares the size
                pass
        except SafetensorError as error:
            raise ValueError(f"{name}: {path.name} is damaged ({error}): copy it again") from error


def _inner(folder: Path) -> str:
    """The cure where the model lies in a folder of this one, as sentence-transformers has it."""
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"give the folder of the model, {folder / inner[0]}" if inner else ""


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of keys and values; {} if it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
