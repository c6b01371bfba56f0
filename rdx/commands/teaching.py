"""`python -m rdx teach`: label without training; or compare a teacher with what others report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import config, rankings
from rdx.arguments import Parser
from rdx.config import Cell, ConfigError
from rdx.facts import Audit, parse
from rdx.faults import line
from rdx.fetching import require
from rdx.text import counted


def teach(arguments: Sequence[str]) -> None:
    """Label without training; or compare a teacher with what others report of it."""
    parser = Parser(
        prog="python -m rdx teach",
        description="Let teachers rank the candidates of the training queries; train nothing. "
        "Answers are kept: stop it whenever you like, and the same command goes on.",
    )
    parser.add_argument("overrides", nargs="*", help="as of python -m rdx; a grid, too")
    parser.add_argument(
        "--again",
        action="store_true",
        help="make a finished teacher ranking anew; only what was not answered is asked",
    )
    parser.add_argument(
        "--against", metavar="RUN", help="audit: compare with this teacher ranking (TREC run)"
    )
    parser.add_argument(
        "--export", metavar="FOLDER", help="write ranking, audit and answers there, to give away"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="rank the first stages of `evaluation` instead; compare with teacher.published",
    )
    given = parser.parse_intermixed_args(arguments)
    try:
        found = _distinct(given.overrides)
        other = rankings.read_trec(given.against, order="rank") if given.against else None
    except (ValueError, OSError) as error:
        sys.exit(f"rdx: {line(error)}")
    for cell in found:
        print(f"== {' '.join(cell.overrides) or 'defaults'}", flush=True)
        if given.calibrate:
            _asked(partial(_calibrate, cell))
            continue
        folder = _asked(partial(_label, cell, given.again))
        _report(folder, cell, other)
        if given.export:
            out = Path(given.export) / (folder.name if len(found) > 1 else "")
            _export(folder, cell, out)


def _distinct(overrides: Sequence[str]) -> list[Cell]:
    """The cells of a command line that differ in their labels, checked."""
    found = config.cells(overrides)
    require((cell.cfg for cell in found), overrides)
    config.check_all(found)
    config.require_models(cell.cfg for cell in found)
    return config.distinct(found, "teach")


def _asked(ask: Callable[[], Any]) -> Any:
    """Whatever `ask` gives; a teacher that stops ends the program with its message."""
    from rdx.teachers import Fatal, Stopped

    try:
        return ask()
    except (Fatal, Stopped, rankings.FormatError, ConfigError) as error:
        sys.exit(f"rdx: {line(error)}")


def _label(cell: Cell, again: bool) -> Path:
    from rdx import labels

    cfg = {**cell.cfg, "grid": "teach"}
    return labels.label(cfg, cell.levels, again)


def _report(folder: Path, cell: Cell, other: pd.DataFrame | None) -> None:
    """Print the audit of a teacher ranking."""
    from rdx import labels, pipeline
    from rdx.teachers.audit import summary

    if other is None:
        audit = parse(Audit, (folder / pipeline.AUDIT).read_text())
    else:
        audit = labels.audit_against(cell.cfg, folder, other)
    print(summary(audit))
    print(f"{'Stored':<15}{folder}")


def _export(folder: Path, cell: Cell, out: Path) -> None:
    """Write a teacher ranking as a TREC run, its audit, and the answers behind it."""
    from rdx import evaluation, pipeline
    from rdx.teachers import WINDOWS
    from rdx.teachers.ledger import export

    out.mkdir(parents=True, exist_ok=True)
    taught = rankings.read_parquet(folder / "teacher.parquet")
    usable = taught[taught.state.isin(rankings.USABLE)]
    rankings.write_trec(evaluation.as_ranking(usable), out / "teacher.run.gz", "rdx")
    (out / pipeline.AUDIT).write_text((folder / pipeline.AUDIT).read_text())
    if (folder / WINDOWS).exists():
        keys = rankings.read_parquet(folder / WINDOWS).key
        export(Path(cell.cfg["teacher"]["ledger"]), keys, out)
    print(f"{'Exported':<15}{out}")


def _calibrate(cell: Cell) -> None:
    """Print nDCG@10 of teacher and first stage per test collection, beside published values."""
    from rdx import labels

    published = cell.cfg["teacher"].get("published") or {}
    for name, found in labels.calibrate(cell.cfg).items():
        known = published.get(name)
        print(
            f"   {name}: teacher {found['teacher']:.4f} +- {found['half_width']:.4f} (95 % over "
            f"{counted(int(found['queries']), 'query')}), first stage {found['first_stage']:.4f}, "
            f"oracle {found['oracle']:.4f}, {counted(int(found['left_out']), 'list')} failed"
            + ("" if known is None else f"; published {known:.4f}")
        )
        if known is None:
            print(f"   (nothing to compare: teacher.published.{name} is not given)")
        elif abs(found["teacher"] - known) > found["half_width"]:
            print(
                f"   WARNING: {name}: {found['teacher']:.4f} differs from the published "
                f"{known:.4f} by more than the 95 % interval. Same first stage, depth, prompt, "
                "window and judgements? Do not label thousands of queries before this is explained."
            )
        elif found["left_out"]:
            print(f"   WARNING: {name}: failed lists stand in the order of the first stage")
