"""The training loop: budgets, settings, schedules and exact numbers."""

import itertools
import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from trainer_toys import FAST, LISTS, PASSAGES, TOY, equal, scores_of, tokens_of, toy_student

from rdx.batches import Schedule, rows_of
from rdx.collection import Collection
from rdx.faults import Diverged
from rdx.lists import TrainingList
from rdx.losses import ADRMSE, BCE, KL, LCE, MSE, Hinge, RankNet, Sum
from rdx.samplers import BM25
from rdx.students import LoRA
from rdx.trainer import Epochs, Pairs, Prefinetune, Steps, Trainer
from rdx.trainer.budgets import announcement, computing, flops, plan
from rdx.trainer.optimiser import factors, groups
from tests.rdx.configured import check_refused

STAGE = {
    "loss": LCE(), "sampler": BM25(stemmer="none"), "depth": 8, "negatives": 3,
    "queries": None, "epochs": 1, "batch": 5, "learning_rate": 0.1, "warmup": 0.2, "seed": 3,
}  # fmt: skip


# --- budgets ---


def schedule_of(sizes, batch):
    lists = [TrainingList(f"q{i}", ("d",) * n, (1,) * n) for i, n in enumerate(sizes)]
    return Schedule(lambda epoch: lists, batch, seed=0)


def test_epochs_and_steps():
    schedule = schedule_of([2] * 7, 3)
    assert Epochs(1).count(schedule) == 3
    assert Epochs(4).count(schedule) == 12
    assert Steps(5).count(schedule) == 5


@pytest.mark.parametrize(
    ("pairs", "steps"), [(1, 1), (6, 1), (7, 2), (12, 2), (13, 3), (14, 3), (15, 4), (28, 6)]
)
def test_pairs_are_rounded_up_to_whole_steps(pairs, steps):
    # steps of 6, 6 and 2 pairs
    assert Pairs(pairs).count(schedule_of([2] * 7, 3)) == steps


def test_pairs_of_ragged_lists():
    schedule = schedule_of([1, 5, 9, 2], 1)
    sizes = [len(schedule.step(i)[0].doc_ids) for i in range(8)]
    for pairs in range(1, 30):
        steps = Pairs(pairs).count(schedule)
        assert sum(sizes[: steps - 1]) < pairs <= sum(sizes[:steps])


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (Epochs, {"epochs": 0}),
        (Steps, {"steps": 0}),
        (Pairs, {"pairs": -1}),
        (Trainer, {"learning_rate": 0}),
        (Trainer, {"batch": 0}),
        (Trainer, {"max_tokens": 0}),
        (Trainer, {"max_tokens": "all"}),
        (Trainer, {"gradient_cache": "yes"}),
        (Trainer, {"layer_decay": 0}),
        (Trainer, {"layer_decay": 1.1}),
        (Trainer, {"head_rate": 0}),
        (Trainer, {"validate_every": 0}),
        (Trainer, {"validate_every": 1, "patience": 0}),
        (Trainer, {"patience": 2}),  # without validation
        (Trainer, {"select": "best"}),  # likewise
        (Trainer, {"select": "first"}),
        (Trainer, {"warmup": 1.5}),
        (Trainer, {"schedule": "sine"}),
        (Trainer, {"weight_decay": -1}),
        (Trainer, {"clip": -1}),
        (Trainer, {"precision": "fp8"}),
        (Trainer, {"checkpoint_seconds": -1}),
        (Trainer, {"device": "tpu"}),
        (Prefinetune, {**STAGE, "negatives": 0, "told": "negatives=0"}),
        (Prefinetune, {**STAGE, "depth": 0, "told": "depth=0"}),
        (Prefinetune, {**STAGE, "loss": MSE(), "told": "loss=MSE"}),
    ],
)
def test_bad_values_name_their_key(cls, values):
    where = {Trainer: "trainer", Prefinetune: "prefinetune"}.get(cls, "budget")
    check_refused(where, cls, **values)


# --- learning rate and weight decay ---


def rates(steps, **settings):
    trainer = Trainer(learning_rate=1.0, **settings)
    return [trainer.rate(step, steps) for step in range(steps)]


def test_learning_rate_schedules():
    assert rates(3) == [1, 1, 1]
    assert rates(5, warmup=0.4) == [0.5, 1, 1, 1, 1]
    assert rates(4, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert rates(6, warmup=1 / 3, schedule="linear") == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert rates(4, warmup=1.0, schedule="linear") == [0.25, 0.5, 0.75, 1]
    assert rates(10, warmup=0.01) == [1] * 10  # one step of warm-up
    half = [(1 + math.cos(math.pi * done)) / 2 for done in (0, 0.25, 0.5, 0.75)]
    assert rates(4, schedule="cosine") == pytest.approx(half)
    assert rates(6, warmup=1 / 3, schedule="cosine") == pytest.approx([0.5, 1, *half])
    assert Trainer(learning_rate=3e-4).rate(0, 1) == 3e-4


def test_on_step_is_told_loss_and_rate(train):
    seen = []
    _, facts = train(
        warmup=0.5, schedule="linear", on_step=lambda step, metrics: seen.append((step, metrics))
    )
    assert [step for step, _ in seen] == list(range(6))
    peak = FAST["learning_rate"]
    assert [m["lr"] for _, m in seen] == pytest.approx(
        [peak * share for share in (1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3)]
    )
    assert seen[-1][1]["loss"] == facts.last_loss


def test_the_rate_is_that_of_the_optimiser(train):
    # one step of AdamW without decay moves each weight by the rate, whatever the gradient
    start, _ = train(model="dry", learning_rate=1e-12, weight_decay=0.0, budget=Steps(1), work="a")
    for rate in (1e-3, 4e-3):
        moved, _ = train(
            model="dry", learning_rate=rate, weight_decay=0.0, budget=Steps(1), work=str(rate)
        )
        change = (moved.head.linear.weight - start.head.linear.weight).abs()
        assert change.max().item() == pytest.approx(rate, rel=1e-3)


def test_weight_decay_is_on_matrices_only(train):
    student, _ = train(budget=Steps(1))
    decayed, free = groups(student, 0.3, 1.0, 1.0)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(p): name for name, p in student.named_parameters()}
    matrices, rest = ({names[id(p)] for p in group["params"]} for group in (decayed, free))
    learning = {name for name, p in student.named_parameters() if p.requires_grad}
    assert matrices | rest == learning and not matrices & rest
    assert all("bias" in name or "LayerNorm" in name for name in rest)
    assert not any("bias" in name or "LayerNorm" in name for name in matrices)
    assert "head.linear.weight" in matrices and len(rest) > 5


def test_layers_and_head_learn_at_their_own_rates(tmp_path):
    for head in ("mean", "cls"):
        student = toy_student(tmp_path, layers=3, head=head)
        rates = factors(student, 0.5, 7.0)
        assert set(rates) == {name for name, _ in student.named_parameters()}
        expected = {
            "embeddings.": 0.125, "layer.0.": 0.25, "layer.1.": 0.5, "layer.2.": 1.0, "pooler": 1.0
        }  # fmt: skip
        for name, value in rates.items():
            right = [rate for part, rate in expected.items() if part in name]
            assert [value] == (right or [7.0]), name
        linear = {"mean": "head.linear", "cls": "encoder.classifier"}[head]
        heads = {name for name, value in rates.items() if value == 7.0}
        assert heads == {f"{linear}.weight", f"{linear}.bias"}
        assert set(factors(student, 1.0, 1.0).values()) == {1.0}


@pytest.mark.parametrize("head", ["mean", "cls"])
def test_adapters_learn_at_the_rate_of_their_layer(tmp_path, head):
    pytest.importorskip("peft")
    plain = toy_student(tmp_path / "plain", layers=3, head=head)
    student = toy_student(tmp_path / "lora", layers=3, head=head, lora=LoRA(rank=2))
    expected, names = factors(student, 0.5, 7.0), {id(p): n for n, p in student.named_parameters()}
    rate = {
        names[id(parameter)]: group["factor"]
        for group in groups(student, 0.1, 0.5, 7.0)
        for parameter in group["params"]
    }
    learning = [name for name, p in student.named_parameters() if p.requires_grad]
    assert rate == {name: expected[name] for name in learning}
    for layer, factor in enumerate((0.25, 0.5, 1.0)):
        adapters = [value for name, value in rate.items() if f"layer.{layer}." in name]
        assert adapters == [factor] * 2 * 6  # A and B of six matrices, and nothing else
    heads = {name for name, value in rate.items() if value == 7.0}
    assert heads and all(("classifier" if head == "cls" else "head.linear") in n for n in heads)
    # the frozen weights keep the factors that they have without adapters
    frozen = {n.replace(".base_layer", ""): v for n, v in expected.items() if "lora_" not in n}
    assert frozen == factors(plain, 0.5, 7.0)


def test_the_factors_are_those_of_the_optimiser(train):
    # one step of AdamW without decay moves a weight by its rate
    settings = {"model": "dry", "weight_decay": 0.0, "budget": Steps(1)}
    start, _ = train(learning_rate=1e-12, work="start", **settings)
    moved, _ = train(learning_rate=1e-3, layer_decay=0.5, head_rate=3.0, **settings)
    before, after = start.state_dict(), moved.state_dict()

    def change(name):
        return (after[name] - before[name]).abs().max().item()

    assert change("head.linear.weight") == pytest.approx(3e-3, rel=1e-3)
    assert change("encoder.encoder.layer.0.output.dense.weight") == pytest.approx(1e-3, rel=1e-2)
    word = "encoder.embeddings.word_embeddings.weight"
    assert change(word) == pytest.approx(0.5e-3, rel=1e-2)


def test_weight_decay_and_clipping_have_an_effect(train):
    base, _ = train(model="dry", work="a")
    decayed, _ = train(model="dry", work="b", weight_decay=0.9)
    assert not equal(base, decayed)
    # Adam forgets the size of a gradient, except beside its epsilon
    clipped, _ = train(model="dry", work="c", clip=1e-9)
    assert (clipped.head.linear.weight - base.head.linear.weight).abs().max() > 1e-4


# --- fit ---


@pytest.mark.parametrize("loss", [RankNet(), ADRMSE(), LCE()], ids=str)
def test_the_loss_falls(train, loss, tmp_path):
    _, facts = train(loss=loss, budget=Epochs(12), head="interaction")
    curve = json.loads((tmp_path / "work" / "curve.json").read_text())
    assert len(curve) == 36 == facts.steps
    assert sum(curve[-3:]) < 0.6 * sum(curve[:3])
    assert curve[-1] == facts.last_loss


ON_SCORES = [
    MSE(),
    KL(direction="reverse"),
    BCE(targets="scores"),
    RankNet(weights="score_difference"),
    RankNet(weights="student_rank"),
    Hinge(),
    Sum([MSE(), Hinge(pairs="best")], [0.5, 1.0]),
]


@pytest.mark.parametrize("loss", ON_SCORES, ids=str)
def test_the_loss_on_teacher_scores_falls(train, loss, tmp_path):
    """From 1 to 0 in each list, as the scale "minmax" gives them."""
    lists = [replace(one, teacher_scores=tuple(1 - r / (n - 1) for r in range(n)))
             for one in LISTS for n in [len(one.doc_ids)]]  # fmt: skip
    train(loss=loss, budget=Epochs(12), head="interaction", lists=lambda epoch: lists)
    curve = json.loads((tmp_path / "work" / "curve.json").read_text())
    assert sum(curve[-3:]) < 0.6 * sum(curve[:3])


def test_facts(train, tmp_path):
    student, facts = train(budget=Epochs(2))
    assert facts.pairs == 2 * sum(len(one.doc_ids) for one in LISTS)
    assert (facts.steps, facts.lists, facts.truncated_texts) == (6, 7, 0)
    assert facts.weight_change > 1e-3
    assert not student.training
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["curve.json"]


def test_tokens_padding_and_flops_are_counted(train, tmp_path):
    student = toy_student(tmp_path)
    tokens = tokens_of(student)
    lengths = tokens.lengths(rows_of(LISTS, tokens)).tolist()
    # 41 weights of 16: query, key, value, output; two matrices of 32; biases, norms, pooler, head
    tables = sum(m.weight.numel() for m in student.modules() if isinstance(m, torch.nn.Embedding))
    assert tables == (15 + 32 + 2) * 16
    multiplied = sum(p.numel() for p in student.parameters()) - tables
    assert computing(student) == multiplied
    whole = train(batch=7, budget=Epochs(2), max_tokens=100_000, work="whole")[1]
    assert whole.tokens == 2 * sum(lengths)
    padded = 2 * len(lengths) * max(lengths)
    assert whole.padding == pytest.approx(1 - 2 * sum(lengths) / padded)
    assert whole.flops == 6 * multiplied * padded
    single = train(batch=7, budget=Epochs(2), max_tokens=1, work="single", gradient_cache="on")[1]
    assert (single.tokens, single.padding) == (whole.tokens, 0)
    assert single.flops == 8 * multiplied * single.tokens
    uncached = train(batch=7, budget=Epochs(2), max_tokens=1, work="b", gradient_cache="off")[1]
    assert uncached.flops == 6 * multiplied * single.tokens
    assert flops(10, 7) == 420 and flops(10, 7, again=7) == 560 and flops(10, 7, 2) == 460


def test_the_plan_is_printed_before_the_training(train, tmp_path, capsys):
    facts = train(budget=Epochs(2), on_step=lambda step, metrics: print("step", step))[1]
    lines = capsys.readouterr().out.splitlines()
    assert "6 steps of 3 queries" in lines[0] and "46 pairs" in lines[0]
    assert lines[1:] == [f"step {i}" for i in range(6)]
    schedule = Schedule(lambda epoch: LISTS, 3, 0)
    student = toy_student(tmp_path)
    costs = plan(student, schedule, 7, tokens_of(student), again=1)
    first = [sum(len(one.doc_ids) for one in schedule.step(i)) for i in range(3)]
    assert costs.pairs == 2 * 23 + first[0] and costs.batch_pairs == max(first)
    assert costs.tokens == pytest.approx(facts.tokens * costs.pairs / 46, rel=0.3)
    assert costs.flops == pytest.approx(8 * computing(student) * costs.tokens, rel=0.01)
    half = plan(student, schedule, 7, tokens_of(student), again=0.5)
    assert half.flops == pytest.approx(7 * computing(student) * costs.tokens, rel=0.01)
    assert "over 4 processes" in announcement("x", costs, 4)


def test_weight_change_tells_a_training_without_effect(train):
    nothing = lambda scores, ranks, mask: (scores * 0).sum()  # noqa: E731
    assert train(loss=nothing, weight_decay=0.0)[1].weight_change == 0
    # only what is zero at the start can move by so little
    tiny = train(learning_rate=1e-30, weight_decay=0.0, work="b", model="dry")[1]
    assert 0 < tiny.weight_change < 1e-28
    lists = [TrainingList("q0", ("d0", "d1"), (3, 3))]  # tied
    tied = train(lists=lambda epoch: lists, weight_decay=0.0, work="c")[1]
    assert tied.weight_change == 0


def test_the_first_loss_is_that_of_the_untrained_student(train, tmp_path):
    seen = []
    train(model="dry", batch=7, budget=Steps(1), on_step=lambda step, m: seen.append(m["loss"]))
    student = toy_student(tmp_path, "dry").eval()
    total, count = 0.0, 0
    for training_list in LISTS:
        with torch.inference_mode():
            scores = scores_of(student, training_list).tolist()
        for better, worse in itertools.combinations(scores, 2):
            total += math.log(1 + math.exp(worse - better))
            count += 1
    assert seen == [pytest.approx(total / count, rel=1e-5)]


def test_training_is_a_function_of_the_seed(train):
    one, _ = train(work="a")
    torch.manual_seed(77)
    state = torch.random.get_rng_state()
    same, _ = train(work="b")
    assert torch.equal(torch.random.get_rng_state(), state)
    other, _ = train(work="c", seed=1)
    assert equal(one, same) and not equal(one, other)


def test_every_step_drops_something_else(train):
    def losses(model):
        seen = []
        train(
            model=model, work=model, learning_rate=1e-30, batch=1, budget=Steps(4),
            lists=lambda epoch: LISTS[:1],
            on_step=lambda step, metrics: seen.append(metrics["loss"]),
        )  # fmt: skip
        return seen

    assert len({round(loss, 5) for loss in losses("wet")}) == 4
    dry = losses("dry")
    assert dry == pytest.approx([dry[0]] * 4, rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops(train, bad):
    calls = []

    def loss(scores, ranks, mask):
        calls.append(1)
        return scores.sum() * (bad if len(calls) == 3 else 1.0)

    with pytest.raises(Diverged, match="stage x: .*(nan|-?inf) at step 2"):
        train(loss=loss, name="stage x")


def test_bf16_keeps_weights_and_losses_in_float32(train):
    kinds = []

    def loss(scores, ranks, mask):
        kinds.append(scores.dtype)
        return RankNet()(scores, ranks, mask)

    student, facts = train(loss=loss, precision="bf16", budget=Steps(2), work="a")
    assert set(kinds) == {torch.float32}
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    full, _ = train(budget=Steps(2), work="b")
    assert not equal(student, full) and math.isfinite(facts.last_loss)


# --- stage 1 ---


def test_prefinetune_has_its_own_settings():
    own = {"validate_every": 5, "select": "best", "patience": 2}
    trainer = Prefinetune(**STAGE).trainer(Trainer(precision="fp32", clip=2.0, warmup=0.9, **own))
    assert (trainer.learning_rate, trainer.batch, trainer.warmup) == (0.1, 5, 0.2)
    assert (trainer.precision, trainer.clip) == ("fp32", 2.0)
    assert (trainer.validate_every, trainer.select, trainer.patience) == (None, "last", None)


def test_prefinetune_draws_negatives_of_its_sampler():
    rows = [("q0", "d0", 1), ("q1", "d1", 1), ("q1", "d11", 2), ("q1", "no text", 3)]
    qrels = pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])
    judged = Collection("toy", {q: TOY.queries[q] for q in ("q0", "q1")}, PASSAGES, qrels)
    candidates = BM25(stemmer="none").candidates(judged, 8)
    positives = set()
    for epoch in range(20):
        zero, one = Prefinetune(**STAGE).lists(judged)(epoch)
        positives |= {("q0", zero.doc_ids[0]), ("q1", one.doc_ids[0])}
        for drawn in (zero, one):
            assert len(drawn.doc_ids) == 4
            of_query = candidates.doc_id[candidates.query_id == drawn.query_id]
            negatives = set(of_query) - {"d0", "d1", "d11"}
            allowed = negatives | ({"d1", "d11"} if drawn.query_id == "q0" else {"d0"})
            assert set(drawn.doc_ids[1:]) <= allowed
    assert positives == {("q0", "d0"), ("q1", "d1"), ("q1", "d11")}  # not the one without text


def test_trainer_makes_its_own_accelerator_each_time():
    kinds = [Trainer(precision=p, device="cpu").accelerator() for p in ("fp32", "bf16", "fp32")]
    assert kinds[-1].mixed_precision == "no"
    assert kinds[-1].device == torch.device("cpu")
    with pytest.raises(ValueError, match=r"trainer\.precision='fp16'"):
        Trainer(precision="fp16", device="cpu").accelerator()


def test_tf32_is_set():
    for wanted in (True, False):
        Trainer(precision="fp32", device="cpu", tf32=wanted).accelerator()
        assert torch.backends.cuda.matmul.allow_tf32 is wanted
        assert torch.backends.cudnn.allow_tf32 is wanted
