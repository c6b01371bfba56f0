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
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from tracked import CONFIG, Place, killed, outcome, quick, until

from rdx.facts import dump
from rdx.tracking import MLflow, NoRecords, NoTracking, RecordError, Row, environment
from tests.rdx.configured import check_refused


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place.of(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(autouse=True)
def quickly(place, monkeypatch):
    place.settings._import("recorder")
    quick(monkeypatch)


# --- grids ---


@pytest.mark.slow
def test_the_parent_lists_all_cells_also_those_of_an_earlier_grid(place):
    for signature, grid in (("aa", "first"), ("bb", "second")):
        place.record(signature, grid)
    rows = [Row(signature=s, state="finished") for s in ("aa", "bb", "never")]
    place.log_grid("second", rows)
    place.log_grid("second", rows)  # again: the table is replaced, not doubled
    [parent] = place.parents("second")
    path = place.client.download_artifacts(parent.info.run_id, "cells.json")
    table = json.loads(Path(path).read_text())
    ids = [place.run(signature).info.run_id for signature in ("aa", "bb")]
    assert [row["run_id"] for row in table] == [*ids, None]
    assert [row["signature"] for row in table] == ["aa", "bb", "never"]


def test_a_grid_is_described_before_its_first_cell_runs(place):
    first, second = (Row(signature=s, overrides=f"seed={s}", state="to run") for s in ("1d", "2d"))
    grid = "spec-12345678"
    place.log_grid(grid, [first, second], "More is better.")
    [parent] = place.parents(grid)
    note = parent.data.tags["mlflow.note.content"]
    assert "**Claim.** More is better." in note and "| 1d |  | to run |  |" in note
    assert (parent.info.status, parent.data.tags["mlflow.source.name"]) == ("FINISHED", "rdx")
    place.record("1d", grid)
    means = {"dl19/student/nDCG@10": 0.5}
    done = Row(signature="1d", overrides="seed=1d", state="finished", health="ok", means=means)
    place.log_grid(grid, [done, second], "More is better.")
    [again] = place.parents(grid)
    assert again.info.run_id == parent.info.run_id
    note = again.data.tags["mlflow.note.content"]
    assert note.count("**Claim.**") == 1
    assert f"[1d](#/experiments/{again.info.experiment_id}/" in note
    assert "| 0.5000 | finished | ok |" in note
    assert place.run("1d").data.tags["rdx.best"] == "true"
    assert place.run("1d").info.run_name == "1d"


def test_a_grid_is_a_parent_with_one_child_per_trial(place):
    for signature in ("a1", "a2"):
        with place.trial(signature, "demo's grid"):
            assert until(lambda s=signature: place.runs(s))[0].info.status == "RUNNING"
            [parent] = place.parents("demos grid")
            assert parent.info.status == "FINISHED"  # a parent is never left RUNNING
    [parent] = place.parents("demos grid")
    children = [place.run(signature) for signature in ("a1", "a2")]
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    assert {c.info.status for c in children} == {"FINISHED"}
    assert parent.info.run_name == "demos grid"
    assert parent.info.end_time >= max(c.info.end_time for c in children)
    assert children[0].info.run_name == "ranknet bm25 seed=1"


def test_a_single_trial_has_no_parent(place):
    place.record("b1")
    assert "mlflow.parentRunId" not in place.run("b1").data.tags


# --- which are finished ---


def test_finished_are_the_trials_that_ended_well(place):
    assert not place.finished("c1")
    with place.trial("c1"):
        assert not place.finished("c1") and "c1" not in place.recorded()
    with pytest.raises(RuntimeError), place.trial("c3"):
        raise RuntimeError("out of memory")
    assert place.finished("c1") and not place.finished("c3")
    assert place.recorded() & {"c1", "c3"} == {"c1"}
    assert NoTracking().finished(place.store, "c3") and NoTracking().recorded(place.store) is None


def test_nothing_is_created_to_look_for_trials(place, tmp_path):
    other = place.but(uri=f"sqlite:///{tmp_path}/absent.db")
    assert other.recorded() == place.but(experiment="another").recorded() == set()
    assert not other.finished("nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_forced_second_trial_is_a_run_of_its_own(place):
    for _ in range(2):
        place.record("c2")
    assert len(place.runs("c2")) == 2


def test_a_plan_tells_a_stored_cell_without_a_record_apart(world, tmp_path):
    from rdx import plan, stages
    from rdx.store import Store

    own = Place.of(tmp_path)
    overrides = world.recorded(own.store, f"tracking.uri={own.settings.uri}")
    [cell] = stages.cells(overrides)

    def state():
        return plan.plan(overrides).cells[0].state

    assert state() == plan.TO_RUN
    Store(own.store).cached("evaluate", cell.signature, lambda folder: None)
    assert state() == plan.UNRECORDED
    own.record(cell.signature)
    assert state() == plan.FINISHED


# --- what is recorded ---


def test_params_are_levels_and_the_flattened_config(place):
    place.record("d1")
    assert place.run("d1").data.params == {
        "data": "pydocs",
        "sampler": "bm25",
        "loss": "ranknet",
        "loss._target_": "rdx.losses.RankNet",
        "seed": "1",
        "trainer.betas": "[0.9, 0.99]",
    }


def test_the_option_of_a_nested_group_is_the_param_of_its_key(place):
    lists, lora = {"_target_": "rdx.lists.Top"}, None
    config = {"depth": {"k": 5, "lists": lists}, "student": {"lora": lora}}
    levels = {"depth": "deep", "depth/lists": "top", "student/lora": "none"}
    place.record("d4", config=config, levels=levels)
    assert place.run("d4").data.params == {
        "depth": "deep",
        "depth.k": "5",
        "depth.lists": "top",
        "depth.lists._target_": "rdx.lists.Top",
        "student.lora": "none",
        "seed": "1",
    }


def test_long_many_and_odd_params_are_cut_and_renamed(place):
    config = {f"key{i}": i for i in range(250)}
    config |= {"long": "x" * 10_000, "k" * 400: 1, "a@b(c)": None, "empty": {}}
    place.record("d2", config=config)
    run = place.run("d2")
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert params["key249"] == "249"
    assert params["long"] == "x" * 499 + "…"
    assert params["k" * 250] == "1"
    assert params["a_at_b_c_"] == "None"
    assert params["empty"] == "{}"


def test_changed_params_of_a_resumed_trial_keep_the_old_value_and_are_tagged(place):
    with pytest.raises(ValueError), place.trial("d3", config={"device": "cpu", "same": 1}):
        raise ValueError
    place.record("d3", config={"device": "cuda", "same": 1, "new": 2})
    run = place.run("d3")
    assert run.info.status == "FINISHED"
    assert [run.data.params[k] for k in ("device", "same", "new")] == ["cpu", "1", "2"]
    assert run.data.tags["rdx.params_changed"] == "device=cuda"


def test_curves_keep_every_step_in_order(place):
    values = [math.sin(i) for i in range(2_500)]  # more than two batches of MLflow's limit
    with place.trial("e1") as trial:
        for step, value in enumerate(values):
            trial.log_step("distill", step, {"loss": value, "lr": 1e-3})
    assert place.curve(place.run("e1")) == list(enumerate(values))
    assert len(place.curve(place.run("e1"), "distill/lr")) == 2_500


def test_steps_are_visible_while_the_trial_runs(place):
    with place.trial("e2") as trial:
        trial.log_step("prefinetune", 0, {"loss": 0.5})
        shown = until(lambda: place.runs("e2") and place.run("e2").data.metrics)
        assert shown == {"prefinetune/loss": 0.5}


def test_not_a_number_is_recorded(place):
    with place.trial("e3") as trial:
        trial.log_step("distill", 0, {"loss": math.nan})
    run = place.run("e3")
    assert run.info.status == "FINISHED"
    assert math.isnan(run.data.metrics["distill/loss"])


def test_result(place):
    folder = place.store / "evaluate" / "f1"
    (folder / "runs").mkdir(parents=True)
    frame = pd.DataFrame({"query_id": ["1"], "measure": ["nDCG@10"], "value": [0.25]})
    frame.to_parquet(folder / "per_query.parquet")
    (folder / "runs" / "dl19.student.run.gz").write_bytes(b"run")
    means = {"dl19/student/nDCG@10": 0.25, "dl19/student+first_stage/RR(rel=2)@10": 0.5}
    facts = outcome(means, digest="0123456789abcdef" * 4)
    (folder / "trial.json").write_text(dump(facts))
    with place.trial("f1") as trial:
        trial.set_health("ok")
        trial.log_result(folder, facts)
    run = place.run("f1")
    assert run.info.status == "FINISHED"
    assert run.data.tags["rdx.health"] == "ok"
    assert run.data.metrics == {
        "nDCG_at_10/student/dl19": 0.25,
        "RR_rel_2__at_10/student_plus_first_stage/dl19": 0.5,
    }
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.name == "dl19"
    assert dataset.dataset.digest == "0123456789abcdef0123456789abcdef0123"
    assert json.loads(dataset.dataset.profile) == {"queries": 43, "k": 100}
    artifacts = Path(place.client.download_artifacts(run.info.run_id, ""))
    files = {str(p.relative_to(artifacts)) for p in artifacts.rglob("*") if p.is_file()}
    assert files - {"uncommitted.diff"} == {  # of a checkout with changes
        "config.yaml",
        "environment.json",
        "per_query.parquet",
        "runs/dl19.student.run.gz",
        "trial.json",
    }
    pd.testing.assert_frame_equal(pd.read_parquet(artifacts / "per_query.parquet"), frame)
    assert (artifacts / "trial.json").read_text() == dump(facts)
    assert yaml.safe_load((artifacts / "config.yaml").read_text()) == CONFIG


def test_a_result_logged_again_after_a_failure_is_no_error(place, tmp_path):
    with pytest.raises(ValueError), place.trial("f2") as trial:
        trial.log_result(tmp_path, outcome({"m": 1.0}))
        raise ValueError
    with place.trial("f2") as trial:
        trial.log_result(tmp_path, outcome({"m": 2.0}))
    run = place.run("f2")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"m": 2.0})
    assert len(run.inputs.dataset_inputs) == 1


def test_system_metrics(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    with place.but(system_metrics=True).trial("m1"):
        until(lambda: place.runs("m1") and place.run("m1").data.metrics)
    assert 0 <= place.run("m1").data.metrics["system/cpu_utilization_percentage"] <= 100
    assert not [t for t in threading.enumerate() if t.name == "SystemMetricsMonitor"]


# --- how trials end, and go on ---


def test_an_exception_ends_the_run_as_failed_and_the_next_trial_resumes_it(place):
    with pytest.raises(ZeroDivisionError), place.trial("g1") as trial:
        trial.set_health("nan")
        1 / 0  # noqa: B018
    run = place.run("g1")
    assert run.info.status == "FAILED"
    assert run.data.tags["rdx.error"] == "ZeroDivisionError: division by zero"
    with place.trial("g1", grid="later"):
        assert until(lambda: place.run("g1").info.status == "RUNNING")
        assert not {"rdx.error", "rdx.health"} & place.run("g1").data.tags.keys()
    again = place.run("g1")
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert again.data.tags["mlflow.parentRunId"] == place.parents("later")[0].info.run_id


def test_a_long_error_is_cut(place):
    with pytest.raises(ValueError), place.trial("g2"):
        raise ValueError("x" * 20_000)
    assert len(place.run("g2").data.tags["rdx.error"]) == 500


def test_sigterm_ends_the_run_as_killed_and_the_handler_is_restored(place):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, place.trial("h1", grid="h"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("SIGTERM was not delivered")
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert place.run("h1").info.status == "KILLED"
    assert place.parents("h")[0].info.status == "FINISHED"


def test_ctrl_c_ends_the_run_as_killed(place):
    with pytest.raises(KeyboardInterrupt), place.trial("h2"):
        raise KeyboardInterrupt
    assert place.run("h2").info.status == "KILLED"


def test_somebody_elses_sigterm_handler_is_left_alone(place):
    def theirs(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with place.trial("h3"):
            assert signal.getsignal(signal.SIGTERM) is theirs
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_trial_outside_the_main_thread(place):
    def work():
        place.record("h4")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert place.run("h4").info.status == "FINISHED"


@pytest.mark.slow
def test_a_killed_process_is_closed_by_the_next_trial_and_resumed_by_its_own(place):
    killed(place, "1a", "i")
    run = place.run("1a")
    assert run.info.status == "RUNNING"
    with place.trial("1b", grid="i"):
        assert until(lambda: place.run("1a").info.status == "KILLED")
    with place.trial("1a", grid="i", levels={}, config={"a": 1}) as trial:
        trial.log_step("distill", 1, {"loss": 0.5})
    again = place.run("1a")
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert place.curve(again) == [(0, 1.0), (1, 0.5)]
    assert again.data.params == run.data.params


def test_a_living_trial_is_not_closed(place):
    with place.trial("1c"):
        assert until(lambda: place.runs("1c"))
        with place.trial("1d"):
            assert until(lambda: place.runs("1d"))  # looks for the dead after that
        place.sync()
        assert place.run("1c").info.status == "RUNNING"
    assert place.run("1c").info.status == "FINISHED"


def test_of_two_at_once_one_records(place, capsys):
    """The second waits, and finds the trial finished."""
    begun, go = threading.Event(), threading.Event()

    def first():
        with place.trial("1e") as trial:
            begun.set()
            go.wait(60)
            trial.log_step("distill", 0, {"loss": 1.0})

    def second():
        with place.trial("1e") as trial:
            trial.log_step("distill", 0, {"loss": 2.0})

    threads = [threading.Thread(target=work) for work in (first, second)]
    threads[0].start()
    begun.wait(30)
    threads[1].start()
    assert until(lambda: "waiting for trials 1e" in capsys.readouterr().out)
    go.set()
    for thread in threads:
        thread.join(60)
    assert place.curve(place.run("1e")) == [(0, 1.0)]


# --- without MLflow; environment ---


def test_tracking_none_imports_no_mlflow():
    code = """
import sys
from pathlib import Path
from rdx.tracking import NoTracking
tracking, store = NoTracking(), Path("nowhere")
about = dict(levels={}, config={}, grid="g", seed=1)
with tracking.trial(store=store, signature="1a", **about) as trial:
    trial.log_step("distill", 0, {"loss": 1.0})
    trial.log_result(Path("."), {})
    trial.set_health("ok")
assert tracking.finished(store, "1a") and not store.exists()
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


@pytest.mark.parametrize("values", [{"uri": ""}, {"timeout": 0}, {"retries": -1}, {"wait": -1}])
def test_values_are_checked(values):
    check_refused("tracking", MLflow, told=f"{next(iter(values))}=", **values)


# --- trials that only MLflow has ---


def test_fetched_are_the_files_of_the_newest_finished_trial(place, tmp_path):
    for value in (0.25, 0.5):
        (tmp_path / "per_query.parquet").write_bytes(b"%f" % value)
        (tmp_path / "trial.json").write_text("{}")
        with place.trial("ab01") as trial:
            trial.log_result(tmp_path, outcome({}))
    with pytest.raises(ValueError), place.trial("ab02"):
        raise ValueError
    fetched = place.settings.fetch({"ab01", "ab02", "ab03"}, tmp_path)
    assert set(fetched) == {"ab01"}
    newest = max(place.runs("ab01"), key=lambda run: run.info.end_time)
    assert fetched["ab01"].run_id == newest.info.run_id
    assert (fetched["ab01"].folder / "per_query.parquet").read_bytes() == b"0.500000"
    assert (fetched["ab01"].folder / "trial.json").read_text() == "{}"


def test_what_cannot_be_fetched(place, tmp_path):
    with pytest.raises(NoRecords):
        MLflow(uri=f"sqlite:///{tmp_path}/absent.db").fetch({"aa"}, tmp_path)
    with pytest.raises(NoRecords):
        place.but(experiment="another").settings.fetch({"aa"}, tmp_path)
    (tmp_path / "damaged.db").write_text("no database")
    with pytest.raises(RecordError):
        MLflow(uri=f"sqlite:///{tmp_path}/damaged.db").fetch({"aa"}, tmp_path)
    with place.trial("ab04"):
        pass  # without a result
    with pytest.raises(RecordError):
        place.settings.fetch({"ab04"}, tmp_path)
    assert not list(tmp_path.glob("absent*"))


def test_a_report_goes_to_the_newest_grid_of_its_spec(place, tmp_path):
    (tmp_path / "report.html").write_text("page")
    assert place.settings.log_report("paper", [tmp_path / "report.html"]) == ""
    for grid in ("paper-00000001", "paper-00000002", "paper-more-00000003"):
        place.log_grid(grid, [Row(signature="ac01")])
    run_id = place.settings.log_report("paper", [tmp_path / "report.html"])
    assert run_id == place.parents("paper-00000002")[0].info.run_id
    path = place.client.download_artifacts(run_id, "analysis/report.html")
    assert Path(path).read_text() == "page"
