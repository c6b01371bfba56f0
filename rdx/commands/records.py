"""`python -m rdx sync`: complete the record of trials after MLflow was down."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rdx import config
from rdx.arguments import Parser
from rdx.text import as_typed, counted


def sync(arguments: Sequence[str]) -> None:
    """Write to MLflow what it lacks of a store's trials, and close those of dead processes."""
    parser = Parser(
        prog="python -m rdx sync",
        description="Write to MLflow what it lacks of a store's trials: what it could not take "
        "while they ran, or all of them where MLflow is new or another one; and close trials whose "
        "process is gone. Safe to repeat, and while trials run.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as of python -m rdx: tracking=..., tracking.uri=..., store=...",
    )
    cell = config.cells(parser.parse_args(arguments).overrides)[0]
    root = Path(cell.cfg["store"])
    if not root.is_dir():
        print(f"{as_typed(root)}: no such store; nothing to sync")
        return
    counts = config.build(cell.cfg["tracking"], "tracking").sync(root)
    if not any(counts.values()):
        print(f"{as_typed(root)}: nothing to sync")
        return
    delivered = counted(counts["delivered"], "record")
    print(f"{delivered} delivered, {counted(counts['closed'], 'dead run')} closed")
    if counts["kept"]:
        kept = counted(counts["kept"], "record")
        sys.exit(f"rdx: {kept} could not be delivered: see above")
