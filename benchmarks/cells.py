"""What a cell of a grid costs beyond its own training, and what the shared store saves.

``python -m benchmarks.cells`` prints Markdown tables; ``--only start`` one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before benchmarks.grid, whose default is 1

from benchmarks.grid import process, seconds  # noqa: E402

SMALL = ["depth.pool=20", "depth.queries=16", "prefinetune.queries=32", "evaluation.k=5"]
ONE_LAYER = ["student.layers=1"]  # so that 24 cells take minutes
LOSSES = "ranknet,adr_mse,lce,listnet,list_mle,lambda_rank,lambda_loss,approx_ndcg"
OWN = ("training", "re-ranking")  # what a cell is run for; the rest is its fixed cost
COMPOSING = "import hydra, ir_measures, pandas, pyarrow"  # libraries that every cell takes
LIBRARIES = (
    "import hydra, ir_measures, pandas, torch; from transformers import PreTrainedModel; "
    "import mlflow.store.tracking.sqlalchemy_store"
)
# What `python -m rdx` does until the first optimiser step of stage 2 is made.
FIRST_STEP = """
import os, runpy, sys

from rdx.job import Job

Job._stepped = lambda *_: os._exit(0)
sys.argv[0] = "rdx"
runpy.run_module("rdx", run_name="__main__")
"""


class Clock:
    """Seconds of this process by part; what a part calls of another counts there alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts = ["program"]
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`."""
        self._turn()
        self._parts.append(name)
        try:
            yield
        finally:
            self._turn()
            self._parts.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    def of(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, counted as `name`."""

        @wraps(function)
        def counted(*given: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*given, **named)

        return counted

    def taken(self) -> dict[str, float]:
        """What was counted since the last call."""
        self._turn()
        found, self.seconds = dict(self.seconds), defaultdict(float)
        return found


def clocked(out: str, started: str, arguments: Sequence[str]) -> None:
    """Run ``python -m rdx`` here and write what each cell took, by part, as JSON.

    `started` is when this process was started, in seconds since the epoch.
    """
    from rdx import __main__, pipeline, trainer
    from rdx import evaluation as ev
    from rdx.job import Job
    from rdx.stages import labelling, retrieval
    from rdx.store import Store
    from rdx.students import CrossEncoder, Student
    from rdx.tracking import MLflow

    begun = time.time() - float(started)
    clock, cells = Clock(), []
    for place, name, part in (
        (trainer, "fit", "training"),
        (ev, "rerank", "re-ranking"),
        (ev, "measure", "measures"),
        (ev, "best_weight", "measures"),
        (__main__, "signed", "configuration"),
        (retrieval, "lay_out", "collections and rankings"),
        (retrieval, "index", "collections and rankings"),
        (retrieval, "retrieve", "collections and rankings"),
        (retrieval, "rank_candidates", "collections and rankings"),
        (Job, "split", "collections and rankings"),
        (labelling, "teach", "collections and rankings"),
        (Student, "create", "the student's files"),
        (Student, "load", "the student's files"),
        (CrossEncoder, "save", "the student's files"),
        (Store, "find", "store"),
        (Store, "recheck", "store"),
    ):
        setattr(place, name, clock.of(getattr(place, name), part))
    run, trial = pipeline.run, MLflow.trial

    @contextlib.contextmanager
    def recorded(*given: Any, **named: Any) -> Iterator[Any]:
        context = trial(*given, **named)
        with clock.part("tracking"):
            record = context.__enter__()
        for name in ("log_step", "log_result", "set_health", "set_tag"):
            setattr(record, name, clock.of(getattr(record, name), "tracking"))
        yield record
        with clock.part("tracking"):
            context.__exit__(None, None, None)

    def counted(*given: Any, **named: Any) -> Any:
        between = clock.taken()["program"]
        with clock.part("the rest of the pipeline"):
            summary = run(*given, **named)
        cells.append({"Hydra, composing, imports": between, **clock.taken()})
        return summary

    MLflow.trial, pipeline.run = recorded, counted  # type: ignore[method-assign,assignment]
    sys.argv = ["rdx", *arguments]
    __main__.main()
    cells[0]["Hydra, composing, imports"] += begun
    cells[0]["the end of the grid"] = clock.taken()["program"]
    Path(out).write_text(json.dumps({"cells": cells, "ended": time.time()}))


def fixed(repeat: int) -> list[str]:
    """The parts of a cell whose shared stages are done: the first of a process and later ones."""
    code = "import sys; from benchmarks.cells import clocked; clocked(*sys.argv[1:3], sys.argv[3:])"
    first, later, libraries = [], [], []
    with tempfile.TemporaryDirectory() as place:
        _rdx(place, "seed=1", f"store={place}/store")  # the shared stages
        for turn in range(repeat):
            out = Path(place, "parts.json")
            seeds = ",".join(str(10 * (turn + 1) + i) for i in range(4))
            arguments = ["-m", f"seed={seeds}", f"store={place}/store", *SMALL]
            process(["-c", code, str(out), str(time.time()), *arguments], Path(place))
            found = json.loads(out.read_text())
            found["cells"][0]["the end of the grid"] += time.time() - found["ended"]
            first.append(found["cells"][0])
            later += found["cells"][1:]
            start = time.perf_counter()
            process(["-c", LIBRARIES], Path(place))
            libraries.append(time.perf_counter() - start)
    names = sorted({n for one in first + later for n in one}, key=lambda n: -_middle(later, n))
    rows = [(name, _middle(first, name), _middle(later, name)) for name in names]
    beside = [row for row in rows if row[0] not in OWN]
    rows = [*beside, ("**fixed cost**", *(sum(r[i] for r in beside) for i in (1, 2)))] + [
        row for row in rows if row[0] in OWN
    ]
    lines = ["| seconds, median | first cell of a process | later cells |", "|---|--:|--:|"]
    lines += [f"| {name} | {a:.2f} | {b:.2f} |" for name, a, b in rows]
    alone = statistics.median(libraries)
    return [*lines, "", f"A process that only imports the libraries: {alone:.1f} s."]


def start(repeat: int) -> list[str]:
    """A stored cell, and the first step of one whose shared stages are stored, beside the floors.

    Processes of the four kinds run in turn, so that a machine that others use, too, is as slow for
    each of them.
    """
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        cell = ["seed=1", f"store={place}/store"]
        _rdx(place, *cell)
        for turn in range(repeat):
            new = [f"seed={turn + 2}", f"store={place}/store", *SMALL]
            kinds = {
                "floor of a stored cell": ["-c", COMPOSING],
                "a stored cell": ["-m", "rdx", *cell, *SMALL],
                "floor of a new cell": ["-c", LIBRARIES],
                "the first step of a new cell": ["-c", FIRST_STEP, *new],
            }
            for name, arguments in kinds.items():
                began = time.perf_counter()
                process(arguments, Path(place))
                taken[name].append(time.perf_counter() - began)
    middle = {name: statistics.median(seconds) for name, seconds in taken.items()}
    lines = ["| until | seconds, median | libraries alone | distance |", "|---|--:|--:|--:|"]
    for name, floor in (
        ("a stored cell", "floor of a stored cell"),
        ("the first step of a new cell", "floor of a new cell"),
    ):
        distance = middle[name] - middle[floor]
        lines.append(f"| {name} | {middle[name]:.1f} | {middle[floor]:.1f} | {distance:.1f} |")
    return lines


def sharing(repeat: int) -> list[str]:
    """A grid of 24 cells over one teacher ranking, and single runs with a store of their own."""
    with tempfile.TemporaryDirectory() as place:
        seeds = "seed=1,2,3"
        grid = _rdx(place, "-m", f"loss={LOSSES}", seeds, f"store={place}/one", *ONE_LAYER)
        losses = LOSSES.split(",")
        chosen = [(losses[i * 8 // repeat], 1 + i % 3) for i in range(repeat)]
        alone = [
            _rdx(place, f"loss={loss}", f"seed={seed}", f"store={place}/{loss}{seed}", *ONE_LAYER)
            for loss, seed in chosen
        ]
    total = 24 * statistics.mean(alone)
    each = f"{statistics.mean(alone):.0f} s each ({min(alone):.0f}–{max(alone):.0f})"
    return [
        "| 24 cells: 8 losses, 3 seeds, a student of one layer | seconds | |",
        "|---|--:|---|",
        f"| one grid | {grid:.0f} | {grid / 24:.0f} s a cell |",
        f"| 24 runs without a common store | {total:.0f} | from {len(alone)} of them, {each} |",
        f"| ratio | {total / grid:.1f} | |",
    ]


def _rdx(folder: str, *arguments: str) -> float:
    [(wall, _)] = seconds([*arguments, *SMALL], Path(folder), 1)
    return wall


def _middle(cells: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median(one.get(name, 0.0) for one in cells)


TABLES: dict[str, Callable[[int], list[str]]] = {
    "start": start,
    "fixed": fixed,
    "sharing": sharing,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cells", description=__doc__)
    parser.add_argument("--only", choices=tuple(TABLES), help="one table")
    parser.add_argument(
        "--repeat", type=int, default=3, help="processes of four cells; single runs of the 24"
    )
    given = parser.parse_args()
    for name, table in TABLES.items():
        if given.only in (None, name):
            print("\n".join([f"## {name}", "", *table(given.repeat), ""]), flush=True)


if __name__ == "__main__":
    main()
