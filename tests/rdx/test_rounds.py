"""Cells that begin from the student of another, and candidates that a student draws again."""

import hashlib
import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file

from rdx import config, pipeline, stages
from rdx import evaluation as ev
from rdx.artifacts import Candidates, Checkpoint, Evaluated, TeacherRanking
from rdx.config import ConfigError
from rdx.export import export
from rdx.job import TRAINING, Job, source
from rdx.plan import plans, why
from rdx.tracking.notes import params
from tests.records import collection

KD = ("teacher=oracle", "loss=ranknet")
CL = ("teacher=labels", "loss=lce", "prefinetune=none")
FROM_KD = "start=['teacher=oracle','loss=ranknet']"
WEIGHTS = ("model.safetensors", "head.safetensors")


def computed(summary):
    return Counter(s.split("/")[0] for s, how in summary.stages.items() if how == "computed")


def folder_of(store, summary, step):
    return store / step.split()[0] / summary.facts.signatures[step]


def weights(folder):
    return [(folder / name).read_bytes() for name in WEIGHTS]


def refused(world, store, *overrides):
    with pytest.raises(ConfigError) as error:
        world.run(store, *overrides)
    return str(error.value)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("rounds") / "store"


@pytest.fixture(scope="module")
def kd(world, store):
    """The first round: distilled."""
    return world.run(store, *KD, "prefinetune=none")


@pytest.fixture(scope="module")
def then_labels(world, store, kd):
    """The second: from there, on labels."""
    return world.run(store, *CL, "budget.epochs=5", f"start={kd.facts.signature[:12]}")


# --- start ---


def test_the_student_begins_as_the_other_cell_ended(store, kd, then_labels):
    begun = folder_of(store, then_labels, "prefinetune")
    assert weights(begun) == weights(folder_of(store, kd, "distill"))
    assert weights(begun) != weights(folder_of(store, then_labels, "distill"))
    assert then_labels.facts.signatures["distill of start"] == kd.facts.signatures["distill"]
    assert computed(then_labels).keys() == {"teach", "select", "prefinetune", "distill", "evaluate"}
    curve = Checkpoint(folder_of(store, then_labels, "distill")).curve
    assert np.mean(curve[-4:]) < np.mean(curve[:4])


def test_overrides_name_the_same_student_as_its_signature(world, store, kd, then_labels):
    [cell] = stages.cells(world.overrides(store, *CL, "budget.epochs=5", _longer(FROM_KD)))
    assert cell.signature == then_labels.facts.signature


def _longer(start):
    return start.replace("]", ",'budget.epochs=1']")


def test_one_command_makes_all_rounds_from_nothing(world, tmp_path, store, kd, then_labels):
    alone = world.run(tmp_path / "store", *CL, "budget.epochs=5", _longer(FROM_KD))
    assert alone.facts.signature == then_labels.facts.signature
    assert computed(alone)["distill"] == 2 and computed(alone)["evaluate"] == 1
    for step in ("distill of start", "distill"):
        made = folder_of(tmp_path / "store", alone, step)
        assert weights(made) == weights(folder_of(store, then_labels, step))
    assert alone.facts.means == then_labels.facts.means
    again = world.run(tmp_path / "store", *CL, "budget.epochs=5", _longer(FROM_KD), "force=true")
    assert computed(again) == {"distill": 1, "evaluate": 1}  # its own, and not those before


@pytest.mark.slow
def test_a_stage_1_begins_from_there_too(world, store, kd):
    cell = world.run(store, *KD, f"start={kd.facts.signature}")
    begun, trained = (folder_of(store, cell, s) for s in ("distill of start", "prefinetune"))
    plain = folder_of(store, world.run(store, *KD), "prefinetune")
    assert begun.name == kd.facts.signatures["distill"]
    assert len({tuple(weights(folder)) for folder in (begun, trained, plain)}) == 3


def test_the_lineage_is_told(world, store, kd, then_labels):
    [origin] = then_labels.facts.origins
    assert (origin.path, origin.given) == ("start", kd.facts.signature[:12])
    assert origin.checkpoint == kd.facts.signatures["distill"]
    kept = Evaluated(folder_of(store, then_labels, "evaluate")).config
    assert kept["origins"]["start"]["cell"]["loss"]["_target_"] == "rdx.losses.RankNet"
    told = params(kept, {"loss": "lce"}, 1)
    assert told["start"] == origin.given and told["start.checkpoint"] == origin.checkpoint
    assert not any(name.startswith("origins") for name in told)


def test_lineages_of_any_length(world, store):
    earlier = "start=['teacher=identity',\"start=['teacher=oracle']\"]"
    [cell] = stages.cells(world.overrides(store, *CL, earlier))
    teachers = {of: other["teacher"]["_target_"] for of, other in config.lineage(cell.cfg)}
    assert teachers == {
        "": "rdx.teachers.Labels",
        "start": "rdx.teachers.Identity",
        "start/start": "rdx.teachers.Oracle",
    }
    [other] = stages.cells(world.overrides(store, *CL, "teacher=oracle"))
    assert cell.keys["distill of start/start"] == other.keys["distill"]
    # the seed of a cell is that of its whole lineage, and what is given may be given otherwise
    assert {other["seed"] for _, other in config.lineage(cell.cfg)} == {1}
    assert cell.level("start") == earlier.partition("=")[2].replace('"start', "'start").replace(
        "['teacher=oracle']\"", "[\\'teacher=oracle\\']'"
    )


def test_an_option_of_a_group_replaces_what_was_given_for_the_group(world, store):
    lists = ("depth/lists=single_relevant", "depth.lists.margin=0", "depth.pool=8")
    [cell] = stages.cells(world.overrides(store, *CL, *lists, "start=['depth/lists=top']"))
    before = cell.cfg["origins"]["start"]["cell"]["depth"]
    assert before["lists"] == {"_target_": "rdx.lists.Top"} and before["pool"] == 8


def test_workers_elsewhere_find_the_same_cell(world, store):
    start = "start=['teacher=query_likelihood','teacher.query_length=8']"
    overrides = world.overrides(store, *CL, start)
    [cell] = stages.cells(overrides)
    assert any(pin.startswith("++start=[") for pin in cell.pinned)
    [again] = stages.cells([*overrides, *cell.pinned])
    assert again.signature == cell.signature and again.cfg["origins"]["start"]["cell"]


def test_a_grid_takes_starts_as_levels(world, store, kd):
    cells = stages.cells(
        world.overrides(store, *CL, f"start=null,{kd.facts.signature},['teacher=oracle']")
    )
    levels = config.varied(cells)["start"]
    assert levels == ("null", kd.facts.signature, "['teacher=oracle']")
    moved = world.overrides(store, *CL) + ["+zip=[{start:[null,['teacher=oracle']],seed:[1,2]}]"]
    assert [cell.level("start") for cell in stages.cells(moved)] == ["null", "['teacher=oracle']"]


def test_a_plan_knows_what_comes_before(world, store, tmp_path, then_labels):
    line = world.overrides(store, *CL, "budget.epochs=5", _longer(FROM_KD))
    [planned] = plans.plan(line).cells
    assert planned.state == "finished"  # stored, and tracking=none records nothing
    line = [o.replace(str(store), str(tmp_path / "new")) for o in line]
    [planned] = plans.plan(line).cells
    assert {"distill", "distill of start", "teach of start"} <= set(planned.computes)
    explained = {str(e.step): e.stored for e in why.explain(planned.cell)}
    assert explained["distill of start"] is False


# --- a folder ---


def test_a_folder_is_a_start(world, store, kd, tmp_path):
    folder = shutil.copytree(folder_of(store, kd, "distill"), tmp_path / "student")
    cell = world.run(store, "loss=none", "prefinetune=none", f"start={folder}")
    assert weights(folder_of(store, cell, "prefinetune")) == weights(folder)
    (folder / "README.md").write_text("how it came about decides nothing\n")
    overrides = world.overrides(store, "loss=none", "prefinetune=none", f"start={folder}")
    assert stages.cells(overrides)[0].signature == cell.facts.signature
    save_file({n: t + 1 for n, t in load_file(folder / WEIGHTS[1]).items()}, folder / WEIGHTS[1])
    assert stages.cells(overrides)[0].signature != cell.facts.signature


def test_a_student_exported_for_other_libraries_is_no_start(world, store, kd, tmp_path):
    folder = export(store, kd.facts.signature, tmp_path / "exported")
    assert "rdx.yaml" in refused(world, store, *CL, f"start={folder}")


@pytest.mark.slow
def test_an_exported_student_is_a_start(world, store, tmp_path):
    plain = ("loss=none", "prefinetune=none", "student.head=cls")
    first = world.run(store, *plain)
    folder = export(store, first.facts.signature, tmp_path / "exported")
    second = world.run(store, *plain, f"start={folder}")
    one, other = (
        load_file(folder_of(store, cell, "prefinetune") / "model.safetensors")
        for cell in (first, second)
    )
    assert one.keys() == other.keys() and all((one[n] == other[n]).all() for n in one)
    text = (folder / "README.md").read_text()
    assert "begins from" not in text
    again = export(store, second.facts.signature, tmp_path / "again")
    origin = second.facts.origins[0].checkpoint
    assert f"| begins from | the student `{origin}` |" in (again / "README.md").read_text()
    assert str(tmp_path) not in (again / "rdx.yaml").read_text()
    assert yaml.safe_load((again / "rdx.yaml").read_text())["config"]["origins"]["start"]


# --- what cannot be begun from ---


@pytest.mark.parametrize(
    ("override", "here", "by"),
    [
        ("student.head=mean", "interaction", "signature"),
        ("student.layers=1", "null", "signature"),
        ("student.attention=sparse", "full", "signature"),
        ("student.query_length=9", "8", "signature"),
        ("student.query_length=9", "8", "overrides"),
        ("student.passage_length=9", "16", "folder"),
    ],
)
def test_a_student_of_another_kind_is_refused(world, store, kd, override, here, by):
    key = override.partition("=")[0]
    start = {
        "signature": f"start={kd.facts.signature}",
        "folder": f"start={folder_of(store, kd, 'distill')}",
        "overrides": f"start=['{key}={here}']",
    }[by]
    before = sorted(store.rglob("*"))
    assert key in refused(world, store, *CL, override, start)
    assert sorted(store.rglob("*")) == before


def test_dropout_and_adapters_may_differ(world, store, kd):
    line = world.overrides(store, *CL, "student.dropout=0.2", f"start={kd.facts.signature}")
    assert stages.cells(line)


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ("start=ffffffffffffffff", "ffffffffffffffff"),
        ("start=no/such/folder", "no/such/folder"),
        ("start=true", "start=true"),
        ("start=[]", "start=[]"),
        ("start=['no_such_key=1']", "no_such_key"),
        ("start=['seed=1,2']", "several"),
        ("start=['teacher=identity','loss=margin_mse']", "MarginMSE"),
        ("origins={start:1}", "origins"),
    ],
)
def test_what_is_no_start(world, tmp_path, start, names):
    assert names in refused(world, tmp_path / "store", *CL, start)
    assert not (tmp_path / "store").exists()


def test_a_file_that_the_other_cell_lacks_is_named(world, tmp_path):
    start = "start=['teacher=recorded','teacher.run=no.run']"
    told = refused(world, tmp_path / "store", *CL, start)
    assert "start" in told and "no.run" in told


def test_a_start_that_would_be_another_today_is_refused(world, store, kd, tmp_path):
    copied = shutil.copytree(store, tmp_path / "store")
    facts = copied / "evaluate" / kd.facts.signature / "trial.json"
    told = json.loads(facts.read_text())
    told["signatures"]["distill"] = "0" * 16
    facts.write_text(json.dumps(told))
    assert "damaged" in refused(world, copied, *CL, f"start={kd.facts.signature}")
    resealed(facts)
    told = refused(world, copied, *CL, f"start={kd.facts.signature}")
    assert f"start={copied / 'distill' / ('0' * 16)}" in told


def resealed(path):
    """Make the manifest of a result tell the checksum that a file of it has now."""
    manifest = path.parent / "manifest.json"
    sealed = json.loads(manifest.read_text())
    sealed["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(sealed))


# --- candidates that a student draws again ---


REDRAWN = ("sampler=reranked", "sampler.pool=12", "depth.pool=6", "prefinetune=none", *KD)


@pytest.fixture(scope="module")
def second_round(world, store):
    """Begins from a first round, which also draws its candidates."""
    return world.run(store, *REDRAWN, "start=['sampler=bm25']")


def test_candidates_are_the_best_of_the_pool_by_the_student(world, store, second_round):
    ranking = Candidates(folder_of(store, second_round, "candidates")).ranking
    [cell] = stages.cells(world.overrides(store, *REDRAWN, "start=['sampler=bm25']"))
    job = Job.of(cell)
    place = source(job.parts, TRAINING)
    folder = pipeline.obtain(job, stages.COLLECTION, TRAINING).folder
    texts = place.data.load("train", folder)
    chosen = texts.subset(list(ranking.query_id.unique()))
    pool = place.sampler.candidates(chosen, 12)
    before = second_round.facts.signatures["distill of sampler.student"]
    assert before == second_round.facts.signatures["distill of start"]
    student = job.parts.student.load(store / "distill" / before).eval()
    for query_id, rows in pool.groupby("query_id"):
        pairs = [(texts.queries[query_id], texts.passages[d]) for d in rows.doc_id]
        scores = student(*student.pairs.batch(pairs)).tolist()
        expected = sorted(zip(scores, rows.doc_id, strict=True), reverse=True)[:6]
        drawn = ranking[ranking.query_id == query_id]
        assert list(drawn.doc_id) == [doc_id for _, doc_id in expected]
        np.testing.assert_allclose(drawn.score, [score for score, _ in expected], atol=1e-5)
    taught = TeacherRanking(folder_of(store, second_round, "teach")).ranking
    assert len(taught) == len(ranking)


def test_a_third_round_is_the_second_after_the_second(world, store, second_round):
    third = "start=[\"start=['sampler=bm25']\"]"
    [cell] = stages.cells(world.overrides(store, *REDRAWN, third))
    assert cell.keys["distill of start"] == second_round.facts.signatures["distill"]
    assert cell.keys["distill of sampler.student"] == cell.keys["distill of start"]
    assert cell.keys["candidates of start"] == second_round.facts.signatures["candidates"]
    assert cell.keys["candidates"] != cell.keys["candidates of start"]


@pytest.mark.slow
def test_rounds_are_the_same_on_workers(world, store):
    third = "start=[\"start=['sampler=bm25','teacher=query_likelihood']\"]"
    overrides = world.overrides(store, *REDRAWN, third)
    [cell] = stages.cells(overrides)
    [again] = stages.cells([*overrides, *cell.pinned])
    assert cell.pinned and again.signature == cell.signature


def test_a_cell_cannot_come_before_itself(world, store, tmp_path, monkeypatch):
    (tmp_path / "conf" / "sampler").mkdir(parents=True)
    own = "defaults: [{/sampler@first: bm25}]\n_target_: rdx.samplers.Reranked\nstudent: [seed=2]\n"
    (tmp_path / "conf" / "sampler" / "endless.yaml").write_text(own)
    monkeypatch.chdir(tmp_path)
    assert "itself" in refused(world, store, *KD, "prefinetune=none", "sampler=endless")


def test_a_fresh_student_may_learn_from_redrawn_candidates(world, store, second_round):
    [cell] = stages.cells(world.overrides(store, *REDRAWN, "sampler.student=['sampler=bm25']"))
    assert cell.keys["candidates"] == second_round.facts.signatures["candidates"]
    assert cell.keys["teach"] == second_round.facts.signatures["teach"]
    assert cell.keys["prefinetune"] != second_round.facts.signatures["prefinetune"]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["start=['sampler=bm25']", "sampler.pool=5"], "sampler.pool"),
        ([], "sampler.student"),
        (["start=['loss=lce']"], "sampler.student"),  # where nothing draws the candidates
    ],
)
def test_redrawn_candidates_need_a_student_and_a_pool(world, store, overrides, key):
    assert key in refused(world, store, *REDRAWN, *overrides)


def test_only_training_candidates_are_redrawn(world, store):
    place = "evaluation.collections.files.first_stage"
    line = [o for o in world.overrides(store, *CL) if place not in o]
    with pytest.raises(ConfigError, match="first_stage"):
        config.check(stages.cells([*line, f"sampler@{place}=reranked"])[0])


# --- selection on what is evaluated ---


def test_the_best_weights_are_those_that_evaluate_best(world, tmp_path):
    store = tmp_path / "store"
    shared = (*KD, "prefinetune=none", "trainer.schedule=constant", "trainer.warmup=0")
    shared += ("trainer.learning_rate=0.01", "evaluation.interpolate=false")
    every = [world.run(store, *shared, f"budget.epochs={n}") for n in (1, 2, 3)]
    scores = [cell.facts.means["files/student/nDCG@10"] for cell in every]
    selecting = ("trainer.validate_every=4", "trainer.select=best", "trainer.validate_on=files")
    cell = world.run(store, *shared, "budget.epochs=3", *selecting)
    best = int(np.argmax(scores))
    validation = cell.facts.training.validation
    assert validation.kept_step == 4 * (best + 1) and len(set(scores)) > 1
    assert validation.kept == pytest.approx(scores[best], abs=1e-12)
    kept, expected = (folder_of(store, c, "distill") for c in (cell, every[best]))
    assert weights(kept) == weights(expected)
    assert cell.facts.collections["files"].selected_on
    assert cell.facts.over_collections.collections.left_out.keys() == {"files"}
    assert not every[0].facts.collections["files"].selected_on
    # what begins from it was selected on it, too
    after = world.run(store, "loss=none", "prefinetune=none", f"start={cell.facts.signature}")
    assert after.facts.collections["files"].selected_on


def test_means_leave_out_what_weights_were_selected_on():
    rows = [
        ("a", "student", "1", "RR", 0.2), ("b", "student", "1", "RR", 0.6),
        ("c", "student", "1", "RR", 0.4),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["collection", "system", "query_id", "measure", "value"])
    facts = {name: collection(selected_on=name == "b") for name in "abc"}
    means = ev.over_collections(table, facts).collections
    assert means.corpora == ("a", "c") and means.left_out.keys() == {"b"}
    assert means.arithmetic["student/RR"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["trainer.validate_on=files"], "trainer.validate_every"),
        (["trainer.validate_on=other", "trainer.validate_every=1"], "trainer.validate_on"),
        (["trainer.validate_on=[]", "trainer.validate_every=1"], "trainer.validate_on"),
    ],
)
def test_bad_validations_name_their_key(world, store, overrides, key):
    assert key in refused(world, store, *KD, *overrides)


def test_no_dev_queries_are_needed_where_collections_validate(world, store):
    line = world.overrides(
        store, *KD, "data.dev=0", "evaluation.interpolate=false", "trainer.validate_every=2"
    )
    with pytest.raises(ConfigError, match=r"data\.dev"):
        config.check(stages.cells(line)[0])
    [cell] = stages.cells([*line, "trainer.validate_on=files"])
    config.check(cell)
    assert "retrieve dev" not in cell.keys
