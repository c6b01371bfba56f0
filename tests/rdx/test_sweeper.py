"""Axes of a grid that also move how long is trained: numbers worked by hand."""

from pathlib import Path

import pytest

from rdx import config, stages, sweeper
from rdx.batches import Schedule
from rdx.job import Parts
from rdx.lists import TrainingList
from rdx.parts import Length
from rdx.plan.cautions import cautions, confounded, length
from rdx.trainer import Epochs, Pairs, Steps


def test_an_order_of_drawing_is_no_score_to_mix():
    [line] = cautions(config.cells(["sampler=bm25,random", "seed=1,2"]))
    assert "sampler=random" in line and "teacher.interpolation=0.5" in line
    assert cautions(config.cells(["sampler=random", "teacher.interpolation=0"])) == []
    assert cautions(config.cells(["sampler=random", "teacher=labels"])) == []


def cell(**values):
    """A cell as the configuration has it: 40 queries, lists of 10, batches of 16, one epoch."""
    settings = {"k": 10, "queries": 40, "batch": 16, "budget": {"epochs": 1}, "loss": "ranknet"}
    settings |= values
    [budget] = settings["budget"]
    depth = {"k": settings["k"], "pool": settings["k"], "queries": settings["queries"]}
    cfg = {
        "depth": {"_target_": "rdx.lists.Depth", **depth},
        "trainer": {"_target_": "rdx.trainer.Trainer", "batch": settings["batch"]},
        "budget": {"_target_": f"rdx.trainer.{budget.title()}", **settings["budget"]},
        "loss": {"_target_": "rdx.losses.RankNet"} if settings["loss"] else None,
        "seed": settings.get("seed", 1),
    }
    names = {"k": "depth.k", "queries": "depth.queries", "batch": "trainer.batch"}
    overrides = tuple(f"{names.get(key, key)}={value}" for key, value in values.items())
    return config.Cell(overrides, "", cfg, {"loss": str(settings["loss"])})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Length(3, 400)),  # batches of 16, 16 and 8
        ({"budget": {"epochs": 2}}, Length(6, 800)),
        ({"budget": {"steps": 4}}, Length(4, 560)),  # 40 lists, and 16 of the next epoch
        ({"budget": {"pairs": 400}}, Length(3, 400)),
        ({"budget": {"pairs": 401}}, Length(4, 560)),
        ({"budget": {"pairs": 399}}, Length(3, 400)),
        ({"budget": {"pairs": 320}}, Length(2, 320)),
        ({"batch": 64}, Length(1, 400)),
        ({"queries": None}, Length(63, 10_000)),  # that of 1,000
        ({"queries": 10_000, "k": 100, "batch": 32, "budget": {"epochs": 3}},
         Length(939, 3_000_000)),
    ],
)  # fmt: skip
def test_length(values, expected):
    assert length(Parts(cell(**values).cfg)) == expected


@pytest.mark.parametrize("budget", [Epochs(3), Steps(7), Pairs(1234), Pairs(1), Pairs(690)])
@pytest.mark.parametrize(("k", "queries", "batch"), [(10, 23, 4), (3, 8, 4), (7, 5, 9)])
def test_length_is_what_the_trainer_does(budget, k, queries, batch):
    lists = [TrainingList(f"q{i}", ("d",) * k, (1,) * k) for i in range(queries)]
    schedule = Schedule(lambda epoch: lists, batch, 0)
    steps = budget.count(schedule)
    pairs = sum(len(one.doc_ids) for step in range(steps) for one in schedule.step(step))
    assert budget.length(queries, k, batch) == Length(steps, pairs)


def test_an_axis_that_moves_pairs_or_steps_is_named():
    [line] = confounded([cell(k=10), cell(k=11), cell(k=20)])
    assert line.startswith("depth.k (10, 11, 20) also moves the pairs (400 to 800): ")
    assert "budget=pairs budget.pairs=..." in line
    [line] = confounded([cell(queries=40), cell(queries=80)])
    assert "steps (3 to 5) and pairs (400 to 800)" in line
    [line] = confounded([cell(batch=16), cell(batch=8)])
    assert "steps (3 to 5): " in line and "budget=steps" in line
    assert confounded([cell(k=10), cell(k=11)]) == []  # 10 % are not more
    assert confounded([]) == confounded([cell()]) == []


def test_a_budget_silences_what_it_holds_equal():
    steps, pairs = {"steps": 6}, {"pairs": 8000}
    [line] = confounded([cell(k=k, budget=steps) for k in (10, 20)])
    assert "moves the pairs (800 to 1,600)" in line
    assert confounded([cell(queries=n, budget=steps) for n in (32, 64)]) == []
    assert confounded([cell(queries=n, budget=pairs) for n in (32, 64)]) == []
    [line] = confounded([cell(k=k, budget=pairs) for k in (10, 20)])
    assert "moves the steps (30 to 60): " in line


def test_only_cells_that_agree_elsewhere_are_compared():
    """The loss does not move the length, whatever the depth beside it does."""
    crossed = [cell(k=k, loss=loss) for k in (10, 20) for loss in ("ranknet", "adr_mse")]
    assert [line.split(" ")[0] for line in confounded(crossed)] == ["depth.k"]
    tied = [cell(k=10, loss="ranknet"), cell(k=20, loss="adr_mse")]
    [line] = confounded(tied)
    assert line.startswith("depth.k + loss (10, 20)")
    without = [cell(k=10), cell(k=20, loss=None)]
    assert confounded(without) == []  # the second distils nothing
    assert confounded([cell(seed=1), cell(seed=2)]) == []


def test_the_budget_may_move():
    cells = [cell(budget={"steps": n}) for n in (3, 9)]
    assert confounded(cells) == []


def test_the_papers_figure_is_confounded():
    depth, queries = confounded(stages.cells("paper_depth"))
    assert depth.startswith("depth.k (10, 20, 50, 100) also moves the pairs (300,000 to 3,000,000)")
    assert queries.startswith("depth.queries (10000, 1000, 2000, 5000) also moves the steps (96 to")
    assert "939) and pairs (300,000 to 3,000,000)" in queries
    [depth] = confounded(
        stages.cells(["depth/lists=top,log_rank", "depth.k=5,10", "depth.pool=20"])
    )
    assert depth.startswith("depth.k")


def test_a_grid_says_it_before_it_starts(monkeypatch, capsys):
    class Launched(Exception):
        pass

    class Launcher:
        def launch(self, jobs, initial_job_idx):
            assert "WARNING  depth (shallow, deep) also moves" in capsys.readouterr().out
            raise Launched

    with pytest.raises(Launched):
        sweeper.sweep(Launcher(), ["depth=shallow,deep", "loss=ranknet,adr_mse"])


def test_the_commands_that_are_printed_name_the_store():
    assert sweeper.option(Path("store")) == ""
    assert sweeper.option(Path("/big disk/s")) == " --store '/big disk/s'"
