"""What benchmarks of libraries share: the model, the task, processes, and ratios."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, ElectraConfig

from rdx.assets import model_path
from rdx.precision import chosen

ROOT = Path(__file__).parents[1]
MINILM = "asset:all-MiniLM-L6-v2"
# Shapes of google/electra-*-discriminator.
SHAPES: dict[str, dict[str, int]] = {
    "electra-base": {
        "embedding_size": 768,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "electra-large": {
        "embedding_size": 1024,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
}


def arguments(description: str) -> argparse.ArgumentParser:
    """Options that the benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="minilm", choices=["minilm", *SHAPES])
    parser.add_argument("--repeat", type=int, default=3, help="times, in turn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision", nargs="+", choices=["bf16", "fp32"], help="of like with like; else rdx's own"
    )
    parser.add_argument("--attention", nargs="+", choices=["eager", "sdpa"], help="likewise")
    parser.add_argument("--passage-length", type=int, default=256, help="tokens")
    parser.add_argument(
        "--lightning-ir", metavar="PYTHON", help="python of an environment with lightning-ir"
    )
    parser.add_argument("--sentence-transformers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose name has a word")
    return parser


def numerics(given: argparse.Namespace) -> list[tuple[str, str]]:
    """Precision and attention of the rows that compare like with like."""
    usual = ["eager", "sdpa"] if given.device == "cpu" else ["sdpa"]
    kinds = given.precision or [chosen("auto", given.device)]
    return list(itertools.product(kinds, given.attention or usual))


def save_model(name: str, folder: Path, layers: int | None = None) -> str:
    """Write the model with a fresh classification head, so that all libraries load one thing."""
    source = model_path(MINILM)
    torch.manual_seed(0)
    if name == "minilm":
        extra = {} if layers is None else {"num_hidden_layers": layers}
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, **extra)
    else:
        config = ElectraConfig(**SHAPES[name], num_labels=1)
        model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def measure(python: str, task: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(task))
        # Not "-m": the other environments have no rdx, and need none.
        command = [python, str(ROOT / "benchmarks" / "peers.py"), str(path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{task['library']}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def all_rows(
    rows: dict[str, tuple[str, dict[str, Any]]], repeat: int, only: list[str] | None
) -> dict[str, list[dict[str, Any]]]:
    """Measure all rows (name: python, task) in turn, so that a slow minute hits every row alike."""
    chosen = {
        name: row for name, row in rows.items() if not only or any(word in name for word in only)
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for turn in range(repeat):
        for name, (python, task) in chosen.items():
            start = time.perf_counter()
            found[name].append(measure(python, task))
            spent = time.perf_counter() - start
            print(f"turn {turn + 1}, {name}: {spent:.0f} s", file=sys.stderr, flush=True)
    return found


def machine(device: str) -> str:
    """Where this runs, in words."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def spread(values: list[float], form: str = ".2f") -> str:
    """Median and range."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return (
        f"{middle:{form}}" if len(values) == 1 else f"{middle:{form}} ({low:{form}}–{high:{form}})"
    )


def matrix_peak(device: str, precision: str) -> float:
    """Floating-point operations per second of a large matrix product: the best of several."""
    size, kind = (8192 if device == "cuda" else 2048), torch.float32
    if precision == "bf16":
        kind = torch.bfloat16
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
