"""The store: computed once, verified, and never believed half-written."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdx import store as stores
from rdx.facts import Count, Device, Manifest
from rdx.store import MANIFEST, Store, Unreadable, damage, share, signature, write_atomic
from tests.rdx.conftest import ROOT

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


class Maker:
    """A `make` that counts its calls and writes that number."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "number.txt").write_text(str(self.calls))
        (folder / "sub" / "more.bin").write_bytes(b"\0\1")


@pytest.fixture
def stored(tmp_path):
    """A result that was computed once: its folder and its maker."""
    make = Maker()
    return Store(tmp_path).cached("stage", "key", make), make


# --- signatures ---


def test_signature_is_the_hash_of_sorted_json():
    text = b'{"a":[1,null,"\\u00e4"],"b":0.5}'
    assert signature({"b": 0.5, "a": [1, None, "ä"]}) == hashlib.sha256(text).hexdigest()[:16]


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(max_size=4), PLAIN, min_size=2))
def test_signature_ignores_the_order_of_keys(value):
    assert signature(value) == signature(dict(reversed(value.items())))


@settings(deadline=None, max_examples=50)
@given(PLAIN, PLAIN)
def test_different_values_have_different_signatures(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (signature(one) == signature(other)) == same


def test_signature_tells_apart_what_looks_alike():
    alike = [1, 1.0, "1", True, [1], {"1": 1}, None, "null", [1, 2], [2, 1], [[1], 2]]
    assert len({signature(value) for value in alike}) == len(alike)


# --- computed once, verified ---


def test_a_result_is_computed_once(tmp_path):
    store, make = Store(tmp_path), Maker()
    first = store.cached("stage", "key", make)
    assert (store.cached("stage", "key", make), make.calls) == (first, 1)
    assert store.log == {"stage/key": "computed"}
    other = Store(tmp_path)
    assert (other.cached("stage", "key", make), make.calls) == (first, 1)
    assert other.log == {"stage/key": "stored"}
    assert (first / "number.txt").read_text() == "1"


def test_other_keys_and_stages_are_other_results(tmp_path):
    store, make = Store(tmp_path), Maker()
    places = {store.cached(s, k, make) for s in ("one", "two") for k in ("a", "b")}
    assert (len(places), make.calls) == (4, 4)


def test_a_manifest_keeps_what_was_signed(tmp_path):
    folder = Store(tmp_path).cached("stage", "key", Maker(), signed={"k": [1, None]})
    manifest = stores.read(Manifest, folder / MANIFEST)
    assert (manifest.stage, manifest.signature) == ("stage", "key")
    assert manifest.signed == {"k": [1, None]}
    assert manifest.seconds >= 0
    assert (manifest.resumed, manifest.device, manifest.pace) == (False, None, None)


def test_a_manifest_says_how_fast_it_was_made_and_on_what(tmp_path):
    store, cpu = Store(tmp_path), Device("A CPU", False, 2)

    def make(folder):
        for step in (6, 7, 10):  # of a training that goes on after step 5
            store.tell(step, 10)

    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "key.partial").mkdir()
    with store.lock("stage", "key") as lock:
        folder = store.make("stage", "key", None, make, lock, device=cpu)
    manifest = stores.read(Manifest, folder / MANIFEST)
    assert (manifest.resumed, manifest.device) == (True, cpu)
    assert manifest.pace.share == (10 - 6) / 10
    assert 0 <= manifest.pace.seconds <= manifest.seconds + 0.001
    with store.lock("stage", "key") as lock:
        store.make("stage", "key", None, lambda folder: None, lock, anew=True)
    assert not stores.read(Manifest, folder / MANIFEST).resumed


def test_the_manifest_lists_every_file_with_its_sha256(stored):
    folder, _ = stored
    assert stores.read(Manifest, folder / MANIFEST).files == {
        "number.txt": hashlib.sha256(b"1").hexdigest(),
        "sub/more.bin": hashlib.sha256(b"\0\1").hexdigest(),
    }
    assert damage(folder) == ""


# What the warning names -> how the result was damaged.
DAMAGES = {
    "number.txt .*checksum": lambda f: (f / "number.txt").write_text("2"),
    "more.bin .*checksum": lambda f: (f / "sub" / "more.bin").write_bytes(b"\0"),
    "number.txt .*missing": lambda f: (f / "number.txt").unlink(),
    "FileNotFoundError": lambda f: (f / MANIFEST).unlink(),
    "FactsError": lambda f: (f / MANIFEST).write_text('{"fil'),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_a_damaged_result_is_computed_again_with_a_warning(stored, problem):
    folder, make = stored
    DAMAGES[problem](folder)
    store = Store(folder.parents[1])
    with pytest.warns(UserWarning, match=problem):
        assert store.cached("stage", "key", make) == folder
    assert (make.calls, (folder / "number.txt").read_text()) == (2, "2")
    assert store.log == {"stage/key": "computed"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.cached("stage", "key", make)
    assert make.calls == 2


def test_anew_computes_again(stored):
    folder, make = stored
    store = Store(folder.parents[1])
    assert store.cached("stage", "key", make, anew=True) == folder
    assert (make.calls, (folder / "number.txt").read_text(), damage(folder)) == (2, "2", "")
    assert store.log == {"stage/key": "computed"}


def test_anew_starts_from_nothing(tmp_path):
    (tmp_path / "stage" / "key.partial").mkdir(parents=True)
    (tmp_path / "stage" / "key.partial" / "old").touch()
    folder = Store(tmp_path).cached("stage", "key", Maker(), anew=True)
    assert not (folder / "old").exists()


def test_a_result_is_found_if_it_is_there_and_whole(tmp_path):
    store = Store(tmp_path)
    assert store.find("stage", "key") is None
    folder = store.cached("stage", "key", Maker())
    assert store.find("stage", "key") == folder and store.find("stage", "other") is None
    (folder / "number.txt").write_text("2")
    assert store.find("stage", "key") is None


# --- a computation that ends early ---


def test_a_failure_leaves_nothing_believed_and_the_next_call_goes_on(tmp_path):
    store, seen = Store(tmp_path), []

    def make(folder):
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / f"part{len(seen)}").touch()
        if len(seen) == 1:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        store.cached("stage", "key", make)
    assert not (tmp_path / "stage" / "key").exists()
    assert store.log == {}
    folder = store.cached("stage", "key", make)
    assert seen == [[], ["part1"]]  # what it finds there
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "part1", "part2"]
    assert not (tmp_path / "stage" / "key.partial").exists()


def test_a_failed_second_try_keeps_the_old_result(stored):
    folder, make = stored

    def fail(partial):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Store(folder.parents[1]).cached("stage", "key", fail, anew=True)
    assert Store(folder.parents[1]).cached("stage", "key", make) == folder
    assert make.calls == 1


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    stores.write(path, Count(1, 2))

    def half(temporary):
        temporary.write_text("[2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert stores.read(Count, path) == Count(1, 2)


# --- several processes ---

SLOW = """
import os, sys, time
from pathlib import Path
from rdx.store import Store

def make(folder):
    with open("calls", "a") as calls:
        calls.write(f"{os.getpid()}\\n")
    (folder / "first").write_text("first")
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until and not os.path.exists("go"):
        time.sleep(0.01)
    (folder / "second").write_text("second")

store = Store(Path("store"))
print(store.cached("stage", "key", make), *store.log.values())
"""


def start(seconds, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLOW, str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, text=True)


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.01)


def test_of_several_processes_one_computes(tmp_path):
    first = start(60, tmp_path)
    wait_for(tmp_path / "store" / "stage" / "key.partial" / "first")
    others = [start(60, tmp_path) for _ in range(7)]
    waiting = [process.stdout.readline() for process in others]
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=30)[0] for process in (first, *others)]
    assert (tmp_path / "calls").read_text().split() == [str(first.pid)]
    assert outputs[0] == "store/stage/key computed\n"
    assert outputs[1:] == ["store/stage/key stored\n"] * 7
    who = f"stage key: {socket.gethostname()}:{first.pid} "
    assert all(who in line and line.endswith(", stage\n") for line in waiting)
    assert not list((tmp_path / "store" / "stage").glob("key.*"))


def test_a_killed_computation_is_not_believed(tmp_path):
    killed = start(60, tmp_path)
    partial = tmp_path / "store" / "stage" / "key.partial"
    wait_for(partial / "first")
    waiting = start(0, tmp_path)  # it gets the lock when its holder dies
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    assert waiting.communicate(timeout=30)[0].endswith("store/stage/key computed\n")
    assert (tmp_path / "calls").read_text().split() == [str(killed.pid), str(waiting.pid)]
    folder = tmp_path / "store" / "stage" / "key"
    assert (damage(folder), (folder / "second").read_text()) == ("", "second")
    assert not partial.exists()


def test_a_process_killed_between_manifest_and_rename_is_not_believed(tmp_path):
    """The partial folder is whole then, but its computation runs again: it goes on from there."""
    make = Maker()
    folder = Store(tmp_path).cached("stage", "key", make)
    os.replace(folder, tmp_path / "stage" / "key.partial")
    assert Store(tmp_path).find("stage", "key") is None
    assert Store(tmp_path).cached("stage", "key", make) == folder
    assert (make.calls, damage(folder)) == (2, "")


# --- what others may read, and what cannot be read ---


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_finished_result_is_shared_as_the_umask_says(tmp_path, umask):
    def make(folder):
        (folder / "runs").mkdir(mode=0o700)
        for path in (folder / "weights", folder / "runs" / "one"):
            os.close(os.open(path, os.O_CREAT, 0o600))  # as safetensors writes
        stores.write(folder / "facts.json", Count(1, 2))

    before = os.umask(umask)
    try:
        folder = Store(tmp_path / "store").cached("distill", "key", make)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
    wanted = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in modes}
    assert modes == wanted and len(modes) == 6


def test_sharing_takes_nothing_away(tmp_path):
    for name, mode in (("plain", 0o600), ("program", 0o755)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    tmp_path.chmod(0o2750)
    share(tmp_path, tmp_path / "plain")
    assert (tmp_path / "program").stat().st_mode & 0o777 == 0o755
    assert tmp_path.stat().st_mode & 0o7777 == 0o2750


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"[1]", b"\xff\xfe", b'{"a": 1}', None], ids=str
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "facts.json"
    with pytest.raises(FileNotFoundError):
        stores.read(Count, path)
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(Unreadable) as raised:
        stores.read(Count, path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_in_the_place_of_a_result_is_named(tmp_path):
    (tmp_path / "distill").mkdir()
    (tmp_path / "distill" / "key").touch()
    with pytest.raises(Unreadable, match=str(tmp_path / "distill" / "key")):
        Store(tmp_path).cached("distill", "key", lambda folder: None)
