"""What `export` writes scores as the student does, in other libraries; and says what it is."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rdx import config, facts
from rdx.export import ExportError, export, find, read
from rdx.export.card import card, citation
from rdx.public import public
from rdx.store import Unreadable
from rdx.students import Student
from rdx.students.folders import check_folder
from rdx.teachers.audit import audit
from tests import records
from tests.rdx import tiny

WORDS = (
    "river engine garden planet violin market stone reed kelp onyx amber basil cedar delta ember"
).split()
PAIRS = [
    ("river engine", "garden planet violin river market"),
    ("stone", "stone reed"),
    ("kelp onyx", "engine engine garden reed kelp onyx river stone planet violin"),
    ("violin unknown", "market"),
]
# Special tokens spelt out, of both tokenisers: text like any other.
SPELT = [
    ("river [SEP] stone", "garden [CLS] planet [SEP] reed [PAD]"),
    ("river </s> stone", "garden <s> planet </s> reed <pad> kelp"),
]
LONG = [
    ("river engine garden planet violin market stone reed kelp", " ".join(WORDS * 2)),
    ("amber", " ".join(WORDS[::-1] * 2)),
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES = {
    **SIZES,
    "intermediate_size": 32,
    "max_position_embeddings": 80,
    "num_labels": 1,
    "initializer_range": 0.5,
}
QUERY, PASSAGE = 8, 20


@pytest.fixture(scope="session", autouse=True)
def modules_of_their_own(tmp_path_factory):
    """Transformers copies code that comes with a model into a cache; not into the user's."""
    from transformers import dynamic_module_utils

    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        yield
    sys.path[:] = [path for path in sys.path if path != folder]


def tokenizer(kind, folder):
    """A tokeniser of words: [CLS] q [SEP] p [SEP], or <s> q </s></s> p </s>."""
    if kind != "roberta":
        return tiny.tokenizer(folder, WORDS)
    special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 2), ("</s>", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


OTHERS = {
    "distilbert": (DistilBertConfig, {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    "deberta-v2": (DebertaV2Config, {"relative_attention": True, "pos_att_type": "p2c|c2p"}),
    "modernbert": (ModernBertConfig, {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 8}),
}


@pytest.mark.parametrize("head", ["cls", "interaction"])
@pytest.mark.parametrize("kind", list(OTHERS))
def test_other_encoders_are_trained_and_exported_too(tmp_path, kind, head):
    settings, shape = OTHERS[kind]
    sizes = SHAPES | {"vocab_size": 5 + len(WORDS), "pad_token_id": 0} | shape
    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_config(settings(**sizes))
    folder = tmp_path / "model"
    classifier.save_pretrained(folder)
    tokenizer("bert", folder).save_pretrained(folder)
    store, student = store_of(tmp_path / "store", str(folder), head=head, layers=1)
    out = export(store, "ab12", tmp_path / "out")
    close(plain_scores(out, PAIRS, trust_remote_code=head != "cls"), student, PAIRS)
    cell = find(store, "ab12")
    full = config.build(cell.config["student"] | {"layers": None}, "student")
    one_layer, two = (
        sum(p.numel() for p in settings.create(3).parameters()) for settings in (cell.student, full)
    )
    assert one_layer < two


@pytest.fixture(scope="module", params=["bert", "electra", "roberta"])
def model(request, tmp_path_factory):
    """Folder of a random sequence classifier."""
    return make_model(request.param, tmp_path_factory.mktemp(request.param))


def make_model(kind, folder):
    settings, classifier = {
        "bert": (BertConfig, BertForSequenceClassification),
        "electra": (ElectraConfig, ElectraForSequenceClassification),
        "roberta": (RobertaConfig, RobertaForSequenceClassification),
    }[kind]
    more = {"embedding_size": 16} if kind == "electra" else {}
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    shape = settings(vocab_size=5 + len(WORDS), pad_token_id=0, **SHAPES, **more)
    classifier(shape).save_pretrained(folder)
    tokenizer(kind, folder).save_pretrained(folder)
    return str(folder)


def store_of(folder, model, loss=True, **settings):
    """A store with one finished cell, as the pipeline writes it, and its student."""
    from rdx.store import Store

    node = {"_target_": "rdx.students.Student", "model": model}
    node |= {"query_length": QUERY, "passage_length": PASSAGE, **settings}
    student = config.build(node, "student").create(3).eval()
    if settings.get("head") == "interaction":  # so that the [CLS] term is part of the test
        torch.nn.init.normal_(student.head.cls.weight, generator=torch.Generator().manual_seed(1))
    endpoint = {"model": "gpt-99", "base_url": "http://secret.example"}
    cfg = {
        "student": node,
        "data": {"_target_": "rdx.data.Files", "corpus": "/home/somebody/secret/corpus.tsv"},
        "sampler": {"_target_": "rdx.samplers.BM25", "k1": 0.9, "b": 0.4},
        "depth": {"_target_": "rdx.lists.Depth", "k": 10, "queries": 3},
        "teacher": {
            "_target_": "rdx.teachers.Listwise",
            "backend": {"_target_": "rdx.teachers.Endpoint", **endpoint},
            "prompt": "single_turn",
            "ledger": "/home/somebody/store/ledger",
        },
        "prefinetune": None,
        "loss": {"_target_": "rdx.losses.RankNet", "temperature": 1.0} if loss else None,
        "budget": {"_target_": "rdx.trainer.Epochs", "epochs": 2},
        "trainer": {"_target_": "rdx.trainer.Trainer", "learning_rate": 1e-5, "device": "cpu"},
        "evaluation": {"_target_": "rdx.evaluation.Evaluation"},
        "tracking": {"uri": "sqlite:////home/somebody/mlflow.db"},
        "seed": 7,
        "store": str(folder),
    }
    rows = [(f"q{q}", f"d{d}", d + 1, 3 - d, "ok") for q in range(3) for d in range(3)]
    taught = pd.DataFrame(rows, columns=["query_id", "doc_id", "rank", "teacher_rank", "state"])
    labels = audit(taught.drop(columns="rank"), taught[["query_id", "doc_id", "rank"]])
    training = facts.TrainingFacts(
        steps=1234, pairs=98765, lists=3, tokens=9, padding=0.1, flops=9, max_tokens=9,
        truncated_texts=0, last_loss=0.1, weight_change=0.1,
    )  # fmt: skip
    first_stage = {"_target_": "rdx.samplers.BM25", "k1": 0.9}
    tiny = records.collection(first_stage=first_stage, weight=0.3)
    trained = facts.CheckpointFacts(
        training=training, dropped={"lists_left_out": facts.Count(1, 4)}, audit=labels
    )
    trial = records.trial(
        "ab12" * 4,
        7,
        {"tiny": tiny},
        signatures={"prefinetune": "aa" * 8, "distill": "bb" * 8, "evaluate": "ab12" * 4},
        checkpoint=trained if loss else facts.CheckpointFacts(),
    )
    table = pd.DataFrame(
        [
            ("tiny", system, f"q{i}", "nDCG@10", value + i / 10)
            for system, value in (("first_stage", 0.2), ("student", 0.4))
            for i in range(4)
        ],
        columns=["collection", "system", "query_id", "measure", "value"],
    )
    store = Store(folder)

    def evaluated(to):
        (to / "trial.json").write_text(facts.dump(trial))
        (to / "config.yaml").write_text(yaml.safe_dump(cfg, sort_keys=False))
        table.to_parquet(to / "per_query.parquet")

    stage = "distill" if loss else "prefinetune"
    store.cached(stage, trial.signatures[stage], student.save)
    store.cached("evaluate", trial.signature, evaluated)
    return folder, student


@torch.inference_mode()
def expected(student, pairs):
    return student(*student.pairs.batch(pairs))


def close(scores, student, pairs, within=1e-5):
    torch.testing.assert_close(scores, expected(student, pairs), atol=within, rtol=within)


@torch.inference_mode()
def plain_scores(folder, pairs, **more):
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, **more).eval()
    encode = AutoTokenizer.from_pretrained(folder, **more)
    inputs = encode([q for q, _ in pairs], [p for _, p in pairs], padding=True, return_tensors="pt")
    return classifier(**inputs).logits.squeeze(1)


OWN = [
    {"head": "linear"},
    {"head": "mean"},
    {"head": "interaction"},
    {"head": "interaction", "attention": "sparse"},
    {"head": "cls", "attention": "sparse"},
    {"head": "linear", "between": "int_token"},
    {"head": "cls", "between": "int_token"},
]


@pytest.mark.parametrize("settings", [{}, *OWN], ids=lambda s: "-".join(s.values()) or "plain")
def test_transformers_gives_the_same_scores(model, tmp_path, settings):
    store, student = store_of(tmp_path / "store", model, **settings)
    out = export(store, "ab12", tmp_path / "out")
    # the same unknown tokens in both are the same query, whose pairs would be a list
    pairs = PAIRS + (SPELT[:1] if "between" in settings else SPELT)
    scores = plain_scores(out, pairs, trust_remote_code=bool(settings))
    close(scores, student, pairs)
    assert scores.unique().numel() == len(pairs)
    again = expected(read(out), pairs + LONG)  # without own code, and with rdx's cuts
    close(again, student, pairs + LONG)
    code = {"modeling_rdx.py", "heads.py", "between.py"} if settings else set()
    assert {path.name for path in out.glob("*.py")} == code
    if settings:
        with pytest.raises(ValueError, match="trust_remote_code"):  # not a silent, untrained head
            plain_scores(out, PAIRS, trust_remote_code=False)


@pytest.mark.parametrize("settings", [{}, OWN[3]], ids=["plain", "own"])
def test_sentence_transformers_gives_the_same_scores(model, tmp_path, settings):
    CrossEncoder = pytest.importorskip("sentence_transformers").CrossEncoder
    store, student = store_of(tmp_path / "store", model, **settings)
    out = export(store, "ab12", tmp_path / "out")
    loaded = CrossEncoder(str(out), device="cpu", trust_remote_code=bool(settings))
    pairs = PAIRS + SPELT
    close(torch.tensor(loaded.predict(pairs)), student, pairs)
    assert loaded.max_seq_length == QUERY + PASSAGE + (4 if "roberta" in model else 3)
    loaded.predict(LONG)  # too long as a whole: cut, not an error


LISTS = [
    ("river engine", ["garden planet violin", "stone reed", " ".join(WORDS), "kelp"]),
    ("stone", ["stone reed", "onyx"]),
]


def listed(student):
    """Pairs of several queries, mixed, and the scores of each in its list."""
    pairs = [(query, passage) for query, passages in LISTS for passage in passages]
    with torch.inference_mode():
        scores = student(*student.pairs.batch(pairs, [len(passages) for _, passages in LISTS]))
    order = [4, 0, 3, 5, 1, 2]
    return [pairs[i] for i in order], scores[order]


def test_a_student_of_lists_takes_the_pairs_of_a_query_for_a_list(tmp_path):
    """In Transformers, sentence-transformers and the code of the card."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = make_model("electra", tmp_path / "model")
    store, student = store_of(
        tmp_path / "store", model, head="linear", between="int_token", filled_to=10
    )
    out = export(store, "ab12", tmp_path / "out")
    pairs, scores = listed(student)
    assert (scores - expected(student, pairs)).abs().min() > 1e-4
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    close(plain_scores(out, pairs, trust_remote_code=True), scores)
    loaded = sentence_transformers.CrossEncoder(str(out), device="cpu", trust_remote_code=True)
    close(torch.tensor(loaded.predict(pairs, batch_size=len(pairs))), scores)
    text = (out / "README.md").read_text()
    assert "batch_size=len(pairs)" in text and "Set-Encoder" in text
    [code] = [c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def score" in c]
    scope = {}
    exec(code.replace('"PATH"', repr(str(out))), scope)
    close(scope["score"](pairs), scores)


@pytest.mark.parametrize("settings", [{}, OWN[0]], ids=["plain", "own"])
def test_the_code_of_the_card_cuts_texts_as_the_student(tmp_path, settings):
    model = make_model("electra", tmp_path / "model")
    store, student = store_of(tmp_path / "store", model, **settings)
    out = export(store, "ab12", tmp_path / "out")
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    [code] = [block for block in blocks if "def score" in block]
    scope = {}
    exec(code.replace('"PATH"', repr(str(out))), scope)
    pairs = LONG + PAIRS + SPELT
    close(scope["score"](pairs), student, pairs)
    queries, passages = ({text: text for text in own} for own in zip(*pairs, strict=True))
    tokens = student.pairs.tokens(queries, passages)
    assert tokens.queries.cut(list(queries)).sum() == 1 == tokens.queries.cut([LONG[0][0]]).sum()
    assert tokens.passages.cut(list(passages)).sum() == 2
    assert tokens.passages.cut([LONG[0][1], LONG[1][1]]).all()


def test_a_cell_without_distillation_gives_its_first_stage(tmp_path):
    model = make_model("bert", tmp_path / "model")
    store, student = store_of(tmp_path / "store", model, loss=False)
    out = export(store, "ab12", tmp_path / "out")
    torch.testing.assert_close(plain_scores(out, PAIRS), expected(student, PAIRS))
    assert "gpt-99" not in (out / "README.md").read_text()


def test_adapters_are_merged(tmp_path):
    pytest.importorskip("peft")
    model = make_model("bert", tmp_path / "model")
    lora = {"_target_": "rdx.students.LoRA", "rank": 2, "targets": ["query"]}
    store, student = store_of(tmp_path / "store", model, lora=lora, compile=True)
    out = export(store, "ab12", tmp_path / "out")
    student = student_of(find(store, "ab12"))
    torch.testing.assert_close(plain_scores(out, PAIRS), expected(student, PAIRS))
    assert not [name for name in load_file(out / "model.safetensors") if "lora" in name]


def student_of(cell):
    return cell.student.load(cell.checkpoint).eval()


def test_the_card_is_complete_and_its_front_matter_valid(tmp_path):
    model = make_model("bert", tmp_path / "model")
    store, _ = store_of(tmp_path / "store", model)
    out = export(store, "ab12", tmp_path / "out", licence="apache-2.0", name="tiny-ranker")
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "text-ranking"
    assert card.data.base_model is None  # a folder is no model of the Hub
    assert card.data.model_name == "tiny-ranker"
    [result] = card.data.eval_results
    assert (result.dataset_name, result.metric_type) == ("tiny", "ndcg_10")
    assert result.metric_value == 0.55
    # means of .4, .5, .6, .7 and .2, .3, .4, .5; t(.975, 3) = 3.182446, sd = .1290994
    half = 3.182446 * 0.1290994 / 2
    assert f"| tiny | **student** | 4 | 0.5500 ± {half:.4f} |" in card.text
    assert f"| tiny | first_stage | 4 | 0.3500 ± {half:.4f} |" in card.text
    assert re.search(r"student\+first_stage is 0\.3 of .*0\.7 of", card.text)
    for said in (
        *("corpus.tsv", "BM25(k1=0.9, b=0.4)", "Depth(k=10, queries=3)", "gpt-99", "single_turn"),
        *("RankNet(temperature=1.0)", "Epochs(epochs=2)", "| seed | 7 |", "Health: `ok`"),
        *("1,234", "98,765", "| lists left out | 1 |", "`apache-2.0`", "Rank-DistiLLM", "ab12" * 4),
    ):
        assert said in card.text, said
    assert re.search(r"^Lists +3: 100.0% ok; 0 left out$", card.text, re.MULTILINE)  # the audit


@pytest.mark.parametrize(
    ("form", "settings"),
    [("transformers", {}), ("transformers", OWN[3]), ("lightning_ir", {"head": "linear"})],
)
def test_nothing_of_the_machine_is_published(tmp_path, form, settings):
    model = make_model("bert", tmp_path / "model")
    store, _ = store_of(tmp_path / "store", model, **settings)
    out = export(store, "ab12", tmp_path / "out", form=form)
    described = yaml.safe_load((out / "rdx.yaml").read_text())
    assert described["signature"] == "ab12" * 4
    assert described["signatures"]["distill"] == "bb" * 8
    assert described["config"]["seed"] == 7
    assert described["config"]["data"]["corpus"] == "corpus.tsv"
    for path in out.rglob("*"):
        if path.suffix in (".md", ".yaml", ".json", ".py"):
            text = path.read_text()
            for private in ("somebody", "secret", str(tmp_path), "mlflow"):
                assert private not in text, (path.name, private)


def test_a_hub_model_is_the_base_model_and_bad_health_is_marked(two):
    cell = find(two, "ab12")
    cell.config["student"]["model"] = "google/electra-base-discriminator"
    cell = replace(cell, facts=replace(cell.facts, health="constant_scores"))
    page = card(cell, "one", None, "transformers")
    assert page.data.base_model == "google/electra-base-discriminator"
    assert page.data.license == "unknown"
    assert "**Health: `constant_scores`" in page.text


def test_citation_has_the_paper_and_rdx():
    text = citation()
    assert "@inproceedings{schlatt2025," in text and "@software{rdx," in text
    assert "Schlatt, Ferdinand and Fröbe, Maik and" in text
    assert "doi = {10.1007/978-3-031-88714-7_31}" in text
    assert "author = {{the rdx authors}}" in text


def test_public_leaves_scheduling_and_folders_out():
    node = {
        "_target_": "rdx.trainer.Trainer",
        "max_tokens": 5,
        "model": "/a/b/c",
        "other": "a/b",
        "list": [{"_target_": "rdx.students.Student", "compile": True, "layers": 1}],
    }
    assert public(node) == {
        "_target_": "rdx.trainer.Trainer",
        "model": "c",
        "other": "a/b",
        "list": [{"_target_": "rdx.students.Student", "layers": 1}],
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A store with two finished cells, of which one begins as the other, and an unfinished one."""
    folder = tmp_path_factory.mktemp("two")
    store, _ = store_of(folder / "store", make_model("bert", folder / "model"))
    evaluated = store / "evaluate"
    shutil.copytree(evaluated / ("ab12" * 4), evaluated / ("ab13" * 4))
    (evaluated / "cd34cd34cd34cd34.partial").mkdir()
    (evaluated / "cd34cd34cd34cd34.lock").touch()
    return store


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        ("ff", "'ff'.* ab12.*, ab13"),
        ("ab1", "'ab1'.* 2 .*ab12.*, ab13"),
        ("", "''"),
        ("cd34", "cd34cd34cd34cd34"),
        ("../distill/bb", "distill"),
    ],
)
def test_signatures_that_name_no_one_cell(two, tmp_path, signature, names):
    for store in (two, tmp_path / "nowhere") if signature == "ff" else (two,):
        with pytest.raises(ExportError, match=names if store == two else "nowhere"):
            export(store, signature, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_folders_that_are_in_the_way(two, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name in ("full", "full/file"):
        with pytest.raises(ExportError, match=name):
            export(two, "ab12", tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert export(two, "ab12", tmp_path / "empty").name == "empty"
    assert (tmp_path / "empty" / "model.safetensors").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"full", "empty"}


@pytest.mark.parametrize("values", [{"licence": "Apache 2.0!"}, {"form": "onnx"}])
def test_bad_values_name_their_key(two, tmp_path, values):
    [(key, value)] = values.items()
    with pytest.raises(ExportError, match=re.escape(f"{key}={value!r}")):
        export(two, "ab12", tmp_path / "out", **values)


def test_what_is_missing_in_the_store_is_named(two, tmp_path):
    def broken(name, change, error=ExportError):
        store = tmp_path / name
        shutil.copytree(two, store)
        change(store)
        with pytest.raises(error) as raised:
            export(store, "ab12", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(raised.value)

    def old(store):
        folder = store / "evaluate" / ("ab12" * 4)
        (folder / "config.yaml").unlink()
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["files"]["config.yaml"]
        (folder / "manifest.json").write_text(json.dumps(manifest))

    weights = Path("distill") / ("bb" * 8)
    assert "config.yaml" in broken("old", old, Unreadable)
    assert "weights" in broken("gone", lambda store: shutil.rmtree(store / weights))
    touched = broken("touched", lambda s: (s / weights / "config.json").write_text("{}"))
    assert "checksum" in touched
    report = Path("evaluate") / ("ab12" * 4) / "trial.json"
    assert "damaged" in broken("report", lambda store: (store / report).unlink())


def test_a_tokeniser_without_separators_is_refused(tmp_path):
    model = make_model("bert", tmp_path / "model")
    store, _ = store_of(tmp_path / "store", model, head="mean")
    from rdx.export.weights import write

    settings = find(store, "ab12").student
    student = settings.load(find(store, "ab12").checkpoint).eval()
    student.pairs.tokenizer.sep_token = None
    with pytest.raises(ExportError, match="head='mean'"):
        write(student, settings, "transformers", tmp_path)


@pytest.mark.slow
def test_a_cell_of_the_pipeline_is_exported(world, rdx, tmp_path):
    rdx(world.overrides(tmp_path / "store"), tmp_path, status=0)
    [folder] = [p for p in (tmp_path / "store" / "evaluate").iterdir() if p.is_dir()]
    out = export(tmp_path / "store", folder.name[:6], tmp_path / "out")
    cell = find(tmp_path / "store", folder.name)
    assert cell.student == Student(
        str(world.folder / "bert"), head="interaction", query_length=8, passage_length=16
    )
    pairs = [("river amber", "engine basil river"), ("planet", "planet onyx reed")]
    close(plain_scores(out, pairs, trust_remote_code=True), student_of(cell), pairs, within=1e-4)
    weight = cell.facts.collections["files"].weight
    assert f"student+first_stage is {weight:g} of" in (out / "README.md").read_text()


IN_LIGHTNING_IR = [("bert", "cls"), ("roberta", "cls")] + [
    (kind, "linear") for kind in ("bert", "electra", "roberta")
]


# Lightning IR 0.0.6 needs Transformers 4, rdx needs 5: it scores in a process of its own.
LIGHTNING_IR = os.environ.get("LIGHTNING_IR_PYTHON")
SCORING = """
import json, sys, torch
from lightning_ir import CrossEncoderModule
module = CrossEncoderModule(model_name_or_path=sys.argv[1]).eval()
with torch.inference_mode():
    scores = [module.score(q, [p]).scores.float().item() for q, p in json.loads(sys.argv[2])]
print(json.dumps(scores))
"""


@pytest.mark.slow
@pytest.mark.skipif(not LIGHTNING_IR, reason="LIGHTNING_IR_PYTHON names no Python that has it")
@pytest.mark.parametrize(("kind", "head"), IN_LIGHTNING_IR)
def test_lightning_ir_gives_the_same_scores(tmp_path, kind, head):
    store, student = store_of(tmp_path / "store", make_model(kind, tmp_path / "model"), head=head)
    out = export(store, "ab12", tmp_path / "out", form="lightning_ir")
    pairs = PAIRS + LONG
    command = [LIGHTNING_IR, "-c", SCORING, str(out), json.dumps(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    close(scores, student, pairs)
    assert scores.unique().numel() == len(pairs)


@pytest.mark.slow
@pytest.mark.skipif(not LIGHTNING_IR, reason="LIGHTNING_IR_PYTHON names no Python that has it")
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_lightning_irs_set_encoder_gives_the_same_scores(tmp_path, kind):
    model = make_model(kind, tmp_path / "model")
    settings = {"head": "linear", "between": "int_token"}
    store, student = store_of(tmp_path / "store", model, **settings)
    out = export(store, "ab12", tmp_path / "out", form="lightning_ir")
    code = SCORING.replace("[p]", "p").replace(".item()", ".view(-1).tolist()")
    command = [LIGHTNING_IR, "-c", code, str(out), json.dumps(LISTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = torch.tensor(sum(json.loads(done.stdout.splitlines()[-1]), []))
    pairs = [(query, passage) for query, passages in LISTS for passage in passages]
    with torch.inference_mode():
        own = student(*student.pairs.batch(pairs, [len(passages) for _, passages in LISTS]))
    torch.testing.assert_close(scores, own, atol=1e-5, rtol=1e-5)


def test_the_form_of_lightning_ir_has_a_set_encoder(tmp_path):
    model = make_model("electra", tmp_path / "model")
    settings = {"head": "linear", "between": "int_token"}
    store, student = store_of(tmp_path / "store", model, **settings)
    out = export(store, "ab12", tmp_path / "out", form="lightning_ir")
    described = json.loads((out / "config.json").read_text())
    assert described["model_type"] == "set-encoder"
    assert described["architectures"] == ["SetEncoderElectraModel"]
    assert described["add_extra_token"] and not described["sample_missing_docs"]
    token = AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("[INT]")
    table = load_file(out / "model.safetensors")["electra.embeddings.word_embeddings.weight"]
    assert token == len(table) - 1 == described["vocab_size"] - 1
    with pytest.raises(ExportError, match="--form"):
        read(out)
    with pytest.raises(ValueError, match="^start=x: .*signature of its cell"):
        check_folder(out, "start=x", "linear", "int_token")


def test_only_a_student_of_rdx_is_read_back(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ExportError, match=folder.name):
            read(folder)


def test_the_tokeniser_says_how_special_tokens_in_texts_are_read(tmp_path):
    store, student = store_of(tmp_path / "store", make_model("bert", tmp_path / "model"))
    for form, split in (("transformers", True), ("lightning_ir", False)):
        out = export(store, "ab12", tmp_path / form, form=form)
        assert AutoTokenizer.from_pretrained(out).split_special_tokens == split
    assert student.pairs.tokenizer.split_special_tokens


@pytest.mark.parametrize(("kind", "head"), IN_LIGHTNING_IR)
def test_the_form_of_lightning_ir_has_its_names(tmp_path, kind, head):
    store, _ = store_of(tmp_path / "store", make_model(kind, tmp_path / "model"), head=head)
    out = export(store, "ab12", tmp_path / "out", form="lightning_ir")
    settings = json.loads((out / "config.json").read_text())
    assert (settings["model_type"], settings["backbone_model_type"]) == ("mono", kind)
    assert (settings["query_length"], settings["doc_length"]) == (QUERY, PASSAGE)
    assert settings["linear_bias"] == (head == "cls")
    assert settings["pooling_strategy"] == ("bert_pool" if head == "cls" else "first")
    state = load_file(out / "model.safetensors")
    assert all(name.startswith(f"{kind}.") for name in state)
    state = {name.removeprefix(f"{kind}."): value for name, value in state.items()}
    shapes = {name: tuple(state[name].shape) for name in state if "embeddings" not in name}
    ours = {name: shape for name, shape in shapes.items() if not name.startswith("encoder.")}
    linear = {"linear.weight": (1, 16)}
    pooled = {"linear.bias": (1,), "bert_pool.0.weight": (16, 16), "bert_pool.0.bias": (16,)}
    assert ours == linear | (pooled if head == "cls" else {})
    assert "lightning_ir" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("electra", {}),
        ("bert", {"head": "mean"}),
        ("bert", {"head": "interaction"}),
        ("bert", {"head": "linear", "attention": "sparse"}),
        ("bert", {"template": "[CLS] {query} [SEP] {passage}"}),
        ("roberta", {"head": "linear", "between": "int_token"}),
    ],
)
def test_what_lightning_ir_has_no_model_for_is_refused(tmp_path, kind, settings):
    store, _ = store_of(tmp_path / "store", make_model(kind, tmp_path / "model"), **settings)
    with pytest.raises(ExportError, match=r"student\.(head|template|between)="):
        export(store, "ab12", tmp_path / "out", form="lightning_ir")
    assert not (tmp_path / "out").exists()
