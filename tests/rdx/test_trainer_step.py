"""One optimiser step: exact gradients whatever fits into memory, and the same dropout."""

import math
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch
from trainer_toys import LISTS, equal, parameters, scores_of, stopped, toy_student

from rdx import memory
from rdx.lists import TrainingList, fixed
from rdx.losses import ADRMSE, RankNet
from rdx.trainer import Epochs, Steps, Trainer


@pytest.fixture
def gradient(train, tmp_path, monkeypatch):
    """The gradient of one step at rate 1 of plain descent: the difference of the weights."""
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)

    def descend(work, model="dry", **settings):
        start = parameters(toy_student(tmp_path, model, head="interaction"))
        once = {"learning_rate": 1.0, "weight_decay": 0.0, "budget": Steps(1)}
        after, _ = train(work=work, model=model, head="interaction", **(once | settings))
        return start - parameters(after)

    return descend


def naive(student, loss) -> torch.Tensor:
    """The gradient of all lists from one graph, list by list, without any of the machinery."""
    rows = [scores_of(student, training_list) for training_list in LISTS]
    ranks = [torch.tensor(training_list.teacher_ranks) for training_list in LISTS]
    scores, ranks = (torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (rows, ranks))
    loss(scores, ranks, ranks > 0).backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in student.parameters()]
    return torch.nn.utils.parameters_to_vector(grads).double()


@pytest.mark.parametrize("cache", ["on", "off", "auto"])
@pytest.mark.parametrize("loss", [RankNet(), ADRMSE()], ids=str)
def test_the_gradient_is_that_of_one_graph(gradient, tmp_path, loss, cache):
    expected = naive(toy_student(tmp_path, "dry", head="interaction"), loss)
    assert expected.norm() > 0.1
    for tokens in (1, 25, 100_000):
        settings = {"max_tokens": tokens, "gradient_cache": cache, "batch": 7}
        difference = gradient(f"{tokens}", loss=loss, **settings) - expected
        assert difference.norm() < 3e-6 * expected.norm()


@pytest.mark.parametrize("tokens", [25, 100_000])
def test_the_gradient_cache_replays_dropout(gradient, tokens):
    settings = {"model": "wet", "max_tokens": tokens}
    kept = gradient("kept", gradient_cache="off", **settings)
    cached = gradient("cached", gradient_cache="on", **settings)
    other = gradient("other", gradient_cache="on", seed=1, **settings)
    assert (cached - kept).norm() < 3e-6 * kept.norm()
    assert (other - kept).norm() > 0.01 * kept.norm()


class Watched(torch.nn.Module):
    """A student that notes how often it was called, with and without a graph."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.pairs, self.calls = inner, inner.pairs, []

    @property
    def encoder(self):
        return self.inner.encoder

    def forward(self, inputs, parts):
        self.calls.append(torch.is_grad_enabled())
        return self.inner(inputs, parts)


@pytest.mark.parametrize(
    ("cache", "tokens", "free", "forwards"),
    [
        ("on", 100_000, 0, [False, True]),
        ("off", 1, 0, [True] * 23),
        ("on", 1, 10**12, [False] * 23 + [True] * 23),
        # One more at the start, to know what a graph takes.
        ("auto", 100_000, 0, [True, True]),
        ("auto", 1, 0, [True] + [False] * 23 + [True] * 23),
        ("auto", 1, 10**12, [True] + [True] * 23),
    ],
)
def test_when_the_cache_is_on(train, tmp_path, monkeypatch, cache, tokens, free, forwards):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    student = Watched(toy_student(tmp_path))
    settings = {"batch": 7, "max_tokens": tokens, "gradient_cache": cache}
    train(student=student, budget=Steps(1), **settings)
    assert student.calls == forwards


def test_auto_depends_on_the_device():
    assert Trainer(max_tokens="auto").tokens("cuda") == 65536
    assert Trainer(max_tokens="auto").tokens("cpu") == 4096
    assert Trainer(max_tokens=7).tokens("cuda") == 7


def test_bytes_of_a_graph():
    """Of x -> tanh(x W): x for the gradient of W, W for that of x, and the tanh."""
    x, weight = torch.ones(6, 3, requires_grad=True), torch.ones(3, 5, requires_grad=True)
    assert memory.kept_bytes(lambda: torch.tanh(x @ weight), [weight]) == 4 * (6 * 3 + 6 * 5)
    assert memory.kept_bytes(lambda: torch.tanh(x @ weight), []) == 4 * (6 * 3 + 6 * 5 + 3 * 5)
    both = memory.kept_bytes(lambda: x @ weight + x @ weight, [weight])
    assert both == 4 * 6 * 3  # one x, however often it is kept
    with torch.no_grad():
        assert memory.kept_bytes(lambda: torch.tanh(x @ weight), [weight]) == 0


def test_free_memory_heeds_the_limits_of_control_groups(tmp_path):
    machine = memory.free_bytes(torch.device("cpu"))
    assert 0 < machine <= psutil.virtual_memory().total
    own, inner = tmp_path / "own", tmp_path / "groups" / "slurm" / "job"
    inner.mkdir(parents=True)
    own.write_text("0::/slurm/job\n")
    assert memory._left_in_groups(tmp_path / "groups", own) == []
    for folder, limit, used in ((inner, "max", 7), (inner.parent, "1000", 300)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    assert memory._left_in_groups(tmp_path / "groups", own) == [700]
    (inner / "memory.max").write_text("500")
    assert memory._left_in_groups(tmp_path / "groups", own) == [493, 700]
    own.write_text("4:memory:/old\n")  # version 1
    assert memory._left_in_groups(tmp_path / "groups", own) == []


def test_kept_graphs_and_the_cache_give_the_same_bits(train, tmp_path, monkeypatch):
    """So that free memory, which "auto" looks at, changes no result."""
    trainings = []
    for free in (0, 10**12):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        settings = {"batch": 7, "max_tokens": 40, "work": f"{free}"}
        trainings.append(train(budget=Steps(3), **settings))
    (cached, slow), (kept, fast) = trainings
    assert slow.flops * 6 == fast.flops * 8
    assert equal(cached, kept)


def saved_bytes(train, depth, **settings) -> int:
    """Largest number of bytes that graphs held at a time."""
    now = peak = 0

    class Held:
        def __init__(self, tensor):
            nonlocal now, peak
            self.tensor = tensor.detach()  # its own graph would hold what holds it, for ever
            self.size = tensor.numel() * tensor.element_size()
            now += self.size
            peak = max(peak, now)

        def __del__(self):
            nonlocal now
            now -= self.size

    lists = [TrainingList("q0", tuple(f"d{i % 20}" for i in range(depth)), (1,) * depth)]

    def loss(scores, ranks, mask):  # with a graph of no size
        return scores.sum()

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        train(lists=lambda epoch: lists, loss=loss, budget=Steps(2), work=f"{depth}", **settings)
    return peak


def test_memory_does_not_grow_with_depth(train, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    cached = [saved_bytes(train, depth, max_tokens=64) for depth in (40, 160)]
    kept = [saved_bytes(train, d, max_tokens=64, gradient_cache="off") for d in (40, 160)]
    assert cached[1] <= 1.1 * cached[0]
    assert kept[1] > 3 * kept[0] > 3 * cached[0]


# --- too little memory ---


class Small(Watched):
    """A student in a memory of so many tokens, only with or without graphs if `graphs` says so."""

    def __init__(self, inner, tokens, graphs=None):
        super().__init__(inner)
        self.tokens, self.graphs = tokens, graphs

    def forward(self, inputs, parts):
        if parts.numel() > self.tokens and self.graphs in (None, torch.is_grad_enabled()):
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(inputs, parts)


@pytest.mark.parametrize("graphs", [False, True])
def test_auto_halves_until_it_fits_and_changes_nothing(
    train, tmp_path, monkeypatch, graphs, capsys
):
    monkeypatch.setattr("rdx.trainer.settings.AUTO_TOKENS", {"cpu": 512})
    settings = {"max_tokens": "auto", "gradient_cache": "on", "batch": 7, "budget": Steps(3)}
    # Adam would blow up the rounding of gradients that are zero
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    settings["learning_rate"] = 0.1
    roomy, facts = train(model="dry", work="roomy", **settings)
    assert facts.max_tokens == 512
    student = Small(toy_student(tmp_path, "dry"), 90, graphs)
    tight, again = train(student=student, work="tight", **settings)
    assert again.max_tokens == 64
    assert "64 tokens" in capsys.readouterr().out
    for name in ("steps", "pairs", "tokens"):
        assert getattr(again, name) == getattr(facts, name)
    assert again.last_loss == pytest.approx(facts.last_loss, rel=1e-5)
    assert (parameters(tight.inner) - parameters(roomy)).abs().max() < 1e-5


def test_a_second_try_drops_the_same(train, tmp_path, monkeypatch):
    monkeypatch.setattr("rdx.trainer.settings.AUTO_TOKENS", {"cpu": 128})
    settings = {"model": "wet", "batch": 7, "budget": Steps(3)}
    plain, facts = train(max_tokens=64, work="plain", **settings)
    student = Small(toy_student(tmp_path), 90)
    halved, again = train(student=student, max_tokens="auto", work="halved", **settings)
    assert equal(plain, halved.inner) and again == facts


class Forgetful(Watched):
    """A student in a memory of one graph beside that of the start: the next is too many, once."""

    def forward(self, inputs, parts):
        if self.calls == [True] * 2:
            self.calls.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(inputs, parts)


@pytest.mark.parametrize("tokens", [64, "auto"])
def test_out_of_memory_turns_the_cache_on_first(train, tmp_path, monkeypatch, capsys, tokens):
    monkeypatch.setattr("rdx.trainer.settings.AUTO_TOKENS", {"cpu": 64})
    settings = {"batch": 7, "max_tokens": tokens, "budget": Steps(2)}
    plain, facts = train(work="plain", **settings)
    student = Forgetful(toy_student(tmp_path))
    cached, again = train(student=student, work="cached", **settings)
    assert "the gradient cache is on" in capsys.readouterr().out
    assert equal(plain, cached.inner) and again.max_tokens == facts.max_tokens == 64
    assert again.flops * 6 == facts.flops * 8
    assert student.calls.count(False) == (len(student.calls) - 3) / 2  # all later ones twice


def test_halving_survives_an_interruption(train, tmp_path, monkeypatch):
    monkeypatch.setattr("rdx.trainer.settings.AUTO_TOKENS", {"cpu": 512})
    settings = {"max_tokens": "auto", "checkpoint_seconds": 0, "batch": 7}

    def run(work, tokens=90, **more):
        student = Small(toy_student(tmp_path), tokens)
        return train(student=student, work=work, **settings, **more)

    whole, facts = run("whole")
    stopped(run, 3)
    resumed, again = run("cut", tokens=100_000)  # the first time has decided
    assert facts.max_tokens == 64
    assert equal(whole, resumed) and again == facts


def test_without_auto_out_of_memory_is_an_error(train, tmp_path):
    with pytest.raises(torch.OutOfMemoryError) as caught:
        train(student=Small(toy_student(tmp_path), 20), max_tokens=100)
    assert "'auto'" in caught.value.__notes__[0]
    with pytest.raises(torch.OutOfMemoryError):  # where halving cannot help
        train(student=Small(toy_student(tmp_path), 1), max_tokens="auto", work="b")


# --- the gradient scaler of fp16, here on float32 ---


@pytest.fixture
def scaled(monkeypatch):
    """Give every Accelerator a real scaler of gradients."""
    plain, scalers = Trainer.accelerator, []

    def install(**settings):
        def accelerator(self):
            scaled = plain(self)
            scaled.scaler = torch.amp.GradScaler("cpu", **settings)
            scalers.append(scaled.scaler)
            return scaled

        monkeypatch.setattr(Trainer, "accelerator", accelerator)
        return scalers

    return install


def test_scaling_by_a_power_of_two_changes_no_bit(train, scaled):
    settings = {"model": "dry", "clip": 0.5, "max_tokens": 64}
    plain, facts = train(work="plain", **settings)
    scalers = scaled(init_scale=2.0**10)
    student, again = train(work="scaled", **settings)
    assert scalers[0].get_scale() == 2.0**10
    assert equal(student, plain) and again == facts


def test_a_step_whose_gradient_overflows_is_skipped(train, scaled):
    start, _ = train(learning_rate=1e-30, weight_decay=0.0, budget=Steps(1), work="start")
    scalers = scaled(init_scale=2.0**127)
    student, facts = train(loss=steep, weight_decay=0.0, budget=Steps(1), clip=1.0)
    assert scalers[0].get_scale() == 2.0**126
    assert (parameters(student) - parameters(start)).abs().max() < 1e-28
    assert facts.weight_change == 0


def steep(scores, ranks, mask):
    return 300 * RankNet()(scores, ranks, mask)


@pytest.mark.parametrize("stop", [1, 3, 10])
def test_the_scaler_resumes_exactly(train, scaled, stop):
    high = {"init_scale": 2.0**127, "growth_interval": 2}
    scalers = scaled(**high)
    settings = {"checkpoint_seconds": 0, "budget": Steps(20), "loss": steep}
    whole, facts = train(work="whole", **settings)
    stopped(train, stop, **settings)
    resumed, again = train(work="cut", **settings)
    assert equal(whole, resumed) and again == facts
    assert facts.weight_change > 0
    assert scalers[0].state_dict() == scalers[2].state_dict()
    assert scalers[0].get_scale() < 2.0**126  # it overflowed more than once


# --- teacher scores ---


def test_a_loss_is_given_the_teachers_scores_where_there_are_some(train):
    rows = [("q0", "d0", 1, 2.5), ("q0", "d1", 2, -1.0), ("q1", "d1", 1, math.nan)]
    names = ["query_id", "doc_id", "teacher_rank", "teacher_score"]
    seen = []

    def loss(scores, ranks, mask, *more):
        seen.append(SimpleNamespace(scores=scores, ranks=ranks, mask=mask, more=more))
        return scores.sum()

    train(lists=fixed(pd.DataFrame(rows, columns=names)), loss=loss, budget=Epochs(1))
    [call] = seen
    [teacher] = call.more
    assert teacher.dtype == call.scores.dtype == torch.float32
    order = call.ranks.tolist().index([1, 2])
    assert teacher[order].tolist() == [2.5, -1.0]
    assert teacher[1 - order].isnan().all() and teacher.shape == (2, 2)
    train(loss=loss, budget=Steps(1), work="b")
    assert seen[1].more == ()
