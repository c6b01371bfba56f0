"""Training against other libraries: python -m benchmarks.training --lightning-ir PYTHON.

The same model, lists, effective batch and loss (RankNet), at the same precision and attention, and
at each library's defaults. On a GPU: --model electra-base --queries 32 --depth 100. With --memory,
peak memory of a step over the depth of the lists instead, against one graph for the whole step.

A CPU without bfloat16 units is had by these variables, before the command:
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2

sentence-transformers: `pip install sentence-transformers datasets accelerate`, here or with
--sentence-transformers PYTHON. Lightning IR needs an older Transformers than rdx: give it an
environment of its own. Prints Markdown.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import (
    all_rows,
    arguments,
    machine,
    matrix_peak,
    measure,
    numerics,
    save_model,
    spread,
)
from benchmarks.texts import ranked_lists, source
from rdx.precision import chosen

QUERY_LENGTH = 32


def training_lists(queries: int, depth: int, steps: int) -> list[Any]:
    """Lists [query, passages, ranks]: no pair twice, until the texts are used up."""
    made = [
        [query, passages[start : start + depth], list(range(1, depth + 1))]
        for start in range(0, 100 - depth + 1, depth)
        for _, query, passages in ranked_lists()
    ]
    wanted = queries * steps
    return (made * (1 + wanted // len(made)))[:wanted]


def rows(given: Any, model: str, lists: list[Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is measured: name, python and task."""
    base = {
        "mode": "train",
        "model": model,
        "device": given.device,
        "query_length": QUERY_LENGTH,
        "passage_length": given.passage_length,
        "lists": lists,
        "batch": given.queries,
        "options": {},
    }
    usual = chosen("auto", given.device)
    tokens = {"max_tokens": 2048 if given.device == "cpu" else "auto"}  # as conf/trainer has it
    here, st = sys.executable, given.sentence_transformers
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for kind, attention in numerics(given):
        alike = base | {"precision": kind, "attention": attention}
        mine = alike | {"library": "rdx", "options": tokens}
        found[f"rdx, {kind}, {attention}"] = (here, mine)
        if given.gradient_cache:
            cached = mine | {"options": tokens | {"gradient_cache": "on"}}
            found[f"rdx, {kind}, {attention}, gradient cache"] = (here, cached)
        for size in given.mini_batch:
            task = alike | {"library": "sentence_transformers"}
            task |= {"options": {"mini_batch_size": size}}
            found[f"sentence-transformers, {kind}, {attention}, mini-batch {size}"] = (st, task)
        if given.lightning_ir:
            task = alike | {"library": "lightning_ir"}
            found[f"Lightning IR, {kind}, {attention}"] = (given.lightning_ir, task)
    own = base | {"precision": "fp32", "attention": None}
    task = own | {"precision": usual, "library": "rdx", "options": tokens}
    found["rdx, defaults"] = (here, task)
    found["sentence-transformers, defaults"] = (st, own | {"library": "sentence_transformers"})
    if given.lightning_ir:
        found["Lightning IR, defaults"] = (given.lightning_ir, own | {"library": "lightning_ir"})
    return found


def report(found: dict[str, list[dict[str, Any]]], pairs: int, peaks: dict[str, float]) -> None:
    """The table; ratios are of the same turn, `peaks` of the precision of each row."""
    print(
        "| | pairs/s | real tokens/s | tokens per real one | memory of steps (MB) "
        "| share of peak | rdx is faster by |\n|---|--:|--:|--:|--:|--:|--:|"
    )
    speeds = {
        name: [pairs * len(one["spans"]) / sum(one["spans"]) for one in turns]
        for name, turns in found.items()
    }
    for name, turns in found.items():
        mine = next((n for n in speeds if n.startswith("rdx") and _alike(n, name)), None)
        ratios = (
            [a / b for a, b in zip(speeds[mine], speeds[name], strict=True)]
            if mine and not name.startswith("rdx")
            else []
        )
        first = turns[0]
        runs = 2 if first.get("cached") else 1
        steps = len(first["spans"])
        # Tokens that count, per second: each once, however often it was run.
        tokens = [speed * first["real"] / runs / (pairs * steps) for speed in speeds[name]]
        share = f"{_middle(tokens) * found_flops(found) / peaks[name]:.0%}"
        print(
            f"| {name} | {spread(speeds[name], '.1f')} | {_middle(tokens):,.0f} "
            f"| {first['padded'] / first['real']:.2f} "
            f"| {_middle([one['memory'] for one in turns]):,.0f} | {share} "
            f"| {spread(ratios) + ' ×' if ratios else ''} |"
        )


def found_flops(found: dict[str, list[dict[str, Any]]]) -> float:
    """Floating-point operations of training on one token, the same model for all."""
    known = [
        one["flops_per_token"]
        for turns in found.values()
        for one in turns[:1]
        if "flops_per_token" in one
    ]
    return float(known[0]) if known else 0.0


def _alike(mine: str, theirs: str) -> bool:
    """Whether rows are compared: defaults with defaults, else the same precision and attention."""
    if "defaults" in theirs:
        return "defaults" in mine
    return mine == ", ".join(["rdx", *theirs.split(", ")[1:3]])


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def memory(given: Any, folder: Path) -> None:
    """Peak memory of a step of `given.queries` lists over their depth."""
    model = save_model(given.model, folder, layers=given.layers)
    ways = {
        "groups of lists": {"gradient_cache": "off", "max_tokens": 4096},
        "gradient cache": {"gradient_cache": "on", "max_tokens": 4096},
        # One micro-batch of the whole step: what a loop without micro-batches does.
        "one graph": {"gradient_cache": "off", "max_tokens": 10**9},
    }
    print("| depth | pairs |" + "".join(f" {way} (MB) |" for way in ways))
    print("|--:|--:|" + "--:|" * len(ways))
    for depth in given.depths:
        lists = [
            [query, (passages * 4)[:depth], list(range(1, depth + 1))]
            for _, query, passages in ranked_lists()[: given.queries]
        ]
        task = {
            "mode": "train",
            "library": "rdx",
            "model": model,
            "device": given.device,
            "query_length": QUERY_LENGTH,
            "passage_length": given.passage_length,
            "lists": lists + lists,
            "batch": given.queries,
            "precision": chosen("auto", given.device),
            "attention": None,
        }
        print(f"| {depth} | {depth * given.queries:,} |", end="", flush=True)
        for way, options in ways.items():
            measured = way != "one graph" or depth <= given.naive_depth
            found = measure(sys.executable, task | {"options": options}) if measured else {}
            print(f" {found['memory']:,.0f} |" if found else " |", end="", flush=True)
        print()


def main() -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--queries", type=int, default=8, help="per step")
    parser.add_argument("--depth", type=int, default=20, help="passages of a list")
    parser.add_argument("--steps", type=int, default=4, help="measured, after one of warming up")
    parser.add_argument("--mini-batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--gradient-cache", action="store_true", help="rows of rdx with it, too")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--depths", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--naive-depth", type=int, default=100, help="deepest single graph")
    parser.add_argument("--layers", type=int, help="of minilm, with --memory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{given.model}, {source()}, {machine(given.device)}; {given.queries} queries a step, "
            f"query and passage cut at {QUERY_LENGTH} and {given.passage_length} tokens.\n"
        )
        if given.memory:
            memory(given, Path(folder))
            return
        lists = training_lists(given.queries, given.depth, given.steps + 1)
        model = save_model(given.model, Path(folder))
        asked = rows(given, model, lists)
        found = all_rows(asked, given.repeat, given.only)
        kinds = {name: asked[name][1]["precision"] for name in found}
        peaks = {kind: matrix_peak(given.device, kind) for kind in set(kinds.values())}
        pairs = given.queries * given.depth
        report(found, pairs, {name: peaks[kind] for name, kind in kinds.items()})


if __name__ == "__main__":
    main()
