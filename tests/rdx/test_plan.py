"""The plan of a grid: cells, shared stages, time, disk, cost and power, worked by hand."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pandas as pd
import pytest

from rdx import config, plan
from rdx import store as stores
from rdx.artifacts import Evaluated
from rdx.devices import device
from rdx.facts import Device, Manifest, Outline, Pace
from rdx.job import Parts
from rdx.plan import command, why
from rdx.plan.history import work
from rdx.power import Assumption, Design
from rdx.stages import Signatures, Step, cells, steps
from rdx.store import MANIFEST, Store, signature
from rdx.text import duration
from tests import records
from tests.rdx import tiny
from tests.rdx.configured import edited

# Seconds per stage: 8 queries x 5 candidates are 40 passages to rank and 40 pairs to distil.
TOOK = {"candidates": 2.0, "teach": 8.0, "prefinetune": 6.0, "distill": 10.0, "evaluate": 4.0}
FREE = ("collection", "index", "retrieve", "tokens", "select")  # took no time
OTHER = Device("NVIDIA H200", True)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def five_bytes(folder):
    (folder / "file").write_bytes(b"12345")


def write(folder, stage, key, seconds, fill=five_bytes, signed=None, **record):
    """A result of the real store, with the seconds that the test wants; of this CPU by default."""
    stored = Store(folder).cached(stage, key, fill, signed=signed)
    manifest = stores.read(Manifest, stored / MANIFEST)
    record = {"seconds": seconds, "device": device("cpu"), **record}
    stores.write(stored / MANIFEST, replace(manifest, **record))
    return stored


def finish(overrides, took=TOOK, values=None, paces=(), **record):
    """Store a cell as if it had been run, in so many seconds; returns it.

    `paces` are those of stages by name; `record` is more of all manifests.
    """
    [cell] = cells(overrides)
    values = values or {"q1": 0.5, "q2": 0.25}

    def evaluated(folder):
        collections = {"files": records.collection(queries=24)}
        facts = records.trial(cell.signature, 1, collections, signatures=cell.keys)
        table = pd.DataFrame({"query_id": list(values), "value": list(values.values())})
        table = table.assign(collection="files", system="student", measure="nDCG@10")
        Evaluated.write(folder, facts, table, json.loads(json.dumps(cell.cfg, default=str)))

    signatures = Signatures(Parts(cell.cfg))
    for step in steps(signatures.parts):
        fill = {"fill": evaluated} if step.stage == "evaluate" else {}
        seconds = took.get(step.stage, 0.0)
        pace = dict(paces).get(step.stage)
        more = {"signed": signatures.signed(step), **fill, "pace": pace, **record}
        write(Path(cell.cfg["store"]), step.stage, cell.keys[str(step)], seconds, **more)
    return cell


def counts(planned):
    planned_stages = (s for s in planned.stages if s.stage not in FREE)
    return {s.stage: (s.distinct, s.stored, s.compute) for s in planned_stages}


def computes(planned):
    return [tuple(s for s in cell.computes if s not in FREE) for cell in planned.cells]


def span(planned, stage):
    [seconds] = [s.seconds for s in planned.stages if s.stage == stage]
    return (seconds.value, seconds.low, seconds.high, seconds.observed)


def basis(planned, stage):
    """How the one kind of results that a stage is to make is estimated, and from how many."""
    [[only]] = [s.bases for s in planned.stages if s.stage == stage]
    return (only.source.how, only.source.results)


# --- cells and shared stages ---


def test_what_cells_share_is_computed_once_by_the_first(world, store):
    planned = plan.plan(world.overrides(store, "loss=ranknet,adr_mse", "seed=1,2"))
    assert counts(planned) == {
        "candidates": (1, 0, 1), "teach": (1, 0, 1), "prefinetune": (1, 0, 1),
        "distill": (4, 0, 4), "reference": (0, 0, 0), "evaluate": (4, 0, 4),
    }  # fmt: skip
    whole = ("candidates", "teach", "prefinetune", "distill", "evaluate")
    assert computes(planned) == [whole, *[("distill", "evaluate")] * 3]
    assert {cell.state for cell in planned.cells} == {plan.TO_RUN}
    assert not store.exists()


def test_an_undistilled_student_needs_stage_1_only(world, store):
    planned = plan.plan(world.overrides(store, "loss=none,ranknet"))
    assert computes(planned) == [
        ("prefinetune", "evaluate"), ("candidates", "teach", "distill", "evaluate")
    ]  # fmt: skip
    assert counts(planned)["distill"] == (1, 0, 1)
    assert counts(planned)["prefinetune"] == (1, 0, 1)


def test_equal_cells_count_once(world, store):
    planned = plan.plan(world.overrides(store, "trainer.max_tokens=64,128"))
    assert (len(planned.cells), planned.repeated) == (1, 1)


def test_a_stored_distillation_needs_nothing_before_it(world, store):
    [cell] = cells(world.overrides(store))
    write(store, "distill", cell.keys["distill"], 1.0)
    planned = plan.plan(world.overrides(store))
    assert computes(planned) == [("evaluate",)]
    assert counts(planned)["teach"] == (1, 0, 0) and counts(planned)["distill"] == (1, 1, 0)


def test_a_result_without_a_file_is_not_there(world, store):
    [cell] = cells(world.overrides(store))
    folder = write(store, "distill", cell.keys["distill"], 1.0)
    (folder / "file").unlink()
    assert counts(plan.plan(world.overrides(store)))["distill"] == (1, 0, 1)
    (folder / "file").write_bytes(b"")
    (folder / MANIFEST).write_text("{")
    assert counts(plan.plan(world.overrides(store)))["distill"] == (1, 0, 1)


def test_impossible_and_excluded_cells_are_left_out_with_reasons(world, store):
    more = ("loss=ranknet,margin_mse", "seed=1,2", "+exclude=[{loss: ranknet, seed: 2}]")
    planned = plan.plan(world.overrides(store, *more))
    assert len(planned.cells) == 1
    reasons = [why for _, why in planned.left_out]
    assert reasons[0] == "excluded by loss=ranknet, seed=2"
    assert ["MarginMSE" in why for why in reasons] == [False, True, True]
    assert f"{' '.join(planned.left_out[0][0].overrides)}: {reasons[0]}" in plan.text(planned)


def test_a_bad_value_of_a_cell_to_run_is_refused(world, store):
    with pytest.raises(config.ConfigError, match=r"loss\.temperature=0: "):
        plan.plan(world.overrides(store, "loss.temperature=1,0"))


def test_a_real_cell_is_finished_and_nothing_is_written(world, store):
    from rdx import pipeline

    overrides = world.overrides(store)
    [cell] = cells(overrides)
    pipeline.run(cell)
    before = {p: p.stat().st_mtime_ns for p in store.parent.rglob("*")}
    planned = plan.plan([*overrides, "seed=1,2"])
    assert [row.state for row in planned.cells] == [plan.FINISHED, plan.TO_RUN]
    assert computes(planned)[1] == ("distill", "evaluate")
    own = {
        stage: stores.read(Manifest, store / stage / cell.keys[stage] / MANIFEST).seconds
        for stage in ("distill", "evaluate")
    }
    assert span(planned, "distill") == pytest.approx((*[own["distill"]] * 3, 1))
    made = stores.read(Manifest, store / "distill" / cell.keys["distill"] / MANIFEST)
    assert made.device == device("cpu") and not made.resumed
    assert made.pace.share == (4 - 1) / 4 and 0 < made.pace.seconds < made.seconds
    assert planned.seconds.value == pytest.approx(sum(own.values()))
    [power] = command.power(planned, None, None, ())[0]
    assert power["design"]["queries"] == 24
    assert {p: p.stat().st_mtime_ns for p in store.parent.rglob("*")} == before


# --- time and disk ---


def test_the_start_is_not_multiplied(world, store):
    """40 pairs in 50 s: three quarters of the steps in 30 s, so that the start takes 10."""
    paced = {"took": {**TOOK, "teach": 80.0, "distill": 50.0}, "paces": {"distill": Pace(0.75, 30)}}
    finish(world.overrides(store), **paced)
    planned = plan.plan(world.overrides(store, "seed=1,2", "budget.epochs=1,2"))
    # three distillations: 40, 80 and 80 pairs; three evaluations
    assert span(planned, "distill") == (50 + 2 * (10 + 80), 230, 230, 1)
    assert span(planned, "evaluate") == (12.0, 12.0, 12.0, 1)
    assert planned.seconds.value == 242.0
    assert (planned.one_more.value, planned.one_more.observed) == ((54 + 94) / 2, 1)
    # a list twice as deep: twice the passages for the teacher, twice the pairs, the same search;
    # how long the teacher's start took, nothing tells: a minute is long enough to be most of it
    planned = plan.plan(world.overrides(store, "depth.k=10"))
    assert span(planned, "candidates")[0] == 2 and span(planned, "teach")[0] == 160
    assert span(planned, "distill")[0] == 90 and span(planned, "prefinetune") == (0, 0, 0, 0)
    assert basis(planned, "candidates") == (plan.How.EQUAL, 1)
    assert basis(planned, "teach") == basis(planned, "distill") == (plan.How.PACE, 1)


def test_two_steps_tell_nothing_of_many(world, store):
    """Two steps of ten pairs took 12 s, nearly all of it to begin: not 6.9 days for 100,000."""
    plain = [o for o in world.overrides(store) if o != "budget.epochs=1"]
    steps = [*plain, "budget=steps"]
    finish([*steps, "budget.steps=2"], {**TOOK, "distill": 12.0}, paces={"distill": Pace(0.5, 0.9)})
    planned = plan.plan([*steps, "budget.steps=100000"])
    assert span(planned, "distill") == (0, 0, 0, 0) and planned.seconds.value == 4
    assert basis(planned, "distill") == (plan.How.SHORT, 1)
    assert [s.stage for s in planned.stages if s.unknown] == ["distill"]
    # equal work takes as long again, however short it is
    planned = plan.plan([*steps, "budget.steps=2", "seed=2"])
    assert span(planned, "distill") == (12, 12, 12, 1)


@pytest.mark.parametrize(("whole", "paced"), [(59.9, None), (500.0, Pace(0.5, 9.9))])
def test_what_is_too_short_is_not_extrapolated(world, store, whole, paced):
    took = {**TOOK, "distill": whole}
    finish(world.overrides(store), took, paces={"distill": paced})
    planned = plan.plan(world.overrides(store, "budget.epochs=2"))
    assert basis(planned, "distill") == (plan.How.SHORT, 1)


def test_the_median_of_comparable_results_with_least_and_most(world, store):
    for seed, seconds in ((1, 75.0), (2, 61.0), (3, 100.0)):
        finish(world.overrides(store, f"seed={seed}"), {**TOOK, "distill": seconds})
    # cells of the same store that are not of this plan count as well
    planned = plan.plan(world.overrides(store, "seed=4"))
    assert span(planned, "distill") == (75, 61, 100, 3)
    planned = plan.plan(world.overrides(store, "seed=4", "budget.epochs=2"))
    assert span(planned, "distill") == (150.0, 122.0, 200.0, 3)
    assert "150 s" not in plan.text(planned) and "2 min (2 min to 3 min)" in plan.text(planned)


def test_another_device_tells_nothing(world, store):
    """Its results change no estimate, and are named where there is no other."""
    paced = {"took": {**TOOK, "distill": 5.0}, "paces": {"distill": Pace(0.5, 100)}}
    finish(world.overrides(store, "seed=1"), **paced, device=OTHER)
    planned = plan.plan(world.overrides(store, "seed=2", "budget.epochs=2"))
    assert planned.seconds.value == 0 and basis(planned, "distill") == (plan.How.ELSEWHERE, 1)
    [source] = [b.source for s in planned.stages for b in s.bases if s.stage == "distill"]
    assert source.elsewhere == ("NVIDIA H200",) and source.device == f"{device('cpu')}, fp32"
    for seed in (3, 4):
        finish(world.overrides(store, f"seed={seed}"), {**TOOK, "distill": 60.0 + seed})
    alone = plan.plan(world.overrides(store, "seed=2", "budget.epochs=1,2"))
    assert span(alone, "distill") == (63.5 + 127, 63 + 126, 64 + 128, 2)
    finish(world.overrides(store, "seed=5"), **paced, device=OTHER)
    finish(world.overrides(store, "seed=6"), **paced, device=replace(device("cpu"), count=99))
    again = plan.plan(world.overrides(store, "seed=2", "budget.epochs=1,2"))
    assert again.stages == alone.stages


def test_a_named_device_takes_the_place_of_this_one(world, store):
    more = {"paces": {"distill": Pace(0.5, 100)}, "took": {**TOOK, "distill": 210.0}}
    finish(world.overrides(store, "trainer.device=auto"), **more, device=OTHER)
    overrides = world.overrides(store, "trainer.device=auto", "seed=2", "budget.epochs=2")
    planned = plan.plan(overrides, "NVIDIA H200")
    assert span(planned, "distill") == (10 + 400, 410, 410, 1)
    assert span(planned, "evaluate") == (4, 4, 4, 1)
    with pytest.raises(config.ConfigError, match=r"--device H100: .*'NVIDIA H200'"):
        plan.plan(overrides, "H100")


def test_results_of_an_unknown_device_are_not_used(world, store):
    cell = finish(world.overrides(store))
    for stage in ("distill", "evaluate"):
        path = store / stage / cell.keys[stage] / MANIFEST
        plain = json.loads(path.read_text())
        for name in ("device", "pace", "resumed"):  # as older versions wrote it
            del plain[name]
        path.write_text(json.dumps(plain))
    planned = plan.plan(world.overrides(store, "seed=2"))
    assert planned.seconds.value == 0
    [source] = [b.source for s in planned.stages for b in s.bases if s.stage == "distill"]
    assert (source.how, source.elsewhere) == (plan.How.ELSEWHERE, ("",))
    assert planned.bytes is not None  # files are as large on any


def test_interrupted_results_tell_their_pace_alone(world, store):
    finish(world.overrides(store), {**TOOK, "distill": 70.0}, resumed=True)
    planned = plan.plan(world.overrides(store, "seed=2"))
    assert basis(planned, "distill") == (plan.How.SHORT, 1) and planned.seconds.value == 0
    # 20 of 40 pairs in 30 s, after 40 s in which the model was loaded and the checkpoint read
    half = {"distill": Pace(0.5, 30.0)}
    finish(world.overrides(store, "seed=3"), {**TOOK, "distill": 70.0}, paces=half, resumed=True)
    planned = plan.plan(world.overrides(store, "seed=2", "budget.epochs=1,2"))
    assert span(planned, "distill") == (100 + 160, 260, 260, 1)


def test_another_size_is_scaled_by_operations(world, store, tmp_path):
    """A layer of these BERTs has 2,224 parameters, the pooler 272, the embeddings' norm 32."""
    folders = {
        layers: tiny.bert(tmp_path / f"bert{layers}", ["river"], num_hidden_layers=layers)
        for layers in (1, 2, 30)
    }

    def overrides(layers, *more):
        return world.overrides(store, f"student.model={folders[layers]}", *more)

    finish(overrides(1), {**TOOK, "distill": 50.0}, paces={"distill": Pace(0.75, 30)})
    planned = plan.plan(overrides(2, "budget.epochs=3"))
    expected = 10 + 120 * (2 * 2224 + 304) / (2224 + 304)
    assert span(planned, "distill") == pytest.approx((*[expected] * 3, 1))
    [source] = [b.source for s in planned.stages for b in s.bases if s.stage == "distill"]
    assert (source.how, source.model, source.of) == (plan.How.SCALED, 4752, 2528)
    # the evaluation took 4 s, too short; the texts of other lengths are other work
    assert basis(planned, "evaluate") == (plan.How.SHORT, 1)
    planned = plan.plan(overrides(2, "student.passage_length=12"))
    assert span(planned, "distill") == (0, 0, 0, 0)
    assert basis(planned, "distill") == (plan.How.NOTHING, 0)
    # more than ten times as large
    assert basis(plan.plan(overrides(30)), "distill") == (plan.How.SHORT, 1)
    # the nearer of two
    finish(overrides(30), {**TOOK, "distill": 600.0}, paces={"distill": Pace(0.5, 300)})
    planned = plan.plan(overrides(30, "student.layers=9"))
    assert span(planned, "distill")[0] == pytest.approx(600 * (9 * 2224 + 304) / (30 * 2224 + 304))


def test_a_service_takes_as_long_from_anywhere(world, store):
    base = [o for o in world.overrides(store) if o != "teacher=oracle"]
    paid = [*base, "teacher=rankgpt", "teacher.backend.model=m"]
    finish(paid, {**TOOK, "teach": 80.0}, device=OTHER)
    planned = plan.plan([*paid, "depth.queries=4"])
    assert span(planned, "teach") == (40, 40, 40, 1) and planned.services[0].requests == 4


def test_another_student_tells_nothing(world, store):
    finish(world.overrides(store))
    planned = plan.plan(world.overrides(store, "student.passage_length=12"))
    assert span(planned, "distill") == (0, 0, 0, 0)
    unknown = {s.stage: s.unknown for s in planned.stages if s.unknown}
    assert unknown == {"prefinetune": 1, "distill": 1, "evaluate": 1}
    assert planned.seconds.value == 0 and planned.bytes is None


def test_disk_is_that_of_the_same_checkpoints(world, store):
    cell = finish(world.overrides(store))
    held = sum(
        p.stat().st_size
        for p in (store / "evaluate" / cell.signature).rglob("*")
        if p.name != MANIFEST and p.is_file()
    )
    planned = plan.plan(world.overrides(store, "seed=2,3"))
    sizes = {s.stage: s.bytes for s in planned.stages if s.stage not in FREE}
    assert sizes == {
        "candidates": 0, "teach": 0, "prefinetune": 0, "distill": 2 * 5, "reference": 0,
        "evaluate": 2 * held,
    }  # fmt: skip
    assert planned.bytes == 10 + 2 * held and planned.copied == 0 and planned.free > 0


def test_the_work_of_a_stage(world, store):
    [cell] = cells(world.overrides(store))

    def of(stage, *more):
        role = "test files" if stage == "reference" else ""
        return work(Parts(edited(cell, *more)), Step(stage, role)).units

    assert of("candidates") == 8 and of("candidates", "depth.queries=4") == 4
    assert of("teach") == 8 * 5 and of("teach", "depth.pool=9") == 8 * 9
    assert of("teach", "depth.pool=9", "depth.mode=relabel") == 8 * 5
    assert of("teach", "depth.queries=null") is None
    assert of("prefinetune") == 8 * 1 * (1 + 3)
    assert of("prefinetune", "prefinetune.epochs=2", "prefinetune.negatives=1") == 32
    assert of("prefinetune", "prefinetune=null") == 1
    assert of("distill", "budget.epochs=3") == 3 * 8 * 5
    assert of("reference", "evaluation.teacher_queries=4") == 4 * 8 * 1
    assert of("distill", "budget={_target_: rdx.trainer.Steps, steps: 7}") == 7 * 2 * 5
    assert of("distill", "budget={_target_: rdx.trainer.Pairs, pairs: 120}") == 120


def test_what_is_comparable(world, store):
    [cell] = cells(world.overrides(store))

    def of(stage, *more):
        return signature(work(Parts(edited(cell, *more)), Step(stage)).like)

    assert of("distill") == of("distill", "loss=null") == of("distill", "depth.k=4")
    assert of("distill") != of("distill", "student.passage_length=12")
    assert (
        of("teach")
        == of("teach", "depth.queries=4")
        != of("teach", "teacher={_target_: rdx.teachers.Shuffled}")
    )
    assert of("candidates") != of("candidates", "sampler.k1=1.2")
    assert of("evaluate") != of("evaluate", "evaluation.k=5")
    # work that is not known is compared under the same settings only
    unknown = of("distill", "depth.queries=null")
    assert unknown != of("distill") and unknown != of("distill", "depth.queries=null", "depth.k=4")


# --- cost ---


def test_the_cost_of_a_paid_teacher(world, store):
    base = [o for o in world.overrides(store) if o != "teacher=oracle"]
    paid = ["teacher=rankgpt", "teacher.backend.model=m", "depth.k=100", "depth.pool=100"]

    def services(*more):
        planned = plan.plan([*base, *paid, *more]).services
        return [(s.requests, s.input_tokens, s.output_tokens, s.cost) for s in planned]

    # 8 lists of 100: 9 windows of 20; 120 and 6 tokens for each passage shown
    assert services() == [(72, 172_800, 8_640, None)]
    prices = ["teacher.prices.input=1", "teacher.prices.output=4"]
    # and 2 test lists of 8, one window each
    cost = pytest.approx((174_720 + 4 * 8_736) / 1e6)
    assert services(*prices, "evaluation.teacher_queries=2") == [(74, 174_720, 8_736, cost)]
    [(requests, *_, cost)] = services("depth.queries=null")
    assert (requests, cost) == (None, None)
    two = services("loss=ranknet,adr_mse", "teacher.backend.temperature=0,1")
    assert [requests for requests, *_ in two] == [72, 72]
    assert plan.plan([*base, *paid]).services[0].teacher == "m at the default address"
    assert plan.plan(world.overrides(store)).services == ()


# --- power ---


def test_power_rests_on_the_stored_trials(world, store):
    """Two systems, the first with two seeds."""
    values = {
        ("ranknet", 1): {"q1": 0.5, "q2": 0.7},
        ("ranknet", 2): {"q1": 0.7, "q2": 0.9},
        ("adr_mse", 1): {"q1": 0.5, "q2": 0.5},
    }
    for (loss, seed), some in values.items():
        finish(world.overrides(store, f"loss={loss}", f"seed={seed}"), values=some)
    planned = plan.plan(world.overrides(store, "loss=ranknet,adr_mse,lce", "seed=1,2"))
    assert plan.seeds(planned) == (3, 2)
    assert plan.queries(planned, {}) == {"files": 24}
    assert plan.queries(planned, {"files": 50}) == {"files": 50}
    scores = plan.scores(planned, "nDCG@10")["files"]
    assert sorted(sorted(runs) for runs in scores.values()) == [[1], [1, 2]]
    [told], lines = command.power(planned, None, 0.01, ())
    design = told["design"]
    assert design["tests"] == 2 and design["seeds"] == 2 and design["queries"] == 24
    assert design["assumption"]["sd"] == pytest.approx(stdev([0.1, 0.3]))
    # the runs differ alike on both queries, so that more queries would remove nothing of it
    assert design["assumption"]["seed_sd"] == pytest.approx(stdev([0.6, 0.8]))
    assert design["systems"] == 3 and design["trained"] == 2
    assert "median of 1 pairs of systems" in lines and "power at 0.01" in lines
    assert plan.scores(planned, "RR@10") == {}


def test_without_trials_the_spread_is_assumed(world, store):
    planned = plan.plan(world.overrides(store))
    [told], lines = command.power(planned, None, None, ["files=100"])
    design = told["design"]
    assert (design["queries"], design["seeds"], design["tests"]) == (100, 1, 1)
    assert (design["assumption"]["sd"], design["assumption"]["source"]) == (0.1, "assumed")
    # normal theory, two trained sides: (1.96 + .84) x sqrt(.1^2 / 100 + 2 x .0057^2)
    assert told["detectable"] == pytest.approx(2.80 * math.sqrt(1e-4 + 2 * 0.0057**2), rel=0.02)
    assert told["seeds_needed"] is None and "1 system of 1 seed or more, 1 test" in lines


def test_queries_that_nothing_tells_are_asked_for(world, store):
    planned = plan.plan(world.overrides(store))
    plans, lines = command.power(planned, None, None, ())
    assert plans == [] and "give --queries files=N" in lines


def test_a_spec_tells_how_many_tests_are_corrected_together(world, store):
    planned = plan.plan(world.overrides(store, "seed=1,2"))
    outline = Outline(systems=4, tests={"files": 44}, family="grid")
    [told], _ = command.power(planned, None, None, ["files=100"], outline)
    design = told["design"]
    assert (design["tests"], design["systems"], design["seeds"]) == (44, 4, 2)
    one_test = Design(100, 2, systems=4)
    assert told["detectable"] == pytest.approx(one_test.detectable())
    assert told["detectable_holm"] == pytest.approx(replace(one_test, tests=44).detectable())
    nothing = Outline(systems=4, tests={})
    [told], _ = command.power(planned, None, None, ["files=100"], nothing)
    assert told["design"]["tests"] == 1


def test_a_pooled_collection_varies_less_than_its_parts():
    """Worked by hand: 97 queries, 54 and 43 of them by runs of their own."""
    outline = Outline(systems=2, tests={"dl": 1}, pooled={"dl": ("b", "a"), "x": ("b", "c")})
    sized = {"b": 54, "a": 43, "c": None}
    known = {"b": Assumption(0.1, 0.006), "a": Assumption(0.2, 0.003)}
    command.pool(outline, sized, known)
    assert (sized["dl"], sized["x"]) == (97, None)
    assert known["dl"].sd == pytest.approx(math.sqrt((54 * 0.01 + 43 * 0.04) / 97))
    runs = (54 / 97 * 0.006) ** 2 + (43 / 97 * 0.003) ** 2
    assert known["dl"].seed_sd == pytest.approx(math.sqrt(runs))
    assert "x" not in known


def test_the_seeds_that_are_needed_have_a_price(world, store):
    finish(world.overrides(store))
    planned = plan.plan(world.overrides(store, "loss=ranknet,adr_mse"))
    [told], lines = command.power(planned, None, 0.02, ["files=1000"])
    more = 2 * (told["seeds_needed"] - 1)
    assert told["seeds_needed"] > 1
    assert f"{more} cells more: {duration(14 * more)}" in lines


# --- the command ---


def test_the_command_prints_the_plan(world, store, capsys):
    finish(world.overrides(store))
    command.plan([*world.overrides(store, "seed=1,2"), "-m"])
    out = capsys.readouterr().out
    assert out.startswith("2 cells: 1 finished, 1 to run. Nothing was run.\n")
    assert "14 s (14 s to 14 s)" in out and "nDCG@10" in out
    command.plan([*world.overrides(store, "seed=1,2"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [cell["state"] for cell in printed["cells"]] == ["finished", "to run"]
    assert printed["seconds"]["value"] == 14 and printed["power"][0]["design"]["queries"] == 24


def test_many_cells_are_cut(world, store, capsys):
    seeds = f"seed={','.join(map(str, range(40)))}"
    command.plan(world.overrides(store, seeds))
    assert "... and 10 more (10 to run); --all shows them" in capsys.readouterr().out
    command.plan([*world.overrides(store, seeds), "--all"])
    out = capsys.readouterr().out
    assert "more (" not in out and "seed=39" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["los=ranknet"], "los: "),
        (["--queries", "nope=3"], r"--queries nope=3: .*'pydocs'"),
        (["--queries", "pydocs"], "--queries pydocs: "),
        (["--queries", "pydocs=0"], "--queries pydocs=0: "),
        (["--difference", "0"], "difference"),
        (["+exclude=[{loss: nope}]"], "exclude: loss=nope: "),
    ],
)
def test_bad_input_is_named(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        command.plan([*arguments, "tracking=none"])


def test_a_plan_may_come_before_its_files(world, store):
    base = [o for o in world.overrides(store) if o != "teacher=oracle"]
    overrides = [*base, "teacher=recorded", "teacher.run=absent.run"]
    planned = plan.plan(overrides)
    assert len(planned.lacking) == 1 and planned.count(plan.TO_RUN) == 1
    assert planned.lacking[0].startswith("teacher.run=absent.run: ")
    assert planned.lacking[0] in plan.text(planned)
    assert plan.as_json(planned)["lacking"] == list(planned.lacking)


# --- why ---


def test_what_differs_from_the_nearest_stored_neighbour_is_named(world, store):
    for seed, k in ((1, "0.9"), (2, "0.9")):
        cell = finish(world.overrides(store, f"seed={seed}", f"sampler.k1={k}"))
    [other] = cells(world.overrides(store, "seed=2", "sampler.k1=1.2"))
    by_step = {str(explained.step): explained for explained in why.explain(other)}
    assert by_step["prefinetune"].stored and by_step["collection training"].stored
    [difference] = by_step["candidates"].differences
    assert (difference.path, difference.stored, difference.here) == ("sampler.k1", "0.9", "1.2")
    assert [d.path for d in by_step["teach"].differences] == ["needs.candidates"]
    # the seed is that of the second cell, which is the nearer one
    assert [d.path for d in by_step["distill"].differences] == ["needs.teach", "needs.select"]
    assert [d.path for d in by_step["evaluate"].differences] == ["needs.distill"]
    assert why.chosen([cell, other], "2") == why.chosen([cell, other], other.signature[:9]) == other
    for which in ("3", "", "zz"):
        with pytest.raises(config.ConfigError):
            why.chosen([cell, other], which)


def test_a_scale_that_differs_is_named(world, store):
    scored = world.overrides(store, "teacher=labels", "loss=mse")
    finish(scored)
    [other] = cells([*scored, "teacher.scale=minmax"])
    by_step = {str(explained.step): explained for explained in why.explain(other)}
    assert by_step["teach"].stored
    [difference] = by_step["select"].differences
    assert (difference.path, difference.stored, difference.here) == ("scale", '"none"', '"minmax"')


def test_without_a_neighbour_there_is_nothing_to_compare(world, store):
    [cell] = cells(world.overrides(store))
    assert not any(step.stored or step.differences for step in why.explain(cell))


def test_the_commands_at_the_end_of_a_plan(world, store):
    single = world.overrides(store)
    assert command.commands(plan.plan(single), single) == (
        f"python -m rdx {shlex.join(single)}", ""
    )  # fmt: skip
    grid = world.overrides(store, "seed=1,2")
    run, table = command.commands(plan.plan(grid), grid)
    assert (run, table) == (f"python -m rdx -m {shlex.join(grid)}", "python -m analysis")
    named = ["+experiments=demo", *grid]
    run, table = command.commands(plan.plan(grid), named)
    assert run == f"python -m rdx {shlex.join(named)}" and table == "python -m analysis demo"
