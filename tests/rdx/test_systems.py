"""`python -m rdx evaluate` and `import`, as they are typed."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.costs import costs
from analysis.spec import BYTES, SECONDS, Row
from rdx import commands, config, pipeline, rankings, systems

DL19 = Path(__file__).parents[3] / "shared/data/trec-dl-2019"
DOCS = {f"d{i}": f"stone number {i}" for i in range(12)}
QUERIES = {"q1": "river stone", "q2": "garden stone", "q3": "stone", "unjudged": "sand"}
FIRST = {"q1": "d1 d2 d3 d4", "q2": "d5 d6", "q3": "d9 d8 d7"}


def write_run(path, lists, tag="x"):
    lines = [f"{q} Q0 {d} {i} {10 - i} {tag}" for q, docs in lists.items()
             for i, d in enumerate(docs.split(), 1)]  # fmt: skip
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A collection in files and two runs, in the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"_id": d, "text": text}) for d, text in DOCS.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "queries.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in QUERIES.items()))
    (tmp_path / "qrels.txt").write_text("q1 0 d2 2\nq1 0 d4 1\nq2 0 d6 1\nq3 0 d0 1\n")
    write_run(tmp_path / "first.run", FIRST)
    write_run(tmp_path / "better.run.gz", {"q1": "d2 d4 d1 d3", "q2": "d6 d5", "other": "d1"})
    return tmp_path


DATA = [f"evaluation.collections.files.data.{one}" for one in
        ("corpus=corpus.jsonl", "queries=queries.tsv", "qrels=qrels.txt")]  # fmt: skip
COLLECTION = ["--collection", "evaluation=files", *DATA]


def test_evaluate_measures_runs(files, capsys):
    measures = ["--measures", "RR", "RR(rel=2)", "nDCG@2"]
    commands.evaluate(["first.run", "better.run.gz", *COLLECTION, *measures])
    said = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in said}
    # q1 2nd, q2 2nd, q3 none; the best order of each one's own passages is 1, 1, none
    ndcg = (1 / 1.5849625 * 2 / (2 + 1 / 1.5849625) + 1 / 1.5849625 + 0) / 3
    assert table["first"] == [
        *("0.3333", "0.1667", f"{ndcg:.4f}", "0.6667", f"{(0.5 + 0.5 + 0) / 3:.4f}", "3", "0"),
        "0.0%",
    ]
    assert table["better"][:3] == ["0.6667", "0.3333", "0.6667"] and table["better"][6] == "1"
    found = rankings.read_parquet("per_query.parquet")
    assert list(found.columns) == ["collection", "system", "query_id", "measure", "value"]
    assert set(found.system) == {"first", "better"} and len(found) == 2 * 3 * 3
    assert set(found.collection) == {"files"} and set(found.query_id) == {"q1", "q2", "q3"}


def test_evaluate_beside_a_first_stage(files, capsys):
    write_run(files / "wide.run", {"q1": "d2 d0", "q2": "d6"})
    more = ["evaluation.k=1", "--measures", "RR", "--out", "there.parquet"]
    commands.evaluate(["wide.run", *COLLECTION, *more, "--first-stage", "first.run"])
    said = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    assert table["wide"] == ["0.6667", "0.0000", "0.5000", "3", "1", "0.0%", "100.0%"]
    assert table["first_stage"][-1] == "0.0%"
    assert "WARNING: files is degenerate: oracle RR 0.000 < 0.1" in said
    assert (files / "there.parquet").is_file()


def test_ties_and_order_are_options(files, capsys):
    (files / "tied.run").write_text("q1 Q0 d2 1 1 x\nq1 Q0 d9 2 1 x\n")
    values = {}
    for name, more in {
        "trec_eval": [], "expected": ["evaluation.ties=expected"], "rank": ["evaluation.ties=rank"],
    }.items():  # fmt: skip
        commands.evaluate(["tied.run", *COLLECTION, *more, "--measures", "RR"])
        out = capsys.readouterr().out
        values[name] = float(out.splitlines()[1].split()[1])
        assert f"ties: {name}" in out
    expected = {"trec_eval": 0.5 / 3, "expected": 0.75 / 3, "rank": 1 / 3}
    assert values == pytest.approx(expected, abs=1e-4)
    commands.evaluate(["tied.run", *COLLECTION, "--measures", "RR", "--order", "rank"])
    assert float(capsys.readouterr().out.splitlines()[1].split()[1]) == 0.3333


REFUSED = {
    "absent.run": ["absent.run: no such file"],
    "qrels.txt": ["qrels.txt:1", "this looks like a qrels file"],
    "first.run --measures nDGC@10": ["'nDGC@10' is not a measure", "nDCG@10"],
    "first.run --collection nonsense": ["--collection nonsense", "trec_dl", "pydocs"],
    "first.run --collection evaluation.kk=3": ["evaluation.kk", "did you mean 'k'"],
    "first.run --collection evaluation=tirex": ["name one of antique-test"],
    "first.run --collection evaluation=ir_datasets "
    "evaluation.collections.ir_datasets.data.id=vaswanni": ["vaswanni", "vaswani"],
    "first.run --collection evaluation.ties=expected --measures AP": ["no closed form for AP"],
    "first.run --first-stage gone.run": ["gone.run: no such file"],
    "strange.run": ["strange.run", "none of its 1 queries"],
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_measured_is_refused(files, command):
    write_run(files / "strange.run", {"elsewhere": "d1"})
    words = command.split()
    if "--collection" not in words:
        words += COLLECTION
    with pytest.raises(SystemExit) as stopped:
        commands.evaluate(words)
    for part in REFUSED[command]:
        assert part in str(stopped.value), stopped.value


# --- import ---


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One for all tests: MLflow takes seconds to make it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'ml.db'}"


@pytest.fixture
def mlflow(files, database):
    """Where an import is recorded, and how to read it back."""
    from mlflow import MlflowClient

    def imported(name):
        client = MlflowClient(tracking_uri=database)
        experiment = client.get_experiment_by_name("rdx")
        tags = f"tags.`rdx.kind` = 'trial' and tags.`rdx.imported` = '{name}'"
        return client.search_runs([experiment.experiment_id], tags)

    return f"tracking.uri={database}", imported


def test_import_registers_a_trial(files, mlflow, capsys):
    from urllib.parse import urlparse

    uri, imported = mlflow
    words = ["--collection", "evaluation=files", *DATA, uri, "evaluation.k=4"]
    words += ["--first-stage", "first.run", "--measures", "RR"]
    for _ in range(2):  # the second time, all is there
        commands.import_(["better.run.gz", "--name", "Better", *words, "--source", "us"])
    assert "run:Better/RR" in capsys.readouterr().out
    [run] = imported("Better")
    tags = run.data.tags
    assert tags["rdx.imported"] == "Better" and tags["rdx.health"] == "ok"
    assert run.info.status == "FINISHED" and run.info.run_name == "run:Better"
    folder = urlparse(run.info.artifact_uri).path
    facts = json.loads(open(f"{folder}/trial.json").read())
    assert facts["signature"] == tags["rdx.signature"]
    assert (facts["levels"], facts["seed"], facts["health"]) == ({}, 0, "ok")
    assert facts["imported"]["name"] == "Better" and facts["imported"]["source"] == "us"
    sha = systems.Run("better.run.gz").sha256
    assert facts["imported"]["sha256"] == sha and facts["imported"]["file"] == "better.run.gz"
    files_of = {"file": "better.run.gz", "sha256": sha, "order": "score"}
    assert facts["imported"]["files"] == {"files": files_of}
    table = pd.read_parquet(f"{folder}/per_query.parquet")
    own = table[table.system == "run:Better"]
    assert dict(zip(own.query_id, own.value, strict=True)) == {"q1": 1.0, "q2": 1.0, "q3": 0.0}
    assert set(table.system) == {"run:Better", "first_stage", "oracle"}
    # other content is another trial, of the same name
    write_run(files / "better.run.gz", {"q1": "d4 d2"})
    commands.import_(["files:better.run.gz", "--name", "Better", *words])
    assert len({one.data.tags["rdx.signature"] for one in imported("Better")}) == 2


def test_a_run_of_other_candidates_is_refused_or_cut(files, mlflow):
    uri, imported = mlflow
    write_run(files / "wide.run", {"q1": "d0 d2 d1", "q2": "d6"})
    words = ["wide.run", "--name", "wide", *COLLECTION, uri, "--first-stage", "first.run"]
    with pytest.raises(SystemExit, match=r"1 of its 4 passages \(e\.g\. 'd0' of query 'q1'\)"):
        commands.import_(words)
    commands.import_([*words, "--outside", "drop", "--measures", "RR"])
    [run] = imported("wide")
    assert run.data.metrics["RR/run_wide/files"] == pytest.approx(2 / 3)  # d2 leads now
    with pytest.raises(SystemExit, match="tracking=none"):
        commands.import_([*words[:3], *COLLECTION, "tracking=none", "--first-stage", "first.run"])


def test_an_import_is_comparable_with_a_trained_cell(world, tmp_path, monkeypatch, mlflow):
    """Digest, depth and first stage are those that the pipeline writes."""
    uri, imported = mlflow
    overrides = world.overrides(tmp_path / "store", "prefinetune=none", "loss=none",
                                "evaluation.interpolate=false")  # fmt: skip
    [cell] = config.cells(overrides)
    trained = pipeline.run({**cell.cfg, "grid": ""}, cell.levels)["collections"]["files"]
    [folder] = (tmp_path / "store" / "evaluate").glob("*[0-9a-f]")
    run = folder / "runs" / "files.first_stage.run.gz"
    chosen = [o for o in overrides if "evaluation" in o and "interpolate" not in o]
    words = ["--collection", *chosen, f"store={tmp_path / 'store'}", uri]
    commands.import_([str(run), "--name", "BM25", *words])
    [record] = imported("BM25")
    facts = json.loads(open(record.info.artifact_uri + "/trial.json").read())
    for key in ("digest", "k", "first_stage", "queries", "ceiling", "degenerate"):
        assert facts["collections"]["files"][key] == trained[key], key
    first = record.data.metrics
    assert first["RR_at_10/run_BM25/files"] == first["RR_at_10/first_stage/files"]


def test_a_cell_shows_pools_and_costs_where_asked(world, tmp_path):
    overrides = world.overrides(
        *(tmp_path / "store", "prefinetune=none", "loss=none", "evaluation.interpolate=false"),
        *("evaluation.collections.files.corpus=toy", "evaluation.paper_compat=true"),
        *("evaluation.efficiency=2", "evaluation.efficiency_queries=3", "evaluation.ties=expected"),
    )
    [cell] = config.cells(overrides)
    summary = pipeline.run({**cell.cfg, "grid": ""}, cell.levels)
    own, pool = (summary["collections"][name] for name in ("files", "toy.pooled"))
    assert pool["pooled"] == ["files"] and pool["colliding_queries"] == 0
    assert own["ties"]["rule"] == "expected" and own["shared"] == []
    if not own["missing_queries"]:  # then a pool of one set is that set
        assert pool["ceiling"] == own["ceiling"]
    [folder] = (tmp_path / "store" / "evaluate").glob("*[0-9a-f]")
    means = json.loads((folder / "trial.json").read_text())["over_collections"]
    measure = "student/nDCG@10"
    assert means["collections"]["arithmetic"][measure] == pytest.approx(
        summary["means"][f"files/{measure}"]
    )
    assert means["paper_compat"]["corpora"] == ["toy"]
    single = json.loads((folder / "trial.json").read_text())["timing"]["files"]["single"]
    assert [len(one) for one in single["seconds"].values()] == [2, 2, 2]
    # the tables of costs read the same
    trial = json.loads((folder / "trial.json").read_text())
    row = Row("S", "student", ("g",), competes=True, test=True)
    cost = costs([row], {"S": ("key",)}, ["files"], {"key": {**trial, "seed": 1}})
    assert cost["S", "files", SECONDS].mean == pytest.approx(single["latency"]["mean"])
    assert cost["S", "files", BYTES].mean == single["peak_memory"]["rss"]
    # what a stored cell measured is what `evaluate --efficiency` reads
    [row] = systems.timings(tmp_path / "store", [summary["signature"][:6]])
    assert row["pairs"] == single["pairs"] and row["ratio"] is None


def test_costs_of_cells_are_compared(tmp_path, capsys):
    def cell(name, seconds):
        folder = tmp_path / "evaluate" / name
        folder.mkdir(parents=True)
        single = {
            "seconds": {q: [s] for q, s in seconds.items()}, "pairs_per_second": 50.0,
            "latency": {"p50": 0.1, "p95": 0.2}, "peak_memory": {"rss": 10**9, "cuda": None},
            "energy": {"joules_per_query": None}, "hardware": {"device": "CPU", "cores": 2},
        }  # fmt: skip
        timing = {"dl19": {"seconds": 1.0, **({"single": single} if seconds else {})}}
        (folder / "trial.json").write_text(json.dumps({"timing": timing}))

    cell("aaaa", {"p": 1.0, "q": 1.0})
    cell("bbbb", {"p": 2.0, "q": 4.0})
    cell("cccc", {})
    commands.evaluate(["--efficiency", "--store", str(tmp_path), "aa", "bbbb"])
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["aa", "dl19", "100.0", "200.0", "50", "1", "-", "-", "-"]
    assert said[2].split()[-3:] == ["3", "[2,", "4]"] and said[3] == "cores: 2, device: CPU"
    for name, message in {"cccc": "evaluation.efficiency=3", "dddd": "0 finished cells"}.items():
        with pytest.raises(SystemExit, match=message):
            commands.evaluate(["--efficiency", "--store", str(tmp_path), name])


@pytest.mark.skipif(not DL19.exists(), reason="no TREC DL 2019 data here")
def test_a_cell_is_evaluated_on_dl19(world, tmp_path):
    data = [f"evaluation.collections.files.data.{one}" for one in (
        f"corpus={DL19}/corpus.jsonl", f"queries={DL19}/queries.tsv", f"qrels={DL19}/qrels.txt",
    )]  # fmt: skip
    replaced = ("evaluation.collections.files.data", "sampler@evaluation")
    overrides = [
        *(o for o in world.overrides(tmp_path, "prefinetune=none", "loss=none")
          if not o.startswith((*replaced, "evaluation.k", "evaluation.interpolate"))),
        *data,
        f"evaluation.collections.files.first_stage.run={DL19}/runs/bm25-pyserini.run",
        "evaluation.k=10",
    ]  # fmt: skip
    [cell] = config.cells(overrides)
    summary = pipeline.run({**cell.cfg, "grid": ""}, cell.levels)
    assert summary["means"]["files/first_stage/nDCG@10"] == pytest.approx(0.5058, abs=5e-5)
    facts = summary["collections"]["files"]
    assert facts["queries"] == 43 and not facts["degenerate"]
    assert facts["judged@10"] == facts["judged@10_first_stage"] == pytest.approx(1.0)
