"""Students in PyTerrier: the scores, and the run, are those of an evaluation."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from rdx import commands, rankings
from rdx.artifacts import Evaluated
from rdx.export import export


def test_without_pyterrier_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyterrier", None)
    monkeypatch.delitem(sys.modules, "rdx.adapters.pyterrier", raising=False)
    with pytest.raises(ModuleNotFoundError, match="pip install") as error:
        importlib.import_module("rdx.adapters.pyterrier")
    assert error.value.name == "pyterrier"


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """A finished cell's results, and its student exported."""
    pytest.importorskip("pyterrier")
    store = Path(finished.cfg["store"])
    out = export(store, finished.signature, tmp_path_factory.mktemp("terrier") / "student")
    return Evaluated(store / "evaluate" / finished.signature), out


def reranker(out, **more):
    from rdx.adapters.pyterrier import Reranker

    return Reranker(out, **{"device": "cpu", "precision": "fp32"} | more)


def first_stage(trial, world):
    """What PyTerrier's retrievers give, with texts."""
    run = rankings.read_trec(trial.folder / "runs" / "files.first_stage.run.gz")
    frame = run.rename(columns={"query_id": "qid", "doc_id": "docno"})
    frame["rank"] -= 1
    for key, name, column in (("qid", "queries", "query"), ("docno", "corpus", "text")):
        lines = (world.folder / f"{name}.tsv").read_text().splitlines()
        frame[column] = frame[key].map(dict(line.split("\t") for line in lines))
    return frame


def test_its_run_is_the_student_s(exported, world, tmp_path):
    import pyterrier as pt

    trial, out = exported
    results = reranker(out)(first_stage(trial, world))
    pt.io.write_results(results, str(tmp_path / "student.run"), format="trec")
    ours = rankings.read_trec(trial.folder / "runs" / "files.student.run.gz")
    theirs = rankings.read_trec(tmp_path / "student.run")
    pairs = ["query_id", "doc_id"]
    both = ours.merge(theirs, on=pairs, suffixes=("", "_pt"), validate="one_to_one")
    assert len(both) == len(ours) == len(theirs)
    assert list(both.score_pt) == pytest.approx(list(both.score), abs=1e-5)
    assert list(both["rank_pt"]) == list(both["rank"])
    data = "evaluation.collections.files.data"
    names = ("corpus.tsv", "queries.tsv", "qrels.txt")
    places = [f"{data}.{name.split('.')[0]}={world.folder / name}" for name in names]
    files = [str(tmp_path / "student.run"), "--collection", "evaluation=files", *places]
    commands.evaluate([*files, "--out", str(tmp_path / "values.parquet")])
    values = rankings.read_parquet(tmp_path / "values.parquet")
    means = values.groupby("measure").value.mean()
    expected = {m: trial.facts.means[f"files/student/{m}"] for m in means.index}
    assert dict(means) == pytest.approx(expected, abs=1e-9)


def test_it_is_a_transformer_of_a_pipeline(exported, world):
    import pyterrier as pt

    trial, out = exported
    frame = first_stage(trial, world)
    pipeline_of_two = pt.Transformer.from_df(frame) % 3 >> reranker(out)
    queries = frame[["qid", "query"]].drop_duplicates()
    results = pipeline_of_two(queries)
    assert set(results.groupby("qid").size()) == {3}
    for _, one in results.groupby("qid"):
        assert list(one.sort_values("rank").score) == sorted(one.score, reverse=True)
        assert sorted(one["rank"]) == [0, 1, 2]


def test_neighbours_order_and_repeated_ids_change_no_score(exported, world):
    trial, out = exported
    frame, student = first_stage(trial, world).head(12), reranker(out)
    whole = student(frame).score
    shuffled = frame.sample(frac=1, random_state=0)
    assert list(student(shuffled).score) == pytest.approx(
        [whole[i] for i in shuffled.index], abs=1e-6
    )
    alone = pd.concat([student(frame.iloc[[i]]) for i in range(len(frame))])
    assert list(alone.score) == pytest.approx(list(whole), abs=1e-6)
    twice = pd.concat([frame, frame.assign(text="amber")], ignore_index=True)  # parts of a document
    assert list(student(twice).score[: len(frame)]) == pytest.approx(list(whole), abs=1e-6)
    empty = student(frame.head(0))
    assert len(empty) == 0 and {"score", "rank"} <= set(empty.columns)


def test_a_frame_without_text_is_refused(exported, world):
    trial, out = exported
    with pytest.raises(Exception, match="text"):
        reranker(out)(first_stage(trial, world).drop(columns="text"))
    assert Path(out).name in repr(reranker(out))
