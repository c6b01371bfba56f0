"""`python -m rdx evaluate` and `import`, as they are typed."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import pytest

from analysis.costs import costs
from analysis.rows import Row
from analysis.spec import BYTES, SECONDS
from rdx import commands, facts, pipeline, rankings, stages, systems
from rdx.config import ConfigError
from rdx.rankings import FormatError

DL19 = Path(__file__).parents[3] / "shared/data/trec-dl-2019"
DOCS = {f"d{i}": f"stone number {i}" for i in range(12)}
QUERIES = {"q1": "river stone", "q2": "garden stone", "q3": "stone", "unjudged": "sand"}
FIRST = {"q1": "d1 d2 d3 d4", "q2": "d5 d6", "q3": "d9 d8 d7"}


def trial_of(folder):
    return facts.parse(facts.TrialFacts, (Path(folder) / "trial.json").read_bytes())


def write_run(path, lists):
    lines = [f"{q} Q0 {d} {i} {10 - i} x" for q, docs in lists.items()
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
    "absent.run": (FileNotFoundError, "absent.run"),
    "qrels.txt": (FormatError, "qrels.txt:1"),
    "first.run --measures nDGC@10": (ConfigError, "nDGC@10"),
    "first.run --collection nonsense": (ConfigError, "nonsense.*trec_dl"),
    "first.run --collection evaluation.kk=3": (ConfigError, "evaluation.kk.*'k'"),
    "first.run --collection evaluation=tirex": (ConfigError, "antique-test"),
    "first.run --collection evaluation=ir_datasets "
    "evaluation.collections.ir_datasets.data.id=vaswanni": (Exception, "vaswanni.*vaswani"),
    "first.run --collection evaluation.ties=expected --measures AP": (ConfigError, "AP"),
    "first.run --first-stage gone.run": (FileNotFoundError, "gone.run"),
    "strange.run": (FormatError, "strange.run"),
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_measured_is_refused(files, command):
    write_run(files / "strange.run", {"elsewhere": "d1"})
    words = command.split()
    if "--collection" not in words:
        words += COLLECTION
    error, names = REFUSED[command]
    with pytest.raises(error, match=names):
        commands.evaluate(words)


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
    trial = trial_of(folder)
    assert trial.signature == tags["rdx.signature"]
    assert (trial.levels, trial.seed, trial.health) == ({}, 0, "ok")
    sha = hashlib.sha256((files / "better.run.gz").read_bytes()).hexdigest()
    of_files = {"files": facts.ImportedFile("better.run.gz", sha, "score")}
    assert trial.imported == facts.Imported(
        **{"name": "Better", "file": "better.run.gz", "sha256": sha, "files": of_files},
        source="us",
        oddities={"files": {"queries_not_in_collection": facts.Count(1, 3)}},
    )
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
    with pytest.raises(FormatError, match="1 of its 4 passages .*'d0' of query 'q1'"):
        commands.import_(words)
    commands.import_([*words, "--outside", "drop", "--measures", "RR"])
    [run] = imported("wide")
    assert run.data.metrics["RR/run_wide/files"] == pytest.approx(2 / 3)  # d2 leads now
    with pytest.raises(ConfigError, match="tracking=none"):
        commands.import_([*words[:3], *COLLECTION, "tracking=none", "--first-stage", "first.run"])


def test_an_import_is_comparable_with_a_trained_cell(world, tmp_path, monkeypatch, mlflow):
    """Digest, depth and first stage are those that the pipeline writes."""
    uri, imported = mlflow
    overrides = world.overrides(tmp_path / "store", "prefinetune=none", "loss=none",
                                "evaluation.interpolate=false")  # fmt: skip
    [cell] = stages.cells(overrides)
    pipeline.run(cell)
    [folder] = (tmp_path / "store" / "evaluate").glob("*[0-9a-f]")
    trained = trial_of(folder).collections["files"]
    run = folder / "runs" / "files.first_stage.run.gz"
    chosen = [o for o in overrides if "evaluation" in o and "interpolate" not in o]
    words = ["--collection", *chosen, f"store={tmp_path / 'store'}", uri]
    commands.import_([str(run), "--name", "BM25", *words])
    [record] = imported("BM25")
    imported_facts = trial_of(urlparse(record.info.artifact_uri).path).collections["files"]
    for key in ("digest", "k", "first_stage", "queries", "ceiling", "reason"):
        assert getattr(imported_facts, key) == getattr(trained, key), key
    first = record.data.metrics
    assert first["RR_at_10/run_BM25/files"] == first["RR_at_10/first_stage/files"]


def test_a_cell_shows_pools_and_costs_where_asked(world, tmp_path):
    overrides = world.overrides(
        *(tmp_path / "store", "prefinetune=none", "loss=none", "evaluation.interpolate=false"),
        *("evaluation.collections.files.corpus=toy", "evaluation.paper_compat=true"),
        *("evaluation.efficiency=2", "evaluation.efficiency_queries=3", "evaluation.ties=expected"),
    )
    [cell] = stages.cells(overrides)
    pipeline.run(cell)
    [folder] = (tmp_path / "store" / "evaluate").glob("*[0-9a-f]")
    trial = trial_of(folder)
    own, pool = (trial.collections[name] for name in ("files", "toy.pooled"))
    assert pool.pooled == ("files",) and pool.colliding_queries == 0
    assert own.ties.rule == "expected" and own.shared == ()
    if not own.missing_queries:  # then a pool of one set is that set
        assert pool.ceiling == own.ceiling
    means, measure = trial.over_collections, "student/nDCG@10"
    assert means.collections.arithmetic[measure] == pytest.approx(trial.means[f"files/{measure}"])
    assert means.paper_compat.corpora == ("toy",)
    single = trial.timing["files"].single
    assert [len(times) for times in single.seconds.values()] == [2, 2, 2]
    # the tables of costs read the same
    row = Row("S", "student", {"grid": ("g",)}, competes=True, test=True)
    cost = costs([row], {"S": ("key",)}, ["files"], {"key": trial})
    assert cost["S", "files", SECONDS].mean == pytest.approx(single.latency.mean)
    assert cost["S", "files", BYTES].mean == single.peak_memory.rss
    # what a stored cell measured is what `evaluate --efficiency` reads
    [cost] = systems.timings(tmp_path / "store", [trial.signature[:6]])
    assert cost.timing == single and cost.ratio is None


def test_costs_of_cells_are_compared(tmp_path, capsys):
    def cell(name, seconds):
        folder = tmp_path / "evaluate" / name
        folder.mkdir(parents=True)
        single = facts.QueryTiming(
            seconds={q: (s,) for q, s in seconds.items()}, pairs={}, pairs_per_second=50.0,
            latency=facts.Latency(p50=0.1, p95=0.2, mean=0.1), peak_memory=facts.Peak(rss=10**9),
            energy=facts.Energy(), warm_up=3, repetitions=1, precision="fp32", max_tokens=9,
            hardware=facts.Hardware(device="CPU", cpu="?", cores=2, threads=2, torch="2"),
        )  # fmt: skip
        timing = facts.Timing(
            seconds=1.0, pairs_per_second=9.0, queries=2, texts=4, texts_truncated=0
        )
        nothing = facts.Means(corpora=(), left_out={}, arithmetic={}, geometric={})
        trial = facts.TrialFacts(
            signature=name, signatures={}, levels={}, seed=1, health="ok", collections={}, means={},
            over_collections=facts.OverCollections(collections=nothing),
            timing={"dl19": replace(timing, single=single if seconds else None)},
        )  # fmt: skip
        (folder / "trial.json").write_text(facts.dump(trial))

    cell("aaaa", {"p": 1.0, "q": 1.0})
    cell("bbbb", {"p": 2.0, "q": 4.0})
    cell("cccc", {})
    commands.evaluate(["--efficiency", "--store", str(tmp_path), "aa", "bbbb"])
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["aa", "dl19", "100.0", "200.0", "50", "1", "-", "-", "-"]
    assert said[2].split()[-3:] == ["3", "[2,", "4]"]
    assert said[3] == "cores: 2, cpu: ?, device: CPU, threads: 2, torch: 2"
    for name, message in {"cccc": "evaluation.efficiency=3", "dddd": "0 finished cells"}.items():
        with pytest.raises(ConfigError, match=message):
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
    [cell] = stages.cells(overrides)
    pipeline.run(cell)
    [folder] = (tmp_path / "evaluate").glob("*[0-9a-f]")
    trial = trial_of(folder)
    assert trial.means["files/first_stage/nDCG@10"] == pytest.approx(0.5058, abs=5e-5)
    own = trial.collections["files"]
    assert own.queries == 43 and not own.degenerate
    assert own.judged_at_10 == own.judged_at_10_first_stage == pytest.approx(1.0)
