"""The training loop: schedules, exact numbers, and exact resumption."""

import json
import math

import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from rdx import trainer as rdx_trainer
from rdx.batches import Schedule, TrainingList, fixed
from rdx.data.collection import Collection
from rdx.losses import ADRMSE, LCE, RankNet
from rdx.samplers import BM25
from rdx.students import Student
from rdx.trainer import Diverged, Epochs, Pairs, Prefinetune, Steps, Trainer, fit

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


@pytest.fixture(scope="module")
def berts(tmp_path_factory):
    """Folders of two equal models, with and without dropout."""
    made = {}
    for name, rate in (("wet", 0.2), ("dry", 0.0)):
        folder = made[name] = tmp_path_factory.mktemp(name)
        (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
        config = BertConfig(
            vocab_size=15, intermediate_size=32, max_position_embeddings=32, **sizes, **rates
        )
        BertModel(config).save_pretrained(folder)
        BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return made


@pytest.fixture
def train(berts, tmp_path):
    """Train a fresh student; gives (student, facts)."""

    def run(model="wet", loss=None, budget=None, seed=0, work="work", head="mean", **options):
        settings = {k: options.pop(k) for k in list(options) if k in Trainer.__dataclass_fields__}
        student = Student(str(berts[model]), head=head, query_length=4).create(0)
        folder = tmp_path / work
        folder.mkdir(exist_ok=True)
        lists = options.pop("lists", lambda epoch: LISTS)
        facts = fit(
            student,
            loss or RankNet(),
            lists,
            TOY,
            budget or Steps(6),
            Trainer(**(FAST | settings)),
            seed,
            folder,
            **options,
        )
        return student, facts

    return run


def selected() -> pd.DataFrame:
    """The lists as `Depth.select` would give them."""
    rows = [
        (one.query_id, doc_id, rank)
        for one in LISTS
        for doc_id, rank in zip(one.doc_ids, one.teacher_ranks, strict=True)
    ]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "teacher_rank"])


def equal(one, other) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def parameters(student) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(student.parameters()).detach().double()


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
    ("make", "message"),
    [
        (lambda: Epochs(0), r"budget\.epochs=0"),
        (lambda: Steps(0), r"budget\.steps=0"),
        (lambda: Pairs(-1), r"budget\.pairs=-1"),
        (lambda: Trainer(learning_rate=0), r"trainer\.learning_rate=0"),
        (lambda: Trainer(batch=0), r"trainer\.batch=0"),
        (lambda: Trainer(max_tokens=0), r"trainer\.max_tokens=0"),
        (lambda: Trainer(warmup=1.5), r"trainer\.warmup=1\.5"),
        (lambda: Trainer(schedule="cosine"), r"trainer\.schedule='cosine'.*'linear'"),
        (lambda: Trainer(weight_decay=-1), r"trainer\.weight_decay=-1"),
        (lambda: Trainer(clip=-1), r"trainer\.clip=-1"),
        (lambda: Trainer(precision="fp8"), r"trainer\.precision='fp8'.*'bf16'"),
        (lambda: Trainer(checkpoint_seconds=-1), r"trainer\.checkpoint_seconds=-1"),
        (lambda: Trainer(device="tpu"), r"trainer\.device='tpu'"),
        (lambda: stage(negatives=0), r"prefinetune\.negatives=0"),
        (lambda: stage(depth=0), r"prefinetune\.depth=0"),
    ],
)
def test_bad_values_name_their_key(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- learning rate and weight decay ---


def rates(steps, **settings):
    one = Trainer(learning_rate=1.0, **settings)
    return [one.rate(step, steps) for step in range(steps)]


def test_learning_rate_schedules():
    assert rates(3) == [1, 1, 1]
    assert rates(5, warmup=0.4) == [0.5, 1, 1, 1, 1]
    assert rates(4, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert rates(6, warmup=1 / 3, schedule="linear") == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert rates(4, warmup=1.0, schedule="linear") == [0.25, 0.5, 0.75, 1]
    assert rates(10, warmup=0.01) == [1] * 10  # one step of warm-up
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
    assert seen[-1][1]["loss"] == facts["last_loss"]


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
    decayed, free = rdx_trainer._groups(student, 0.3)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(p): name for name, p in student.named_parameters()}
    matrices, rest = ({names[id(p)] for p in group["params"]} for group in (decayed, free))
    assert matrices | rest == set(names.values()) and not matrices & rest
    assert all("bias" in name or "LayerNorm" in name for name in rest)
    assert not any("bias" in name or "LayerNorm" in name for name in matrices)
    assert "head.linear.weight" in matrices and len(rest) > 5


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
    assert len(curve) == 36 == facts["steps"]
    assert sum(curve[-3:]) < 0.6 * sum(curve[:3])
    assert curve[-1] == facts["last_loss"]


def test_facts(train, tmp_path):
    student, facts = train(budget=Epochs(2))
    assert facts["pairs"] == 2 * sum(len(one.doc_ids) for one in LISTS)
    assert (facts["steps"], facts["lists"], facts["truncated_texts"]) == (6, 7, 0)
    assert facts["weight_change"] > 1e-3
    assert not student.training
    assert not (tmp_path / "work" / "checkpoint.pt").exists()


def test_weight_change_tells_a_training_without_effect(train):
    class Nothing:
        def __call__(self, scores, ranks, mask):
            return (scores * 0).sum()

    assert train(loss=Nothing(), weight_decay=0.0)[1]["weight_change"] == 0
    # only what is zero at the start can move by so little
    tiny = train(learning_rate=1e-30, weight_decay=0.0, work="b", model="dry")[1]
    assert 0 < tiny["weight_change"] < 1e-28
    lists = [TrainingList("q0", ("d0", "d1"), (3, 3))]  # tied
    tied = train(lists=lambda epoch: lists, weight_decay=0.0, work="c")[1]
    assert tied["weight_change"] == 0


def test_the_first_loss_is_that_of_the_untrained_student(train, berts):
    seen = []
    train(model="dry", batch=7, budget=Steps(1), on_step=lambda step, m: seen.append(m["loss"]))
    student = Student(str(berts["dry"]), head="mean", query_length=4).create(0).eval()
    total, count = 0.0, 0
    for one in LISTS:
        texts = [(TOY.queries[one.query_id], PASSAGES[d]) for d in one.doc_ids]
        with torch.inference_mode():
            scores = student(*student.pairs.pad(student.pairs.encode(texts))).tolist()
        for i in range(len(scores)):
            for j in range(i + 1, len(scores)):
                total += math.log(1 + math.exp(scores[j] - scores[i]))
                count += 1
    assert seen == [pytest.approx(total / count, rel=1e-5)]


@pytest.mark.parametrize("loss", [RankNet(), ADRMSE()], ids=str)
def test_micro_batches_change_no_gradient(train, berts, loss, monkeypatch):
    # one step of plain gradient descent with rate 1: the weights' difference is the gradient
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    one_step = {"learning_rate": 1.0, "weight_decay": 0.0, "budget": Steps(1)}
    settings = {"model": "dry", "loss": loss, "head": "interaction", **one_step}
    start = parameters(Student(str(berts["dry"]), head="interaction").create(0))
    whole = start - parameters(train(max_tokens=100_000, work="a", **settings)[0])
    assert whole.norm() > 0.1
    for tokens in (1, 25):
        cut = start - parameters(train(max_tokens=tokens, work=str(tokens), **settings)[0])
        assert (cut - whole).norm() < 2e-6 * whole.norm()


def test_training_is_a_function_of_the_seed(train):
    one, _ = train(work="a")
    torch.manual_seed(77)
    state = torch.random.get_rng_state()
    same, _ = train(work="b")
    assert torch.equal(torch.random.get_rng_state(), state)
    other, _ = train(work="c", seed=1)
    assert equal(one, same) and not equal(one, other)


def test_dropout_is_on(train):
    wet, _ = train(model="wet", work="a")
    dry, _ = train(model="dry", work="b")
    assert not equal(wet, dry)


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


class Stop(Exception):
    pass


def stop_at(step):
    def on_step(now, metrics):
        if now == step:
            raise Stop

    return on_step


@pytest.mark.parametrize("stops", [[0], [3], [6], [1, 2, 5]])
def test_an_interrupted_training_ends_in_the_same_bits(train, tmp_path, stops):
    settings = {"budget": Epochs(3), "checkpoint_seconds": 0, "warmup": 0.3, "schedule": "linear"}
    whole, facts = train(work="whole", **settings)
    for step in stops:
        with pytest.raises(Stop):
            train(work="cut", on_step=stop_at(step), **settings)
    seen = []
    resumed, again = train(work="cut", on_step=lambda step, _: seen.append(step), **settings)
    assert seen == list(range(stops[-1], 9))  # the step that was stopped was not checkpointed
    assert equal(whole, resumed)
    assert again == facts
    curves = [(tmp_path / work / "curve.json").read_text() for work in ("whole", "cut")]
    assert curves[0] == curves[1]


def test_texts_cut_before_an_interruption_are_counted(train, berts, tmp_path):
    long = Collection("toy", TOY.queries, {d: "river " * 300 + d for d in PASSAGES}, TOY.qrels)

    def run(work, on_step=lambda step, metrics: None):
        student = Student(str(berts["dry"]), head="mean", passage_length=3).create(0)
        (tmp_path / work).mkdir(exist_ok=True)
        settings = Trainer(**FAST | {"batch": 1}, checkpoint_seconds=0)
        folder = tmp_path / work
        lists = fixed(selected())
        return fit(student, RankNet(), lists, long, Steps(7), settings, 0, folder, on_step)

    facts = run("whole")
    with pytest.raises(Stop):
        run("cut", stop_at(5))
    assert run("cut") == facts
    assert facts["truncated_texts"] == len({d for one in LISTS for d in one.doc_ids})


def test_an_unfinished_checkpoint_is_not_believed(train, tmp_path):
    settings = {"budget": Steps(4), "checkpoint_seconds": 0}
    whole, _ = train(work="whole", **settings)
    with pytest.raises(Stop):
        train(work="cut", on_step=stop_at(2), **settings)
    (tmp_path / "cut" / "checkpoint.tmp").write_bytes(b"half of a checkp")
    resumed, _ = train(work="cut", **settings)
    assert equal(whole, resumed)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["curve.json"]


def test_checkpoints_wait_for_their_time(train, tmp_path):
    with pytest.raises(Stop):
        train(on_step=stop_at(3), checkpoint_seconds=1000)
    assert not (tmp_path / "work" / "checkpoint.pt").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops(train, bad):
    calls = []

    def loss(scores, ranks, mask):
        calls.append(1)
        return scores.sum() * (bad if len(calls) == 3 else 1.0)

    with pytest.raises(Diverged, match=r"stage x: the loss is (nan|-?inf) at step 2"):
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
    assert not equal(student, full) and math.isfinite(facts["last_loss"])


# --- stage 1 ---


def stage(**settings):
    values = {
        "loss": LCE(), "sampler": BM25(stemmer="none"), "depth": 8, "negatives": 3,
        "queries": None, "epochs": 1, "batch": 5, "learning_rate": 0.1, "warmup": 0.2, "seed": 3,
    }  # fmt: skip
    return Prefinetune(**(values | settings))


def test_prefinetune_has_its_own_settings():
    made = stage().trainer(Trainer(precision="fp32", clip=2.0, warmup=0.9))
    assert (made.learning_rate, made.batch, made.warmup) == (0.1, 5, 0.2)
    assert (made.precision, made.clip) == ("fp32", 2.0)


def test_prefinetune_draws_negatives_of_its_sampler():
    rows = [("q0", "d0", 1), ("q1", "d1", 1), ("q1", "d11", 2), ("q1", "no text", 3)]
    qrels = pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])
    judged = Collection("toy", {q: TOY.queries[q] for q in ("q0", "q1")}, PASSAGES, qrels)
    found = BM25(stemmer="none").candidates(judged, 8)
    positives = set()
    for epoch in range(20):
        zero, one = stage().lists(judged)(epoch)
        positives |= {("q0", zero.doc_ids[0]), ("q1", one.doc_ids[0])}
        for drawn in (zero, one):
            assert len(drawn.doc_ids) == 4
            negatives = set(found.doc_id[found.query_id == drawn.query_id]) - {"d0", "d1", "d11"}
            allowed = negatives | ({"d1", "d11"} if drawn.query_id == "q0" else {"d0"})
            assert set(drawn.doc_ids[1:]) <= allowed
    assert positives == {("q0", "d0"), ("q1", "d1"), ("q1", "d11")}  # not the one without text


def test_fixed_lists_train_like_any(train):
    one, _ = train(work="a")
    other, _ = train(work="b", lists=fixed(selected()))
    assert equal(one, other)


def test_trainer_makes_its_own_accelerator_each_time():
    kinds = [Trainer(precision=p, device="cpu").accelerator() for p in ("fp32", "bf16", "fp32")]
    assert [one.mixed_precision for one in kinds][-1] == "no"
    assert kinds[-1].device == torch.device("cpu")
