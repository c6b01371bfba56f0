"""A student has its checkpoint's weights, all of them, or it is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForMaskedLM

from rdx.config.building import check_here
from rdx.loading import ModelError
from rdx.students import Student
from tests.rdx.small_models import FAMILIES, PAIRS, save

SHORT = {"query_length": 8, "passage_length": 40}
WEIGHTS = "model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore:.*its (trained head|head has two labels)")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Folder of an encoder without a head."""
    return save("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    """Folder of a trained classifier with one label."""
    return save("bert", tmp_path_factory.mktemp("ranker"), classifier=1)


def student(folder, head="cls", **settings):
    return Student(str(folder), head=head, **(SHORT | settings)).create(0).eval()


@torch.no_grad()
def score(model, pairs=PAIRS):
    return model(*model.pairs.batch(pairs))


@torch.no_grad()
def logits(folder):
    """What plain Transformers gives every pair alone, [P, labels]."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = ("input_ids", "attention_mask")
    if getattr(model.config, "type_vocab_size", 0) > 1:
        given = (*given, "token_type_ids")
    rows = [tokenizer(*pair, return_tensors="pt") for pair in PAIRS]
    return torch.cat([model(**{k: row[k] for k in given if k in row}).logits for row in rows])


def changed(folder, place, weights=None, **config):
    """A copy of a model's folder with other names or tensors, or another configuration."""
    shutil.copytree(folder, place)
    path = place / WEIGHTS
    if weights is not None:
        save_file(weights(load_file(path)), path, metadata={"format": "pt"})
    known = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(known | config))
    return place


def renamed(prefix):
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


def without(part):
    return lambda weights: {name: v for name, v in weights.items() if part not in name}


def taller(weights):
    name = next(n for n in weights if n.endswith("word_embeddings.weight"))
    return weights | {name: torch.cat([weights[name], weights[name][:2]])}


def half(weights):
    name = next(n for n in weights if n.endswith("layer.1.output.dense.weight"))
    return weights | {name: weights[name][:, :16].clone()}


PARTIAL = {
    "data parallel": (renamed("module."), {}, "'module.'"),
    "compiled": (renamed("_orig_mod."), {}, "'_orig_mod.'"),
    "both": (renamed("module._orig_mod."), {}, "'module._orig_mod.'"),
    "of Lightning": (renamed("model.bert."), {}, "prefix 'model."),
    "of peft": (renamed("base_model.model."), {}, "'base_model.model.'"),
    "a layer is missing": (without("layer.1."), {}, "16 tensors"),
    "a bias is missing": (without("layer.1.output.dense.bias"), {}, "1 tensors"),
    "embeddings alone": (lambda w: {n: v for n, v in w.items() if "word" in n}, {}, "tensors"),
    "more layers than said": (None, {"num_hidden_layers": 1}, "16 of its tensors"),
    "fewer layers than said": (None, {"num_hidden_layers": 3}, "16 tensors"),
    "another vocabulary": (taller, {}, r"word_embeddings\.weight: \[70, 16\], not \[68, 16\]"),
    "another size": (half, {}, r"\[16, 16\], not \[16, 32\]"),
    "another type": (None, {"model_type": "electra", "embedding_size": 8}, "student.model="),
    "quantised": (None, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
    "unknown type": (None, {"model_type": "nobody-knows"}, "nobody-knows"),
}


OF_BOTH = ("data parallel", "of Lightning", "a layer is missing", "another vocabulary")


@pytest.mark.parametrize(
    ("case", "head"), [(case, "mean") for case in PARTIAL] + [(case, "cls") for case in OF_BOTH]
)
def test_a_folder_that_is_read_in_part_is_refused(case, head, bert, tmp_path):
    weights, config, named = PARTIAL[case]
    folder = changed(bert, tmp_path / "model", weights, **config)
    with pytest.raises(ModelError, match=named) as error:
        student(folder, head)
    assert str(error.value).startswith("student.model=") and "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["pooler", "classifier.bias", "classifier.weight"])
def test_a_trained_output_layer_on_random_weights_is_refused(part, ranker, tmp_path):
    assert len(student(changed(ranker, tmp_path / "none", without("cl")), "cls").pairs.lengths) == 2
    with pytest.raises(ModelError, match="student.model="):
        student(changed(ranker, tmp_path / "half", without(part)), "cls")


@pytest.mark.parametrize(
    ("kind", "head"),
    [("bert", "linear"), ("distilbert", "mean"), ("modernbert", "mean"), ("albert", "interaction")]
    + [("gpt2", "cls"), ("t5", "cls"), ("xlnet", "cls")],
)
def test_layers_beyond_the_models_are_refused(kind, head, tmp_path):
    folder = save(kind, tmp_path)
    for layers in (1, 2):
        model = student(folder, head, layers=layers)
        assert model.encoder.config.num_hidden_layers == layers
    with pytest.raises(ModelError, match=r"student\.layers=3: .* 2 layers"):
        student(folder, head, layers=3)


def test_kept_layers_are_the_checkpoints(bert):
    whole = load_file(f"{bert}/{WEIGHTS}")
    own = student(bert, "mean", layers=1).encoder.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in own.items())
    assert not [name for name in own if "layer.1." in name]


@pytest.mark.parametrize("form", ["several files", "pickle", "under a head", "with old buffers"])
@pytest.mark.filterwarnings("ignore:.*weights as a pickle")
def test_whatever_form_a_whole_model_has_is_loaded_whole(form, bert, tmp_path):
    folder = changed(bert, tmp_path / "model")
    path = folder / WEIGHTS
    weights = load_file(path)
    if form == "several files":
        path.unlink()
        student(bert, "mean").encoder.save_pretrained(folder, max_shard_size="8KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
    elif form == "pickle":
        path.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    elif form == "under a head":
        BertForMaskedLM.from_pretrained(bert).save_pretrained(folder)  # has no pooler
    else:
        ids = torch.arange(128).unsqueeze(0)
        save_file(weights | {"embeddings.position_ids": ids}, path, metadata={"format": "pt"})
    own = student(folder, "mean").encoder.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[n], weights[n]) for n in weights if "pooler" not in n)


def test_a_file_of_several_that_is_missing_is_named_before_anything_is_read(bert, tmp_path):
    folder = changed(bert, tmp_path / "model")
    (folder / WEIGHTS).unlink()
    student(bert, "mean").encoder.save_pretrained(folder, max_shard_size="8KB")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ValueError, match=f"student.model=.*{lost.name}"):
        check_here(Student(str(folder), head="mean"), "student")
    with pytest.raises((ModelError, FileNotFoundError), match=lost.name):
        student(folder, "mean")


def test_adapters_and_folders_without_weights_are_told_apart(bert, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    adapted = peft.get_peft_model(
        AutoModel.from_pretrained(bert), peft.LoraConfig(target_modules=["query"])
    )
    adapted.save_pretrained(tmp_path / "adapters")
    beside = changed(bert, tmp_path / "beside")
    shutil.copy(tmp_path / "adapters" / "adapter_config.json", beside)
    empty = changed(bert, tmp_path / "empty")
    (empty / WEIGHTS).unlink()
    for folder, named in (
        (tmp_path / "adapters", "adapters"),
        (beside, "adapters"),
        (empty, "no we"),
    ):
        with pytest.raises(ValueError, match=named):
            check_here(Student(str(folder), head="mean"), "student")
        with pytest.raises((ModelError, FileNotFoundError), match=named):
            student(folder, "mean")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "merged")
    assert torch.equal(score(student(tmp_path / "merged", "mean")), score(student(bert, "mean")))


# --- heads ---


@pytest.mark.parametrize("head", ["linear", "mean", "interaction"])
def test_a_saved_student_is_created_with_its_own_head(head, bert, tmp_path):
    trained = student(bert, head)
    for parameter in trained.head.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(5))
    trained.save(tmp_path)
    again = Student(str(tmp_path), head=head, **SHORT)
    for seed in (0, 1):
        assert torch.equal(score(again.create(seed).eval()), score(trained))
    assert torch.allclose(score(again.load(tmp_path).eval()), score(trained), atol=1e-5)
    for other in {"cls", "linear", "mean", "interaction"} - {head}:
        with pytest.raises(ValueError, match=f"head={head}"):
            check_here(Student(str(tmp_path), head=other), "student")
        with pytest.raises(ModelError, match=f"student.head={head}"):
            student(tmp_path, other)
    (tmp_path / "head.safetensors").unlink()
    assert not torch.equal(score(again.create(0).eval()), score(trained))


def test_a_damaged_head_is_refused(bert, tmp_path):
    student(bert, "mean").save(tmp_path)
    weights = load_file(tmp_path / "head.safetensors")
    save_file({"linear.weight": weights["linear.weight"]}, tmp_path / "head.safetensors")
    for make in (lambda s: s.create(0), lambda s: s.load(tmp_path)):
        with pytest.raises(ModelError, match="head.safetensors"):
            make(Student(str(tmp_path), head="mean", **SHORT))


def test_a_checkpoint_that_lost_its_head_is_not_evaluated_with_a_fresh_one(ranker, tmp_path):
    student(ranker).save(tmp_path)
    weights = without("classifier")(load_file(tmp_path / WEIGHTS))
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="2 tensors"):
        Student(ranker, **SHORT).load(tmp_path)


CLASSIFIERS = [kind for kind in FAMILIES if kind not in ("llama that pads otherwise",)]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_two_labels_give_the_difference_of_their_logits(kind, tmp_path):
    folder = save(kind, tmp_path / "two", classifier=2)
    expected = logits(folder) @ torch.tensor([-1.0, 1.0])
    with pytest.warns(UserWarning, match="'LABEL_1' minus that of 'LABEL_0'"):
        model = student(folder)
    alone = torch.cat([score(model, [pair]) for pair in PAIRS])
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
    model.save(tmp_path / "one")  # and is a plain classifier with one label from then on
    assert torch.allclose(logits(tmp_path / "one").squeeze(1), expected, atol=1e-5)
    assert torch.allclose(score(student(tmp_path / "one"), PAIRS), score(model), atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "xlnet", "t5", "llama"])
def test_one_label_is_the_logit_and_more_are_refused(kind, tmp_path):
    one = save(kind, tmp_path / "one", classifier=1)
    alone = torch.cat([score(student(one), [pair]) for pair in PAIRS])
    torch.testing.assert_close(alone, logits(one).squeeze(1), atol=1e-5, rtol=1e-5)
    three = save(kind, tmp_path / "three", classifier=3)
    with pytest.raises(ModelError, match=r"student\.model=.*3 labels.*student\.head=linear"):
        student(three)


def test_a_trained_head_is_left_out_with_a_warning(ranker, bert):
    with pytest.warns(UserWarning, match=r"classifier\.bias, classifier\.weight.*head=cls"):
        student(ranker, "linear")
    names = ["linear.weight"]
    own = Student(ranker, head="linear", **SHORT).create(3).head.state_dict()
    other = Student(bert, head="linear", **SHORT).create(3).head.state_dict()
    assert list(own) == names and torch.equal(own[names[0]], other[names[0]])


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1, 2])
def test_a_cross_encoder_of_sentence_transformers_scores_as_there(labels, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    folder = save("bert", tmp_path / "plain", classifier=labels)
    theirs = library.CrossEncoder(folder, activation_fn=torch.nn.Identity(), device="cpu")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    expected = torch.as_tensor(theirs.predict(PAIRS)).reshape(len(PAIRS), labels)
    expected = expected.squeeze(1) if labels == 1 else expected[:, 1] - expected[:, 0]
    found = score(student(tmp_path / "theirs"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
