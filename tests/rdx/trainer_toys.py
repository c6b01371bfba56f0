"""A toy collection, toy lists, and a toy BERT to train on them in a second."""

from pathlib import Path

import pandas as pd
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from rdx.collection import Collection
from rdx.lists import TrainingList
from rdx.losses import RankNet
from rdx.students import Student
from rdx.trainer import Steps, Trainer, fit

WORDS = "river engine garden planet violin market stone reed kelp onyx".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
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
    made = folder / f"{name}{layers}"
    if not made.exists():
        made.mkdir(parents=True)
        (made / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2}
        rate = DROPOUT[name]
        rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        config = BertConfig(
            vocab_size=15, intermediate_size=32, max_position_embeddings=32, **sizes, **rates
        )
        BertModel(config).save_pretrained(made)
        BertTokenizerFast(str(made / "vocab.txt")).save_pretrained(made)
    return made


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
        TOY,
        budget or Steps(6),
        Trainer(**(FAST | settings)),
        seed,
        folder / work,
        **options,
    )
    return student, facts


def equal(one, other) -> bool:
    """Whether two students have the same bits."""
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def parameters(student) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(student.parameters()).detach().double()
