"""Verbs: `python -m rdx VERB ...`, each a small function."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rdx.arguments import Parser
from rdx.commands.grids import retry, status
from rdx.commands.labels import teach
from rdx.commands.records import sync
from rdx.commands.stores import show, store
from rdx.commands.systems import evaluate, import_
from rdx.fetching import data
from rdx.plan.command import plan


def _released(of: str, licence: str, thing: str) -> Parser:
    """What of a store is released, where to, and under which name and licence."""
    parser = Parser(add_help=False)
    parser.add_argument("signature", help=f"{of}, or an unambiguous beginning of it")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where it lies")
    parser.add_argument("--licence", help=licence)
    parser.add_argument("--name", help=f"of the {thing} on its card; default: the folder's")
    return parser


def export(arguments: Sequence[str]) -> None:
    """Release a finished cell: weights that other libraries load, and a model card; or labels."""
    if arguments and arguments[0] == "labels":
        _export_labels(arguments[1:])
        return
    if arguments and arguments[0] == "results":
        _export_results(arguments[1:])
        return
    parser = Parser(
        prog="python -m rdx export",
        description="Write the weights of a finished cell, a model card and its configuration. "
        "`export labels` writes what its teacher gave it, `export results` what a grid measured.",
        parents=[_released("of the cell", "of the weights, e.g. apache-2.0", "model")],
    )
    parser.add_argument(
        "--form",
        default="transformers",
        help="transformers (also for sentence-transformers) or lightning_ir",
    )
    options = parser.parse_args(arguments)
    from rdx import export as release

    folder = release.export(
        *(options.store, options.signature, options.out),
        *(options.licence, options.name, options.form),
    )
    print(f"{'Exported':<15}{folder}")


def _export_labels(arguments: Sequence[str]) -> None:
    """Release labels: a run, lists that sentence-transformers trains on, audit and card."""
    parser = Parser(
        prog="python -m rdx export labels",
        description="Write the training lists of a finished cell as its teacher ordered them, or a "
        "whole teacher ranking: TREC run, parquet, audit, Croissant, card.",
        parents=[
            _released(
                "of the cell, or of the teacher ranking (stage teach)",
                "of the labels, e.g. cc-by-4.0",
                "data set",
            )
        ],
    )
    parser.add_argument(
        "--without-texts", action="store_true", help="ids instead of queries and passages"
    )
    parser.add_argument(
        "--labels", default="rank", help="rank: n - 1 down to 0; score: the teacher's own"
    )
    options = parser.parse_args(arguments)
    from rdx import export as release

    folder = release.export_labels(
        *(options.store, options.signature, options.out, options.licence, options.name),
        texts=not options.without_texts,
        values=options.labels,
    )
    card = (folder / "README.md").read_text(encoding="utf-8")
    print(card.partition("## Licence")[2].partition("## Citation")[0].strip())
    print(f"{'Exported':<15}{folder}")


def _export_results(arguments: Sequence[str]) -> None:
    """Publish what a grid measured: facts and per-query values of its trials, and checksums."""
    parser = Parser(
        prog="python -m rdx export results",
        description="Write what the finished cells of a grid measured, and imported systems on the "
        "same collections: facts, per-query values, checksums; no weights, texts, judgements or "
        "rankings. python -m analysis NAME --import FOLDER makes its tables, python -m rdx store "
        "import FOLDER goes on with the grid.",
    )
    parser.add_argument("grid", help="its id, the beginning of it, or its experiment's name")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cells are")
    options = parser.parse_args(arguments)
    from rdx.export import results
    from rdx.text import counted

    record, unfinished = results.export_results(options.store, options.grid, options.out)
    missing = f"; {counted(unfinished, 'cell')} not finished" if unfinished else ""
    print(f"{'Exported':<15}{options.out}: {counted(len(record.trials), 'trial')}{missing}")


def doctor(arguments: Sequence[str]) -> None:
    """Find out whether a command line would run here; exit status 1 if something stops it."""
    parser = Parser(
        prog="python -m rdx doctor",
        description="Examine machine, software, data, places, services and keys for a command "
        "line, with a cure for what is wrong. Nothing is run.",
    )
    parser.add_argument("overrides", nargs="*", help="as of python -m rdx; a grid, too")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_intermixed_args(arguments)
    from rdx.doctor import as_json, examine, stops, text

    findings = examine(options.overrides)
    print(json.dumps(as_json(findings), indent=1) if options.json else text(findings))
    if stops(findings):
        sys.exit(1)


VERBS = {
    "doctor": doctor,
    "plan": plan,
    "status": status,
    "retry": retry,
    "show": show,
    "store": store,
    "teach": teach,
    "data": data,
    "export": export,
    "evaluate": evaluate,
    "import": import_,
    "sync": sync,
}
