"""Students of many families: they score as plain Transformers does, and learn."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from trainer_toys import equal, stopped, trained
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from rdx.export.weights import write
from rdx.loading import ModelError
from rdx.students import LoRA, Student
from rdx.trainer import Steps
from tests.rdx.small_models import PAIRS, WORDS, save

TEMPLATE = "Q: {query} P: {passage} ?"
LAST = {"head": "last_token", "template": TEMPLATE}
VARLEN = {"attention_implementation": "varlen"}
# A family, and the settings of a student of it.
STUDENTS = {
    "modernbert": ("modernbert", VARLEN | {"pooling": "cls"}),
    "modernbert, mean": ("modernbert", VARLEN | {"pooling": "mean"}),
    "deberta-v3": ("deberta-v3", {}),
    "llama": ("llama", LAST),
    "llama without padding": ("llama without padding", LAST),
    "llama of its class": ("llama of its class", LAST),
    "llama of its class, no template": ("llama of its class", {"head": "last_token"}),
    "qwen2": ("qwen2", LAST | {"lora": LoRA(rank=2)}),
    "qwen3": ("qwen3", LAST),
    "bert, positions frozen": ("bert", {"frozen_positions": True, "dropout": 0.0}),
    "bert in a template": ("bert", {"template": "[CLS] river {query} [SEP] {passage} [SEP]"}),
}

TRAINED = ("modernbert", "deberta-v3", "llama", "qwen2", "bert, positions frozen")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("models")

    def of(kind):
        place = made / kind
        return str(place) if place.exists() else save(kind, place)

    return of


@pytest.fixture
def settings_of(folder):
    def of(name):
        kind, own = STUDENTS[name]
        return Student(folder(kind), **({"query_length": 16, "passage_length": 48} | own))

    return of


@torch.inference_mode()
def scores(student, pairs=PAIRS):
    return student(*student.pairs.batch(pairs))


@pytest.mark.parametrize("name", STUDENTS)
def test_each_pair_alone_has_its_score_in_plain_transformers(name, settings_of, tmp_path):
    settings = replace(settings_of(name), lora=None)
    student = settings.create(0).eval()
    together = scores(student)
    assert together.unique().numel() == len(PAIRS)
    write(student, settings, "transformers", tmp_path / "out")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for pair, score in zip(PAIRS, together, strict=True):
        inputs = tokenizer(*pair, return_tensors="pt")
        assert torch.equal(inputs["input_ids"], student.pairs.batch([pair])[0]["input_ids"])
        with torch.inference_mode():
            expected = plain(**inputs).logits[0, 0]
        torch.testing.assert_close(score, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores(student, PAIRS[::-1]).flip(0), together)
    student.save(tmp_path / "saved")
    loaded = settings.load(tmp_path / "saved").eval()
    torch.testing.assert_close(scores(loaded), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_they_learn_and_an_interrupted_training_ends_in_the_same_bits(name, settings_of, tmp_path):
    settings = settings_of(name)

    def train(work, student=None, **more):
        student = student or settings.create(0)
        options = {"budget": Steps(12), "checkpoint_seconds": 0, "weight_decay": 0.0} | more
        return trained(tmp_path, student=student, work=work, **options)

    student = settings.create(0)
    trainable = {name: each.requires_grad for name, each in student.named_parameters()}
    first = {name: each.detach().clone() for name, each in student.named_parameters()}
    whole, facts = train("whole", student)
    curve = json.loads((tmp_path / "whole" / "curve.json").read_text())
    assert sum(curve[-3:]) < 0.8 * sum(curve[:3])
    stopped(train, 5)
    resumed, again = train("cut")
    assert equal(whole, resumed) and again == facts
    moved = {name for name, each in whole.named_parameters() if not torch.equal(each, first[name])}
    # what no gradient reaches stays: keys' biases, which softmax takes out, words of no text
    assert moved <= {name for name, trains in trainable.items() if trains}
    assert len(moved) > 0.5 * sum(trainable.values())
    frozen = {name for name, trains in trainable.items() if not trains}
    if settings.frozen_positions:
        assert frozen == {"encoder.bert.embeddings.position_embeddings.weight"}
    else:
        assert bool(frozen) == (settings.lora is not None)


def test_modernberts_own_head_is_that_of_the_published_ettin_rerankers(folder, tmp_path):
    """[CLS], dense without bias, GELU, norm, linear; the first two come with a language model."""
    config = AutoConfig.from_pretrained(folder("modernbert"))
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config)
    torch.nn.init.normal_(model.head.norm.weight)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder("modernbert")).save_pretrained(tmp_path)
    settings = Student(str(tmp_path), query_length=16, passage_length=48, pooling="cls", **VARLEN)
    student = settings.create(0).eval()
    inputs, _ = student.pairs.batch(PAIRS)
    with torch.no_grad():
        first = model.eval().model(**inputs).last_hidden_state[:, 0]
        hidden = torch.nn.functional.gelu(first @ model.head.dense.weight.T)
        mean, var = hidden.mean(1, keepdim=True), hidden.var(1, unbiased=False, keepdim=True)
        normed = (hidden - mean) / (var + config.norm_eps).sqrt() * model.head.norm.weight
        last = student.encoder.classifier
        expected = normed @ last.weight[0] + last.bias[0]
    torch.testing.assert_close(scores(student), expected, atol=1e-5, rtol=1e-5)


def test_two_labels_become_one_score_without_padding_too(tmp_path):
    folder = save("modernbert", tmp_path, classifier=2)
    settings = Student(folder, query_length=16, passage_length=48, **VARLEN)
    student = settings.create(0).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        two = plain(**student.pairs.batch(PAIRS)[0]).logits
    torch.testing.assert_close(scores(student), two[:, 1] - two[:, 0], atol=1e-5, rtol=1e-5)


# --- what does not fit together ---


@pytest.mark.parametrize(
    ("kind", "own", "said"),
    [
        ("bert", {"head": "last_token"}, r"student\.head=last_token: .*'bert'.*student\.head=cls"),
        (
            "llama without padding",
            {"head": "last_token", "template": "{query} {passage}<|end|>"},
            r"student\.head=last_token: .*padding token.*student\.template",
        ),
        ("bert", {"pooling": "mean"}, r"student\.pooling='mean': .*'bert'.*null"),
        ("modernbert", {"frozen_positions": True}, r"student\.frozen_positions=true: .*rotary"),
        ("deberta-v3", {"frozen_positions": True}, r"student\.frozen_positions=true: .*relative"),
        ("deberta-v3", VARLEN, r"student\.attention_implementation='varlen'.*modernbert"),
        (
            "bert",
            {"template": "[CLS] {query} [SEP] {passage}", "query_length": 120},
            r"student\.passage_length",
        ),
    ],
)
def test_a_student_that_is_not_possible_says_what_is(kind, own, said, folder):
    with pytest.raises(ModelError, match=said):
        Student(folder(kind), **({"query_length": 16, "passage_length": 48} | own)).create(0)


@pytest.mark.parametrize(
    ("key", "own"),
    [
        ("pooling", {"head": "mean", "pooling": "cls"}),
        ("pooling", {"pooling": "max"}),
        ("template", {"template": "{query}"}),
        ("template", {"template": "{passage} {query}"}),
        ("template", {"template": "{query} {passage} {passage}"}),
        ("template", {"template": "{query} {query} {passage}"}),
        ("template", {"template": "{query} {passage}", "head": "interaction"}),
        ("template", {"template": "{query} {passage}", "attention": "sparse"}),
    ],
)
def test_bad_values_name_their_key(key, own):
    with pytest.raises(ValueError, match=rf"(?m)^{key}|Value error, {key}"):
        Student("asset:all-MiniLM-L6-v2", **own)


# --- where they come from ---


def without_tokenizer(folder):
    """A DeBERTa whose tokenizer is to come out of a file of SentencePiece, as on the Hub."""
    save("deberta-v3", folder)
    for path in folder.glob("*token*"):
        path.unlink()
    return Student(str(folder), query_length=16, passage_length=48)


def test_a_tokenizer_of_sentencepiece_says_which_package_reads_it(tmp_path, monkeypatch):
    settings = without_tokenizer(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"student\.model=.*sentencepiece"):
        settings.create(0)


def test_a_tokenizer_of_sentencepiece_alone(tmp_path):
    package = pytest.importorskip("sentencepiece")
    settings = without_tokenizer(tmp_path)
    special = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}
    pieces = dict(zip(special, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), strict=True))
    package.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 50),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=30,
        **{f"{name}_id": number for name, number in special.items()},
        **{f"{name}_piece": piece for name, piece in pieces.items()},
    )
    student = settings.create(0).eval()
    inputs, parts = student.pairs.batch([("river engine", "stone")])
    ids = inputs["input_ids"][0]
    assert ids[0] == 1 and ids[parts[0] == 0].tolist() == [1, 2, 2]
    assert student.pairs.tokenizer.decode(ids[parts[0] == 1]).strip() == "river engine"
    student.save(tmp_path / "saved")
    loaded = settings.load(tmp_path / "saved").eval()
    torch.testing.assert_close(scores(loaded), scores(student), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_decoder_out_of_a_wheel_learns_with_adapters(tmp_path):
    settings = Student(
        "asset:SmolLM2-135M-Instruct", layers=3, query_length=8, passage_length=16, **LAST
    )
    adapted = replace(settings, lora=LoRA(rank=4))
    student, _ = trained(tmp_path, student=adapted.create(0), budget=Steps(30), learning_rate=2e-3)
    curve = json.loads((tmp_path / "work" / "curve.json").read_text())
    assert sum(curve[-3:]) < 0.8 * sum(curve[:3])
    student.eval().save(tmp_path / "saved")
    loaded = settings.load(tmp_path / "saved").eval()
    torch.testing.assert_close(scores(loaded), scores(student), atol=1e-4, rtol=1e-4)
    write(loaded, settings, "transformers", tmp_path / "out")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        alone = [plain(**tokenizer(*pair, return_tensors="pt")).logits[0, 0] for pair in PAIRS]
    torch.testing.assert_close(scores(loaded), torch.stack(alone), atol=1e-4, rtol=1e-4)
