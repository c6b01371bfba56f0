"""The Set-Encoder: a passage sees the [INT] tokens of the others of its list, and nothing else."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import gelu, layer_norm
from transformers import BertForSequenceClassification, ElectraConfig, ElectraModel
from transformers.initialization import no_init_weights

from rdx.loading import ModelError
from rdx.students import Student
from rdx.students.between import _Among, _draw
from tests.rdx import small_models, tiny

WORDS = "river engine garden planet violin market stone reed kelp onyx amber basil".split()
LISTS = [
    ("river engine", ["garden planet violin", "river", "stone reed kelp onyx market engine"]),
    ("stone", ["reed"]),
    ("river engine", ["onyx stone", "garden planet violin", "amber", "basil river engine"]),
]
PAIRS = [(query, passage) for query, passages in LISTS for passage in passages]
SIZES = [len(passages) for _, passages in LISTS]
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
}
HEADS = ["cls", "linear", "mean", "interaction"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of a tiny BERT and of a tiny ELECTRA, whose embeddings are narrower."""
    root = tmp_path_factory.mktemp("between")
    tiny.bert(root / "bert", WORDS, **SHAPE)
    tiny.tokenizer(root / "electra", WORDS).save_pretrained(root / "electra")
    torch.manual_seed(1)
    config = ElectraConfig(vocab_size=5 + len(WORDS), embedding_size=12, **SHAPE)
    ElectraModel(config).eval().save_pretrained(root / "electra")
    return root


def student(folder, kind="bert", **options):
    settings = {"head": "linear", "between": "int_token", "query_length": 6, "passage_length": 20}
    return Student(str(folder / kind), **(settings | options)).create(0).eval()


@torch.no_grad()
def scores(model, pairs=PAIRS, sizes=SIZES):
    return model(*model.pairs.batch(pairs, sizes))


class Naive:
    """A list's scores from the weights alone, passage by passage, head by head, in float64."""

    def __init__(self, model):
        base = model.encoder.base_model
        self.w = {name: tensor.double() for name, tensor in base.state_dict().items()}
        self.head = model.head.linear.weight.double()
        self.layers, self.heads = base.config.num_hidden_layers, base.config.num_attention_heads
        self.int_token = model.encoder.config.int_token_id
        self.tokenizer = model.pairs.tokenizer

    def dense(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name, x):
        return layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-12)

    def embedded(self, query, passage):
        """[CLS] [INT] query [SEP] passage [SEP], types 0 up to the first [SEP], positions 0, 1, ..."""
        first, second = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, passage)
        )
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids = [cls, self.int_token, *first, sep, *second, sep]
        types = [0] * (3 + len(first)) + [1] * (1 + len(second))
        tables = [
            self.w[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "token_type", "position")
        ]
        places = (ids, types, range(len(ids)))
        x = sum(table[list(rows)] for table, rows in zip(tables, places, strict=True))
        x = self.norm("embeddings.LayerNorm", x)
        return self.dense("embeddings_project", x) if "embeddings_project.weight" in self.w else x

    def layer(self, number, states):
        """The next vectors of every passage of a list."""
        name, after = f"encoder.layer.{number}", []
        for i, own in enumerate(states):
            others = [state[1] for j, state in enumerate(states) if j != i]
            seen = torch.cat([own, torch.stack(others)]) if others else own
            query = self.dense(f"{name}.attention.self.query", own)
            key = self.dense(f"{name}.attention.self.key", seen)
            value = self.dense(f"{name}.attention.self.value", seen)
            mixed = []
            for q, k, v in zip(*(x.chunk(self.heads, 1) for x in (query, key, value)), strict=True):
                mixed.append((q @ k.T / math.sqrt(q.shape[1])).softmax(1) @ v)
            x = self.dense(f"{name}.attention.output.dense", torch.cat(mixed, 1))
            x = self.norm(f"{name}.attention.output.LayerNorm", x + own)
            inner = gelu(self.dense(f"{name}.intermediate.dense", x))
            inner = self.dense(f"{name}.output.dense", inner)
            after.append(self.norm(f"{name}.output.LayerNorm", inner + x))
        return after

    @torch.no_grad()
    def scores(self, query, passages):
        states = [self.embedded(query, passage) for passage in passages]
        for number in range(self.layers):
            states = self.layer(number, states)
        return torch.stack([(state[0] @ self.head.T)[0] for state in states])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_scores_are_those_of_the_naive_form(folder, kind, attention):
    model = student(folder, kind, attention_implementation=attention)
    naive = Naive(model)
    expected = torch.cat([naive.scores(*one) for one in LISTS])
    assert torch.allclose(scores(model).double(), expected, atol=1e-5)
    alone = torch.cat([naive.scores(query, [passage]) for query, passage in PAIRS])
    assert (expected - alone)[np.array(SIZES).repeat(SIZES) > 1].abs().min() > 1e-3


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_list_scores_alone_as_among_others(folder, kind, head):
    """Whatever padding, neighbours, and copies of its passages in other lists."""
    model = student(folder, kind, head=head)
    together = scores(model).split(SIZES)
    for (query, passages), expected in zip(LISTS, together, strict=True):
        own = [(query, passage) for passage in passages]
        assert torch.allclose(scores(model, own, [len(own)]), expected, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_an_order_of_the_list_orders_its_scores(folder, head):
    model = student(folder, head=head)
    query, passages = LISTS[2]
    pairs = [(query, passage) for passage in passages]
    expected = scores(model, pairs, [4])
    for order in ([3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]):
        shuffled = scores(model, [pairs[i] for i in order], [4])
        assert torch.allclose(shuffled, expected[order], atol=1e-5)
    assert expected.unique().numel() == 4


def test_a_passage_by_itself_is_scored_as_a_pair_with_the_token(folder):
    """By the encoder as it is, of ids that hold the token; and so is what no list is told of."""
    model = student(folder)
    inputs, parts = model.pairs.batch(PAIRS)
    with torch.no_grad():
        alone = model(inputs, parts)
        expected = []
        for query, passage in PAIRS:
            ids = model.pairs.tokenizer(query, passage)["input_ids"]
            ids.insert(1, model.encoder.config.int_token_id)
            types = [0] * (ids.index(3) + 1)
            types += [1] * (len(ids) - len(types))
            plain = model.encoder(
                input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])
            )
            expected.append(model.head.linear(plain.last_hidden_state[:, 0])[0, 0])
    assert torch.allclose(alone, torch.stack(expected), atol=1e-5)
    assert torch.allclose(scores(model, PAIRS, [1] * len(PAIRS)), alone, atol=1e-6)


def test_passages_see_the_tokens_of_their_own_list_alone(folder):
    """By the gradients of one score at all embedded tokens."""
    model = student(folder, head="mean")
    seen = []
    table = model.encoder.get_input_embeddings()
    hook = table.register_forward_hook(lambda module, args, out: seen.append(out) or out)
    inputs, parts = model.pairs.batch(PAIRS, SIZES)
    score = model(inputs, parts)[1]
    hook.remove()
    (pull,) = torch.autograd.grad(score, seen)
    touched = pull.abs().sum(2) > 0
    lengths = inputs["attention_mask"].sum(1) + 1
    real = torch.arange(touched.shape[1]) < lengths[:, None]
    assert torch.equal(touched, real & (torch.arange(len(PAIRS)) < 3)[:, None])
