"""What re-ranking one query costs: time, memory, energy; and how systems compare."""

from __future__ import annotations

import importlib
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil

from rdx import heap, late
from rdx.collection import Collection
from rdx.devices import processor
from rdx.evaluation.reranking import Runtime
from rdx.facts import Energy, Hardware, Latency, Peak, QueryTiming

if TYPE_CHECKING:
    import torch

    from rdx import batches
    from rdx.students import CrossEncoder
else:
    torch, batches = late.module("torch"), late.module("rdx.batches")

POWERCAP = Path("/sys/class/powercap")
WARM_UP = 3  # queries scored before anything is timed; all are, where there are fewer


def timed(
    student: CrossEncoder,
    candidates: pd.DataFrame,
    collection: Collection,
    runtime: Runtime,
    max_tokens: int,
    repetitions: int,
    queries: int,
) -> QueryTiming:
    """Time the re-ranking of single queries, tokenisation included, reading of texts not.

    One query at a time, as a service that answers would; `rerank` mixes the queries of a batch and
    is faster per pair.

    Parameters
    ----------
    student, candidates, collection, runtime, max_tokens
        As of `rdx.evaluation.rerank`.
    repetitions
        How often every query is timed, after `WARM_UP` queries that are not.
    queries
        The first so many queries of the candidates.
    """
    accelerator = runtime.accelerator()
    device = accelerator.device
    student = student.to(device).eval()
    lists = _texts(candidates, collection, queries)
    seconds: dict[str, list[float]] = {query_id: [] for query_id in lists}
    with torch.inference_mode(), accelerator.autocast():
        peak = watch_memory(device)
        for texts in list(lists.values())[:WARM_UP]:
            _score(student, texts, device, max_tokens)
        energy = watch_energy(device)
        for _ in range(repetitions):
            for query_id, texts in lists.items():
                start = time.perf_counter()
                _score(student, texts, device, max_tokens)
                seconds[query_id].append(time.perf_counter() - start)
        per_query, memory = energy(repetitions * len(lists)), peak()
    medians = np.array([np.median(times) for times in seconds.values()])
    return QueryTiming(
        seconds={query_id: tuple(times) for query_id, times in seconds.items()},
        pairs={query_id: len(passages) for query_id, (_, passages) in lists.items()},
        latency=Latency(
            p50=float(np.quantile(medians, 0.5)),
            p95=float(np.quantile(medians, 0.95)),
            mean=float(medians.mean()),
        ),
        pairs_per_second=sum(len(p) for _, p in lists.values()) / float(medians.sum()),
        peak_memory=memory,
        energy=per_query,
        hardware=hardware(device),
        warm_up=min(WARM_UP, len(lists)),
        repetitions=repetitions,
        precision=runtime.precision,
        max_tokens=max_tokens,
    )


def _texts(
    candidates: pd.DataFrame, collection: Collection, queries: int
) -> dict[str, tuple[str, dict[str, str]]]:
    """Query id -> its text and those of its passages."""
    chosen = list(dict.fromkeys(candidates.query_id))[:queries]
    rows = candidates[candidates.query_id.isin(chosen)]
    return {
        str(query_id): (
            collection.queries[query_id],
            {d: collection.passages[d] for d in own.doc_id},
        )
        for query_id, own in rows.groupby("query_id", sort=False)
    }


def _score(
    student: CrossEncoder, texts: tuple[str, dict[str, str]], device: torch.device, max_tokens: int
) -> None:
    """Score the passages of a query, from their texts on."""
    query, passages = texts
    tokens = student.pairs.tokens({"": query}, passages)
    rows = tokens.rows([""] * len(passages), list(passages))
    lists = rows.queries if student.scores_lists else None
    batches.scores(student, tokens, rows, device, max_tokens, lists=lists)


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


def hardware(device: torch.device) -> Hardware:
    """What the work ran on: device, processor, cores that may be used, threads of torch."""
    return Hardware(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        cpu=processor(),
        cores=len(psutil.Process().cpu_affinity()) if platform.system() == "Linux" else None,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def watch_memory(device: torch.device) -> Callable[[], Peak]:
    """Begin the peaks of memory anew; what is returned reads them.

    Linux alone can begin a process's peak anew; elsewhere there is none.
    """
    reset = True
    try:
        if sys.platform == "linux":
            heap.give_back()  # so that what ran before in this process does not count
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        reset = False
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def read() -> Peak:
        cuda = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        return Peak(rss=_peak_of_process() if reset else None, cuda=cuda)

    return read


def _peak_of_process() -> int | None:
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"^VmHWM:\s*(\d+) kB", status, flags=re.MULTILINE)
    return int(peak.group(1)) * 1024 if peak else None


Counter = Callable[[], list[tuple[int, int]]]  # microjoules, and where it wraps (0: never)


def watch_energy(device: torch.device) -> Callable[[int], Energy]:
    """Read the whole machine's counters: NVML's, else RAPL's, else none.

    What is returned reads them again, and divides by a number of queries.
    """
    gpu = _gpu_counter(device) if device.type == "cuda" else None
    counter: Counter = gpu or (lambda: rapl(POWERCAP))
    before = counter()

    def read(queries: int) -> Energy:
        used = [
            (end - start) % limit if limit else end - start
            for (start, limit), (end, _) in zip(before, counter(), strict=True)
        ]
        if not used:
            return Energy()
        source = "NVML" if gpu else "RAPL"
        return Energy(joules_per_query=sum(used) / 1e6 / queries, source=source)

    return read


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


def _gpu_counter(device: torch.device) -> Counter | None:
    """A GPU's counter; None if NVML or it is not there."""
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
