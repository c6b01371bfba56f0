"""Screenshots of MLflow's pages for docs/tracking.md, of a grid of 12 cells with made numbers.

    python scripts/screenshots.py [--chromium /usr/bin/chromium] [--out docs/images]

The cells are recorded through `rdx.tracking`, as those of a real grid are; only their values are
drawn at random. Three of them were trained before the grid: two alone, one by another grid. The
browser is a new one, in which only MLflow's assistant was closed. Needs playwright, Pillow and a
Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rdx.facts import dump  # noqa: E402
from rdx.tracking import MLflow, Row  # noqa: E402
from tests import records  # noqa: E402

SIZE = {"width": 1500, "height": 900}
GRID, EARLIER = "sampler_loss-0a1b2c3d", "losses-4e5f6a7b"
CLAIM = "Students are better taught on candidates of a dense retriever than on those of BM25."
SAMPLERS, LOSSES, SEEDS = ("bm25", "random", "colbert"), ("ranknet", "adr_mse"), (1, 2)
ALONE = (("bm25", "ranknet", 1), ("bm25", "ranknet", 2))
OF_EARLIER = ("random", "adr_mse", 1)
GAINS = {"bm25": 0.02, "random": -0.03, "colbert": 0.05, "adr_mse": 0.01}
COLLECTIONS = ("dl19", "dl20")
MEASURES = ("nDCG@10", "RR@10")
TRAINING = "workflowType=machine_learning"  # docs/tracking.md tells it
REPORT = "<!doctype html><title>Report</title><h1>Report of the grid</h1><p>Tests stand here.</p>"


@dataclass(frozen=True)
class Recorded:
    """A recorded grid: where, the ids of its experiment and run, and those of runs by name."""

    tracking: MLflow
    experiment: str
    grid: str
    runs: dict[str, str]


def record_grid(folder: Path) -> Recorded:
    """Record the cells that were there before, the grid with its other cells, and a report."""
    tracking = MLflow(
        uri=f"sqlite:///{folder}/mlflow.db",
        artifacts=str(folder / "artifacts"),
        wait=120,
        system_metrics=False,
    )
    cells = list(itertools.product(SAMPLERS, LOSSES, SEEDS))
    rows = {cell: _row(*cell) for cell in cells}
    for cell in ALONE:
        _record(tracking, folder, "", rows[cell], *cell)
    tracking.log_grid(folder, EARLIER, [rows[OF_EARLIER]], measure=MEASURES[0])
    _record(tracking, folder, EARLIER, rows[OF_EARLIER], *OF_EARLIER)
    before = (*ALONE, OF_EARLIER)
    to_run = [row if cell in before else _to_run(row) for cell, row in rows.items()]
    tracking.log_grid(folder, GRID, to_run, CLAIM, MEASURES[0])
    for cell in cells:
        if cell not in before:
            _record(tracking, folder, GRID, rows[cell], *cell)
    tracking.log_grid(folder, GRID, list(rows.values()), CLAIM, MEASURES[0])
    report = folder / "report.html"
    report.write_text(REPORT)
    grid = tracking.log_report("", [report], GRID)
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment).experiment_id
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    return Recorded(tracking, experiment, grid, runs)


def _row(sampler: str, loss: str, seed: int) -> Row:
    """A finished cell with made scores."""
    signature = f"{sampler}{loss}{seed}".replace("_", "")
    draw = np.random.default_rng([ord(character) for character in signature])
    level = 0.66 + GAINS.get(sampler, 0.0) + GAINS.get(loss, 0.0)
    means = {
        f"{name}/{system}/{measure}": float(np.clip(draw.normal(mean, 0.006), 0, 1))
        for name in COLLECTIONS
        for system, mean in (("first_stage", 0.50), ("oracle", 0.85), ("student", level))
        for measure in MEASURES
    }
    overrides = f"sampler={sampler} loss={loss} seed={seed} depth=shallow"
    return Row(signature=signature, overrides=overrides, state="finished", health="ok", means=means)


def _to_run(row: Row) -> Row:
    return replace(row, state="to run", health=None, means={})


def _record(
    tracking: MLflow, store: Path, grid: str, row: Row, sampler: str, loss: str, seed: int
) -> None:
    """Record a trial as a cell's run does: curves, machine, result."""
    levels = {"sampler": sampler, "loss": loss, "depth": "shallow", "data": "msmarco"}
    levels |= {"teacher": "rankzephyr", "student": "monoelectra_base"}
    config = {
        "sampler": {"_target_": f"rdx.samplers.{sampler}"},
        "depth": {"k": 10},
        "evaluation": {"measures": list(MEASURES)},
        "spec": {"claim": CLAIM},
        "seed": seed,
    }
    folder = store / "evaluate" / row.signature
    folder.mkdir(parents=True)
    tested = {name: records.collection(queries=50, digest=name * 4) for name in COLLECTIONS}
    facts = records.trial(row.signature, seed, tested, levels=levels, means=row.means)
    (folder / "trial.json").write_text(dump(facts))
    about: dict[str, Any] = {"signature": row.signature, "levels": levels, "config": config}
    about |= {"grid": grid, "seed": seed, "cell": f"{sampler}{loss}"}
    with tracking.trial(store=store, **about) as trial:
        for step in range(0, 200, 40):
            trial.log_step("system", step, {"cpu_utilization_percentage": 90.0 + step / 40})
            loss_now = 0.7 * np.exp(-step / 60) + 0.1
            trial.log_step("distill", step, {"loss": loss_now, "learning_rate": 1e-5})
        trial.set_health("ok")
        trial.log_result(folder, facts)


@contextlib.contextmanager
def served(tracking: MLflow, folder: Path) -> Iterator[str]:
    """An MLflow server on loopback; its address."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking.uri),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=quiet)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/health", server)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(1500):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    raise RuntimeError("the MLflow server did not start")


@contextlib.contextmanager
def opened(chromium: str) -> Iterator[Any]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(180_000)
        # MLflow's assistant opens by itself at the first visit, and covers a quarter of the page.
        seen = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
        page.add_init_script(f"localStorage.setItem('{seen}', 'true')")
        yield page
        browser.close()


def pages(address: str, recorded: Recorded) -> dict[str, str]:
    """Addresses that a user comes by: the experiment, the grid's run, and the links on its page."""
    view = f"/runs?viewStateShareKey={recorded.grid}&"
    places = {
        "mlflow_experiment": "?",
        "mlflow_grid": f"/runs/{recorded.grid}?",
        "mlflow_cells": view,
        "mlflow_charts": f"{view}compareRunsMode=CHART&",
    }
    home = f"{address}/#/experiments/{recorded.experiment}"
    return {name: f"{home}{place}{TRAINING}" for name, place in places.items()}


def main() -> None:
    """Take the pictures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--chromium", default="/usr/bin/chromium")
    arguments.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments.add_argument("--seconds", type=int, default=10, help="until a page has drawn itself")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        recorded = record_grid(Path(scratch))
        with served(recorded.tracking, Path(scratch)) as address, opened(given.chromium) as page:
            for name, where in pages(address, recorded).items():
                page.goto("about:blank")
                page.goto(where)
                page.wait_for_timeout(given.seconds * 1000)  # the page polls, it is never idle
                _save(page.screenshot(), given.out / f"{name}.png")


def _save(png: bytes, path: Path) -> None:
    """Write a picture in 64 colours, which is a third of its size."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(64)
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
