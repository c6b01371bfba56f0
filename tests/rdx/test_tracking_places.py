"""Where records land, what a deleted experiment costs, and what a grid is ranked by."""

import dataclasses
import logging
import os
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus

from rdx import config, sweeper
from rdx.config.paths import absolute
from rdx.doctor import places
from rdx.tracking import NoRecords, RecordError, Row
from rdx.tracking.log import Log
from rdx.tracking.places import database_file
from tests.rdx.tracked import NOTHING, Place, outcome, quick

DEFAULTS = {"_target_": "rdx.tracking.MLflow", "system_metrics": False, "wait": 60}
DEFAULTS |= {"uri": "sqlite:///mlflow.db", "artifacts": "mlartifacts"}


def place_in(folder, **more):
    """The record of somebody who stands in a folder and gives relative paths, or none."""
    tracking = absolute({"tracking": DEFAULTS | more}, folder)["tracking"]
    return Place(folder / "store", config.build(tracking, "tracking"))


def result_of(place, signature="aa"):
    """Record a trial with a file; the folder of the store that it was in."""
    result = place.store / "evaluate" / signature
    result.mkdir(parents=True)
    (result / "per_query.parquet").write_bytes(b"PAR1")
    (result / "trial.json").write_text("{}")
    with place.trial(signature) as trial:
        trial.log_result(result, outcome({"dl19/student/nDCG@10": 0.5}))


@pytest.mark.parametrize("name", ["plain", "release%2F2.1", "a b#1?x=%20&é~+"])
def test_records_land_in_the_folder_that_is_named(name, tmp_path, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    place = place_in(folder)
    result_of(place)
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlartifacts", "store"}
    assert database_file(place.settings.uri) == folder / "mlflow.db"
    run = place.run("aa")
    files = folder / "mlartifacts" / run.info.run_id / "artifacts"
    assert (files / "per_query.parquet").read_bytes() == b"PAR1"
    found = place.settings.fetch(["aa"], tmp_path / "scratch")["aa"]
    assert found.folder == files and found.run_id == run.info.run_id
    [finding] = places.tracking(dataclasses.asdict(place.settings))
    assert finding.state == "ok"


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        ("sqlite:///x.db", "sqlite:////ws/a%252Fb%23%3F/x.db"),
        ("sqlite:///x%20y.db", "sqlite:////ws/a%252Fb%23%3F/x%20y.db"),  # a part of an address
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_a_database_is_an_address_and_a_folder_is_none(value, whole):
    node = absolute({"tracking": DEFAULTS | {"uri": value}}, Path("/ws/a%2Fb#?"))["tracking"]
    assert node["uri"] == whole
    assert node["artifacts"] == "/ws/a%2Fb#?/mlartifacts"


def test_a_plain_folder_keeps_its_address():
    """What was recorded under it is found again."""
    node = absolute({"tracking": DEFAULTS}, Path("/home/me/my work"))["tracking"]
    assert node["uri"] == "sqlite:////home/me/my work/mlflow.db"


# --- deleted experiments ---


@pytest.fixture
def place(tmp_path, monkeypatch):
    quick(monkeypatch)
    return Place.of(tmp_path)


def number_of(place):
    return place.client.get_experiment_by_name(place.settings.experiment).experiment_id


@pytest.mark.slow
def test_a_deleted_experiment_is_restored_and_lacks_nothing(place, tmp_path, caplog):
    with place.trial("aa"):
        pass
    number = number_of(place)
    with place.trial("ab") as trial:  # it is deleted while a trial runs
        while trial._writer.mirror.pending():
            pass
        place.client.delete_experiment(number)
        trial.log_step("distill", 0, {"loss": 2.0})
    with caplog.at_level(logging.WARNING), place.trial("bb") as trial:
        trial.log_step("distill", 0, {"loss": 1.0})
    restore = f"mlflow experiments restore -x {number}"
    assert restore in caplog.text
    assert place.recorded() == {"aa"}
    assert place.sync() == NOTHING | {"kept": 2}
    with pytest.raises(NoRecords, match=restore):
        place.settings.fetch(["aa"], tmp_path)
    [finding] = places.tracking(dataclasses.asdict(place.settings))
    assert finding.state == "warning" and restore in finding.cure
    place.client.restore_experiment(number)
    assert place.sync() == NOTHING | {"delivered": 2}
    assert place.recorded() == {"aa", "ab", "bb"}
    assert place.curve(place.run("ab")) == [(0, 2.0)]
    assert place.curve(place.run("bb")) == [(0, 1.0)]
    [finding] = places.tracking(dataclasses.asdict(place.settings))
    assert finding.state == "ok"


def test_the_error_of_a_deleted_experiment_has_no_password():
    from rdx.tracking.places import deleted

    error = deleted("rdx", "7", "http://me:hunter2@host:5000")
    assert isinstance(error, RecordError)
    assert "hunter2" not in str(error) and "restore -x 7" in str(error)


# --- what a grid is ranked by ---


@pytest.mark.slow
def test_the_best_cell_is_the_best_by_the_declared_measure(place):
    high_rr = {"a/student/RR@10": 0.9, "a/student/nDCG@10": 0.5, "a/oracle/nDCG@10": 1.0}
    high_ndcg = {"a/student/RR@10": 0.8, "a/student/nDCG@10": 0.6, "a/oracle/nDCG@10": 0.7}
    # a tenth each, and a float above it: of equal cells the first is the best
    high_rr["a/student/P@10"], high_ndcg["a/student/P@10"] = 0.3 - 0.2, 0.1
    # the mean over corpora counts, not that over collections
    corpora = {"a/student/nDCG@10": 0.9, "b/student/nDCG@10": 0.9, "mean/student/nDCG@10": 0.55}
    rows = [
        Row(signature=s, overrides=f"x={s}", state="finished", health="ok", means=means)
        for s, means in (("a1", high_rr), ("a2", high_ndcg), ("a3", corpora), ("a4", {}))
    ]
    grid = "spec-12345678"
    for row in rows:
        with place.trial(row.signature, grid):
            pass
    for measure, best, scores in (
        ("P@1", [], []),
        ("P@10", ["a1"], [0.1, 0.1]),
        ("nDCG@10", ["a2"], [0.6, 0.55, 0.5]),
        ("RR@10", ["a1"], [0.9, 0.8]),
    ):
        place.log_grid(grid, rows, measure=measure)
        marked = place.search("tags.`rdx.best` = 'true'")
        assert [run.data.tags["rdx.signature"] for run in marked] == best
        [parent] = place.parents(grid)
        lines = parent.data.tags["mlflow.note.content"].splitlines()
        assert sum(f"| {measure} |" in line for line in lines) == 1
        shown = [line.split("|")[2].strip() for line in lines if line.startswith("| [")]
        assert shown == [f"{score:.4f}" for score in scores] + [""] * (4 - len(scores))


class Failing:
    """A launcher whose jobs all fail, in no time."""

    def launch(self, jobs, initial_job_idx):
        failed = JobReturn(status=JobStatus.FAILED)
        failed._return_value = RuntimeError("it was to fail")
        return [failed for _ in jobs]


def test_a_grid_is_ranked_by_its_first_declared_measure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["seed=1,2", "evaluation.measures=[nDCG@10,AP,RR@10]", "tracking.system_metrics=false"]
    with pytest.raises(SystemExit):
        sweeper.sweep(Failing(), words)
    [folder] = (tmp_path / "store" / "trials").glob("grid-*/")
    table = Log(tmp_path / "store", folder.name).entries[-1]
    assert table.measure == "nDCG@10" and len(table.rows) == 2
    assert os.listdir(tmp_path / "mlartifacts")
