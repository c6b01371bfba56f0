"""What grids cost beyond their training: planning, starting, recording.

``python -m benchmarks.grid`` prints Markdown tables; ``--only planning`` one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd  # noqa: E402

from rdx import config, stages  # noqa: E402
from rdx.artifacts import Evaluated  # noqa: E402
from rdx.config import Cell  # noqa: E402
from rdx.job import Parts  # noqa: E402
from rdx.store import Store  # noqa: E402
from tests import records  # noqa: E402

ROOT = Path(__file__).parents[1]
LOSSES = (
    *("ranknet", "adr_mse", "lce", "listnet", "list_mle"),
    *("p_list_mle", "lambda_rank", "lambda_loss", "approx_ndcg", "approx_mrr"),
)


def grid(cells: int) -> list[str]:
    """Overrides of a grid of so many cells, a multiple of 50: losses x depths x seeds."""
    seeds = ",".join(map(str, range(1, cells // 50 + 1)))
    return [f"loss={','.join(LOSSES)}", "depth.k=5,6,7,8,9", f"seed={seeds}", "depth.pool=10"]


def finish(cell: Cell, queries: int) -> None:
    """Write a cell's results through the real store, and its trial through the real tracking."""
    store = Store(Path(cell.cfg["store"]))
    facts = records.trial(
        cell.signature,
        cell.cfg["seed"],
        {"pydocs": records.collection(queries=queries)},
        signatures=cell.keys,
        levels=cell.levels,
        means={"pydocs/student/nDCG@10": 0.4},
    )
    values = [(i * 7919 + cell.cfg["seed"] * 31) % 1000 / 1000 for i in range(queries)]
    table = pd.DataFrame({"query_id": [f"q{i}" for i in range(queries)], "value": values})
    table = table.assign(collection="pydocs", system="student", measure="nDCG@10")

    def evaluated(folder: Path) -> None:
        Evaluated.write(folder, facts, table, cell.cfg)

    for step in stages.steps(Parts(cell.cfg)):
        write = evaluated if step == stages.LAST else _nothing
        store.cached(step.stage, cell.keys[str(step)], write)
    tracking = config.build(cell.cfg["tracking"], "tracking")
    with tracking.trial(
        store=store.root,
        signature=cell.signature,
        levels=cell.levels,
        config=cell.cfg,
        grid="benchmark",
        seed=cell.cfg["seed"],
    ) as trial:
        trial.log_result(store.folder("evaluate", cell.signature), facts)


def _nothing(folder: Path) -> None:
    (folder / "result.json").write_text("{}")


def process(arguments: Sequence[str], folder: Path) -> str:
    """What Python, started anew in a folder, prints; a failure ends the benchmark."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{arguments}: {done.stderr[-2000:]}")
    return done.stdout


def seconds(command: Sequence[str], folder: Path, repeat: int) -> list[tuple[float, float]]:
    """Wall-clock and processor seconds of a program, each time in a process of its own."""
    spent = []
    for _ in range(repeat):
        start, busy = time.perf_counter(), _children()
        process(["-m", "rdx", *command], folder)
        spent.append((time.perf_counter() - start, _children() - busy))
    return spent


def planning(cells: int, repeat: int) -> list[str]:
    """A finished grid planned again, and the help text."""
    lines = ["| | seconds (median, range) | processor |", "|---|--:|--:|"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tracking = [f"tracking.artifacts={folder}/mlartifacts", "tracking.system_metrics=false"]
        overrides = [*grid(cells), *tracking]
        before = os.getcwd()
        os.chdir(folder)
        try:
            start, busy = time.perf_counter(), time.process_time()
            every = stages.cells(overrides)
            composed = [(time.perf_counter() - start, time.process_time() - busy)]
            for cell in every:
                finish(cell, queries=320)
        finally:
            os.chdir(before)
        lines.append(f"| {len(every):,} cells composed and signed | {_told(composed)} |")
        again = seconds(["plan", *overrides], folder, repeat)
        lines.append(f"| `python -m rdx plan` of these, all finished | {_told(again)} |")
    lines.append(f"| `python -m rdx --help` | {_told(seconds(['--help'], ROOT, repeat))} |")
    return lines


def tracking(cells: int, repeat: int) -> list[str]:
    """What the main thread of a trial loses to its record; the training is a pause of 6 s."""
    lines = ["| | first trial of a process | later ones |", "|---|--:|--:|"]
    code = "import sys; from benchmarks.grid import lost; lost(sys.argv[1], sys.argv[2])"
    with tempfile.TemporaryDirectory() as place:
        local = f"sqlite:///{place}/mlflow.db"
        with _served(place) as address:
            for name, uri in (("local SQLite", local), ("server on loopback", address)):
                waits = []
                for _ in range(repeat):
                    printed = process(["-c", code, uri, place], ROOT)
                    waits.append([float(seconds) for seconds in printed.split()])
                first = statistics.median(trials[0] for trials in waits)
                later = statistics.median(wait for trials in waits for wait in trials[1:])
                lines.append(f"| {name} | {first:.2f} s | {later:.2f} s |")
    return lines


def lost(uri: str, folder: str) -> None:
    """Print the seconds that each of three trials of 200 steps waits for its record."""
    from rdx.tracking import MLflow

    settings = MLflow(uri=uri, artifacts=f"{folder}/a")
    if "://" in uri and not uri.startswith("sqlite"):
        settings = dataclasses.replace(settings, artifacts="")
    results = Path(folder, "results")
    results.mkdir(exist_ok=True)
    (results / "per_query.parquet").write_bytes(bytes(50_000))
    for number in range(3):
        pause = 6.0
        start = time.perf_counter()
        with settings.trial(
            store=Path(folder), signature=f"{os.getpid():x}{number}", levels={"loss": "ranknet"},
            config={"a": {str(i): i for i in range(150)}}, grid="benchmark", seed=1,
        ) as trial:  # fmt: skip
            for step in range(200):
                trial.log_step("distill", step, {"loss": 0.5, "learning_rate": 1e-5})
            time.sleep(pause)
            trial.set_health("ok")
            collections = {"pydocs": records.collection(queries=320)}
            means = {"pydocs/student/nDCG@10": 0.4}
            trial.log_result(results, records.trial("", 1, collections, means=means))
        print(time.perf_counter() - start - pause)


@contextlib.contextmanager
def _served(folder: str) -> Iterator[str]:
    """An MLflow server with SQLite on loopback; its address."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", address.rpartition(":")[2], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as server:  # type: ignore[call-overload]
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}/health", timeout=5).close()
                    break
                time.sleep(0.2)
            yield f"http://{address}"
        finally:
            server.terminate()


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _told(spent: Sequence[tuple[float, float]]) -> str:
    wall = [seconds for seconds, _ in spent]
    busy = statistics.median(seconds for _, seconds in spent)
    return f"{statistics.median(wall):.1f} ({min(wall):.1f}–{max(wall):.1f}) | {busy:.1f}"


TABLES: dict[str, Callable[[int, int], list[str]]] = {"planning": planning, "tracking": tracking}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid", description=__doc__)
    parser.add_argument("--only", choices=tuple(TABLES), help="one table")
    parser.add_argument("--cells", type=int, default=1000, help="of the planned grid")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    for name, table in TABLES.items():
        if options.only in (None, name):
            lines = [f"## {name}", "", *table(options.cells, options.repeat), ""]
            print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
