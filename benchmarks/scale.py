"""The paper's size, from the download to the first steps of both stages: time and memory by part.

``python -m benchmarks.scale`` builds a stand-in of MS MARCO in ir_datasets' layout and of the
released rankings, serves them on loopback, and prints a Markdown table; each part runs in a process
of its own. The defaults need 12 GB of disk in ``--folder``; they go at the end.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

ROOT = Path(__file__).parents[1]
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]
STEPS = 3  # optimiser steps after which a training is left
GB = 1e9


@dataclass(frozen=True)
class Sizes:
    """How large the stand-in is: `queries` have a first stage of `depth`, `ranked` a teacher."""

    passages: int = 300_000
    queries: int = 320_000
    ranked: int = 10_000
    depth: int = 200


@dataclass(frozen=True)
class Part:
    """What a part took: seconds, those of all its processors, and memory beyond the imports (GB).

    `first_step` is the time from the start of the process to the end of the first optimiser step.
    """

    name: str
    seconds: float
    cpu: float
    memory: float
    first_step: float | None = None


def write(folder: Path, sizes: Sizes) -> None:
    """The downloads of ir_datasets, the released rankings, a test set, a student of one layer."""
    from tests.rdx import tiny

    shelf = folder / "shelf"
    shelf.mkdir(parents=True)
    draw = np.random.default_rng(0)
    words = np.array(WORDS)
    with (folder / "collection.tsv").open("w") as file:
        for i in range(sizes.passages):
            text = " ".join(words[draw.integers(0, len(words), draw.integers(55, 71))])
            file.write(f"{i}\t{text}\n")
    texts = draw.integers(0, len(words), (sizes.queries, 6))
    with (folder / "queries.tsv").open("w") as file:
        file.writelines(f"{i}\t{' '.join(words[row])}\n" for i, row in enumerate(texts))
    (folder / "few.tsv").write_text("0\tdev query\n")
    _pack(
        shelf / "collectionandqueries.tar.gz",
        {"collection.tsv": folder / "collection.tsv", "queries.dev.small.tsv": folder / "few.tsv"},
    )
    _pack(
        shelf / "queries.tar.gz",
        {"queries.train.tsv": folder / "queries.tsv", "queries.dev.tsv": folder / "few.tsv"},
    )
    (folder / "collection.tsv").unlink()
    with (shelf / "qrels.train.tsv").open("w") as file:  # of every other query, in the ranking
        file.writelines(
            f"{i}\t0\t{_ranked(np.array([i]), 3 if i % 2 else sizes.depth, sizes)[0]}\t1\n"
            for i in range(sizes.queries)
        )
    first, teacher = _released()
    _run(shelf / first, np.arange(sizes.queries), sizes)
    chosen = np.sort(draw.permutation(sizes.queries)[: sizes.ranked])
    _run(shelf / teacher, chosen, sizes, draw)
    for name, line in (("corpus", "t0\t{}"), ("queries", "q0\t{}"), ("qrels", "q0 0 t0 1")):
        end = "txt" if name == "qrels" else "tsv"
        (folder / f"test_{name}.{end}").write_text(line.format(" ".join(WORDS[:6])) + "\n")
    tiny.bert(folder / "student", WORDS, max_position_embeddings=512)


def _released() -> tuple[str, str]:
    """Names of the rankings of first stage and teacher."""
    from rdx.data import rank_distillm

    end = rank_distillm.END
    return f"__colbert{end}.run", f"{rank_distillm._ranked('colbert', 100)}.run"


def _ranked(queries: np.ndarray, places: int | np.ndarray, sizes: Sizes) -> np.ndarray:
    """The passage at a place of a query's ranking; no two places have one."""
    return (queries * 7919 + places * 1499) % sizes.passages


def _run(
    path: Path, queries: np.ndarray, sizes: Sizes, draw: np.random.Generator | None = None
) -> None:
    """A TREC run, block by block; with `draw`, the first 100 of each in an order of its own."""
    depth = sizes.depth if draw is None else min(100, sizes.depth)
    options = csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    with path.open("wb") as file:
        for start in range(0, len(queries), 20_000):
            block = queries[start : start + 20_000]
            places = np.tile(np.arange(depth), (len(block), 1))
            if draw is not None:
                places = draw.permuted(places, axis=1)
            columns = {
                "query": np.repeat(block, depth),
                "Q0": pa.array(["Q0"] * (len(block) * depth)),
                "doc": _ranked(block[:, None], places, sizes).ravel(),
                "rank": np.tile(np.arange(1, depth + 1), len(block)),
                "score": np.tile(np.arange(depth, 0, -1), len(block)),
                "tag": pa.array(["x"] * (len(block) * depth)),
            }
            csv.write_csv(pa.table(columns), file, options)


def _pack(path: Path, members: dict[str, Path]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as out:
        for name, file in members.items():
            out.add(file, name)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def overrides(folder: Path, sizes: Sizes) -> list[str]:
    """The recipe on the stand-in: the student, the tests and the sizes are its own."""
    data = "evaluation.collections.files.data"
    student = ["student=hf", f"student.model={folder / 'student'}", "student.head=linear"]
    return [
        "+recipe=paper_v4",
        *student,
        "evaluation=files",
        *(f"{data}.{name}={folder / f'test_{name}.tsv'}" for name in ("corpus", "queries")),
        f"{data}.qrels={folder / 'test_qrels.txt'}",
        "sampler@evaluation.collections.files.first_stage=bm25",
        f"prefinetune.queries={sizes.queries}",
        f"prefinetune.depth={sizes.depth}",
        f"depth.queries={sizes.ranked}",
        f"depth.k={min(100, sizes.depth)}",
        f"depth.pool={min(100, sizes.depth)}",
        "trainer.precision=fp32",
        "trainer.device=cpu",
        "tracking=none",
        f"store={folder / 'store'}",
    ]


# --- in the process of a part ---


class _Reached(Exception):
    """So many steps were made."""


def fetch(folder: Path, address: str, sizes: Sizes) -> None:
    """``python -m rdx data fetch`` of the recipe, from the stand-in."""
    from rdx.data import rank_distillm
    from rdx.data.rank_distillm import Released
    from rdx.fetching import data
    from tests.rdx import small_msmarco

    small_msmarco.tell(folder / "shelf", address, sizes.passages, sizes.queries)
    for name, queries, depth in zip(
        _released(),
        (sizes.queries, sizes.ranked),
        (sizes.depth, min(100, sizes.depth)),
        strict=True,
    ):
        with (folder / "shelf" / name).open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        size = (folder / "shelf" / name).stat().st_size
        rank_distillm.RELEASED[name] = Released(
            f"{address}/{name}", (md5,), size, (queries, queries), depth
        )
    data(["fetch", *overrides(folder, sizes), "--accept-licence"])


def make(folder: Path, stage: str, role: str, sizes: Sizes, started: float) -> dict[str, float]:
    """A stage of the cell, or the first steps of a training; gives memory and time of the step.

    Stage 2 is that of a cell without stage 1, which would take all of its 20,000 steps.
    """
    from rdx import pipeline, stages
    from rdx.job import Job

    with_stage_1 = stage == "prefinetune" or role == "stage 1"
    given = overrides(folder, sizes)
    if not with_stage_1:
        given = [o for o in given if not o.startswith("prefinetune.")] + ["prefinetune=none"]
    [cell] = stages.cells(given)
    job, found = Job.of(cell), {}
    if stage in ("prefinetune", "distill"):
        job.parts.student.create(0)  # and the libraries: memory is counted beyond these
    began = _private()
    peak = [began]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()

    def on_step(steps: int, curve: str = "") -> Callable[[int, Any], None]:
        def count(step: int, metrics: Any) -> None:
            found.setdefault("first_step", time.time() - started)
            if step + 1 >= STEPS:
                raise _Reached

        return count

    job.on_step = on_step  # type: ignore[assignment,method-assign]
    try:
        pipeline.obtain(job, stages.STAGES[stage], role)
    except _Reached:
        pass
    return found | {"memory": (max(peak[0], _private()) - began) / GB}


def _private() -> float:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def _watch(peak: list[float]) -> None:
    while True:
        peak[0] = max(peak[0], _private())
        time.sleep(0.02)


# --- around the parts ---

PARTS = (
    ("collection", "training"),
    ("tokens", "training"),
    ("index", "stage 1"),
    ("index", "training"),
    ("candidates", ""),
    ("teach", ""),
    ("select", ""),
    ("prefinetune", ""),
    ("prefinetune again", ""),
    ("distill", ""),
    ("distill again", ""),
)


def measured(folder: Path, sizes: Sizes) -> list[Part]:
    """Build the stand-in, and take the recipe from the download to the first steps."""
    write(folder, sizes)
    parts = []
    with served(folder / "shelf") as address:
        parts.append(_part(folder, sizes, "fetch", f"fetch(place, {address!r}, sizes) or {{}}"))
    for stage, role in PARTS:
        name = f"{stage} {role}".rstrip()
        kind = stage.removesuffix(" again")
        parts.append(
            _part(folder, sizes, name, f"make(place, {kind!r}, {role!r}, sizes, {time.time()})")
        )
    return parts


def _part(folder: Path, sizes: Sizes, name: str, call: str) -> Part:
    code = (
        "import json; from pathlib import Path; from benchmarks.scale import *; "
        f"place, sizes = Path({str(folder)!r}), Sizes(**{asdict(sizes)}); "
        f"print('\\n' + json.dumps({call}))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "IR_DATASETS_HOME": str(folder / "home"),
        "RDX_PAPER_FILES": str(folder / "released"),
    }
    start = time.time()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError("\n".join([f"{name}: status {status}", *lines[-20:]]))
    told = json.loads(lines[-1])
    cpu, all_memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / GB
    memory, first_step = told.get("memory", all_memory), told.get("first_step")
    part = Part(name, time.time() - start, cpu, memory, first_step)
    print(part, file=sys.stderr, flush=True)
    return part


def table(parts: Sequence[Part]) -> list[str]:
    """The parts as Markdown."""
    lines = ["| part | s | CPU s | GB beyond the libraries | first step after (s) |"]
    lines.append("|---|--:|--:|--:|--:|")
    for part in parts:
        step = "" if part.first_step is None else f"{part.first_step:.0f}"
        lines.append(
            f"| {part.name} | {part.seconds:.0f} | {part.cpu:.0f} | {part.memory:.2f} | {step} |"
        )
    return lines


def main() -> None:
    """Print the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, help="where the stand-in is built; default: /tmp")
    given = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(dir=given.pop("folder")) as folder:
        print("\n".join(table(measured(Path(folder), Sizes(**given)))))


if __name__ == "__main__":
    main()
