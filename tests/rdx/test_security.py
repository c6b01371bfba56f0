"""Nothing that is loaded may run code, and no key may be written anywhere."""

import base64
import gzip
import json
import os
import pickle
import re
import shutil
import sys
import textwrap
import urllib.parse
import warnings
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from faulty_server import FaultyServer, answer, cut, error, limited, per_body, raw, scripted
from transformers import BertModel

from rdx import config, security, stages
from rdx.artifacts import Evaluated
from rdx.config import ConfigError
from rdx.config.building import build
from rdx.store import Unreadable
from rdx.students import Student

KEY = "sk-planted-0123456789-abcdefghij"


# --- what is a secret ---


@pytest.mark.parametrize(
    "text, clean",
    [
        ("key sk-abcdefghijklmnop0123 end", "key [hidden] end"),
        ("sk-short and task-force-one-two-three-four", None),
        ("hf_abcdefghijklmnop0123", "[hidden]"),
        ("ghp_abcdefghijklmnop0123,", "[hidden],"),
        ("AKIAABCDEFGHIJKLMNOP", "[hidden]"),
        ("Authorization: Bearer abcdefghijklmnop.0123==", "Authorization: Bearer [hidden]"),
        ("the bearer of bad news, basic misunderstandings", None),
        ("data.corpus=/home/me/sk-learn-documentation-2024/corpus.tsv", None),
        ("teacher.model=hf_models_of_somebody_without_digits", None),
        ("http://me:hunter2@host:5000/x", "http://me:[hidden]@host:5000/x"),
        ("http://host:5000/a:b@c", None),
        ("sqlite:///mlflow.db", None),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END", "[hidden] RSA PRIVATE KEY"),
        ("", None),
    ],
)
def test_forms_of_secrets(text, clean):
    if text.startswith("-----BEGIN"):
        assert security.hidden(text) == security.HIDDEN
    else:
        assert security.hidden(text) == (text if clean is None else clean)


@pytest.mark.parametrize(
    "name, value, secret",
    [
        ("MY_API_KEY", "correct horse", True),
        ("HF_TOKEN", "correct horse", True),
        ("MLFLOW_TRACKING_PASSWORD", "correct horse", True),
        ("SOME_CREDENTIALS", "correct horse", True),
        ("MY_API_KEY", "EMPTY", False),  # what local servers want
        ("TOKENIZERS_PARALLELISM", "correct horse", False),
        ("KEYBOARD", "correct horse", False),
    ],
)
def test_variables_that_hold_secrets(monkeypatch, name, value, secret):
    monkeypatch.setenv(name, value)
    assert (value in security.secrets()) is secret
    assert security.hidden(f"a {value} b") == ("a [hidden] b" if secret else f"a {value} b")


def test_a_variable_that_names_a_file_holds_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_CREDENTIALS", str(tmp_path))
    assert str(tmp_path) not in security.secrets()


def test_the_longest_secret_goes_first(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "correct-horse")
    monkeypatch.setenv("B_TOKEN", "correct-horse-battery")
    assert security.hidden("x correct-horse-battery y") == "x [hidden] y"


@pytest.mark.parametrize(
    "text, clean",
    [
        ('+API_KEY = "correcthorse"', '+API_KEY = "[hidden]"'),
        ("-  password: correct!horse", "-  password: [hidden]"),
        ('"hf_token": "correcthorse",', '"hf_token": "[hidden]",'),
        ("key = value_of(one)", None),
        ("tokens = 2048 + 1", None),
        ("max_tokens: 2048", None),
        ("password = None", None),
    ],
)
def test_what_is_assigned_in_source_text(text, clean):
    assert security.filtered(text) == (text if clean is None else clean)


def test_exposed_names_the_first_key(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "correct horse")
    node = {"a": {"b": [1, None, {"c": "ok"}, "the correct horse"]}, "d": "correct horse"}
    assert security.exposed(node) == "a.b[3]"
    assert security.exposed({"a": {"b": [1, True, None, "x"]}}) == security.exposed({}) == ""


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["data=files", f"teacher.extra={KEY}"], "teacher.extra"),
        (["teach", KEY], "argument 2"),
        ([f"{KEY}=x"], "argument 1"),
        (["data=files", "seed=1"], ""),
        ([], ""),
    ],
)
def test_arguments(arguments, told):
    assert security.exposed_argument(arguments) == told


def test_a_key_in_a_configuration_is_refused_by_its_place(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "correcthorse")
    [cell] = config.cells(["tracking=none"])
    config.check(cell)
    for override, secret in (
        ("tracking.experiment=${oc.env:SOME_TOKEN}", "correcthorse"),
        ("tracking.uri=http://me:hunter2@host:5000", "hunter2"),
    ):
        [cell] = config.cells([override])
        key = re.escape(override.partition("=")[0])
        with pytest.raises(ConfigError, match=f"^{key}: ") as caught:
            config.check(cell)
        assert secret not in str(caught.value)


def test_the_command_line_in_an_error_has_no_key(monkeypatch):
    line = ["teacher=rankgpt", "teacher.backend.model=m", f"teacher.backend.key_variable={KEY}"]
    for overrides in (line, [*line, "seed=1,2"]):
        with pytest.raises(ConfigError, match="key_variable") as caught:
            config.check_all(config.cells(overrides))
    assert KEY not in str(caught.value)


# --- what a configuration may name ---


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "rdxevil.Thing",
        "rdx",
        "rdx.store.Path",  # only imported there
        "rdx.store.os",
        "rdx.config.build",  # no class
        "",
    ],
)
def test_targets_that_are_refused(target):
    with pytest.raises(ConfigError, match=r"^loss\._target_="):
        build({"_target_": target}, "loss")


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """A module of somebody else with a loss."""
    path = tmp_path / "my_losses.py"
    path.write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from pathlib import Path

            @dataclass(frozen=True)
            class Mine:
                margin: float = 1.0
                needs = "ranks"

                def __call__(self, student, ranks, mask, scores=None): ...
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop("my_losses", None)


def test_declared_extensions_are_built(extension, monkeypatch):
    node = {"_target_": "my_losses.Mine", "margin": 2.0}
    with pytest.raises(ConfigError, match="RDX_EXTENSIONS"):
        build(node, "loss")
    assert "my_losses" not in sys.modules  # not even imported
    monkeypatch.setenv("RDX_EXTENSIONS", "other, my_losses")
    assert build(node, "loss").margin == 2.0
    for target in ("my_losses.Path", "my_losses_too.Mine", "os.system"):
        with pytest.raises(ConfigError, match=r"loss\._target_"):
            build({"_target_": target}, "loss")


@pytest.mark.slow
def test_a_cell_with_a_loss_of_somebody_else(extension, world, rdx, tmp_path, monkeypatch):
    extension.write_text("from rdx.losses import RankNet\nclass Mine(RankNet): ...\n")
    line = [*world.overrides(tmp_path / "store"), "loss._target_=my_losses.Mine"]
    refused = rdx(line, tmp_path)  # whose working folder is where the extension lies
    assert refused.returncode == 1 and "loss._target_=my_losses.Mine: " in refused.stderr
    assert not (tmp_path / "store").exists()
    monkeypatch.setenv("RDX_EXTENSIONS", "my_losses")
    done = rdx(line, tmp_path, status=0)
    assert "health: " in done.stdout


def test_the_text_of_an_extension_decides_the_signature(extension, monkeypatch):
    [plain] = config.cells(["tracking=none"])
    cell = replace(plain, cfg={**plain.cfg, "loss": {"_target_": "my_losses.Mine"}})
    with pytest.raises(ConfigError, match="RDX_EXTENSIONS"):
        stages.signed(cell)
    monkeypatch.setenv("RDX_EXTENSIONS", "my_losses")
    before = stages.signed(cell).keys
    extension.write_text(extension.read_text() + "# changed\n")
    after = stages.signed(cell).keys
    assert before["distill"] != after["distill"] and before["teach"] == after["teach"]


@pytest.mark.parametrize(
    ("file", "start", "read"),
    [
        ("experiments/evil.yaml", "", lambda: config.load_spec("evil")),
        ("experiments/evil.yaml", "", lambda: config.load_spec("experiments/evil.yaml")),
        ("conf/loss/evil.yaml", "# @package _global_\n", lambda: config.cells(["loss=evil"])),
    ],
)
def test_no_file_of_the_working_folder_gives_hydra_something_to_run(
    tmp_path, monkeypatch, file, start, read
):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    callbacks = {"callbacks": {"a": {"_target_": "os.system"}}}
    path.write_text(start + json.dumps({"spec": {"claim": "x"}, "hydra": callbacks}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"evil\.yaml: .*os\.system"):
        read()


def test_python_tags_in_a_stored_configuration_do_nothing(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(Unreadable):
        _ = Evaluated(tmp_path).config
    assert not (tmp_path / "made").exists()


# --- models and checkpoints that hold code ---


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.fixture
def pickled(world, tmp_path):
    """The tiny encoder with its weights as a pickle."""
    bert, no_weights = world.folder / "bert", shutil.ignore_patterns("*.safetensors")
    folder = shutil.copytree(bert, tmp_path / "model", ignore=no_weights)
    torch.save(BertModel.from_pretrained(bert).state_dict(), folder / "pytorch_model.bin")
    return folder


def settings(folder):
    return Student(str(folder), head="mean", query_length=8, passage_length=16)


def test_pickled_weights_are_read_as_tensors_with_a_warning(pickled, world):
    with pytest.warns(UserWarning, match=r"pytorch_model\.bin"):
        student = settings(pickled).create(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        same = settings(world.folder / "bert").create(0)
    theirs = same.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("forced", ["", "1"])
@pytest.mark.filterwarnings("ignore:.*weights as a pickle")
def test_code_in_weights_does_not_run(pickled, tmp_path, monkeypatch, forced):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    torch.save({"embeddings.weight": Evil(tmp_path / "made")}, pickled / "pytorch_model.bin")
    with pytest.raises((pickle.UnpicklingError, OSError, ValueError, RuntimeError)):
        settings(pickled).create(0)
    assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("ignore:.*weights as a pickle")
def test_code_beside_weights_does_not_run(pickled, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to trust it"))
    (pickled / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n")
    known = json.loads((pickled / "config.json").read_text())
    known["auto_map"] = {"AutoConfig": "evil.C", "AutoModel": "evil.M"}
    (pickled / "config.json").write_text(json.dumps(known))
    settings(pickled).create(0)  # of a type that the library has
    (pickled / "config.json").write_text(json.dumps({**known, "model_type": "evil"}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        settings(pickled).create(0)
    assert not (tmp_path / "made").exists()


def test_code_in_a_checkpoint_does_not_run(tmp_path, world):
    from rdx.trainer import checkpoints

    student = settings(world.folder / "bert").create(0)
    progress = checkpoints.Progress(max_tokens=8, step=3)
    checkpoints.save(tmp_path, student, {"optimiser": {}}, progress)
    assert checkpoints.load(tmp_path, student)["progress"]["step"] == 3
    torch.save({"optimiser": Evil(tmp_path / "made")}, checkpoints.find(tmp_path) / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load(tmp_path, student)
    assert not (tmp_path / "made").exists()


# --- a planted key ---


def contents(path):
    """The bytes of a file; of a compressed one what is in it, too."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content += gzip.decompress(content)
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        content += repr(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
    return content


def holding(folder, *texts):
    """Where a folder, or a text, holds the key in one of its forms."""
    half = KEY.encode()[: 3 * (len(KEY) // 3)]  # so that what follows it does not matter
    forms = {KEY.encode(), base64.b64encode(half), urllib.parse.quote(KEY, safe="").encode()}
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    assert files
    places = [str(p) for p in files if any(form in contents(p) for form in forms)]
    return places + [text for text in texts if any(form.decode() in text for form in forms)]


def test_the_search_finds_a_key_in_every_kind_of_file(tmp_path):
    import pandas as pd

    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x.txt").write_text("x")
    assert holding(tmp_path / "plain") == []
    (tmp_path / "a.gz").write_bytes(gzip.compress(f"x {KEY}".encode()))
    pd.DataFrame({"a": [f"x {KEY}"] * 9}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.db").write_bytes(b"\0" + base64.b64encode(KEY.encode()))
    assert [Path(place).name for place in holding(tmp_path)] == ["a.gz", "b.parquet", "c.db"]
    assert holding(tmp_path / "plain", f"said {KEY}") == [f"said {KEY}"]


def asked(server, world, store, *more):
    return [
        *world.overrides(store, *more),
        *("teacher=rankgpt", "teacher.backend.model=toy", "teacher.window=4", "teacher.stride=2"),
        *(f"teacher.backend.base_url={server.url}", "teacher.backend.key_variable=RDX_TEST_KEY"),
        *("teacher.backend.backoff=0.01", "depth.k=6"),
    ]


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("RDX_TEST_KEY", KEY)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # whole tracebacks
    monkeypatch.setenv("NO_PROXY", "*")


TELLING = f"you sent Authorization: Bearer {KEY}"
FAULTS = (
    error(500, TELLING),
    answer(TELLING),
    limited(0.01),
    cut(),
    raw(TELLING.encode()),
    answer("[1]", finish=KEY),
)


@pytest.mark.slow
def test_labels_that_fail_and_succeed_write_no_key(planted, world, rdx, tmp_path):
    with FaultyServer(always_refusing()) as server:
        overrides = ["teach", *asked(server, world, tmp_path / "store")]
        failed = rdx(overrides, tmp_path)
        assert failed.returncode == 1 and "RDX_TEST_KEY" in failed.stderr, failed.stderr
        server.behave = per_body(*FAULTS)
        done = rdx([*overrides, "teacher.tries=9"], tmp_path, status=0)
        assert {request.authorization for request in server.asked} == {f"Bearer {KEY}"}
        kinds = {request.reply.name for request in server.asked}
        assert kinds >= {"error 500", "answer", "cut", "raw"}
    texts = (failed.stdout, failed.stderr, done.stdout, done.stderr)
    assert holding(tmp_path, *texts) == []
    assert any("[key]" in contents(p).decode("latin-1") for p in tmp_path.rglob("*.jsonl"))


def always_refusing():
    return scripted(then=error(401, TELLING, code=KEY))


@pytest.mark.slow
def test_a_whole_cell_writes_no_key(planted, world, rdx, tmp_path):
    with FaultyServer(always_refusing()) as server:
        line = [o for o in asked(server, world, tmp_path / "store") if o != "tracking=none"]
        line += ["tracking=mlflow", "tracking.system_metrics=false"]
        failed = rdx(line, tmp_path)
        assert failed.returncode == 1 and "Traceback" in failed.stderr, failed.stderr
        server.behave = per_body(*FAULTS[:2])
        done = rdx(["-m", "loss=ranknet,kl", *line], tmp_path, status=0)
    texts = (failed.stdout, failed.stderr, done.stdout, done.stderr)
    assert holding(tmp_path, *texts) == []
    for place in ("mlflow.db", "mlartifacts", "outputs", "multirun", "store/ledger"):
        assert (tmp_path / place).exists(), place


def test_a_key_on_the_command_line_starts_nothing(rdx, tmp_path):
    done = rdx(["tracking=none", f"++teacher.api_key={KEY}"], tmp_path)
    assert done.returncode == 1 and "++teacher.api_key: " in done.stderr
    assert KEY not in done.stdout + done.stderr and list(tmp_path.iterdir()) == []
