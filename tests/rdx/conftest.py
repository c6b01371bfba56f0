"""A tiny world in which a full cell takes a second: 30 passages, 24 queries, a random BERT."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOPICS = ("river", "engine", "garden", "planet", "violin", "market")
WORDS = (
    "amber basil cedar delta ember fjord grove heron inlet jetty kelp lotus maple north onyx "
    "pearl quartz reed slate thyme umber vapor wharf xenon yarrow zinc acorn brook cliff dune"
).split()


@dataclass(frozen=True)
class World:
    """Folder of the files, and the command line that runs a cell on them."""

    folder: Path

    def overrides(self, store: Path, *more: str) -> list[str]:
        """A full cell: prefinetuned, distilled from the oracle, interpolated, evaluated."""
        data = {name: self.folder / name for name in ("corpus.tsv", "queries.tsv", "qrels.txt")}
        settings = ("queries=8", "depth=8", "negatives=3", "batch=2")
        stage_1 = [f"prefinetune.{setting}" for setting in settings]
        files = [f"{path.stem}={path}" for path in data.values()]
        return [
            "data=files",
            *(f"data.{file}" for file in files),
            "data.dev=0.3",
            "evaluation=files",
            *(f"evaluation.collections.files.data.{file}" for file in files),
            "sampler@evaluation.collections.files.first_stage=bm25",
            "evaluation.k=8",
            "evaluation.interpolate=true",
            "evaluation.dev_queries=4",
            "student=hf",
            f"student.model={self.folder / 'bert'}",
            "student.head=interaction",
            "student.query_length=8",
            "student.passage_length=16",
            "teacher=oracle",
            "depth.queries=8",
            "depth.k=5",
            *(() if "prefinetune=none" in more else stage_1),
            "trainer.batch=2",
            "trainer.learning_rate=0.001",
            "trainer.precision=fp32",
            "trainer.device=cpu",
            "budget.epochs=1",
            "tracking=none",
            f"store={store}",
            *more,
        ]

    def recorded(self, store: Path, *more: str) -> list[str]:
        """The same cell with a record in MLflow."""
        overrides = [o for o in self.overrides(store) if o != "tracking=none"]
        return [*overrides, "tracking=mlflow", "tracking.system_metrics=false", *more]

    def run(self, store: Path, *more: str):
        """Run one cell in this process."""
        from rdx import config, pipeline, stages

        [cell] = stages.cells(self.overrides(store, *more))
        config.check(cell)
        return pipeline.run(cell)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    import torch

    from tests.rdx import tiny

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    topic = [TOPICS[i // 5] for i in range(30)]
    # a passage shares one word with each neighbour, so that BM25 cannot tell them apart
    passages = [f"{topic[i]} {WORDS[i]} {WORDS[i - 1]} {topic[i - 9]}" for i in range(30)]
    asked = [i for i in range(30) if i % 5 != 4]
    (folder / "corpus.tsv").write_text("".join(f"d{i}\t{t}\n" for i, t in enumerate(passages)))
    (folder / "queries.tsv").write_text("".join(f"q{i}\t{topic[i]} {WORDS[i]}\n" for i in asked))
    qrels = [f"q{i} 0 d{i} 2\nq{i} 0 d{(i + 7) % 30} 1\nq{i} 0 d{i + 1} 0\n" for i in asked]
    (folder / "qrels.txt").write_text("".join(qrels))
    tiny.bert(folder / "bert", [*TOPICS, *WORDS])
    return World(folder)


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """A finished cell without a stage 1; tests only read its store."""
    store = tmp_path_factory.mktemp("finished") / "store"
    world.run(store, "prefinetune=none")
    from rdx import stages

    [cell] = stages.cells(world.overrides(store, "prefinetune=none"))
    return cell


def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """A small disk in memory at a folder; False where this user may not mount one."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    there = shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield bool(there)
    finally:
        if there:
            subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def train(tmp_path):
    """Train a fresh toy student; gives (student, facts)."""
    from trainer_toys import trained

    return partial(trained, tmp_path)


@pytest.fixture(scope="session")
def rdx():
    """Run `python -m rdx ...` in a folder, to an exit status; `popen` does not wait for its end."""

    def start(arguments, cwd, module=("-m", "rdx"), popen=False, status=None):
        command = [sys.executable, *module, *map(str, arguments)]
        single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        settings = {"cwd": cwd, "env": os.environ | single, "text": True}
        if popen:
            nowhere = subprocess.DEVNULL
            return subprocess.Popen(command, stdout=nowhere, stderr=nowhere, **settings)
        done = subprocess.run(command, capture_output=True, timeout=300, **settings)
        assert status in (None, done.returncode), done.stdout + done.stderr
        return done

    return start
