"""Launch the cells of a grid, record them as a table, and report what was computed."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from rdx import folders, progress, scored, stages
from rdx.artifacts import Evaluated
from rdx.config import Cell, build
from rdx.facts import TrialFacts
from rdx.plan.cautions import cautions
from rdx.store import signature
from rdx.text import as_typed, counted
from rdx.tracking import Row

if TYPE_CHECKING:
    from rdx.pipeline import Summary


def sweep(
    launcher: Launcher, arguments: list[str], hydra: Sequence[str] = (), retry: bool = False
) -> None:
    """Launch every distinct cell of a grid and say at the end what was computed.

    A failed cell does not stop the others.

    Parameters
    ----------
    hydra
        The command line's overrides of Hydra itself, kept for a later `retry`.
    retry
        Launch only the cells that failed or were killed; those whose memory did not suffice with
        smaller micro-batches.

    Raises
    ------
    SystemExit
        With status 1 when a cell failed, after all have run.
    """
    cells = stages.distinct(stages.cells(arguments))
    for line in cautions(cells):
        print(f"WARNING  {line}")
    if pinned := sorted({override.lstrip("+") for cell in cells for override in cell.pinned}):
        print(f"Chosen by this machine, for workers on others too: {' '.join(pinned)}")
    grid, root = _grid_id(arguments, cells), Path(cells[0].cfg["store"])
    named = f"{grid}{option(root)}"
    progress.write_grid(root, grid, cells, arguments, hydra)
    chosen = cells if not retry else [c for c in cells if _standing(c).state in progress.TO_RETRY]
    if not retry:
        print(
            f"{grid}: {counted(len(cells), 'cell')}; how they stand: python -m rdx status {named}",
            flush=True,
        )
    track = build(cells[0].cfg["tracking"], "tracking")
    shown = _claim(cells[0]), str(cells[0].cfg["evaluation"]["measures"][0])
    track.log_grid(root, grid, [_row(cell, None) for cell in cells], *shown)
    jobs = [
        [*c.overrides, *c.pinned, *progress.smaller(root, c.signature), f"grid={grid}"]
        for c in chosen
    ]
    returned = launcher.launch(jobs, initial_job_idx=0) if jobs else []
    results = {c.signature: result for c, result in zip(chosen, returned, strict=True)}
    done = [r for r in results.values() if r.status == JobStatus.COMPLETED]
    rows = [_row(cell, results.get(cell.signature)) for cell in cells]
    track.log_grid(root, grid, rows, *shown)
    print(report([r.return_value for r in done]))
    if scores := scored.table(cells, rows, shown[1]):
        print(f"\n{scores}\n")
    if done:
        print(f"The answer, with tests and figures: python -m analysis {named}")
    failed = [c for c in chosen if not _completed(results.get(c.signature))]
    for cell in failed:
        print("\n".join(_failure(cell, results.get(cell.signature))))
    if failed:
        print(f"{len(failed)} of {len(chosen)} failed; these again: python -m rdx retry {named}")
        raise SystemExit(1)


def option(root: Path) -> str:
    """What `status` and `retry` must be told of a store; nothing of the default one."""
    if root.absolute() == Path("store").absolute():
        return ""
    return f" --store {shlex.quote(str(as_typed(root)))}"


def _claim(cell: Cell) -> str:
    return str((cell.cfg["spec"] or {}).get("claim") or "").strip()


def _standing(cell: Cell) -> progress.Standing:
    return progress.standing(Path(cell.cfg["store"]), cell.signature)


def _completed(result: JobReturn | None) -> TypeGuard[JobReturn]:
    return result is not None and result.status == JobStatus.COMPLETED


def _failure(cell: Cell, result: JobReturn | None) -> list[str]:
    """The lines of a failed cell; where the store could not be written, the error itself."""
    stood = _standing(cell)
    error = getattr(result, "_return_value", None)
    if stood.state in progress.TO_RETRY:
        cause = f" ({progress.cause(error)})" if stood.state == "killed" and error else ""
        return progress.failure(cell.overrides, stood.state, stood.cause + cause, stood.log)
    if isinstance(error, BaseException):
        kind, why = progress.kind(error), progress.cause(error)
        return progress.failure(cell.overrides, kind, why, "")
    return progress.failure(cell.overrides, "failed", f"it is {stood.state}; see above", "")


def report(summaries: list[Summary]) -> str:
    """One line: how many stages were computed, and how many came from the store."""
    seen: dict[str, str] = {}
    stored: Counter[str] = Counter()
    for summary in summaries:
        for stage, how in summary.stages.items():
            if how == "computed":
                seen[stage] = how
            else:
                stored[stage.split("/")[0]] += 1
    computed = Counter(stage.split("/")[0] for stage in seen)

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{stage} {n}" for stage, n in sorted(counts.items())) or "none"

    return (
        f"{counted(len(summaries), 'cell')} finished. Stages computed: {sum(computed.values())} "
        f"({listed(computed)}); taken from the store: {sum(stored.values())} ({listed(stored)})"
    )


def _row(cell: Cell, result: JobReturn | None) -> Row:
    """What is recorded of a cell of a grid, launched just now or not."""
    standing = _standing(cell)
    row = Row(signature=cell.signature, overrides=" ".join(cell.overrides))
    if _completed(result):
        facts: TrialFacts = result.return_value.facts
        return replace(row, state="finished", health=facts.health, means=facts.means)
    if result is None and standing.state == "finished":
        folder = Path(cell.cfg["store"], stages.EVALUATE.name, cell.signature)
        try:
            facts = Evaluated(folder).facts
        except OSError:  # running it says what, or makes it again
            return replace(row, state="unreadable")
        return replace(row, state="finished", health=facts.health, means=facts.means)
    return replace(row, state="failed" if standing.state == "finished" else standing.state)


def _grid_id(arguments: list[str], cells: list[Cell]) -> str:
    """The same grid has the same id whenever it is launched."""
    name = next((a.split("=", 1)[1] for a in arguments if a.startswith("+experiments=")), "grid")
    return f"{folders.title(name)}-{signature(sorted(list(cell.overrides) for cell in cells))[:8]}"
