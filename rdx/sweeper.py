"""A multirun over the cells of a command line, or of a spec's named sub-grids."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hydra.core.utils import JobStatus

from rdx.config import Cell, build, cells
from rdx.store import signature


def sweep(launcher: Any, arguments: list[str]) -> None:
    """Launch every distinct cell of a grid and say at the end what was computed.

    A failed cell does not stop the others.

    Raises
    ------
    SystemExit
        With status 1 when a cell failed, after all have run.
    """
    found = _distinct(arguments)
    grid = _grid_id(arguments, found)
    jobs = [[*cell.overrides, f"grid={grid}"] for cell in found]
    results = launcher.launch(jobs, initial_job_idx=0)
    done = [r.status == JobStatus.COMPLETED for r in results]
    summaries = [r.return_value for r, ok in zip(results, done, strict=True) if ok]
    build(found[0].cfg["tracking"], "tracking").log_grid(grid, _rows(found, results))
    print(report(summaries))
    for cell, result, ok in zip(found, results, done, strict=True):
        if not ok:
            command = " ".join(cell.overrides)
            print(f"FAILED  python -m rdx {command}\n        {result._return_value!r}")
    if not all(done):
        raise SystemExit(1)


def report(summaries: list[dict[str, Any]]) -> str:
    """One line: how many stages were computed, and how many came from the store."""
    seen: dict[str, str] = {}
    stored: Counter[str] = Counter()
    for summary in summaries:
        for stage, how in summary["stages"].items():
            if how == "computed":
                seen[stage] = how
            else:
                stored[stage.split("/")[0]] += 1
    computed = Counter(stage.split("/")[0] for stage in seen)

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{stage} {n}" for stage, n in sorted(counts.items())) or "none"

    return (
        f"{len(summaries)} cells finished. Stages computed: {sum(computed.values())} "
        f"({listed(computed)}); taken from the store: {sum(stored.values())} ({listed(stored)})"
    )


def _rows(found: list[Cell], results: list[Any]) -> list[dict[str, Any]]:
    """What is recorded of each cell of a grid."""
    rows = []
    for cell, result in zip(found, results, strict=True):
        ok = result.status == JobStatus.COMPLETED
        summary = result.return_value if ok else {"health": None, "means": {}}
        rows.append(
            {
                "overrides": " ".join(cell.overrides),
                "signature": cell.signature,
                "state": "finished" if ok else "failed",
                "health": summary["health"],
                "means": summary["means"],
            }
        )
    return rows


def _distinct(arguments: list[str]) -> list[Cell]:
    """The distinct cells of a command line, in order."""
    found = {cell.signature: cell for cell in reversed(cells(arguments))}
    return list(reversed(found.values()))


def _grid_id(arguments: list[str], found: list[Cell]) -> str:
    """The same grid has the same id whenever it is launched."""
    name = next((a.split("=", 1)[1] for a in arguments if a.startswith("+experiments=")), "grid")
    return f"{name}-{signature(sorted(list(cell.overrides) for cell in found))[:8]}"
