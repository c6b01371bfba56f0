"""How a grid stands, its failed cells again: states from real files, processes and grids."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from rdx import commands, facts, progress
from rdx import store as stores
from rdx.commands import VERBS
from rdx.config import Cell
from rdx.facts import Grid, GridCell, Holder
from rdx.faults import Diverged
from rdx.store import MANIFEST, Store, Unreadable, damage
from rdx.store.grids import read_grid
from rdx.store.locks import LEASE
from tests.rdx.conftest import gone
from tests.records import trial

status = VERBS["status"]
CFG = {"trainer": {"max_tokens": 1000}, "evaluation": {"max_tokens": 100}}
HERE = f"{socket.gethostname()}:"


def fail(root, error, cfg=CFG):
    with pytest.raises(type(error)), progress.recorded(root, "key", cfg):
        raise error


def finish(root, key="key", health="ok", **more):
    def make(folder):
        stores.write(folder / "trial.json", trial(key, health=health, **more))

    Store(root).cached("evaluate", key, make)


def write_note(root, host=None, pid=None, **changes):
    (root / "evaluate").mkdir(parents=True, exist_ok=True)
    process = {"host": host or socket.gethostname(), "pid": pid or os.getpid()}
    holder = Holder(**process, since=5.0, **changes)
    (root / "evaluate" / "key.running.json").write_text(facts.dump(holder))


# --- states ---


def test_a_cell_that_never_began_waits(tmp_path):
    assert progress.standing(tmp_path, "key") == progress.Standing("waiting")


def test_a_finished_cell_has_its_health_and_seconds(tmp_path):
    finish(tmp_path, health="constant_scores")
    stood = progress.standing(tmp_path, "key")
    assert (stood.state, stood.health) == ("finished", "constant_scores")
    assert stood.seconds == pytest.approx(0, abs=1)


def test_a_finished_cell_took_what_no_other_shares(tmp_path):
    keys = {"teach": "t", "distill": "d", "evaluate": "key"}
    finish(tmp_path, signatures=keys)
    assert progress.standing(tmp_path, "key").seconds is None  # its training is gone
    for (stage, key), seconds in zip(keys.items(), (100.0, 20.0, 3.0), strict=True):
        folder = Store(tmp_path).cached(stage, key, lambda folder: None)
        manifest = stores.read(facts.Manifest, folder / MANIFEST)
        stores.write(folder / MANIFEST, replace(manifest, seconds=seconds))
    assert progress.standing(tmp_path, "key").seconds == 23
    interrupted = replace(manifest, seconds=3.0, resumed=True)
    stores.write(tmp_path / "evaluate" / "key" / MANIFEST, interrupted)
    assert progress.standing(tmp_path, "key").seconds is None


def spoil(path, how):
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    else:
        path.write_text({"truncated": '{"health": "o', "list": "[]", "empty": ""}[how])


@pytest.mark.parametrize("how", ["truncated", "list", "empty", "folder"])
@pytest.mark.parametrize("name", ["trial.json", "manifest.json"])
def test_a_result_that_cannot_be_read_is_named_with_the_cure(tmp_path, name, how):
    finish(tmp_path)
    path = tmp_path / "evaluate" / "key" / name
    spoil(path, how)
    stood = progress.standing(tmp_path, "key")
    assert stood.state == "unreadable"
    assert str(path) in stood.cause and "\n" not in stood.cause
    cell = GridCell(("seed=1",), "key")
    grid = Grid(grid="g", arguments=(), hydra=(), cells=(cell,), launched=0.0)
    assert stood.cause in progress.text(progress.table(tmp_path, grid))


@pytest.mark.parametrize("how", ["truncated", "list", "empty", "folder"])
def test_a_grid_that_cannot_be_read_is_named_and_hides_no_other(tmp_path, capsys, how):
    for name in ("old", "new"):
        progress.write_grid(tmp_path, name, [], [], [])
    path = tmp_path / "grids" / "new.json"
    spoil(path, how)
    assert read_grid(tmp_path).grid == "old"
    assert str(path) in capsys.readouterr().err
    assert read_grid(tmp_path, "old").grid == "old"
    assert capsys.readouterr().err == ""
    for verb in (commands.status, commands.retry):
        with pytest.raises(Unreadable) as ended:
            verb(["new", "--store", str(tmp_path)])
        assert str(path) in str(ended.value) and "\n" not in str(ended.value)


def test_a_grid_of_another_version_is_told_so(tmp_path):
    progress.write_grid(tmp_path, "g", [], [], [])
    path = tmp_path / "grids" / "g.json"
    path.write_text(path.read_text().replace('"cells"', '"rows"'))
    with pytest.raises(Unreadable, match="cells"):
        read_grid(tmp_path)


@pytest.mark.parametrize(
    ("error", "state", "cause"),
    [
        (ValueError("no\nmore"), "failed", "no more"),
        (KeyError("key"), "failed", "KeyError: 'key'"),
        (Diverged("nan"), "diverged", "nan"),
        (MemoryError(), "out of memory", "MemoryError"),
        (
            RuntimeError("can't allocate memory"),
            "out of memory",
            "RuntimeError: can't allocate memory",
        ),
        (RuntimeError("CUDA out of memory"), "out of memory", "RuntimeError: CUDA out of memory"),
        (
            OSError(12, "Cannot allocate memory"),
            "out of memory",
            "[Errno 12] Cannot allocate memory",
        ),
    ],
)
def test_a_failed_cell_has_state_cause_and_log(tmp_path, error, state, cause):
    fail(tmp_path, error)
    stood = progress.standing(tmp_path, "key")
    assert (stood.state, stood.where) == (state, f"{HERE}{os.getpid()}")
    assert stood.cause == cause
    log = Path(stood.log).read_text()
    assert "Traceback" in log and "in fail" in log


def test_the_next_try_takes_the_record_of_the_failure_away(tmp_path):
    fail(tmp_path, ValueError("no"))
    with progress.recorded(tmp_path, "key", CFG):
        assert progress.standing(tmp_path, "key").state == "waiting"


def test_a_cell_stopped_by_hand_waits(tmp_path):
    with pytest.raises(KeyboardInterrupt), progress.recorded(tmp_path, "key", CFG):
        raise KeyboardInterrupt
    assert progress.standing(tmp_path, "key").state == "waiting"


def test_a_planted_key_is_not_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key-123456")
    fail(tmp_path, ValueError("asked with planted-key-123456"))
    written = "".join(path.read_text() for path in (tmp_path / "evaluate").iterdir())
    assert "asked with" in written and "planted-key" not in written


def test_a_process_of_this_host_runs_or_was_killed(tmp_path):
    write_note(tmp_path, stage="distill", step=3, steps=10)
    stood = progress.standing(tmp_path, "key")
    assert (stood.state, stood.stage, stood.step, stood.steps) == ("running", "distill", 3, 10)
    assert (stood.where, stood.since) == (f"{HERE}{os.getpid()}", 5.0)
    write_note(tmp_path, pid=gone(), stage="distill", step=3, steps=10)
    stood = progress.standing(tmp_path, "key")
    assert stood.state == "killed" and "distill at step 3 of 10" in stood.cause


def test_a_zombie_was_killed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    write_note(tmp_path, pid=process.pid)
    assert progress.standing(tmp_path, "key").state == "killed"
    process.wait()


def test_a_process_of_another_host_runs_while_its_lock_is_touched(tmp_path):
    write_note(tmp_path, host="elsewhere", pid=1)
    assert progress.standing(tmp_path, "key").state == "killed"  # it holds no lock
    held = tmp_path / "evaluate" / "key.held"
    held.touch()
    assert progress.standing(tmp_path, "key").state == "running"
    os.utime(held, (time.time() - LEASE - 5,) * 2)
    assert progress.standing(tmp_path, "key").state == "killed"


def test_the_time_left_is_that_of_the_pace_so_far(tmp_path):
    """7 steps of 2 s each, from step 3 of 10."""
    pace = {"stage": "distill", "stage_since": 100.0, "first_step": 1, "now": 104.0}
    write_note(tmp_path, **pace, step=3, steps=10)
    assert progress.standing(tmp_path, "key").left == pytest.approx(14)
    for step, steps in ((1, 10), (None, None), (3, None)):  # nothing to measure by
        write_note(tmp_path, **pace, step=step, steps=steps)
        assert progress.standing(tmp_path, "key").left is None


# --- smaller micro-batches ---


def test_out_of_memory_halves_what_is_given_as_a_number(tmp_path):
    assert progress.smaller(tmp_path, "key") == []
    fail(tmp_path, ValueError("no"))
    assert progress.smaller(tmp_path, "key") == []
    fail(tmp_path, MemoryError())
    expected = ["trainer.max_tokens=500", "evaluation.max_tokens=64"]
    assert progress.smaller(tmp_path, "key") == expected
    fail(tmp_path, MemoryError(), {"trainer": {"max_tokens": "auto"}, **{"evaluation": {}}})
    assert progress.smaller(tmp_path, "key") == []
    least = {group: {"max_tokens": progress.FEWEST_TOKENS} for group in CFG}
    fail(tmp_path, MemoryError(), least)
    assert progress.smaller(tmp_path, "key") == []


# --- grids ---


def cells(*keys):
    return [Cell((f"seed={key}",), "", {}, signature=key) for key in keys]


def test_the_newest_grid_or_that_of_a_name(tmp_path):
    with pytest.raises(ValueError, match="none"):
        read_grid(tmp_path)
    for grid in ("demo-1", "demo-12", "other-1"):
        progress.write_grid(tmp_path, grid, cells("a"), ["seed=a"], ["hydra/launcher=joblib"])
    assert read_grid(tmp_path).grid == "other-1"
    assert read_grid(tmp_path, "demo").grid == "demo-12"
    grid = read_grid(tmp_path, "demo-1")
    assert (grid.grid, grid.arguments) == ("demo-1", ("seed=a",))
    assert grid.hydra == ("hydra/launcher=joblib",)
    assert grid.cells == (GridCell(("seed=a",), "a"),)
    with pytest.raises(ValueError, match="x; known: demo-1, demo-12, other-1"):
        read_grid(tmp_path, "x")


def test_a_grid_in_all_states(tmp_path):
    progress.write_grid(tmp_path, "g", cells("one", "two", "three", "key", "no"), [], [])
    finish(tmp_path, "one")
    finish(tmp_path, "two", "nan")
    write_note(tmp_path)
    with pytest.raises(ValueError), progress.recorded(tmp_path, "no", CFG):
        raise ValueError("why")
    table = progress.table(tmp_path, read_grid(tmp_path))
    assert table.counts == {"finished": 2, "running": 1, "waiting": 1, "failed": 1}
    assert table.health == {"nan": 1, "ok": 1}
    states = [stood.state for _, stood in table.cells]
    assert states == ["finished", "finished", "waiting", "running", "failed"]
    shown = progress.text(table)
    assert "5 cells: 2 finished, 1 running, 1 waiting, 1 failed" in shown
    assert "FAILED  python -m rdx seed=no\n        failed: why\n" in shown


# `python -m rdx` on a machine where learning rate 0.002 leaves no memory for over 2,048 tokens.
SCARCE = """
from rdx import trainer
from rdx.__main__ import main

fit = trainer.fit

def scarce(student, loss, lists, split, budget, settings, *more, **named):
    if settings.learning_rate == 0.002 and settings.max_tokens > 2048:
        raise MemoryError(f"{settings.max_tokens} tokens")
    return fit(student, loss, lists, split, budget, settings, *more, **named)

trainer.fit = scarce
main()
"""


def told(capsys, *arguments):
    """What `python -m rdx status` says, for programs."""
    status([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_grid_keeps_going_tells_and_retries(world, rdx, tmp_path, monkeypatch, capsys):
    """One cell diverges, one has no memory for its micro-batches; the third finishes."""
    rates = "trainer.learning_rate=1e30,0.002,0.001"
    plain = ("prefinetune=none", "evaluation.interpolate=false", "trainer.max_tokens=4096")
    arguments = world.overrides("store", rates, *plain)
    monkeypatch.chdir(tmp_path)
    done = rdx(["-m", *arguments], tmp_path, module=("-c", SCARCE), status=1)
    assert "diverged: " in done.stdout and "MemoryError: 4096 tokens" in done.stdout
    assert "2 of 3 failed" in done.stdout and "python -m rdx retry grid-" in done.stdout
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED  ")]
    assert all(line.startswith("FAILED  python -m rdx data=files") for line in failed)
    assert all("grid=" not in line and "learning_rate=" in line for line in failed)
    assert not list((tmp_path / "store").glob("distill/*.partial/manifest.json"))
    assert told(capsys)["counts"] == {"finished": 1, "out of memory": 1, "diverged": 1}
    again = rdx(["retry"], tmp_path, module=("-c", SCARCE), status=1)
    assert len([line for line in again.stdout.splitlines() if line.startswith("== ")]) == 2
    assert "1 of 2 failed" in again.stdout and "1 cell finished" in again.stdout
    status_now = told(capsys)
    assert status_now["counts"] == {"finished": 2, "diverged": 1}
    for row in status_now["cells"]:
        whole = damage(tmp_path / "store" / "evaluate" / row["signature"]) == ""
        assert whole == (row["state"] == "finished")
