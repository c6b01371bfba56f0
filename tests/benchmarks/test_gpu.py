"""The benchmark for GPUs: tiny, on a CPU, where nothing but what it asks for is installed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu

ROOT = Path(__file__).parents[2]
ALONE = Path(__file__).with_name("alone.py")
PACKAGES = "torch transformers accelerate numpy pandas"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    command = [sys.executable, str(ALONE), PACKAGES, "benchmarks.gpu", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


def test_every_section_measures(found):
    assert set(found) == {
        "machine",
        "correctness",
        "training",
        "memory",
        "re-ranking",
        "other libraries",
        "teacher",
        "switches",
    }
    rows = [(section, name, row) for section in found for name, row in found[section].items()]
    failed = [(s, n) for s, n, row in rows if isinstance(row, dict) and "failed" in row]
    left_out = [(s, n) for s, n, row in rows if isinstance(row, dict) and "left out" in row]
    assert failed == [] and left_out == [("correctness", "tests marked gpu")]


def test_losses_and_gradients_are_right(found):
    rows = {name: row for name, row in found["correctness"].items() if "ok" in row}
    assert len(rows) == len(gpu.LOSSES) + 4 and all(row["ok"] for row in rows.values())
    for name, row in rows.items():
        bound = gpu.BF16_ERROR if "bf16" in name else gpu.FP32_ERROR
        assert 0 <= row["gradient error"] < bound and 0 <= row["loss error"] < bound
    assert rows["RankNet, a backward pass per list against one graph"]["backward passes"] == 4
    cached = rows["RankNet, gradient cache against one graph"]
    assert cached["backward passes"] == 1 and cached["micro-batches"] > 1


def test_numbers_are_consistent(found):
    row = found["training"]["tiny"]
    assert row["pairs/s"] == pytest.approx(8 / np.median(row["seconds a step"]), rel=1e-2)
    assert 0 < row["share of peak"] < 1 and 0 <= row["padding"] < 1
    alone, one = found["teacher"]["tiny, one by one"], found["re-ranking"]["tiny, one by one"]
    times = 9 / alone["windows/s"] / one["p50 (s)"]
    assert found["teacher"]["tiny against tiny"]["times the time"] == pytest.approx(times, rel=1e-2)


def test_errors_are_told_apart_from_agreement():
    gradients = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([0.5])}
    near = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([0.5001])}
    far = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([0.6])}
    assert gpu.compared((1.0, near), (1.0, gradients))["ok"]
    assert gpu.compared((1.0, far), (1.0, gradients))["gradient error"] == pytest.approx(0.05)
    assert not gpu.compared((1.0, far), (1.0, gradients))["ok"]
    assert not gpu.compared((1.1, near), (1.0, gradients))["ok"]
    assert not gpu.compared((1.0, {"a": gradients["a"]}), (1.0, gradients))["ok"]


def test_what_fails_or_takes_too_long_stops_nothing(tmp_path):
    report = gpu.Report(tmp_path / "found.json", 60, {})
    report.measure("a", "fails", 10, lambda: {}["no such key"])
    report.measure("a", "is slow", 0.05, lambda: time.sleep(30))
    report.measure("a", "has no time", 100, dict)
    report.measure("a", "works", 10, lambda: {"one": 1})
    rows = json.loads((tmp_path / "found.json").read_text())["a"]
    assert rows["fails"]["failed"].startswith("KeyError")
    assert rows["is slow"]["failed"].startswith("TimeoutError")
    assert "left out" in rows["has no time"] and rows["works"]["one"] == 1


def test_texts_are_as_long_as_those_of_dl_2019():
    given = gpu.texts(20, 50, 200)
    words = [len(text.split()) for text in given.passages.values()]
    assert np.mean(words) == pytest.approx(85, rel=0.05) and max(words) <= 258
    assert all(4 <= len(query.split()) <= 13 for query in given.queries.values())
