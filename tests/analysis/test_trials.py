import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.stored import NoTrialsError, TrialError
from analysis.trials import COLUMNS, collect, imported_as, log_report
from rdx.config import Cell
from rdx.facts import dump
from tests.analysis.facts import imported, trial


def cell(signature, grid="a", seed=1, **cfg):
    return Cell(("loss=ranknet", f"seed={seed}"), grid, cfg, {}, signature)


def per_query(value):
    return pd.DataFrame(
        {
            "collection": "docs",
            "system": ["first_stage", "student"],
            "query_id": "q1",
            "measure": "nDCG@10",
            "value": [0.25, value],
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One database for all tests, since making one takes seconds; signatures keep them apart."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("rdx", str(folder / "artifacts"))
    clock = iter(range(1000, 10**9, 1000))

    def log(
        signature,
        value,
        status="FINISHED",
        start=None,
        table=None,
        facts=None,
        kind="trial",
        **more,
    ):
        tags = {"rdx.kind": kind, "rdx.signature": signature}
        tags |= {f"rdx.{key}": text for key, text in more.items()}
        tags["mlflow.source.git.commit"] = "c0ffee"
        run = client.create_run(experiment, start_time=start or next(clock), tags=tags)
        run_id = run.info.run_id
        if table is None:
            table = per_query(value)
        if table is not False:
            table.to_parquet(folder / "per_query.parquet")
            client.log_artifact(run_id, str(folder / "per_query.parquet"))
        (folder / "trial.json").write_text(facts or dump(trial(signature, 3)))
        client.log_artifact(run_id, str(folder / "trial.json"))
        client.set_terminated(run_id, status, end_time=next(clock))
        return run_id

    return uri, log


def student(trials):
    frame = trials.frame
    return frame.loc[frame["system"] == "student", "value"].tolist()


def test_the_newest_finished_run_of_each_signature(store):
    uri, log = store
    log("one", 0.1)
    newer = log("one", 0.2)
    log("one", 0.3, status="FAILED")
    log("one", 0.4, status="RUNNING")
    log("two", 0.5)
    log("one", 0.6, kind="grid")
    log("unasked", 0.7)
    log("failed", 0.8, status="KILLED")
    cells = [cell("one"), cell("two", "b"), cell("failed"), cell("never")]
    trials = collect(cells, uri)
    assert student(trials) == [0.2, 0.5]
    assert list(trials.frame.columns) == list(COLUMNS)
    first = trials.frame.iloc[0]
    assert (first["grid"], first["signature"], first["seed"]) == ("a", "one", 3)
    assert trials.runs["one"] == newer and set(trials.facts) == {"one", "two"}
    assert [c.signature for c in trials.missing] == ["failed", "never"]
    assert trials.cells == tuple(cells)


def test_a_resumed_trial_counts_by_its_end(store):
    uri, log = store
    log("resumed", 0.1)
    log("resumed", 0.2, start=1)  # begun long ago, killed, finished last
    assert student(collect([cell("resumed")], uri)) == [0.2]


def test_sub_grids_share_a_trial_and_repetitions_do_not_count(store):
    uri, log = store
    log("shared", 0.1)
    trials = collect([cell("shared"), cell("shared"), cell("shared", "b")], uri)
    assert trials.frame["grid"].tolist() == ["a", "a", "b", "b"]
    assert len(trials.cells) == 2 and len(trials.runs) == 1


def test_nothing_found(store):
    trials = collect([cell("never")], store[0])
    assert trials.frame.empty and list(trials.frame.columns) == list(COLUMNS)
    assert len(trials.missing) == 1


def test_one_search_however_many_cells(store, monkeypatch):
    uri, log = store
    # more than a page of its own, so that it does not lean on what other tests logged
    log("many", 0.1)
    for other in range(3):
        log(f"many-{other}", 0.1)
    calls = []
    search = MlflowClient.search_runs

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return search(*args, **{**kwargs, "max_results": 2})

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    assert student(collect([cell("many")], uri)) == [0.1]
    assert len(calls) > 1 and calls[1]["page_token"]  # pages of two, all of them read


@pytest.mark.parametrize(
    ("signature", "change", "message"),
    [
        ("no-table", {"table": False}, "has no per_query.parquet"),
        ("columns", {"table": per_query(0.1).drop(columns="system")}, "lacks the columns system"),
        ("nan", {"table": per_query(float("nan"))}, r"no finite value for \['docs', 'student'"),
        ("twice", {"table": pd.concat([per_query(0.1)] * 2)}, "two values for"),
        ("facts", {"facts": '{"version": 1, "signature": "facts"}'}, "trial.json cannot be read"),
        ("old", {"facts": '{"signature": "old"}'}, "version is None"),
        ("other", {"facts": dump(trial("x"))}, "tagged other, but .* is of x"),
    ],
)
def test_a_damaged_trial_is_an_error_that_names_it(store, signature, change, message):
    uri, log = store
    run_id = log(signature, 0.1, **change)
    with pytest.raises(TrialError, match=message) as error:
        collect([cell(signature)], uri)
    assert run_id in str(error.value)


def test_no_store_is_said_and_not_created(tmp_path):
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "mlruns")):
        with pytest.raises(NoTrialsError, match="no MLflow store at"):
            collect([cell("one")], uri)
    assert not list(tmp_path.iterdir())


def imported_facts(signature, name="theirs"):
    return dump(trial(signature, 0, imported=imported(name)))


def test_imported_runs_are_found_by_name(store):
    uri, log = store
    log("content-1", 0.1, imported="theirs", facts=imported_facts("content-1"))
    newest = log("content-2", 0.2, imported="theirs", facts=imported_facts("content-2"))
    log("content-3", 0.3, imported="others", facts=imported_facts("content-3", "others"))
    log("with-import", 0.4)
    trials = collect([cell("with-import")], uri, ["theirs", "absent"])
    assert imported_as(trials, "theirs") == ("content-2",)
    assert imported_as(trials, "absent") == ()
    assert trials.runs["content-2"] == newest
    assert set(trials.frame["signature"]) == {"with-import", "content-2"}
    assert trials.commits == {"with-import": "c0ffee", "content-2": "c0ffee"}
    assert not trials.missing


def copy(folder, signature, value, facts=None):
    target = folder / "somewhere" / signature
    target.mkdir(parents=True)
    per_query(value).to_parquet(target / "per_query.parquet")
    (target / "trial.json").write_text(facts or dump(trial(signature, 3)))
    return target


def test_a_folder_is_looked_at_first_and_needs_no_store(store, tmp_path):
    uri, log = store
    log("in-both", 0.1)
    log("in-store", 0.2)
    copy(tmp_path, "in-both", 0.3)
    copy(tmp_path, "unwanted", 0.9)
    copy(tmp_path, "an-import", 0.4, imported_facts("an-import"))
    cells = [cell("in-both"), cell("in-store")]
    trials = collect(cells, uri, ["theirs"], tmp_path)
    assert student(trials) == [0.3, 0.2, 0.4]
    assert set(trials.runs) == {"in-store"}
    alone = collect(cells, f"sqlite:///{tmp_path}/none.db", folder=tmp_path)
    assert student(alone) == [0.3] and [c.signature for c in alone.missing] == ["in-store"]
    (copy(tmp_path, "broken", 0.1) / "per_query.parquet").unlink()
    with pytest.raises(TrialError, match="broken has no per_query.parquet"):
        collect([cell("broken")], uri, folder=tmp_path)


def test_the_report_goes_to_the_newest_grid_of_that_name(store, tmp_path):
    uri, log = store
    log("", 0.0, kind="grid", grid="demo-00000000")
    newest = log("", 0.0, kind="grid", grid="demo-11111111")
    log("", 0.0, kind="grid", grid="demolition-22222222")
    page = tmp_path / "report.html"
    page.write_text("<html></html>")
    assert log_report("demo", [page], uri) == newest
    client = MlflowClient(uri)
    assert [file.path for file in client.list_artifacts(newest, "analysis")] == [
        "analysis/report.html"
    ]
    assert log_report("never", [page], uri) == ""
    assert log_report("demo", [page], f"sqlite:///{tmp_path}/none.db") == ""


def test_a_cell_is_found_as_another_machine_computed_it(store):
    uri, log = store
    here, elsewhere = cell("p-fp32"), (cell("p-bf16"), cell("p-fp32"))
    log("p-bf16", 0.5)
    trials = collect([here], uri, elsewhere=[elsewhere])
    assert student(trials) == [0.5] and [c.signature for c in trials.cells] == ["p-bf16"]
    assert trials.missing == () and set(trials.facts) == {"p-bf16"}
    # what was computed here comes first, and nothing of the other is left
    log("p-fp32", 0.75)
    trials = collect([here], uri, elsewhere=[elsewhere])
    assert student(trials) == [0.75] and set(trials.facts) == set(trials.runs) == {"p-fp32"}
    assert collect([cell("p-none")], uri, elsewhere=[()]).missing[0].signature == "p-none"


def test_the_store_of_a_cell_comes_before_mlflow(store, tmp_path):
    uri, log = store
    here = tmp_path / "store"
    target = copy(tmp_path, "in-own-store", 0.25).rename(tmp_path / "kept")
    (here / "evaluate").mkdir(parents=True)
    target.rename(here / "evaluate" / "in-own-store")
    own = cell("in-own-store", store=str(here))
    alone = collect([own], f"sqlite:///{tmp_path}/none.db")
    assert student(alone) == [0.25] and alone.runs == {} and alone.missing == ()
    newest = log("in-own-store", 0.75)
    both = collect([own, cell("nowhere", store=str(here))], uri)
    assert student(both) == [0.25] and both.runs == {"in-own-store": newest}
    assert [c.signature for c in both.missing] == ["nowhere"]
    (here / "evaluate" / "in-own-store" / "per_query.parquet").unlink()
    with pytest.raises(TrialError, match=r"in-own-store has no per_query\.parquet"):
        collect([own], uri)


@pytest.mark.parametrize("name", ["trial.json", "per_query.parquet"])
@pytest.mark.parametrize("how", ["truncated", "folder"])
def test_files_that_cannot_be_read_are_named_in_one_line(tmp_path, name, how):
    path = copy(tmp_path, "broken", 0.1) / name
    content = path.read_bytes()
    path.unlink()
    path.mkdir() if how == "folder" else path.write_bytes(content[:-9])
    with pytest.raises(TrialError) as raised:
        collect([cell("broken")], f"sqlite:///{tmp_path}/none.db", folder=tmp_path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("how", ["damaged", "folder"])
def test_a_record_that_cannot_be_read_is_named_in_one_line(tmp_path, how):
    path = tmp_path / "mlflow.db"
    path.mkdir() if how == "folder" else path.write_bytes(b"no database" * 100)
    with pytest.raises(TrialError) as raised:
        collect([cell("any")], f"sqlite:///{path}")
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
