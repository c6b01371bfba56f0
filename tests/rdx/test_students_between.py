"""The Set-Encoder: a passage sees the [INT] tokens of the others of its list, and nothing else."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_evaluation import ranking
from torch.nn.functional import gelu, layer_norm
from trainer_toys import LISTS as TRAINED
from trainer_toys import PASSAGES, TOY, equal, parameters, stopped, tokens_of, toy_student
from transformers import ElectraConfig, ElectraModel

from rdx.evaluation import rerank, timed
from rdx.loading import ModelError
from rdx.losses import ADRMSE, RankNet
from rdx.rankings import read_trec
from rdx.students import Student
from rdx.students.between import _Among, _draw
from rdx.students.scoring import Scorer
from rdx.trainer import Epochs, Steps, Trainer
from rdx.trainer.preparing import Share, prepare
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
        """[CLS] [INT] query [SEP] passage [SEP]; types are 0 up to the first [SEP]."""
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

    def layer(self, number, states, filled_to):
        """The next vectors of every passage of a list, filled up with the mean [INT] vector."""
        name, after = f"encoder.layer.{number}", []
        tokens = [state[1] for state in states]
        tokens += [sum(tokens) / len(tokens)] * (filled_to - len(tokens))
        for i, own in enumerate(states):
            others = tokens[:i] + tokens[i + 1 :]
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
    def scores(self, query, passages, filled_to=0):
        states = [self.embedded(query, passage) for passage in passages]
        for number in range(self.layers):
            states = self.layer(number, states, filled_to)
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


@pytest.mark.parametrize("filled_to", [2, 4, 7])
def test_short_lists_are_filled_up_in_training_alone(folder, filled_to, monkeypatch):
    """Without a deviation; of one passage there is none, in any case."""
    model = student(folder, dropout=0.0, filled_to=filled_to)
    naive = Naive(model)
    assert torch.allclose(scores(model), scores(student(folder)), atol=1e-6)
    model.train()
    one = naive.scores(*LISTS[1], filled_to)
    assert torch.allclose(scores(model)[3:4].double(), one, atol=1e-5)
    assert torch.equal(scores(model)[:3], scores(model)[:3]) == (filled_to == 2)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    expected = torch.cat([naive.scores(*each, filled_to) for each in LISTS])
    assert torch.allclose(scores(model).double(), expected, atol=1e-5)


def test_what_is_drawn_is_like_the_real_vectors_of_each_list():
    vectors = torch.tensor([[[1.0, 10.0], [3.0, 10.0], [2.0, 40.0]], [[5.0, -5.0], [0, 0], [0, 0]]])
    real = torch.tensor([[True, True, True], [True, False, False]])
    torch.manual_seed(0)
    drawn = _draw(vectors.repeat(20_000, 1, 1), real.repeat(20_000, 1))
    first, second = drawn[::2].flatten(0, 1), drawn[1::2].flatten(0, 1)
    assert torch.allclose(first.mean(0), torch.tensor([2.0, 20.0]), rtol=0.02)
    assert torch.allclose(first.std(0), torch.tensor([1.0, 300.0**0.5]), rtol=0.02)
    assert torch.equal(second, torch.tensor([[5.0, -5.0]]).expand_as(second))


def test_all_passages_of_a_list_see_the_same_drawn_vectors():
    lists = torch.tensor([[0, 1, -1], [2, 3, 4]])
    among = _Among.of(lists, 5, 4)
    seen = among._seen(torch.arange(8.0).view(2, 4, 1).repeat(1, 1, 2), 2)
    assert seen[:, 0, :, 0].tolist() == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 3
    allowed = (among.bias[:, 0, 0] == 0).int().tolist()
    assert allowed == [[0, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]]
    assert (_Among.of(lists, 5, 0).bias[:, 0, 0] == 0).int().tolist() == [
        [0, 1, 0], [1, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]
    ]  # fmt: skip


def test_lists_may_stand_in_any_order_in_a_batch(folder):
    model = student(folder)
    expected = scores(model)
    inputs, parts = model.pairs.batch(PAIRS, SIZES)
    order = torch.tensor([5, 0, 7, 3, 1, 6, 2, 4])
    places = order.argsort()
    lists = inputs["lists"]
    mixed = {name: each[order] for name, each in inputs.items() if name != "lists"}
    mixed["lists"] = torch.where(lists >= 0, places[lists.clamp(min=0)], -1)[[2, 0, 1]]
    with torch.no_grad():
        assert torch.allclose(model(mixed, parts[order]), expected[order], atol=1e-6)


def test_saving_and_loading_changes_nothing(folder, tmp_path):
    model = student(folder, head="interaction", filled_to=4)
    model.save(tmp_path)
    saved = Student(
        *(str(tmp_path), None, "interaction", 6, 20),
        between="int_token",
        attention_implementation="eager",
    )
    assert torch.equal(scores(saved.load(tmp_path).eval()), scores(model))
    assert torch.equal(scores(saved.create(3).eval()), scores(model))
    with pytest.raises(ModelError, match="between=int_token"):
        Student(str(tmp_path), head="interaction", query_length=6, passage_length=20).create(0)


def test_the_token_is_one_new_row_that_the_seed_decides(folder):
    tables = [
        Student(str(folder / "bert"), head="mean", between=between, query_length=6,
                passage_length=20).create(seed).encoder.get_input_embeddings().weight.detach()
        for between, seed in [("none", 0), ("int_token", 0), ("int_token", 0), ("int_token", 1)]
    ]  # fmt: skip
    plain, one, same, other = tables
    assert len(one) == len(plain) + 1
    for table in (one, same, other):
        assert torch.equal(table[:-1], plain)
    assert torch.equal(one[-1], same[-1])
    assert not torch.allclose(one[-1], other[-1])
    assert 0.2 < torch.cat([one[-1], other[-1]]).std() < 0.9  # initializer_range is .5


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"between": "cls"}, "between"),
        ({"between": "int_token", "attention": "sparse"}, "attention"),
        (
            {"between": "int_token", "attention_implementation": "varlen"},
            "attention_implementation",
        ),
        ({"between": "int_token", "attention_implementation": "flash_attention_2"}, "sdpa"),
        ({"between": "int_token", "compile": True}, "compile"),
        ({"filled_to": 100}, "filled_to"),
        ({"between": "int_token", "filled_to": 0}, "filled_to"),
    ],
)
def test_bad_values_name_their_key(values, key):
    with pytest.raises(ValueError, match=key):
        Student("a/b", **values)


def test_encoders_that_are_not_like_bert_are_refused(tmp_path):
    kind = "distilbert"
    with pytest.raises(ModelError, match=r"student\.between=int_token.*distilbert"):
        Student(small_models.save(kind, tmp_path), between="int_token").create(0)


def test_a_pair_takes_one_position_more(tmp_path):
    settings = {"head": "linear", "query_length": 8, "passage_length": 53}
    tiny.bert(tmp_path, WORDS)  # of 64 positions
    Student(str(tmp_path), **settings).create(0)
    with pytest.raises(ModelError, match="passage_length=52"):
        Student(str(tmp_path), between="int_token", **settings).create(0)


def test_roberta_has_the_token_behind_its_first(tmp_path):
    """Its positions begin behind that of padding."""
    place = small_models.save("roberta", tmp_path)
    model = Student(place, head="linear", between="int_token", query_length=8, passage_length=40)
    model = model.create(0).eval()
    pairs = [("river", "stone reed kelp"), ("river", "onyx"), ("river", "amber basil river")]
    together = scores(model, pairs, [3])
    order = [2, 0, 1]
    assert torch.allclose(scores(model, [pairs[i] for i in order], [3]), together[order], atol=1e-5)
    alone = torch.cat([scores(model, [pair], [1]) for pair in pairs])
    assert (together - alone).abs().min() > 1e-4


# --- lists in training and evaluation ---

LISTED = {"head": "interaction", "between": "int_token"}


def toy(tmp_path, name="dry", **options):
    return toy_student(tmp_path, name, 2, **(LISTED | options))


def scores_of(model, one):
    query = TOY.queries[one.query_id]
    pairs = [(query, PASSAGES[doc_id]) for doc_id in one.doc_ids]
    return model(*model.pairs.batch(pairs, [len(pairs)]))


def naive_gradient(model, loss):
    """Of all lists from one graph, list by list, without any of the machinery."""
    rows = torch.nn.utils.rnn.pad_sequence([scores_of(model, one) for one in TRAINED], True)
    ranks = [torch.tensor(one.teacher_ranks) for one in TRAINED]
    ranks = torch.nn.utils.rnn.pad_sequence(ranks, True)
    loss(rows, ranks, ranks > 0).backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.nn.utils.parameters_to_vector(grads).double()


@pytest.fixture
def descend(train, tmp_path, monkeypatch):
    """The gradient of a step at rate 1 of plain descent: the difference of the weights."""
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    monkeypatch.setattr("rdx.trainer.step.MICROS", {"cpu": 1})

    def difference(work, **settings):
        model = settings.pop("student", None) or toy(tmp_path)
        start = parameters(model)
        once = {"learning_rate": 1.0, "weight_decay": 0.0, "budget": Steps(1), "batch": 7}
        after, _ = train(work=work, student=model, **(once | settings))
        return start - parameters(after)

    return difference


@pytest.mark.parametrize(("cache", "loss"), [("on", RankNet()), ("off", ADRMSE())], ids=str)
def test_the_gradient_is_that_of_one_graph(descend, tmp_path, loss, cache):
    model = toy(tmp_path)
    expected = naive_gradient(model, loss)
    token = model.encoder.get_input_embeddings().weight.grad[-1]
    assert token.norm() > 1e-3  # of [INT]
    for tokens in (1, 60, 100_000):
        settings = {"max_tokens": tokens, "gradient_cache": cache}
        difference = descend(f"{tokens}", loss=loss, **settings) - expected
        assert difference.norm() < 3e-6 * expected.norm()


def test_the_gradient_cache_replays_dropout_and_what_is_drawn(descend, tmp_path):
    def gradient(name, filled_to=4, **settings):
        model = toy(tmp_path, "wet", filled_to=filled_to)
        return descend(name, student=model, max_tokens=40, **settings)

    kept, cached = gradient("kept", gradient_cache="off"), gradient("cached", gradient_cache="on")
    assert (cached - kept).norm() < 3e-6 * kept.norm()
    bare = gradient("bare", None, gradient_cache="on")
    assert (bare - kept).norm() > 0.01 * kept.norm()


@pytest.mark.parametrize("max_tokens", [1, 45, 10_000])
@pytest.mark.parametrize("level", [False, True])
def test_every_list_is_in_one_micro_batch_of_one_process(tmp_path, level, max_tokens):
    model = toy(tmp_path)
    tokens = tokens_of(model)
    shares = [
        prepare(TRAINED, tokens, RankNet(), max_tokens, 12, Share(i, 3, level), whole_lists=True)
        for i in range(3)
    ]
    groups = list(zip(*(share.groups for share in shares), strict=True))
    assert [int(group[0].targets[1].sum(1).numel()) for group in groups] == [3, 3, 1]
    for group in groups:
        width = group[0].targets[1].shape[1]
        found = []
        for micro in (micro for own in group for micro in own.micros):
            for members in micro.inputs["lists"]:
                at = micro.positions[members[members >= 0]]
                if (at < group[0].targets[1].numel()).all():
                    (row,) = {int(place) // width for place in at}
                    assert at.tolist() == [row * width + j for j in range(len(at))]
                    found.append((row, len(at)))
        sizes = group[0].targets[1].sum(1).tolist()
        assert sorted(found) == list(enumerate(sizes))
        assert len({len(own.micros) for own in group}) == 1 or not level
        assert len({own.small for own in group}) == 1
        assert group[0].small == all(len(own.micros) <= 1 for own in group) or level


def test_the_loss_falls(train, tmp_path):
    model = toy(tmp_path, "wet", filled_to=6)
    train(loss=RankNet(), student=model, budget=Epochs(12))
    curve = json.loads((tmp_path / "work" / "curve.json").read_text())
    assert sum(curve[-3:]) < 0.6 * sum(curve[:3])


def test_a_killed_training_goes_on_bit_for_bit(train, tmp_path):
    def fresh(**settings):
        return train(student=toy(tmp_path, "wet", filled_to=5), budget=Steps(5), **settings)

    whole, _ = fresh(work="whole")
    stopped(fresh, 3, checkpoint_seconds=0)
    again, _ = fresh(work="cut", checkpoint_seconds=0)
    assert equal(whole, again)


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_reranking_scores_every_list_as_alone(tmp_path, max_tokens):
    model = toy(tmp_path).eval()
    first = ranking({one.query_id: {d: 0.5 for d in one.doc_ids} for one in TRAINED})
    first = first.sample(frac=1.0, random_state=3)  # lists may come apart
    cpu = Trainer(precision="fp32", device="cpu")
    found, _ = rerank(model, first, tokens_of(model), cpu, max_tokens)
    with torch.no_grad():
        expected = {
            (one.query_id, doc_id): score
            for one in TRAINED
            for doc_id, score in zip(one.doc_ids, scores_of(model, one).tolist(), strict=True)
        }
    assert found.set_index(["query_id", "doc_id"]).score.to_dict() == pytest.approx(
        expected, abs=1e-5
    )
    single = timed(model, first, TOY, cpu, max_tokens, 1, 3)
    assert len(single.seconds) == 3


def test_a_logged_model_takes_the_rows_of_a_query_for_a_list(folder, tmp_path):
    model = student(folder)
    model.save(tmp_path)
    settings = {"model": "x", "head": "linear", "between": "int_token", "query_length": 6}
    (tmp_path / "rdx_student.json").write_text(json.dumps(settings | {"passage_length": 20}))
    frame = pd.DataFrame(PAIRS[:5], columns=["query", "passage"]).iloc[[4, 0, 3, 1, 2]]
    expected = scores(model, [PAIRS[i] for i in (4, 0, 1, 2, 3)], [4, 1])[[0, 1, 4, 2, 3]]
    assert Scorer(tmp_path).predict(frame) == pytest.approx(expected.numpy(), abs=1e-5)
    assert Scorer(tmp_path).predict(frame[:0]).shape == (0,)


@pytest.mark.slow
def test_a_cell_is_trained_validated_evaluated_and_timed(world, tmp_path):
    """The scores of its run are those of whole lists by the saved student."""
    settings = ["between=int_token", "filled_to=6", "head=linear"]
    more = ["trainer.validate_every=2", "evaluation.efficiency=1", "evaluation.max_tokens=64"]
    world.run(tmp_path, *(f"student.{each}" for each in settings), *more)
    [checkpoint] = [path for path in (tmp_path / "distill").iterdir() if path.is_dir()]
    [evaluated] = [path for path in (tmp_path / "evaluate").iterdir() if path.is_dir()]
    found = read_trec(evaluated / "runs" / "files.student.run.gz")
    words = {"head": "linear", "between": "int_token", "query_length": 8, "passage_length": 16}
    model = Student("x", **words).load(checkpoint).eval()
    queries, passages = (
        dict(line.split("\t") for line in (world.folder / name).read_text().splitlines())
        for name in ("queries.tsv", "corpus.tsv")
    )
    for query_id, own in found.groupby("query_id"):
        pairs = [(queries[query_id], passages[doc_id]) for doc_id in own.doc_id]
        assert own.score.to_numpy() == pytest.approx(
            scores(model, pairs, [len(own)]).numpy(), abs=1e-5
        )
    assert found.groupby("query_id").size().max() == 8
