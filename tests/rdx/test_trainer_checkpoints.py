"""Interrupted trainings end in the same bits; validation selects and stops."""

import itertools
import math
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainer_toys import (
    FAST,
    LISTS,
    PASSAGES,
    TOY,
    Stop,
    equal,
    parameters,
    scores_of,
    stop_at,
    stopped,
    toy_student,
    trained,
)

from rdx.facts import Validation
from rdx.lists import TrainingList
from rdx.losses import RankNet
from rdx.trainer import Epochs, Steps, Trainer, fit
from rdx.trainer.checkpoints import BEST, LAST, Progress, find, save

STEPS = {"budget": Epochs(3), "checkpoint_seconds": 0, "warmup": 0.3, "schedule": "linear"}
KINDS = {
    "plain": {},
    "cached": {"max_tokens": 25, "gradient_cache": "on"},  # several micro-batches
    "accumulated": {"max_tokens": 25, "gradient_cache": "off"},
    "cosine": {"schedule": "cosine", "layer_decay": 0.9, "head_rate": 2.0, "clip": 0.1},
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder and outcome of a training that nothing interrupts, made once for equal settings."""
    known = {}

    def training(**settings):
        key = repr(sorted(settings.items()))
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            known[key] = (folder / "work", *trained(folder, **settings))
        return known[key]

    return training


# Each kind is stopped several times, and one of them before its first and its last step.
@pytest.mark.parametrize(
    ("kind", "stops"),
    [*((kind, [1, 2, 5]) for kind in KINDS), ("plain", [0]), ("cached", [3]), ("plain", [7])],
)
def test_an_interrupted_training_ends_in_the_same_bits(train, undisturbed, tmp_path, stops, kind):
    settings = STEPS | KINDS[kind]
    folder, whole, facts = undisturbed(**settings)
    for step in stops:
        stopped(train, step, **settings)
    seen = []
    resumed, again = train(work="cut", on_step=lambda step, _: seen.append(step), **settings)
    assert seen == list(range(stops[-1], 9))  # the step that was stopped was not checkpointed
    assert equal(whole, resumed)
    assert again == facts
    curves = [(place / "curve.json").read_text() for place in (folder, tmp_path / "cut")]
    assert curves[0] == curves[1]


def test_texts_cut_before_an_interruption_are_counted(tmp_path):
    long = {d: "river " * 300 + d for d in PASSAGES}

    def run(work, on_step=lambda step, metrics: None):
        student = toy_student(tmp_path, "dry", passage_length=3)
        folder = tmp_path / work
        folder.mkdir(exist_ok=True)
        settings = Trainer(**FAST | {"batch": 1}, checkpoint_seconds=0)
        lists = lambda epoch: LISTS  # noqa: E731
        tokens = student.pairs.tokens(TOY.queries, long)
        return fit(student, RankNet(), lists, tokens, Steps(7), settings, 0, folder, on_step)

    facts = run("whole")
    stopped(run, 5)
    assert run("cut") == facts
    assert facts.truncated_texts == len({d for one in LISTS for d in one.doc_ids})


def test_an_unfinished_checkpoint_is_not_believed(train, tmp_path):
    settings = {"budget": Steps(4), "checkpoint_seconds": 0}
    whole, _ = train(work="whole", **settings)
    stopped(train, 2, **settings)
    half = tmp_path / "cut" / "checkpoint-unfinished"
    half.mkdir()
    (half / LAST).write_bytes(b"half of a checkp")
    resumed, _ = train(work="cut", **settings)
    assert equal(whole, resumed)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["curve.json"]


def test_killed_while_it_tidies_up_it_trains_again_to_the_same_bits(train, tmp_path, monkeypatch):
    settings = {"budget": Steps(4), "checkpoint_seconds": 0}
    whole, _ = train(work="whole", **settings)

    def dies(folder, **_):
        victim = next(iter(sorted(Path(folder).iterdir())), None) if Path(folder).exists() else None
        if victim is not None:
            victim.unlink()
            raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr("rdx.trainer.checkpoints.shutil.rmtree", dies)
        train(work="cut", **settings)
    assert find(tmp_path / "cut") is None or len(list(find(tmp_path / "cut").iterdir())) == 2
    resumed, _ = train(work="cut", **settings)
    assert equal(whole, resumed)


def test_the_newest_of_several_checkpoints_counts(train, tmp_path):
    # a process may be killed between naming a checkpoint and removing the one before
    settings = {"budget": Steps(12), "checkpoint_seconds": 0}
    whole, _ = train(work="whole", **settings)
    stopped(train, 9, **settings)
    stopped(train, 10, work="later", **settings)
    (tmp_path / "later" / "checkpoint-10").rename(tmp_path / "cut" / "checkpoint-10")
    assert find(tmp_path / "cut").name == "checkpoint-10"
    seen = []
    resumed, _ = train(work="cut", on_step=lambda step, _: seen.append(step), **settings)
    assert seen == [10, 11] and equal(whole, resumed)


def test_a_checkpoint_is_weights_and_state(train, tmp_path):
    stopped(train, 2, work="work", checkpoint_seconds=0)
    [folder] = (tmp_path / "work").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == [LAST, "state.pt"]
    two, _ = train(work="two", budget=Steps(2))
    weights = load_file(folder / LAST)
    assert all(torch.equal(weights[name], value) for name, value in two.state_dict().items())


def test_checkpoints_wait_for_their_time(train, tmp_path):
    stopped(train, 3, work="work", checkpoint_seconds=1000)
    assert not list((tmp_path / "work").iterdir())


# --- validation ---


def values(*numbers):
    """A validation that gives these numbers, by the number of calls."""
    calls = []

    def validate(student):
        assert not student.training
        calls.append(parameters(student))
        return numbers[len(calls) - 1]

    validate.calls = calls
    return validate


def test_validation_selects_the_best_weights(train):
    settings = {"validate_every": 2, "budget": Steps(7)}
    first = values(0.1, 0.5, 0.9, 0.9, 0.2)  # at 0, 2, 4, 6 and 7 steps
    best, facts = train(work="best", validate=first, select="best", **settings)
    assert len(first.calls) == 5
    assert torch.equal(parameters(best), first.calls[2])  # the first of equals
    assert facts.validation == Validation(start=0.1, kept=0.9, best_step=4, kept_step=4)
    assert facts.steps == 7
    again = values(0.1, 0.5, 0.9, 0.9, 0.2)
    last, facts = train(work="last", validate=again, **settings)
    assert torch.equal(parameters(last), again.calls[4])
    assert facts.validation == Validation(start=0.1, kept=0.2, best_step=4, kept_step=7)
    plain, facts = train(work="plain", budget=Steps(7))
    assert equal(last, plain) and facts.validation is None  # looking changes nothing
    # without a validation to call, or without an interval, there is none
    _, facts = train(work="none", budget=Steps(7), validate=values())
    assert facts.validation is None


def test_validation_stops_early(train):
    settings = {"validate_every": 2, "budget": Steps(20), "patience": 2, "warmup": 0.5}
    rates = []
    look = values(0.0, 0.3, 0.4, 0.4, 0.1, 0.9)  # at 0, 2, 4, 6, 8, 10
    early, facts = train(
        work="early", validate=look, on_step=lambda _, m: rates.append(m), **settings
    )
    assert (facts.steps, facts.validation.best_step, len(look.calls)) == (8, 4, 5)
    assert [m.get("validation") for m in rates] == [None, 0.3, None, 0.4, None, 0.4, None, 0.1]
    # the schedule is that of the whole budget
    assert [m["lr"] for m in rates] == [FAST["learning_rate"] * i / 10 for i in range(1, 9)]
    assert torch.equal(parameters(early), look.calls[4])
    longer = values(0.0, 0.3, 0.4, 0.4, 0.1, 0.9, *[0.0] * 5)
    assert train(work="b", validate=longer, **settings | {"patience": 4})[1].steps == 18


def quality(student) -> float:
    """A number that wavers with the weights."""
    return math.sin(1000 * parameters(student).sum().item())


@pytest.mark.parametrize(
    ("select", "patience", "stops"),
    [
        *itertools.product(("last", "best"), (None, 2), ([1, 6, 7, 8],)),
        ("best", 2, [0]),
    ],
)
def test_validation_resumes_exactly(train, undisturbed, stops, patience, select):
    settings = {
        "validate_every": 2, "select": select, "patience": patience, "validate": quality,
        "checkpoint_seconds": 0, "budget": Steps(12), "max_tokens": 25, "gradient_cache": "on",
    }  # fmt: skip
    _, whole, facts = undisturbed(**settings)
    for step in stops:
        with suppress(Stop):  # where patience ended it before, it is finished and begins again
            train(work="cut", on_step=stop_at(step), **settings)
    resumed, again = train(work="cut", **settings)
    assert equal(whole, resumed) and again == facts


def test_the_best_checkpoint_stays_beside_the_last(train, tmp_path):
    settings = {"validate_every": 1, "budget": Steps(6)}
    stopped(train, 4, work="work", validate=values(0.0, 0.5, 0.8, 0.3, 0.2, 0.1), **settings)
    [folder] = (tmp_path / "work").iterdir()
    assert folder.name == "checkpoint-4"
    two, four = (train(work=f"{n}", budget=Steps(n))[0].state_dict() for n in (2, 4))
    for name, expected in ((BEST, two), (LAST, four)):
        weights = load_file(folder / name)
        assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_a_validation_that_is_not_finite_is_an_error(train):
    with pytest.raises(ValueError, match="nan"):
        train(validate=values(math.nan), validate_every=1)


def test_a_harmful_loss_ends_below_its_start(train):
    def order(student):
        """Share of pairs of passages in the teacher's order."""
        right = count = 0
        for training_list in LISTS:
            with torch.inference_mode():
                scores = scores_of(student, training_list).tolist()
            for better, worse in itertools.combinations(scores, 2):
                right += better > worse
                count += 1
        return right / count

    settings = {"validate": order, "validate_every": 10, "budget": Steps(30)}
    _, good = train(work="good", head="interaction", **settings)
    worst = [TrainingList(o.query_id, o.doc_ids[::-1], o.teacher_ranks) for o in LISTS]
    _, bad = train(work="bad", lists=lambda epoch: worst, head="interaction", **settings)
    assert good.validation.kept > good.validation.start == bad.validation.start
    assert bad.validation.kept < bad.validation.start


# --- killed at any moment ---

ENDLESS = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from trainer_toys import trained
from rdx.trainer import Steps
from test_trainer_checkpoints import quality
trained(Path({folder!r}), budget=Steps(10**6), checkpoint_seconds=0, validate_every=1,
        validate=quality, max_tokens=25, schedule="constant")
"""


@pytest.mark.slow
def test_killed_at_random_moments_a_checkpoint_is_whole(tmp_path, train):
    here = Path(__file__)
    names = {"root": str(here.parents[2]), "tests": str(here.parent), "folder": str(tmp_path)}
    draw = random.Random(0)
    reached = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", ENDLESS.format(**names)])
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            newest = find(tmp_path / "work") if (tmp_path / "work").exists() else None
            if newest and int(newest.name.split("-")[1]) > reached + 3:
                break
            time.sleep(0.05)
        time.sleep(draw.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        newest = find(tmp_path / "work")
        assert newest is not None and int(newest.name.split("-")[1]) > reached
        reached = int(newest.name.split("-")[1])
        load_file(newest / LAST)
        state = torch.load(newest / "state.pt", weights_only=True)
        assert len(state["progress"]["curve"]) == reached == state["progress"]["step"]
        assert len(state["progress"]["validations"]) == reached
        assert (newest / BEST).exists()
    weights = load_file(newest / LAST)
    whole, _ = train(work="whole", budget=Steps(reached), max_tokens=25, schedule="constant")
    assert all(torch.equal(weights[name], value) for name, value in whole.state_dict().items())


def test_a_checkpoint_of_the_same_step_is_written_once(tmp_path):
    student = toy_student(tmp_path)
    optimiser = torch.optim.AdamW(student.parameters())
    work = tmp_path / "work"
    work.mkdir()
    for step in (3, 3, 4):
        save(work, student, {"optimiser": optimiser.state_dict()}, Progress(64, step=step))
    assert [p.name for p in work.iterdir()] == ["checkpoint-4"]
