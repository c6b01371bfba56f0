"""Write the weights of a student in the forms that other libraries load."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rdx.export.cells import ExportError
from rdx.export.lightning import nameless, write_lightning
from rdx.students import CrossEncoder, Student
from rdx.students.modeling_rdx import RdxConfig, RdxForSequenceClassification
from rdx.students.settings import CLASSIFIERS
from rdx.tokens import LISTS

FORMS = ("transformers", "lightning_ir")
# What is read back must give these pairs the student's scores.
PROBES = [
    ("how do vaccines work", "A vaccine trains the immune system to recognise a pathogen."),
    ("capital of france", "Bread rises because yeast produces carbon dioxide."),
    ("capital of france", "b"),
    ("a", "b"),
]
SIZES = (1, 2, 1)  # lists of passages of one query
TOLERANCE = 1e-4  # of the scores' size


def write(student: CrossEncoder, settings: Student, form: str, folder: Path) -> None:
    """Write weights, configuration and tokeniser of a student.

    Raises
    ------
    ExportError
        If the student cannot be expressed in that form, or the weights do not survive it.
    """
    tokenizer = student.pairs.tokenizer
    longest = settings.query_length + settings.passage_length
    # So that longer pairs are cut where no length is asked for, if not quite as rdx cuts them.
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, longest + tokenizer.num_special_tokens_to_add(pair=True)
    )
    if form == "lightning_ir":
        write_lightning(student, settings, folder)
        return
    model = student.encoder if plain(settings) else _packed(student, settings)
    # sentence-transformers would put a sigmoid on the scores.
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _check(student, type(model).from_pretrained(folder).eval())


def plain(settings: Student) -> bool:
    """Whether Transformers has a class of its own for a student; else it needs our code."""
    full = settings.attention == "full" and not settings.scores_lists
    return settings.head in CLASSIFIERS and full


def _packed(student: CrossEncoder, settings: Student) -> RdxForSequenceClassification:
    """Encoder and head as one model, whose code goes into the folder."""
    tokenizer = student.pairs.tokenizer
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ExportError(
            f"student.head={settings.head!r}, attention={settings.attention!r}, "
            f"between={settings.between!r}: outside rdx the two texts are told apart by [CLS] and "
            "[SEP], which this tokeniser does not have; head=cls with attention=full and "
            "between=none can be exported"
        )
    packed = RdxConfig(
        encoder=nameless(student.encoder.config.to_dict()),
        head=settings.head,
        attention=settings.attention,
        between=settings.between,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
    )
    RdxConfig.register_for_auto_class()
    RdxForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
    model = RdxForSequenceClassification(packed)
    model.encoder.load_state_dict(student.encoder.state_dict())
    if student.head is not None and model.head is not None:
        model.head.load_state_dict(student.head.state_dict())
    model.eval()
    return model


@torch.inference_mode()
def _check(student: CrossEncoder, model: PreTrainedModel) -> None:
    """Compare what was written with the student."""
    inputs, parts = student.pairs.batch(PROBES, SIZES)
    expected: Tensor = student(inputs, parts)
    inputs.pop(LISTS)
    scores = model(**inputs).logits.squeeze(1)
    if not torch.allclose(scores, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise ExportError(
            f"the written model scores {scores.tolist()} where the student scores "
            f"{expected.tolist()}: this encoder does not survive saving and loading"
        )
