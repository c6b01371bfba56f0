"""``python -m analysis NAME``: the tables and figures of ``experiments/NAME.yaml``."""

from __future__ import annotations

from rdx import stopping

if __name__ == "__main__":
    stopping.install()  # first: libraries take seconds to load

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rdx import faults, folders, quiet
from rdx.arguments import Parser

DESCRIPTION = """\
Make the tables and figures of an experiment from finished trials, in the stores or in MLflow.

NAME is a file of experiments/ without its suffix, or the path of a .yaml file that lies anywhere.
The spec in it is expanded to cells again, each cell's newest finished trial is found by its
signature, and the stored per-query values become means, tests and intervals as the spec declares
them, tables, figures and one HTML report.
Nothing is trained; a cell that has not been run prints as "–" and is names.
"""
EPILOG = """\
examples:
  python -m rdx +experiments=demo     train the cells of experiments/demo.yaml
  python -m analysis demo             print its tables; write results/demo/
  python -m analysis --all            the same for every file of experiments/
"""
FILES = "table.md, .tex and .csv, report.html and the figures"


def parser() -> Parser:
    """Command line of ``python -m analysis``."""
    arguments = Parser(
        prog="python -m analysis",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = arguments.add_mutually_exclusive_group(required=True)
    names = ", ".join(specs()) or "(none)"
    what.add_argument("name", metavar="NAME", nargs="?", help=f"one of: {names}")
    what.add_argument("--all", action="store_true", help="every file of experiments/")
    arguments.add_argument(
        "--check",
        action="store_true",
        help="only check the spec, and that the cells of its grid have what it names",
    )
    arguments.add_argument(
        "--tracking-uri",
        metavar="URI",
        default="sqlite:///mlflow.db",
        help="where MLflow keeps the runs (default: %(default)s, in the working directory)",
    )
    arguments.add_argument(
        "--import",
        dest="folder",
        metavar="DIR",
        type=Path,
        help="look for trials in this folder first: copies of their trial.json and "
        "per_query.parquet, side by side, anywhere below it; TREC runs are not read here, but "
        "measured and recorded by python -m rdx import",
    )
    arguments.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help=f"folder for {FILES} (default: results/NAME; with --all, DIR/NAME)",
    )
    return arguments


def specs() -> list[str]:
    """Names of the specs in ``experiments/``."""
    return list(folders.options(folders.EXPERIMENTS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 also when cells are missing, 2 when there is nothing to work on.

    With ``--check``, 2 if the spec is wrong.
    """
    arguments = parser().parse_args(argv)
    quiet.environment()
    quiet.loggers()
    analyse = _check if arguments.check else _analyse
    if arguments.all:
        out = arguments.out or Path("results")
        return max(analyse(name, arguments, out / name) for name in specs())
    if folders.experiment(arguments.name) is None:
        return _fail(f"no experiment {arguments.name!r}; there are: {', '.join(specs())}")
    out = arguments.out or Path("results") / folders.title(arguments.name)
    return analyse(arguments.name, arguments, out)


def _check(name: str, arguments: argparse.Namespace, out: Path) -> int:
    """Check one experiment; nothing is read but its file and the configuration."""
    from analysis.check import check
    from rdx.config import find_extensions

    find_extensions()
    try:
        check(name)
    except faults.Mendable as error:
        return _fail(_told(name, error))
    return 0


def _analyse(name: str, arguments: argparse.Namespace, out: Path) -> int:
    """Analyse one experiment."""
    # Late, so that --help and a misspelt name answer at once.
    from analysis import report, stored, summary, trials
    from analysis.spec import parse
    from rdx.config import find_extensions, load_spec

    find_extensions()
    command = f"python -m rdx +experiments={name}"
    try:
        spec = parse(load_spec(name))
        imported = [name for row in spec.rows for name in (row.imported, *row.imports) if name]
        finished = trials.load(name, arguments.tracking_uri, imported, arguments.folder)
        numbers = summary.summarise(spec, finished)
    except stored.NoTrialsError as error:
        return _fail(f"{error}; to train the cells: {command}")
    except faults.Mendable as error:
        return _fail(_told(name, error))

    paths = report.write(numbers, out)
    print(report.terminal(numbers))
    if finished.missing:
        print(f"to run the missing cells: {command}")
    print("\nwritten:", *paths, sep="\n  ")
    pages = [path for path in paths if path.suffix == ".html"]
    try:
        run = trials.log_report(folders.title(name), pages, arguments.tracking_uri) if pages else ""
    except OSError as error:  # a record of somebody else
        run = ""
        print(f"report.html is not with the grid's run in MLflow: {error}", file=sys.stderr)
    if run:
        print(f"report.html is also with the grid's run in MLflow: {run}")
    return 0


def _told(name: str, error: faults.Mendable) -> str:
    """An error about an experiment, which names its file."""
    where, message = folders.shown(name), str(error)
    return message if where in message else f"{where}: {message}"


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    with faults.ended("error", 2):
        stopping.gently(True)
        sys.exit(main())
