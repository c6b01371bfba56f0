"""A multirun over the cells of a command line, or of a spec's named sub-grids."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hydra.core.utils import JobStatus

from rdx.config import cells
from rdx.store import signature


def sweep(launcher: Any, arguments: list[str]) -> None:
    """Launch every distinct cell of a grid and say at the end what was computed.

    A failed cell does not stop the others.

    Raises
    ------
    SystemExit
        With status 1 when a cell failed, after all have run.
    """
    jobs = _distinct(arguments)
    grid = _grid_id(arguments, jobs)
    results = launcher.launch([[*job, f"grid={grid}"] for job in jobs], initial_job_idx=0)
    print(report([r.return_value for r in results if r.status == JobStatus.COMPLETED]))
    failed = [r for r in results if r.status != JobStatus.COMPLETED]
    for result in failed:
        command = " ".join(o for o in result.overrides if not o.startswith("grid="))
        print(f"FAILED  python -m rdx {command}\n        {result._return_value!r}")
    if failed:
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


def _distinct(arguments: list[str]) -> list[list[str]]:
    """The command lines of distinct cells, in order."""
    found = {cell.signature: list(cell.overrides) for cell in reversed(cells(arguments))}
    return list(reversed(found.values()))


def _grid_id(arguments: list[str], jobs: list[list[str]]) -> str:
    """The same grid has the same id whenever it is launched."""
    name = next((a.split("=", 1)[1] for a in arguments if a.startswith("+experiments=")), "grid")
    return f"{name}-{signature(sorted(jobs))[:8]}"
