"""A toy collection, toy lists, and a toy BERT to train on them in a second."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from rdx.collection import Collection
from rdx.lists import TrainingList
from rdx.losses import RankNet
from rdx.students import Student
from rdx.trainer import Steps, Trainer, fit
from tests.rdx import tiny

WORDS = "river engine garden planet violin market stone reed kelp onyx".split()
PASSAGES = {f"d{i}": f"{WORDS[i % 10]} {' '.join(WORDS[: i % 4])}".strip() for i in range(20)}
TOY = Collection(
    "toy",
    {f"q{i}": WORDS[i] for i in range(7)},
    PASSAGES,
    pd.DataFrame(columns=["query_id", "doc_id", "relevance"]),
)
# the passages that are the query's word come first; lists of different length
LISTS = [
    TrainingList(f"q{i}", tuple(f"d{(i + j) % 20}" for j in range(n)), tuple(range(1, n + 1)))
    for i, n in enumerate([4, 2, 5, 3, 4, 2, 3])
]
FAST = {"learning_rate": 5e-3, "batch": 3, "precision": "fp32", "device": "cpu"}
DROPOUT = {"wet": 0.2, "dry": 0.0}


class Stop(Exception):
    """Stands for a killed process."""


def stop_at(step):
    def on_step(now, metrics):
        if now == step:
            raise Stop

    return on_step


def bert(folder: Path, name: str = "wet", layers: int = 1) -> Path:
    """Folder of a model with dropout ("wet") or without ("dry"), made when first asked for."""
    model, rate = folder / f"{name}{layers}", DROPOUT[name]
    if not model.exists():
        sizes = {"num_hidden_layers": layers, "max_position_embeddings": 32}
        rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        tiny.bert(model, WORDS, **sizes, **rates)
    return model


def tokens_of(student):
    """The toy texts as a student reads them."""
    return student.pairs.tokens(TOY.queries, PASSAGES)


def scores_of(student, training_list):
    """The student's scores of a list, with a graph if there is to be one."""
    query = TOY.queries[training_list.query_id]
    texts = [(query, PASSAGES[doc_id]) for doc_id in training_list.doc_ids]
    return student(*student.pairs.batch(texts))


def toy_student(folder: Path, model: str = "wet", layers: int = 1, **options):
    settings = {"head": "mean", "query_length": 4, "passage_length": 16} | options
    return Student(str(bert(folder, model, layers)), **settings).create(0)


def trained(
    folder: Path, model="wet", loss=None, budget=None, seed=0, work="work", head="mean", **options
):
    """Train a fresh student in folder/work; gives (student, facts)."""
    settings = {k: options.pop(k) for k in list(options) if k in Trainer.__dataclass_fields__}
    student = options.pop("student", None) or toy_student(folder, model, head=head)
    (folder / work).mkdir(exist_ok=True)
    facts = fit(
        student,
        loss or RankNet(),
        options.pop("lists", lambda epoch: LISTS),
        tokens_of(student),
        budget or Steps(6),
        Trainer(**(FAST | settings)),
        seed,
        folder / work,
        **options,
    )
    return student, facts


def stopped(train, step, work="cut", **settings):
    """Train as `trained` does, but for a process that is killed at a step."""
    with pytest.raises(Stop):
        train(work=work, on_step=stop_at(step), **settings)


def equal(one, other) -> bool:
    """Whether two students have the same bits."""
    weights = other.state_dict()
    return all(torch.equal(weights[name], value) for name, value in one.state_dict().items())


def parameters(student) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(student.parameters()).detach().double()
