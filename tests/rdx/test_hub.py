"""Models by their ids: which commit is loaded and signed, and what is said where none can be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from loopback_hub import TOKEN, running

from rdx import config, hub, stages
from rdx.assets import model_path
from rdx.config import ConfigError
from rdx.doctor import ERROR, NOTE, OK, places
from rdx.samplers import ColBERT
from rdx.students import Student
from rdx.teachers import Local, QueryLikelihood
from tests.rdx import tiny

BASE, LARGE = "google/electra-base-discriminator", "google/electra-large-discriminator"
ZEPHYR, COLBERT, GATED = "castorini/rank_zephyr_7b_v1_full", "colbert-ir/colbertv2.0", "acme/gated"
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHORT = {"query_length": 8, "passage_length": 16}  # what the tiny models have positions for


def electra(folder: Path, vocabulary: Path, pickled: bool, seed: int = 0) -> None:
    """As the authors have it: the discriminator, with its own head."""
    from transformers import BertTokenizerFast, ElectraConfig, ElectraForPreTraining

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    model = ElectraForPreTraining(ElectraConfig(vocab_size=41, **sizes))
    model.save_pretrained(folder)
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    if pickled:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()


def mistral(folder: Path) -> None:
    """A model of several files, with a chat template."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *LETTERS, *LETTERS.lower(), *"0123456789[]>|<.,:- "]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "intermediate_size": 32, "vocab_size": len(words)}
    model = MistralForCausalLM(MistralConfig(max_position_embeddings=8192, **sizes))
    model.save_pretrained(folder, max_shard_size="12KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def colbert(folder: Path) -> None:
    """As its authors store it: BERT, the projection beside it, and their own settings."""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    words = ["[unused0]", "[unused1]", ".", ",", *LETTERS.lower()]
    tiny.tokenizer(folder, words).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = BertConfig(vocab_size=35, intermediate_size=32, **sizes)
    weights = {f"bert.{k}": v for k, v in BertModel(settings).state_dict().items()}
    save_file(weights | {"linear.weight": torch.randn(8, 16)}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    settings.architectures = ["HF_ColBERT"]
    settings.save_pretrained(folder)
    metadata = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    metadata |= {"query_maxlen": 8, "doc_maxlen": 20, "mask_punctuation": True}
    (folder / "artifact.metadata").write_text(json.dumps(metadata))


@pytest.fixture(scope="session")
def models(world, tmp_path_factory) -> Path:
    """Folders of tiny random checkpoints, in the forms in which the real ones are published."""
    folder = tmp_path_factory.mktemp("models")
    electra(folder / "base", world.folder / "bert" / "vocab.txt", pickled=True)
    electra(folder / "large", world.folder / "bert" / "vocab.txt", pickled=False)
    electra(folder / "moved", world.folder / "bert" / "vocab.txt", pickled=False, seed=1)
    mistral(folder / "mistral")
    colbert(folder / "colbert")
    return folder


FOLDERS = {BASE: "base", LARGE: "large", ZEPHYR: "mistral", COLBERT: "colbert"}


@pytest.fixture
def server(models):
    with running() as hub_server:
        for name, folder in FOLDERS.items():
            hub_server.add(name, models / folder)
        hub_server.add(GATED, models / "large", gated=True)
        yield hub_server


def forget():
    """As in a new process: the Hub is asked anew."""
    hub._answers = hub._Answers()


@pytest.fixture
def online(server, tmp_path, monkeypatch):
    """This process asks the loopback Hub, with a cache of its own and nobody logged in."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": server.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "".join(template[1:]),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    forget()
    yield server
    forget()


@pytest.fixture
def offline(monkeypatch):
    def switch(on=True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", on)
        forget()

    return switch


def head(server, name):
    return server.repositories[name].refs["main"]


# --- what is loaded ---


@pytest.mark.parametrize("name", [BASE, LARGE])
@pytest.mark.parametrize("head", ["linear", "cls"])
def test_a_student_by_its_id_is_that_of_the_folder(online, models, name, head, offline):
    settings = {"head": head, **SHORT}
    expected = Student(str(models / FOLDERS[name]), **settings).create(3).state_dict()
    for away in (False, True):
        offline(away)
        weights = Student(name, **settings).create(3).state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights)


def test_a_model_of_several_files(online, models, offline):
    from rdx.teachers.models import load_causal

    _, expected = load_causal(str(models / "mistral"), "fp32", "cpu")
    for away in (False, True):
        offline(away)
        tokenizer, model = load_causal(ZEPHYR, "fp32", "cpu")
        assert tokenizer.chat_template == CHAT
        assert all(
            torch.equal(*two) for two in zip(model.parameters(), expected.parameters(), strict=True)
        )


def test_colbert_of_its_authors(online, models, offline):
    texts = ["a b. c", "d e f g"]
    plain = ColBERT(str(models / "colbert"), kind="colbert", device="cpu", precision="fp32")
    by_id = ColBERT(COLBERT, kind="colbert", device="cpu", precision="fp32")
    expected = plain._encode(plain._model(), texts, "document")
    for away in (False, True):
        offline(away)
        tokens = by_id._encode(by_id._model(), texts, "document")
        assert {vectors.shape[1] for vectors in tokens} == {8}
        assert all((a == b).all() for a, b in zip(tokens, expected, strict=True))


def test_one_request_tells_commit_and_files(online):
    assert hub.commit(BASE) == head(online, BASE) == hub.commit(BASE, "main")
    hub.commit(BASE, head(online, BASE))
    first = hub.snapshot(BASE)
    assert first.name == head(online, BASE)
    about = [request for request in online.asked if "/api/" in request]
    assert about == [f"GET /api/models/{BASE}/revision/main"]
    before = len(online.asked)
    assert hub.snapshot(BASE) == first and len(online.asked) == before


def test_a_commit_stays_when_main_moves(online, models):
    old = head(online, LARGE)
    before = Student(LARGE, head="linear", **SHORT).create(0).state_dict()
    new = online.add(LARGE, models / "moved")
    forget()
    moved = Student(LARGE, head="linear", **SHORT).create(0).state_dict()
    pinned = Student(LARGE, head="linear", revision=old, **SHORT).create(0).state_dict()
    name = "encoder.embeddings.word_embeddings.weight"
    assert old != new and torch.equal(before[name], pinned[name])
    assert not torch.equal(before[name], moved[name])


def test_only_what_is_read_is_downloaded(online, models, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(models / "large", folder)
    for extra in ("pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "code.py"):
        (folder / extra).write_bytes(b"x")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.json").write_text("{}")
    online.add("acme/both", folder)
    there = {path.name for path in hub.snapshot("acme/both").rglob("*")}
    assert there == {path.name for path in (models / "large").iterdir()}


# --- what is signed ---


def cells(*overrides):
    return stages.cells([*overrides, "tracking=none"])


def test_the_commit_is_part_of_the_identity(online, models):
    [before] = cells("student=monoelectra_large")
    commit = head(online, LARGE)
    assert before.cfg["student"]["revision"] == commit
    assert f"++student.revision='{commit}'" in before.pinned
    [named] = cells("student=monoelectra_large", f"student.revision={commit}")
    [again] = stages.cells([*before.overrides, *before.pinned])
    assert named.keys == before.keys == again.keys
    online.add(LARGE, models / "moved")
    assert cells("student=monoelectra_large")[0].keys == before.keys  # nothing is asked twice
    forget()
    [moved] = cells("student=monoelectra_large")
    changed = {stage for stage in moved.keys if moved.keys[stage] != before.keys[stage]}
    tokens = {"tokens training", "tokens test pydocs"}
    assert changed == {"prefinetune", "distill", "evaluate"} | tokens


def test_every_loader_of_a_cell_is_resolved(online):
    [cell] = cells("student=hf", f"student.model={BASE}", "teacher=rankzephyr",
                   "sampler=colbertv2", "+sampler@sampler.over=colbertv2")  # fmt: skip
    base, zephyr, colbert = (head(online, name) for name in (BASE, ZEPHYR, COLBERT))
    assert {path: node["revision"] for path, node in config.loaders(cell.cfg)
            if node["model"][:6] != "asset:"} == {
        "student": base, "teacher.backend": zephyr, "sampler": colbert, "sampler.over": colbert,
    }  # fmt: skip
    assert config.build(cell.cfg["sampler"], "sampler").fingerprint()["revision"] == colbert
    backend = config.build(cell.cfg["teacher"], "teacher").backend
    assert backend.backend().identity()["revision"] == zephyr


def test_folders_and_assets_ask_nothing_and_have_no_revision(online, models):
    [cell] = cells("student=hf", f"student.model={models / 'large'}", "teacher=query_likelihood")
    for group in ("student", "teacher"):
        assert "revision" not in config.identity(config.build(cell.cfg[group], group))
    assert not any("revision" in override for override in cell.pinned)
    model_path(str(models / "large"))
    assert online.asked == []


def test_without_the_hub_the_cache_knows_the_commit(online, models, offline, monkeypatch):
    [first] = cells("student=monoelectra_large")
    offline()
    [unknown] = cells("student=monoelectra_large")
    assert unknown.cfg["student"]["revision"] is None
    assert not any("revision" in override for override in unknown.pinned)
    offline(False)
    hub.snapshot(LARGE)
    before = len(online.asked)
    offline()
    assert cells("student=monoelectra_large")[0].keys == first.keys
    assert len(online.asked) == before
    offline(False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert cells("student=monoelectra_large")[0].keys == first.keys


def test_workers_that_download_a_commit_leave_main_to_be_found(online, offline):
    [cell] = cells("student=monoelectra_large")
    config.require_models([cell.cfg])  # before the workers start
    subprocess.run(
        [sys.executable, "-c", "from rdx import hub; import sys; hub.snapshot(*sys.argv[1:])",
         LARGE, cell.cfg["student"]["revision"]],
        env=environment(online, constants.HF_HUB_CACHE), check=True,
    )  # fmt: skip
    offline()
    assert hub.commit(LARGE) == cell.cfg["student"]["revision"]
    assert hub.available(LARGE).cached


def test_a_revision_is_of_the_hub_only(models):
    for loader in (Student, QueryLikelihood, Local, ColBERT):
        for model in (str(models / "large"), "asset:all-MiniLM-L6-v2"):
            with pytest.raises(ValueError, match="revision='v1'"):
                loader(model, revision="v1").check()
        with pytest.raises((ValueError, FileNotFoundError), match="/no/such/folder"):
            loader("/no/such/folder").check()


# --- what is said ---


def check_told(name, *named, **more):
    """Each way to find a model that cannot be had names it, the problem and the cure."""
    with pytest.raises(hub.HubError) as loading:
        hub.snapshot(name, **more)
    with pytest.raises(hub.HubError) as listing:
        hub.available(name, **more)
    [finding] = places.model(name, "student.model", **more)
    assert finding.state == ERROR
    lines = {str(loading.value), str(listing.value)}
    assert not any("\n" in line for line in lines) and all(name in line for line in lines)
    for text in lines | {f"{finding.told}; {finding.cure}"}:
        assert [word for word in named if word not in text] == []


def test_missing_gated_and_wrong(online, monkeypatch):
    check_told("acme/no-such", "folder 'acme/no-such'")
    check_told(BASE, "revision 'v7'", revision="v7")
    check_told(GATED, "hf auth login")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    forget()
    check_told(GATED, f"{online.address}/{GATED}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    forget()
    [finding] = places.model(GATED, "student.model")
    assert finding.state == NOTE and "model.safetensors" in finding.told
    assert hub.snapshot(GATED).name == head(online, GATED)
    [finding] = places.model(GATED, "student.model")
    assert finding.state == OK


def test_no_hub_and_no_cache(online, monkeypatch, offline):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    check_told("models/mine", "folder 'models/mine'")
    offline()
    check_told(BASE, "HF_HUB_OFFLINE")
    [cell] = cells("student=monoelectra_base")
    config.check(cell)
    with pytest.raises(ConfigError, match="^student.model=google"):
        config.require_models([cell.cfg])


def test_what_the_cache_lacks_is_named(online, offline):
    folder = hub.snapshot(ZEPHYR)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.resolve().rename(shard.resolve().with_suffix(".incomplete"))
    offline()
    check_told(ZEPHYR, shard.name, "1 of ")
    offline(False)
    [finding] = places.model(ZEPHYR, "teacher.backend.model")
    assert finding.state == NOTE
    assert hub.snapshot(ZEPHYR) == folder and shard.exists()


def test_a_damaged_file_of_the_cache_is_found(online, offline):
    folder = hub.snapshot(ZEPHYR)
    shard = sorted(folder.glob("*.safetensors"))[1]
    os.truncate(shard.resolve(), shard.stat().st_size - 8)
    offline()
    check_told(ZEPHYR, shard.name)
    offline(False)
    whole = hub.available(ZEPHYR).size
    assert hub.snapshot(ZEPHYR) == folder and hub.available(ZEPHYR).size == whole


def test_a_download_that_breaks_off_goes_on(online):
    online.repositories[LARGE].breaks["model.safetensors"] = 1
    folder = hub.snapshot(LARGE)
    asked = f"GET /large/{LARGE}/resolve/{folder.name}/model.safetensors"
    assert online.asked.count(asked) == 2
    Student(LARGE, head="linear", **SHORT).create(0)


def test_a_download_that_ends_early_is_told_and_not_kept(online):
    online.repositories[LARGE].short = frozenset(["model.safetensors"])
    with pytest.raises(hub.HubError, match=r"model\.safetensors"):
        hub.snapshot(LARGE)
    assert not hub.available(LARGE).cached
    online.repositories[LARGE].short = frozenset()
    assert hub.available(LARGE).size == (hub.snapshot(LARGE) / "model.safetensors").stat().st_size


def test_a_repository_without_weights(online, models, tmp_path):
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    online.add("acme/none", folder)
    check_told("acme/none", "weights")


def test_a_checkpoint_that_lacks_weights_is_refused(models, tmp_path):
    from safetensors.torch import load_file, save_file

    from rdx.teachers.models import load_causal

    folder = tmp_path / "lacking"
    shutil.copytree(models / "large", folder)
    weights = load_file(folder / "model.safetensors")
    lacking = next(name for name in weights if "layer.0.output.dense.weight" in name)
    del weights[lacking]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for head in ("linear", "cls"):
        with pytest.raises(ValueError, match=lacking.removeprefix("electra.")):
            Student(str(folder), head=head, **SHORT).create(0)
    with pytest.raises(ValueError, match="lack"):
        load_causal(str(models / "large"), "fp32", "cpu")


# --- whole cells ---


def environment(server, cache, **more):
    own = {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    left = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    return left | own | {"PYTHONPATH": str(Path(__file__).parents[2])} | more


LINES = {
    "generate": ("student=monoelectra_base", "teacher=rankzephyr", "teacher.parse=lenient"),
    "first_token": (
        *("student=monoelectra_large", "teacher=rankzephyr", "teacher.prompt=first_token"),
        "teacher.backend.score=first_token",
    ),
    "hf": ("student=hf", f"student.model={BASE}", "student.head=cls", "teacher=oracle"),
}


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_cell_runs_by_ids_and_again_from_the_cache(server, world, tmp_path, line):
    teacher = line != "hf"
    overrides = [
        *(override for override in world.overrides(tmp_path / "store", "prefinetune=none")
          if not override.startswith(("student", "teacher", "trainer.precision"))),
        *LINES[line],
        *("student.query_length=8", "student.passage_length=16", "trainer.precision=fp32"),
        *(("teacher.window=5", "teacher.stride=3", "teacher.backend.precision=fp32",
           "teacher.passage_words=16", "teacher.backend.device=cpu") if teacher else ()),
        *("sampler=colbertv2", "sampler.device=cpu", "sampler.precision=fp32"),
    ]  # fmt: skip

    def run(store, **more):
        command = [sys.executable, "-m", "rdx", *overrides, f"store={tmp_path / store}"]
        settings = {"capture_output": True, "text": True, "cwd": tmp_path}
        return subprocess.run(
            command, env=environment(server, tmp_path / "cache", **more), **settings
        )

    first = run("store")
    assert first.returncode == 0, first.stderr[-3000:]
    noise = ("Loading weights", "HTTP Request", "LOAD REPORT")
    said = (first.stdout + first.stderr).splitlines()
    assert [row for row in said if any(words in row for words in noise)] == []
    asked = len(server.asked)
    about = [request for request in server.asked if "/api/" in request]
    assert len(about) == len(set(about))
    again = run("other", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(server.asked) == asked

    def told(done):
        return [text for text in done.stdout.splitlines() if "signature" in text or "nDCG" in text]

    assert told(again) == told(first) and told(first)


@pytest.mark.slow
def test_a_line_whose_model_is_not_to_be_had_ends_early(server, tmp_path):
    for overrides, words in (
        (["student=hf", "student.model=models/mine"], "models/mine"),
        (["student=hf", f"student.model={GATED}"], "hf auth login"),
        (["student=hf", f"student.model={BASE}", "student.revision=v7"], "'v7'"),
    ):
        command = [sys.executable, "-m", "rdx", *overrides, "tracking=none"]
        done = subprocess.run(command, env=environment(server, tmp_path / "cache"), cwd=tmp_path,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 1 and words in done.stderr
        assert len(done.stderr.splitlines()) == 1
