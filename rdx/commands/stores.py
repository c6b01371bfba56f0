"""`python -m rdx show` and `store`: what a store holds, and what of it may go."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rdx import cleaning, holdings, progress
from rdx.arguments import Parser
from rdx.facts import Grid
from rdx.text import counted


def show(arguments: Sequence[str]) -> None:
    """Show the facts of a cell or a grid, from the store alone."""
    parser = Parser(
        prog="python -m rdx show",
        description="Show what the store tells of a cell: what it was, its stages, health and "
        "scores; or of a grid.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="CELL|GRID",
        default="",
        help="signature of a cell or id of a grid, or the beginning; default: the newest grid",
    )
    _add_common(parser)
    options = parser.parse_args(arguments)
    from rdx import show as shown

    found = progress.find(options.store, options.name)
    facts: shown.CellFacts | shown.GridFacts
    if isinstance(found, Grid):
        facts = shown.of_grid(options.store, found)
    else:
        facts = shown.of_cell(options.store, found)
    print(json.dumps(shown.as_json(facts), indent=1) if options.json else shown.text(facts))


def store(arguments: Sequence[str]) -> None:
    """List what a store holds and who needs it; remove what nobody needs, or a grid; import."""
    if arguments and arguments[0] == "import":
        _import(arguments[1:])
        return
    parser = Parser(
        prog="python -m rdx store",
        description="List what a store holds by stage, and who needs it: finished cells, grids, "
        "what runs, nobody. --clean removes what nobody needs; --free a grid, with what it alone "
        "needs. `store import FOLDER` takes published results in.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--clean", action="store_true", help="remove what nobody needs, and dead leftovers"
    )
    what.add_argument(
        "--free",
        metavar="GRID|CELL",
        help="say what its removal would free; with --yes, remove it",
    )
    parser.add_argument(
        "--ledger", action="store_true", help="with --clean: all answers of teachers, too"
    )
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser.add_argument("--dry-run", action="store_true", help="say what, and remove nothing")
    _add_common(parser)
    options = parser.parse_args(arguments)
    held = holdings.read(options.store)
    if options.free:
        what_goes = cleaning.free(held, progress.find(options.store, options.free))
    elif options.clean:
        what_goes = cleaning.clean(held, options.ledger)
    elif options.ledger or options.yes or options.dry_run:
        parser.error("--ledger, --yes and --dry-run go with --clean or --free")
    else:
        rows = cleaning.rows(held)
        plain = [asdict(row) for row in rows]
        print(json.dumps(plain, indent=1) if options.json else cleaning.text(held, rows))
        return
    if not what_goes:
        print("nothing to remove")
        return
    _say(what_goes, options.json)
    ask = options.clean and not options.dry_run
    if (options.yes and not options.dry_run) or (ask and _agreed()):
        left = cleaning.remove(held, what_goes)
        if left:
            sys.exit(
                f"rdx: not all was removed: {left[0]}; the same command again removes the rest"
            )
        print("removed", file=sys.stderr if options.json else sys.stdout)
    else:
        print("nothing was removed; --yes removes it", file=sys.stderr)


def _import(arguments: Sequence[str]) -> None:
    """Take published results into a store: their cells are finished, and are not run anew."""
    parser = Parser(
        prog="python -m rdx store import",
        description="Write the results of python -m rdx export results into a store, as finished "
        "cells without weights; each must have the same signature here.",
    )
    parser.add_argument("folder", type=Path, help="published results")
    parser.add_argument("--store", type=Path, default=Path("store"), help="the store")
    options = parser.parse_args(arguments)
    from rdx.export import results

    written, there = results.import_results(options.folder, options.store)
    print(f"{'Imported':<15}{counted(written, 'cell')}; {there} were there already")


def _say(what: cleaning.Removal, as_json: bool) -> None:
    """Say what goes."""
    print(json.dumps(what.as_json(), indent=1) if as_json else cleaning.removal_text(what))


def _agreed() -> bool:
    """Whether somebody who is asked says yes; nobody is there to ask without a terminal."""
    return sys.stdin.isatty() and input("Remove this? [y/N] ").strip().lower() in ("y", "yes")


def _add_common(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--store", type=Path, default=Path("store"), help="the folder")
