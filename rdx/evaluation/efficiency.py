"""What re-ranking one query costs: time, memory, energy; and how systems compare."""

from __future__ import annotations

import ctypes
import gc
import importlib
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from rdx.batches import micro_batches
from rdx.students import CrossEncoder

POWERCAP = Path("/sys/class/powercap")
WARM_UP = 3  # queries scored before anything is timed; all are, where there are fewer


def timed(
    student: CrossEncoder,
    candidates: pd.DataFrame,
    collection: Any,
    trainer: Any,
    max_tokens: int,
    repetitions: int,
    queries: int,
) -> dict[str, Any]:
    """Time the re-ranking of single queries, tokenisation included, reading of texts not.

    One query at a time, as a service that answers would; `rerank` mixes the queries of a batch and
    is faster per pair.

    Parameters
    ----------
    student, candidates, collection, trainer, max_tokens
        As of `rdx.evaluation.rerank`.
    repetitions
        How often every query is timed, after `WARM_UP` queries that are not.
    queries
        The first so many queries of the candidates.

    Returns
    -------
    dict
        "seconds": query id -> one number per repetition; "pairs": query id -> passages;
        "latency": "p50", "p95" and "mean" in seconds over queries, of the medians over repetitions;
        "pairs_per_second"; "peak_memory": "rss" (the whole process, null where the system does not
        tell) and "cuda" (allocated by torch, null without), in bytes; "energy": "joules_per_query"
        and "source", null where the machine does not tell; "hardware"; and the settings.
    """
    accelerator = trainer.accelerator()
    device = accelerator.device
    student = student.to(device).eval()
    lists = _texts(candidates, collection, queries)

    def score(pairs: list[tuple[str, str]]) -> None:
        for micro in micro_batches(pairs, range(len(pairs)), student.pairs, max_tokens):
            inputs = {key: value.to(device) for key, value in micro.inputs.items()}
            student(inputs, micro.parts.to(device)).float().cpu()  # waits for the device

    seconds: dict[str, list[float]] = {query_id: [] for query_id in lists}
    with torch.inference_mode(), accelerator.autocast(), _peak(device) as memory:
        for pairs in list(lists.values())[:WARM_UP]:
            score(pairs)
        with _energy(device) as energy:
            for _ in range(repetitions):
                for query_id, pairs in lists.items():
                    start = time.perf_counter()
                    score(pairs)
                    seconds[query_id].append(time.perf_counter() - start)
    asked = repetitions * len(lists)
    joules = energy.get("joules")
    return {
        "seconds": seconds,
        "pairs": {query_id: len(pairs) for query_id, pairs in lists.items()},
        **_summary(seconds, {q: len(pairs) for q, pairs in lists.items()}),
        "peak_memory": memory,
        "energy": {
            "joules_per_query": None if joules is None else joules / asked,
            "source": energy.get("source"),
        },
        "hardware": hardware(device),
        "warm_up": min(WARM_UP, len(lists)),
        "repetitions": repetitions,
        "precision": trainer.precision,
        "max_tokens": max_tokens,
    }


def _texts(
    candidates: pd.DataFrame, collection: Any, queries: int
) -> dict[str, list[tuple[str, str]]]:
    chosen = list(dict.fromkeys(candidates.query_id))[:queries]
    some = candidates[candidates.query_id.isin(chosen)]
    return {
        str(query_id): [(collection.queries[query_id], collection.passages[d]) for d in rows.doc_id]
        for query_id, rows in some.groupby("query_id", sort=False)
    }


def _summary(seconds: Mapping[str, Sequence[float]], pairs: Mapping[str, int]) -> dict[str, Any]:
    median = np.array([np.median(seconds[q]) for q in seconds])
    return {
        "latency": {
            "p50": float(np.quantile(median, 0.5)),
            "p95": float(np.quantile(median, 0.95)),
            "mean": float(median.mean()),
        },
        "pairs_per_second": sum(pairs.values()) / float(median.sum()),
    }


def ratio(
    a: Mapping[str, Sequence[float]],
    b: Mapping[str, Sequence[float]],
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """How many times the mean seconds per query of `b` those of `a` are, with an interval.

    Percentile bootstrap over the queries that both have (queries are drawn in pairs), of the
    medians over repetitions. Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13.

    Returns
    -------
    ratio, low, high
        Of `a` to `b`; below 1, `a` is faster. The interval is of width 0 for one query.

    Raises
    ------
    ValueError
        If they have no query in common.
    """
    common = [q for q in a if q in b]
    if not common:
        raise ValueError("no query was timed in both")
    first = np.array([np.median(a[q]) for q in common])
    second = np.array([np.median(b[q]) for q in common])
    drawn = np.random.default_rng(seed).integers(0, len(common), (draws, len(common)))
    ratios = first[drawn].sum(axis=1) / second[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(first.sum() / second.sum()), float(low), float(high)


def hardware(device: torch.device) -> dict[str, Any]:
    """What the work ran on: device, processor, cores that may be used, threads of torch."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "cpu": _cpu(),
        "cores": len(psutil.Process().cpu_affinity()) if platform.system() == "Linux" else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1) if found else platform.machine()


@contextmanager
def _peak(device: torch.device) -> Iterator[dict[str, int | None]]:
    """Fills in the peaks of what happens inside; Linux can begin a process's peak anew."""
    peak: dict[str, int | None] = {"rss": None, "cuda": None}
    reset = True
    try:
        if sys.platform == "linux":
            _give_back()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        reset = False
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield peak
    if reset:
        status = Path("/proc/self/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, flags=re.MULTILINE)
        peak["rss"] = int(found.group(1)) * 1024 if found else None
    if device.type == "cuda":
        peak["cuda"] = int(torch.cuda.max_memory_allocated(device))


def _give_back() -> None:
    """Return freed memory to the system, so that what ran before in this process does not count."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc
        libc.malloc_trim(0)


@contextmanager
def _energy(device: torch.device) -> Iterator[dict[str, Any]]:
    """Fills in the joules that the whole machine's counters saw: NVML's, else RAPL's, else none."""
    found: dict[str, Any] = {}
    read = _gpu_counter(device) if device.type == "cuda" else None
    source = "NVML" if read else "RAPL"
    read = read or (lambda: rapl(POWERCAP))
    before = read()
    yield found
    after = read()
    used = [
        (end - start) % limit if limit else end - start
        for (start, limit), (end, _) in zip(before, after, strict=True)
    ]
    if used:
        found.update(joules=sum(used) / 1e6, source=source)


def rapl(folder: Path) -> list[tuple[int, int]]:
    """Microjoules of every processor package and where its counter wraps; [] if unreadable."""
    try:
        return [
            (
                int((package / "energy_uj").read_text()),
                int((package / "max_energy_range_uj").read_text()),
            )
            for package in sorted(folder.glob("intel-rapl:[0-9]*"))
            if package.name.count(":") == 1
        ]
    except (OSError, ValueError):
        return []


def _gpu_counter(device: torch.device) -> Any:
    """A function that reads a GPU's counter in microjoules; None if NVML or it is not there."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        # By UUID: CUDA_VISIBLE_DEVICES changes torch's numbers, not NVML's.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no library, no driver, no counter: all the same here
        return None
    return lambda: [(1000 * nvml.nvmlDeviceGetTotalEnergyConsumption(handle), 0)]
