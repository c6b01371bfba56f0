"""What a trial records of the machine, the code and the switches."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rdx.tracking.environment import driver, environment, machine, uncommitted

module = sys.modules["rdx.tracking.environment"]  # the package's name is that of the function
ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, which the module takes for that of rdx."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    (tmp_path / "rdx").mkdir()
    (tmp_path / "rdx" / "a.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    uncommitted.cache_clear()
    yield tmp_path
    uncommitted.cache_clear()


def test_locks_are_told_by_their_content():
    content = (ROOT / "constraints.txt").read_bytes()
    assert environment()["locks"]["constraints.txt"] == hashlib.sha256(content).hexdigest()


def test_seeds_are_those_of_the_configuration():
    cfg = {"seed": 3, "depth": {"seed": 0, "k": 5}, "a": [{"seed": 7}, {"b": {"seed": None}}]}
    seeds = {"seed": 3, "depth.seed": 0, "a[0].seed": 7, "a[1].b.seed": None}
    assert environment(cfg)["seeds"] == seeds
    assert environment()["seeds"] == {}


def test_switches_and_no_other_variables(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("RDX_TEST_KEY", "correct horse battery")
    facts = environment()
    assert facts["variables"]["PYTHONHASHSEED"] == "5"
    assert "CUDA_VISIBLE_DEVICES" not in facts["variables"]
    assert "correct horse" not in json.dumps(facts)


def test_determinism_is_what_torch_says():
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(not before)
        facts = environment()
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        assert facts["determinism"]["deterministic_algorithms"] is not before
        assert (facts["cuda"], len(facts["gpus"])) == (torch.version.cuda, gpus)
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    "text, version",
    [
        ("UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\nGCC 12.2.0", "570.86.15"),
        ("UNIX Open Kernel Module for x86_64  570.86.15  Release Build", "570.86.15"),
        ("something new\nGCC 12.2.0", "something new"),
    ],
)
def test_the_driver(tmp_path, monkeypatch, text, version):
    path = tmp_path / "version"
    monkeypatch.setattr(module, "DRIVER", path)
    assert driver() is None
    path.write_text(f"{text}\n")
    assert driver() == version


def test_a_clean_checkout_has_no_difference(checkout):
    assert uncommitted() == ""


def test_the_difference_restores_the_code(checkout, tmp_path_factory):
    (checkout / "rdx" / "a.py").write_text("x = 2\n")
    (checkout / "rdx" / "new.py").write_text("y = 1\n\n\nz = 2\n")
    (checkout / "rdx" / "ignored.py").write_text("no\n")
    (checkout / "rdx" / "notes.txt").write_text("private\n")
    (checkout / ".env").write_text("API_KEY=correcthorse\n")
    text = uncommitted()
    assert [word for word in ("private", "ignored", "correcthorse") if word in text] == []
    assert "rdx/notes.txt" in text and ".env" in text
    copy = tmp_path_factory.mktemp("copy") / "repository"
    subprocess.run(["git", "clone", "-q", str(checkout), str(copy)], check=True)
    subprocess.run(["git", "apply", "-"], cwd=copy, input=text, text=True, check=True)
    for name in ("a.py", "new.py"):
        assert (copy / "rdx" / name).read_text() == (checkout / "rdx" / name).read_text()


def test_secrets_in_the_difference_are_hidden(checkout, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "correct-horse-battery")
    (checkout / "rdx" / "a.py").write_text(
        'a = "correct-horse-battery"\napi_key = "tr0ub4dor"\nb = "sk-abcdefghijklmnop0123"\n'
    )
    text = uncommitted()
    assert "x = 1" in text
    for name in ("a", "api_key", "b"):
        assert f'+{name} = "[hidden]"' in text


def test_a_long_difference_is_cut(checkout, monkeypatch):
    monkeypatch.setattr(module, "MOST", 400)
    (checkout / "rdx" / "a.py").write_text("x = 2\n" * 1000)
    text = uncommitted()
    assert len(text) < 500 and text.splitlines()[-1].startswith("# cut: ")


def test_without_git_there_is_no_difference(checkout, monkeypatch):
    (checkout / "rdx" / "a.py").write_text("x = 2\n")
    monkeypatch.setenv("PATH", "")
    assert uncommitted() == ""


def test_what_cannot_change_is_read_once():
    assert machine() is machine()
