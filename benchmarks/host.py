"""The data side alone, on one core: python -m benchmarks.host --lightning-ir PYTHON.

What a GPU waits for if it has to: from training lists to padded token ids. 32 lists of 100 a step,
as in the paper; no model runs. Three tables:

- preparing: microseconds of processor time a pair, the first time that texts are seen and in later
  epochs, beside sentence-transformers and Lightning IR on the same lists;
- parts: what of a step that is in rdx;
- waiting: the share of the time that a device which takes 8,000 pairs/s would wait, with batches
  prepared in line and ahead. The device is a sleeping thread.

Other libraries as for `benchmarks.training`. Prints Markdown.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from benchmarks.side_by_side import all_rows, arguments, machine, save_model, spread
from benchmarks.texts import source
from benchmarks.training import QUERY_LENGTH, training_lists
from rdx import batches
from rdx.lists import TrainingList
from rdx.losses import RankNet
from rdx.trainer.preparing import MICROS, Prepared, Share, prepare

BUDGETS = {"gpu": 65_536, "cpu": 4096}  # tokens of a micro-batch


def rows(given: Any, model: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is measured: name, python and task."""
    base = {
        "mode": "prepare",
        "model": model,
        "device": "cpu",
        "attention": None,
        "query_length": QUERY_LENGTH,
        "passage_length": given.passage_length,
        "lists": training_lists(given.queries, given.depth, 1) * given.steps,
        "batch": given.queries,
        "options": {},
    }
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for device, budget in BUDGETS.items():
        task = base | {"library": "rdx", "options": {"limits": limits(device)}}
        found[f"rdx, as for a {device.upper()}: {budget:,} tokens at a time"] = (
            sys.executable,
            task,
        )
    for size in given.mini_batch:
        task = base | {"library": "sentence_transformers", "options": {"mini_batch_size": size}}
        found[f"sentence-transformers, {size} pairs at a time"] = (
            given.sentence_transformers,
            task,
        )
    if given.lightning_ir:
        task = base | {"library": "lightning_ir"}
        found["Lightning IR, a step at a time"] = (given.lightning_ir, task)
    return found


def limits(device: str) -> tuple[int, int]:
    """Tokens of a micro-batch, and of lists that are sorted together."""
    return BUDGETS[device], BUDGETS[device] * MICROS[device]


def preparing(found: dict[str, list[dict[str, Any]]], pairs: int) -> list[str]:
    """The table of all libraries; ratios are to the first row in the same turn."""
    lines = [
        "| | first sight (µs a pair) | later epochs (µs a pair) | pairs/s of one core "
        "| tokens per real one | rdx is faster by |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    later = {name: [min(one["spans"]) / pairs for one in turns] for name, turns in found.items()}
    mine = next(iter(later.values()))
    for name, turns in found.items():
        # Where texts are tokenised beforehand, that counts to the first sight of the pairs.
        first = [one.get("first", 0.0) + one["spans"][0] for one in turns]
        ratios = [b / a for a, b in zip(mine, later[name], strict=True)]
        lines.append(
            f"| {name} | {spread([1e6 * one / pairs for one in first], '.0f')} "
            f"| {spread([1e6 * one for one in later[name]], '.1f')} "
            f"| {1 / min(later[name]):,.0f} | {turns[0]['padded'] / turns[0]['real']:.2f} "
            f"| {'' if name.startswith('rdx') else spread(ratios, '.0f') + ' ×'} |"
        )
    return lines


def parts(lists: list[TrainingList], tokens: Any) -> list[str]:
    """What the parts of a step cost."""
    found = batches.rows_of(lists, tokens)
    positions = batches.positions_of(lists)
    lengths = tokens.lengths(found)
    ordered = sorted(lengths.tolist(), reverse=True)
    heads = [f"{budget:,} tokens" for budget in BUDGETS.values()]
    lines = [f"| µs a pair, all lists together | {' | '.join(heads)} |", "|---|--:|--:|"]
    works: dict[str, Callable[[int], object]] = {
        "rows of the texts": lambda budget: batches.rows_of(lists, tokens),
        "ranks, mask, positions": lambda budget: (
            batches.targets(lists),
            batches.positions_of(lists),
        ),
        "lengths, sorting and cuts": lambda budget: list(
            batches.groups(tokens.lengths(found), budget)
        ),
        "the cuts alone": lambda budget: batches.cuts(ordered, budget),
        "sorting, cuts and assembly": lambda budget: batches.micro_batches(
            tokens, found, positions, budget
        ),
    }
    for name, work in works.items():
        cells = [f"{1e6 * processor(work, budget) / len(found):.2f}" for budget in BUDGETS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def processor(work: Callable[[int], object], budget: int, turns: int = 10) -> float:
    """Seconds of processor time of one call; the best of several."""
    best = float("inf")
    for _ in range(turns):
        start = time.process_time()
        work(budget)
        best = min(best, time.process_time() - start)
    return best


def waiting(lists: list[TrainingList], tokens: Any, given: Any) -> list[str]:
    """The share of time that a consumer of so many pairs a second waits."""
    pairs = batches.pairs_in(lists)

    def made(step: int) -> Prepared:
        return prepare(lists, tokens, RankNet(), *limits("gpu"), Share())

    def share(prepared: Iterable[object]) -> float:
        start, busy = time.perf_counter(), 0.0
        for _ in prepared:
            busy += work(pairs)
        return waited(start, busy)

    def work(pairs: int) -> float:
        """Sleep as long as a device works; gives how long that was."""
        start = time.perf_counter()
        time.sleep(pairs / given.rate)
        return time.perf_counter() - start

    def waited(start: float, busy: float) -> float:
        return 1 - busy / (time.perf_counter() - start)

    def model(inputs: dict[str, torch.Tensor], parts: torch.Tensor) -> torch.Tensor:
        worked.append(work(len(parts)))
        return torch.zeros(len(parts))

    in_line = share(map(made, range(given.steps)))
    with closing(batches.ahead(range(given.steps), made)) as prepared:
        background = share(prepared)
    many = batches.rows_of(lists * given.steps, tokens)
    worked: list[float] = []
    start = time.perf_counter()
    batches.scores(model, tokens, many, torch.device("cpu"), BUDGETS["gpu"])
    scoring = waited(start, sum(worked))
    return [
        f"| a device of {given.rate:,} pairs/s waits | share of the time |",
        "|---|--:|",
        f"| training, prepared in line | {in_line:.1%} |",
        f"| training, prepared ahead | {background:.1%} |",
        f"| re-ranking {len(many):,} pairs | {scoring:.1%} |",
    ]


def main() -> None:
    """Measure on one core, and print the tables."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--queries", type=int, default=32, help="per step")
    parser.add_argument("--depth", type=int, default=100, help="passages of a list")
    parser.add_argument("--steps", type=int, default=6, help="epochs of one step")
    parser.add_argument("--mini-batch", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--rate", type=int, default=8000, help="pairs/s of a device")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # and so for the processes that are started
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{source()}, {machine('cpu')}\n")
        tasks = rows(given, save_model("minilm", Path(folder)))
        found = all_rows(tasks, given.repeat, given.only)
        _, task = next(iter(tasks.values()))
        student, collection = peers.of_rdx(task)
    print("\n".join(preparing(found, given.queries * given.depth)), flush=True)
    lists = peers.rdx_lists(task, collection)[: given.queries]
    tokens = student.pairs.tokens(collection.queries, collection.passages)
    print("\n".join(["", *parts(lists, tokens)]), flush=True)
    print("\n".join(["", *waiting(lists, tokens, given)]), flush=True)


if __name__ == "__main__":
    main()
