"""A cell over its seeds in a real MLflow, and what a metric says of data set and model."""

import base64
import json
import math
import zlib
from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from tracked import CONFIG, LEVELS, Place, outcome, quick

from analysis.seeds import components
from analysis.significance import t_interval
from rdx import stages
from rdx.facts import dump
from rdx.tracking import Row
from rdx.tracking.log import Log

KEY = "nDCG_at_10/student/dl19"
# Three seeds by hand: mean .5, deviations -.1, 0, .1, SD sqrt(.02 / 2) = .1; the t quantile of two
# degrees of freedom at .975 is 4.302653, so that half of the interval is 4.302653 * .1 / sqrt(3).
SCORES = {1: 0.4, 2: 0.5, 3: 0.6}
HALF = 0.248414


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place.of(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(autouse=True)
def quickly(place, monkeypatch):
    place.settings._import("recorder")
    quick(monkeypatch)


def finish(place, cell, seed, score, grid="", health="ok", first=0.3, config=CONFIG):
    """A finished trial of a trained student."""
    folder = place.store / "evaluate" / f"{cell}{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    means = {"dl19/student/nDCG@10": score, "dl19/first_stage/nDCG@10": first}
    facts = replace(outcome(means, digest="5" * 64), signatures={"distill": "d1", "teach": "t1"})
    (folder / "trial.json").write_text(dump(facts))
    about = {"levels": LEVELS, "config": config | {"seed": seed}, "seed": seed, "cell": cell}
    with place.settings.trial(
        store=place.store, signature=f"{cell}{seed}", grid=grid, **about
    ) as trial:
        trial.set_health(health)
        trial.log_result(folder, facts)


def cells(place, cell):
    return place.search(f"tags.`rdx.kind` = 'cell' and tags.`rdx.cell` = '{cell}'")


def numbers(run):
    return [run.data.metrics[name] for name in (KEY, f"sd/{KEY}", f"low/{KEY}", f"high/{KEY}")]


def test_seeds_have_a_run_above_them_with_what_analysis_computes(place):
    finish(place, "ca", 1, SCORES[1], "grid-aaaaaaaa")
    assert cells(place, "ca") == []  # one seed is no spread
    finish(place, "ca", 3, SCORES[3], "grid-aaaaaaaa")
    assert cells(place, "ca")[0].data.metrics[KEY] == pytest.approx(0.5)
    finish(place, "ca", 2, SCORES[2], "grid-aaaaaaaa", health="constant_scores")
    [run] = cells(place, "ca")
    expected = [0.5, 0.1, 0.5 - HALF, 0.5 + HALF]
    assert numbers(run) == pytest.approx(expected, abs=1e-6)
    low, high = map(float, t_interval(list(SCORES.values())))
    sd = components([list(SCORES.values())]).seed_sd
    assert numbers(run) == pytest.approx([0.5, sd, low, high], abs=1e-12)
    assert set(run.data.metrics) == {KEY, f"sd/{KEY}", f"low/{KEY}", f"high/{KEY}"}
    tags = run.data.tags
    assert (tags["rdx.seeds"], tags["rdx.health"]) == ("1, 2, 3", "constant_scores (seed 2)")
    assert (tags["loss"], run.info.status) == ("ranknet", "FINISHED")
    assert "seed" not in run.data.params and run.data.params["loss"] == "ranknet"
    [grid] = place.parents("grid-aaaaaaaa")
    trials = [place.run(f"ca{seed}") for seed in SCORES]
    assert tags["mlflow.parentRunId"] == grid.info.run_id
    assert {t.data.tags["mlflow.parentRunId"] for t in trials} == {run.info.run_id}
    assert "| 0.5000 | 0.1000 | 0.2516 to 0.7484 |" in tags["mlflow.note.content"]


def test_a_grid_names_its_cells_from_the_start_and_shows_its_best_row(place):
    """Of two rows, one of them of two seeds, the higher mean is best: (.4 + .5) / 2 = .45 > .42."""
    grid = "grid-bbbbbbbb"
    scores = {("ranknet", 1): SCORES[1], ("ranknet", 2): SCORES[2], ("adr_mse", 1): 0.42}
    rows = [
        Row(
            signature=f"{'cb' if loss == 'ranknet' else 'cc'}{seed}",
            overrides=f"loss={loss} seed={seed} depth=deep",
            state="finished",
            health="ok",
            means={"dl19/student/nDCG@10": score},
        )
        for (loss, seed), score in scores.items()
    ]
    config = CONFIG | {"evaluation": {"measures": ["nDCG@10", "RR@10"]}}
    finish(place, "cc", 1, 0.42, config=config)  # alone, before the grid
    to_run = [replace(row, state="to run", health=None, means={}) for row in rows[:2]]
    place.log_grid(grid, [*to_run, rows[2]])
    for seed in (1, 2):
        finish(place, "cb", seed, SCORES[seed], grid, config=config)
        assert place.run(f"cb{seed}").info.run_name == f"ranknet seed={seed}"
    [over_seeds] = cells(place, "cb")
    assert over_seeds.info.run_name == "ranknet"
    score = "0_score/nDCG_at_10"
    assert place.run("cb2").data.metrics[score] == SCORES[2]
    assert over_seeds.data.metrics[score] == pytest.approx(0.45)
    assert "**nDCG@10 0.4500**" in over_seeds.data.tags["mlflow.note.content"]
    place.log_grid(grid, rows)
    [parent] = place.parents(grid)
    assert parent.data.metrics == {score: pytest.approx(0.45)}
    assert place.run("cb2").data.tags["rdx.best"] == "true"
    names = {run.data.tags["rdx.signature"]: run.data.tags[f"rdx.in.{grid}"] for run in (
        place.search(f"tags.`rdx.in.{grid}` != ''")
    )}  # fmt: skip
    assert names == {"cb1": "ranknet seed=1", "cb2": "ranknet seed=2", "cc1": "adr_mse seed=1"}
    best, ways, earlier = parent.data.tags["mlflow.note.content"].splitlines()[:3]
    assert "**nDCG@10 0.4500**" in best and over_seeds.info.run_id in best
    assert ways.count(f"viewStateShareKey={parent.info.run_id}") == 2
    assert place.run("cc1").info.run_id in earlier and "0.4200" in earlier
    assert "mlflow.parentRunId" not in place.run("cc1").data.tags
    view = view_of(place, parent)
    assert view["searchFilter"] == f"tags.`rdx.in.{grid}` != ''"
    assert view["orderByKey"] == f"metrics.`{score}`" and view["orderByAsc"] is False
    assert view["selectedColumns"] == [f"metrics.`{score}`", "params.`loss`", "params.`seed`"]
    there = place.but(experiment="a grid elsewhere")
    there.sync()
    [copy] = there.parents(grid)
    assert copy.data.metrics == parent.data.metrics
    assert there.run("cb1").info.run_name == "ranknet seed=1"
    assert len(there.search(f"tags.`rdx.in.{grid}` != ''")) == 3
    assert view_of(there, copy) == view
    assert there.sync() == {"delivered": 0, "kept": 0, "closed": 0}


def view_of(place, grid):
    """What MLflow's page reads of a saved view."""
    experiment = place.client.get_experiment(grid.info.experiment_id)
    saved = json.loads(experiment.tags[f"mlflow.sharedViewState.{grid.info.run_id}"])
    assert set(saved) == {"name", "createdAt", "state"}
    kind, _, packed = saved["state"].partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        (None, "custom_model_development"),
        ("no_inferred_type", "custom_model_development"),  # the page itself sets that
        ("genai_development", "genai_development"),
    ],
)
def test_an_experiment_is_model_training_unless_somebody_chose(place, kind, after):
    client, name = place.client, f"of {kind}"
    number = client.create_experiment(name)
    if kind:
        client.set_experiment_tag(number, "mlflow.experimentKind", kind)
    mirror = place.settings._import("mirror").Mirror(
        place.but(experiment=name).settings, Log(place.store, "none")
    )
    assert mirror.require_experiment() == number
    assert client.get_experiment(number).tags["mlflow.experimentKind"] == after


def test_a_seed_of_another_grid_counts_and_stays_there(place):
    for seed, grid in ((1, "grid-cccccccc"), (2, "grid-cccccccc"), (3, "grid-dddddddd")):
        finish(place, "cd", seed, SCORES[seed], grid)
    [run] = cells(place, "cd")
    [other] = place.parents("grid-dddddddd")
    assert run.data.tags["rdx.seeds"] == "1, 2, 3"
    assert place.run("cd3").data.tags["mlflow.parentRunId"] == other.info.run_id


def test_of_a_seed_that_ran_twice_the_newest_counts(place):
    for seed, score in ((1, 0.1), (2, 0.6), (1, 0.4)):
        finish(place, "ce", seed, score)
    [run] = cells(place, "ce")
    assert run.data.metrics[KEY] == pytest.approx(0.5)
    assert "mlflow.parentRunId" not in run.data.tags
    assert len(place.runs("ce1")) == 2


def test_another_mlflow_gets_the_seeds_from_the_store(place, tmp_path):
    here = Place(tmp_path, replace(place.settings, experiment="here"))
    for seed in (1, 2):
        finish(here, "cf", seed, SCORES[seed])
    before = numbers(cells(here, "cf")[0])
    there = here.but(experiment="there")
    assert there.sync()["kept"] == 0
    [run] = cells(there, "cf")
    assert numbers(run) == before == pytest.approx([0.45, 0.05 * math.sqrt(2), *before[2:]])
    assert there.sync()["delivered"] == 0  # the cell itself is no record that lacks


def test_a_score_names_its_data_set_and_its_model(place):
    finish(place, "cg", 1, 0.7, first=0.3)
    run = place.run("cg1")
    [output] = run.outputs.model_outputs
    model = place.client.get_logged_model(output.model_id)
    [metric] = model.metrics
    assert (metric.key, metric.value, metric.run_id) == (KEY, 0.7, run.info.run_id)
    [dataset] = [i.dataset for i in run.inputs.dataset_inputs if i.dataset.name == "dl19"]
    assert (metric.dataset_name, metric.dataset_digest) == (dataset.name, dataset.digest)
    assert model.tags["rdx.checkpoint"] == "distill/d1" and model.status == "READY"
    assert run.data.metrics["nDCG_at_10/first_stage/dl19"] == 0.3  # which is no student's
    place.settings._import("models").logged(
        place.client, run.info.experiment_id, run.info.run_id, {}
    )
    assert len(place.run("cg1").outputs.model_outputs) == 1  # again: nothing new


def test_a_server_without_models_takes_the_score_alone(place):
    class Older:
        def search_logged_models(self, *_, **__):
            raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    assert place.settings._import("models").logged(Older(), "0", "r", {}) is None


def test_the_seed_alone_does_not_tell_two_cells_apart(world, tmp_path):
    store = tmp_path / "store"

    def key(*more):
        [cell] = stages.cells(world.overrides(store, *more))
        return cell.signature, stages.over_seeds(cell)

    (first, a), (second, b), (third, c) = key("seed=1"), key("seed=2"), key("loss=adr_mse")
    assert a == b != c and len({first, second, third, a, c}) == 5
