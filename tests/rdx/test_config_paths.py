"""A configuration means the same files wherever it is sent, and its cell stays the same."""

import shutil
from pathlib import Path

import pytest

from rdx.config import cells
from rdx.config.paths import absolute

HERE = Path("/where/the user/stands")
FILES = {"corpus": "corpus.tsv", "queries": "queries.tsv", "qrels": "qrels.txt"}


def test_what_is_written_becomes_absolute_and_addresses_stay():
    listwise = {"_target_": "rdx.teachers.Listwise", "ledger": "store/ledger"}
    mlflow = {"_target_": "rdx.tracking.MLflow"}
    cfg = {
        "store": "store",
        "teacher": listwise,
        "tracking": {**mlflow, "uri": "sqlite:///mlflow.db?timeout=9", "artifacts": "mlartifacts"},
        "spec": {"store": "store"},
    }  # fmt: skip
    settled = absolute(cfg, HERE)
    assert settled["store"] == f"{HERE}/store"
    assert settled["teacher"] == {**listwise, "ledger": f"{HERE}/store/ledger"}
    assert settled["tracking"] == {
        **mlflow,
        "uri": f"sqlite:///{HERE}/mlflow.db?timeout=9",
        "artifacts": f"{HERE}/mlartifacts",
    }
    assert settled["spec"] == cfg["spec"]
    assert absolute(settled, Path("/")) == settled
    for served in (
        {**mlflow, "uri": "http://host:5000", "artifacts": "s3://bucket/a"},
        {**mlflow, "artifacts": "mlflow-artifacts:/a", "uri": "sqlite://"},
    ):
        assert absolute({"tracking": served}, HERE) == {"tracking": served}


@pytest.mark.parametrize(
    ("target", "key", "value", "read"),
    [
        ("rdx.students.Student", "model", "mine", True),
        ("rdx.samplers.ColBERT", "model", "org/mine", False),
        ("rdx.teachers.Local", "model", "asset:mine", False),
        ("rdx.samplers.Recorded", "run", "a.run", True),
        ("rdx.samplers.Recorded", "run", "absent.run", False),
        ("rdx.teachers.Listwise", "prompt", "own.yaml", True),
        ("rdx.evaluation.Evaluation", "runs", "mine", True),
        # what only looks like a file: a corpus' name, a served model, a prompt of rdx
        ("rdx.evaluation.TestSet", "corpus", "nfcorpus", False),
        ("rdx.teachers.Endpoint", "model", "gpt", False),
        ("rdx.teachers.Listwise", "prompt", "multi_turn", False),
    ],
)
def test_what_is_read_becomes_absolute_where_it_is_there(target, key, value, read, tmp_path):
    for name in ("mine", "nfcorpus", "multi_turn", "gpt"):
        (tmp_path / name).mkdir()
    for name in ("own.yaml", "a.run"):
        (tmp_path / name).touch()
    cfg = {"evaluation": [{"_target_": target, key: value}]}
    [node] = absolute(cfg, tmp_path)["evaluation"]
    assert node[key] == (f"{tmp_path}/{value}" if read else value)


@pytest.fixture
def folders(tmp_path, world):
    """Two folders with copies of one collection and one model, under the same names."""
    copies = [shutil.copytree(world.folder, tmp_path / name) for name in ("one", "two")]
    (copies[1] / "files").mkdir()  # the name of the corpus
    return copies


def test_a_cell_is_the_same_from_another_folder(folders, world, monkeypatch):
    overrides = [*world.overrides("store"), "student.model=bert", "tracking=mlflow"]
    overrides += [f"data.{name}={file}" for name, file in FILES.items()]
    overrides += ["evaluation.collections.files.corpus=files"]
    both = []
    for folder in folders:
        monkeypatch.chdir(folder)
        both += cells(overrides)
        assert both[-1].cfg["store"] == f"{folder}/store"
        assert both[-1].cfg["data"]["corpus"] == f"{folder}/corpus.tsv"
        assert both[-1].cfg["tracking"]["uri"] == f"sqlite:///{folder}/mlflow.db"
    assert both[0].keys == both[1].keys and both[0].overrides == both[1].overrides
