"""Locks of the store between real processes: taken over when stale, once, whatever the clock."""

import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from rdx.store import Store
from rdx.store.locks import Lock, LockLost, held_by, read_note
from tests.rdx.conftest import ROOT, gone, mounted

QUICK = {"lease": 0.6, "beat": 0.1}


def marker(pid, host=None, lease=QUICK["lease"]):
    """What a holder writes into its lock file."""
    return (f"filelock/2\npid={pid}\nhost={host or socket.gethostname()}\nmode=lease\n"
            f"token={'a' * 32}\nduration={lease}\n")  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage" / "key"


def test_a_lock_leaves_nothing_behind(folder):
    with Lock(folder, **QUICK) as held:
        held.tell("stage")
        assert sorted(p.name for p in folder.parent.iterdir()) == ["key.held", "key.running.json"]
    assert not list(folder.parent.iterdir())


def test_the_lock_of_a_process_that_is_gone_is_taken_at_once(folder, capsys):
    """At once: its lease of years would not end."""
    years = {"lease": 1e8, "beat": 0.1}
    folder.with_suffix(".held").write_text(marker(gone(), lease=1e8))
    with Lock(folder, **years):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mtime", [0, 1e9, None, 4e9])
def test_the_lock_of_another_host_is_taken_when_nothing_touches_it(folder, capsys, mtime):
    """Whatever time the file has: only that it stays the same counts."""
    lock = folder.with_suffix(".held")
    lock.write_text(marker(1, host="elsewhere"))
    if mtime is not None:
        os.utime(lock, (mtime, mtime))
    with Lock(folder, **QUICK):
        assert f"pid={os.getpid()}\n" in lock.read_text()


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own, and what makes it read-only, or full."""
    place = tmp_path / "stage"
    place.mkdir()

    def read_only():
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)

    def full():
        with suppress(OSError), (place / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    with mounted(place, "size=1m") as there:
        if not there:
            pytest.skip("only root may mount, and not everywhere")
        yield place, {"read-only": read_only, "full": full}


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_the_lock_of_a_dead_process_is_not_waited_for_where_nothing_can_be_written(disk, how):
    place, make = disk
    (place / "key.held").write_text(marker(gone()))
    make[how]()
    began = time.monotonic()
    with pytest.raises(OSError, match="stage key: .*(Read-only|No space)"):
        Lock(place / "key", **QUICK).__enter__()
    assert time.monotonic() - began < 30
    assert {p.name for p in place.iterdir()} - {"ballast"} == {"key.held"}


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_a_process_that_works_is_waited_for_on_such_a_disk(disk, how):
    place, make = disk
    (place / "key.held").write_text(marker(os.getpid(), lease=1e8))
    make[how]()
    held = Lock(place / "key", lease=1e8, beat=0.1)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(held.__enter__)
        time.sleep(3)
        assert not waiting.done()
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        (place / "key.held").unlink()
        assert waiting.result(30) is held
    held.__exit__()


def test_a_lock_that_was_never_written_is_taken(folder):
    folder.with_suffix(".held").touch()
    with Lock(folder, **QUICK) as held:
        assert f"pid={os.getpid()}\n" in held.path.read_text()


def test_who_lost_its_lock_does_not_store(folder):
    with pytest.raises(LockLost, match="stage key: "):
        with Lock(folder, **QUICK) as held:
            held.check()
            other = folder.with_suffix(".other")
            other.write_text(marker(1, host="elsewhere"))
            os.replace(other, held.path)
            until = time.monotonic() + 30
            while not held._lock.compromise and time.monotonic() < until:
                time.sleep(0.01)
            held.check()
    assert "elsewhere" in folder.with_suffix(".held").read_text()  # the other one's stays


def one_more(folder, count):
    """Add one to a number in a file under the lock, with time for another to do so at once."""
    for _ in range(count):
        with Lock(Path(folder)):
            number = Path(folder).with_suffix(".number")
            before = int(number.read_text())
            time.sleep(0.002)
            number.write_text(str(before + 1))


def test_of_eight_processes_one_at_a_time_has_the_lock_of_a_dead_one(folder):
    folder.with_suffix(".number").write_text("0")
    folder.with_suffix(".held").write_text(marker(gone(), lease=120.0))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=one_more, args=(str(folder), 5)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert folder.with_suffix(".number").read_text() == "40"


def test_the_note_says_who_and_how_far(folder):
    with Lock(folder, **QUICK) as held:
        held.tell("distill")
        held.tell("distill", 1, 10)  # too soon after the first
        assert read_note(held.note).step is None
        held._noted = float("-inf")
        held.tell("distill", 3, 10)
        note = read_note(held.note)
        assert (note.host, note.pid) == (socket.gethostname(), os.getpid())
        assert (note.stage, note.first_step, note.step, note.steps) == ("distill", 1, 3, 10)
        assert note.pace.share == (3 - 1) / 10 and note.pace.seconds >= 0
        who = f"{socket.gethostname()}:{os.getpid()}"
        assert re.fullmatch(rf"{who} .* \d\d:\d\d:\d\d, distill: .*3 of 10", held_by(held.note))


def test_notes_of_the_outer_results_name_the_inner_stage(tmp_path):
    store = Store(tmp_path)

    def inner(folder):
        note = read_note(tmp_path / "outer" / "key.running.json")
        assert note.stage == "inner"

    def outer(folder):
        store.cached("inner", "key", inner)
        assert read_note(tmp_path / "outer" / "key.running.json").stage == "outer"

    store.cached("outer", "key", outer)
    assert store.locks == []


def test_what_a_killed_write_left_is_not_stored(tmp_path):
    partial = tmp_path / "stage" / "key.partial"
    partial.mkdir(parents=True)
    (partial / "facts.json.tmp123").write_text('{"ha')
    folder = Store(tmp_path).cached("stage", "key", lambda f: (f / "facts.json").write_text("{}"))
    assert list(json.loads((folder / "manifest.json").read_text())["files"]) == ["facts.json"]


def test_a_whole_result_is_read_without_a_lock(tmp_path):
    store = Store(tmp_path)
    folder = store.cached("stage", "key", lambda f: (f / "a").write_text("a"))
    folder.with_suffix(".held").write_text(marker(os.getpid(), lease=120.0))  # as if it were held
    assert store.cached("stage", "key", lambda f: None) == folder


@pytest.mark.slow
def test_eight_cells_at_once_share_their_stages(world, rdx, tmp_path):
    """Seeds share candidates, teacher ranking and stage 1, and each is computed by one of them."""
    plain = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    cells = [
        subprocess.Popen(
            [sys.executable, "-m", "rdx", *world.overrides("store", f"seed={seed}")],
            cwd=tmp_path, env=plain, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for seed in range(1, 9)
    ]  # fmt: skip
    printed = [cell.communicate(timeout=300)[0] for cell in cells]
    assert [cell.returncode for cell in cells] == [0] * 8
    computed = Counter()
    for text in printed:
        counts = re.search(r"Stages computed: \d+ \((.*?)\)", text).group(1)
        computed.update({stage: int(n) for stage, n in map(str.split, counts.split(", "))})
    once = ("candidates", "teach", "prefinetune", "collection", "index")
    assert {stage: computed[stage] for stage in (*once, "distill")} == {
        **dict.fromkeys(once, 1), "distill": 8,
    }  # fmt: skip
