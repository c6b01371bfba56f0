"""Make a student, or load one that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from rdx.draws import seed as draw_seed
from rdx.gguf import folder_of
from rdx.loading import ModelError, explained, pretrained
from rdx.students import packing, probe
from rdx.students.apart import refuse_mixing
from rdx.students.encoder import (
    LIKE_BERT,
    PACKED,
    CrossEncoder,
    add_adapters,
    compile_encoder,
)
from rdx.students.folders import (
    FACTS,
    HEAD,
    check_folder,
    check_whole,
    is_exported,
    saved_head,
    scores_lists,
    trained_form,
)
from rdx.students.heads import OWN
from rdx.students.int_token import add_int_token
from rdx.students.modeling_rdx import RdxForSequenceClassification
from rdx.students.settings import CLASSIFIERS, VARLEN, Student
from rdx.students.tokenising import Pairs, load_tokenizer
from rdx.students.weights import (
    configuration,
    dropouts,
    first_layers,
    freeze_positions,
    pooling,
    read_encoder,
)

PAIRWISE = ("full", "sparse")  # attention that sees nothing but one query and one passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer(settings: Student) -> PreTrainedTokenizerBase:
    """As `Student.tokenizer`."""
    folder = str(folder_of(settings.model, settings.revision))
    return load_tokenizer(folder, f"student.model={settings.model}")


def create(settings: Student, seed: int) -> CrossEncoder:
    """As `Student.create`."""
    folder = folder_of(settings.model, settings.revision)
    name = f"student.model={settings.model}"
    with explained(name):
        check_folder(folder, name, settings.head, settings.between)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(seed, "weights"))
        student = _assembled(settings, str(folder), name, fresh=True)
        if saved_head(folder) is not None:
            _load_head(student, folder, name)
        if settings.attention == "sparse":
            refuse_mixing(student.encoder, settings.query_length, settings.passage_length)
        probe.check(student, settings)
        return _finished(settings, student, adapt=True)


def load(settings: Student, folder: Path, seed: int | None = None) -> CrossEncoder:
    """As `Student.load`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(seed or 0, "adapters"))
        training = seed is not None
        student = _assembled(settings, str(folder), str(folder), fresh=False, training=training)
        _load_head(student, folder, str(folder))
        return _finished(settings, student, adapt=training)


def trained(
    model: str, revision: str | None, query_length: int, passage_length: int
) -> CrossEncoder:
    """A cross-encoder that scores pairs as it was trained to; no weight is drawn anew.

    Parameters
    ----------
    model, revision
        A stored or exported student of rdx, or a sequence classifier of Transformers with one
        label, or two (`Student.head`).
    query_length, passage_length
        Tokens kept of each text.

    Raises
    ------
    ModelError, FileNotFoundError, ValueError, AssetError, HubError
        If there is none that scores single pairs; the message begins with the name of an argument.
    """
    folder, name = folder_of(model, revision), f"model={model}"
    head, attention = trained_form(folder)
    if attention not in PAIRWISE:
        raise ModelError(
            f"{name}: a student with attention={attention} (in {FACTS}), of which single pairs "
            f"cannot be scored; it must be one of {list(PAIRWISE)}"
        )
    settings = Student(
        model,
        head=head,
        query_length=query_length,
        passage_length=passage_length,
        attention=attention,
        revision=revision,
    )
    check_whole(folder, name)
    if scores_lists(folder):
        raise ModelError(f"{name}: a student that scores lists, and not passages alone")
    try:
        student = whole(settings, folder, name)
        probe.check(student, settings)
    except ModelError as error:
        raise ModelError(str(error).removeprefix("student.")) from error
    return student.eval()


def whole(settings: Student, folder: Path, name: str) -> CrossEncoder:
    """A student with all weights of a folder: stored, exported, or a classifier of Transformers.

    No code of the folder is run. `name` begins the message of errors.
    """
    if is_exported(folder):
        model: Any = pretrained(RdxForSequenceClassification, str(folder))
        pairs = Pairs(str(folder), settings, model.encoder)
        return CrossEncoder(model.encoder, model.head, pairs)
    student = _assembled(settings, str(folder), name, fresh=False, training=False)
    _load_head(student, folder, name)
    return student


def _assembled(
    settings: Student, folder: str, name: str, fresh: bool, training: bool = True
) -> CrossEncoder:
    config = configuration(folder, name)
    extra = {} if settings.layers is None else first_layers(config, settings.layers, name)
    implementation = settings.attention_implementation
    if implementation is None and training and not torch.cuda.is_available():
        # On a CPU, at a few hundred tokens, torch's fused attention scores faster, and trains
        # 1.4 times slower.
        implementation = "eager"
    if implementation not in (None, VARLEN):
        extra["attn_implementation"] = implementation
    if settings.dropout is not None:
        extra |= dict.fromkeys(dropouts(config), settings.dropout)
    if implementation == VARLEN and config.model_type not in PACKED:
        raise ModelError(
            f"student.attention_implementation='varlen': {name} is a model of type "
            f"{config.model_type!r}; it packs {', '.join(PACKED)}. Use null"
        )
    if settings.pooling is not None:
        extra |= pooling(config, settings.pooling)
    own = settings.head in CLASSIFIERS
    encoder = read_encoder(folder, name, own, settings.layers, fresh, **extra)
    if not own and getattr(encoder, "pooler", None) is not None:
        # Nothing reads it: several processes wait for its gradient, compiling makes it 0.
        encoder.pooler.requires_grad_(False)
    encoder = encoder.float()
    if implementation == VARLEN:
        packing.use(encoder)
    if settings.frozen_positions:
        freeze_positions(encoder, name)
    if settings.scores_lists:
        if config.model_type not in LIKE_BERT:
            raise ModelError(
                f"student.between={settings.between}: {name} is a model of type "
                f"{config.model_type!r}; it is for {', '.join(LIKE_BERT)}. Use none"
            )
        add_int_token(encoder)
    head = None if own else OWN[settings.head](encoder.config.hidden_size)
    pairs = Pairs(folder, settings, encoder, fresh)
    return CrossEncoder(encoder, head, pairs, settings.filled_to)


def _load_head(student: CrossEncoder, folder: Path, name: str) -> None:
    if student.head is not None:
        with explained(f"{name}: {HEAD}"):
            student.head.load_state_dict(load_file(folder / HEAD))


def _finished(settings: Student, student: CrossEncoder, adapt: bool) -> CrossEncoder:
    """The student with fresh adapters, if it is to have some, and compiled."""
    if settings.lora is not None and adapt:
        add_adapters(student.encoder, settings.lora)
    if settings.compile:
        compile_encoder(student.encoder)
    return student
