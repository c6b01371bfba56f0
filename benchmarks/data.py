"""Reading runs, serving stored rankings, and retrieval: this project's ways beside others'.

    python -m benchmarks.data [--only reading|serving|retrieval] [--rows 5000000] [--folder .]

Prints Markdown tables. Every reader runs in a process of its own, one after the other, so that its
peak memory is its own; "memory" is the peak beyond what its imports took. Each file is read three
times in the process and the best time counts: the first brings the file into the page cache.
``--only retrieval`` prints the tables of `benchmarks.retrieval`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import retrieval as first_stages

# What each reader is called in the table.
READERS = {
    "stream": "rdx `stream_trec`",
    "read": "rdx `read_trec`",
    "pandas": r'pandas `read_csv(sep=r"\s+")`, C engine',
    "pandas-text": "the same with `dtype=str` for both ids, so that `007` stays what it is",
    "arrow": "pyarrow `read_csv`, ids and scores, nothing checked or put in order",
    "ir_measures": "ir_measures `read_trec_run`, iterated",
}
DEPTH = 100


def write_run(path: Path, rows: int) -> None:
    """A run like BM25's over MS MARCO: lists of 100, scores falling, a few of them tied."""
    generator = np.random.default_rng(0)
    file = gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else path.open("w")
    places = range(1, DEPTH + 1)
    with file:
        for query in range(rows // DEPTH):
            docs = generator.choice(8_841_823, DEPTH, replace=False).tolist()
            scores = np.sort(generator.gamma(4, 3, DEPTH).round(4))[::-1].tolist()
            file.writelines(
                f"{1_000_000 + 7 * query} Q0 {doc} {place} {score:.4f} bm25\n"
                for doc, place, score in zip(docs, places, scores, strict=True)
            )


def reader(name: str) -> Callable[[str], int]:
    """A function that reads a file and returns the number of its rows."""
    if name == "pandas":
        import pandas as pd

        return lambda path: len(pd.read_csv(path, sep=r"\s+", header=None))
    if name == "pandas-text":
        import pandas as pd

        text = {0: str, 2: str}
        return lambda path: len(pd.read_csv(path, sep=r"\s+", header=None, dtype=text))
    if name == "arrow":
        return _arrow
    if name == "ir_measures":
        import ir_measures

        return lambda path: sum(1 for _ in ir_measures.read_trec_run(path))
    from rdx import rankings

    if name == "read":
        return lambda path: len(rankings.read_trec(path))
    return lambda path: sum(len(block) for block in rankings.stream_trec(path))


def _arrow(path: str) -> int:
    import pyarrow as pa
    from pyarrow import csv

    kinds = {"query_id": pa.string(), "doc_id": pa.string(), "score": pa.float32()}
    table = csv.read_csv(
        path,
        csv.ReadOptions(column_names=["query_id", "q0", "doc_id", "rank", "score", "tag"]),
        csv.ParseOptions(delimiter=" ", quote_char=False),
        csv.ConvertOptions(column_types=kinds, include_columns=list(kinds)),
    )
    return int(table.num_rows)


def measure_reading(name: str, path: str) -> dict[str, float]:
    """Seconds of the best of three passes, rows, and the memory they took (MB)."""
    read = reader(name)
    before = _peak()
    seconds = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        rows = read(path)
        seconds = min(seconds, time.perf_counter() - start)
    return {"seconds": seconds, "rows": rows, "memory": _peak() - before}


def measure_serving(path: str) -> dict[str, float]:
    """Start-up and lists per second of a stored ranking; its lists shuffled."""
    from rdx.rankings import StoredRanking

    before = _peak()
    start = time.perf_counter()
    stored = StoredRanking(path)
    found = {"open": time.perf_counter() - start}
    queries = np.random.default_rng(0).permutation(stored.queries).tolist()
    start = time.perf_counter()
    for at in range(0, len(queries), 32):
        stored.of(queries[at : at + 32])
    found["batches"] = len(queries) / (time.perf_counter() - start)
    memory = _peak() - before
    return {**found, "start": measure_start(path), "lists": len(stored), "memory": memory}


def measure_start(path: str) -> float:
    """Seconds from a stored ranking, its own first stage, to the training lists of an epoch."""
    from rdx import lists, rankings

    candidates = rankings.read_parquet(path).rename(columns={"teacher_rank": "rank"})
    start = time.perf_counter()
    taught = rankings.read_parquet(path)
    selected = lists.Depth(DEPTH).select(candidates[list(rankings.COLUMNS)], taught)
    found = lists.fixed(selected)(0)
    np.random.default_rng(0).permutation(len(found))
    return time.perf_counter() - start


def reading(args: argparse.Namespace) -> list[str]:
    """The table of readers, at a fifth of the rows and at all of them."""
    lines = [
        "| reader | file | rows | rows/s | memory (MB) | rdx `stream_trec` is faster by |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for rows, ending in ((args.rows // 5, ".run"), (args.rows, ".run"), (args.rows, ".run.gz")):
        path = Path(args.folder) / f"{rows}{ending}"
        if not path.exists():
            write_run(path, rows)
        speeds: dict[str, float] = {}
        for name, label in READERS.items():
            if ending.endswith("gz") and name == "ir_measures":
                continue  # it would read the packed bytes as lines
            got = _in_process("reading", name, str(path))
            speeds[name] = got["rows"] / got["seconds"]
            ratio = "" if name == "stream" else f"{speeds['stream'] / speeds[name]:.1f} ×"
            lines.append(
                f"| {label} | {ending} | {got['rows']:,.0f} | {speeds[name]:,.0f} | "
                f"{got['memory']:,.0f} | {ratio} |"
            )
    return lines


def serving(args: argparse.Namespace) -> list[str]:
    """The table of a stored teacher ranking of 10,000 lists of 100."""
    import pandas as pd

    from rdx.rankings import store_ranking, stream_trec

    run = Path(args.folder) / "teacher.run"
    path = run.with_suffix(".parquet")
    write_run(run, 10_000 * DEPTH)

    def taught(block: pd.DataFrame) -> pd.DataFrame:
        return block.rename(columns={"rank": "teacher_rank"}).assign(
            state=pd.Series("ok", block.index, dtype="str")
        )

    start = time.perf_counter()
    store_ranking(map(taught, stream_trec(run)), path)
    took = time.perf_counter() - start
    got = _in_process("serving", str(path))
    return [
        f"| what: {got['lists']:,.0f} lists of {DEPTH}, "
        f"{path.stat().st_size / 1e6:.1f} MB stored | |",
        "|---|--:|",
        f"| run to stored ranking, in one stream (s) | {took:.2f} |",
        f"| opening (s) | {got['open']:.3f} |",
        f"| shuffled, 32 lists a data frame (lists/s) | {got['batches']:,.0f} |",
        f"| read whole, joined with candidates, training lists of an epoch (s) | "
        f"{got['start']:.2f} |",
        f"| memory (MB) | {got['memory']:,.0f} |",
    ]


def retrieval(args: argparse.Namespace) -> list[str]:
    """The tables of `benchmarks.retrieval`."""
    return first_stages.tables(args)


PARTS = {"reading": reading, "serving": serving, "retrieval": retrieval}


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--only", choices=PARTS)
    arguments.add_argument("--rows", type=int, default=5_000_000, help="of the run that is read")
    arguments.add_argument("--folder", help="for the files; kept there, and not written again")
    arguments.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    first_stages.options(arguments)
    args = arguments.parse_args()
    if args.measure:
        what, *rest = args.measure
        found = measure_reading(*rest) if what == "reading" else measure_serving(*rest)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.folder = args.folder or folder
        for name, part in PARTS.items():
            if args.only in (None, name):
                print(f"{name}\n", *part(args), "", sep="\n", flush=True)


def _in_process(*what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data", "--measure", *what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _peak() -> float:
    # not ru_maxrss, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
