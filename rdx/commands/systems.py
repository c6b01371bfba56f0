"""`python -m rdx evaluate` and `import`: rankings of systems that were not trained here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rdx import accounting, rankings
from rdx.arguments import Parser
from rdx.commands import tables
from rdx.commands.checks import require_writable
from rdx.config import ConfigError
from rdx.rankings.trec import Order
from rdx.text import counted

if TYPE_CHECKING:
    from rdx.systems import Run, Scored, Testbed

PER_QUERY = "per_query.parquet"


def evaluate(arguments: Sequence[str]) -> None:
    """Measure TREC runs without a model; or compare what finished cells cost per query."""
    parser = Parser(
        prog="python -m rdx evaluate",
        description="Measure TREC runs on a test collection: value, ceiling, Judged@10, missing "
        "queries, ties. With --efficiency: compare time, memory and energy of finished cells.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="TREC runs; signatures, see below")
    _add_collection(parser)
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
    options = parser.parse_args(arguments)
    from rdx import systems

    if options.efficiency:
        print(tables.costs(systems.timings(options.store, options.runs)))
        return
    require_writable("--out", options.out.parent)
    # without a first stage, the first run stands in for one that is not asked for
    testbed = _testbed(options, options.first_stage or options.runs[0])
    if len(testbed.names) > 1:
        raise ConfigError(f"--collection: name one of {', '.join(testbed.names)}")
    [name], settings = testbed.names, testbed.evaluation
    order: Order = "rank" if settings.ties == "rank" else options.order
    runs = [systems.Run(path, order) for path in options.runs]
    table, scored = systems.evaluate(testbed, name, runs, options.first_stage is not None)
    rankings.write_parquet(table, options.out)
    print(tables.scores(scored, settings.measures))
    for reason in dict.fromkeys(row.quality.reason for row in scored if row.quality.degenerate):
        print(f"WARNING: {name} is degenerate: {reason}")
    _say_what_is_odd(testbed, name, scored)
    print(f"ties: {settings.ties}; per-query values: {options.out}")


def _say_what_is_odd(testbed: Testbed, name: str, scored: Sequence[Scored]) -> None:
    """Print what is odd in a collection and in the runs on it: counts, and warnings."""
    test = testbed.queries(name)
    print(f"{name}: {', '.join(f'{what} {n:,}' for what, n in test.counts.items())}")
    accounting.warn(test)
    for row in scored:
        if row.run is None:
            continue
        if any(count.n for count in row.run.counts.values()):
            print(accounting.block(row.system, row.run.counts, {}))
        for message in row.run.warnings():
            print(f"WARNING  {row.system}: {message}")
        rule = testbed.evaluation.self_retrieval_of(name)
        accounting.warn_of_own(row.system, row.run.ranking, test, rule)


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
    _add_collection(parser)
    parser.add_argument(
        "--outside",
        choices=("error", "drop"),
        default="error",
        help="passages that the first stage's top k lacks; drop: cut the run to it",
    )
    parser.add_argument("--source", default="", help="where the runs come from, for the record")
    options = parser.parse_args(arguments)
    from rdx import systems

    if not options.name and not options.archive:
        parser.error("the following arguments are required: --name")
    testbed = _testbed(options, options.first_stage)
    if options.archive:
        return _import_all(testbed, options)
    runs = _runs(options, testbed.names)
    trial = systems.register(testbed, options.name, runs, options.outside == "drop", options.source)
    over = trial.over_collections
    for head, means in (("", over.collections), *((f"{n}/", m) for n, m in over.named.items())):
        for name, mean in means.arithmetic.items():
            print(f"   {head + name:42} {mean:.4f}")
    print(f"Registered run:{options.name} on {', '.join(runs)}; signature: {trial.signature}")


def _runs(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Run]:
    """The run of each collection, given as ``[COLLECTION:]RUN``."""
    from rdx import systems

    runs: dict[str, Run] = {}
    for word in options.runs:
        head, colon, path = word.partition(":")
        known = colon and head in names
        if not known and len(names) > 1:
            raise ConfigError(
                f"{word}: for which collection? COLLECTION:RUN, of {', '.join(names)}"
            )
        name = head if known else names[0]
        if name in runs:
            raise ConfigError(f"{word}: a second run for {name}")
        runs[name] = systems.Run(path if known else word, options.order)
    return runs


def _import_all(testbed: Testbed, options: argparse.Namespace) -> None:
    """Register every system of an archive; say at the end which could not be, and why."""
    from rdx import systems

    naming = options.name or "{name}"
    if "{name}" not in naming:
        raise ConfigError(f"--name {naming}: with --archive it must hold {{name}}")
    failed = []
    with systems.opened(options.archive, options.runs, testbed.names) as archive:
        others = counted(archive.others, "other file")
        print(f"{counted(len(archive.runs), 'system')}; {others} left alone")
        for name, where, error in systems.register_all(
            *(testbed, archive, naming, options.order, options.outside == "drop", options.source)
        ):
            failed += [f"{name}: {error}"] if error else []
            print(f"   {'FAILED' if error else 'run:' + name:42} {', '.join(where)}", flush=True)
        total = len(archive.runs)
    print(f"Registered {total - len(failed)} of {counted(total, 'system')}")
    if failed:
        sys.exit("\n   ".join(["rdx: not registered:", *failed]))


def _add_collection(parser: Parser) -> None:
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


def _testbed(options: argparse.Namespace, first_stage: str | None) -> Testbed:
    """What `_add_collection` chose, with a run as first stage."""
    from rdx import systems

    if first_stage is not None and not Path(first_stage).exists():
        raise FileNotFoundError(f"{first_stage}: no such file (in {Path.cwd()})")
    return systems.compose(options.collection, first_stage, options.measures, options.local)
