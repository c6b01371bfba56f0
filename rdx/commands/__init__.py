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
from rdx.commands.systems import evaluate, import_
from rdx.fetching import data
from rdx.plan.command import plan


def export(arguments: Sequence[str]) -> None:
    """Release a finished cell: weights that other libraries load, and a model card."""
    parser = Parser(
        prog="python -m rdx export",
        description="Write the weights of a finished cell, a model card and its configuration.",
    )
    parser.add_argument("signature", help="of the cell, or an unambiguous beginning of it")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cell is")
    parser.add_argument("--licence", help="of the weights, e.g. apache-2.0")
    parser.add_argument("--name", help="of the model on its card; default: the folder's")
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
    "teach": teach,
    "data": data,
    "export": export,
    "evaluate": evaluate,
    "import": import_,
    "sync": sync,
}
