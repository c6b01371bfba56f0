"""`python -m rdx teach`, as it is typed, with an LLM service on loopback."""

import json
import os
import re
import subprocess
import sys

import pytest
from faulty_server import FaultyServer, always, answer, best_first, error, per_body, shown
from served_model import saved_smollm2, transformers_serve

from rdx import commands, rankings
from rdx.config import ROOT, ConfigError
from rdx.faults import line
from rdx.store import results
from rdx.teachers import Fatal

TEXTS = {f"d{i}": f"stone number {i} of the {'garden' if i % 2 else 'river'}" for i in range(12)}
QUERIES = {"q1": "river stone", "q2": "garden stone", "q3": "stone"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A collection in files, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    lines = [json.dumps({"_id": d, "text": text}) for d, text in TEXTS.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "queries.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in QUERIES.items()))
    (tmp_path / "qrels.txt").write_text("q1 0 d2 2\nq1 0 d4 1\nq2 0 d3 1\nq3 0 d9 1\n")
    return tmp_path


def overrides(server, *more):
    folder = ["data.corpus=corpus.jsonl", "data.queries=queries.tsv", "data.qrels=qrels.txt"]
    test = [f"evaluation.collections.files.{override}" for override in folder]
    return [
        *("data=files", *folder, "evaluation=files", *test, "tracking=none", "depth.k=6"),
        "sampler@evaluation.collections.files.first_stage=bm25",
        *("evaluation.k=6", "teacher=rankgpt", "teacher.backend.model=toy"),
        *(f"teacher.backend.base_url={server.url}", "teacher.window=4", "teacher.stride=2"),
        *("teacher.backend.backoff=0.01", "prefinetune=none", "depth.queries=null", *more),
    ]


def test_teach_labels_and_prints_the_audit(files, capsys):
    with FaultyServer() as server:
        commands.teach(overrides(server))
        asked = len(server.asked)
        first = capsys.readouterr().out
        commands.teach(overrides(server))
        assert len(server.asked) == asked  # stored
    (folder,) = results(files / "store" / "teach")
    assert re.search(r"Lists +3: 100\.0% ok; 0 left out", first) and folder.name in first
    taught = rankings.read_parquet(folder / "teacher.parquet")
    assert len(taught) == 18 and set(taught.state) == {"ok"}
    audit = json.loads((folder / "audit.json").read_text())
    assert audit["lists"]["counts"]["ok"] == 3 and audit["windows"]["answers"] == asked
    for path in files.rglob("*"):
        if path.is_file():
            assert b"sk-very-secret" not in path.read_bytes(), path


def test_what_failed_is_asked_again_and_only_that(files, capsys):
    def q1_fails(asked):
        text = asked.body["messages"][-1]["content"]
        return error(503) if "river stone" in text else per_body()(asked)

    with FaultyServer(q1_fails) as server:
        quick = ["teacher.backend.tries=1"]
        commands.teach(overrides(server, *quick))
        assert "66.7% ok, 33.3% failed; 1 left out" in capsys.readouterr().out
        good = len(server.asked) - 1
        server.behave = per_body()
        commands.teach(overrides(server, *quick))  # the ranking is stored as it is
        assert len(server.asked) == good + 1
        commands.teach([*overrides(server, *quick), "--again"])
        assert "100.0% ok; 0 left out" in capsys.readouterr().out
        assert len(server.asked) == good + 1 + good // 2


def test_export_and_against(files, capsys):
    with FaultyServer() as server:
        commands.teach([*overrides(server), "--export", "out"])
        commands.teach([*overrides(server), "--against", "out/teacher.run.gz"])
    assert "RBO 1.000, Kendall tau 1.000 (3 lists, 100%" in capsys.readouterr().out
    run = rankings.read_trec(files / "out" / "teacher.run.gz", order="rank")
    assert len(run) == 18
    answers = [json.loads(line) for line in (files / "out" / "answers.jsonl").open()]
    assert len(answers) == len(server.asked) and all("answer" in row for row in answers)
    manifest = json.loads((files / "out" / "manifest.json").read_text())
    assert "127.0.0.1" not in json.dumps([answers, manifest])


def test_calibrate_compares_with_published_values(files, capsys):
    published = ["+teacher.published.files=0.99", "teacher.window=6", "teacher.stride=3"]
    with FaultyServer() as server:
        commands.teach([*overrides(server, *published), "--calibrate"])
        said = capsys.readouterr().out
        first = server.asked[0].body["messages"]
    # one window: the ranking is by merit; the first list's value by hand
    assert "3 queries" in said and "0.9900" in said
    texts = shown(first)
    assert len(texts) == 6 and len(best_first(list(texts.values()))) == 6
    value = float(said.split("teacher ")[1].split()[0])
    half = float(said.split("+- ")[1].split()[0])
    assert ("WARNING" in said) == (abs(value - 0.99) > half)


def test_calibrate_is_right_about_a_perfect_and_a_reversing_teacher(files, capsys):
    def relevant_first(asked):
        texts = shown(asked.body["messages"])
        best = [i for i, t in texts.items() if "number 2 " in t or "number 4 " in t]
        best += [i for i, t in texts.items() if "number 3 " in t or "number 9 " in t]
        order = [*best, *(i for i in texts if i not in best)]
        return answer(" > ".join(f"[{i}]" for i in order))

    one_window = ["teacher.window=6", "teacher.stride=3"]
    with FaultyServer(relevant_first) as server:
        commands.teach([*overrides(server, *one_window), "--calibrate"])
    said = capsys.readouterr().out
    assert "teacher.published.files" in said
    teacher = float(said.split("teacher ")[1].split()[0])
    oracle = float(said.split("oracle ")[1].split(",")[0])
    assert 0 < teacher <= oracle


@pytest.mark.parametrize(
    ("more", "error", "key"),
    [
        (["teacher.windw=3"], ConfigError, "teacher.windw"),
        (["teacher.stride=9"], ConfigError, "teacher.stride=9"),
        (["teacher.prompt=no_such"], ConfigError, "no_such"),
        (["teacher.caps.cost=-1"], ConfigError, "teacher.caps.cost"),
        (["--against", "no.run"], FileNotFoundError, "no.run"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(files, more, error, key):
    with FaultyServer() as server:
        with pytest.raises(error, match=key):
            commands.teach([*overrides(server), *more])
        assert not server.asked


def test_a_wrong_key_ends_with_a_clear_message_and_without_the_key(files):
    with FaultyServer(always(error(401, "wrong key sk-very-secret"))) as server:
        with pytest.raises(Fatal) as end:
            commands.teach(overrides(server))
    assert "OPENAI_API_KEY" in line(end.value) and "sk-very-secret" not in line(end.value)


@pytest.mark.slow
def test_a_grid_of_teachers_from_the_command_line(files):
    with FaultyServer() as server:
        command = [sys.executable, "-m", "rdx", "teach", *overrides(server)]
        done = subprocess.run(
            [*command, "teacher.passes=1,2"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 left out") == 2
    assert len(results(files / "store" / "teach")) == 2


@pytest.mark.slow
def test_a_real_service_labels_real_passages(tmp_path, monkeypatch, capsys):
    """A 135 M model orders badly, but every list gets a state and every answer is kept."""
    monkeypatch.chdir(tmp_path)
    saved_smollm2(tmp_path / "smollm2")
    with transformers_serve(str(tmp_path / "smollm2"), tmp_path / "log") as url:
        small = ["depth.queries=3", "depth.k=4", "teacher.window=4", "teacher.stride=2"]
        command = [
            *("tracking=none", "teacher=rankgpt", f"teacher.backend.model={tmp_path}/smollm2"),
            *(f"teacher.backend.base_url={url}", "teacher.prompt=single_turn", *small),
            *("teacher.passage_words=30", "teacher.concurrency=2", "teacher.tries=2"),
        ]
        commands.teach(command)
        strict = capsys.readouterr().out
        commands.teach([*command, "teacher.parse=lenient"])
        lenient = capsys.readouterr().out
    rows = [json.loads(line) for f in (tmp_path / "store/ledger").iterdir() for line in f.open()]
    assert len(rows) >= 3 and all(row["output_tokens"] > 0 for row in rows)
    assert re.search("Lists +3:", strict) and "0 left out" in lenient
    folders = results(tmp_path / "store" / "teach")
    assert len(folders) == 2
    for folder in folders:
        taught = rankings.read_parquet(folder / "teacher.parquet")
        for _, rows in taught.groupby("query_id"):
            assert sorted(rows.teacher_rank) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    "score",
    [
        ["teacher.backend.score=first_token", "teacher.prompt=first_token"],
        ["teacher.backend.score=generate", "teacher.parse=lenient"],
    ],
    ids=["first_token", "generate"],
)
def test_a_local_model_labels_real_passages(tmp_path, monkeypatch, capsys, score):
    monkeypatch.chdir(tmp_path)
    small = ["depth.queries=3", "depth.k=6", "teacher.window=4", "teacher.stride=2"]
    model = "teacher.backend.model=asset:SmolLM2-135M-Instruct"
    commands.teach(["tracking=none", "teacher=rankzephyr", model, *score, *small])
    said = capsys.readouterr().out
    assert "0 left out" in said and re.search("Windows +6:", said)
    if "first_token" in score[0]:
        assert "100.0% ok" in said


@pytest.mark.slow
def test_the_audit_is_in_mlflow(files):
    from mlflow import MlflowClient

    with FaultyServer() as server:
        tracked = [o for o in overrides(server) if o != "tracking=none"]
        commands.teach([*tracked, "tracking.system_metrics=false"])
    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("rdx")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`rdx.kind` = 'trial'")
    (folder,) = results(files / "store" / "teach")
    audit = json.loads((folder / "audit.json").read_text())
    metrics = run.data.metrics
    assert run.info.status == "FINISHED" and run.data.tags["rdx.signature"] == folder.name
    assert metrics["lists/shares/ok"] == 1.0 and metrics["windows/answers"] == len(server.asked)
    measured = audit["effectiveness"]["usable"]["teacher"]
    assert metrics["effectiveness/usable/teacher"] == pytest.approx(measured)
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"audit.json", "teacher.parquet", "windows.parquet", "config.yaml"} <= names
    assert "sk-very-secret" not in json.dumps(run.to_dictionary())
