"""Hundreds of run files in one command: patterns, archives, what fails and what is refused."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from rdx import commands, rankings, systems
from rdx.config import ConfigError


def run_of(*lists, tag="x"):
    return "".join(
        f"{q} Q0 {d} {i} {9 - i} {tag}\n" for q, *docs in lists for i, d in enumerate(docs, 1)
    )


RUNS = {
    "all/good/bm25_set.run": run_of(("q1", "d2", "d1"), ("q2", "d3")),
    "all/good/colbert_set.run": run_of(("q1", "d1", "d2"), ("q2", "d3")),
    "all/bad/bm25_set.run": run_of(("q1", "d9")),
    "all/half/colbert_set.run": run_of(("q1", "d2")),
    "all/readme.txt": "hello\n",
}
PATTERNS = ["one:all/{name}/bm25_*.run", "two:all/{name}/colbert_*.run"]


@pytest.fixture
def folder(tmp_path):
    for name, text in RUNS.items():
        path = tmp_path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "runs"


def packed(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


EVERY = {
    "good": {"one": "bm25_set.run", "two": "colbert_set.run"},
    "bad": {"one": "bm25_set.run"},
    "half": {"two": "colbert_set.run"},
}


@pytest.mark.parametrize("start", ["", "./"])
def test_a_folder_and_its_archive_hold_the_same(folder, tmp_path, start):
    archive = packed(tmp_path / "all.tar.gz", {start + name: text for name, text in RUNS.items()})
    for place in (folder, archive):
        with systems.opened(place, PATTERNS, ["one", "two"]) as files:
            assert files.others == 1
            named = {n: {c: p.name for c, p in runs.items()} for n, runs in files.runs.items()}
            assert named == EVERY
            assert files.runs["good"]["two"].read_text() == RUNS["all/good/colbert_set.run"]
            unpacked = files.runs["good"]["one"]
    assert not unpacked.exists()


def test_a_pattern_may_name_the_collection(folder):
    def runs(pattern, *collections):
        with systems.opened(folder, [pattern], collections) as files:
            return {name: sorted(runs) for name, runs in files.runs.items()}

    assert runs("all/{name}/{collection}_set.run", "bm25", "colbert") == {
        "bad": ["bm25"], "good": ["bm25", "colbert"], "half": ["colbert"],
    }  # fmt: skip
    assert runs("all/{name}/bm25_set.run", "only") == {"bad": ["only"], "good": ["only"]}
    (folder / "x").mkdir()
    for name in "xy":
        (folder / "x" / f"{name}.run").write_text(RUNS["all/bad/bm25_set.run"])
    assert runs("{name}/{name}.run", "only") == {"x": ["only"]}


def check_refused(place, pattern, named, collections=("one",)):
    with (
        pytest.raises((ConfigError, rankings.FormatError), match=named),
        systems.opened(place, [pattern], collections),
    ):
        pass


WRONG = {
    "one:all/*/bm25_set.run": "{name}",
    "all/{name}/bm25_set.run": "collection",
    "one:{name}.run": "all/bad",
    "one:all/{name}/*.run": "'good' for one",
}


@pytest.mark.parametrize("pattern", WRONG)
def test_patterns_that_are_not_clear_are_refused(folder, pattern):
    check_refused(folder, pattern, WRONG[pattern], ("one", "two"))


@pytest.mark.parametrize("path", ["../escaped.run", "/escaped.run", "all/../../escaped.run"])
def test_an_archive_that_leads_out_is_refused(tmp_path, path):
    archive = packed(tmp_path / "a.tgz", {"all/good/bm25_set.run": "", path: "q Q0 d 1 1 x\n"})
    check_refused(archive, "one:all/{name}/bm25_*.run", re.escape(repr(path)))
    assert not [p for p in tmp_path.rglob("*") if "escaped" in p.name]


def test_links_are_not_followed_and_damage_is_told(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("q Q0 d 1 1 x\n")
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"all/link{kind.decode()}/bm25_set.run")
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
    check_refused(archive, "one:all/{name}/bm25_set.run", "no file")
    good = packed(tmp_path / "b.tar.gz", RUNS).read_bytes()
    (tmp_path / "c.tar.gz").write_bytes(good[: len(good) // 2])
    for name in ("c.tar.gz", "secret"):
        check_refused(tmp_path / name, "one:all/{name}/bm25_set.run", name)


@pytest.mark.slow
def test_import_of_an_archive_registers_what_it_can(folder, tmp_path, monkeypatch, capsys):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    docs = "".join(f'{{"_id": "d{i}", "text": "stone {i}"}}\n' for i in range(1, 5))
    local = tmp_path / "data"
    local.mkdir()
    (local / "corpus.jsonl").write_text(docs)
    (local / "queries.tsv").write_text("q1\triver\nq2\tgarden\n")
    (local / "qrels.txt").write_text("q1 0 d2 1\nq2 0 d3 1\n")
    first = tmp_path / "first.run"
    first.write_text(run_of(("q1", "d1", "d2"), ("q2", "d4", "d3")))
    command = [
        *("--archive", str(packed(tmp_path / "all.tar.gz", RUNS)), "--name", "{name}-x"),
        *("--local", str(local), "--first-stage", str(first), "--measures", "RR"),
        *("--collection", "trec_dl", "dl19_bm25", "dl19_colbert"),
        *(f"tracking.uri=sqlite:///{tmp_path}/ml.db", f"store={tmp_path}/store", "--"),
        *("dl19_bm25:all/{name}/bm25_*.run", "dl19_colbert:all/{name}/colbert_*.run"),
    ]
    with pytest.raises(SystemExit, match=r"(?s)bad-x: .*'d9'.*'q1'"):
        commands.import_(command)
    said = capsys.readouterr().out
    assert "3 systems; 1 other" in said and "Registered 2 of 3" in said
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/ml.db")
    experiment = client.get_experiment_by_name("rdx").experiment_id
    runs = client.search_runs([experiment])
    metrics = {run.data.tags["rdx.imported"]: run.data.metrics for run in runs}
    assert set(metrics) == {"good-x", "half-x"}
    assert metrics["good-x"]["RR/run_good-x/dl19_bm25"] == 1
    assert metrics["good-x"]["RR/run_good-x/dl19_colbert"] == 0.75
    assert metrics["half-x"]["RR/run_half-x/dl19_colbert"] == 0.5
    assert not list(Path(tmp_path).glob("all/*"))
    with pytest.raises(ConfigError, match="{name}"):
        commands.import_([*command[:3], "x", *command[4:]])
