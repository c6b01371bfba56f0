"""Every factorial grid has an interaction plot per pair of factors and a heat map, spec or none."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from analysis import figures
from analysis.assumed import assumed
from analysis.figures import captions, inputs
from analysis.figures.grid import conditions
from analysis.summary import summarise
from tests.analysis.conftest import trials_of

COLLECTIONS = {"docs": (8, "bm25")}
WEIGHTS = (0.08, 0.04, 0.02, 0.01, 0.005)


def summary_of(levels, collections=None, lacking=lambda setting: False, **spec):
    """A grid that was run without a spec: one seed a cell, its score a sum over the factors."""
    every = [dict(zip(levels, point, strict=True)) for point in product(*levels.values())]
    settings = [setting for setting in every if not lacking(setting)]

    def effect(overrides):
        own = dict(o.split("=") for o in overrides)
        places = [[str(v) for v in levels[name]].index(own[name]) for name in levels]
        return sum(w * i for w, i in zip(WEIGHTS, places, strict=False)) - 0.1

    members = [(*(f"{k}={v}" for k, v in setting.items()), "seed=1") for setting in settings]
    trials = trials_of({"": members}, collections or COLLECTIONS, effect)
    cells = tuple(
        replace(cell, cfg={**cell.cfg, "evaluation": {"measures": ["nDCG@10"]}})
        for cell in trials.cells
    )
    own = replace(assumed("grid-1", cells), **spec)
    return summarise(own, replace(trials, cells=cells))


def kinds(summary):
    return [name for name in figures.sketches(summary) if name.startswith(("interaction", "grid"))]


LEVELS = {
    "loss": ["ranknet", "adr_mse"],
    "depth.k": [10, 20, 100],
    "sampler": ["bm25", "random"],
    "student.layers": [1, 6],
    "trainer.rate": [0.0001, 0.01],
}


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_grid_without_a_spec_has_every_pair_and_every_cell(size):
    levels = dict(list(LEVELS.items())[:size])
    summary = summary_of(levels)
    names = [key for key in levels if len(levels[key]) > 1]
    assert sorted(summary.spec.factors) == sorted(names)
    settings = conditions(summary, "nDCG@10")
    plots = inputs.interactions(summary, settings)["docs"]
    assert {frozenset((p.across, p.by)) for p in plots} == {
        frozenset(pair) for pair in combinations(names, 2)
    }
    (rows, columns), grids = inputs.heat_maps(summary, settings)
    panels = grids["docs"]
    assert sum(panel.values.size for panel in panels) == np.prod([len(v) for v in levels.values()])
    assert not any(np.isnan(panel.values).any() for panel in panels)
    scores = {
        row.levels["loss"] + row.levels["depth.k"]: summary.scores[row.name, "docs", "nDCG@10"].mean
        for row in summary.spec.rows
        if size == 2
    }
    for (loss, k), mean in scores.items():
        place = {rows: (loss, k)[rows != "loss"], columns: (loss, k)[columns != "loss"]}
        at = panels[0].rows.index(place[rows]), panels[0].columns.index(place[columns])
        assert panels[0].values[at] == pytest.approx(mean)
    pages = {2: ["interaction", "grid"], 3: ["interaction", "grid"],
             5: ["interaction", "interaction-2", "grid"]}  # fmt: skip
    assert kinds(summary)[: len(pages[size])] == pages[size]
    numeric = next(p for p in plots if "depth.k" in (p.across, p.by))
    levels_of = numeric.lines[0].x if numeric.across == "depth.k" else [
        line.label for line in numeric.lines]  # fmt: skip
    assert list(levels_of) == ["10", "20", "100"]  # by size, not as words


def test_cells_that_were_not_run_are_named_and_hatched():
    two = {"loss": ["ranknet", "adr_mse"], "depth.k": [10, 20]}
    summary = summary_of(two, lacking=lambda s: s == {"loss": "adr_mse", "depth.k": 20})
    settings = conditions(summary, "nDCG@10")
    (plot,) = inputs.interactions(summary, settings)["docs"]
    assert sum(np.isnan(line.mean).sum() for line in plot.lines) == 1
    assert "adr_mse" in plot.note and "20" in plot.note
    _, grids = inputs.heat_maps(summary, settings)
    (panel,) = grids["docs"]
    assert np.isnan(panel.values).sum() == 1
    assert "1 of 4 cells" in captions.heat_map(summary, settings, "docs", [panel])


def test_collections_have_figures_of_their_own_and_many_are_taken_together():
    three = {f"c{i}": (6 + i, "bm25") for i in range(3)}
    levels = {"loss": ["ranknet", "adr_mse"], "depth.k": [10, 20]}
    summary = summary_of(levels, three)
    assert kinds(summary) == [f"{kind}-c{i}" for kind in ("interaction", "grid") for i in range(3)]
    settings = conditions(summary, "nDCG@10")
    _, grids = inputs.heat_maps(summary, settings)
    for i in range(3):
        means = [summary.scores[r.name, f"c{i}", "nDCG@10"].mean for r in summary.spec.rows]
        assert np.sort(grids[f"c{i}"][0].values.ravel()) == pytest.approx(np.sort(means))
        assert f"{6 + i} queries of c{i}" in captions.interaction(summary, settings, f"c{i}")
    many = summary_of(levels, {f"c{i}": (4, "bm25") for i in range(6)})
    assert kinds(many) == ["interaction", "grid"]
    settings = conditions(many, "nDCG@10")
    (plot,) = inputs.interactions(many, settings)[inputs.EVERYTHING]
    means = [
        np.mean([many.scores[r.name, f"c{i}", "nDCG@10"].mean for i in range(6)])
        for r in many.spec.rows
    ]
    assert sorted(v for line in plot.lines for v in line.mean) == pytest.approx(sorted(means))


def test_no_pair_of_factors_no_figure():
    assert kinds(summary_of({"loss": ["ranknet", "adr_mse"]})) == []
    two = summary_of({"loss": ["ranknet", "adr_mse"], "depth.k": [10, 20]}, factors=())
    assert kinds(two) == []
    # a factor of the spec that has one level so far does not take the others' figures away
    partly = summary_of(
        {"loss": ["ranknet", "adr_mse"], "depth.k": [10, 20]},
        factors=("loss", "depth.k", "sampler"),
    )
    assert kinds(partly) == ["interaction", "grid"]
