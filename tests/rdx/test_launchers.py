"""Grids of real cells under every launcher: results of the basic one, and cells that are killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from hydra_plugins.rdx_launchers import JoblibLauncher, RayLauncher
from rdx.config import CONF
from rdx.config.composing import composing
from tests.rdx.conftest import World

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
needs = {
    name: pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("joblib", "submitit", "ray")
}
needs_slurm = pytest.mark.skipif(
    not (shutil.which("slurmctld") and shutil.which("munged") and os.getuid() == 0),
    reason="no Slurm, or not root",
)
LAUNCHERS = [
    pytest.param(("joblib", "hydra.launcher.slots=2"), marks=needs["joblib"], id="joblib"),
    pytest.param(("submitit_local",), marks=needs["submitit"], id="submitit_local"),
    pytest.param(("ray",), marks=needs["ray"], id="ray"),
]
RATES = "trainer.learning_rate=0.001,1e30,0.002"  # the second one diverges
LONG = ("budget.epochs=60", "trainer.checkpoint_seconds=0")


def results(store):
    """What the cells of a store found, byte for byte."""
    return {
        path.parent.name: path.read_bytes()
        for path in store.glob("evaluate/*/per_query.parquet")
        if (path.parent / "manifest.json").exists()
    }


def until(what, seconds=120):
    """Wait until a function gives something true; it is returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def training(store):
    """Processes that live and have left a checkpoint of an unfinished distillation."""
    pids = []
    for note in store.glob("distill/*.running.json"):
        checkpoints = note.parent.glob(f"{note.name.split('.')[0]}.partial/checkpoint-[0-9]*")
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            pid = json.loads(note.read_text())["pid"]
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            pids += [pid] if alive and any(checkpoints) else []
    return pids


def runs_of(folder):
    """All runs of the MLflow database in a folder, and its client."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client, client.search_runs([e.experiment_id for e in client.search_experiments()])


# --- options ---


def test_installed_plugins_of_the_same_names_do_not_check_our_settings():
    @dataclass
    class Theirs:
        n_jobs: int = 1

    shelf = ConfigStore.instance()
    try:
        shelf.store(group="hydra/launcher", name="joblib", node=Theirs)
        shelf.store(group="hydra/launcher", name="elsewhere", node=Theirs)
        with composing():
            cfg = compose("config", ["hydra/launcher=joblib", "hydra.launcher.slots=3"],
                          return_hydra_config=True)  # fmt: skip
        assert cfg.hydra.launcher.slots == 3
        assert "elsewhere.yaml" in shelf.repo["hydra"]["launcher"]
        shelf.store(group="hydra/launcher", name="joblib", node=Theirs)
        with initialize_config_dir(str(CONF / "loss"), version_base="1.3"):
            compose(overrides=[])
        assert "joblib.yaml" in shelf.repo["hydra"]["launcher"]  # of another program
    finally:
        for name in ("joblib", "elsewhere"):
            shelf.repo["hydra"]["launcher"].pop(f"{name}.yaml", None)


# --- what a slot sees ---


@needs["joblib"]
def test_a_slot_has_one_gpu_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    launcher = JoblibLauncher(slots=4, gpus=[0, 3])
    seen = [launcher.environment(slot) for slot in range(4)]
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in seen] == ["0", "3", "0", "3"]
    assert {variables["OMP_NUM_THREADS"] for variables in seen} == {"2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert launcher.environment(0)["OMP_NUM_THREADS"] == "5"
    assert "CUDA_VISIBLE_DEVICES" not in JoblibLauncher(slots=2, gpus=[]).environment(1)


@pytest.mark.parametrize(
    ("visible", "slots", "expected"), [("2,5,7", None, 3), ("2,5", 1, 1), ("", None, 1)]
)
def test_slots_are_the_visible_gpus_unless_said(monkeypatch, visible, slots, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    launcher = JoblibLauncher(slots=slots)
    assert launcher.slots == expected
    assert launcher.gpus == [gpu for gpu in visible.split(",") if gpu]


def test_no_slots_are_refused():
    with pytest.raises(ValueError, match="slots=0"):
        JoblibLauncher(slots=0, gpus=[])


def test_ray_is_asked_for_what_a_cell_needs():
    asked = RayLauncher(num_cpus=2, num_gpus=0.5, memory=10, resources={"a": 1}, max_retries=3)
    assert asked.options == {"num_cpus": 2, "num_gpus": 0.5, "memory": 10, "resources": {"a": 1},
                             "max_retries": 3, "max_calls": 1}  # fmt: skip


class Engine(JoblibLauncher):
    """Cells that are plain functions, so that many of them run in a second."""

    def gather(self, functions):
        return [job._return_value for job in self.run(functions)]


class Seen:
    """Stands for a cell: which GPU and process it had; one of them dies."""

    def __init__(self, number):
        self.number, self.overrides = number, [f"seed={number}"]

    def __call__(self):
        from hydra.core.utils import JobReturn, JobStatus

        if self.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        seen = (os.environ["CUDA_VISIBLE_DEVICES"], os.getpid(), time.monotonic())
        return JobReturn(status=JobStatus.COMPLETED, _return_value=seen)


@needs["joblib"]
def test_more_cells_than_slots_and_a_killed_one():
    seen = Engine(slots=2, gpus=["4", "6"]).gather([Seen(number) for number in range(9)])
    killed = seen.pop(3)
    assert "Terminated" in type(killed).__name__ and "SIGKILL" in str(killed)
    slots = {}
    for gpu, process, _ in seen:
        slots.setdefault(gpu, set()).add(process)
    assert set(slots) == {"4", "6"}  # every cell saw one GPU, and both were used
    # one process per GPU; a second where the worker was killed, and none is shared
    assert sum(map(len, slots.values())) <= 3 and not slots["4"] & slots["6"]


@needs["joblib"]
def test_workers_end_with_a_killed_launcher():
    code = """
import time
from hydra_plugins.rdx_launchers import _begin
from joblib.externals.loky import ProcessPoolExecutor
pool = ProcessPoolExecutor(1, initializer=_begin)
print(pool.submit(int).result(), flush=True)
pool.submit(time.sleep, 600).result()
"""
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                                cwd=ROOT)  # fmt: skip
    assert launcher.stdout.readline() == b"0\n"
    below = psutil.Process(launcher.pid).children(recursive=True)
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    ended, alive = psutil.wait_procs(below, timeout=60)
    assert ended and not alive


@needs["joblib"]
def test_a_cell_that_needs_more_memory_keeps_its_worker():
    code = """
import os, time
from hydra_plugins.rdx_launchers import _begin
from joblib.externals.loky import ProcessPoolExecutor
pool = ProcessPoolExecutor(1, initializer=_begin)
held = "import os; kept = b'x' * 400_000_000; globals()['kept'] = kept"
cells = [(os.getpid,), (time.sleep, 1.1), (exec, held), (time.sleep, 1.1), (os.getpid,)]
first, *_, last = [pool.submit(*cell).result() for cell in cells]
print(first == last)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"True\n"


# --- whole grids ---


@pytest.fixture(scope="module")
def basic(world, rdx, tmp_path_factory):
    """What the basic launcher finds in the grid in which one cell diverges."""
    folder = tmp_path_factory.mktemp("basic")
    rdx(["-m", *world.overrides("store", RATES), "hydra/launcher=basic"], folder, status=1)
    return results(folder / "store")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_cell_fails_alone(launcher, basic, world, rdx, tmp_path):
    cells = world.recorded("store", RATES)
    done = rdx(["-m", *cells, f"hydra/launcher={launcher[0]}", *launcher[1:]], tmp_path, status=1)
    assert "2 cells finished." in done.stdout
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    rates = [word.split("=")[1] for word in " ".join(failures).split() if "learning_rate" in word]
    assert list(map(float, rates)) == [1e30]
    assert "the loss is " in done.stdout
    assert len(basic) == 2 and results(tmp_path / "store") == basic
    client, runs = runs_of(tmp_path)
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED"]
    cells = json.loads(open(client.download_artifacts(parent.info.run_id, "cells.json")).read())
    assert [cell["state"] for cell in cells] == ["finished", "diverged", "finished"]


OWN = """
from rdx.losses import RankNet
class Loss(RankNet):
    pass
"""


@pytest.fixture
def elsewhere(tmp_path_factory, monkeypatch):
    """The folder of a Ray cluster that was started there, and which `address=auto` finds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token that Ray once left in ~/.ray
    program = os.path.join(os.path.dirname(sys.executable), "ray")
    command = [program, "start", "--head", "--block", "--port=0", "--num-cpus=2"]
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen([*command, "--include-dashboard=false"], cwd=folder, stdout=log,
                                stderr=log, env=os.environ | {"PYTHONPATH": ROOT})  # fmt: skip
    try:
        text = until(lambda: "--block" in (t := (folder / "ray.log").read_text()) and t)
        monkeypatch.setenv("RAY_ADDRESS", re.search(r"\d+\.\d+\.\d+\.\d+:\d+", text).group())
        yield folder
    finally:
        head.terminate()
        head.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_cells_end_where_the_user_stands(launcher, world, rdx, tmp_path, request, monkeypatch):
    """Relative paths, and a loss of the user's own, with every launcher."""
    folder = request.getfixturevalue("elsewhere") if launcher[0] == "ray" else None
    before = set(folder.rglob("*")) if folder else None
    shutil.copytree(world.folder, tmp_path / "world")
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setenv("RDX_EXTENSIONS", "own")
    cells = World(Path("world")).recorded("store", "seed=1,2", "loss._target_=own.Loss")
    done = rdx(["-m", *cells, f"hydra/launcher={launcher[0]}", *launcher[1:]], tmp_path, status=0)
    assert len(results(tmp_path / "store")) == 2
    status = rdx(re.search(r"python -m rdx (status .*)", done.stdout).group(1).split(), tmp_path)
    assert "2 cells: 2 finished" in status.stdout, status.stdout + status.stderr
    _, runs = runs_of(tmp_path)
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    kinds = {run.info.run_id: run.data.tags["rdx.kind"] for run in runs}
    assert sorted(kinds.values()) == ["cell", "grid", "trial", "trial"]
    assert {path.name for path in (tmp_path / "mlartifacts").iterdir()} >= {
        key
        for key, kind in kinds.items()
        if kind != "cell"  # which is numbers over its seeds
    }
    assert folder is None or set(folder.rglob("*")) == before


def disturb_a_cell(store, number):
    """Signal the process that trains, once it has left a checkpoint; the store knows which."""
    os.kill(until(lambda: training(store))[0], number)


def undisturbed(rdx, arguments, folder):
    """The results of a grid that nothing disturbs."""
    (folder / "undisturbed").mkdir()
    assert rdx(arguments, folder / "undisturbed").returncode == 0
    return results(folder / "undisturbed" / "store")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS[:2])
def test_a_killed_cell_fails_alone_and_the_same_command_finishes_it(launcher, world, rdx, tmp_path):
    arguments = ["-m", *world.overrides("store", *LONG, "seed=1,2")]
    expected = undisturbed(rdx, arguments, tmp_path)
    arguments += [f"hydra/launcher={launcher[0]}", *launcher[1:]]
    started = rdx(arguments, tmp_path, popen=True)
    disturb_a_cell(tmp_path / "store", signal.SIGKILL)
    assert started.wait(200) == 1
    assert len(results(tmp_path / "store")) == 1
    rdx(arguments, tmp_path, status=0)
    assert results(tmp_path / "store") == expected


@pytest.mark.slow
@needs["submitit"]
@pytest.mark.parametrize("times", [0, 5])
def test_a_cell_out_of_time_runs_again_as_often_as_said(times, world, rdx, tmp_path):
    arguments = ["-m", *world.overrides("store", *LONG, "seed=1"), "hydra/launcher=submitit_local"]
    # Submitit takes every signal in jobs of less than ten minutes for the end of their time
    arguments += ["hydra.launcher.timeout_min=2", f"hydra.launcher.max_num_timeout={times}"]
    store = tmp_path / "store"
    started = rdx(arguments, tmp_path, popen=True)
    disturb_a_cell(store, signal.SIGUSR2)
    assert started.wait(200) == (0 if times else 1)
    logs = tmp_path.rglob(".submitit/*/*_0_log.*")
    log = "".join(path.read_text() for path in logs if path.suffix in (".out", ".err"))
    assert "this job is timed-out" in log and ("Requeued job" in log) == bool(times)
    assert len(results(store)) == bool(times)
    causes = [json.loads(path.read_text())["cause"] for path in store.rglob("*.failed.json")]
    assert ["timed-out too many times" in cause for cause in causes] == [True] * (not times)


# --- Slurm ---


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm of one node; its commands' output."""
    monkeypatch.setenv("RDX_SLURM", str(tmp_path / "slurm"))
    script = os.path.join(ROOT, "scripts", "local_slurm.sh")
    told = subprocess.run([script, "start"], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    try:
        for word in told.stdout.split()[1:]:
            name, value = word.split("=", 1)
            monkeypatch.setenv(name, value.replace("$PATH", os.environ["PATH"]))

        def ask(*command):
            return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

        yield ask
    finally:
        subprocess.run([script, "stop"], check=True, timeout=60)
        commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
        assert not [command for command in commands if command.startswith(("munged ", "slurm"))]


@pytest.mark.slow
@needs["submitit"]
@needs_slurm
def test_slurm_preempts_one_job_and_kills_another(slurm, world, rdx, tmp_path):
    # Slurm kills seconds after it has told a job to end; meanwhile training must not be over
    longer = ("budget.epochs=300", LONG[1])
    arguments = ["-m", *world.overrides("store", *longer, "seed=1,2,3")]
    expected = undisturbed(rdx, arguments, tmp_path)
    asked = ("gpus_per_node=null", "cpus_per_task=1", "array_parallelism=1", "timeout_min=20")
    arguments += ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{o}" for o in asked)]
    store = tmp_path / "store"
    started = rdx(arguments, tmp_path, popen=True)

    def running(of=""):
        lines = slurm("squeue", "-h", "-t", "RUNNING", "-o", "%F_%K").split()
        return [job for job in lines if job.endswith(of)]

    def disturbed(number, *command, before=()):
        """Disturb a job of the array when it has written a checkpoint, not the one before it."""
        [job] = until(lambda: running(f"_{number}"))
        [process] = until(lambda: set(training(store)) - set(before))
        slurm(*command, job)
        return process

    try:
        first = disturbed(0, "scontrol", "requeue")
        disturbed(1, "scancel", "--full", "--signal=KILL", before=[first])
        assert started.wait(400) == 1
    finally:
        started.kill()
    assert len(results(store)) == 2
    logs = [path.read_text() for path in tmp_path.rglob(".submitit/*/*_0_log.out")]
    assert sum(text.count("Starting with") for text in logs) >= 3
    rdx(arguments, tmp_path, status=0)
    assert results(store) == expected
