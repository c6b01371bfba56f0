"""Trials in a real MLflow: SQLite and an artifact folder, one per test module."""

import importlib.metadata
import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from rdx.tracking import MLflow, NoRecords, NoTracking, RecordError, environment
from rdx.tracking.lookup import recorded_in_sqlite

LEVELS = {"data": "pydocs", "sampler": "bm25", "loss": "ranknet"}
CONFIG = {"loss": {"_target_": "rdx.losses.RankNet"}, "seed": 1, "trainer": {"betas": [0.9, 0.99]}}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    return MLflow(
        uri=f"sqlite:///{folder}/mlflow.db",
        artifacts=str(folder / "mlartifacts"),
        outbox=str(folder / "outbox"),
        system_metrics=False,
    )


@pytest.fixture(scope="module")
def client(tracking):
    tracking._recording()
    from rdx.tracking.runs import client_of

    return client_of(tracking.uri)


@pytest.fixture(autouse=True)
def quickly(tracking, monkeypatch):
    """Points are written at once, and what fails is tried again soon."""
    tracking._recording()
    from rdx.tracking import record

    monkeypatch.setattr(record, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(record, "RETRY_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(record, "_silent", {})


def until(condition, seconds=30):
    """Wait for what a trial's thread writes; returns the last value of the condition."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def start(tracking, signature, grid="", levels=LEVELS, config=CONFIG, seed=1):
    return tracking.trial(signature=signature, levels=levels, config=config, grid=grid, seed=seed)


def runs(client, condition):
    experiment = client.get_experiment_by_name("rdx")
    return list(client.search_runs([experiment.experiment_id], condition))


def of(client, signature):
    return runs(client, f"tags.`rdx.signature` = '{signature}'")


def parents(client, grid):
    return runs(client, f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` = '{grid}'")


def test_the_parent_lists_all_cells_also_those_of_an_earlier_grid(tracking, client):
    with start(tracking, "aa", grid="first"):
        pass
    with start(tracking, "bb", grid="second"):
        pass
    cells = [{"signature": s, "state": "finished"} for s in ("aa", "bb", "never")]
    tracking.log_grid("second", cells)
    tracking.log_grid("second", cells)  # again: the table is replaced, not doubled
    (parent,) = parents(client, "second")
    path = client.download_artifacts(parent.info.run_id, "cells.json")
    table = json.loads(Path(path).read_text())
    ids = [client.search_runs([r.info.experiment_id], f"tags.`rdx.signature` = '{s}'")
           for s in ("aa", "bb") for r in [parent]]  # fmt: skip
    assert [row["run_id"] for row in table] == [*(found[0].info.run_id for found in ids), None]
    assert [row["signature"] for row in table] == ["aa", "bb", "never"]


def test_a_grid_is_described_before_its_first_cell_runs(tracking, client):
    cells = [{"signature": s, "overrides": f"seed={s}", "state": "to run"} for s in ("1d", "2d")]
    tracking.log_grid("spec-12345678", cells, "More is better.")
    (parent,) = parents(client, "spec-12345678")
    note = parent.data.tags["mlflow.note.content"]
    assert "**Claim.** More is better." in note and "| 1d |  | to run |  |" in note
    assert (parent.info.status, parent.data.tags["mlflow.source.name"]) == ("FINISHED", "rdx")
    with start(tracking, "1d", grid="spec-12345678"):
        pass
    finished = {"state": "finished", "health": "ok", "means": {"dl19/student/nDCG@10": 0.5}}
    tracking.log_grid("spec-12345678", [{**cells[0], **finished}, cells[1]], "More is better.")
    (again,) = parents(client, "spec-12345678")
    assert again.info.run_id == parent.info.run_id
    note = again.data.tags["mlflow.note.content"]
    assert (
        note.count("**Claim.**") == 1 and f"[1d](#/experiments/{again.info.experiment_id}/" in note
    )
    assert "| 0.5000 | finished | ok |" in note


def test_a_grid_is_a_parent_with_one_child_per_trial(tracking, client):
    for signature in ("a1", "a2"):
        with start(tracking, signature, grid="demo's grid"):
            assert until(lambda s=signature: of(client, s))[0].info.status == "RUNNING"
            (parent,) = parents(client, "demos grid")
            assert parent.info.status == "FINISHED"  # a parent is never left RUNNING
    (parent,) = parents(client, "demos grid")
    children = [of(client, s)[0] for s in ("a1", "a2")]
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    assert {c.info.status for c in children} == {"FINISHED"}
    assert parent.info.run_name == "demos grid"
    assert parent.info.end_time >= max(c.info.end_time for c in children)
    assert children[0].info.run_name == "ranknet bm25 seed=1"


def test_a_single_trial_has_no_parent(tracking, client):
    with start(tracking, "b1"):
        pass
    assert "mlflow.parentRunId" not in of(client, "b1")[0].data.tags


def test_finished(tracking):
    assert not tracking.finished("c1")
    with start(tracking, "c1"):
        assert not tracking.finished("c1")
    assert tracking.finished("c1")


def test_finished_without_an_experiment(tracking):
    assert not MLflow(uri=tracking.uri, experiment="other").finished("c1")


def test_a_forced_second_trial_is_a_run_of_its_own(tracking, client):
    for _ in range(2):
        with start(tracking, "c2"):
            pass
    assert len(of(client, "c2")) == 2


def test_params_are_levels_and_the_flattened_config(tracking, client):
    with start(tracking, "d1"):
        pass
    assert of(client, "d1")[0].data.params == {
        "data": "pydocs",
        "sampler": "bm25",
        "loss": "ranknet",
        "loss._target_": "rdx.losses.RankNet",
        "seed": "1",
        "trainer.betas": "[0.9, 0.99]",
    }


def test_long_many_and_odd_params_are_cut_and_renamed(tracking, client):
    config = {f"key{i}": i for i in range(250)}
    config |= {"long": "x" * 10_000, "k" * 400: 1, "a@b(c)": None, "empty": {}}
    with start(tracking, "d2", config=config):
        pass
    (run,) = of(client, "d2")
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert params["key249"] == "249"
    assert params["long"] == "x" * 499 + "…"
    assert params["k" * 250] == "1"
    assert params["a_at_b_c_"] == "None"
    assert params["empty"] == "{}"


def test_changed_params_of_a_resumed_trial_keep_the_old_value_and_are_tagged(tracking, client):
    with pytest.raises(ValueError), start(tracking, "d3", config={"device": "cpu", "same": 1}):
        raise ValueError
    with start(tracking, "d3", config={"device": "cuda", "same": 1, "new": 2}):
        pass
    (run,) = of(client, "d3")
    assert run.info.status == "FINISHED"
    assert [run.data.params[k] for k in ("device", "same", "new")] == ["cpu", "1", "2"]
    assert run.data.tags["rdx.params_changed"] == "device=cuda"


def test_curves_keep_every_step_in_order(tracking, client):
    values = [math.sin(i) for i in range(2_500)]  # more than two batches of MLflow's limit
    with start(tracking, "e1") as trial:
        for step, value in enumerate(values):
            trial.log_step("distill", step, {"loss": value, "lr": 1e-3})
    run_id = of(client, "e1")[0].info.run_id
    history = client.get_metric_history(run_id, "distill/loss")
    assert [(m.step, m.value) for m in history] == list(enumerate(values))
    assert len(client.get_metric_history(run_id, "distill/lr")) == 2_500


def test_steps_are_visible_while_the_trial_runs(tracking, client):
    with start(tracking, "e2") as trial:
        trial.log_step("prefinetune", 0, {"loss": 0.5})
        assert until(lambda: of(client, "e2") and of(client, "e2")[0].data.metrics) == {
            "prefinetune/loss": 0.5
        }


def test_not_a_number_is_recorded(tracking, client):
    with start(tracking, "e3") as trial:
        trial.log_step("distill", 0, {"loss": math.nan})
    (run,) = of(client, "e3")
    assert run.info.status == "FINISHED"
    assert math.isnan(run.data.metrics["distill/loss"])


def test_result(tracking, client, tmp_path):
    folder = tmp_path / "evaluate"
    (folder / "runs").mkdir(parents=True)
    frame = pd.DataFrame({"query_id": ["1"], "measure": ["nDCG@10"], "value": [0.25]})
    frame.to_parquet(folder / "per_query.parquet")
    (folder / "runs" / "dl19.student.run.gz").write_bytes(b"run")
    facts = {
        "signature": "f1",
        "collections": {"dl19": {"queries": 43, "digest": "0123456789abcdef" * 4}, "dl20": {}},
    }
    metrics = {"dl19/student/nDCG@10": 0.25, "dl19/student+first_stage/RR(rel=2)@10": 0.5}
    with start(tracking, "f1") as trial:
        trial.log_result(folder, facts, metrics)
        trial.set_health("ok")
    (run,) = of(client, "f1")
    assert run.info.status == "FINISHED"
    assert run.data.tags["rdx.health"] == "ok"
    assert run.data.metrics == {
        "nDCG_at_10/student/dl19": 0.25,
        "RR_rel_2__at_10/student_plus_first_stage/dl19": 0.5,
    }
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == (
        "dl19",
        "0123456789abcdef0123456789abcdef0123",
    )
    artifacts = Path(client.download_artifacts(run.info.run_id, ""))
    files = {str(p.relative_to(artifacts)) for p in artifacts.rglob("*") if p.is_file()}
    assert files - {"uncommitted.diff"} == {  # of a checkout with changes
        "config.yaml",
        "environment.json",
        "per_query.parquet",
        "runs/dl19.student.run.gz",
        "trial.json",
    }
    pd.testing.assert_frame_equal(pd.read_parquet(artifacts / "per_query.parquet"), frame)
    assert json.loads((artifacts / "trial.json").read_text()) == facts
    assert yaml.safe_load((artifacts / "config.yaml").read_text()) == CONFIG


def test_a_result_logged_again_after_a_failure_is_no_error(tracking, client, tmp_path):
    facts = {"collections": {"dl19": {"digest": "1"}}}
    with pytest.raises(ValueError), start(tracking, "f2") as trial:
        trial.log_result(tmp_path, facts, {"m": 1.0})
        raise ValueError
    with start(tracking, "f2") as trial:
        trial.log_result(tmp_path, facts, {"m": 2.0})
    (run,) = of(client, "f2")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"m": 2.0})
    assert len(run.inputs.dataset_inputs) == 1


def test_an_exception_ends_the_run_as_failed_and_the_next_trial_resumes_it(tracking, client):
    with pytest.raises(ZeroDivisionError), start(tracking, "g1") as trial:
        trial.set_health("nan")
        1 / 0  # noqa: B018
    (run,) = of(client, "g1")
    assert run.info.status == "FAILED"
    assert run.data.tags["rdx.error"] == "ZeroDivisionError: division by zero"
    with start(tracking, "g1", grid="later"):
        (again,) = until(lambda: [r for r in of(client, "g1") if r.info.status == "RUNNING"])
        assert again.info.run_id == run.info.run_id
        assert again.info.status == "RUNNING"
        assert not {"rdx.error", "rdx.health"} & again.data.tags.keys()
    (again,) = of(client, "g1")
    assert again.info.status == "FINISHED"
    assert again.data.tags["mlflow.parentRunId"] == parents(client, "later")[0].info.run_id


def test_a_long_error_is_cut(tracking, client):
    with pytest.raises(ValueError), start(tracking, "g2"):
        raise ValueError("x" * 20_000)
    assert len(of(client, "g2")[0].data.tags["rdx.error"]) == 500


def test_sigterm_ends_the_run_as_killed_and_the_handler_is_restored(tracking, client):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, start(tracking, "h1", grid="h"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("SIGTERM was not delivered")
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert of(client, "h1")[0].info.status == "KILLED"
    assert parents(client, "h")[0].info.status == "FINISHED"


def test_ctrl_c_ends_the_run_as_killed(tracking, client):
    with pytest.raises(KeyboardInterrupt), start(tracking, "h2"):
        raise KeyboardInterrupt
    assert of(client, "h2")[0].info.status == "KILLED"


def test_somebody_elses_sigterm_handler_is_left_alone(tracking):
    def theirs(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with start(tracking, "h3"):
            assert signal.getsignal(signal.SIGTERM) is theirs
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_trial_outside_the_main_thread(tracking, client):
    def work():
        with start(tracking, "h4"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert of(client, "h4")[0].info.status == "FINISHED"


def test_a_killed_process_is_closed_by_the_next_trial_and_resumed_by_its_own(tracking, client):
    code = f"""
import os, signal, time
from rdx.tracking import MLflow
tracking = {tracking!r}
with tracking.trial(signature="i1", levels={LEVELS!r}, config={CONFIG!r}, grid="i", seed=1) as t:
    t.log_step("distill", 0, {{"loss": 1.0}})
    while t._writer.box.pending():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (run,) = of(client, "i1")
    assert run.info.status == "RUNNING"

    with start(tracking, "i2", grid="i"):
        assert until(lambda: of(client, "i1")[0].info.status != "RUNNING")
        assert of(client, "i1")[0].info.status == "KILLED"
    with start(tracking, "i1", grid="i") as trial:
        trial.log_step("distill", 1, {"loss": 0.5})
    (again,) = of(client, "i1")
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    history = client.get_metric_history(run.info.run_id, "distill/loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.5)]
    assert again.data.params == run.data.params


def test_only_the_dead_are_closed(tracking, client):
    tracking._recording()
    from rdx.tracking import outbox

    def state():
        return of(client, "j1")[0].info.status

    def next_trial(signature):
        with start(tracking, signature):
            assert until(lambda: of(client, signature))  # it looks for the dead before that
        return state()

    with start(tracking, "j1"):
        (run,) = until(lambda: of(client, "j1"))
        assert next_trial("j2") == "RUNNING"
        client.set_tag(run.info.run_id, "rdx.started", "1.00")
        client.set_tag(run.info.run_id, "rdx.host", "elsewhere")
        assert next_trial("j3") == "RUNNING"  # it was seen of late
        client.set_tag(
            run.info.run_id, "rdx.alive", str(int(time.time() - outbox.SILENT_SECONDS - 10))
        )
        assert next_trial("j4") == "KILLED"
        client.update_run(run.info.run_id, status="RUNNING")
        # The same process id, but created at another time: a reused id.
        client.set_tag(run.info.run_id, "rdx.host", platform.node())
        assert next_trial("j5") == "KILLED"


def test_a_run_of_a_living_process_is_not_taken_over(tracking, client):
    with start(tracking, "j6"), start(tracking, "j6"):
        assert until(lambda: len(of(client, "j6")) == 2)


def test_system_metrics(tracking, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    with start(replace(tracking, system_metrics=True), "m1"):
        until(lambda: of(client, "m1") and of(client, "m1")[0].data.metrics)
    (run,) = of(client, "m1")
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert not [t for t in threading.enumerate() if t.name == "SystemMetricsMonitor"]


def test_tracking_none_imports_no_mlflow(tmp_path):
    code = """
import sys
from pathlib import Path
from rdx.tracking import NoTracking
tracking = NoTracking()
with tracking.trial(signature="n1", levels={}, config={}, grid="g", seed=1) as trial:
    trial.log_step("distill", 0, {"loss": 1.0})
    trial.log_result(Path("."), {}, {})
    trial.set_health("ok")
assert tracking.finished("n1")
print([m for m in ("mlflow", "torch", "transformers") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_environment():
    facts = environment()
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["mlflow"] == importlib.metadata.version("mlflow")
    assert facts["threads"] == psutil.cpu_count()
    assert facts["memory_bytes"] > 2**28
    assert facts["cpu"]
    json.dumps(facts)


def test_environment_of_a_checkout_without_git(monkeypatch):
    from rdx.tracking.environment import _git

    monkeypatch.setenv("PATH", "")
    assert _git() == {"commit": None, "dirty": None}


@pytest.mark.parametrize("settings", [NoTracking(), MLflow()])
def test_tracking_is_immutable(settings):
    with pytest.raises(AttributeError):
        settings.uri = "x"


# --- all finished trials at one look ---


def test_recorded_are_the_finished_trials_as_mlflow_finds_them(tracking, client):
    from rdx.tracking import runs as mlflow_runs

    with start(tracking, "f00d01", grid="looked-up"):
        pass
    with pytest.raises(RuntimeError), start(tracking, "f00d02"):
        raise RuntimeError("out of memory")
    with start(tracking, "f00d03"):
        assert "f00d03" not in tracking.recorded()  # it runs
    with start(tracking, "f00d04"):
        pass
    [deleted] = of(client, "f00d04")
    client.delete_run(deleted.info.run_id)
    found = tracking.recorded()
    assert found & {"f00d01", "f00d02", "f00d03", "f00d04"} == {"f00d01", "f00d03"}
    assert found == recorded_in_sqlite(tracking.uri, "rdx")
    assert found == mlflow_runs.recorded(tracking.uri, "rdx")
    assert recorded_in_sqlite(tracking.uri, "another") == set()
    assert mlflow_runs.recorded(tracking.uri, "another") == set()
    assert NoTracking().recorded() is None


def test_what_is_no_local_database_is_left_to_mlflow(tmp_path):
    (tmp_path / "other.db").write_text("no database")
    assert recorded_in_sqlite("http://127.0.0.1:9", "rdx") is None
    assert recorded_in_sqlite(f"sqlite:///{tmp_path}/other.db", "rdx") is None
    assert MLflow(uri=f"sqlite:///{tmp_path}/absent.db").recorded() == set()
    assert not (tmp_path / "absent.db").exists()


def test_a_plan_tells_a_stored_cell_without_a_record_apart(tracking, world, tmp_path):
    from rdx import config, plan
    from rdx.store import Store

    base = [one for one in world.overrides(tmp_path / "store") if one != "tracking=none"]
    overrides = [*base, f"tracking.uri={tracking.uri}"]
    [cell] = config.cells(overrides)

    def state():
        return plan.plan(overrides).cells[0].state

    assert state() == plan.TO_RUN
    Store(tmp_path / "store").cached("evaluate", cell.signature, lambda folder: None)
    assert state() == plan.UNRECORDED
    with start(tracking, cell.signature):
        pass
    assert state() == plan.FINISHED


# --- trials that only MLflow has ---


def test_fetched_are_the_files_of_the_newest_finished_trial(tracking, client, tmp_path):
    for value in (0.25, 0.5):
        (tmp_path / "per_query.parquet").write_bytes(b"%f" % value)
        with start(tracking, "ab01") as trial:
            trial.log_result(tmp_path, {"value": value}, {})
    with pytest.raises(ValueError), start(tracking, "ab02"):
        raise ValueError
    found = tracking.fetch({"ab01", "ab02", "ab03"}, tmp_path)
    assert set(found) == {"ab01"}
    newest = max(of(client, "ab01"), key=lambda run: run.info.end_time)
    assert found["ab01"].run_id == newest.info.run_id
    assert (found["ab01"].folder / "per_query.parquet").read_bytes() == b"0.500000"
    assert json.loads((found["ab01"].folder / "trial.json").read_text()) == {"value": 0.5}


def test_what_cannot_be_fetched(tracking, tmp_path):
    with pytest.raises(NoRecords):
        MLflow(uri=f"sqlite:///{tmp_path}/absent.db").fetch({"aa"}, tmp_path)
    with pytest.raises(NoRecords):
        replace(tracking, experiment="another").fetch({"aa"}, tmp_path)
    (tmp_path / "damaged.db").write_text("no database")
    with pytest.raises(RecordError):
        MLflow(uri=f"sqlite:///{tmp_path}/damaged.db").fetch({"aa"}, tmp_path)
    with start(tracking, "ab04"):
        pass  # without a result
    with pytest.raises(RecordError):
        tracking.fetch({"ab04"}, tmp_path)
    assert not list(tmp_path.glob("absent*"))


def test_a_report_goes_to_the_newest_grid_of_its_spec(tracking, client, tmp_path):
    (tmp_path / "report.html").write_text("page")
    assert tracking.log_report("paper", [tmp_path / "report.html"]) == ""
    for grid in ("paper-00000001", "paper-00000002", "paper-more-00000003"):
        tracking.log_grid(grid, [{"signature": "ac01"}])
    run_id = tracking.log_report("paper", [tmp_path / "report.html"])
    assert run_id == parents(client, "paper-00000002")[0].info.run_id
    path = client.download_artifacts(run_id, "analysis/report.html")
    assert Path(path).read_text() == "page"
