"""`python -m rdx evaluate` and `import`: rankings of systems that were not trained here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rdx import rankings
from rdx.arguments import Parser
from rdx.faults import line
from rdx.text import counted

PER_QUERY = "per_query.parquet"


def evaluate(arguments: Sequence[str]) -> None:
    """Measure TREC runs without a model; or compare what finished cells cost per query."""
    parser = Parser(
        prog="python -m rdx evaluate",
        description="Measure TREC runs on a test collection: value, ceiling, Judged@10, missing "
        "queries, ties. With --efficiency: compare time, memory and energy of finished cells.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="TREC runs; signatures, see below")
    _of_collection(parser)
    parser.add_argument(
        "--out", type=Path, default=Path(PER_QUERY), help=f"per-query values; default {PER_QUERY}"
    )
    parser.add_argument(
        "--efficiency",
        action="store_true",
        help="RUNs are signatures of cells that ran with evaluation.efficiency=N; the first is the "
        "unit of the ratios",
    )
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cells are")
    given = parser.parse_args(arguments)
    from rdx import systems

    if given.efficiency:
        _costs(_told(partial(systems.timings, given.store, given.runs)))
        return
    cell, names = _chosen(given)
    if len(names) > 1:
        sys.exit(f"rdx: --collection: name one of {', '.join(names)}")
    order = "rank" if cell.parts["evaluation"].ties == "rank" else given.order
    runs = [systems.Run(path, order) for path in given.runs]
    with_first = given.first_stage is not None
    table, rows = _told(partial(systems.evaluate, cell, names[0], runs, with_first))
    rankings.write_parquet(table, given.out)
    print(_scores(rows, list(cell.parts["evaluation"].measures)))
    for reason in dict.fromkeys(row["degenerate"] for row in rows if row["degenerate"]):
        print(f"WARNING: {names[0]} is degenerate: {reason}")
    print(f"ties: {cell.parts['evaluation'].ties}; per-query values: {given.out}")


def import_(arguments: Sequence[str]) -> None:
    """Register TREC runs of a system in MLflow, so that tables can hold it."""
    parser = Parser(
        prog="python -m rdx import",
        description="Register the runs of a system as a trial, comparable with the cells that were "
        "evaluated on the same collections and first stages.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[COLLECTION:]RUN",
        help="one TREC run for every collection; with --archive, patterns of their paths",
    )
    parser.add_argument("--name", help="tables name the system run:NAME; with --archive, {name}")
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="PLACE",
        help="a folder or tar archive of many systems; a RUN is then a path in it with {name} "
        "where the system's name stands, {collection} where the collection's does, and * for "
        "anything, none of them over a /",
    )
    _of_collection(parser)
    parser.add_argument(
        "--outside",
        choices=("error", "drop"),
        default="error",
        help="passages that the first stage's top k lacks; drop: cut the run to it",
    )
    parser.add_argument("--source", default="", help="where the runs come from, for the record")
    given = parser.parse_args(arguments)
    from rdx import systems

    if not given.name and not given.archive:
        parser.error("the following arguments are required: --name")
    cell, names = _chosen(given)
    if given.archive:
        return _import_all(cell, names, given)
    runs: dict[str, systems.Run] = {}
    for one in given.runs:
        head, colon, path = one.partition(":")
        known = colon and head in names
        if not known and len(names) > 1:
            sys.exit(f"rdx: {one}: for which collection? COLLECTION:RUN, of {', '.join(names)}")
        name = head if known else names[0]
        if name in runs:
            sys.exit(f"rdx: {one}: a second run for {name}")
        runs[name] = systems.Run(path if known else one, given.order)
    register = partial(
        systems.register, cell, given.name, runs, given.outside == "drop", given.source
    )
    key, facts = _told(register)
    for name, mean in facts["over_collections"]["collections"]["arithmetic"].items():
        print(f"   {name:42} {mean:.4f}")
    print(f"Registered run:{given.name} on {', '.join(runs)}; signature: {key}")


def _import_all(cell: Any, names: list[str], given: argparse.Namespace) -> None:
    """Register every system of an archive; say at the end which could not be, and why."""
    from rdx import systems

    naming = given.name or "{name}"
    if "{name}" not in naming:
        sys.exit(f"rdx: --name {naming}: with --archive it must hold {{name}}")
    failed = []
    try:
        with systems.opened(given.archive, given.runs, names) as found:
            others = counted(found.others, "other file")
            print(f"{counted(len(found.runs), 'system')}; {others} left alone")
            for name, where, error in systems.register_all(
                *(cell, found, naming, given.order, given.outside == "drop", given.source)
            ):
                failed += [f"{name}: {error}"] if error else []
                print(
                    f"   {'FAILED' if error else 'run:' + name:42} {', '.join(where)}", flush=True
                )
    except (ValueError, OSError) as error:
        sys.exit(f"rdx: {line(error)}")
    print(f"Registered {len(found.runs) - len(failed)} of {counted(len(found.runs), 'system')}")
    if failed:
        sys.exit("\n   ".join(["rdx: not registered:", *failed]))


def _of_collection(parser: Parser) -> None:
    """What says on which collection, by which measures and against which candidates."""
    parser.add_argument(
        "--collection",
        nargs="+",
        default=[],
        metavar="WORD",
        help="an option of evaluation, Hydra overrides, names of its collections; e.g. "
        "evaluation=trec_dl dl19_bm25",
    )
    parser.add_argument(
        "--local",
        type=Path,
        metavar="FOLDER",
        help="corpus.*, queries.* and qrels.* of the collections are here (or in FOLDER/NAME of "
        "each); nothing is fetched, and the record says that it is a local copy",
    )
    parser.add_argument("--measures", nargs="+", default=[], help="of ir_measures")
    parser.add_argument("--first-stage", metavar="RUN", help="the candidates, as a TREC run")
    parser.add_argument(
        "--order",
        choices=("score", "rank"),
        default="score",
        help="what orders a RUN: its scores, ties as trec_eval, or its rank column",
    )


def _chosen(given: argparse.Namespace) -> tuple[Any, list[str]]:
    """The cell of `systems.collections`; of `evaluate`, a first stage is needed only if given."""
    from rdx import systems

    first = given.first_stage
    if first is None and not hasattr(given, "name"):
        first = given.runs[0]  # stands in for one that is not asked for
    if not Path(first or ".").exists():
        sys.exit(f"rdx: {first}: no such file (in {Path.cwd()})")
    return _told(partial(systems.collections, given.collection, first, given.measures, given.local))


def _told(ask: Callable[[], Any]) -> Any:
    """Whatever `ask` gives; files and values that are not right end the program with a message."""
    try:
        return ask()
    except (ValueError, OSError) as error:
        sys.exit(f"rdx: {line(error)}")


def _scores(rows: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    """The table of `evaluate`."""
    with_first = rows[0]["outside"] is not None
    heads = ["system", *measures, f"oracle {measures[0]}", "Judged@10", "queries", "missing"]
    heads += ["tied", *(["outside"] if with_first else [])]
    lines = [heads]
    for row in rows:
        numbers = [row[m] for m in measures] + [row["ceiling"], row["judged@10"]]
        shares = [row["ties"], *([row["outside"]] if with_first else [])]
        lines.append([
            row["system"],
            *(f"{value:.4f}" for value in numbers),
            *(str(row[key]) for key in ("queries", "missing")),
            *(f"{share:.1%}" for share in shares),
        ])  # fmt: skip
    return _aligned(lines)


def _costs(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of `evaluate --efficiency`."""
    heads = ["cell", "collection", "p50 ms", "p95 ms", "pairs/s", "RSS GB", "CUDA GB", "J/query"]
    lines = [[*heads, "times the first (95 %)"]]

    def shown(value: float | None, unit: float = 1) -> str:
        return "-" if value is None else f"{value / unit:.3g}"

    for row in rows:
        latency, memory, ratio = row["latency"], row["peak_memory"], row["ratio"]
        lines.append([
            row["cell"][:12],
            row["collection"],
            f"{1000 * latency['p50']:.1f}",
            f"{1000 * latency['p95']:.1f}",
            f"{row['pairs_per_second']:.0f}",
            *(shown(memory[kind], 1e9) for kind in ("rss", "cuda")),
            shown(row["energy"]["joules_per_query"]),
            "-" if ratio is None else "{:.3g} [{:.3g}, {:.3g}]".format(*ratio),
        ])  # fmt: skip
    print(_aligned(lines))
    for one in dict.fromkeys(json.dumps(row["hardware"], sort_keys=True) for row in rows):
        print(", ".join(f"{key}: {value}" for key, value in json.loads(one).items()))


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
