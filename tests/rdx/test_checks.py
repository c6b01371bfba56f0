"""What is known at the start fails there: measures, names, numbers, folders, packages, tables."""

import os

import pandas as pd
import pytest

from rdx import config, folders, stages
from rdx import evaluation as ev
from rdx.commands import checks
from rdx.config import ConfigError, MissingFile
from rdx.evaluation.settings import check_measures, compute
from rdx.plan import tables
from tests.rdx.conftest import ROOT

QRELS = pd.DataFrame(
    [("1-7", "a", 3), ("1-7", "b", 0), ("2-7", "a", 0), ("2-7", "b", 1), ("q/3", "c d", 4)],
    columns=["query_id", "doc_id", "relevance"],
)
RANKING = pd.DataFrame(
    [("1-7", "a", 1, 2.0), ("1-7", "b", 2, 1.0), ("2-7", "a", 1, 2.0), ("2-7", "b", 2, 1.0),
     ("q/3", "x", 1, 3.0), ("q/3", "c d", 2, 2.0)],
    columns=["query_id", "doc_id", "rank", "score"],
)  # fmt: skip


def cell_of(*overrides):
    [cell] = config.cells(overrides)
    return cell


# --- measures ---


def test_ids_have_no_part_in_a_measure_whoever_computes_it():
    """gdeval takes numbers alone, and of "1-7" and "2-7" the last part: one query of two."""
    table = ev.measured(RANKING, QRELS, ["ERR@10", "RR@10"])
    err, rr = (table[table.measure == m].set_index("query_id").value for m in ("ERR@10", "RR@10"))
    # a passage of grade g satisfies with (2^g - 1) / 16, the first that does counts 1 / rank
    assert err.to_dict() == pytest.approx(
        {"1-7": 7 / 16, "2-7": 1 / 16 / 2, "q/3": 15 / 16 / 2}, abs=5e-6
    )
    assert rr.to_dict() == {"1-7": 1.0, "2-7": 0.5, "q/3": 0.5}


def test_a_query_or_passage_may_have_any_name():
    names = {"1-7": "7", "2-7": "ß 7", "q/3": "'"}
    other = [t.assign(query_id=t.query_id.map(names)) for t in (RANKING, QRELS)]
    measures = ["nDCG@10", "P(rel=2)@1", "Judged@2", "AP", "ERR@2"]
    assert (
        ev.measured(*other, measures).value.tolist()
        == ev.measured(RANKING, QRELS, measures).value.tolist()
    )


# nDCG@0 and P@0 end the process, INST lacks a parameter, NRBP a package
@pytest.mark.parametrize(
    "measure", ["nDCG@0", "P@0", "RR@0", "Judged@0", "P@1.5", "P(rel=0)@5", "IPrec@1.5", "INST",
                "BPM", "ERR", "NRBP", "nDG@10", "P@1,P@2"],
)  # fmt: skip
def test_a_measure_that_cannot_be_computed_is_refused_by_name(measure):
    with pytest.raises(ConfigError, match=r"^evaluation\.measures.*") as error:
        config.check(cell_of(f"evaluation.measures=[nDCG@10,'{measure}']"))
    assert measure.partition("@")[0].partition("(")[0] in str(error.value)


def test_two_spellings_of_a_measure_are_refused():
    with pytest.raises(ValueError, match="'RR@10' and 'RR\\(cutoff=10\\)'"):
        check_measures(("RR@10", "nDCG@10", "RR(cutoff=10)"))
    with pytest.raises(ValueError, match="'RR@10' and 'RR@10'"):
        check_measures(("RR@10", "RR@10"))


def test_a_toy_computes_every_measure_of_the_options():
    for option in folders.options("evaluation"):
        measures = tuple(config.composed([f"evaluation={option}"]).evaluation.measures)
        check_measures(measures)
        compute(measures)


def test_a_provider_that_fails_on_real_grades_is_named():
    graded = QRELS.assign(relevance=5)  # gdeval stops above 4
    with pytest.raises(ev.MeasureError, match="^ERR@10"):
        ev.measured(RANKING, graded, ["RR@10", "ERR@10"])
    assert ev.measured(RANKING, graded, ["RR@10"]).value.tolist() == [1.0, 1.0, 0.5]


# --- names and numbers ---


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("store=", "store"),
        ("store=' '", "store"),
        ("store=/", "store"),
        ("seed=-1", "seed"),
        ("seed=9223372036854775808", "seed"),
        ("depth.seed=-1", "depth.seed"),
        ("prefinetune.seed=-1", "prefinetune.seed"),
        ("tracking.artifacts=", "tracking.artifacts"),
        ("tracking.artifacts=' '", "tracking.artifacts"),
        ("tracking.uri=sqlite:///", "tracking.uri"),
        ("tracking.uri='sqlite://'", "tracking.uri"),
        ("evaluation.runs=", "evaluation.runs"),
        ("trainer.clip=nan", "trainer.clip"),
        ("trainer.clip=inf", "trainer.clip"),
        ("trainer.learning_rate=-inf", "trainer.learning_rate"),
        ("loss.temperature=nan", "loss.temperature"),
        ("limits.queries_failed=nan", "limits.queries_failed"),
        ("evaluation.gates.ceiling=nan", "evaluation.gates.ceiling"),
    ],
)
def test_what_is_no_name_or_number_is_refused_by_its_key(override, key):
    with pytest.raises(ConfigError) as error:
        config.check(cell_of(override))
    assert str(error.value).startswith((f"{key}=", f"{key}:"))


def test_what_may_be_null_may_be_left_out():
    cell = cell_of("tracking.artifacts=null", "evaluation.runs=null", "seed=0")
    config.check(cell)
    assert config.part(cell.cfg, "tracking").artifacts is None


def test_the_home_folder_is_none_of_the_name_of_a_tilde(tmp_path, monkeypatch):
    """The shell expands no ~ after an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    qrels = tmp_path / "qrels.txt"
    qrels.touch()
    cell = cell_of("data=files", "store='~/store'", "data.qrels='~/qrels.txt'",
                   "data.corpus=c.tsv", "data.queries='~/none.tsv'")  # fmt: skip
    assert cell.cfg["store"] == str(tmp_path / "store")
    assert cell.cfg["data"]["qrels"] == str(qrels)
    assert cell.cfg["data"]["queries"] == "~/none.tsv"  # as it is told to be missing


@pytest.mark.parametrize("name", ["a/b", "mean", "", ".hidden", "a b"])
def test_a_collection_whose_name_cannot_name_files_and_results_is_refused(name):
    cell = cell_of()
    evaluation = cell.cfg["evaluation"]
    evaluation["collections"] = {name: evaluation["collections"]["pydocs"]}
    with pytest.raises(ConfigError, match=r"^evaluation\.collections"):
        config.check(cell)


def test_sweeps_over_the_options_of_a_group_and_keys_left_out():
    losses = [name for name in folders.options("loss") if name.startswith("r")]
    found = [cell.levels["loss"] for cell in config.cells(["loss=glob(r*)"])]
    assert found == losses and losses
    for line in ("~seed", "~loss", "~tracking", "~nokey.x", "~trainer.nokey"):
        with pytest.raises(ConfigError, match=line[1:].split(".")[-1]):
            config.cells([line])
    with pytest.raises(ConfigError, match="^~evaluation:"):
        config.composed(["~evaluation"])  # of `python -m rdx evaluate`
    assert "clip" not in cell_of("~trainer.clip").cfg["trainer"]


def test_dev_queries_are_asked_of_the_data_itself(tmp_path):
    """The key may be left out, and then it is the default of the class: none are held out."""
    paths = [tmp_path / name for name in ("corpus.tsv", "queries.tsv", "qrels")]
    for path in paths:
        path.touch()
    files = [f"data.{path.stem}={path}" for path in paths]
    cell = cell_of("data=files", *files, "~data.dev", "evaluation.interpolate=false")
    config.check(cell)
    cell.cfg["evaluation"]["interpolate"] = True
    with pytest.raises(ConfigError, match=r"^evaluation\.interpolate=true.*data\.dev"):
        config.check(cell)
    cell.cfg["evaluation"]["interpolate"] = False
    cell.cfg["trainer"] |= {"validate_every": 2, "select": "best"}
    with pytest.raises(ConfigError, match=r"^trainer\.validate_every=2.*data\.dev"):
        config.check(cell)


def test_an_optional_package_that_lacks_is_missed_at_the_start(monkeypatch):
    from rdx.teachers import Endpoint

    monkeypatch.setattr(Endpoint, "requires", "no_such_package", raising=False)
    cell = cell_of("teacher=rankgpt", "teacher.backend.model=m")
    with pytest.raises(MissingFile, match=r"^teacher\.backend.*no_such_package"):
        config.check(cell)


def test_what_cells_share_is_looked_at_once(monkeypatch):
    looked = []
    monkeypatch.setattr(config.building, "check_here", lambda thing, key: looked.append(key))
    config.check_all(config.cells(["seed=1,2,3", "loss=ranknet,adr_mse"]))
    assert sorted(looked) == sorted([*config.GROUPS, "loss"])


# --- folders ---


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    assert not folders.unwritable(tmp_path) and not folders.unwritable(tmp_path / "new" / "one")
    assert str(file) in folders.unwritable(file) and str(file) in folders.unwritable(file / "x")
    monkeypatch.setattr(folders, "FULL", 1 << 62)
    assert str(tmp_path) in folders.unwritable(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # to root all is allowed
    assert str(tmp_path) in folders.unwritable(tmp_path / "new")
    assert not list(tmp_path.glob("new"))


def test_folders_of_unfinished_cells_must_be_writable(tmp_path):
    file = tmp_path / "file"
    file.touch()
    llm = ["teacher=rankgpt", "teacher.backend.model=m", f"store={tmp_path / 'store'}"]
    [bad_store] = stages.cells([f"store={file}"])
    [bad_ledger] = stages.cells([*llm, f"teacher.ledger={file / 'x'}"])
    [good] = stages.cells(llm)
    checks.check_folders([good])
    for cell, key in ((bad_store, "store"), (bad_ledger, "teacher.ledger")):
        with pytest.raises(ConfigError, match=f"^{key} "):
            checks.check_folders([good, cell])
    finished = tmp_path / "store" / "evaluate" / bad_ledger.signature
    finished.mkdir(parents=True)
    checks.check_folders([good, bad_ledger])


@pytest.mark.parametrize(
    "arguments",
    [["status", "--store", ""], ["status", "--store="], ["retry", "--store", " "],
     ["teach", "--export", ""], ["evaluate", "x.run", "--out", ""], ["plan", ""],
     ["export", "ab", ""], ["evaluate", ""]],
)  # fmt: skip
def test_a_blank_word_of_a_verb_is_no_folder(arguments, capsys):
    from rdx.commands import VERBS

    with pytest.raises(SystemExit) as end:
        VERBS[arguments[0]](arguments[1:])
    assert end.value.code == 2
    assert "variable" in capsys.readouterr().err


# --- tables ---

SPEC = """
spec:
  name: mine
  claim: It works.
  measures: {measures}
  baseline: {baseline}
  factors: {factors}
  collections: {collections}
  x: {x}
  rows:
    - {{name: one, grid: main}}
    - {{name: two, grid: other}}
  grid:
    main: [loss=ranknet, "seed=1,2"]
    other: [loss=lce]
"""
RIGHT = {
    "measures": "[nDCG@10]",
    "baseline": "one",
    "factors": "[loss]",
    "collections": "[pydocs]",
    "x": "depth.k",
}


@pytest.mark.parametrize(
    ("key", "value"),
    [("baseline", "another"), ("baseline", "on"), ("measures", "[P@3]"), ("factors", "[los]"),
     ("collections", "[pydoc]"), ("x", "depth.kk"), (None, None)],
)  # fmt: skip
def test_a_spec_that_gives_no_table_is_refused(key, value, tmp_path):
    from analysis.check import check
    from analysis.nodes import SpecError

    path = tmp_path / "mine.yaml"
    path.write_text(SPEC.format(**RIGHT | ({key: value} if key else {})))
    if key is None:
        check(str(path))
        return
    with pytest.raises(SpecError, match="True" if value == "on" else value.strip("[]")):
        check(str(path))


def test_an_experiment_is_checked_by_the_analysis_before_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC.format(**RIGHT | {"baseline": "another"}))
    with pytest.raises(ConfigError, match="'another'"), tables.checked([f"+experiments={path}"]):
        pass
    with pytest.raises(KeyError), tables.checked([f"+experiments={path}"]):
        raise KeyError  # the first error counts
    with tables.checked(["seed=1"]):
        pass
