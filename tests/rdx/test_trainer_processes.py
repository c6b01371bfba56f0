"""Two processes train like one, with the whole student in each, or with a part of it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rdx.facts import TrainingFacts, parse

ROOT = Path(__file__).parents[2]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as `accelerate launch` sets them

PROGRAM = """
import json, os, sys
from contextlib import nullcontext, suppress
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
import torch
from safetensors.torch import save_model
from torch.distributed.tensor import DTensor
from trainer_toys import Stop, TOY, bert, tokens_of, toy_student, trained
from rdx import losses
from rdx.facts import dump
from rdx.evaluation import rerank
from rdx.rankings import rank
from rdx.students import CrossEncoder, LoRA
from rdx.trainer import Steps, Trainer, run, together
from rdx.trainer.step import Engine

ADAMW, SGD = torch.optim.AdamW, torch.optim.SGD
RANK = int(os.environ.get("RANK", 0))
folder, jobs = json.loads(sys.argv[1])
HELD = {{}}


def descent_above(groups, lr, **more):
    # plain descent, except at Adam's usual rates
    return SGD(groups, lr=lr) if lr >= 0.1 else ADAMW(groups, lr=lr, **more)


def size(tensor):
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).numel()


def step(self, *arguments, plain=Engine.step):
    done = plain(self, *arguments)
    states = self.optimiser.state.values()
    HELD["parameters"] = sum(size(p) for p in self.trained.parameters())
    HELD["states"] = sum(size(v) for one in states for n, v in one.items() if n != "step")
    return done


def in_small_memory(self, inputs, parts, plain=CrossEncoder.forward):
    if parts.numel() > int(os.environ["SMALL"]):
        raise torch.OutOfMemoryError("out of memory")
    return plain(self, inputs, parts)


def with_scaler(self, plain=Trainer.accelerator):
    scaled = plain(self)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return scaled


def overflowing(self, *arguments, plain=Engine._passed):
    loss = plain(self, *arguments)
    gradient = next(p.grad for p in self.trained.parameters() if p.grad is not None)
    (gradient.to_local() if isinstance(gradient, DTensor) else gradient).fill_(torch.inf)
    return loss


torch.optim.AdamW = descent_above
Engine.step = step
if "SMALL" in os.environ and RANK > 0:
    CrossEncoder.forward = in_small_memory
if "SCALED" in os.environ:
    Trainer.accelerator = with_scaler
if os.environ.get("SCALED") == "overflow" and RANK > 0:
    Engine._passed = overflowing


def train(folder, work, loss="RankNet", stop=None, lora=None, head="mean", **settings):
    settings.pop("goes_on", None)
    if lora:
        settings["lora"] = LoRA(rank=2)
    options = {{k: settings.pop(k) for k in ("lora", "between") if k in settings}}
    student = toy_student(folder, settings.pop("model", "dry"), 2, head=head, **options)

    def validate(student):
        first = rank(["q0"] * 20, list(TOY.passages), range(20))
        runtime = Trainer(device="cpu", precision="fp32")
        found, _ = rerank(student, first, tokens_of(student), runtime, 64)
        return float(found.score[0])

    def on_step(step, metrics):
        if step == stop:
            raise Stop

    _, facts = trained(
        folder, work=work, student=student, loss=getattr(losses, loss)(), on_step=on_step,
        validate=validate, budget=Steps(settings.pop("steps", 7)), **settings,
    )
    save_model(student, str(folder / f"{{work}}-{{RANK}}.safetensors"))
    if RANK == 0:
        (folder / (work + ".json")).write_text(dump(facts))


def take_part(order):
    train(Path(folder), order, **jobs[order])


def program():
    assert RANK == 0
    for work, job in jobs.items():
        bert(Path(folder), job.get("model", "dry"), 2)  # before the others look for it
        together(work)
        with suppress(Stop) if job.get("goes_on") else nullcontext():
            take_part(work)


run(program, take_part) if "RANK" in os.environ else program()
(Path(folder) / f"held-{{RANK}}.json").write_text(json.dumps(HELD))
"""


def launch(folder, processes, jobs, fails="", **environment):
    """Train every job in some processes; gives (facts, weights) of each, by its name."""
    folder.mkdir(exist_ok=True)
    script = folder / "program.py"
    script.write_text(PROGRAM.format(root=str(ROOT), tests=str(Path(__file__).parent)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # what `accelerate launch` starts on GPUs; on CPUs itself it would want mpirun
    several = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    several += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    arguments = json.dumps([str(folder), jobs])
    command = [sys.executable, *(several if processes > 1 else []), str(script), arguments]
    single = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(
        command, env=os.environ | single | environment, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode != 0) == bool(fails), done.stderr[-4000:]
    if fails:
        assert fails in done.stderr, done.stderr
        return {}
    weights = {}
    for name in (name for name, job in jobs.items() if "stop" not in job):
        files = [folder / f"{name}-{rank}.safetensors" for rank in range(processes)]
        weights[name], *others = map(load_file, files)
        assert all(difference(weights[name], same) == 0 for same in others)
    facts = {name: parse(TrainingFacts, (folder / f"{name}.json").read_text()) for name in weights}
    return {name: (facts[name], weights[name]) for name in weights}


def held(folder, processes):
    """The numbers of weights and of optimiser states in each process, after the last job."""
    return [json.loads((folder / f"held-{i}.json").read_text()) for i in range(processes)]


def difference(one, other) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


DESCENT = {"learning_rate": 0.1}
CACHED = {"max_tokens": 20, "gradient_cache": "on"}
JOBS = {
    f"{loss}-{name}": {"loss": loss, **DESCENT, **settings}
    for loss in ("RankNet", "ADRMSE", "LCE")
    for name, settings in {
        "one micro-batch": {"max_tokens": 100_000},
        "cached": CACHED,
        "kept": {"max_tokens": 20, "gradient_cache": "off"},
        "groups": {"max_tokens": 4, "batch": 7},
        "lists of two": {"batch": 1, "clip": 0.1, "max_tokens": 8},  # one pair per process
    }.items()
} | {
    "interaction": {"head": "interaction", **DESCENT, **CACHED},  # has a weight without dimensions
    "cls": {"head": "cls", **DESCENT, **CACHED},
    "lora": {"lora": True, **DESCENT, **CACHED},
    "whole lists": {"between": "int_token", "batch": 5, **DESCENT, **CACHED},
    "a list": {"between": "int_token", "batch": 1, **DESCENT},  # one process has none
    "weighed": {"max_tokens": 20, "gradient_cache": "auto", **DESCENT},
    "adam": CACHED,
}
# Their gradient is zero, and Adam makes a step of its rounding: what adds the same to all scores,
# and the attention's bias of all keys.
ROUNDING = ("head.linear.bias", "layer.1.output.LayerNorm.bias", "key.bias")
KINDS = {"1": (1, {}), "2": (2, {}), "2 sharded": (2, FSDP), "3 sharded": (3, FSDP)}


@pytest.fixture(scope="module")
def by_kind(tmp_path_factory):
    made = tmp_path_factory.mktemp("processes")
    return {kind: (launch(made / kind, n, JOBS, **environment), held(made / kind, n))
            for kind, (n, environment) in KINDS.items()}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "1"])
@pytest.mark.parametrize("job", JOBS)
def test_several_processes_give_the_weights_of_one(by_kind, job, kind):
    (facts, weights), (again, same) = by_kind["1"][0][job], by_kind[kind][0][job]
    compared = [n for n in weights if job != "adam" or not n.endswith(ROUNDING)]
    assert weights.keys() == same.keys()
    assert difference({n: weights[n] for n in compared}, {n: same[n] for n in compared}) < 5e-6
    assert facts.weight_change > 3e-4
    assert again.weight_change == pytest.approx(facts.weight_change, rel=1e-3)
    assert again.last_loss == pytest.approx(facts.last_loss, rel=1e-5)
    for name in ("steps", "pairs", "lists", "tokens", "truncated_texts"):
        assert getattr(again, name) == getattr(facts, name)


@pytest.mark.slow
def test_under_fsdp_a_process_holds_its_part(by_kind):
    [whole] = by_kind["1"][1]
    assert whole["states"] > whole["parameters"]  # Adam's two, of all that are trained
    assert by_kind["2"][1] == [whole] * 2
    for kind, (processes, _) in KINDS.items():
        if "sharded" in kind:
            for name, total in whole.items():
                parts = [process[name] for process in by_kind[kind][1]]
                assert sum(parts) == total and max(parts) < 1.2 * total / processes


RESUMED = {
    "checkpoint_seconds": 0, "validate_every": 2, "select": "best", "patience": 3,
    "model": "wet", **CACHED,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["whole", "sharded"])
def test_two_processes_resume_validate_and_select(tmp_path, environment):
    facts, weights = launch(tmp_path, 2, {"whole": RESUMED}, **environment)["whole"]
    launch(tmp_path, 2, {"cut": RESUMED | {"stop": 3}}, fails="Stop", **environment)
    again, same = launch(tmp_path, 2, {"cut": RESUMED}, **environment)["cut"]
    assert again == facts and difference(weights, same) == 0
    assert facts.validation.best_step == facts.validation.kept_step


@pytest.mark.slow
def test_a_checkpoint_is_for_any_number_of_processes(tmp_path):
    settings = {"checkpoint_seconds": 0, "head": "interaction", **CACHED}
    facts, weights = launch(tmp_path, 1, {"whole": settings})["whole"]
    launch(tmp_path, 2, {"cut": settings | {"stop": 2}}, fails="Stop", **FSDP)
    launch(tmp_path, 1, {"cut": settings | {"stop": 4}}, fails="Stop")
    again, same = launch(tmp_path, 3, {"cut": settings}, **FSDP)["cut"]
    compared = [name for name in weights if not name.endswith((*ROUNDING, "cls.bias"))]
    assert difference({n: weights[n] for n in compared}, {n: same[n] for n in compared}) < 5e-6
    assert again.last_loss == pytest.approx(facts.last_loss, rel=1e-5)


@pytest.mark.slow
def test_out_of_memory_in_one_process_halves_in_both(tmp_path):
    jobs = {"one": {"max_tokens": "auto", "batch": 7, **DESCENT}}
    facts, weights = launch(tmp_path / "roomy", 2, jobs)["one"]
    again, same = launch(tmp_path / "tight", 2, jobs, SMALL="50")["one"]
    assert facts.max_tokens == 4096 and again.max_tokens == 64
    assert difference(weights, same) < 3e-6
    # under FSDP the other process is in the middle of its layers: both end
    launch(tmp_path / "fails", 2, jobs, fails="trainer.max_tokens", SMALL="70", **FSDP)


@pytest.mark.slow
def test_the_gradient_scaler_sees_what_any_process_sees(tmp_path):
    jobs = {"one": {"steps": 1, **DESCENT}}
    _, weights = launch(tmp_path / "plain", 1, jobs)["one"]
    for kind, environment in {"whole": {}, "sharded": FSDP}.items():
        _, same = launch(tmp_path / kind, 2, jobs, SCALED="fine", **environment)["one"]
        assert difference(weights, same) < 3e-6
        # in the second process alone, the gradient overflows: no process may make the step
        settings = environment | {"SCALED": "overflow"}
        facts, _ = launch(tmp_path / f"{kind} inf", 2, jobs, **settings)["one"]
        assert facts.weight_change == 0


@pytest.mark.slow
def test_what_fails_in_the_main_process_alone_ends_its_training_only(tmp_path):
    jobs = {"stopped": {"stop": 2, "goes_on": True}, "next": DESCENT}
    after, weights = launch(tmp_path / "after", 2, jobs)["next"]
    alone, same = launch(tmp_path / "alone", 2, {"next": DESCENT})["next"]
    assert after == alone and difference(weights, same) == 0


@pytest.mark.slow
def test_another_version_of_fsdp_is_refused(tmp_path):
    jobs = {"one": DESCENT}
    launch(tmp_path, 2, jobs, fails="--fsdp_version 2", ACCELERATE_USE_FSDP="true")
