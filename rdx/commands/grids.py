"""`python -m rdx status` and `retry`: how a grid or a cell stands, and what failed again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rdx import progress
from rdx.arguments import Parser
from rdx.facts import Grid, GridCell


def status(arguments: Sequence[str]) -> None:
    """Show how the cells of a grid stand, or one cell."""
    parser = _parser(
        "status", "Show how the cells of a grid stand, or one cell: finished, running, failed."
    )
    parser.add_argument("--json", action="store_true", help="every cell, for programs")
    options = parser.parse_args(arguments)
    found = progress.find(options.store, options.name)
    if isinstance(found, Grid):
        table = progress.table(options.store, found)
        plain, text = progress.as_json(table), progress.text(table)
    else:
        stood = progress.standing(options.store, found.signature)
        plain, text = progress.row(found, stood), progress.text_of_cell(found, stood)
    print(json.dumps(plain, indent=1) if options.json else text)


def retry(arguments: Sequence[str]) -> list[str] | None:
    """The command line that runs what failed or was killed; None if nothing did."""
    parser = _parser(
        "retry", "Run the cells of a grid that failed or were killed, and no others; or one cell."
    )
    options = parser.parse_args(arguments)
    found = progress.find(options.store, options.name)
    if isinstance(found, GridCell):
        return _again(options.store, found)
    counts = progress.table(options.store, found).counts
    if not any(counts.get(state) for state in progress.TO_RETRY):
        print(f"grid {found.grid}: no cell failed")
        return None
    return ["-m", *found.arguments, *found.hydra, "+hydra.sweeper.retry=true"]


def _again(root: Path, cell: GridCell) -> list[str] | None:
    stood = progress.standing(root, cell.signature)
    if stood.state not in progress.TO_RETRY:
        print(f"{progress.text_of_cell(cell, stood)}: it did not fail")
        return None
    return [*cell.overrides, *progress.smaller(root, cell.signature)]


def _parser(verb: str, description: str) -> Parser:
    parser = Parser(prog=f"python -m rdx {verb}", description=description)
    parser.add_argument(
        "name",
        nargs="?",
        metavar="GRID|CELL",
        default="",
        help="id of a grid or signature of a cell, or the beginning; default: the newest grid",
    )
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cells are")
    return parser
