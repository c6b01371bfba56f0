"""A tracking server that is real, slow, failing or away: training goes on, `sync` repairs."""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rdx.tracking import MLflow, NoTracking
from rdx.tracking.outbox import Outbox, claim, left

LEVELS = {"data": "pydocs", "sampler": "bm25", "loss": "ranknet"}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    MLflow()._recording()
    from rdx.tracking import record

    monkeypatch.setattr(record, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(record, "RETRY_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(record, "_silent", {})


@contextmanager
def serving(answer):
    """A real HTTP server whose every answer is what a function does with the request."""

    class Handler(BaseHTTPRequestHandler):
        def do(self):
            answer(self)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run(tracking, signature, folder, grid="", points=3):
    """A whole trial; returns the seconds spent in it."""
    folder.mkdir(exist_ok=True)
    (folder / "per_query.parquet").write_bytes(b"table")
    start = time.perf_counter()
    with tracking.trial(
        signature=signature, levels=LEVELS, config={"a": 1}, grid=grid, seed=1
    ) as trial:
        for step in range(points):
            trial.log_step("distill", step, {"loss": 1.0 / (step + 1)})
        trial.set_health("ok")
        facts = {"collections": {"dl19": {"digest": "d", "queries": 43}}}
        trial.log_result(folder, facts, {"dl19/student/nDCG@10": 0.5})
    return time.perf_counter() - start


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An empty MLflow database; making its tables takes a second."""
    MLflow()._recording()
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def good(database, tmp_path):
    shutil.copy(database, tmp_path)
    return local(tmp_path)


def local(tmp_path):
    return MLflow(
        uri=f"sqlite:///{tmp_path}/mlflow.db",
        artifacts=str(tmp_path / "artifacts"),
        outbox=str(tmp_path / "outbox"),
        system_metrics=False,
    )


def trials(tracking):
    from rdx.tracking.runs import client_of

    client = client_of(tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment).experiment_id
    return client, client.search_runs([experiment], "tags.`rdx.kind` = 'trial'")


def check_repaired(tracking, signature="aa"):
    client, (run,) = trials(tracking)
    assert run.info.status == "FINISHED" and run.data.tags["rdx.health"] == "ok"
    assert run.data.metrics == {"distill/loss": 1 / 3, "nDCG_at_10/student/dl19": 0.5}
    history = client.get_metric_history(run.info.run_id, "distill/loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    files = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert files >= {"config.yaml", "environment.json", "per_query.parquet", "trial.json"}
    assert len(run.inputs.dataset_inputs) == 1
    assert tracking.finished(signature)


def refuse(request):
    request.send_response(500)
    request.end_headers()


def garble(request):
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<html>proxy login</html>")


def hang(request):
    time.sleep(20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", [refuse, garble, hang, None], ids=lambda a: getattr(a, "__name__", "down")
)
def test_an_outage_stops_no_trial_and_sync_repairs_the_record(good, answer, tmp_path, caplog):
    bad = replace(good, timeout=1, retries=0, wait=0.5)
    with serving(answer or refuse) as uri:
        uri = uri if answer else "http://127.0.0.1:9"
        with caplog.at_level(logging.WARNING):
            run(replace(bad, uri=uri), "aa", tmp_path / "result")
        assert not replace(bad, uri=uri).finished("aa")
        assert replace(bad, uri=uri).sync() == {"delivered": 0, "kept": 1, "closed": 0}
    said = [r.message for r in caplog.records if r.name == "rdx.tracking.record"]
    assert "python -m rdx sync" in said[0]
    assert len(left(tmp_path / "outbox")) == 1
    assert good.sync() == {"delivered": 1, "kept": 0, "closed": 0}
    check_repaired(good)
    assert good.sync() == {"delivered": 0, "kept": 0, "closed": 0}
    check_repaired(good)


def test_an_outage_that_ends_during_the_trial_leaves_nothing_to_do(tmp_path):
    """The database comes back while the trial runs."""
    tracking = local(tmp_path / "later")
    (tmp_path / "later").write_text("a file where the folder shall be")
    with tracking.trial(signature="aa", levels={}, config={}, grid="", seed=1) as trial:
        trial.log_step("distill", 0, {"loss": 0.25})
        time.sleep(0.3)
        (tmp_path / "later").unlink()
        (tmp_path / "later").mkdir()
    _, (found,) = trials(tracking)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"distill/loss": 0.25})
    assert left(tmp_path / "later" / "outbox") == []


def test_the_same_command_repairs_too(good, tmp_path):
    run(replace(good, uri="http://127.0.0.1:9", retries=0, wait=1), "aa", tmp_path / "result")
    assert good.finished("aa")  # asked at the start of every cell
    check_repaired(good)


def test_delivered_twice_is_delivered_once(good, tmp_path):
    """The delivering process is killed between the last event and the removal of the file."""
    run(replace(good, uri="http://127.0.0.1:9", retries=0, wait=1), "aa", tmp_path / "result")
    [path] = left(tmp_path / "outbox")
    content = path.read_bytes()
    for _ in range(3):
        path.write_bytes(content)
        assert good.sync()["delivered"] == 1
        check_repaired(good)


def test_a_torn_line_is_left_out(good, tmp_path):
    run(replace(good, uri="http://127.0.0.1:9", retries=0, wait=1), "aa", tmp_path / "result")
    [path] = left(tmp_path / "outbox")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])
    assert good.sync()["delivered"] == 1
    _, (found,) = trials(good)
    assert found.info.status == "KILLED"  # its end is not there
    assert found.data.metrics == {"distill/loss": 0.5}


def test_results_that_are_gone_make_the_record_incomplete(good, tmp_path):
    run(replace(good, uri="http://127.0.0.1:9", retries=0, wait=1), "aa", tmp_path / "result")
    (tmp_path / "result" / "per_query.parquet").unlink()
    (tmp_path / "result").rmdir()
    assert good.sync()["delivered"] == 1
    _, (found,) = trials(good)
    assert found.info.status == "FAILED"
    assert found.data.tags["rdx.error"].startswith("record incomplete: FileNotFoundError")


@pytest.mark.slow
def test_a_killed_process_s_outbox_is_delivered_and_its_run_closed(good, tmp_path):
    code = f"""
import os, signal
from rdx.tracking import MLflow
tracking = MLflow(uri="http://127.0.0.1:9", outbox={str(tmp_path / "outbox")!r}, retries=0)
with tracking.trial(signature="aa", levels={{}}, config={{}}, grid="g", seed=1) as trial:
    trial.log_step("distill", 0, {{"loss": 1.0}})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code])
    assert good.sync() == {"delivered": 1, "kept": 0, "closed": 0}
    _, (found,) = trials(good)
    assert found.info.status == "KILLED" and found.data.metrics == {"distill/loss": 1.0}
    run(good, "aa", tmp_path / "result", grid="g")
    _, (again,) = trials(good)
    assert (again.info.run_id, again.info.status) == (found.info.run_id, "FINISHED")


def test_an_outbox_that_cannot_be_written_stops_nothing(good, tmp_path):
    (tmp_path / "outbox").write_text("a file")
    run(good, "aa", tmp_path / "result")
    check_repaired(good)


# --- the file ---


def test_an_outbox_is_claimed_by_one_and_only_when_nobody_owns_it(tmp_path):
    box = Outbox(tmp_path, "aa")
    box.append({"op": "points", "value": math.nan})
    assert claim(tmp_path, "aa") is None  # this process lives
    assert not box.close()
    assert claim(tmp_path, "a") is None
    other = claim(tmp_path, "aa")
    assert (other.token, len(other.pending())) == (box.token, 1)
    assert math.isnan(other.pending()[0]["value"])
    assert claim(tmp_path, "aa") is None
    other.delivered(1)
    assert other.close() and not list(tmp_path.iterdir())


def test_the_outbox_of_another_machine_is_claimed_when_it_is_silent(tmp_path):
    path = tmp_path / "aa~token~elsewhere~1~2.00.jsonl"
    path.write_text(json.dumps({"op": "end"}) + "\n")
    assert left(tmp_path) == []
    os.utime(path, (time.time() - 1000,) * 2)
    assert left(tmp_path) == [path]
    assert claim(tmp_path).token == "token"


def test_numpy_numbers_are_kept_as_numbers(tmp_path):
    import numpy as np

    box = Outbox(tmp_path, "aa")
    box.append({"op": "x", "value": np.float32(0.5), "path": Path("a")})
    box.close()
    assert claim(tmp_path).pending() == [{"op": "x", "value": 0.5, "path": "a"}]


def test_two_parents_become_one(good, tmp_path):
    """Two machines found no parent at the same moment."""
    from rdx.tracking import runs

    run(good, "aa", tmp_path / "result", grid="g")
    client, (child,) = trials(good)
    experiment = child.info.experiment_id
    tags = {"rdx.kind": "grid", "rdx.grid": "g"}
    second = client.create_run(experiment, tags=tags, run_name="g").info.run_id
    client.set_tag(child.info.run_id, "mlflow.parentRunId", second)
    run(good, "bb", tmp_path / "result", grid="g")
    _, found = trials(good)
    (only,) = runs._parents(client, experiment, "g")
    assert {one.data.tags["mlflow.parentRunId"] for one in found} == {only.info.run_id}
    assert only.info.run_id != second


def test_values_are_checked():
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        MLflow(uri="")
    with pytest.raises(ValueError, match=r"tracking.timeout=0: must be at least 1"):
        MLflow(timeout=0)
    assert NoTracking().sync() == {"delivered": 0, "kept": 0, "closed": 0}


def test_the_verb(good, tmp_path, capsys):
    from rdx import commands

    run(replace(good, uri="http://127.0.0.1:9", retries=0, wait=1), "aa", tmp_path / "result")
    given = [f"tracking.{k}={getattr(good, k)}" for k in ("artifacts", "outbox")]
    with pytest.raises(SystemExit, match="1 record could not be delivered"):
        commands.VERBS["sync"](
            [*given, "tracking.uri=http://127.0.0.1:9", "tracking.retries=0", "tracking.wait=1"]
        )
    commands.VERBS["sync"]([*given, f"tracking.uri={good.uri}"])
    assert "1 record delivered, 0 dead runs closed" in capsys.readouterr().out
    check_repaired(good)
