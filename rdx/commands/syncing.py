"""`python -m rdx sync`: complete the record of trials after MLflow was down."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rdx import config
from rdx.arguments import Parser
from rdx.faults import line
from rdx.text import counted


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
    given = parser.parse_args(arguments)
    try:
        cell = config.cells(given.overrides)[0]
        found = config.build(cell.cfg["tracking"], "tracking").sync(Path(cell.cfg["store"]))
    except ValueError as error:
        sys.exit(f"rdx: {line(error)}")
    delivered, closed = counted(found["delivered"], "record"), counted(found["closed"], "dead run")
    print(f"{delivered} delivered, {closed} closed")
    if found["kept"]:
        kept = counted(found["kept"], "record")
        sys.exit(f"rdx: {kept} could not be delivered: see above")
