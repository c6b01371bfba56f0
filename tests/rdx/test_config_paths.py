"""A configuration means the same files wherever it is sent, and its cell stays the same."""

from pathlib import Path

import pytest

from rdx.config import cells
from rdx.config.paths import absolute

HERE = Path("/where/the user/stands")
FILES = {"corpus": "corpus.tsv", "queries": "queries.tsv", "qrels": "qrels.txt"}


def test_what_is_written_becomes_absolute_and_addresses_stay():
    listwise = {"_target_": "rdx.teachers.Listwise", "ledger": "store/ledger"}
    cfg = {
        "store": "store",
        "teacher": listwise,
        "tracking": {"uri": "sqlite:///mlflow.db?timeout=9", "artifacts": "mlartifacts"},
        "spec": {"store": "store"},
    }  # fmt: skip
    found = absolute(cfg, HERE)
    assert found["store"] == f"{HERE}/store"
    assert found["teacher"] == {**listwise, "ledger": f"{HERE}/store/ledger"}
    assert found["tracking"] == {
        "uri": f"sqlite:///{HERE}/mlflow.db?timeout=9",
        "artifacts": f"{HERE}/mlartifacts",
    }
    assert found["spec"] == cfg["spec"]
    assert absolute(found, Path("/")) == found
    served = {"tracking": {"uri": "http://host:5000", "artifacts": "s3://bucket/a"}}
    assert absolute(served, HERE) == served
    proxied = {"artifacts": "mlflow-artifacts:/a", "uri": "sqlite://"}
    assert absolute({"tracking": proxied}, HERE) == {"tracking": proxied}


def test_what_is_read_becomes_absolute_where_it_is_there(tmp_path):
    for name in ("mine", "nfcorpus", "multi_turn", "gpt"):
        (tmp_path / name).mkdir()
    for name in ("own.yaml", "a.run"):
        (tmp_path / name).touch()
    cfg = {
        "student": {"model": "mine"},
        "sampler": {"model": "org/mine", "run": "a.run"},
        "teacher": {"prompt": "own.yaml", "backend": {"model": "asset:mine"}},
        "evaluation": {"runs": "mine", "collections": [{"run": "absent.run"}]},
    }
    assert absolute(cfg, tmp_path) == {
        "student": {"model": f"{tmp_path}/mine"},
        "sampler": {"model": "org/mine", "run": f"{tmp_path}/a.run"},
        "teacher": {"prompt": f"{tmp_path}/own.yaml", "backend": {"model": "asset:mine"}},
        "evaluation": {"runs": f"{tmp_path}/mine", "collections": [{"run": "absent.run"}]},
    }
    names = {  # what only looks like a file: a corpus' name, a served model, a prompt of rdx
        "test": {"_target_": "rdx.evaluation.TestSet", "corpus": "nfcorpus"},
        "backend": {"_target_": "rdx.teachers.Endpoint", "model": "gpt"},
        "teacher": {"prompt": "multi_turn"},
    }
    assert absolute(names, tmp_path) == names


@pytest.fixture
def folders(tmp_path, world):
    """Two folders with copies of one collection and one model, under the same names."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for file in FILES.values():
            (folder / file).write_bytes((world.folder / file).read_bytes())
        (folder / "bert").mkdir()
        for path in (world.folder / "bert").iterdir():
            (folder / "bert" / path.name).write_bytes(path.read_bytes())
        made.append(folder)
    (made[1] / "files").mkdir()  # the name of the corpus
    return made


def test_a_cell_is_the_same_from_another_folder(folders, world, monkeypatch):
    overrides = [*world.overrides("store"), "student.model=bert", "tracking=mlflow"]
    overrides += [f"data.{name}={file}" for name, file in FILES.items()]
    overrides += ["evaluation.collections.files.corpus=files"]
    found = []
    for folder in folders:
        monkeypatch.chdir(folder)
        found += cells(overrides)
        assert found[-1].cfg["store"] == f"{folder}/store"
        assert found[-1].cfg["data"]["corpus"] == f"{folder}/corpus.tsv"
        assert found[-1].cfg["tracking"]["uri"] == f"sqlite:///{folder}/mlflow.db"
    assert found[0].keys == found[1].keys and found[0].overrides == found[1].overrides
