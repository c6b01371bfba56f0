"""Teachers that score single passages: cross-encoders, yes and no, and their labels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rdx import rankings
from rdx.collection import Collection
from rdx.export.weights import write
from rdx.loading import ModelError
from rdx.students import Student
from rdx.teachers import CrossEncoder, pointwise
from tests.rdx.small_models import WORDS, save

RANDOM = np.random.default_rng(0)
TEXTS = Collection(
    "toy",
    {f"q{i}": " ".join(RANDOM.choice(WORDS, 1 + i % 3)) for i in range(4)},
    {f"d{i}": " ".join(RANDOM.choice(WORDS, 1 + (5 * i) % 9)) for i in range(9)},
    pd.DataFrame(columns=["query_id", "doc_id", "relevance"]),
)
LENGTHS = {"query_length": 2, "passage_length": 6}
CPU = {"precision": "fp32", "device": "cpu"}


def first_stage() -> pd.DataFrame:
    rows = [
        (q, f"d{d}", float(RANDOM.normal(5, 3)))
        for i, q in enumerate(TEXTS.queries)
        for d in RANDOM.choice(9, 4 + i, replace=False)
    ]
    return rankings.rank(*zip(*rows, strict=True))


FIRST = first_stage()


def cut(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def pairs() -> list[tuple[str, str]]:
    """Of FIRST; every word of the tiny tokenisers is a token."""
    return [
        (cut(TEXTS.queries[q], 2), cut(TEXTS.passages[d], 6))
        for q, d in zip(FIRST.query_id, FIRST.doc_id, strict=True)
    ]


def check(taught: pd.DataFrame, expected: list[float], tolerance: float = 1e-4) -> None:
    """Scores as expected of FIRST's rows, ranks by them."""
    assert set(taught.state) == {"ok"} and taught.score.dtype == "float32"
    both = FIRST.assign(expected=expected).merge(taught, on=["query_id", "doc_id"])
    assert len(both) == len(FIRST) == len(taught)
    assert list(both.score_y) == pytest.approx(list(both.expected), abs=tolerance)
    for _, rows in both.groupby("query_id"):
        rows = rows.sort_values("teacher_rank")
        assert list(rows.teacher_rank) == list(range(1, len(rows) + 1))
        assert (np.diff(rows.score_y) <= 0).all()


# --- cross-encoders ---


@pytest.mark.parametrize(("kind", "labels"), [("bert", 1), ("bert", 2), ("xlm-roberta", 1)])
def test_a_classifier_gives_its_logits(tmp_path, kind, labels):
    folder = save(kind, tmp_path / "model", classifier=labels)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for query, passage in pairs():
        with torch.no_grad():
            logits = model(**tokenizer(query, passage, return_tensors="pt")).logits[0].tolist()
        expected.append(logits[0] if labels == 1 else logits[1] - logits[0])
    teacher = CrossEncoder(folder, **LENGTHS, **CPU, batch=3)
    check(teacher.rank(FIRST, TEXTS, tmp_path), expected)


def stored(folder: Path, **settings) -> tuple[Student, Path]:
    """A student with a head that is not fresh, as a cell stores it."""
    student = Student(save("bert", folder / "bert"), **LENGTHS, **settings)
    made = student.create(0)
    torch.manual_seed(1)
    for parameter in (made.head or made.encoder.classifier).parameters():
        torch.nn.init.normal_(parameter)
    (folder / "stored").mkdir()
    made.save(folder / "stored")
    return student, folder / "stored"


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize(
    ("head", "attention"),
    [("cls", "full"), ("cls", "sparse"), ("mean", "full"), ("interaction", "sparse")],
)
def test_students_stored_and_exported_score_as_they_do(tmp_path, head, attention, exported):
    settings, folder = stored(tmp_path, head=head, attention=attention)
    student = settings.load(folder).eval()
    with torch.no_grad():
        expected = [student(*student.pairs.batch([pair])).item() for pair in pairs()]
    if exported:
        folder = tmp_path / "exported"
        folder.mkdir()
        write(student, settings, "transformers", folder)
    teacher = CrossEncoder(str(folder), **LENGTHS, **CPU, batch=4)
    check(teacher.rank(FIRST, TEXTS, tmp_path), expected)


def test_what_is_no_trained_cross_encoder_is_refused(tmp_path):
    def refused(folder: Path | str, match: str) -> None:
        with pytest.raises(ModelError, match=match):
            CrossEncoder(str(folder), **LENGTHS, **CPU).rank(FIRST, TEXTS, tmp_path)

    refused(save("bert", tmp_path / "plain"), "^model=.*lack")  # its head would be random
    refused(save("bert", tmp_path / "three", classifier=3), "^model=.*3 labels")
    with pytest.raises(ModelError, match="^passage_length=500"):
        folder = save("bert", tmp_path / "one", classifier=1)
        CrossEncoder(folder, passage_length=500, **CPU).rank(FIRST, TEXTS, tmp_path)
    _, folder = stored(tmp_path, head="mean", attention="sparse")
    for attention in ("set", None):  # one that needs the whole list; an older rdx's
        facts = json.loads((folder / "student.json").read_text())
        facts["attention"] = attention
        if attention is None:
            del facts["attention"]
        (folder / "student.json").write_text(json.dumps(facts))
        refused(folder, f"^model=.*attention={attention or 'unknown'}")


def test_a_killed_cross_encoder_goes_on_and_batches_change_nothing(tmp_path, monkeypatch):
    folder = save("bert", tmp_path / "model", classifier=1)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr("rdx.teachers.cross_encoder.CHUNK", 1)
    teacher = CrossEncoder(folder, **LENGTHS, **CPU, batch=2)
    whole = teacher.rank(FIRST, TEXTS, work)
    lines = (work / pointwise.LEDGER).read_bytes().splitlines(keepends=True)
    assert len(lines) == FIRST.doc_id.nunique()
    for kept in (0, 3, 6):
        (work / pointwise.LEDGER).write_bytes(b"".join(lines[:kept]) + lines[kept][:-9])
        pd.testing.assert_frame_equal(teacher.rank(FIRST, TEXTS, work), whole)
        again = (work / pointwise.LEDGER).read_bytes().splitlines(keepends=True)
        assert again[:kept] == lines[:kept] and set(again) == set(lines)
    monkeypatch.setattr("rdx.teachers.cross_encoder._Scorer", None)  # not even loaded
    pd.testing.assert_frame_equal(teacher.rank(FIRST, TEXTS, work), whole)
