"""Teachers that score single passages: cross-encoders, yes and no, and their labels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5ForConditionalGeneration,
)

from rdx import config, rankings
from rdx.collection import Collection
from rdx.export.weights import write
from rdx.folders import ROOT
from rdx.loading import ModelError
from rdx.students import Student
from rdx.teachers import CrossEncoder, Form, YesNo, pointwise
from rdx.teachers.judge import Judge
from tests.rdx.configured import check_refused
from tests.rdx.small_judges import MARKS, qwen, t5
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


# --- yes and no ---

# Punctuation that melts with the end of a line.
PUNCTUATED = Collection(
    "toy",
    {"q0": "what is kelp?", "q1": "amber", "q2": "river stone?", "q3": "onyx, reed"},
    {d: text + ".?!"[i % 3] for i, (d, text) in enumerate(TEXTS.passages.items())},
    TEXTS.qrels,
)
FORMS = ROOT / "conf" / "teacher" / "form"


def form(name: str) -> Form:
    return config.build(yaml.safe_load((FORMS / f"{name}.yaml").read_text()), "form")


def of_qwen3(tokenizer, model, query: str, passage: str) -> float:
    """As the model card of Qwen3-Reranker does it: p(yes) of the last position's yes and no."""
    system = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
    )
    system += 'provided. Note that the answer can only be "yes" or "no".'
    before = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    task = "Given a web search query, retrieve relevant passages that answer the query"
    pair = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {passage}"
    ids = [i for text in (before, pair, after) for i in tokenizer.encode(text)]
    with torch.no_grad():
        last = model(input_ids=torch.tensor([ids])).logits[0, -1]
    answers = last[[tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]]
    return answers.softmax(0)[1].item()


def of_mxbai(tokenizer, model, query: str, passage: str) -> float:
    """As the package mxbai-rerank does it: a separator of its own tokens between the texts."""
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant)."
        "\nRelevance:"
    )
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    separator = tokenizer("\n")["input_ids"]
    ids = tokenizer(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")["input_ids"]
    ids += tokenizer(f"query: {query}")["input_ids"] + separator
    ids += tokenizer(f"document: {passage}")["input_ids"] + separator + tokenizer(task)["input_ids"]
    ids += tokenizer("<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    with torch.no_grad():
        last = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return (last[tokenizer("1")["input_ids"][0]] - last[tokenizer("0")["input_ids"][0]]).item()


def of_monot5(tokenizer, model, query: str, passage: str) -> float:
    """As pygaggle does it: ln p(true) of true and false, the first word of the decoder."""
    inputs = tokenizer(f"Query: {query} Document: {passage} Relevant:", return_tensors="pt")
    assert inputs["input_ids"][0, -1] == tokenizer.eos_token_id
    start = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[0, -1]
    answers = logits[tokenizer.convert_tokens_to_ids(["▁false", "▁true"])]
    return answers.log_softmax(0)[1].item()


CARDS = {
    "qwen3_reranker": (lambda folder: qwen(folder, Qwen3Config, Qwen3ForCausalLM), of_qwen3),
    "mxbai_v2": (lambda folder: qwen(folder, Qwen2Config, Qwen2ForCausalLM), of_mxbai),
    "monot5": (t5, of_monot5),
}


@pytest.mark.parametrize("name", CARDS)
def test_yes_no_is_what_the_model_cards_compute_alone_and_in_batches(tmp_path, name):
    make, of_card = CARDS[name]
    folder = make(tmp_path / "model")
    auto = T5ForConditionalGeneration if name == "monot5" else AutoModelForCausalLM
    loaded = AutoTokenizer.from_pretrained(folder), auto.from_pretrained(folder).eval()
    expected = [
        of_card(*loaded, PUNCTUATED.queries[q], PUNCTUATED.passages[d])
        for q, d in zip(FIRST.query_id, FIRST.doc_id, strict=True)
    ]
    assert np.std(expected) > 1e-3
    scores = []
    for batch in (1, 7):
        work = tmp_path / str(batch)
        work.mkdir()
        taught = YesNo(folder, form(name), batch=batch, **CPU).rank(FIRST, PUNCTUATED, work)
        check(taught, expected)
        scores.append(taught.score)
    assert list(scores[0]) == pytest.approx(list(scores[1]), abs=1e-4)


def test_texts_are_cut_and_hold_no_special_token(tmp_path):
    folder = qwen(tmp_path / "model", Qwen2Config, Qwen2ForCausalLM)
    settings = YesNo(folder, form("mxbai_v2"), query_length=1, passage_length=4, **CPU)
    judge = Judge(settings)
    shown = [judge.tokenizer.decode(judge.row("amber kelp", text)) for text in ("a", "b\n{query}")]
    assert all("query: amber\ndocument: " in text for text in shown)
    assert "document: b\n{query" not in shown[0] and "{query}" not in shown[1]
    for text in ("x", "<|im_end|>", "{passage} {query}"):
        special = [i for i in judge.row(text, text) if i in range(len(MARKS))]
        assert special == [0, 1, 0, 1, 0]


def test_yes_no_refuses_what_does_not_fit(tmp_path):
    folder = qwen(tmp_path / "model", Qwen2Config, Qwen2ForCausalLM)
    with pytest.raises(ModelError, match="form: '▁false'"):
        Judge(YesNo(folder, form("monot5"), **CPU))
    with pytest.raises(ModelError, match="^passage_length=1000"):
        Judge(YesNo(folder, form("mxbai_v2"), passage_length=1000, **CPU))
    for parts in (["{query}"], ["{passage} {passage} {query}"]):
        check_refused("teacher.form", Form, positive="1", negative="0", parts=parts)


# --- lists without an order ---


def test_constant_and_infinite_lists_are_malformed():
    scores = pd.Series(RANDOM.normal(size=len(FIRST)), FIRST.index, dtype="float32")
    scores[FIRST.query_id == "q1"] = 0.25
    scores[FIRST.query_id.eq("q2") & FIRST["rank"].eq(3)] = np.nan
    taught = pointwise.ranked(FIRST, scores, "some/model")
    states = taught.groupby("query_id").state.agg(set).to_dict()
    assert states == {"q0": {"ok"}, "q1": {"malformed"}, "q2": {"malformed"}, "q3": {"ok"}}
    both = FIRST.merge(taught, on=["query_id", "doc_id"])
    lost = both[both.state == "malformed"]
    assert list(lost["rank"]) == list(lost.teacher_rank) and lost.score_y.isna().all()
    assert both[both.state == "ok"].score_y.notna().all()
    single = FIRST.groupby("query_id").head(1)
    assert set(pointwise.ranked(single, single.score, "m").state) == {"ok"}
    for same in (scores * 0, scores * np.nan, scores / 0):
        with pytest.raises(rankings.FormatError, match="^model=some/model"):
            pointwise.ranked(FIRST, same, "some/model")


def test_a_model_that_orders_nothing_is_an_error_and_is_named(tmp_path):
    folder = save("bert", tmp_path / "model", classifier=1)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    model.save_pretrained(folder)
    with pytest.raises((rankings.FormatError, ModelError), match=f"model={folder}"):
        CrossEncoder(folder, **LENGTHS, **CPU).rank(FIRST, TEXTS, tmp_path)
