"""Verbs: `python -m rdx VERB ...`, each a small function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rdx.commands.measuring import evaluate, import_
from rdx.commands.teaching import teach
from rdx.fetching import data
from rdx.plan.command import plan


def export(arguments: Sequence[str]) -> None:
    """Release a finished cell: weights that other libraries load, and a model card."""
    parser = argparse.ArgumentParser(
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
    given = parser.parse_args(arguments)
    from rdx import export as release

    try:
        folder = release.export(
            given.store, given.signature, given.out, given.licence, given.name, given.form
        )
    except release.ExportError as error:
        sys.exit(f"rdx: {error}")
    print(f"{'Exported':<15}{folder}")


VERBS = {
    "plan": plan,
    "teach": teach,
    "data": data,
    "export": export,
    "evaluate": evaluate,
    "import": import_,
}
