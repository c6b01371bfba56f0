"""`python -m rdx sync`: complete the record of trials after MLflow was down."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rdx import config


def sync(arguments: Sequence[str]) -> None:
    """Deliver what MLflow has not got yet, and close the runs of dead processes."""
    parser = argparse.ArgumentParser(
        prog="python -m rdx sync",
        description="Deliver to MLflow what it could not take while trials ran, and close runs "
        "whose process is gone. Safe to repeat, and while trials run.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as of python -m rdx: tracking=..., tracking.uri=..., store=...",
    )
    given = parser.parse_args(arguments)
    try:
        cell = config.cells(given.overrides)[0]
        found = config.build(cell.cfg["tracking"], "tracking").sync()
    except ValueError as error:
        sys.exit(f"rdx: {error}")
    print(f"{found['delivered']} records delivered, {found['closed']} dead runs closed")
    if found["kept"]:
        sys.exit(f"rdx: {found['kept']} records could not be delivered: see above")
