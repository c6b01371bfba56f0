"""The encoder of a student out of a folder, with the folder's weights and no others."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from rdx.loading import ModelError, Report, explained, load, refuse

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CLASSIFIER = "ForSequenceClassification"
EXACT = 1e-5  # of the size of two logits: what their difference may differ from the one logit


def configuration(folder: str, name: str) -> PretrainedConfig:
    """The configuration of a model's folder.

    Raises
    ------
    ModelError
        If Transformers has no such model, or its weights are quantised.
    """
    with explained(name):
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{name}: its weights are quantised, and cannot be trained; take the model that was "
            "quantised"
        )
    return config


def first_layers(config: PretrainedConfig, count: int, name: str) -> dict[str, Any]:
    """What cuts a model's configuration down to its first layers.

    Raises
    ------
    ModelError
        If it has fewer.
    """
    known = getattr(config, "num_hidden_layers", None)
    if not isinstance(known, int) or count > known:
        raise ModelError(
            f"student.layers={count}: {name} has {known or 'no number of'} layers; give at most "
            "so many, or null for all"
        )
    kinds = config.to_dict().get("layer_types")  # e.g. of ModernBERT
    return {"num_hidden_layers": count} | ({"layer_types": kinds[:count]} if kinds else {})


def dropouts(config: PretrainedConfig) -> list[str]:
    """The keys of a model's configuration that are dropout probabilities."""
    known = config.to_dict()
    named = [key for key in known if "dropout" in key or key.endswith("pdrop")]
    return [key for key in named if known[key] is None or isinstance(known[key], float)]


def pooling(config: PretrainedConfig, how: str) -> dict[str, Any]:
    """What makes a model's own head read the first vector ("cls"), or the mean.

    Raises
    ------
    ModelError
        If it leaves no choice.
    """
    if not hasattr(config, "classifier_pooling"):
        raise ModelError(
            f"student.pooling={how!r}: a model of type {config.model_type!r} leaves no choice of "
            "what its own head reads; give null, or student.head=mean or linear"
        )
    return {"classifier_pooling": how}


def position_tables(model: PreTrainedModel) -> list[nn.Embedding]:
    """The learned embeddings of absolute positions; [] = positions are rotary or relative."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and ("position" in name or name.endswith("wpe"))
    ]


def freeze_positions(model: PreTrainedModel, name: str) -> None:
    """Train no embedding of a position.

    Raises
    ------
    ModelError
        If there is none.
    """
    tables = position_tables(model)
    if not tables:
        raise ModelError(
            f"student.frozen_positions=true: {name} is a model of type {model.config.model_type!r},"
            " whose positions are not learned embeddings but rotary or relative; give false"
        )
    for table in tables:
        table.requires_grad_(False)


def read_encoder(
    folder: str, name: str, classifier: bool, layers: int | None, fresh: bool, **options: Any
) -> PreTrainedModel:
    """Load a model, with the weights of its folder alone.

    Parameters
    ----------
    folder, name
        Of the model; `name` begins the message of errors.
    classifier
        With the model's own sequence-classification head, of one label. Of a head of two, the
        one logit is the second minus the first.
    layers
        How many were kept; None = all.
    fresh
        Whether a head and its pooler may be drawn anew.
    options
        Of `from_pretrained`.

    Raises
    ------
    ModelError
        If other weights would be random, or some of the encoder's would be left out.
    """
    two: list[str] = []
    if classifier:
        model, report = load(
            AutoModelForSequenceClassification, folder, name, num_labels=1, **options
        )
        two = _of_two_labels(model, report, name)
        if two:
            model, report = load(
                AutoModelForSequenceClassification, folder, name, num_labels=2, **options
            )
    else:
        model, report = load(AutoModel, folder, name, **options)
        _tell_of_head(model, report, name)
    refuse(
        model,
        report,
        name,
        may_be_fresh if fresh else None,
        None if layers is None else lambda key: _layer(key) >= layers,
    )
    _refuse_half_a_head(model, report, name)
    if two:
        _subtract(model, two, name)
    if layers is not None and model.config.num_hidden_layers != layers:
        raise ModelError(f"student.layers={layers}: models of type {_kind(model)} cannot be cut")
    return model


def may_be_fresh(model: PreTrainedModel, name: str) -> bool:
    """Whether a checkpoint may lack a weight: of the head, of which the pooler is part."""
    return not _of_base(model, name) or "pooler" in name.split(".")


def _refuse_half_a_head(model: PreTrainedModel, report: Report, name: str) -> None:
    """Refuse a trained output layer on random weights; what is fresh is fresh to the end."""
    if model.base_model is model:
        return
    fresh = sorted(key for key in report.missing if may_be_fresh(model, key))
    labels = model.config.num_labels
    loaded = [
        key
        for key, weight in model.named_parameters()
        if not _of_base(model, key) and weight.shape[0] == labels and key not in report.missing
    ]
    if fresh and loaded:
        raise ModelError(
            f"{name}: its weights have {loaded[0]}, but lack {len(fresh)} tensors of the head "
            f"before it, e.g. {fresh[0]}, which would be random; take a whole checkpoint, or "
            "student.head=linear, which trains a fresh head"
        )


def _of_base(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight is the encoder's, and not of the head on it."""
    return model.base_model is model or name.startswith(f"{model.base_model_prefix}.")


def _layer(key: str) -> int:
    """The number of the layer that a weight is of; -1 = of none."""
    return next((int(part) for part in key.split(".") if part.isdecimal()), -1)


def _kind(model: PreTrainedModel) -> str:
    return repr(model.config.model_type)


def _tell_of_head(model: PreTrainedModel, report: Report, name: str) -> None:
    """Warn if a trained classifier is left out because the student has a head of its own."""
    trained = next(iter(getattr(model.config, "architectures", None) or ()), "")
    if not trained.endswith(CLASSIFIER):
        return
    children = dict(model.named_children())
    prefix = f"{model.base_model_prefix}."
    head = sorted(
        k for k in report.unused if k.removeprefix(prefix).partition(".")[0] not in children
    )
    if head:
        warnings.warn(
            f"{name}: its trained head ({', '.join(head)}) is left out, and a fresh one is "
            "trained; student.head=cls keeps it",
            stacklevel=2,
        )


def _of_two_labels(model: PreTrainedModel, report: Report, name: str) -> list[str]:
    """The weights of a trained head that give two logits where one is wanted; [] = there are none.

    Raises
    ------
    ModelError
        If the head has more labels.
    """
    rows = {
        key: file[0]
        for key, (file, own) in report.mismatched.items()
        if not _of_base(model, key) and file[1:] == own[1:] and own[:1] == (1,)
    }
    counts = set(rows.values())
    if not counts or len(rows) < len(report.mismatched):
        return []
    if counts != {2}:
        raise ModelError(
            f"{name}: its head has {max(counts)} labels, and one score cannot be told from "
            "them; give a checkpoint with one label (or two), or student.head=linear, which "
            "trains a fresh head"
        )
    return sorted(rows)


def _subtract(model: PreTrainedModel, rows: list[str], name: str) -> None:
    """Make one logit of two, in place: the second minus the first."""
    before = _logits(model, name)
    for key in rows:
        path, _, leaf = key.rpartition(".")
        module, weight = model.get_submodule(path), model.get_parameter(key).detach()
        module.register_parameter(leaf, nn.Parameter(weight[1:] - weight[:1]))
        if isinstance(module, nn.Linear):
            module.out_features = 1
    labels: dict[Any, Any] = dict(model.config.id2label or {})
    model.config.num_labels = 1
    cast(Any, model).num_labels = 1
    after, expected = _logits(model, name), before[:, 1:] - before[:, :1]
    if not (after - expected).abs().max() <= EXACT * before.abs().max():
        raise ModelError(
            f"{name}: the two logits of a {type(model).__name__} cannot be made one; give a "
            "checkpoint with one label, or student.head=linear, which trains a fresh head"
        )
    warnings.warn(
        f"{name}: its head has two labels; a score is the logit of {labels.get(1)!r} minus that "
        f"of {labels.get(0)!r}",
        stacklevel=2,
    )


@torch.no_grad()
def _logits(model: PreTrainedModel, name: str) -> Tensor:
    """Logits [1, labels] of some tokens."""
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    end = getattr(model.config, "eos_token_id", None)  # some read their score there
    ids = [i for i in range(min(rows, 8)) if i not in (model.config.pad_token_id, end)]
    with explained(name):
        tokens = torch.tensor([[*ids, *([end] if isinstance(end, int) and end < rows else [])]])
        logits: Tensor = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return logits
