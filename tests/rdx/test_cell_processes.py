"""A whole cell in two processes: the numbers of one, one trial, and no process left behind."""

import signal
import socket
import time

import pandas as pd
import psutil
import pytest

from rdx import rankings
from rdx.store import damage

pytestmark = pytest.mark.slow

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SETTINGS = ("student.dropout=0", "trainer.max_tokens=64", "trainer.validate_every=2")


def torchrun():
    """What stands before the arguments of rdx, for two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = ("--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", str(port))
    return ("-m", "torch.distributed.run", *several, "-m", "rdx")


def ran(rdx, arguments, folder, module=None):
    folder.mkdir(exist_ok=True)
    done = rdx(arguments, folder, **({"module": module} if module else {}))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def results(store):
    """Per-query values, and the scores of the student, of the only cell of a store."""
    [folder] = [p.parent for p in store.glob("evaluate/*/per_query.parquet")]
    table = rankings.read_parquet(folder / "per_query.parquet")
    table = table.set_index(["collection", "system", "query_id", "measure"]).value.sort_index()
    run = rankings.read_trec(folder / "runs" / "files.student.run.gz")
    return table, run.set_index(["query_id", "doc_id"]).sort_index()


@pytest.mark.parametrize("environment", [{}, FSDP], ids=["whole", "sharded"])
def test_two_processes_give_the_numbers_of_one(world, rdx, tmp_path, monkeypatch, environment):
    import mlflow

    recorded = [o for o in world.overrides("store", *SETTINGS) if o != "tracking=none"]
    recorded += ["tracking=mlflow", "tracking.system_metrics=false"]
    ran(rdx, world.overrides("store", *SETTINGS), tmp_path / "one")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = ran(rdx, recorded, tmp_path / "two", torchrun())
    assert len([line for line in printed if line.startswith("== ")]) == 1
    stages = "candidates 1, collection 1, distill 1, evaluate 1, index 1, prefinetune 1, retrieve 2"
    assert f"Stages computed: 12 ({stages}, select 1, teach 1, tokens 2)" in printed[-1]
    (values, scores), (again, same) = (results(tmp_path / n / "store") for n in ("one", "two"))
    pd.testing.assert_series_equal(values, again)
    pd.testing.assert_series_equal(scores["rank"], same["rank"])
    # No loss here sees what all scores have in common: the gradient of the last bias is rounding
    # error alone, which Adam makes as large as any other.
    apart = scores.score - same.score
    assert apart.max() - apart.min() < 1e-5
    assert apart.abs().max() < 1e-3
    printed = ran(rdx, recorded, tmp_path / "two", torchrun())
    assert "Stages computed: 0 (none)" in printed[-1]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'two' / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    assert [run.info.status for run in client.search_runs(experiments)] == ["FINISHED"]


LONG = (*SETTINGS[:2], "budget.epochs=40", "trainer.checkpoint_seconds=0")


@pytest.fixture(scope="module")
def undisturbed(world, rdx, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    ran(rdx, world.overrides("store", *LONG), folder, torchrun())
    return folder


def weights(folder):
    [path] = (folder / "store").glob("distill/*/model.safetensors")
    return path.read_bytes()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_process_ends_all_and_the_next_run_goes_on(
    undisturbed, world, rdx, tmp_path, rank
):
    arguments = world.overrides("store", *LONG)
    started = rdx(arguments, tmp_path, module=torchrun(), popen=True)
    try:
        while started.poll() is None and not list(
            tmp_path.glob("store/distill/*.partial/checkpoint-[0-9]*")
        ):
            time.sleep(0.01)
        both = psutil.Process(started.pid).children()
        [victim] = [process for process in both if process.environ()["RANK"] == rank]
        victim.send_signal(signal.SIGKILL)
        assert started.wait(120) != 0
    finally:
        started.kill()
    assert len(both) == 2 and not any(process.is_running() for process in both)
    assert not list(tmp_path.glob("store/distill/*/manifest.json"))
    printed = ran(rdx, arguments, tmp_path, torchrun())
    assert "Stages computed: 3 (distill 1, evaluate 1, tokens 1)" in printed[-1]
    assert weights(tmp_path) == weights(undisturbed)


def test_a_failed_cell_does_not_stop_the_grid(world, rdx, tmp_path):
    rates = "trainer.learning_rate=1e30,0.001"
    arguments = ["-m", *world.overrides("store", *SETTINGS[:2], rates)]
    done = rdx(arguments, tmp_path, module=torchrun())
    assert done.returncode == 1
    assert "diverged: " in done.stdout and "1 cell finished." in done.stdout
    [folder] = (tmp_path / "store").glob("evaluate/*[!.partial]/manifest.json")
    assert damage(folder.parent) == ""


def test_what_trains_nothing_runs_once(rdx, tmp_path):
    printed = ran(rdx, ["--version"], tmp_path, torchrun())
    assert len([line for line in printed if line.startswith("rdx ")]) == 1
    done = rdx(["losss=ranknet"], tmp_path, module=torchrun())
    assert done.returncode != 0 and done.stderr.count("rdx: ") == 1


# what a launcher's worker runs, whose environment is that of a process of torchrun
WORKER = "import os\nos.environ['LOCAL_RANK'] = '0'\nfrom rdx.__main__ import program\nprogram()\n"


def test_a_cell_in_a_process_apart_is_refused(world, rdx, tmp_path):
    done = rdx(world.overrides("store"), tmp_path, module=("-c", WORKER))
    assert done.returncode != 0 and not (tmp_path / "store").exists()
    assert "give hydra/launcher=basic" in done.stderr
