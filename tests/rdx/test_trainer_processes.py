"""Two processes train like one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors.torch import save_model
from trainer_toys import Stop, TOY, parameters, toy_student, trained
from rdx import losses
from rdx.evaluation import rerank
from rdx.rankings import rank
from rdx.trainer import Steps, Trainer

ADAMW = torch.optim.AdamW
state = PartialState(cpu=True)
main, processes = state.is_main_process, state.num_processes


class Small(torch.nn.Module):
    # a student in a small memory
    encoder = property(lambda self: self.inner.encoder)

    def __init__(self, inner, tokens):
        super().__init__()
        self.inner, self.pairs, self.tokens = inner, inner.pairs, tokens

    def forward(self, inputs, parts):
        if parts.numel() > self.tokens:
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(inputs, parts)


def train(folder, work, loss="RankNet", stop=None, small=False, adam=False, **settings):
    torch.optim.AdamW = ADAMW if adam else torch.optim.SGD
    with state.main_process_first():
        student = toy_student(folder, settings.pop("model", "dry"))
    if small and not main:
        student = Small(student, 70)
    calls, steps = [], []

    def validate(student):
        calls.append(1)
        first = rank(["q0"] * 20, list(TOY.passages), range(20))
        found, _ = rerank(student, first, TOY, Trainer(device="cpu", precision="fp32"), 64)
        return float(found.score[0])

    def on_step(step, metrics):
        steps.append(step)
        if step == stop:
            raise Stop

    _, facts = trained(
        folder, work=work, student=student, loss=getattr(losses, loss)(), on_step=on_step,
        validate=validate, budget=Steps(7), **settings,
    )
    told = gather_object([[facts, parameters(student).tolist()]])
    assert all(one == told[0] for one in told), "the processes differ"
    assert bool(steps) == main, "on_step is the main process's"
    assert main or not calls, "validate is the main process's"
    if main:
        save_model(getattr(student, "inner", student), str(folder / (work + ".safetensors")))
        facts["processes"] = processes
        (folder / (work + ".json")).write_text(json.dumps(facts))


folder, jobs = json.loads(sys.argv[1])
for work, job in jobs.items():
    train(Path(folder), work, **job)
"""


def launch(folder, processes, jobs, fails=False):
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
    given = json.dumps([str(folder), jobs])
    command = [sys.executable, *(several if processes > 1 else []), str(script), given]
    single = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, env=os.environ | single, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode != 0) == fails, done.stderr[-4000:]
    if fails:
        assert "Stop" in done.stderr
        return {}
    facts = {name: json.loads((folder / f"{name}.json").read_text()) for name in jobs}
    assert {one.pop("processes") for one in facts.values()} == {processes}
    return {name: (facts[name], load_file(folder / f"{name}.safetensors")) for name in jobs}


def difference(one, other) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


DESCENT = {"learning_rate": 0.1}
JOBS = {
    f"{loss}-{name}": {"loss": loss, **DESCENT, **settings}
    for loss in ("RankNet", "ADRMSE", "LCE")
    for name, settings in {
        "one micro-batch": {"max_tokens": 100_000},
        "cached": {"max_tokens": 20, "gradient_cache": "on"},
        "kept": {"max_tokens": 20, "gradient_cache": "off"},
        "lists of two": {"batch": 1, "clip": 0.1, "max_tokens": 8},  # one pair per process
    }.items()
} | {"adam": {"adam": True, "max_tokens": 20, "gradient_cache": "on"}}
# Their gradient is zero, and Adam makes a step of its rounding: what adds the same to all scores,
# and the attention's bias of all keys.
ROUNDING = ("head.linear.bias", "layer.0.output.LayerNorm.bias", "key.bias")


@pytest.fixture(scope="module")
def by_processes(tmp_path_factory):
    made = tmp_path_factory.mktemp("processes")
    return {n: launch(made / str(n), n, JOBS) for n in (1, 2, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("job", JOBS)
def test_several_processes_give_the_weights_of_one(by_processes, job, processes):
    (facts, weights), (again, same) = by_processes[1][job], by_processes[processes][job]
    compared = [n for n in weights if job != "adam" or not n.endswith(ROUNDING)]
    assert difference({n: weights[n] for n in compared}, same) < 3e-6
    assert facts["weight_change"] > 1e-3
    assert again["last_loss"] == pytest.approx(facts["last_loss"], rel=1e-5)
    for name in ("steps", "pairs", "lists", "tokens", "truncated_texts"):
        assert again[name] == facts[name]


@pytest.mark.slow
def test_two_processes_resume_validate_and_select(tmp_path):
    settings = {
        "checkpoint_seconds": 0, "validate_every": 2, "select": "best", "patience": 3,
        "max_tokens": 20, "gradient_cache": "on", "model": "wet", "adam": True,
    }  # fmt: skip
    facts, weights = launch(tmp_path, 2, {"whole": settings})["whole"]
    launch(tmp_path, 2, {"cut": settings | {"stop": 3}}, fails=True)
    again, same = launch(tmp_path, 2, {"cut": settings})["cut"]
    assert again == facts and difference(weights, same) == 0
    assert facts["best_step"] == facts["kept_step"]


@pytest.mark.slow
def test_out_of_memory_in_one_process_halves_in_both(tmp_path):
    settings = {"max_tokens": "auto", "batch": 7, **DESCENT}
    jobs = {"roomy": settings, "tight": settings | {"small": True}}
    found = launch(tmp_path, 2, jobs)
    (facts, weights), (again, same) = found["roomy"], found["tight"]
    assert facts["max_tokens"] == 4096 and again["max_tokens"] == 64
    assert difference(weights, same) < 3e-6
