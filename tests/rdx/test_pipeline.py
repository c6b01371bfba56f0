"""Whole cells on a tiny collection: numbers, what is computed again, and killed processes."""

import gzip
import math
import random
import signal
import time
from functools import partial
from statistics import fmean, pstdev

import ir_measures
import numpy as np
import pandas as pd
import pytest
import torch

from rdx import rankings, stages
from rdx import store as stores
from rdx.artifacts import Candidates, Checkpoint, Evaluated, Selected, TeacherRanking
from rdx.data import split_of
from rdx.facts import TrialFacts
from rdx.job import DEV, Job
from rdx.store import damage

MEASURES = ("nDCG@10", "RR@10")
SYSTEMS = ("first_stage", "oracle", "student", "student+first_stage")
RESULTS = ("per_query.parquet", "model.safetensors", "head.safetensors", "teacher.parquet")


def folder_of(store, summary, stage):
    return store / stage / summary.facts.signatures[stage]


def computed(summary):
    return sorted(s.split("/")[0] for s, how in summary.stages.items() if how == "computed")


def trec_eval_order(path):
    """The passages of each query of a run by score, then doc id, both descending."""
    rows = [line.split() for line in gzip.open(path, "rt")]
    scores = {}
    for query_id, _, doc_id, _, score, _ in rows:
        scores.setdefault(query_id, []).append((float(score), doc_id))
    return {q: [doc_id for _, doc_id in sorted(scored)[::-1]] for q, scored in scores.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("one") / "store"


@pytest.fixture(scope="module")
def cell(world, store):
    """The facts of a cell that was run in an empty store."""
    return world.run(store)


# --- one cell ---


def test_a_cell_computes_every_stage(cell, store):
    signed = ["candidates", "distill", "evaluate", "prefinetune", "select", "teach"]
    # one index for training, dev and test queries; first stages of the dev and of the test queries
    assert computed(cell) == sorted(
        [*signed, "collection", "index", *["retrieve"] * 2, *["tokens"] * 2]
    )
    for stage in signed:
        assert damage(folder_of(store, cell, stage)) == ""
    assert not list(store.rglob("*.partial")) and not list(store.rglob("checkpoint*"))
    training = cell.facts.training
    assert (training.steps, training.pairs, training.lists) == (4, 40, 8)
    assert cell.facts.health == "ok"
    assert cell.facts.collections["files"].queries == 24


def test_the_teacher_ranks_the_top_candidates_of_sampled_training_queries(cell, store):
    ranking = Candidates(folder_of(store, cell, "candidates")).ranking
    sizes = ranking.groupby("query_id").size()
    assert len(sizes) == 8 and set(sizes) == {5}
    assert {split_of(query_id, 0.3) for query_id in sizes.index} == {"train"}
    taught = TeacherRanking(folder_of(store, cell, "teach")).ranking
    pairs = ["query_id", "doc_id"]
    assert sorted(taught[pairs].values.tolist()) == sorted(ranking[pairs].values.tolist())
    # every query's own passage is among its candidates, and the oracle puts it first
    best = taught[taught.teacher_rank == 1]
    assert list(best.doc_id.str[1:]) == list(best.query_id.str[1:])


def test_the_table_is_what_ir_measures_says_of_the_runs(cell, store, world):
    folder = folder_of(store, cell, "evaluate")
    table = rankings.read_parquet(folder / "per_query.parquet")
    assert list(table) == ["collection", "system", "query_id", "measure", "value"]
    assert set(table.collection) == {"files"} and tuple(table.system.unique()) == SYSTEMS
    qrels = list(ir_measures.read_trec_qrels(str(world.folder / "qrels.txt")))
    values = {(r.system, r.query_id, r.measure): r.value for r in table.itertuples()}
    assert len(values) == len(table) == len(SYSTEMS) * 24 * len(MEASURES)
    measures = [ir_measures.parse_measure(name) for name in MEASURES]
    for system in SYSTEMS:
        # in trec_eval's order without ties, which ir_measures' providers break each in its own way
        written = trec_eval_order(folder / "runs" / f"files.{system}.run.gz")
        lines = [ir_measures.ScoredDoc(query_id, doc_id, -float(place))
                 for query_id, doc_ids in written.items()
                 for place, doc_id in enumerate(doc_ids)]  # fmt: skip
        for expected in ir_measures.iter_calc(measures, qrels, lines):
            value = values.pop((system, expected.query_id, str(expected.measure)))
            assert value == pytest.approx(expected.value, abs=1e-12)
    assert not values
    for name, mean in cell.facts.means.items():
        _, system, measure = name.split("/")
        some = table[(table.system == system) & (table.measure == measure)]
        assert mean == pytest.approx(fmean(some.value))


@pytest.mark.parametrize("system", SYSTEMS)
def test_measures_worked_by_hand(cell, store, system):
    """Gains 2 and 1 at the ranks of the written run, over their ideal 2 + 1 / log2 3."""
    folder = folder_of(store, cell, "evaluate")
    written = trec_eval_order(folder / "runs" / f"files.{system}.run.gz")
    table = rankings.read_parquet(folder / "per_query.parquet")
    table = table[table.system == system]
    values = {(row.query_id, row.measure): row.value for row in table.itertuples()}
    for query_id, doc_ids in written.items():
        i = int(query_id[1:])
        grades = {f"d{i}": 2, f"d{(i + 7) % 30}": 1}
        places = {d: place for place, d in enumerate(doc_ids, 1) if d in grades}
        dcg = sum(grades[d] / math.log2(place + 1) for d, place in places.items())
        ndcg = dcg / (2 + 1 / math.log2(3))
        assert values[query_id, "nDCG@10"] == pytest.approx(ndcg, abs=1e-6)
        assert values[query_id, "RR@10"] == pytest.approx(1 / min(places.values()))


def test_every_system_ranks_the_candidates_of_the_first_stage(cell, store):
    runs = folder_of(store, cell, "evaluate") / "runs"
    endings = ("run.gz", "ir_metadata.yaml")
    written = {f"files.{system}.{ending}" for system in SYSTEMS for ending in endings}
    assert {path.name for path in runs.iterdir()} == written
    pairs = [
        set(zip(run.query_id, run.doc_id, strict=True))
        for run in (rankings.read_trec(runs / f"files.{s}.run.gz") for s in SYSTEMS)
    ]
    assert pairs[0] == pairs[1] == pairs[2] == pairs[3]
    means = cell.facts.means
    for measure in MEASURES:
        best = means[f"files/oracle/{measure}"]
        assert all(means[f"files/{system}/{measure}"] <= best + 1e-9 for system in SYSTEMS)


def test_the_interpolation_mixes_z_scores_with_the_weight_of_the_facts(cell, store):
    runs = folder_of(store, cell, "evaluate") / "runs"
    weight = cell.facts.collections["files"].weight
    scores = {}
    for system in ("student", "first_stage", "student+first_stage"):
        written = rankings.read_trec(runs / f"files.{system}.run.gz")
        for row in written.itertuples():
            per_query = scores.setdefault(row.query_id, {})
            per_query.setdefault(system, {})[row.doc_id] = float(row.score)

    def z(values):
        spread = pstdev(values.values()) or 1
        return {d: (value - fmean(values.values())) / spread for d, value in values.items()}

    for systems in scores.values():
        student, first = z(systems["student"]), z(systems["first_stage"])
        for doc_id, value in systems["student+first_stage"].items():
            mixed = weight * student[doc_id] + (1 - weight) * first[doc_id]
            assert value == pytest.approx(mixed, abs=1e-4)


def test_a_second_run_computes_nothing(cell, store, world):
    again = world.run(store)
    assert computed(again) == []
    assert again.facts == cell.facts


def test_scheduling_knobs_compute_nothing(cell, store, world):
    knobs = ("trainer.checkpoint_seconds=0", "trainer.max_tokens=64", "evaluation.max_tokens=64")
    assert computed(world.run(store, *knobs)) == []


def test_another_seed_shares_everything_before_the_distillation(cell, store, world):
    other = world.run(store, "seed=2")
    assert computed(other) == ["distill", "evaluate"]
    first, second = (folder_of(store, summary, "distill") for summary in (cell, other))
    name = "model.safetensors"
    assert (first / name).read_bytes() != (second / name).read_bytes()


def test_texts_are_tokenised_whole_where_it_is_trained_and_as_ranked_where_it_is_tested(
    cell, store, world
):
    from rdx import pipeline
    from rdx.job import TRAINING, source, test_role

    job, _, _ = dev_of(world, store, "evaluation.k=1")
    student = job.parts.student.load(folder_of(store, cell, "distill"))
    folder = pipeline.obtain(job, stages.COLLECTION, "training").folder
    place = source(job.parts, TRAINING)
    whole = place.data.load("all", folder)
    own = student.pairs.tokens(whole.queries, whole.passages)
    training = pipeline.obtain(job, stages.TOKENS, TRAINING).tokens(student.pairs.form)
    for made, stored in ((own.queries, training.queries), (own.passages, training.passages)):
        np.testing.assert_array_equal(made.ids, stored.ids)
        np.testing.assert_array_equal(made.truncated, stored.truncated)
    role = test_role("files")
    ranked = pipeline.obtain(job, stages.RETRIEVE, role).ranking
    tested = pipeline.obtain(job, stages.TOKENS, role).tokens(student.pairs.form)
    assert len(tested.passages) == ranked.doc_id.nunique() < len(training.passages)
    assert len(tested.queries) == ranked.query_id.nunique()
    rows = tested.rows(ranked.query_id, ranked.doc_id)
    same = training.rows(ranked.query_id, ranked.doc_id)
    inputs, parts = tested.assemble(rows)
    expected, parts_too = training.assemble(same)
    assert torch.equal(parts, parts_too)
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def dev_of(world, store, *more):
    """The dev queries of a cell, and what is retrieved for them."""
    from rdx import pipeline
    from rdx.job import source

    [cell] = stages.cells(world.overrides(store, *more))
    job = Job.of(cell)
    folder = pipeline.obtain(job, stages.COLLECTION, "training").folder
    place = source(job.parts, DEV)
    queries = place.judged(job.split(place, folder))
    return job, queries, pipeline.obtain(job, stages.RETRIEVE, DEV).ranking


def test_validation_re_ranks_the_dev_queries(cell, store, world):
    from rdx import evaluation as ev
    from rdx import pipeline

    validated = world.run(store, "trainer.validate_every=2")
    folder = folder_of(store, validated, "distill")
    training, plain = Checkpoint(folder).facts.training, cell.facts.training
    assert training.validation.kept_step == 4 and training.last_loss == plain.last_loss
    signatures = validated.facts.signatures
    assert signatures["prefinetune"] == cell.facts.signatures["prefinetune"]
    # the stored student, measured anew
    job, dev, first_stage = dev_of(world, store, "trainer.validate_every=2")
    student = job.parts.student.load(folder)
    tokens = pipeline.obtain(job, stages.TOKENS, "training").tokens(student.pairs.form)
    ranking, _ = ev.rerank(student, first_stage, tokens, job.parts.trainer, 4096)
    mean = ev.measured(ranking, dev.qrels, job.parts.evaluation.measures[:1]).value.mean()
    assert training.validation.kept == pytest.approx(mean)
    fewer = ("trainer.validate_every=2", "evaluation.dev_queries=1")
    assert dev_of(world, store, *fewer)[0].cell.keys["distill"] != signatures["distill"]
    # whatever the training candidates come from, the same first stage is re-ranked
    pd.testing.assert_frame_equal(dev_of(world, store, "sampler=random")[2], first_stage)
    moved = dev_of(world, store, "sampler@evaluation.dev_first_stage=random")[2]
    assert not moved.equals(first_stage)


def test_without_a_loss_the_student_of_stage_1_is_evaluated(cell, store, world):
    before = set((store / "distill").iterdir())
    control = world.run(store, "loss=none")
    assert computed(control) == ["evaluate"]
    assert set((store / "distill").iterdir()) == before
    assert control.facts.signature == world.run(store, "loss=none", "seed=2").facts.signature
    assert control.facts.means != cell.facts.means


def test_without_stage_1_the_student_starts_as_it_comes(cell, store, world):
    fresh = world.run(store, "prefinetune=none")
    assert computed(fresh) == ["distill", "evaluate", "prefinetune"]
    start = folder_of(store, fresh, "prefinetune") / "model.safetensors"
    from safetensors.numpy import load_file

    came, kept = load_file(world.folder / "bert" / "model.safetensors"), load_file(start)
    assert came.keys() == kept.keys() and all((came[k] == kept[k]).all() for k in came)


def test_a_recorded_teacher_teaches_what_was_recorded(cell, store, world, tmp_path):
    taught = TeacherRanking(folder_of(store, cell, "teach")).ranking
    ranked = rankings.rank(taught.query_id, taught.doc_id, -taught.teacher_rank)
    rankings.write_trec(ranked, tmp_path / "teacher.run", "oracle")
    teacher = ("teacher=recorded", f"teacher.run={tmp_path / 'teacher.run'}")
    recorded = world.run(store, *teacher)
    assert computed(recorded) == ["distill", "evaluate", "select", "teach"]
    first, second = (folder_of(store, summary, "distill") for summary in (cell, recorded))
    for name in ("model.safetensors", "head.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert recorded.facts.means == cell.facts.means


def test_another_scale_asks_the_teacher_nothing(store, world):
    scored = ("teacher=labels", "loss=mse")
    first = world.run(store, *scored)
    assert "teach" in computed(first)
    other = world.run(store, *scored, "teacher.scale=minmax")
    assert computed(other) == ["distill", "evaluate", "select"]
    tables = [Selected(folder_of(store, s, "select")).ranking for s in (first, other)]
    grades, shares = (table.teacher_score for table in tables)
    assert list(shares) == list(grades / 2)  # every query has a passage of grade 2
    assert set(shares) == {0.0, 1.0}


def test_a_teacher_that_can_ranks_a_sample_of_the_test_queries(cell, store, world, monkeypatch):
    from rdx.teachers import Oracle

    monkeypatch.setattr(Oracle, "ranks_unseen", True)
    asked = world.run(store, "evaluation.teacher_queries=5")
    assert computed(asked) == ["evaluate", "reference"]
    table = Evaluated(folder_of(store, asked, "evaluate")).per_query
    values = table.pivot_table("value", ["query_id", "measure"], "system")
    both = values[["teacher", "oracle"]].dropna()
    assert len(both) == 5 * len(MEASURES)
    assert both.teacher.tolist() == both.oracle.tolist()


def test_a_damaged_result_is_computed_again_to_the_same_bytes(cell, store, world):
    path = folder_of(store, cell, "distill") / "model.safetensors"
    weights = path.read_bytes()
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    table = folder_of(store, cell, "evaluate") / "per_query.parquet"
    values = table.read_bytes()
    table.unlink()
    with pytest.warns(UserWarning, match=r"model\.safetensors|per_query\.parquet") as warned:
        again = world.run(store)
    assert len(warned) == 2
    assert computed(again) == ["distill", "evaluate"]
    assert (path.read_bytes(), table.read_bytes()) == (weights, values)


def test_force_trains_and_evaluates_again_to_the_same_bytes(cell, store, world):
    paths = [folder_of(store, cell, "distill") / "model.safetensors",
             folder_of(store, cell, "evaluate") / "per_query.parquet"]  # fmt: skip
    before = [path.read_bytes() for path in paths]
    assert computed(world.run(store, "force=true")) == ["distill", "evaluate"]
    assert [path.read_bytes() for path in paths] == before


# --- grids, in processes of their own ---

GRID = ("loss=ranknet,adr_mse", "seed=1,2", "budget.epochs=2", "trainer.checkpoint_seconds=0")
WATCHED = (
    "import sys\nfrom rdx.__main__ import main\n"
    "try:\n    main()\nfinally:\n    print('MLFLOW', 'mlflow' in sys.modules)\n"
)


@pytest.fixture(scope="module")
def grid(world, rdx, tmp_path_factory):
    """A grid that nothing disturbed: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("grid")
    done = rdx(["-m", *world.overrides("store", *GRID)], folder, module=("-c", WATCHED), status=0)
    return folder, done.stdout.splitlines()


def results(folder):
    """The bytes of every result of a store."""
    paths = [p for p in (folder / "store").rglob("*") if p.name in RESULTS]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_grid_computes_shared_stages_once(grid):
    folder, printed = grid
    [line] = [line for line in printed if "Stages computed" in line]
    assert line == (
        "4 cells finished. Stages computed: 18 (candidates 1, collection 1, distill 4, evaluate 4, "
        "index 1, prefinetune 1, retrieve 2, select 1, teach 1, tokens 2); taken from the store: "
        "24 (collection 3, prefinetune 3, retrieve 6, select 3, teach 3, tokens 6)"
    )
    assert len([line for line in printed if line.startswith("== ")]) == 4
    counts = {p.name: len([q for q in p.iterdir() if q.is_dir()])
              for p in (folder / "store").iterdir()}  # fmt: skip
    names = ("candidates", "collection", "index", "teach", "select", "prefinetune")
    once = dict.fromkeys(names, 1)
    assert counts == {**once, "retrieve": 2, "tokens": 2, "distill": 4, "evaluate": 4, "grids": 0}
    [saved] = (folder / "multirun").rglob("multirun.yaml")
    assert "GridSweeper" in saved.read_text()


def test_without_tracking_mlflow_is_not_imported(grid):
    folder, printed = grid
    assert printed[-1] == "MLFLOW False"
    assert not list(folder.glob("ml*"))


def killed_when(happens, world, rdx, folder):
    """Start the grid and kill it when something happens; whether it was still running."""
    process = rdx(["-m", *world.overrides("store", *GRID)], folder, popen=True)
    try:
        while process.poll() is None and not happens(folder / "store"):
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
    return process.wait(30) == -signal.SIGKILL


def sealed_are_whole(folder):
    """No result that would be believed is half-written."""
    return [p.parent for p in (folder / "store").rglob("manifest.json")
            if p.parent.suffix != ".partial" and damage(p.parent)]  # fmt: skip


def finish(world, rdx, folder):
    done = rdx(["-m", *world.overrides("store", *GRID)], folder, status=0)
    assert "computing it again" not in done.stderr  # nothing had to be found damaged
    return results(folder)


def appears(pattern, count, store):
    try:
        return len(list(store.glob(pattern))) >= count
    except FileNotFoundError:  # a folder was renamed while we looked
        return False


def after(happens, seconds):
    """Some time after something happened."""
    times = []

    def later(store):
        if not times and happens(store):
            times.append(time.monotonic())
        return bool(times) and time.monotonic() >= times[0] + seconds

    return later


@pytest.mark.slow
def test_a_killed_grid_goes_on_to_the_same_bytes(grid, world, rdx, tmp_path):
    assert killed_when(partial(appears, "evaluate/*/manifest.json", 2), world, rdx, tmp_path)
    assert sealed_are_whole(tmp_path) == []
    expected = results(grid[0])
    assert len(expected) == 1 + 2 + 4 * 2 + 4
    assert finish(world, rdx, tmp_path) == expected


@pytest.mark.slow
def test_a_grid_killed_at_many_moments_gives_the_same_bytes(grid, world, rdx, tmp_path):
    expected, draw = results(grid[0]), random.Random(0)
    patterns = [
        "candidates/*.partial",
        "teach/*.partial/*",
        "prefinetune/*/*",  # usually a checkpoint of the first step
        "prefinetune/*.partial/checkpoint-unfinished",
        "prefinetune/*.partial/model.safetensors",
        "distill/*.partial/checkpoint-[0-9]*",
        "distill/*.partial/curve.json",
        "distill/*/manifest.json*",
        "evaluate/*.partial/runs",
        "evaluate/*.partial/per_query.parquet",
    ]
    for pattern in patterns:
        killed_when(partial(appears, pattern, 1), world, rdx, tmp_path)
        assert sealed_are_whole(tmp_path) == []
    for _ in range(6):
        # a step further each time: some milliseconds after one more result is there
        count = len(list((tmp_path / "store").glob("*/*/manifest.json"))) + 1  # nothing runs now
        later = after(partial(appears, "*/*/manifest.json", count), draw.random() / 5)
        killed_when(later, world, rdx, tmp_path)
        assert sealed_are_whole(tmp_path) == []
    assert finish(world, rdx, tmp_path) == expected


def test_the_facts_of_a_trial_are_read_back(cell, store):
    facts = stores.read(TrialFacts, folder_of(store, cell, "evaluate") / "trial.json")
    assert facts.health == "ok" and facts.training.steps == 4
    assert facts.collections["files"].first_stage["engine"] == "bm25s"
    # seconds differ: another test may have evaluated the cell again
    assert facts.timing["files"].queries == cell.facts.timing["files"].queries == 24
