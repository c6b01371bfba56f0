"""Real databases behind MLflow: a server with PostgreSQL, and SQLite with eight writers."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from tracked import NOTHING, Place, outcome

from rdx.tracking import MLflow, Row

pytestmark = pytest.mark.slow
MANY = 500  # trials of a well-used server
WRITERS, EACH = 8, 5
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
needs_postgres = [
    pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL (Debian: postgresql)"),
    pytest.mark.skipif(not importlib.util.find_spec("psycopg2"), reason="no psycopg2"),
]


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def postgres():
    """A throw-away cluster on loopback; the address of its database."""
    folder, port = Path(tempfile.mkdtemp(prefix="rdx-pg")), free_port()
    user = "postgres" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(folder, user)
    bin_, data = POSTGRES[-1].parent, folder / "data"

    def do(program, *arguments):
        subprocess.run(
            [bin_ / program, *map(str, arguments)],
            cwd=folder,
            user=user,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    try:
        do("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        do("pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
        finally:
            do("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def mlflow_server(database, folder):
    """An MLflow server on loopback that keeps artifacts in a folder; its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database),
        *("--artifacts-destination", folder / "artifacts", "--workers", "2"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=quiet)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{address}/health", timeout=5).close()
                    break
                assert server.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of an MLflow server with PostgreSQL."""
    folder = tmp_path_factory.mktemp("server")
    with postgres() as database, mlflow_server(database, folder) as address:
        yield address


def search(uri, experiment, condition):
    return Place(Path("nowhere"), MLflow(uri=uri, experiment=experiment)).search(condition)


def trials(uri, experiment, *conditions):
    return search(uri, experiment, " and ".join(("tags.`rdx.kind` = 'trial'", *conditions)))


class TestPostgres:
    pytestmark = needs_postgres

    @pytest.fixture
    def cell(self, server, world, tmp_path):
        """The command line of a tiny cell that is tracked on the server."""

        def line(experiment, *more):
            base = [o for o in world.overrides(tmp_path / "store") if o != "tracking=none"]
            where = ("tracking=mlflow_server", f"tracking.uri={server}", "tracking.log_model=true")
            return [*base, *where, f"tracking.experiment={experiment}", *more]

        return line

    def test_two_processes_run_one_grid(self, cell, server, rdx, tmp_path):
        command = cell("grid", "seed=1,2,3", "-m")
        second = rdx(command, tmp_path, popen=True)
        first = rdx(command, tmp_path)
        assert first.returncode == 0, first.stdout + first.stderr
        assert second.wait(300) == 0
        [parent] = search(server, "grid", "tags.`rdx.kind` = 'grid'")
        found = trials(server, "grid")
        assert {run.info.status for run in found} == {parent.info.status} == {"FINISHED"}
        [seeds] = search(server, "grid", "tags.`rdx.kind` = 'cell'")  # whichever process was last
        assert seeds.data.tags["rdx.seeds"] == "1, 2, 3"
        assert seeds.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {run.data.tags["mlflow.parentRunId"] for run in found} == {seeds.info.run_id}
        assert {run.data.params["seed"] for run in found} == {"1", "2", "3"}
        assert len({run.data.tags["rdx.signature"] for run in found}) == 3
        curves = {run.data.tags["rdx.signature"]: 0 for run in found}
        for run in found:
            assert "nDCG_at_10/student/files" in run.data.metrics
            assert "files" in {one.dataset.name for one in run.inputs.dataset_inputs}
            curves[run.data.tags["rdx.signature"]] += "distill/loss" in run.data.metrics
        assert len(found) == 3 and set(curves.values()) == {1}  # one of them records a cell
        from mlflow import MlflowClient

        alias = MlflowClient(server).get_model_version_by_alias(parent.info.run_name, "best")
        assert alias.run_id in {run.info.run_id for run in found}

    def test_a_killed_trial_is_closed_and_taken_up_again(self, cell, server, rdx, tmp_path):
        command = cell("killed", "budget.epochs=200")
        process = rdx(command, tmp_path, popen=True)
        end = time.monotonic() + 120
        while not (running := trials(server, "killed", "attributes.status = 'RUNNING'")):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.wait()
        done = rdx(["sync", *command], tmp_path)
        assert done.stdout == "1 record delivered, 1 dead run closed\n", done.stderr
        [killed] = trials(server, "killed")
        assert (killed.info.run_id, killed.info.status) == (running[0].info.run_id, "KILLED")
        again = rdx(command, tmp_path)
        assert again.returncode == 0, again.stderr
        [finished] = trials(server, "killed")
        assert (finished.info.run_id, finished.info.status) == (killed.info.run_id, "FINISHED")

    def test_five_hundred_trials_are_found_fast(self, server, rdx, tmp_path, capsys):
        """The times are printed, for the documentation."""
        place = Place(
            tmp_path / "store",
            MLflow(uri=server, experiment="rdx", artifacts="", system_metrics=False, wait=300),
        )
        signatures = [f"{i:04x}" for i in range(MANY)]
        start = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: record(place, one, grid="many"), signatures))
        made = time.perf_counter() - start
        start = time.perf_counter()
        found = place.settings._import("fetching").newest(server, "rdx", set(signatures))
        searched = time.perf_counter() - start
        start = time.perf_counter()
        done = rdx(["sync", "tracking=mlflow_server", f"tracking.uri={server}"], tmp_path)  # store/
        synced = time.perf_counter() - start
        start = time.perf_counter()
        place.log_grid("many", [Row(signature=one, state="finished") for one in signatures])
        logged = time.perf_counter() - start
        with capsys.disabled():
            print(
                f"\n{MANY} trials on a server with PostgreSQL: recorded in {made:.0f} s by 8 "
                f"threads, found in {searched:.1f} s, sync {synced:.1f} s, grid logged in "
                f"{logged:.1f} s"
            )
        assert found.keys() == place.recorded() == set(signatures)
        assert done.stdout == "0 records delivered, 0 dead runs closed\n"
        assert trials(server, "rdx", "attributes.status != 'FINISHED'") == []
        [_] = search(server, "rdx", "tags.`rdx.kind` = 'grid'")


def record(place, signature, grid):
    """A whole trial with a small table."""
    folder = place.store / "evaluate" / signature
    folder.mkdir(parents=True)
    table = pd.DataFrame({"query_id": ["1", "2"], "measure": "nDCG@10", "value": [0.25, 0.5]})
    table.to_parquet(folder / "per_query.parquet")
    with place.trial(signature, grid, config={"a": signature}) as trial:
        for step in range(20):
            trial.log_step("distill", step, {"loss": 1.0 / (step + 1), "learning_rate": 1e-5})
        trial.set_health("ok")
        trial.log_result(folder, outcome({"dl19/student/nDCG@10": 0.375}))


def test_eight_processes_write_to_one_sqlite_file(tmp_path):
    """They all begin at once, where there is no database yet."""
    code = """
import sys
from pathlib import Path
import test_tracking_server as own

place = own.Place.of(Path(sys.argv[2]), system_metrics=True, wait=300)
for i in range(own.EACH):
    own.record(place, f"{sys.argv[1]}{i}", grid="one")
"""
    here = Path(__file__).parent
    path = os.pathsep.join((str(here), str(here.parents[1])))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"{number:x}", tmp_path],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    said = [writer.communicate(timeout=550)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * WRITERS, said
    assert "locked" not in "".join(said)
    assert Place.of(tmp_path).sync() == NOTHING
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    found = trials(uri, "rdx")
    expected = [f"{number:x}{i}" for number in range(WRITERS) for i in range(EACH)]
    assert sorted(run.data.tags["rdx.signature"] for run in found) == expected
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {len(run.inputs.dataset_inputs) for run in found} == {1}
    client_metrics = [run.data.metrics["distill/loss"] for run in found]
    assert client_metrics == [1 / 20] * len(expected)
    [parent] = search(uri, "rdx", "tags.`rdx.kind` = 'grid'")
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {parent.info.run_id}
