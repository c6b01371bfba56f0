"""`python -m rdx sync`: complete the record of trials after MLflow was down."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rdx import config
from rdx.arguments import Parser
from rdx.text import counted


def sync(arguments: Sequence[str]) -> None:
    """Deliver what MLflow has not got yet, and close the runs of dead processes."""
    parser = Parser(
        prog="python -m rdx sync",
        description="Deliver to MLflow what it could not take while trials ran, and close runs "
        "whose process is gone. Safe to repeat, and while trials run.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as of python -m rdx: tracking=..., tracking.uri=..., store=...",
    )
    cell = config.cells(parser.parse_args(arguments).overrides)[0]
    counts = config.build(cell.cfg["tracking"], "tracking").sync()
    delivered = counted(counts["delivered"], "record")
    print(f"{delivered} delivered, {counted(counts['closed'], 'dead run')} closed")
    if counts["kept"]:
        kept = counted(counts["kept"], "record")
        sys.exit(f"rdx: {kept} could not be delivered: see above")
