"""Write the weights of a student in the forms that other libraries load."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from torch import Tensor
from transformers import PreTrainedModel

from rdx import config
from rdx.artifacts import DESCRIPTION
from rdx.export.cells import AS_TRAINED, ExportError
from rdx.export.lightning import nameless, write_lightning
from rdx.students import CrossEncoder, Student, making
from rdx.students.folders import LIGHTNING
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


def read(folder: Path) -> CrossEncoder:
    """The student that `write` wrote to a folder in the form "transformers", ready to score.

    It cuts texts as rdx does. No code of the folder is run.

    Raises
    ------
    ExportError
        If `rdx.export.export` did not write the folder, or in another form.
    """
    description = folder / DESCRIPTION
    try:
        known = yaml.safe_load(description.read_text(encoding="utf-8"))["config"]["student"]
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ExportError(
            f"{folder}: no student that python -m rdx export SIGNATURE FOLDER wrote ({error})"
        ) from error
    if kind in LIGHTNING:
        raise ExportError(f"{folder}: in the form of lightning_ir; export it without --form")
    settings: Student = config.build(known | AS_TRAINED, f"{description}: student")
    return making.whole(settings, folder, str(folder)).eval()


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
