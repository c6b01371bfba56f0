"""The command, on a real MLflow store with the cells of experiments/demo.yaml."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.__main__ import main
from rdx import facts
from rdx.config import ROOT
from rdx.facts import Grid, GridCell
from rdx.stages import cells
from rdx.store.grids import write_grid
from tests.analysis.facts import collection, trial

SYSTEMS = ("first_stage", "oracle", "teacher", "student")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Every demo cell but that of ADR-MSE."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("rdx", str(folder / "artifacts"))
    generator = np.random.default_rng(0)
    references = dict(zip(SYSTEMS, generator.random((3, 30)), strict=False))
    for cell in cells("demo"):
        if "loss=adr_mse" in cell.overrides:
            continue
        values = {**references, "student": references["first_stage"] + generator.normal(0.1, 0.1)}
        table = pd.concat(
            pd.DataFrame(
                {
                    "collection": "pydocs",
                    "system": system,
                    "query_id": [f"q{i}" for i in range(30)],
                    "measure": measure,
                    "value": value,
                }
            )
            for system, value in values.items()
            for measure in ("nDCG@10", "RR@10")
        )
        known = trial(cell.signature, cell.cfg["seed"], {"pydocs": collection(queries=30)})
        tags = {"rdx.kind": "trial", "rdx.signature": cell.signature}
        run = client.create_run(experiment, tags=tags).info.run_id
        table.to_parquet(folder / "per_query.parquet")
        (folder / "trial.json").write_text(facts.dump(known))
        for name in ("per_query.parquet", "trial.json"):
            client.log_artifact(run, str(folder / name))
        client.set_terminated(run)
    return f"sqlite:///{folder}/mlflow.db"


def test_demo(uri, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--tracking-uri", uri]) == 0
    out = capsys.readouterr().out
    for part in (
        "RankNet, shuffled teacher",
        "to run the missing cells: python -m rdx +experiments=demo",
        "Missing cells (1 of 4): loss=adr_mse.",
        "results/demo/report.html",
        "table.csv",
    ):
        assert part in out
    names = {path.name for path in (tmp_path / "results" / "demo").iterdir()}
    assert {"table.csv", "table.md", "table.tex"} <= names
    csv = pd.read_csv(tmp_path / "results" / "demo" / "table.csv")
    assert (csv["table"] == "main").sum() == 11 * 2
    assert csv.loc[csv["row"] == "Oracle", "p"].isna().all()


def test_unknown_name(capsys):
    assert main(["dmeo"]) == 2
    assert "no experiment 'dmeo'; there are: " in capsys.readouterr().err


def test_no_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    error = capsys.readouterr().err
    assert "no MLflow store at sqlite:///mlflow.db" in error
    assert "python -m rdx +experiments=demo" in error
    assert not list(tmp_path.iterdir())


def test_help_loads_nothing_heavy():
    code = "import sys, analysis.__main__ as m; m.parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert loaded and not loaded & {"mlflow", "torch", "pandas", "scipy", "matplotlib", "hydra"}


@pytest.mark.slow
def test_out_and_no_models(uri, tmp_path):
    """Cells are signed by their classes, some of which need torch; nothing else that is heavy."""
    code = (
        "import sys; from analysis import figures; from analysis.__main__ import main\n"
        "figures.sketches = lambda _: {}  # slow, and seen above\n"
        f"assert main(['demo', '--tracking-uri', {uri!r}, '--out', {str(tmp_path)!r}]) == 0\n"
        "assert not {'sentence_transformers', 'bm25s', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").is_file()


@pytest.mark.slow
def test_all_goes_on_where_nothing_was_found(uri, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.__main__.specs", lambda: ["demo", "losses"])
    monkeypatch.setattr("analysis.figures.sketches", lambda _: {})  # slow, and seen above
    main(["--all", "--tracking-uri", uri, "--out", "here"])
    assert (tmp_path / "here" / "demo" / "table.md").is_file()
    assert (tmp_path / "here" / "losses" / "table.md").is_file()
    assert "to run the missing cells: python -m rdx +experiments=losses" in capsys.readouterr().out


def test_a_name_or_all_but_not_both(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--all"])
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "no grid was launched" in capsys.readouterr().err


def planted(store, name, arguments):
    """A grid that was launched, with a trial of every cell but the last, as its store has them."""
    members = cells(arguments)
    then = [replace(one, signature=f"{len(arguments):08x}{i:08x}") for i, one in enumerate(members)]
    write_grid(
        store,
        Grid(
            grid=name,
            arguments=tuple(arguments),
            hydra=(),
            cells=tuple(GridCell(one.overrides, one.signature) for one in then),
            launched=float(len(arguments)),
        ),
    )
    for i, one in enumerate(then[:-1]):
        folder = store / "evaluate" / one.signature
        folder.mkdir(parents=True)
        ranks = pd.DataFrame({"query_id": [f"q{q}" for q in range(8)], "measure": "nDCG@10"})
        table = [
            ranks.assign(collection="pydocs", system=system, value=value)
            for system, value in (("first_stage", 0.25), ("student", (i + 1) / 8))
        ]
        pd.concat(table).to_parquet(folder / "per_query.parquet")
        known = trial(one.signature, one.cfg["seed"], {"pydocs": collection(queries=8)})
        (folder / "trial.json").write_text(facts.dump(known))


def test_a_grid_without_a_spec_has_the_rows_of_its_factors(tmp_path, monkeypatch, capsys):
    """Signatures are those of the launch: what decides them may have changed since."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.figures.sketches", lambda _: {})
    planted(tmp_path / "store", "grid-old", ["loss=ranknet,lce"])
    planted(tmp_path / "store", "grid-new", ["loss=ranknet,lce", "seed=1,2"])
    assert main([]) == 0  # the newest
    out = capsys.readouterr().out
    assert "a row for every combination of loss; nDCG@10" in " ".join(out.split())
    assert "python -m rdx -m loss=ranknet,lce seed=1,2" in out
    csv = pd.read_csv(tmp_path / "results" / "grid-new" / "table.csv")
    main_table = csv[csv["table"] == "main"].set_index("row")
    # ranknet: seeds of 1/8 and 2/8; lce: 3/8, and one seed is missing
    assert main_table["mean"].round(4).to_dict() == {"ranknet": 0.1875, "lce": 0.375}
    assert main(["grid-o", "--out", "here"]) == 0
    assert "Missing cells (1 of 2): loss=lce" in capsys.readouterr().out
    assert (tmp_path / "here" / "table.md").is_file()
    assert main(["grid-x"]) == 2
    said = capsys.readouterr().err
    assert "no experiment 'grid-x'" in said and "known: grid-new, grid-old" in said


def test_a_launched_experiment_has_its_own_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.figures.sketches", lambda _: {})
    planted(tmp_path / "store", "demo-1", ["+experiments=demo", "seed=7"])
    assert main(["demo-1"]) == 0
    csv = pd.read_csv(tmp_path / "results" / "demo-1" / "table.csv")
    shown = csv[(csv["table"] == "main") & (csv["measure"] == "nDCG@10")].set_index("row")
    assert shown["mean"].round(4)[["RankNet", "ADR-MSE", "Stage 1 only"]].tolist() == [
        0.25, 0.375, 0.125
    ]  # fmt: skip


def test_trials_from_a_folder_need_no_store(uri, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.figures.sketches", lambda _: {})
    artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
    assert main(["demo", "--import", str(artifacts)]) == 0
    assert "Missing cells (1 of 4)" in capsys.readouterr().out
    assert main(["demo", "--import", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_a_folder_of_runs_is_told_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copies" / "runs").mkdir(parents=True)
    assert main(["demo", "--import", "copies"]) == 2
    assert "no trial.json below copies; to train" in capsys.readouterr().err
    (tmp_path / "copies" / "runs" / "bm25.run.gz").write_bytes(b"")
    assert main(["demo", "--import", "copies"]) == 2
    said = capsys.readouterr().err
    assert "copies/runs/bm25.run.gz is a run" in said and "python -m rdx import" in said
