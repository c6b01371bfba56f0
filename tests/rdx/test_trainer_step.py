"""One optimiser step: exact gradients whatever fits into memory, and the same dropout."""

import gc
import math
import weakref
from contextlib import nullcontext
from copy import deepcopy
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_toys import (
    LISTS,
    PASSAGES,
    TOY,
    equal,
    parameters,
    scores_of,
    stopped,
    tokens_of,
    toy_student,
)

from rdx import memory
from rdx.batches import Schedule
from rdx.faults import Diverged
from rdx.lists import TrainingList, fixed
from rdx.losses import (
    ADRMSE,
    BCE,
    KL,
    LCE,
    ApproxMRR,
    ApproxNDCG,
    LambdaRank,
    ListMLE,
    ListNet,
    MarginMSE,
    RankNet,
    Sum,
)
from rdx.trainer import Epochs, Steps, Trainer
from rdx.trainer.preparing import Share, _together, prepare
from rdx.trainer.sharding import load_state, whole_state
from rdx.trainer.step import Engine


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


def naive(student, loss, lists=LISTS) -> torch.Tensor:
    """The gradient of all lists from one graph, list by list, without any of the machinery."""
    rows = [scores_of(student, training_list) for training_list in lists]
    ranks = [torch.tensor(training_list.teacher_ranks) for training_list in lists]
    known = [torch.tensor(one.teacher_scores) for one in lists if one.teacher_scores]
    scores, ranks, *teacher = (
        torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (rows, ranks, known) if x
    )
    loss(scores, ranks, ranks > 0, *teacher).backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in student.parameters()]
    return torch.nn.utils.parameters_to_vector(grads).double()


@pytest.fixture
def small_groups(monkeypatch):
    """Groups of as many tokens as a micro-batch may have: one or two of the toy lists for 40."""
    monkeypatch.setattr("rdx.trainer.step.MICROS", {"cpu": 1})


@pytest.mark.parametrize("cache", ["on", "off", "auto"])
@pytest.mark.parametrize("loss", [RankNet(), ADRMSE()], ids=str)
@pytest.mark.usefixtures("small_groups")
def test_the_gradient_is_that_of_one_graph(gradient, tmp_path, loss, cache):
    expected = naive(toy_student(tmp_path, "dry", head="interaction"), loss)
    assert expected.norm() > 0.1
    for tokens in (1, 40, 100_000):
        settings = {"max_tokens": tokens, "gradient_cache": cache, "batch": 7}
        difference = gradient(f"{tokens}", loss=loss, **settings) - expected
        assert difference.norm() < 3e-6 * expected.norm()


def whole(scores, ranks, mask, teacher):
    """A loss without a denominator: that of all lists is no mean of those of groups."""
    return RankNet()(scores, ranks, mask) ** 2


LOSSES = [
    LambdaRank(), LambdaRank(reduction="pairs"), MarginMSE(), MarginMSE(pairs="best"), ListNet(),
    ListMLE(), KL(), ApproxNDCG(), ApproxMRR(), LCE(), BCE(),
    Sum([RankNet(), KL(), Sum([BCE()], [3.0])], [0.5, 2.0, 1.0]),
    pytest.param(whole, id="whole"),
]  # fmt: skip
RANKS = [(1, 1, 2, 2), (1,), (4, 4, 4), (2, 1, 3, 3, 5), (1, 2), (1, 1), (3, 2, 1)]
RAGGED = [
    TrainingList(f"q{i}", tuple(f"d{(3 * i + j) % 20}" for j in range(len(ranks))), ranks,
                 tuple(0.5 * i - r for r in ranks))
    for i, ranks in enumerate(RANKS)
]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.usefixtures("small_groups")
def test_ties_and_lists_that_teach_nothing_in_groups(gradient, tmp_path, loss):
    expected = naive(toy_student(tmp_path, "dry", head="interaction"), loss, RAGGED)
    assert expected.norm() > 0.01
    settings = {"max_tokens": 40, "batch": 7, "lists": lambda epoch: RAGGED}
    assert (gradient("a", loss=loss, **settings) - expected).norm() < 3e-6 * expected.norm()


def test_groups_are_neighbours_up_to_a_limit():
    assert list(_together([3, 4, 2, 9, 1, 1], 7)) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert list(_together([3, 4], 100)) == [(0, 2)]
    assert list(_together([3, 4], 0)) == [(0, 1), (1, 2)]


def test_processes_share_a_group(tmp_path):
    tokens = tokens_of(toy_student(tmp_path))
    for level in (False, True):
        shares = [prepare(RAGGED, tokens, RankNet(), 20, 12, Share(i, 3, level)) for i in range(3)]
        groups = list(zip(*(share.groups for share in shares), strict=True))
        assert [int(group[0].targets[1].sum()) for group in groups] == [5, 3, 5, 4, 3]
        for group in groups:
            mask = group[0].targets[1]
            mine = [torch.cat([micro.positions for micro in own.micros]) for own in group]
            at = torch.cat(mine).sort().values
            assert at[at < mask.numel()].tolist() == mask.flatten().nonzero().flatten().tolist()
            assert len({len(own.micros) for own in group}) == 1 or not level
            assert len({(own.tokens, own.small) for own in group}) == 1
            inside = [sum(m.parts.numel() for m in own.micros if m.positions[0] < mask.numel())
                      for own in group]  # fmt: skip
            assert [own.padded for own in group] == inside


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.usefixtures("small_groups")
def test_the_device_is_waited_for_once_a_step(train, monkeypatch, cache):
    """By what makes a Python number of a tensor; the rest of a step is the same on any device."""
    counts, plain = [], Engine._gradient

    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counts[-1] += func is torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    def counted(self, *arguments):
        counts.append(0)
        with Waits():
            return plain(self, *arguments)

    monkeypatch.setattr(Engine, "_gradient", counted)
    train(budget=Steps(2), batch=7, max_tokens=40, gradient_cache=cache)
    assert counts == [1, 1]


@pytest.mark.usefixtures("small_groups")
def test_a_score_that_is_not_finite_stops_the_step(train, tmp_path):
    """In the last list of seven; the groups before it must leave nothing behind."""
    start = parameters(toy_student(tmp_path))
    student = toy_student(tmp_path)
    plain, last = student.forward, Schedule(lambda epoch: LISTS, 7, 0).step(0)[-1]
    word = student.pairs.tokenizer(TOY.queries[last.query_id])["input_ids"][1]
    broken = lambda inputs, parts: torch.where(  # noqa: E731
        (inputs["input_ids"][:, 1] == word), torch.nan, plain(inputs, parts)
    )
    student.forward = broken
    with pytest.raises(Diverged):
        train(student=student, budget=Steps(1), batch=7, max_tokens=40)
    assert (parameters(student) == start).all()
    assert all(p.grad is None for p in student.parameters())


@pytest.mark.parametrize("cache", ["on", "off"])
def test_one_cast_of_weights_gives_the_same_bits(train, monkeypatch, cache):
    settings = {"precision": "bf16", "max_tokens": 25, "gradient_cache": cache, "batch": 7}
    casts = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            copied = func is torch.ops.aten._to_copy.default
            casts[-1] += copied and isinstance(args[0], torch.nn.Parameter)
            return func(*args, **(kwargs or {}))

    def step(self, *arguments, plain=Engine.step):
        casts.append(0)
        with Casts():
            return plain(self, *arguments)

    monkeypatch.setattr(Engine, "step", step)
    one, facts = train(budget=Steps(2), work="one", **settings)
    monkeypatch.setattr(Engine, "_one_cast", lambda self: nullcontext())
    each, same = train(budget=Steps(2), work="each", **settings)
    assert equal(one, each) and facts == same
    assert casts[2] > casts[0] * (2 if cache == "on" else 3) > 0


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

    scores_lists = False

    def __init__(self, inner):
        super().__init__()
        self.inner, self.pairs, self.calls = inner, inner.pairs, []

    @property
    def encoder(self):
        return self.inner.encoder

    def forward(self, inputs, parts):
        self.calls.append(torch.is_grad_enabled())
        return self.inner(inputs, parts)


SIZES = [len(ranking.doc_ids) for ranking in Schedule(lambda epoch: LISTS, 7, 0).step(0)]
BY_LIST = [call for n in SIZES for call in [False] * n + [True] * n]


@pytest.mark.parametrize(
    ("cache", "tokens", "free", "forwards"),
    [
        ("on", 100_000, 0, [False, True]),
        ("off", 1, 0, [True] * 23),
        # Every list is a group of its own.
        ("on", 1, 10**12, BY_LIST),
        # One more at the start, to know what a graph takes.
        ("auto", 100_000, 0, [True, True]),
        ("auto", 1, 0, [True, *BY_LIST]),
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


def test_what_was_measured_is_let_go():
    def measured():
        x, weight = torch.rand(6, 3), torch.rand(3, 5, requires_grad=True)
        memory.kept_bytes(lambda: torch.tanh(x @ weight), [])  # tanh keeps its own output
        return weakref.ref(weight)

    alive = measured()
    gc.collect()
    assert alive() is None


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


def deep(depth):
    """One list, longer than any group."""
    return [TrainingList("q0", tuple(f"d{i % 20}" for i in range(depth)), (1,) * depth)]


def summed(scores, ranks, mask):
    """A loss with a graph of no size."""
    return scores.sum()


def saved_bytes(train, name, lists, loss, **settings) -> int:
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

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        batch = {"batch": len(lists), "budget": Steps(2), "work": f"{name}"}
        train(lists=lambda epoch: lists, loss=loss, **batch, **settings)
    return peak


def test_memory_does_not_grow_with_the_number_of_lists(train, monkeypatch):
    """Whose graphs are kept, in groups."""
    monkeypatch.setattr("rdx.trainer.step.MICROS", {"cpu": 2})
    lists = [TrainingList(f"q{i % 7}", tuple(PASSAGES)[:8], tuple(range(1, 9))) for i in range(24)]
    settings = {"max_tokens": 64, "gradient_cache": "off"}
    few, many = (saved_bytes(train, n, lists[:n], RankNet(), **settings) for n in (6, 24))
    assert many <= 1.1 * few
    one = saved_bytes(train, 25, lists, lambda *batch: RankNet()(*batch), **settings)
    assert one > 3 * many


def test_memory_does_not_grow_with_depth(train, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    settings = {"max_tokens": 64}
    cached = [saved_bytes(train, n, deep(n), summed, **settings) for n in (40, 160)]
    settings["gradient_cache"] = "off"
    kept = [saved_bytes(train, n, deep(n), summed, **settings) for n in (40, 160)]
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


# --- the optimiser ---


def test_a_fused_optimiser_goes_on_from_a_plain_one():
    """As checkpoints of before hold its state; the numbers are the same to rounding."""
    weights = [torch.randn(5, 3), torch.randn(7)]

    def stepped(fused, state, steps):
        own = [torch.nn.Parameter(weight.clone()) for weight in weights]
        optimiser = torch.optim.AdamW(own, lr=0.1, fused=fused)
        if state is not None:
            load_state(optimiser, deepcopy(state))
        for i in range(steps):
            for parameter in own:
                parameter.grad = torch.full_like(parameter, i - 0.3)
            optimiser.step()
        return own, whole_state(optimiser)

    _, state = stepped(False, None, 3)
    plain, _ = stepped(False, state, 4)
    fused, after = stepped(True, state, 4)
    torch.testing.assert_close(fused, plain)
    assert all(float(one["step"]) == 7 for one in after["state"].values())


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
