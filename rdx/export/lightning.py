"""Write the weights of a student as a "mono" or "set-encoder" model of Lightning IR."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rdx.export.cells import ExportError
from rdx.students import CrossEncoder, Student
from rdx.students.int_token import int_token

# Classification heads that are dense, tanh, linear, as Lightning IR has it: its names of the two
# layers, by type of encoder. (ELECTRA's has a GELU.)
POOLED = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
}
SET_ENCODERS = ("bert", "electra")  # encoders of its "set-encoder"
LONGEST_LIST = 1000  # passages that its "set-encoder" takes at once


def write_lightning(student: CrossEncoder, settings: Student, folder: Path) -> None:
    """Write weights, configuration and tokeniser.

    Raises
    ------
    ExportError
        If Lightning IR has no model that gives the student's scores.
    """
    encoder = student.encoder
    kind = encoder.config.model_type
    pooled = settings.head == "cls" and kind in POOLED
    if settings.template is not None:
        raise ExportError(
            f"student.template={settings.template!r}: Lightning IR puts pairs together by itself; "
            "--form transformers keeps the template"
        )
    if settings.attention != "full" or not (pooled or settings.head == "linear"):
        raise ExportError(
            f"student.head={settings.head!r}, attention={settings.attention!r} on {kind}: "
            "Lightning IR has no such model; it has head=linear, and head=cls on "
            f"{', '.join(POOLED)}, each with attention=full"
        )
    if settings.scores_lists and kind not in SET_ENCODERS:
        raise ExportError(
            f"student.between={settings.between!r} on {kind}: Lightning IR has a Set-Encoder on "
            f"{', '.join(SET_ENCODERS)}"
        )
    layers = {"bert_pool.0": POOLED[kind][0], "linear": POOLED[kind][1]} if pooled else {}
    state = {k: v for k, v in encoder.base_model.state_dict().items() if "pooler." not in k}
    for name, ours in layers.items():
        layer = encoder.get_submodule(ours)
        state |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    if student.head is not None:
        state["linear.weight"] = student.head.state_dict()["linear.weight"]
    # With the encoder's prefix everywhere: Transformers takes "bert_pool" for the prefix "bert",
    # and would else put no weight in its place.
    prefix = encoder.base_model_prefix
    weights: dict[str, Tensor] = {
        f"{prefix}.{name}": tensor.detach().contiguous().clone() for name, tensor in state.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    name, model_type = ("SetEncoder", "set-encoder") if settings.scores_lists else ("Mono", "mono")
    described = nameless(encoder.config.to_dict()) | {
        "architectures": [f"{name}{type(encoder.base_model).__name__}"],
        "model_type": model_type,
        "backbone_model_type": kind,
        "query_length": settings.query_length,
        "doc_length": settings.passage_length,
        "pooling_strategy": "bert_pool" if pooled else "first",
        "linear_bias": pooled,
        "scoring_strategy": "rank",
    }
    tokenizer = copy.deepcopy(student.pairs.tokenizer)
    if settings.scores_lists:
        # no list is filled up, as in rdx once it is trained
        described |= {"depth": LONGEST_LIST, "add_extra_token": True, "sample_missing_docs": False}
        tokenizer.add_tokens(["[INT]"], special_tokens=True)
        own, known = int_token(encoder), tokenizer.convert_tokens_to_ids("[INT]")
        if own != known:
            raise ExportError(
                f"[INT] is embedding {own}, and would be token {known}: this tokeniser has fewer "
                "tokens than the model embeddings, which Lightning IR does not take"
            )
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    # Lightning IR cuts a text by decoding its tokens and encoding that: [UNK] must stay a token.
    tokenizer.init_kwargs.pop("split_special_tokens", None)
    tokenizer.save_pretrained(folder)


def nameless(described: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folder that it came from, which is one of this machine."""
    return {key: value for key, value in described.items() if key != "_name_or_path"}
