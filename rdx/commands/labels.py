"""`python -m rdx teach`: label without training; or compare a teacher with what others report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rdx import config, rankings
from rdx.arguments import Parser
from rdx.commands.checks import check
from rdx.config import Cell
from rdx.facts import Audit
from rdx.store import read_record
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
    options = parser.parse_intermixed_args(arguments)
    cells = config.cells(options.overrides)
    check(cells, options.overrides)
    cells = config.distinct(cells, "teach")
    other = rankings.read_trec(options.against, order="rank") if options.against else None
    for cell in cells:
        print(f"== {' '.join(cell.overrides) or 'defaults'}", flush=True)
        if options.calibrate:
            _calibrate(cell)
            continue
        folder = _label(cell, options.again)
        _report(folder, cell, other)
        if options.export:
            name = folder.name if len(cells) > 1 else ""
            _export(folder, cell, Path(options.export) / name)


def _label(cell: Cell, again: bool) -> Path:
    from rdx import labels

    return labels.label({**cell.cfg, "grid": "teach"}, cell.levels, again)


def _report(folder: Path, cell: Cell, other: pd.DataFrame | None) -> None:
    """Print the audit of a teacher ranking."""
    from rdx import labels, pipeline
    from rdx.teachers.audit import summary

    if other is None:
        audit = read_record(Audit, folder / pipeline.AUDIT)
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
    ranking = rankings.read_parquet(folder / "teacher.parquet")
    usable = ranking[ranking.state.isin(rankings.USABLE)]
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
    for name, values in labels.calibrate(cell.cfg).items():
        known = published.get(name)
        print(
            f"   {name}: teacher {values['teacher']:.4f} +- {values['half_width']:.4f} (95 % over "
            f"{counted(int(values['queries']), 'query')}), first stage "
            f"{values['first_stage']:.4f}, oracle {values['oracle']:.4f}, "
            f"{counted(int(values['left_out']), 'list')} failed"
            + ("" if known is None else f"; published {known:.4f}")
        )
        if known is None:
            print(f"   (nothing to compare: teacher.published.{name} is not given)")
        elif abs(values["teacher"] - known) > values["half_width"]:
            print(
                f"   WARNING: {name}: {values['teacher']:.4f} differs from the published "
                f"{known:.4f} by more than the 95 % interval. Same first stage, depth, prompt, "
                "window and judgements? Do not label thousands of queries before this is explained."
            )
        elif values["left_out"]:
            print(f"   WARNING: {name}: failed lists stand in the order of the first stage")
