"""Mistakes of users end in one line that names file, line or key; exit status, no traceback."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import analysis.__main__ as analysis
import rdx.__main__ as program
from tests.rdx.conftest import ROOT


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    """The working folder: files and folders with faults in them."""
    monkeypatch.chdir(tmp_path)
    corpus = (world.folder / "corpus.tsv").read_bytes()
    for name, content in {
        "empty.jsonl": b"",
        "bad.jsonl": b'{"_id":"d1","text":"a"}\n{bad\n',
        "latin.tsv": "d1\tKäse\n".encode("latin1"),
        "twice.tsv": corpus + b"d1\tagain\n",
        "columns.tsv": b"d1\ta\tb\n",
        "plain.tsv.gz": b"d1\thello\n",
        "plain.tsv.zst": b"d1\thello\n",
        "cut.tsv.gz": gzip.compress(corpus)[:100],
        "three.txt": b"q1 0 d1\n",
        "unknown.txt": b"nosuch 0 d1 1\n",
        "empty.txt": b"",
        "five.run": b"q0 Q0 d1 1 2.0\n",
        "other.run": b"nosuch Q0 d1 1 2.0 x\n",
        "nan.run": b"q0 Q0 d1 1 nan x\n",
        "store_file": b"",
    }.items():
        Path(name).write_bytes(content)
    for name in ("folder.tsv", "no_config", "no_type"):
        Path(name).mkdir()
    Path("no_type/config.json").write_text(json.dumps({"layers": 2}))
    for name, kept in {"no_words": ("config.json", "model.safetensors"), "cut": ()}.items():
        shutil.copytree(world.folder / "bert", name)
        for path in [p for p in Path(name).iterdir() if kept and p.name not in kept]:
            path.unlink()
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-50])
    return world


def ends(arguments, monkeypatch, capfd):
    """Exit status and the lines that tell errors."""
    monkeypatch.setattr(sys, "argv", ["rdx", *arguments])
    with pytest.raises(SystemExit) as end:
        program.main()
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    lines = [x for x in printed.err.splitlines() if "rdx: " in x or "rdx " in x]
    return end.value.code, lines


def cell_with(world, *more):
    """A cell with other files for training and test."""
    again = [f"evaluation.collections.files.{o}" for o in more if o.startswith("data.")]
    return [*world.overrides("store"), *more, *again]


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("data.corpus=empty.jsonl", "empty.jsonl: "),
        ("data.corpus=bad.jsonl", "bad.jsonl:2: "),
        ("data.corpus=latin.tsv", "latin.tsv:1: "),
        ("data.corpus=twice.tsv", "twice.tsv:31: "),
        ("data.corpus=columns.tsv", "columns.tsv:1: "),
        ("data.corpus=plain.tsv.gz", "plain.tsv.gz: "),
        ("data.corpus=plain.tsv.zst", "plain.tsv.zst: "),
        ("data.corpus=cut.tsv.gz", "cut.tsv.gz: "),
        ("data.queries=latin.tsv", "latin.tsv:1: "),
        ("data.qrels=three.txt", "three.txt:1: "),
        ("data.qrels=unknown.txt", "unknown.txt:1: "),
        ("data.qrels=empty.txt", "empty.txt: "),
        ("data.dev=0.9999", "data.dev=0.9999"),
    ],
)
def test_a_fault_in_a_file_is_one_line_and_the_traceback_is_in_a_log(
    place, override, where, monkeypatch, capfd
):
    status, [line] = ends(cell_with(place, override), monkeypatch, capfd)
    assert status == 1 and line.startswith("rdx: ") and where in line
    [log] = Path("store/evaluate").glob("*.log")
    assert str(log) in line and "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("data.corpus=folder.tsv", ["data.corpus=folder.tsv"]),
        ("trainer.batch=0", ["trainer.batch=0"]),
        ("seed=${nope}", ["seed", "nope"]),
        ("store=store_file", ["store_file"]),
        ("loss=rankent", ["loss=rankent", "'ranknet'"]),
        ("trackin.uri=x", ["trackin.uri"]),
        ("store=", ["store: "]),
        ("student.model=/no/such/folder", ["student", "model='/no/such/folder'"]),
        ("student.model=./none", ["student", "model='./none'"]),
        ("student.model=no_config", ["student.model=no_config", "config.json"]),
        ("student.model=no_type", ["student.model=no_type", "config.json"]),
        ("student.model=no_words", ["student.model=no_words", "tokenizer"]),
        ("student.model=cut", ["student.model=cut", "model.safetensors"]),
        ("data.dev=0", ["evaluation.interpolate=true", "data.dev="]),
        ("evaluation.interpolate=false data.dev=0 trainer.validate_every=1", ["validate_every=1"]),
        ("depth.queries=99", ["depth.queries=99"]),
        ("prefinetune.queries=99", ["prefinetune.queries=99"]),
        ("sampler=recorded sampler.run=other.run", ["other.run: "]),
        ("student.model=five.run", ["student", "model='five.run'"]),
        ("sampler=recorded sampler.run=five.run", ["five.run:1: "]),
        ("teacher=recorded teacher.run=nan.run", ["nan.run:1: "]),
        ("~seed", ["~seed"]),
        ("~loss", ["~loss"]),
        ("~tracking", ["~tracking"]),
        ("experiments=demo", ["+experiments=demo"]),
        ("data.corpus=my file.jsonl", ["file.jsonl", "'data.corpus=my file.jsonl'"]),
        ("data.name=Käse", ["""'data.name="Käse"'"""]),
        ("--multirn", ["--multirn", "'--multirun'"]),
        ("--cfg foo", ["foo", "job"]),
        ("hydra/launcher=nope", ["hydra/launcher=nope", "joblib"]),
        ("hydra.run.dirr=x", ["hydra.run.dirr"]),
        ("-m hydra/launcher=joblib hydra.launcher.slots=0", ["hydra.launcher.slots=0"]),
    ],
)
def test_a_wrong_value_is_one_line(place, arguments, named, monkeypatch, capfd):
    status, [line] = ends(cell_with(place, *arguments.split()), monkeypatch, capfd)
    assert status == 1 and [word for word in named if word not in line] == [], line


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        ("statu", 1, ["statu", "'status'", "retry"]),
        ("statu --json", 1, ["statu", "'status'"]),
        ("help", 1, ["help", "doctor"]),
        ("status --sore x", 2, ["--sore", "'--store'"]),
        ("status nope", 1, ["nope"]),
        ("plan loss=nope", 1, ["loss=nope", "ranknet"]),
        ("plan --difference x", 2, ["--difference"]),
        ("data ftch", 2, ["ftch", "fetch"]),
        ("export abc", 2, ["out"]),
        ("evaluate gone.run", 1, ["gone.run"]),
        ("evaluate five.run --local . --collection nope", 1, ["nope"]),
        ("teach --against gone.run", 1, ["gone.run"]),
        ("sync x", 1, ["'x'"]),
    ],
)
def test_a_wrong_verb_is_one_line(place, arguments, status, named, monkeypatch, capfd):
    ended, [line] = ends(arguments.split(), monkeypatch, capfd)
    assert ended == status and [word for word in named if word not in line] == [], line


EXPERIMENTS = {
    "cut": ("spec:\n  grid:\n    a: [1\n  b: 2\n", "cut.yaml:4: "),
    "number": ("spec: 3\n", "number.yaml: spec: "),
    "latin": (b"spec:\n  claim: K\xe4se\n", "latin.yaml: "),
    "empty": ("", "empty.yaml: "),
    "list": ("- 1\n", "list.yaml: "),
    "bare": ("spec: {name: x}\n", "bare.yaml: "),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_fault_in_an_experiment_names_its_file_and_line(tmp_path, name, monkeypatch, capfd):
    (tmp_path / "experiments").mkdir()
    content, where = EXPERIMENTS[name]
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "experiments" / f"{name}.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    status, [line] = ends([f"+experiments={name}"], monkeypatch, capfd)
    assert status == 1 and where in line and "traceback" not in line
    assert analysis.main([name]) == 2
    assert where.partition("yaml")[0] in capfd.readouterr().err


def test_a_fault_of_the_program_names_its_class_and_its_log(place, monkeypatch, capfd):
    def broken(*_):
        raise KeyError("surprise")

    monkeypatch.setattr(program.config, "split", broken)
    status, [line] = ends(["seed=2"], monkeypatch, capfd)
    assert status == 1 and "KeyError: 'surprise'" in line
    log = Path(line.split("traceback: ")[1].split(",")[0])
    assert "in broken" in log.read_text()
    log.unlink()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(KeyError):
        program.main()


def test_a_sweep_over_all_options_and_a_quoted_value(place, monkeypatch):
    cells = program.config.cells(["loss=glob(list*)"])
    assert [cell.levels["loss"] for cell in cells] == ["list_mle", "listnet"]
    [cell] = program.config.cells([*place.overrides("store"), 'data.name="Käse, (b"'])
    assert cell.cfg["data"]["name"] == "Käse, (b"


@pytest.mark.slow
def test_the_table_of_a_grid_tells_the_same(place, rdx, tmp_path):
    line = [*place.overrides("store"), "data.corpus=bad.jsonl,twice.tsv"]
    done = rdx(["-m", *line], tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "failed: bad.jsonl:2: " in done.stdout and "failed: twice.tsv:31: " in done.stdout


def stopped(command, folder, after, number=signal.SIGINT):
    """The end of a program that gets a signal some time after its start, and what it printed."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    time.sleep(after)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


@pytest.mark.parametrize(
    ("launcher", "after"),
    [
        ("basic", 0.25),
        ("basic", 2.0),
        pytest.param("basic", 0.8, marks=pytest.mark.slow),
        pytest.param("joblib", 0.8, marks=pytest.mark.slow),
        pytest.param("joblib", 2.0, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_a_grid_with_one_line(place, tmp_path, after, launcher):
    more = ("seed=1,2,3", "budget.epochs=2000", f"hydra/launcher={launcher}")
    command = ["rdx", "-m", *place.overrides("store"), *more]
    status, printed = stopped(command, tmp_path, after)
    assert status == 130, printed
    assert "Traceback" not in printed and printed.count("Ctrl-C") == 1


def test_sigterm_ends_with_143(place, tmp_path):
    command = ["rdx", *place.overrides("store"), "budget.epochs=2000"]
    status, printed = stopped(command, tmp_path, 1.0, signal.SIGTERM)
    assert status == 143 and "Traceback" not in printed


@pytest.mark.slow
def test_an_analysis_without_trials_is_one_line(rdx, tmp_path):
    done = rdx(["demo"], tmp_path, module=("-m", "analysis"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "python -m rdx +experiments=demo" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    code = "from rdx import faults\nwith faults.ended():\n    while True: print('line' * 1000)\n"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings
    )
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b"" and writer.wait(timeout=30) == 1
