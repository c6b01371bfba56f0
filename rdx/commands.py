"""Verbs: `python -m rdx VERB ...`, each a small function."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rdx import config, rankings
from rdx.config import Cell, ConfigError

PER_QUERY = "per_query.parquet"


def teach(arguments: Sequence[str]) -> None:
    """Label without training; or compare a teacher with what others report of it."""
    parser = argparse.ArgumentParser(
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
        sys.exit(f"rdx: {error}")
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
    for cell in found:
        config.check(cell)
    return list({config.signatures(cell.cfg)["teach"]: cell for cell in reversed(found)}.values())[
        ::-1
    ]


def _asked(ask: Callable[[], Any]) -> Any:
    """Whatever `ask` gives; a teacher that stops ends the program with its message."""
    from rdx.teachers import Fatal, Stopped

    try:
        return ask()
    except (Fatal, Stopped, rankings.FormatError, ConfigError) as error:
        sys.exit(f"rdx: {error}")


def _label(cell: Cell, again: bool) -> Path:
    from rdx import labels

    cfg = {**cell.cfg, "grid": "teach"}
    return labels.label(cfg, cell.levels, again)


def _report(folder: Path, cell: Cell, other: pd.DataFrame | None) -> None:
    """Print the audit of a teacher ranking."""
    from rdx import labels, pipeline
    from rdx.teachers.audit import summary

    found = json.loads((folder / pipeline.AUDIT).read_text())
    if other is not None:
        found = labels.audit_against(cell.cfg, folder, other)
    print(summary(found))
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
            f"{found['queries']} queries), first stage {found['first_stage']:.4f}, oracle "
            f"{found['oracle']:.4f}, {found['left_out']} lists failed"
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


def export(arguments: Sequence[str]) -> None:
    """Release a finished cell: weights that other libraries load, and a model card."""
    parser = argparse.ArgumentParser(
        prog="python -m rdx export",
        description="Write the weights of a finished cell, a model card and its configuration.",
    )
    parser.add_argument("signature", help="of the cell, or an unambiguous beginning of it")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cell is")
    parser.add_argument("--licence", help="of the weights, e.g. apache-2.0")
    parser.add_argument("--name", help="of the model on its card; default: the folder's")
    parser.add_argument(
        "--form",
        default="transformers",
        help="transformers (also for sentence-transformers) or lightning_ir",
    )
    given = parser.parse_args(arguments)
    from rdx import export as release

    try:
        folder = release.export(
            given.store, given.signature, given.out, given.licence, given.name, given.form
        )
    except release.ExportError as error:
        sys.exit(f"rdx: {error}")
    print(f"{'Exported':<15}{folder}")


def evaluate(arguments: Sequence[str]) -> None:
    """Measure TREC runs without a model; or compare what finished cells cost per query."""
    parser = argparse.ArgumentParser(
        prog="python -m rdx evaluate",
        description="Measure TREC runs on a test collection: value, ceiling, Judged@10, missing "
        "queries, ties. With --efficiency: compare time, memory and energy of finished cells.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="TREC runs; signatures, see below")
    _of_collection(parser)
    parser.add_argument(
        "--out", type=Path, default=Path(PER_QUERY), help=f"per-query values; default {PER_QUERY}"
    )
    parser.add_argument(
        "--efficiency",
        action="store_true",
        help="RUNs are signatures of cells that ran with evaluation.efficiency=N; the first is the "
        "unit of the ratios",
    )
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the cells are")
    given = parser.parse_args(arguments)
    from rdx import systems

    if given.efficiency:
        _costs(_told(partial(systems.timings, given.store, given.runs)))
        return
    cell, names = _chosen(given)
    if len(names) > 1:
        sys.exit(f"rdx: --collection: name one of {', '.join(names)}")
    order = "rank" if cell.parts["evaluation"].ties == "rank" else given.order
    runs = [systems.Run(path, order) for path in given.runs]
    with_first = given.first_stage is not None
    table, rows = _told(partial(systems.evaluate, cell, names[0], runs, with_first))
    rankings.write_parquet(table, given.out)
    print(_scores(rows, list(cell.parts["evaluation"].measures)))
    for reason in dict.fromkeys(row["degenerate"] for row in rows if row["degenerate"]):
        print(f"WARNING: {names[0]} is degenerate: {reason}")
    print(f"ties: {cell.parts['evaluation'].ties}; per-query values: {given.out}")


def import_(arguments: Sequence[str]) -> None:
    """Register TREC runs of a system in MLflow, so that tables can hold it."""
    parser = argparse.ArgumentParser(
        prog="python -m rdx import",
        description="Register the runs of a system as a trial, comparable with the cells that were "
        "evaluated on the same collections and first stages.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="[COLLECTION:]RUN", help="one TREC run for every collection"
    )
    parser.add_argument("--name", required=True, help="tables name the system run:NAME")
    _of_collection(parser)
    parser.add_argument(
        "--outside",
        choices=("error", "drop"),
        default="error",
        help="passages that the first stage's top k lacks; drop: cut the run to it",
    )
    parser.add_argument("--source", default="", help="where the runs come from, for the record")
    given = parser.parse_args(arguments)
    from rdx import systems

    cell, names = _chosen(given)
    runs: dict[str, systems.Run] = {}
    for one in given.runs:
        head, colon, path = one.partition(":")
        known = colon and head in names
        if not known and len(names) > 1:
            sys.exit(f"rdx: {one}: for which collection? COLLECTION:RUN, of {', '.join(names)}")
        name = head if known else names[0]
        if name in runs:
            sys.exit(f"rdx: {one}: a second run for {name}")
        runs[name] = systems.Run(path if known else one, given.order)
    register = partial(
        systems.register, cell, given.name, runs, given.outside == "drop", given.source
    )
    key, facts = _told(register)
    for name, mean in facts["over_collections"]["collections"]["arithmetic"].items():
        print(f"   {name:42} {mean:.4f}")
    print(f"Registered run:{given.name} on {', '.join(runs)}; signature: {key}")


def _of_collection(parser: argparse.ArgumentParser) -> None:
    """What says on which collection, by which measures and against which candidates."""
    parser.add_argument(
        "--collection",
        nargs="+",
        default=[],
        metavar="WORD",
        help="an option of evaluation, Hydra overrides, names of its collections; e.g. "
        "evaluation=trec_dl dl19_bm25",
    )
    parser.add_argument("--measures", nargs="+", default=[], help="of ir_measures")
    parser.add_argument("--first-stage", metavar="RUN", help="the candidates, as a TREC run")
    parser.add_argument(
        "--order",
        choices=("score", "rank"),
        default="score",
        help="what orders a RUN: its scores, ties as trec_eval, or its rank column",
    )


def _chosen(given: argparse.Namespace) -> tuple[Any, list[str]]:
    """The cell of `systems.collections`; of `evaluate`, a first stage is needed only if given."""
    from rdx import systems

    first = given.first_stage
    if first is None and not hasattr(given, "name"):
        first = given.runs[0]  # stands in for one that is not asked for
    if not Path(first or ".").exists():
        sys.exit(f"rdx: {first}: no such file (in {Path.cwd()})")
    return _told(partial(systems.collections, given.collection, first, given.measures))


def _told(ask: Callable[[], Any]) -> Any:
    """Whatever `ask` gives; files and values that are not right end the program with a message."""
    try:
        return ask()
    except (ValueError, OSError) as error:
        sys.exit(f"rdx: {error}")


def _scores(rows: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    """The table of `evaluate`."""
    with_first = rows[0]["outside"] is not None
    heads = ["system", *measures, f"oracle {measures[0]}", "Judged@10", "queries", "missing"]
    heads += ["tied", *(["outside"] if with_first else [])]
    lines = [heads]
    for row in rows:
        numbers = [row[m] for m in measures] + [row["ceiling"], row["judged@10"]]
        shares = [row["ties"], *([row["outside"]] if with_first else [])]
        lines.append([
            row["system"],
            *(f"{value:.4f}" for value in numbers),
            *(str(row[key]) for key in ("queries", "missing")),
            *(f"{share:.1%}" for share in shares),
        ])  # fmt: skip
    return _aligned(lines)


def _costs(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of `evaluate --efficiency`."""
    heads = ["cell", "collection", "p50 ms", "p95 ms", "pairs/s", "RSS GB", "CUDA GB", "J/query"]
    lines = [[*heads, "times the first (95 %)"]]

    def shown(value: float | None, unit: float = 1) -> str:
        return "-" if value is None else f"{value / unit:.3g}"

    for row in rows:
        latency, memory, ratio = row["latency"], row["peak_memory"], row["ratio"]
        lines.append([
            row["cell"][:12],
            row["collection"],
            f"{1000 * latency['p50']:.1f}",
            f"{1000 * latency['p95']:.1f}",
            f"{row['pairs_per_second']:.0f}",
            *(shown(memory[kind], 1e9) for kind in ("rss", "cuda")),
            shown(row["energy"]["joules_per_query"]),
            "-" if ratio is None else "{:.3g} [{:.3g}, {:.3g}]".format(*ratio),
        ])  # fmt: skip
    print(_aligned(lines))
    for one in dict.fromkeys(json.dumps(row["hardware"], sort_keys=True) for row in rows):
        print(", ".join(f"{key}: {value}" for key, value in json.loads(one).items()))


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


VERBS = {"teach": teach, "export": export, "evaluate": evaluate, "import": import_}
