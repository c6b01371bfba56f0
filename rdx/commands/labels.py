"""`python -m rdx teach`: label without training; or compare a teacher with what others report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rdx import ir_metadata, progress, rankings, stages
from rdx.arguments import Parser
from rdx.artifacts import TeacherRanking
from rdx.commands.checks import check, require_writable
from rdx.config import Cell
from rdx.stages import TEACH, Step
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
    cells = stages.cells(options.overrides)
    check(cells, options.overrides)
    require_writable("--export", options.export)
    cells = stages.distinct(cells, "teach")
    other = rankings.read_trec(options.against, order="rank") if options.against else None
    for cell in cells:
        print(f"== {' '.join(cell.overrides) or 'defaults'}", flush=True)
        if options.calibrate:
            _calibrate(cell)
            continue
        labels = _labels(cell, options.again)
        _report(labels, cell, other)
        if options.export:
            name = labels.folder.name if len(cells) > 1 else ""
            _export(labels, cell, Path(options.export) / name)


def _labels(cell: Cell, again: bool) -> TeacherRanking:
    from rdx import pipeline

    with progress.begun(Path(cell.cfg["store"]), cell, Step(TEACH.name)):
        return pipeline.label(cell, again)


def _report(labels: TeacherRanking, cell: Cell, other: pd.DataFrame | None) -> None:
    """Print the audit of a teacher ranking."""
    from rdx import pipeline
    from rdx.teachers.audit import summary

    audit = labels.audit if other is None else pipeline.audit_against(cell, labels, other)
    print(summary(audit))
    print(f"{'Stored':<15}{labels.folder}")


def _export(labels: TeacherRanking, cell: Cell, out: Path) -> None:
    """Write a teacher ranking as a described TREC run, its audit, and the answers behind it."""
    from rdx import evaluation
    from rdx.teachers.ledger import export

    out.mkdir(parents=True, exist_ok=True)
    usable = labels.ranking[labels.ranking.state.isin(rankings.USABLE)]
    run = out / "teacher.run.gz"
    rankings.write_trec(evaluation.as_ranking(usable), run, "rdx")
    ir_metadata.write(run, ir_metadata.of_labels(cell.cfg, cell.overrides))
    labels.write_audit(out, labels.audit)
    if labels.windows is not None:
        export(Path(cell.cfg["teacher"]["ledger"]), labels.windows.key, out)
    print(f"{'Exported':<15}{out}")


def _calibrate(cell: Cell) -> None:
    """Print nDCG@10 of teacher and first stage per test collection, beside published values."""
    from rdx import pipeline

    published = cell.cfg["teacher"].get("published") or {}
    for name, values in pipeline.calibrate(cell).items():
        known = published.get(name)
        print(
            f"   {name}: teacher {values.teacher:.4f} +- {values.half_width:.4f} (95 % over "
            f"{counted(values.queries, 'query')}), first stage {values.first_stage:.4f}, oracle "
            f"{values.oracle:.4f}, {counted(values.left_out, 'list')} failed"
            + ("" if known is None else f"; published {known:.4f}")
        )
        if known is None:
            print(f"   (nothing to compare: teacher.published.{name} is not given)")
        elif abs(values.teacher - known) > values.half_width:
            print(
                f"   WARNING: {name}: {values.teacher:.4f} differs from the published "
                f"{known:.4f} by more than the 95 % interval. Same first stage, depth, prompt, "
                "window and judgements? Do not label thousands of queries before this is explained."
            )
        elif values.left_out:
            print(f"   WARNING: {name}: failed lists stand in the order of the first stage")
