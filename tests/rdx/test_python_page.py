"""The blocks of docs/python.md run in order, and print what the page says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```(python|text student|text)\n(.*?)^```", re.M | re.S)


def outputs():
    """Run all blocks; (kind of the output, what the page says, what was printed), in order."""
    names, printed = {"__name__": "page"}, ""
    for kind, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind != "python":
            yield kind, content, printed
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(content, PAGE.name, "exec"), names)
        lines = out.getvalue().splitlines(keepends=True)
        printed = "".join(line for line in lines if not line.startswith(TOLD))


# What a cell says of its stages while it works.
TOLD = ("training data:", "distilling:", "texts cut:", "re-ranking ", "saved ", "new weights")


def test_with_a_toy_for_the_student(tmp_path, monkeypatch):
    """All but what the student's own weights decide."""
    from rdx import gguf
    from tests.rdx import tiny

    words = "where does the live sleeps and raises its young near nest so begins a tale".split()
    toy = tiny.bert(tmp_path / "toy", words, max_position_embeddings=128)
    monkeypatch.setattr(gguf, "model_path", lambda model, revision=None: str(toy))
    monkeypatch.chdir(tmp_path)
    compared = [(said, printed) for kind, said, printed in outputs() if kind == "text"]
    assert [printed for _, printed in compared] == [said for said, _ in compared]
    assert len(compared) == 6


@pytest.mark.slow
def test_with_its_own_student(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compared = [(said, printed) for _, said, printed in outputs()]
    assert [printed for _, printed in compared] == [said for said, _ in compared]
    assert len(compared) == 8


def test_scores_of_pairs_are_those_of_the_evaluation(finished, world):
    """Rows in any order, with any index."""
    from rdx import evaluation, pipeline, rankings
    from rdx.trainer import Trainer

    folder = Path(finished.cfg["store"]) / "evaluate" / finished.signature
    run = rankings.read_trec(folder / "runs" / "files.student.run.gz").sample(
        frac=1, random_state=1
    )
    for key, name, column in (("query_id", "queries", "query"), ("doc_id", "corpus", "text")):
        lines = (world.folder / f"{name}.tsv").read_text().splitlines()
        run[column] = run[key].map(dict(line.split("\t") for line in lines))
    pairs = run[["query_id", "query", "text"]]
    runtime = Trainer(device="cpu", precision="fp32")
    scores = evaluation.score(pipeline.student(finished), pairs, runtime)
    assert list(scores.index) == list(run.index)
    assert list(scores) == pytest.approx(list(run.score), abs=1e-5)
    none = evaluation.score(pipeline.student(finished), pairs[:0], runtime)
    assert len(none) == 0
