"""An MLflow that is slow, failing, away, removed or another one: `sync` repairs the mirror."""

import json
import logging
import math
import re
import shutil
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tracked import NOTHING, Place, killed, outcome, quick

from rdx.tracking import MLflow, NoTracking, Row
from rdx.tracking.log import Log, Points, Position

DOWN = {"uri": "http://127.0.0.1:9", "timeout": 1, "retries": 0, "wait": 0.5}
ONE = {"delivered": 1, "kept": 0, "closed": 0}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    MLflow()._import("recorder")
    quick(monkeypatch)


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


def run(place, signature="aa", grid=""):
    """A whole trial."""
    folder = place.store / "evaluate" / signature
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "per_query.parquet").write_bytes(b"table")
    with place.trial(signature, grid, config={"a": 1}) as trial:
        for step in range(3):
            trial.log_step("distill", step, {"loss": 1.0 / (step + 1)})
        trial.set_health("ok")
        trial.log_result(folder, outcome({"dl19/student/nDCG@10": 0.5}))


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An empty MLflow database; making its tables takes a second."""
    place = Place.of(tmp_path_factory.mktemp("empty"))
    place.client.search_experiments()
    return place.settings.uri.removeprefix("sqlite:///")


@pytest.fixture
def good(database, tmp_path):
    shutil.copy(database, tmp_path)
    return Place.of(tmp_path)


def check_repaired(place, signature="aa"):
    run = place.run(signature)
    assert run.info.status == "FINISHED" and run.data.tags["rdx.health"] == "ok"
    assert run.data.metrics == {"distill/loss": 1 / 3, "nDCG_at_10/student/dl19": 0.5}
    assert run.data.params["a"] == "1"
    assert place.curve(run) == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    files = {file.path for file in place.client.list_artifacts(run.info.run_id)}
    assert files >= {"config.yaml", "environment.json", "per_query.parquet"}
    assert len(run.inputs.dataset_inputs) == 1
    assert place.finished(signature) and signature in place.recorded()


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
def test_an_outage_stops_no_trial_and_sync_repairs_the_mirror(good, answer, caplog):
    with serving(answer or refuse) as uri:
        bad = good.but(**DOWN | ({"uri": uri} if answer else {}))
        with caplog.at_level(logging.WARNING):
            run(bad)
        assert bad.recorded() == set()
        assert bad.sync() == {"delivered": 0, "kept": 1, "closed": 0}
    said = [r.getMessage() for r in caplog.records if r.name == "rdx.tracking.recorder"]
    assert "python -m rdx sync" in said[0]
    assert good.sync() == ONE
    check_repaired(good)
    assert good.sync() == NOTHING
    check_repaired(good)


@pytest.mark.slow
def test_an_outage_that_ends_during_the_trial_leaves_nothing_to_do(tmp_path):
    """The database comes back while the trial runs."""
    place = Place.of(tmp_path).but(uri=f"sqlite:///{tmp_path}/later/mlflow.db")
    (tmp_path / "later").write_text("a file where the folder shall be")
    with place.trial("aa") as trial:
        trial.log_step("distill", 0, {"loss": 0.25})
        time.sleep(0.3)
        (tmp_path / "later").unlink()
        (tmp_path / "later").mkdir()
    record = place.run("aa")
    assert (record.info.status, record.data.metrics) == ("FINISHED", {"distill/loss": 0.25})
    assert place.sync() == NOTHING


@pytest.mark.slow
def test_the_same_command_repairs_too(good):
    run(good.but(**DOWN))
    assert good.recorded() == set()
    assert good.finished("aa")  # asked at the start of every cell
    check_repaired(good)


def contents(place):
    """Status, metrics and params of every trial by the id of its run."""
    return {r.info.run_id: (r.info.status, r.data.metrics, r.data.params) for r in place.trials()}


@pytest.mark.slow
def test_a_removed_database_is_written_again(good, rdx, tmp_path):
    killed(good, "bb", "g")
    for signature in ("aa", "ab"):
        run(good, signature, "g")
    good.log_grid("g", [Row(signature=s, health="ok") for s in ("aa", "ab", "bb")], "Claim.")
    before = contents(good)
    (tmp_path / "mlflow.db").unlink()
    shutil.rmtree(tmp_path / "artifacts")
    assert good.recorded() == set() and not (tmp_path / "mlflow.db").exists()
    words = ["sync", f"store={good.store}", f"tracking.uri={good.settings.uri}"]
    words += [f"tracking.artifacts={good.settings.artifacts}"]
    done = rdx(words, tmp_path)  # this process has the old file open
    assert re.findall(r"\d+", done.stdout) == ["4", "0"]
    (tmp_path / "mlflow.db").rename(tmp_path / "again.db")
    again = good.but(uri=f"sqlite:///{tmp_path}/again.db")
    after = contents(again)
    assert sorted(map(str, after.values())) == sorted(map(str, before.values()))
    assert not after.keys() & before.keys()
    [parent] = again.parents("g")
    assert "**Claim.** Claim." in parent.data.tags["mlflow.note.content"]
    assert {r.data.tags["mlflow.parentRunId"] for r in again.trials()} == {parent.info.run_id}
    path = again.client.download_artifacts(parent.info.run_id, "cells.json")
    with open(path) as file:
        assert {row["run_id"] for row in json.load(file)} == set(after)
    for signature in ("aa", "ab"):
        check_repaired(again, signature)


def test_another_mlflow_gets_everything_too(good, tmp_path):
    run(good, "aa", "g")
    other = good.but(uri=f"sqlite:///{tmp_path}/other/mlflow.db")
    assert other.sync() == ONE
    check_repaired(other)
    check_repaired(good)
    assert good.sync() == other.sync() == NOTHING
    assert len(other.parents("g")) == 1


def test_delivered_twice_is_delivered_once(good):
    """The process is killed after it wrote to MLflow, before it noted that."""
    run(good)
    log, target = Log(good.store, "aa"), good.settings.target
    for delivered in range(len(log.entries)):
        run_id = log.position(target).run_id if delivered % 2 else ""
        log.move(target, Position(run_id=run_id, delivered=delivered if run_id else 0))
        assert good.sync() == ONE
        check_repaired(good)


def test_a_torn_line_is_left_out(good):
    run(good.but(**DOWN))
    path = good.store / "trials" / "aa" / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])
    assert good.sync() == {"delivered": 1, "kept": 0, "closed": 1}
    record = good.run("aa")
    assert record.info.status == "KILLED"  # its end is not there
    assert record.data.metrics == {"distill/loss": 0.5}


def test_results_that_are_gone_make_the_record_incomplete(good):
    run(good.but(**DOWN))
    shutil.rmtree(good.store / "evaluate")
    assert good.sync() == ONE
    record = good.run("aa")
    assert record.info.status == "FAILED"
    assert "FileNotFoundError" in record.data.tags["rdx.error"]
    assert not good.finished("aa") and good.recorded() == set()


@pytest.mark.slow
def test_a_killed_process_s_log_is_mirrored_and_its_run_closed(good):
    killed(good.but(**DOWN), "aa", "g")
    assert good.sync() == {"delivered": 1, "kept": 0, "closed": 1}
    dead = good.run("aa")
    assert dead.info.status == "KILLED" and dead.data.metrics == {"distill/loss": 1.0}
    run(good, grid="g")
    again = good.run("aa")
    assert (again.info.run_id, again.info.status) == (dead.info.run_id, "FINISHED")


def test_a_log_that_cannot_be_written_stops_nothing(good):
    good.store.mkdir()
    (good.store / "trials").write_text("a file")
    run(good)
    good.log_grid("g", [Row(signature="aa")])
    assert not good.finished("aa") and good.sync() == NOTHING


def test_numbers_of_any_kind_are_kept(tmp_path):
    np = pytest.importorskip("numpy")
    log = Log(tmp_path, "aa")
    for value in (math.nan, float(np.float32(0.5)), np.float64(0.25)):
        log.append(Points(time=1, step=0, values={"loss": value}))
    values = [entry.values["loss"] for entry in Log(tmp_path, "aa").entries]
    assert math.isnan(values[0]) and values[1:] == [0.5, 0.25]


def test_the_verb(good, capsys):
    from rdx import commands

    run(good.but(**DOWN))
    words = [f"store={good.store}", f"tracking.artifacts={good.settings.artifacts}"]
    down = [f"tracking.{key}={value}" for key, value in DOWN.items()]
    with pytest.raises(SystemExit, match="1 record"):
        commands.VERBS["sync"]([*words, *down])
    commands.VERBS["sync"]([*words, f"tracking.uri={good.settings.uri}"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 record ")
    check_repaired(good)
    assert NoTracking().sync(good.store) == NOTHING
