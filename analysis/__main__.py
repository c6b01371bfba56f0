"""``python -m analysis NAME``: the table and the figure of ``experiments/NAME.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
DESCRIPTION = """\
Make the table and the figure of an experiment from the trials that MLflow holds.

NAME is a file of experiments/ without its suffix. The spec in it is expanded to cells again, each
cell's newest finished trial is found by its signature, and the stored per-query values become
means, paired t-tests with Holm's correction against the declared baseline, and one figure.
Nothing is trained; a cell that has not been run prints as "–" and is listed.
"""
EPILOG = """\
examples:
  python -m rdx +experiments=demo     train the cells of experiments/demo.yaml
  python -m analysis demo             print its table; write results/demo/
"""
FILES = "table.md, table.tex, table.csv, figure.pdf, figure.png"


def parser() -> argparse.ArgumentParser:
    """Command line of ``python -m analysis``."""
    arguments = argparse.ArgumentParser(
        prog="python -m analysis",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("name", metavar="NAME", help=f"one of: {', '.join(specs()) or '(none)'}")
    arguments.add_argument(
        "--tracking-uri",
        metavar="URI",
        default="sqlite:///mlflow.db",
        help="where MLflow keeps the runs (default: %(default)s, in the working directory)",
    )
    arguments.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help=f"folder for {FILES} (default: results/NAME)",
    )
    return arguments


def specs() -> list[str]:
    """Names of the specs in ``experiments/``."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 also when cells are missing, 2 when there is nothing to work on."""
    arguments = parser().parse_args(argv)
    if arguments.name not in specs():
        return _fail(f"no experiment {arguments.name!r}; there are: {', '.join(specs())}")

    # Late, so that --help and a misspelt name answer at once.
    from analysis import report, summary, trials
    from analysis.comparability import ComparabilityError
    from analysis.spec import SpecError, parse
    from rdx.config import ConfigError, load_spec

    command = f"python -m rdx +experiments={arguments.name}"
    try:
        spec = parse(load_spec(arguments.name))
        found = trials.load(arguments.name, arguments.tracking_uri)
        numbers = summary.summarise(spec, found)
    except trials.NoTrialsError as error:
        return _fail(f"{error}; to train the cells: {command}")
    except (ConfigError, SpecError, ComparabilityError, trials.TrialError) as error:
        return _fail(str(error))

    paths = report.write(numbers, arguments.out or Path("results") / arguments.name)
    print(report.terminal(numbers))
    if found.missing:
        print(f"to run the missing cells: {command}")
    print("\nwritten:", *paths, sep="\n  ")
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
