"""Re-ranking against other libraries: python -m benchmarks.reranking --lightning-ir PYTHON.

The same model scores the same lists at the same precision and attention, and at each library's
defaults: all lists in one call ("together"), and list by list, as in a search engine ("one by one",
with p50 and p95 per list). Says how far scores are apart. On a GPU: --model electra-base. Prints
Markdown.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side import (
    all_rows,
    arguments,
    machine,
    numerics,
    save_model,
    spread,
)
from benchmarks.texts import ranked_lists, source
from rdx.precision import chosen

QUERY_LENGTH = 32
WAYS = ("together", "one by one")
PEERS = {"sentence_transformers": "sentence-transformers", "lightning_ir": "Lightning IR"}


def rows(given: Any, model: str, lists: list[Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is measured: name, python and task."""
    base = {
        "mode": "score",
        "model": model,
        "device": given.device,
        "query_length": QUERY_LENGTH,
        "passage_length": given.passage_length,
    }
    pythons = {"rdx": sys.executable, "sentence_transformers": given.sentence_transformers}
    if given.lightning_ir:
        pythons["lightning_ir"] = given.lightning_ir
    own = chosen("auto", given.device)
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for way in given.way:
        # The first group warms up: all lists beforehand, or two of them.
        batch = len(lists) if way == "together" else 1
        given_lists = lists + lists if way == "together" else lists[:2] + lists
        for precision, attention in [*numerics(given), (None, None)]:
            shown = f"{precision}, {attention}" if precision else "defaults"
            for library, python in pythons.items():
                # A library's default precision; rdx's is what the hardware computes.
                used = precision or (own if library == "rdx" else "fp32")
                task = base | {"library": library, "precision": used, "attention": attention}
                task |= {"lists": given_lists, "batch": batch, "options": options(library, given)}
                found[f"{PEERS.get(library, library)} | {way} | {shown}"] = (python, task)
    return found


def options(library: str, given: Any) -> dict[str, Any]:
    """Batch sizes: rdx's default configuration, the other libraries' own defaults."""
    return {"max_tokens": given.max_tokens} if library == "rdx" else {}


def report(found: dict[str, list[dict[str, Any]]], lists: int, depth: int) -> None:
    """The table; ratios are of the same turn."""
    print(
        "| | lists | numerics | pairs/s | p50, p95 per list (s) | tokens per real one "
        "| memory (MB) | rdx is faster by |\n|---|---|---|--:|--:|--:|--:|--:|"
    )
    speeds = {
        name: [_speed(name, one, lists, depth) for one in turns] for name, turns in found.items()
    }
    for name, turns in found.items():
        library, way, shown = name.split(" | ")
        mine = f"rdx | {way} | {shown}"
        ratios = [a / b for a, b in zip(speeds.get(mine, []), speeds[name], strict=False)]
        times = ""
        if way == "one by one":
            spans = np.array([one["spans"][2:] for one in turns])
            times = ", ".join(f"{np.quantile(spans, q):.3f}" for q in (0.5, 0.95))
        padding = turns[0]["padded"] / turns[0]["real"]
        memory = sorted(one["memory"] for one in turns)[len(turns) // 2]
        last = f"{spread(ratios)} ×" if ratios and library != "rdx" else ""
        print(
            f"| {library} | {way} | {shown} | {spread(speeds[name], '.1f')} | {times} "
            f"| {padding:.2f} | {memory:,.0f} | {last} |"
        )


def _speed(name: str, one: dict[str, Any], lists: int, depth: int) -> float:
    spans = one["spans"][1:] if "together" in name else one["spans"][2:]
    return lists * depth / sum(spans)


def agreement(found: dict[str, list[dict[str, Any]]], count: int) -> None:
    """How far the scores of the libraries with the same head are apart."""
    for name, turns in found.items():
        library, way, shown = name.split(" | ")
        mine = found.get(f"rdx | {way} | {shown}")
        if library != PEERS["sentence_transformers"] or mine is None:
            continue
        a, b = (np.array(one[0]["scores"][-count:]) for one in (turns, mine))
        print(
            f"\n{way}, {shown}: scores of {library} and rdx differ by at most "
            f"{np.abs(a - b).max():.2g} (range {np.ptp(b):.2g})",
            end="",
        )
    print()


def main() -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--lists", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=4096, help="of rdx, as conf/evaluation")
    parser.add_argument("--way", nargs="+", default=WAYS, choices=WAYS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(given.model, Path(folder))
        lists = [[query, passages, []] for _, query, passages in ranked_lists()[: given.lists]]
        depth = len(lists[0][1])
        print(
            f"{given.model}, {source()}, {machine(given.device)}; {len(lists)} lists of {depth}, "
            f"query and passage cut at {QUERY_LENGTH} and {given.passage_length} tokens.\n"
        )
        found = all_rows(rows(given, model, lists), given.repeat, given.only)
        report(found, len(lists), depth)
        agreement(found, len(lists) * depth)


if __name__ == "__main__":
    main()
