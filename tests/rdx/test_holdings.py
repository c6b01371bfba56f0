"""What a store holds, who needs it, and what is removed: counts and bytes by hand, real kills."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from rdx import cleaning, commands, facts, holdings, progress
from rdx import store as stores
from rdx.artifacts import Evaluated
from rdx.commands import VERBS
from rdx.config import Cell
from rdx.facts import Begun, GridCell, Origin
from rdx.holdings import StoreError
from rdx.stages import Step
from rdx.store import MANIFEST, Store
from rdx.store.grids import read_grid
from rdx.store.locks import Lock
from tests.rdx.conftest import ROOT, gone
from tests.records import trial


def make(root, stage, key, size=1000):
    """A result of so many bytes beside its manifest; a trial's file is small."""

    def write(folder):
        (folder / "data").write_bytes(bytes(size))

    return Store(root).cached(stage, key, write)


def finish(root, key, needs, origins=()):
    """A finished cell that needs some results, as "stage key"."""
    signatures = {name: made for name, made in (need.split() for need in needs)}

    def write(folder):
        whole = {**signatures, "evaluate": key}
        stores.write(folder / "trial.json", trial(key, signatures=whole, origins=origins))

    return Store(root).cached("evaluate", key, write)


def launch(root, grid, *cells):
    """A grid of cells, each ("key", "stage key", ...)."""
    made = [
        Cell((f"seed={key}",), "", {}, signature=key,
             keys={"evaluate": key, **dict(need.split() for need in needs)})
        for key, *needs in cells
    ]  # fmt: skip
    progress.write_grid(root, grid, made, ["seed=1"], [])


def begin(root, key, *needs, stage="evaluate", pid=None):
    """The note of what was begun; without a process, it has ended."""
    signatures = {stage: key, **dict(need.split() for need in needs)}
    where = {"host": socket.gethostname() if pid else "", "pid": pid or 0}
    (root / stage).mkdir(parents=True, exist_ok=True)
    note = Begun(cell=GridCell(("seed=9",), key, signatures), since=1.0, **where)
    stores.write(progress.cell_note(root, stage, key), note)


@pytest.fixture
def root(tmp_path):
    """Two finished cells, one of a grid, that share labels; results of nobody; leftovers."""
    root = tmp_path / "store"
    for stage, key in (("teach", "t"), ("distill", "d1"), ("distill", "d2"), ("distill", "d9")):
        make(root, stage, key)
    make(root, "index", "i9", 500)
    finish(root, "c1", ["teach t", "distill d1"])
    finish(root, "c2", ["teach t", "distill d2"])
    launch(root, "g", ("c1", "teach t", "distill d1"), ("c3", "teach t", "distill d3"))
    for key in ("d3", "d8"):  # a cell of the grid goes on from the first
        (root / "distill" / f"{key}.partial").mkdir()
        (root / "distill" / f"{key}.partial" / "half").write_bytes(bytes(70))
    return root


def size(*folders):
    return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())


def whole(root, *cells):
    """Whether these cells and all that they need is there undamaged."""
    for cell in cells:
        known = stores.read(facts.TrialFacts, root / "evaluate" / cell / "trial.json")
        for stage, key in known.signatures.items():
            assert stores.damage(root / stage / key) == "", (stage, key)


def test_who_needs_what(root):
    rows = {row.stage: row for row in cleaning.rows(holdings.read(root))}
    assert list(rows) == ["index", "teach", "distill", "evaluate"]
    distill = rows["distill"]
    assert (distill.results, distill.finished, distill.nobody) == (3, 2, 1)
    assert distill.bytes == size(*(root / "distill" / key for key in ("d1", "d2", "d9")))
    assert distill.nobody_bytes == size(root / "distill" / "d9")
    assert distill.nobody_bytes == 1000 + (root / "distill" / "d9" / MANIFEST).stat().st_size
    assert (distill.unfinished, distill.unfinished_bytes) == (2, 140)
    assert (distill.dead, distill.dead_bytes) == (1, 70)
    assert (rows["index"].nobody, rows["teach"].finished) == (1, 1)
    assert holdings.read(root).users["teach", "t"] == 3  # c1, c2, and c3 that waits


def test_a_grid_needs_results_of_cells_that_wait(root):
    make(root, "distill", "d3")
    held = holdings.read(root)
    assert held.by(("distill", "d3")) == "grids"
    assert ("distill", "d3") not in cleaning.clean(held).results


def test_clean_takes_what_nobody_needs(root):
    held = holdings.read(root)
    what = cleaning.clean(held)
    assert set(what.results) == {("distill", "d9"), ("index", "i9")}
    assert set(what.partials) == {("distill", "d8")}
    gone_folders = [root / "distill" / "d9", root / "index" / "i9", root / "distill" / "d8.partial"]
    assert what.bytes == size(*gone_folders)
    assert cleaning.remove(held, what) == []
    assert not any(folder.exists() for folder in gone_folders)
    whole(root, "c1", "c2")
    assert (root / "distill" / "d3.partial" / "half").exists()
    assert not cleaning.clean(holdings.read(root))
    assert not [path for path in root.rglob("*") if path.suffix in (".held", ".old")]


def test_what_runs_is_left(root):
    """A cell that was begun needs what is made already; once its process is gone, nobody does."""
    begin(root, "c9", "distill d9", "index i9", pid=os.getpid())
    held = holdings.read(root)
    assert held.by(("distill", "d9")) == held.by(("index", "i9")) == "running"
    assert not cleaning.clean(held).results
    begin(root, "c9", "distill d9", "index i9", pid=gone())
    assert set(cleaning.clean(holdings.read(root)).results) == {("distill", "d9"), ("index", "i9")}


def test_a_lock_is_respected(root):
    held = holdings.read(root)
    what = cleaning.clean(held)
    code = (
        "import sys, time; from pathlib import Path; from rdx.store.locks import Lock\n"
        "with Lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(root / "distill" / "d9")]
    other = subprocess.Popen(
        command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    other.stdout.readline()
    try:
        [left] = cleaning.remove(held, what)
        assert left.startswith("distill d9") and (root / "distill" / "d9" / MANIFEST).exists()
        assert not (root / "index" / "i9").exists()
        with pytest.raises(StoreError, match="distill d9"):  # nothing tells what that needs
            cleaning.clean(holdings.read(root))
    finally:
        other.kill()
        other.wait()
    assert set(cleaning.clean(holdings.read(root)).results) == {("distill", "d9")}


def test_what_begins_meanwhile_keeps_its_results(root):
    held = holdings.read(root)
    what = cleaning.clean(held)
    begin(root, "c9", "distill d9", pid=os.getpid())
    left = cleaning.remove(held, what)
    assert len(left) == 3 and stores.damage(root / "distill" / "d9") == ""


def test_labels_that_were_asked_for_are_somebodys(root):
    make(root, "teach", "t9")
    make(root, "candidates", "k9")
    begin(root, "t9", "candidates k9", stage="teach")
    held = holdings.read(root)
    assert held.by(("teach", "t9")) == held.by(("candidates", "k9")) == "finished"


def test_free_takes_what_a_grid_alone_needs(root):
    (root / "trials" / "c1").mkdir(parents=True)
    (root / "trials" / "c1" / "log.jsonl").write_bytes(bytes(30))
    alone = [root / "evaluate" / "c1", root / "distill" / "d1", root / "distill" / "d3.partial"]
    expected = size(*alone) + 30
    held = holdings.read(root)
    what = cleaning.free(held, read_grid(root, "g"))
    assert (what.bytes, what.shared) == (expected, 1)
    assert what.shared_bytes == size(root / "teach" / "t")
    assert cleaning.remove(held, what) == []
    assert not any(folder.exists() for folder in alone) and not (root / "trials" / "c1").exists()
    assert not (root / "grids" / "g.json").exists()
    whole(root, "c2")


def test_a_cell_that_two_grids_have_stays_with_all_it_needs(root):
    launch(root, "h", ("c1", "teach t", "distill d1"))
    held = holdings.read(root)
    what = cleaning.free(held, read_grid(root, "g"))
    assert not what.results and set(what.partials) == {("distill", "d3")}
    assert cleaning.remove(held, what) == []
    whole(root, "c1", "c2")
    assert [grid.grid for grid in holdings.read(root).grids] == ["h"]


def test_a_cell_whose_student_another_takes_by_its_signature_stays(root):
    finish(root, "c5", [], origins=(Origin(path="start", given="c1", checkpoint="d1"),))
    what = cleaning.free(holdings.read(root), read_grid(root, "g"))
    assert not what.results


def test_a_student_that_is_named_by_its_folder_stays(root):
    finish(root, "c5", [], origins=(Origin(path="start", given="s/distill/d9", checkpoint="x"),))
    assert holdings.read(root).by(("distill", "d9")) == "finished"


def test_a_single_cell_is_freed_and_one_of_a_grid_with_it(root):
    what = cleaning.free(holdings.read(root), GridCell((), "c2"))
    assert set(what.results) == {("distill", "d2"), ("evaluate", "c2")}
    with pytest.raises(StoreError, match="--free g"):
        cleaning.free(holdings.read(root), GridCell((), "c1"))


def test_nothing_is_removed_where_needs_are_unknown(root):
    (root / "evaluate" / "c2" / "trial.json").write_text("{")
    held = holdings.read(root)
    assert len(held.problems) == 1
    with pytest.raises(StoreError, match=r"c2/trial\.json"):
        cleaning.clean(held)
    with pytest.raises(StoreError):
        cleaning.free(held, read_grid(root, "g"))
    grid = read_grid(root, "g")
    finish(root, "c4", [])
    older = replace(grid, cells=(GridCell(("seed=7",), "c7"),))
    stores.write(root / "grids" / "older.json", replace(older, grid="older"))
    assert any("older" in problem for problem in holdings.read(root).problems)


def test_the_ledger_goes_only_when_told(root, capsys):
    (root / "ledger").mkdir()
    (root / "ledger" / "answers.jsonl").write_bytes(bytes(9000))
    assert not cleaning.clean(holdings.read(root)).folders
    commands.store(["--clean", "--yes", "--store", str(root)])
    assert (root / "ledger" / "answers.jsonl").exists()
    assert cleaning.clean(holdings.read(root), ledger=True).folders == {root / "ledger": 9000}
    begin(root, "c9", pid=os.getpid())
    with pytest.raises(StoreError, match="--ledger"):
        cleaning.clean(holdings.read(root), ledger=True)
    progress.cell_note(root, "evaluate", "c9").unlink()
    commands.store(["--clean", "--ledger", "--yes", "--store", str(root)])
    assert not (root / "ledger").exists() and not (root / "ledger.old").exists()


def killed_at(n, arguments):
    """`rdx store` in a process that is killed before its n-th change of the disk."""
    left = [n]

    def deadly(write):
        def killed(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **named)

        return killed

    for name in ("replace", "unlink", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))
    commands.store(arguments)


@pytest.mark.parametrize("what", [["--clean"], ["--free", "g"]])
def test_a_killed_removal_leaves_nothing_half_believed(root, what):
    """Killed before the n-th change of the disk; then the same command again."""
    ends = []
    arguments = [*what, "--yes", "--store", str(root)]
    for n in (*range(8), 100):
        process = multiprocessing.get_context("fork").Process(target=killed_at, args=(n, arguments))
        process.start()
        process.join()
        ends.append(process.exitcode)
        for stage in ("index", "teach", "distill", "evaluate"):
            for folder in stores.results(root / stage):
                assert stores.damage(folder) == "", folder
        whole(root, *(folder.name for folder in stores.results(root / "evaluate")))
        if process.exitcode == 0:
            break
    assert ends[0] == -signal.SIGKILL and ends[-1] == 0
    gone_key = "d9" if what == ["--clean"] else "d1"
    left = [f.name for f in (root / "distill").glob(f"{gone_key}*")]
    assert [name for name in left if not name.endswith(".held")] == []  # of a dead process: free


def test_the_verb_says_what_before_it_removes(root, capsys, monkeypatch):
    place = ["--store", str(root)]
    for dry in (["--clean"], ["--clean", "--dry-run", "--yes"], ["--free", "g"]):
        commands.store([*dry, *place])
        assert (root / "distill" / "d9").exists() and (root / "grids" / "g.json").exists()
    capsys.readouterr()
    commands.store(["--clean", "--json", *place])
    told = json.loads(capsys.readouterr().out)
    assert {(r["stage"], r["signature"], r["kind"]) for r in told["results"]} == {
        ("distill", "d9", "result"), ("index", "i9", "result"), ("distill", "d8", "unfinished"),
    }  # fmt: skip
    assert told["bytes"] == sum(row["bytes"] for row in told["results"])
    commands.store(["--json", *place])
    assert {row["stage"]: row["results"] for row in json.loads(capsys.readouterr().out)} == {
        "index": 1, "teach": 1, "distill": 3, "evaluate": 2,
    }  # fmt: skip
    for answer, removed in (("n", False), ("y", True)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        commands.store(["--clean", *place])
        assert (root / "distill" / "d9").exists() != removed
    with pytest.raises(SystemExit):
        commands.store(["--yes", *place])


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="none"):
        commands.store(["--store", str(tmp_path / "none")])
    assert not list(tmp_path.iterdir())


# --- a cell by its signature ---


def test_cells_and_grids_are_found_by_a_beginning(root):
    begin(root, "b7")
    assert progress.find(root).grid == progress.find(root, "g").grid == "g"
    assert progress.find(root, "c2").signature == "c2"
    assert progress.find(root, "c3").overrides == ("seed=c3",)  # of the grid, and waits
    assert progress.find(root, "b").overrides == ("seed=9",)
    with pytest.raises(ValueError, match="3 signatures: c1, c2, c3"):
        progress.find(root, "c")
    launch(root, "grid-1")
    with pytest.raises(ValueError, match="did you mean 'grid'"):
        progress.find(root, "grod")


def test_status_and_retry_know_single_cells(root, capsys):
    begin(root, "b7")
    place = ["--store", str(root)]
    assert commands.retry(["b7", *place]) is None  # it was stopped, and did not fail
    with (
        pytest.raises(ValueError),
        progress.recorded(root, "b7", {"trainer": {}, "evaluation": {}}),
    ):
        raise ValueError("why")
    assert commands.retry(["b7", *place]) == ["seed=9"]
    capsys.readouterr()
    commands.status(["b7", "--json", *place])
    row = json.loads(capsys.readouterr().out)
    assert (row["state"], row["cause"], row["overrides"]) == ("failed", "why", ["seed=9"])
    VERBS["status"](["c2", *place])
    assert "c2: finished, health: ok" in capsys.readouterr().out


def test_a_note_tells_who_works_until_the_cell_ends(finished, tmp_path):
    with progress.begun(tmp_path, finished):
        [(stage, note)] = progress.all_begun(tmp_path)[0]
        assert (stage, note.host, note.pid) == ("evaluate", socket.gethostname(), os.getpid())
        assert note.cell.signatures == finished.keys
    [(_, note)] = progress.all_begun(tmp_path)[0]
    assert (note.host, note.pid, note.cell.overrides) == ("", 0, finished.overrides)
    with progress.begun(tmp_path, finished, Step("teach")):
        notes = dict(progress.all_begun(tmp_path)[0])
    assert set(notes["teach"].cell.signatures) < set(finished.keys)
    assert notes["teach"].cell.signature == finished.keys["teach"]


# --- what is shown ---


@pytest.fixture
def real(finished, tmp_path):
    """A copy of a store with one really finished cell, in a grid of its own."""
    root = shutil.copytree(finished.cfg["store"], tmp_path / "store")
    progress.write_grid(root, "real-1", [finished], ["seed=1"], [])
    return root


def test_a_finished_cell_is_shown(finished, real, capsys):
    commands.show([finished.signature[:6], "--json", "--store", str(real)])
    told = json.loads(capsys.readouterr().out)
    evaluated = Evaluated(real / "evaluate" / finished.signature).facts
    assert {row["step"]: row["signature"] for row in told["stages"]} == finished.keys
    for row in told["stages"]:
        folder = real / Step.stage_of(row["step"]) / row["signature"]
        manifest = stores.read(facts.Manifest, folder / MANIFEST)
        assert (row["bytes"], row["seconds"]) == (size(folder), manifest.seconds)
        assert (row["folder"], row["shared"]) == (str(folder), 0)
    assert told["standing"]["health"] == evaluated.health and told["seed"] == 1
    flat = {
        f"{row['collection']}/{system}/{row['measure']}": value
        for row in told["scores"]
        for system, value in row["systems"].items()
    }
    assert flat == evaluated.means and "files/oracle/nDCG@10" in flat
    differs = set(told["differs"])
    assert {"data=files", "loss=ranknet"} & differs == {"data=files"}
    assert {"depth.k=5", "trainer.batch=2", "prefinetune=none"} <= differs
    assert not any(key.startswith(("seed=", "store=", "tracking")) for key in differs)
    commands.show([finished.signature[:6], "--store", str(real)])
    assert "depth.k=5" in capsys.readouterr().out


def test_a_grid_is_shown_with_its_best_cell(finished, real, capsys):
    commands.show(["--json", "--store", str(real)])
    told = json.loads(capsys.readouterr().out)
    means = Evaluated(real / "evaluate" / finished.signature).facts.means
    assert (told["grid"], told["measure"]) == ("real-1", "nDCG@10")
    assert (told["counts"], told["best"]) == ({"finished": 1}, finished.signature)
    assert told["cells"][0]["value"] == means["files/student/nDCG@10"]
    folders = {(Step.stage_of(name), key) for name, key in finished.keys.items()}
    assert told["bytes"] == size(*(real / stage / key for stage, key in folders))
    commands.show(["real", "--store", str(real)])
    assert f"nDCG@10 {means['files/student/nDCG@10']:.4f}" in capsys.readouterr().out


def test_a_cell_that_waits_is_shown(root, capsys):
    commands.show(["c3", "--json", "--store", str(root)])
    told = json.loads(capsys.readouterr().out)
    assert (told["standing"]["state"], told["overrides"]) == ("waiting", ["seed=c3"])
    stages = {row["step"]: (row["folder"], row["shared"]) for row in told["stages"]}
    assert stages["teach"] == (str(root / "teach" / "t"), 2) and stages["distill"] == ("", 0)


# --- sync ---


@pytest.mark.parametrize("there", [False, True])
def test_sync_makes_nothing_where_there_is_nothing(tmp_path, monkeypatch, capsys, there):
    monkeypatch.chdir(tmp_path)
    if there:
        make(tmp_path / "store", "index", "i")
    before = sorted(tmp_path.rglob("*"))
    commands.sync(["tracking.uri=sqlite:///new.db"])
    assert sorted(tmp_path.rglob("*")) == before
    assert "nothing to sync" in capsys.readouterr().out


def test_sync_makes_no_database_for_what_runs(tmp_path, monkeypatch):
    """A trial that runs is left alone, and MLflow with it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "store" / "trials" / "k"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("")
    with Lock(folder):
        commands.sync(["tracking.uri=sqlite:///new.db"])
    assert not (tmp_path / "new.db").exists()
