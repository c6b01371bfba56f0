"""Random faults in a grid of real cells: each result is that of an undisturbed grid, to the byte.

python -m pytest tests/chaos -m slow -s     # prints the counts of docs/robustness.md
"""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from rdx import stages
from rdx.store import MANIFEST, damage
from tests.rdx.conftest import mounted

sys.path.insert(0, str(Path(__file__).parent))
import attempts  # noqa: E402

pytestmark = pytest.mark.slow

FAULTS = int(os.environ.get("CHAOS_FAULTS", "110"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
HANGS = 240.0  # seconds after which an attempt counts as one that hangs; a lease takes 120
MOST = 60 * float(os.environ.get("CHAOS_MINUTES", "30"))  # seconds, of all
ATTEMPTS = 6  # with a fault, before a grid may finish undisturbed
# These hold times, or paths; the numbers of the first are compared without them.
TIMED = ("timing", "seconds", "own_seconds", "stages")
PLACES = ("tracking", "store")  # of a configuration: no part of a cell's identity
STAGES = tuple("candidates teach select prefinetune distill evaluate retrieve index tokens".split())


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small file system of its own, that can be filled and made read-only; else a folder."""
    folder = tmp_path_factory.mktemp("disk")
    with mounted(folder, "size=96m") as there:
        yield folder, there


@pytest.fixture(scope="module")
def context():
    """A server that has imported everything once and forks from then on."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    server = multiprocessing.get_context("forkserver")
    modules = ["rdx.pipeline", "rdx.progress", "rdx.tracking.mirror", "attempts"]
    server.set_forkserver_preload(modules)
    return server


class Grid:
    """The cells of one grid in one store, and its attempts."""

    def __init__(self, world, root, context, name):
        settings = ("budget.epochs=3", "trainer.checkpoint_seconds=0", "seed=1,2")
        overrides = world.overrides(root / "store", *settings)
        self.cells = stages.cells([o for o in overrides if not o.startswith("tracking=")]
                                  + ["tracking=none"])  # fmt: skip
        self.root, self.store, self.context = root, root / "store", context
        self.log = world.folder / f"{name}.log"
        self.pids = world.folder / f"{name}.pids"

    def start(self, fault=None, tracking=None):
        """Launch the grid."""
        more = {"tracking": tracking} if tracking else {}
        cells = [replace(cell, cfg=cell.cfg | more) for cell in self.cells]
        process = self.context.Process(
            target=attempts.grid, args=(cells, str(self.log), str(self.pids), fault)
        )
        process.start()
        return process

    def working(self):
        """The processes of cells that are alive."""
        text = self.pids.read_text() if self.pids.exists() else ""
        alive = []
        for pid in map(int, text.split()):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive

    def kill_cells(self):
        for process in self.working():
            with suppress(psutil.Error):
                process.kill()

    def end(self, process):
        """Wait for an attempt, and for what a killed launcher left; nothing hangs."""
        process.join(HANGS)
        hangs = process.is_alive()
        left = psutil.wait_procs(self.working(), timeout=HANGS)[1]
        if hangs or any(process.status() != psutil.STATUS_ZOMBIE for process in left):
            pytest.fail(f"an attempt hangs:\n{self.log.read_text()[-3000:]}")

    def results(self):
        """The bytes of every file of every result; without what holds times and places."""
        folders = [f for stage in STAGES for f in (self.store / stage).glob("*") if not f.suffix]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.store)): comparable(path) for path in files}


def comparable(path):
    try:
        return values(path)
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:  # corrupted, or going
        return f"unreadable: {error}"


def values(path):
    """The bytes of a file; of JSON its values without times, of YAML without places."""
    if path.name == MANIFEST:
        return sorted(json.loads(path.read_text())["files"])
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.name == "config.yaml":
        settings = yaml.safe_load(path.read_text())
        return {key: value for key, value in settings.items() if key not in PLACES}
    return path.read_bytes()


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMED}
    return [without_times(v) for v in value] if isinstance(value, list) else value


# --- faults: each disturbs one attempt of a grid, and waits for its end ---


def started(grid, draw, seconds):
    """An attempt that has run for some time."""
    process = grid.start()
    time.sleep(draw.uniform(0, seconds))
    return process


def kill_cell(grid, *when):
    process = started(grid, *when)
    grid.kill_cells()
    grid.end(process)


def kill_launcher(grid, *when):
    """Its cell goes on for itself; the next attempt meets it."""
    process = started(grid, *when)
    process.kill()
    process.join()
    grid.end(grid.start())


def kill_both(grid, *when):
    process = started(grid, *when)
    process.kill()
    grid.kill_cells()
    grid.end(process)


def kill_in_a_write(grid, draw, seconds):
    grid.end(grid.start(("write", draw.randrange(1, 120))))


def disk_full(grid, draw, seconds):
    ballast = grid.root / "ballast"
    free = shutil.disk_usage(grid.root).free
    with ballast.open("wb") as file:
        file.write(b"\0" * max(free - draw.choice((0, 4096, 50_000, 300_000)), 0))
    try:
        grid.end(grid.start())
    finally:
        ballast.unlink()


def read_only(grid, draw, seconds):
    subprocess.run(["mount", "-o", "remount,ro", str(grid.root)], check=True)
    try:
        grid.end(grid.start())
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(grid.root)], check=True)


def corrupt(grid, draw, seconds):
    """A stored file changes, ends early, or is gone, in a result or in one half made."""
    files = sorted(p for p in grid.store.rglob("*") if p.is_file() and p.suffix != ".held")
    if files:
        path = draw.choice(files)
        content = bytearray(path.read_bytes())
        how = draw.choice(("flip", "cut", "remove"))
        if how == "flip" and content:
            content[draw.randrange(len(content))] ^= 0xFF
        elif how == "cut":
            del content[len(content) // 2 :]
        path.unlink() if how == "remove" else path.write_bytes(content)
    grid.end(grid.start())


def mlflow_down(grid, draw, seconds):
    down = grid.cells[0].cfg["tracking"] | {
        "_target_": "rdx.tracking.MLflow", "uri": "http://127.0.0.1:9", "experiment": "rdx",
        "system_metrics": False,
    }  # fmt: skip
    grid.end(grid.start(tracking=down))


def clock_jump(grid, draw, seconds):
    """The clock jumps to and fro in the cells, and the lock files come from other years."""
    process = grid.start(("clock", draw.randrange(2)))
    until = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < until:
        for held in grid.store.glob("*/*.held"):
            with suppress(OSError):
                os.utime(held, (draw.uniform(0, 2e9),) * 2)
        time.sleep(0.05)
    grid.end(process)


def two_at_once(grid, draw, seconds):
    processes = [grid.start() for _ in range(2)]
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, seconds))
        processes[0].kill()
    for process in processes:
        grid.end(process)


EVERYWHERE = (kill_cell, kill_launcher, kill_both, kill_in_a_write, corrupt, mlflow_down,
              clock_jump, two_at_once)  # fmt: skip
MOUNTED = (disk_full, read_only)


def test_random_faults_change_no_result(world, disk, context, capsys):
    folder, own_disk = disk
    kinds = EVERYWHERE + (MOUNTED if own_disk else ())
    begun, draw = time.monotonic(), random.Random(SEED)
    undisturbed = Grid(world, folder if own_disk else folder / "undisturbed", context, "calm")
    undisturbed.root.mkdir(exist_ok=True)
    times = []
    for _ in range(2):
        shutil.rmtree(undisturbed.store, ignore_errors=True)
        start = time.monotonic()
        process = undisturbed.start()
        undisturbed.end(process)
        times.append(time.monotonic() - start)
        assert process.exitcode == 0, undisturbed.log.read_text()[-3000:]
    expected, seconds = undisturbed.results(), times[-1]
    assert len([name for name in expected if name.endswith("per_query.parquet")]) == 2
    shutil.rmtree(undisturbed.store)

    grid = Grid(world, undisturbed.root, context, "chaos")
    tried: Counter = Counter()
    survived: Counter = Counter()
    bag: list = []
    try:
        while tried.total() < FAULTS:
            assert time.monotonic() - begun < MOST, f"only {tried.total()} faults in time"
            shutil.rmtree(grid.store, ignore_errors=True)
            faults = []
            for _ in range(draw.randint(1, ATTEMPTS)):
                bag = bag or draw.sample(kinds, len(kinds))
                faults.append(bag.pop())
                tried[faults[-1].__name__] += 1
                faults[-1](grid, draw, seconds)
                believed_is_right(grid, expected, faults)
            process = grid.start()
            grid.end(process)
            assert process.exitcode == 0, (faults, grid.log.read_text()[-3000:])
            believed_is_right(grid, expected, faults)
            results = grid.results()
            # what a finished cell did not read again may be damaged still, and is known to be
            cells = [name for name in expected if name.startswith("evaluate/")]
            wrong = [name for name in cells if results.get(name) != expected[name]]
            assert not wrong, (faults, wrong)
            survived.update(fault.__name__ for fault in faults)
    finally:
        with capsys.disabled():
            print(f"\nseed {SEED}, two cells, {time.monotonic() - begun:.0f} s; an undisturbed "
                  f"grid {seconds:.1f} s\n\n{table(tried, survived)}")  # fmt: skip


def believed_is_right(grid, expected, faults):
    """After a fault, every file of a result is as the undisturbed grid has it, or known as bad."""
    for name, content in grid.results().items():
        stored = grid.store.joinpath(*Path(name).parts[:2])
        assert content == expected.get(name) or damage(stored), (faults, name)


def table(tried, survived):
    rows = [(name.replace("_", " "), tried[name], survived[name]) for name in sorted(tried)]
    rows.append(("all", tried.total(), survived.total()))
    head = "| fault | tried | survived |\n|---|---:|---:|\n"
    return head + "\n".join(f"| {name} | {t} | {s} |" for name, t, s in rows)
