"""`python -m rdx status` and `retry`: how a grid stands, and its failed cells again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rdx import progress
from rdx.arguments import Parser
from rdx.store.grids import read_grid


def status(arguments: Sequence[str]) -> None:
    """Show how the cells of a grid stand."""
    parser = _parser("status", "Show how the cells of a grid stand: finished, running, failed.")
    parser.add_argument("--json", action="store_true", help="every cell, for programs")
    options = parser.parse_args(arguments)
    table = progress.table(options.store, read_grid(options.store, options.grid))
    print(json.dumps(progress.as_json(table), indent=1) if options.json else progress.text(table))


def retry(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs the cells of a grid that failed or were killed."""
    parser = _parser("retry", "Run the cells of a grid that failed or were killed, and no others.")
    options = parser.parse_args(arguments)
    grid = read_grid(options.store, options.grid)
    counts = progress.table(options.store, grid).counts
    if not any(counts.get(state) for state in progress.TO_RETRY):
        print(f"grid {grid.grid}: no cell failed")
        return []
    return ["-m", *grid.arguments, *grid.hydra, "+hydra.sweeper.retry=true"]


def _parser(verb: str, description: str) -> Parser:
    parser = Parser(prog=f"python -m rdx {verb}", description=description)
    parser.add_argument(
        "grid", nargs="?", default="", help="its id, or the beginning of it; default: the newest"
    )
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cells are")
    return parser
