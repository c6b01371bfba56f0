"""What is written beside a run, read by the readers of ir-metadata that there are."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rdx import ir_metadata, rankings
from rdx.artifacts import Evaluated
from rdx.facts import Imported

# What the schema 0.1 of ir-metadata lists, of what rdx can know.
KEYS = "schema-version run-version tag platform implementation method actor data".split()


@pytest.fixture(scope="module")
def trial(finished):
    """A finished cell whose collection is named by a path of this machine."""
    return Evaluated(Path(finished.cfg["store"]) / "evaluate" / finished.signature)


def described(trial, system):
    path = trial.folder / "runs" / f"files.{system}.ir_metadata.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_run_is_described_from_what_is_known(trial, world):
    student = described(trial, "student")
    assert set(KEYS) | {"research goal"} == set(student)
    assert (student["schema-version"], student["tag"]) == (0.1, "student")
    first, second = student["method"]["retrieval"]
    assert (first["name"], first["method"], first["params"]["k1"]) == ("first_stage", "bm25s", 0.9)
    assert (second["name"], second["reranks"], second["k"]) == ("student", "first_stage", 8)
    assert second["params"]["model"] == "bert"  # of its folder the name alone
    assert second["training"]["loss"]["_target_"] == "rdx.losses.RankNet"
    assert second["signature"] == trial.facts.signature and second["seed"] == 1
    assert student["method"]["score ties"] == trial.facts.collections["files"].ties.rule
    collection = student["data"]["test collection"]
    assert collection["digest"] == trial.facts.collections["files"].digest
    goal = student["research goal"]["evaluation"]
    assert goal["reported measures"] == trial.config["evaluation"]["measures"]
    assert str(world.folder) not in yaml.safe_dump(student)
    cmd = student["implementation"]["executable"]["cmd"]
    assert cmd.startswith("python -m rdx data=files data.corpus=corpus.tsv")
    libraries = student["platform"]["software"]["libraries"]["python"]
    assert any(name.startswith("torch==") for name in libraries)


def test_every_system_has_its_own_stages(trial):
    weight = trial.facts.collections["files"].weight
    stages_of = {
        path.name.split(".")[1]: described(trial, path.name.split(".")[1])["method"]
        for path in (trial.folder / "runs").glob("*.run.gz")
    }
    names = {s: [stage["name"] for stage in m["retrieval"]] for s, m in stages_of.items()}
    assert names == {
        "first_stage": ["first_stage"],
        "oracle": ["first_stage", "oracle"],
        "student": ["first_stage", "student"],
        "student+first_stage": ["first_stage", "student", "student+first_stage"],
    }
    mixed = stages_of["student+first_stage"]["retrieval"][-1]
    assert mixed["interpolates"] == ["student", "first_stage"] and mixed["weight"] == weight
    automatic = {system: method["automatic"] for system, method in stages_of.items()}
    assert automatic == dict.fromkeys(names, True) | {"oracle": False}  # it reads the judgements


def test_the_run_itself_is_one_that_trec_eval_reads(trial):
    for path in (trial.folder / "runs").glob("*.run.gz"):
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        assert all(len(line.split()) == 6 for line in lines)


def test_an_imported_run_has_no_platform_that_nobody_recorded(trial, tmp_path):
    imported = Imported(name="bm25+x", file="x.run", sha256="ab", files={}, source="a paper")
    facts = replace(trial.facts, imported=imported, checkpoint=None)
    known = ir_metadata.of_trial("files", facts, trial.config, ())
    assert "platform" not in known and "implementation" not in known and "actor" not in known
    assert known["method"]["retrieval"][1]["params"] == {"source": "a paper", "sha256": "ab"}
    assert known["method"]["retrieval"][1]["name"] == "bm25+x" and known["tag"] == "files"


def test_repro_eval_reads_it_in_a_run_and_beside_it(trial, tmp_path):
    metadata = pytest.importorskip("repro_eval.metadata")
    beside = trial.folder / "runs" / "files.student.ir_metadata.yaml"
    plain = tmp_path / "student.run"
    plain.write_bytes(gzip.decompress((beside.parent / "files.student.run.gz").read_bytes()))
    handler = metadata.MetadataHandler(str(plain), str(beside))
    assert handler.get_metadata() == described(trial, "student")
    handler.write_metadata(str(tmp_path / "annotated.run"))
    assert metadata.MetadataHandler.read_metadata(str(tmp_path / "annotated.run")) == described(
        trial, "student"
    )
    run = metadata.MetadataHandler.strip_metadata(str(tmp_path / "annotated.run"))
    assert sum(map(len, run.values())) == len(rankings.read_trec(plain))


def test_tira_takes_it(trial, tmp_path):
    check = pytest.importorskip("tira.check_format")
    shutil.copy(trial.folder / "runs" / "files.student.ir_metadata.yaml", tmp_path)
    result, message = check.check_format(tmp_path, "ir_metadata")
    assert result == check._fmt.OK, message
