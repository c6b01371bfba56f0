"""Screenshots of MLflow's pages for docs/tracking.md, of a grid of 24 cells with made numbers.

    python scripts/screenshots.py [--chromium /usr/bin/chromium] [--out docs/images]

The cells are recorded through `rdx.tracking`, as those of a real grid are; only their per-query
values are drawn at random. Needs playwright, Pillow and a Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rdx.tracking import MLflow, Row

SIZE = {"width": 1500, "height": 900}
GRID = "grid_sampler_depth_loss-0a1b2c3d"
CLAIM = "Students are better taught on candidates of a dense retriever than on those of BM25."
FACTORS = {
    "sampler": ("bm25", "random", "colbert"),
    "depth": ("shallow", "deep"),
    "loss": ("ranknet", "adr_mse"),
    "seed": (1, 2),
}
GAINS = {"bm25": 0.02, "random": -0.03, "colbert": 0.05, "deep": 0.02, "adr_mse": 0.01}
COLLECTIONS = ("dl19", "dl20")
REPORT = "<!doctype html><title>Report</title><h1>Report of the grid</h1><p>Tests stand here.</p>"


def record_grid(folder: Path) -> tuple[MLflow, dict[str, str]]:
    """Record 24 cells, the table of their grid and a report; returns the ids of their runs too."""
    tracking = MLflow(
        uri=f"sqlite:///{folder}/mlflow.db",
        artifacts=str(folder / "artifacts"),
        system_metrics=False,
    )
    cells = [
        _record_cell(tracking, folder, dict(zip(FACTORS, levels, strict=True)))
        for levels in itertools.product(*FACTORS.values())
    ]
    tracking.log_grid(folder, GRID, cells)
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("rdx").experiment_id
    runs = client.search_runs([experiment])
    [parent] = [run for run in runs if run.data.tags["rdx.kind"] == "grid"]
    report = folder / "report.html"
    report.write_text(REPORT)
    client.log_artifact(parent.info.run_id, str(report), "analysis")
    ids = {run.info.run_name: run.info.run_id for run in runs}
    return tracking, {**ids, "experiment": experiment, "parent": parent.info.run_id}


def _record_cell(tracking: MLflow, store: Path, cell: dict[str, Any]) -> Row:
    words = [f"{key}={value}" for key, value in cell.items()]
    signature = "".join(f"{value}"[:3] for value in cell.values())
    draw = np.random.default_rng([ord(c) for c in signature])
    levels = {key: str(value) for key, value in cell.items() if key != "seed"}
    levels |= {"data": "msmarco", "teacher": "rankzephyr", "student": "monoelectra_base"}
    gain = sum(GAINS.get(value, 0.0) for value in levels.values())
    systems = {"first_stage": 0.50, "oracle": 0.85, "student": 0.66 + gain}
    folder = store / "evaluate" / signature
    folder.mkdir(parents=True)
    tables = [
        pd.DataFrame({
            "collection": name,
            "system": system,
            "query_id": [str(i) for i in range(50)],
            "measure": measure,
            "value": np.clip(draw.normal(level, 0.05, 50), 0, 1),
        })
        for name in COLLECTIONS
        for system, level in systems.items()
        for measure in ("nDCG@10", "RR@10")
    ]  # fmt: skip
    table = pd.concat(tables)
    table.to_parquet(folder / "per_query.parquet")
    means = table.groupby(["collection", "system", "measure"], sort=False).value.mean()
    metrics = {"/".join(key): float(value) for key, value in means.items()}
    config = {
        "sampler": {"_target_": "rdx.samplers.BM25", "k1": 0.9},
        "depth": {"k": 100 if cell["depth"] == "deep" else 10},
        "spec": {"claim": CLAIM},
    }
    facts = {
        "signature": signature,
        "collections": {name: {"digest": name * 4, "queries": 50} for name in COLLECTIONS},
    }
    about: dict[str, Any] = {"signature": signature, "levels": levels, "config": config}
    with tracking.trial(store=store, **about, grid=GRID, seed=cell["seed"]) as trial:
        for step in range(0, 200, 10):
            loss = 0.7 * np.exp(-step / 60) + 0.1 + draw.normal(0, 0.01)
            trial.log_step(
                "distill", step, {"loss": loss, "learning_rate": 1e-5 * (1 - step / 200)}
            )
        trial.set_health("ok")
        trial.log_result(folder, {**facts, "means": metrics})
    state: dict[str, Any] = {"state": "finished", "health": "ok", "means": metrics}
    return Row(overrides=" ".join(words), signature=signature, **state)


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
    for _ in range(600):
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
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def runs_page(address: str, ids: dict[str, str]) -> str:
    """The table of trials, best first, with the columns that a review needs."""
    order = "orderByKey=metrics.%60nDCG_at_10%2Fstudent%2Fdl19%60&orderByAsc=false"
    return f"{address}/#/experiments/{ids['experiment']}/runs?{order}"


def prepare(page: Any, ids: dict[str, str]) -> None:
    """Let the browser remember what a reviewer chooses: columns, and no assistant."""
    columns = [f"params.`{key}`" for key in FACTORS]
    columns += [f"metrics.`nDCG_at_10/student/{name}`" for name in COLLECTIONS]
    state = f'MLflowLocalStorage-1.1-ExperimentPage-["{ids["experiment"]}"]-ReactComponentState'
    chosen = {
        state: {"selectedColumns": columns},
        "mlflow.workflowType_v1": "machine_learning",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    }
    page.add_init_script(
        f"for (const [key, value] of Object.entries({json.dumps(chosen)}))"
        " localStorage.getItem(key) || localStorage.setItem(key, JSON.stringify(value))"
    )


def main() -> None:
    """Take the pictures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--chromium", default="/usr/bin/chromium")
    arguments.add_argument("--out", type=Path, default=Path("docs/images"))
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tracking, ids = record_grid(Path(scratch))
        with served(tracking, Path(scratch)) as address, opened(given.chromium) as page:
            prepare(page, ids)
            grid = f"{address}/#/experiments/{ids['experiment']}/runs/{ids['parent']}"
            names = {
                "mlflow_grid": grid,
                "mlflow_cells": runs_page(address, ids),
                "mlflow_charts": f"{runs_page(address, ids)}&compareRunsMode=CHART",
            }
            for name, where in names.items():
                page.goto("about:blank")
                page.goto(where)
                page.wait_for_timeout(8_000)  # the page polls, it is never idle
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
