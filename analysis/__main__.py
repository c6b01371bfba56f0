"""``python -m analysis NAME``: the tables and figures of a spec, or of any grid that ran."""

from __future__ import annotations

from rdx import stopping

if __name__ == "__main__":
    stopping.install()  # first: libraries take seconds to load

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rdx import facts, faults, folders, quiet
from rdx.arguments import Parser, near
from rdx.text import counted

DESCRIPTION = """\
Make the tables and figures of anything that ran from finished trials, in the stores or in MLflow.

NAME is a file of experiments/ without its suffix, the path of a .yaml file that lies anywhere, or
the id of a grid that was launched; without NAME, it is the newest grid. Each cell's newest finished
trial is found by its signature, and the stored per-query values become means, tests and intervals
as the spec declares them, tables, figures and one HTML report. A grid without a spec gets a row
for every combination of the factors that vary, and the table says what else was assumed.
Nothing is trained; a cell that has not been run prints as "–" and is names.
"""
EPILOG = """\
examples:
  python -m rdx +experiments=demo     train the cells of experiments/demo.yaml
  python -m analysis demo             print its main table and the answer; write results/demo/
  python -m analysis demo --full      print every table
  python -m analysis                  the tables of the grid that was launched last
  python -m analysis grid-1a2b3c4d    those of another one; python -m rdx status names it
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
    what = arguments.add_mutually_exclusive_group()
    names = ", ".join(specs()) or "(none)"
    what.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        default="",
        help=f"an experiment, one of: {names}; a .yaml file; or the id of a grid, or its beginning "
        "(default: the newest grid)",
    )
    what.add_argument("--all", action="store_true", help="every file of experiments/")
    arguments.add_argument(
        "--check",
        action="store_true",
        help="only check the spec, and that the cells of its grid have what it names",
    )
    arguments.add_argument(
        "--full",
        action="store_true",
        help="print every table, not the main one alone; the files hold all of them either way",
    )
    arguments.add_argument(
        "--json", action="store_true", help="with --check: what the spec tests, for programs"
    )
    arguments.add_argument(
        "--store",
        metavar="DIR",
        type=Path,
        default=Path("store"),
        help="where grids are looked for (default: %(default)s)",
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
        help="look for trials in this folder first: published results (python -m rdx export "
        "results), or copies of their trial.json and per_query.parquet, side by side, anywhere "
        "below it; TREC runs are not read here, but measured and recorded by python -m rdx import",
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
    return analyse(arguments.name, arguments, arguments.out)


def _check(name: str, arguments: argparse.Namespace, out: Path | None) -> int:
    """Check one experiment; nothing is read but its file and the configuration."""
    from analysis.check import check
    from rdx.config import find_extensions

    if folders.experiment(name) is None:
        return _fail(_unknown(name))
    find_extensions()
    try:
        outline = check(name)
    except faults.Mendable as error:
        return _fail(_told(name, error))
    if arguments.json:
        print(facts.dump(outline))
    return 0


def _analyse(name: str, arguments: argparse.Namespace, out: Path | None) -> int:
    """Analyse one experiment or grid."""
    # Late, so that --help and a misspelt name answer at once.
    from rdx.store.grids import read_grid

    grid = None
    if not name or folders.experiment(name) is None:
        try:
            grid = read_grid(arguments.store, name)
        except ValueError as error:
            return _fail(f"{_unknown(name)}; {error}" if name else f"{error}; {_known()}")
    from analysis import report, sources, stored, summary, trials
    from rdx.config import find_extensions

    find_extensions()
    command = f"python -m rdx +experiments={name}"
    try:
        source = sources.of_grid(grid, arguments.store) if grid else sources.of_spec(name)
        if arguments.folder:
            source = sources.as_published(source, arguments.folder)
        command = source.command
        finished = trials.load(source, arguments.tracking_uri, arguments.folder)
        numbers = summary.summarise(source.spec, finished)
    except stored.NoTrialsError as error:
        return _fail(f"{error}; to train the cells: {command}")
    except faults.Mendable as error:
        return _fail(f"grid {grid.grid}: {error}" if grid else _told(name, error))

    paths = report.write(numbers, out or Path("results") / source.name)
    print(report.terminal(numbers, arguments.full))
    if finished.missing:
        print(f"to run the missing cells: {command}")
    print(f"\n{_where(paths)}")
    pages = [path for path in paths if path.suffix == ".html"]
    try:
        uri = arguments.tracking_uri
        run = trials.log_report(source.name, pages, uri, source.grid) if pages else ""
    except OSError as error:  # a record of somebody else
        run = ""
        print(f"report.html is not with the grid's run in MLflow: {error}", file=sys.stderr)
    if run:
        print(f"report.html is also with the grid's run in MLflow: {run}")
    return 0


def _where(paths: Sequence[Path]) -> str:
    """Where to look: the page by its path, then how many files lie beside it."""
    page = next(path for path in paths if path.suffix == ".html")
    tables = [path.name for path in paths if path.name.startswith("table.")]
    figures = {path.stem for path in paths if path.name.startswith("figure-")}
    drawn = f"; {counted(len(figures), 'figure')}" if figures else ""
    return f"look at: {page}\nbeside it: {', '.join(tables)}{drawn} (--full prints all tables)"


def _known() -> str:
    return f"experiments: {', '.join(specs())}"


def _unknown(name: str) -> str:
    return f"no experiment {name!r}; there are: {', '.join(specs())}{near(name, specs())}"


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
