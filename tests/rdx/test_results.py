"""Published results: out of one store, into another, the same tables, and nothing computed anew."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.assumed import assumed
from analysis.render import csv
from analysis.sources import Source, as_published
from analysis.stored import TrialError
from analysis.summary import summarise
from analysis.trials import load
from rdx import commands, facts, rankings, stages
from rdx.artifacts import Evaluated
from rdx.export import ExportError
from rdx.export.results import export_results, import_results
from rdx.facts import Grid, GridCell, Manifest
from rdx.store import Store, damage, published
from rdx.store.grids import write_grid
from tests import records

NOWHERE = "sqlite:///nothing-here.db"


@pytest.fixture(scope="module")
def grid(finished, world, tmp_path_factory):
    """A store with a grid of two cells, one of them finished, and an imported system."""
    root = tmp_path_factory.mktemp("grid") / "store"
    shutil.copytree(finished.cfg["store"], root)
    words = [w for w in world.overrides(root, "prefinetune=none") if not w.startswith("seed=")]
    cells = stages.cells([*words, "seed=1,2"])
    launched = tuple(GridCell(cell.overrides, cell.signature, cell.keys) for cell in cells)
    record = Grid(
        grid="g-1", arguments=(*words, "seed=1,2"), hydra=(), cells=launched, launched=1.0
    )
    write_grid(root, record)
    evaluated = Evaluated(root / "evaluate" / finished.signature)
    llm = replace(
        records.trial("llm", 0, evaluated.facts.collections), imported=facts.Imported(
            name="llm", file="llm.run", sha256="", files={}
        )
    )  # fmt: skip
    scores = evaluated.per_query[evaluated.per_query.system == "student"]
    folder = root / "import" / "llm"
    folder.mkdir(parents=True)
    rankings.write_parquet(scores.assign(system="run:llm"), folder / "per_query.parquet")
    (folder / "trial.json").write_text(facts.dump(llm))
    return root, record, cells


@pytest.fixture(scope="module")
def out(grid, tmp_path_factory):
    root, *_ = grid
    folder = tmp_path_factory.mktemp("out") / "results"
    record, unfinished = export_results(root, "g-", folder)
    assert (len(record.trials), unfinished) == (2, 1)
    return folder


def table(cells, folder=None):
    spec = assumed("g", cells)
    source = Source("g", spec, tuple(cells), (), None, "")
    if folder is not None:
        source = as_published(source, folder)
    return csv.render(summarise(spec, load(source, NOWHERE, folder)))


def test_what_is_published_is_what_was_measured(grid, out, finished):
    root, *_ = grid
    assert {p.name for p in out.iterdir()} == {"manifest.json", "results.json", "per_query.parquet"}
    assert damage(out) == ""
    results = published.read(out)
    own, llm = results.record.trials
    evaluated = Evaluated(root / "evaluate" / finished.signature)
    assert own.facts == evaluated.facts
    columns = ["collection", "system", "query_id", "measure", "value"]
    expected = evaluated.per_query.sort_values(columns[:4], kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(results.of(finished.signature)[columns], expected)
    assert (llm.facts.imported.name, llm.overrides) == ("llm", ())
    assert own.made["distill"].seconds > 0
    assert set(results.of("llm").system) == {"run:llm"}


def test_no_path_and_no_text_is_published(grid, out, world):
    trials = json.loads((out / "results.json").read_text())["trials"]
    told = json.dumps([{**trial, "overrides": ()} for trial in trials])
    assert str(world.folder) not in told
    texts = (world.folder / "corpus.tsv").read_text().splitlines()
    assert not any(line.split("\t")[1] in told for line in texts)


def test_the_same_in_the_same_out(grid, out, tmp_path):
    root, *_ = grid
    export_results(root, "g-1", tmp_path / "again")
    for path in out.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_published_results_make_the_same_table_without_store_and_data(grid, out, tmp_path):
    root, _, cells = grid
    here = [replace(cell, cfg={**cell.cfg, "store": str(root)}) for cell in cells]
    expected = table(here)
    # another signature, as on a machine that lacks the files, and no store
    elsewhere = [
        replace(cell, signature=f"other{i}", cfg={**cell.cfg, "store": str(tmp_path / "none")})
        for i, cell in enumerate(cells)
    ]
    assert table(elsewhere, out) == expected


def test_a_spec_that_configures_a_cell_otherwise_is_refused(grid, out):
    cells = list(grid[2])
    trainer = {**cells[0].cfg["trainer"], "learning_rate": 0.5}
    cells[0] = replace(cells[0], cfg={**cells[0].cfg, "trainer": trainer})
    with pytest.raises(TrialError, match="trainer.learning_rate"):
        table(cells, out)


def test_imported_cells_are_finished_and_nothing_runs_anew(grid, out, world, tmp_path):
    root, record, cells = grid
    store = tmp_path / "store"
    assert import_results(out, store) == (1, 0)
    assert import_results(out, store) == (0, 1)
    summary = world.run(store, "prefinetune=none", "seed=1")
    assert summary.stages == {f"evaluate/{cells[0].signature}": "stored"}
    assert summary.facts == Evaluated(root / "evaluate" / cells[0].signature).facts
    folder = Store(store).find("evaluate", cells[0].signature)
    manifest = facts.parse(Manifest, (folder / "manifest.json").read_bytes())
    theirs = root / "evaluate" / cells[0].signature / "manifest.json"
    assert manifest.signed == facts.parse(Manifest, theirs.read_bytes()).signed
    here = [replace(cell, cfg={**cell.cfg, "store": str(store)}) for cell in cells]
    there = [replace(cell, cfg={**cell.cfg, "store": str(root)}) for cell in cells]
    assert table(here) == table(there)
    write_grid(store, record)  # who publishes it again still tells what made it
    again, _ = export_results(store, "g-", tmp_path / "again")
    [trial] = [t for t in published.read(out).record.trials if t.facts.imported is None]
    assert again.trials == (trial,)
    assert trial.made["distill"].seconds > 0


def test_a_cell_of_another_signature_is_refused_and_nothing_written(grid, out, tmp_path):
    changed = tmp_path / "changed"
    held = published.read(out)
    trials = tuple(
        replace(t, facts=replace(t.facts, signature="0" * 16)) if t.overrides else t
        for t in held.record.trials
    )
    changed.mkdir()
    published.write(changed, replace(held.record, trials=trials), held.per_query)
    with pytest.raises(ExportError, match="0" * 16):
        import_results(changed, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["results.json", "per_query.parquet"])
def test_damaged_results_are_refused(out, name, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(out, folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(published.DamagedResults, match=name):
        import_results(folder, tmp_path / "store")
    with pytest.raises(TrialError, match=name):
        as_published(Source("g", None, (), (), None, ""), folder)


def test_a_grid_without_a_finished_cell_is_no_result(grid, tmp_path):
    root, record, _ = grid
    empty = tmp_path / "store"
    write_grid(empty, record)
    with pytest.raises(ExportError, match="g-1"):
        export_results(empty, "g-1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verbs(grid, out, tmp_path, capsys):
    root, *_ = grid
    commands.export(["results", "g-1", str(tmp_path / "r"), "--store", str(root)])
    assert (tmp_path / "r" / "results.json").read_bytes() == (out / "results.json").read_bytes()
    commands.store(["import", str(tmp_path / "r"), "--store", str(tmp_path / "store")])
    assert [p.name for p in Path(tmp_path / "store" / "evaluate").iterdir() if p.is_dir()]
    assert "2 trials" in capsys.readouterr().out
