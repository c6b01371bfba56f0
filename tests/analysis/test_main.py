"""The command, on a real MLflow store with the cells of experiments/demo.yaml."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.__main__ import main
from rdx import facts
from rdx.config import ROOT
from rdx.stages import cells
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
        "Missing cells (1 of 4): loss=adr_mse (adr_mse).",
        "results/demo/table.md",
        "results/demo/figure-differences.png",
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


def test_a_name_or_all_but_not_both():
    for wrong in ([], ["demo", "--all"]):
        with pytest.raises(SystemExit):
            main(wrong)


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
