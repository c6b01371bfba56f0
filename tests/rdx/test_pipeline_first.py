"""What a cell is tested on is tried before its teacher and its student cost anything."""

import pytest

from rdx import pipeline, stages
from rdx.config import ConfigError
from rdx.evaluation import MeasureError
from rdx.store import results

PAID = {"candidates", "teach", "select", "prefinetune", "distill"}


def failing(world, store, error, *more):
    """Run a cell that fails; the stages that were made, and the message."""
    [cell] = stages.cells(world.overrides(store, *more))
    with pytest.raises(error) as raised:
        pipeline.run(cell)
    return {stage for stage in stages.STAGES if results(store / stage)}, str(raised.value)


def test_a_measure_that_the_judgements_do_not_fit(world, tmp_path):
    """gdeval, which computes ERR, stops at grades above 4; a toy cannot know them."""
    qrels = tmp_path / "qrels.txt"
    qrels.write_text((world.folder / "qrels.txt").read_text().replace(" 2\n", " 5\n"))
    more = ["evaluation.measures=[nDCG@10,ERR@10]"]
    more += [f"evaluation.collections.files.data.qrels={qrels}"]
    made, told = failing(world, tmp_path / "store", ConfigError, *more)
    assert not made & PAID and "retrieve" in made
    assert "ERR@10" in told and told.startswith("evaluation.measures")


def test_a_first_stage_of_other_queries(world, tmp_path):
    run = tmp_path / "other.run"
    run.write_text("nobody Q0 d1 1 1.0 x\n")
    key = "evaluation.collections.files.first_stage"
    more = [f"sampler@{key}=recorded", f"{key}.run={run}"]
    made, told = failing(world, tmp_path / "store", ValueError, *more)
    assert not made & PAID and str(run) in told


def test_no_dev_queries(world, tmp_path):
    made, told = failing(world, tmp_path / "store", ValueError, "data.dev=0.000001")
    assert not made & PAID and "dev" in told


def test_no_judgements(world, tmp_path):
    qrels = tmp_path / "qrels.txt"
    qrels.touch()
    more = [f"evaluation.collections.files.data.qrels={qrels}"]
    made, told = failing(world, tmp_path / "store", ValueError, *more)
    assert not made & PAID and told


def test_too_few_queries_for_stage_1(world, tmp_path):
    made, told = failing(world, tmp_path / "store", ValueError, "prefinetune.queries=1000")
    assert not made & PAID and "prefinetune.queries=1000" in told


def test_no_candidates_for_stage_1(world, tmp_path):
    run = tmp_path / "other.run"
    run.write_text("nobody Q0 d1 1 1.0 x\n")
    more = ["sampler@prefinetune.sampler=recorded", f"prefinetune.sampler.run={run}"]
    made, told = failing(world, tmp_path / "store", ValueError, *more)
    assert not made & PAID and str(run) in told


def test_no_such_device(world, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    made, told = failing(world, tmp_path / "store", ValueError, "trainer.device=cuda")
    assert not made and told.startswith("trainer.device")


def test_nothing_is_tried_of_a_finished_evaluation(world, tmp_path, monkeypatch):
    """What is stored is read, whatever has become of collections and programs."""
    [cell] = stages.cells(world.overrides(tmp_path, "prefinetune=none"))
    first = pipeline.run(cell)

    def fail(*_, **__):
        raise MeasureError("it was measured again")

    monkeypatch.setattr("rdx.evaluation.measured", fail)
    assert pipeline.run(cell).facts == first.facts
