"""What layers leave out changes no score: padding, and in the end all but [CLS]."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from trainer_toys import LISTS, WORDS, parameters, tokens_of, trained
from transformers import (
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rdx.batches import micro_batches, positions_of, rows_of
from rdx.losses import RankNet
from rdx.students import Student
from rdx.students.heads import OWN
from rdx.students.packing import Packing, places
from rdx.trainer import Steps
from rdx.trainer.preparing import Share, prepare
from tests.rdx import tiny

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 64, "vocab_size": len(tiny.SPECIAL) + len(WORDS), "num_labels": 1,
    "pad_token_id": 0, "embedding_size": 8, "initializer_range": 0.3,
}  # fmt: skip
# Layers that see all tokens, and those at most two away; the positions of the two differ.
MODERN = {
    "num_hidden_layers": 3, "local_attention": 4, "cls_token_id": 2, "sep_token_id": 3,
    "global_attn_every_n_layers": 2, "global_rope_theta": 100.0, "local_rope_theta": 10.0,
    "bos_token_id": 2, "eos_token_id": 3, "classifier_pooling": "cls",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model of a type, with a tokeniser of whole words."""
    made = tmp_path_factory.mktemp("models")

    def of(kind):
        place = made / kind
        if not place.exists() and kind == "bert":
            sizes = {"num_hidden_layers": 2, "num_labels": 1, "initializer_range": 0.3}
            tiny.bert(place, WORDS, BertForSequenceClassification, **sizes)
        elif not place.exists():
            cls, config, more = {
                "electra": (ElectraForSequenceClassification, ElectraConfig, {}),
                "roberta": (RobertaForSequenceClassification, RobertaConfig, {}),
                "modernbert": (ModernBertForSequenceClassification, ModernBertConfig, MODERN),
            }[kind]
            torch.manual_seed(0)
            cls(config(**(SIZES | more))).save_pretrained(place)
            tiny.tokenizer(place, WORDS).save_pretrained(place)
        return str(place)

    return of


def pairs(student):
    """Inputs and parts of pairs of different length."""
    tokens = tokens_of(student)
    rows = rows_of(LISTS, tokens)
    [micro] = micro_batches(tokens, rows, positions_of(LISTS), 10**6)
    mask = micro.inputs["attention_mask"]
    assert mask.sum() < 0.9 * mask.numel()
    return micro.inputs, micro.parts


def with_gradient(student, score):
    """Scores, and the gradient of something that depends on all of them."""
    scores = score()
    (scores * torch.arange(len(scores))).sum().backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in student.parameters()]
    student.zero_grad()
    return scores.detach(), torch.nn.utils.parameters_to_vector(grads)


def close(one, other):
    for mine, theirs in zip(one, other, strict=True):
        assert (mine - theirs).norm() <= 3e-6 * theirs.norm()


KINDS = [("bert", head) for head in ("cls", *OWN)]
KINDS += [(kind, head) for kind in ("electra", "roberta") for head in ("cls", "interaction")]
KINDS += [("modernbert", head) for head in ("cls", "linear", "mean", "interaction")]


@pytest.mark.parametrize(("kind", "head"), KINDS)
def test_scores_and_gradients_are_those_of_the_plain_encoder(folder, kind, head):
    settings = Student(folder(kind), head=head, query_length=4, passage_length=16)
    plain = settings.create(0).eval()
    inputs, parts = pairs(plain)

    def reference():
        output = plain.encoder(**inputs)
        if plain.head is None:
            return output.logits.squeeze(1)
        return plain.head(output.last_hidden_state, inputs["attention_mask"], parts)

    expected = with_gradient(plain, reference)
    assert expected[0].std() > 1e-4
    placed = inputs | places(inputs["attention_mask"])
    for implementation, given in (
        ("eager", inputs), ("sdpa", inputs), ("varlen", inputs), ("varlen", placed),
    ):  # fmt: skip
        student = replace(settings, attention_implementation=implementation).create(0).eval()
        close(with_gradient(student, partial(student, given, parts)), expected)
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in student.encoder.modules())


def test_places_of_tokens():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    known = places(mask)
    assert known["real"].tolist() == [0, 1, 3, 4, 5, 6]
    assert known["starts"].tolist() == [0, 2, 5, 6] and known["starts"].dtype == torch.int32
    packing = Packing.of({"attention_mask": mask})
    values = torch.arange(1.0, 7.0)
    assert packing.unpack(values).tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert packing.pack(packing.unpack(values)).tolist() == values.tolist()
    assert Packing.of({"attention_mask": mask.flip(1)}).real.tolist() == [1, 2, 3, 4, 5, 8]


def test_packed_attention_by_jagged_tensors():
    """What runs on GPUs where attention drops something."""
    packing = Packing.of({"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])})
    torch.manual_seed(0)
    rows = [torch.randn(6, 2, 4, requires_grad=True) for _ in range(3)]
    results = []
    for attend in (packing.attend, packing.jagged):
        mixed = attend(*rows, 0.0, 0.3)
        results.append((mixed, *torch.autograd.grad(mixed.square().sum(), rows)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    alone = torch.nn.functional.scaled_dot_product_attention(
        *(each[2:5].transpose(0, 1) for each in rows), scale=0.3
    )
    torch.testing.assert_close(results[0][0][2:5], alone.transpose(0, 1))


def test_a_training_without_padding_gives_the_weights_of_one_with(folder, tmp_path, monkeypatch):
    """Where nothing is dropped; by plain descent, as Adam makes a step of what is rounding."""
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    settings = Student(folder("bert"), dropout=0.0, query_length=4, passage_length=16)
    after = {}
    for name in ("eager", "varlen"):
        student = replace(settings, attention_implementation=name).create(0)
        options = {"budget": Steps(3), "max_tokens": 60, "learning_rate": 0.1}
        trained(tmp_path, student=student, work=name, **options)
        after[name] = parameters(student)
    moved = after["eager"] - parameters(settings.create(0))
    assert (after["varlen"] - after["eager"]).norm() < 1e-4 * moved.norm()


def test_where_tokens_are_is_known_before_the_step(folder):
    tokens = tokens_of(Student(folder("bert"), query_length=4, passage_length=16).create(0))
    made = prepare(LISTS, tokens, RankNet(), 60, 200, Share(), packs=True)
    for micro in (micro for group in made.groups for micro in group.micros):
        mask = micro.inputs["attention_mask"]
        assert micro.inputs["real"].tolist() == mask.flatten().nonzero().flatten().tolist()


def test_what_cannot_be_packed_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="compile"):
        Student(folder("bert"), compile=True, attention_implementation="varlen")
    with pytest.raises(ValueError, match="sparse"):
        Student(folder("bert"), attention="sparse", attention_implementation="varlen")
