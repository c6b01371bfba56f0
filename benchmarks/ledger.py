"""The ledger of JSON lines against SQLite.

    python -m benchmarks.ledger [--rows 100000] [--folder .]

Appends answers of realistic size one by one, each of them on the disk before the next (fsync;
SQLite: WAL, synchronous=FULL, a commit each), then opens and reads them in fresh processes. Prints
a Markdown table. "Open" is until the first answer is found: the ledger indexes its files then.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from rdx.teachers.ledger import Entry, Ledger, parse

FORMS = ("ledger", "ledger, rows kept in memory", "SQLite, WAL")
LOOKED_UP = 10_000


def answers(count: int) -> Iterator[Entry]:
    """Entries as a listwise teacher writes them: about 700 bytes each."""
    draw = random.Random(0)
    for i in range(count):
        order = draw.sample(range(1, 21), 20)
        yield Entry(
            key=name(i),
            attempt=0,
            owner="0123456789abcdef",
            query_id=str(i // 9),
            size=20,
            identity={
                "prompt": {"version": "1", "sha256": "0123456789abcdef"},
                "model": "castorini/rank_zephyr_7b_v1_full",
                "revision": "0123456789abcdef0123456789abcdef01234567",
                "engine": "transformers 5.0.0",
                "temperature": 0.0,
                "max_output_tokens": 176,
            },
            answer=" > ".join(f"[{number}]" for number in order),
            finish="stop",
            input_tokens=draw.randrange(2000, 4000),
            output_tokens=110,
            latency=round(draw.random() * 5, 4),
            state="ok",
        )


def name(i: int) -> str:
    """Key of the i-th entry."""
    return hashlib.sha256(str(i).encode()).hexdigest()[:32]


def append(form: str, folder: Path, count: int) -> float:
    """Write all entries; return entries per second."""
    entries = list(answers(count))
    start = time.perf_counter()
    if form.startswith("ledger"):
        ledger = Ledger(folder)
        for entry in entries:
            ledger.add(entry)
        ledger.close()
    else:
        database = _connect(folder)
        database.execute("CREATE TABLE answers (key, attempt, row, PRIMARY KEY (key, attempt))")
        for entry in entries:
            with database:
                values = (entry.key, entry.attempt, json.dumps(entry.plain()))
                database.execute("INSERT INTO answers VALUES (?, ?, ?)", values)
        database.close()
    return count / (time.perf_counter() - start)


def read(form: str, folder: Path, count: int) -> dict[str, float]:
    """Open, look up and read all, in a process that did nothing else."""
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    start = time.perf_counter()
    find, every = _opened(form, folder)
    assert find(name(0)) is not None
    opened = time.perf_counter()
    memory = process.memory_info().rss - before
    draw = random.Random(1)
    for _ in range(LOOKED_UP):
        i = draw.randrange(count)
        entry = find(name(i))
        assert entry is not None and entry.query_id == str(i // 9)
    looked_up = time.perf_counter()
    assert sum(1 for _ in every()) == count
    return {
        "open": opened - start,
        "find": (looked_up - opened) / LOOKED_UP,
        "read": time.perf_counter() - looked_up,
        "memory": memory,
    }


def _opened(
    form: str, folder: Path
) -> tuple[Callable[[str], Entry | None], Callable[[], Iterator[Entry]]]:
    """How to find an entry by its key, and how to get all."""
    if form == "ledger":
        ledger = Ledger(folder)
        return (lambda key: ledger.find(key, 0)), ledger.answers
    if form.startswith("ledger"):
        entries = {(entry.key, entry.attempt): entry for entry in Ledger(folder).entries()}
        return (lambda key: entries.get((key, 0))), lambda: iter(entries.values())
    database = _connect(folder)
    one = "SELECT row FROM answers WHERE key = ? AND attempt = 0"
    every = "SELECT row FROM answers"
    return (
        lambda key: parse(database.execute(one, (key,)).fetchone()[0]),
        lambda: (parse(text) for (text,) in database.execute(every)),
    )


def _connect(folder: Path) -> sqlite3.Connection:
    folder.mkdir(exist_ok=True)
    database = sqlite3.connect(folder / "answers.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database


def main() -> None:
    """Measure every form, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", default=".", help="where to write: which disk")
    parser.add_argument("--read", nargs=2, metavar=("FORM", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        form, folder = arguments.read
        print(json.dumps(read(form, Path(folder), arguments.rows)))
        return
    print(f"{arguments.rows:,} answers\n")
    print("| form | append/s | open (s) | find (ms) | read all (s) | memory (MB) | on disk (MB) |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        speed = 0.0
        for form in FORMS:
            folder = Path(root) / form.partition(",")[0]
            if not folder.exists():
                speed = append(form, folder, arguments.rows)
            size = sum(path.stat().st_size for path in folder.iterdir())
            command = [sys.executable, "-m", "benchmarks.ledger", "--rows", str(arguments.rows)]
            done = subprocess.run(
                [*command, "--read", form, str(folder)], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            print(
                f"| {form} | {speed:,.0f} | {found['open']:.2f} | {found['find'] * 1000:.3f} "
                f"| {found['read']:.2f} | {found['memory'] / 1e6:.0f} | {size / 1e6:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
