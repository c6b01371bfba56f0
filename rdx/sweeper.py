"""Hydra's multirun over the cells of a command line or of a spec's named sub-grids."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from rdx.config import cells, expand
from rdx.store import signature


class GridSweeper(Sweeper):
    """Launch every cell of a grid; a failed cell does not stop the others.

    Unlike Hydra's basic sweeper it knows the sub-grids of `experiments/`, runs a cell that two of
    them share once, gives all cells the grid's id, and says at the end what was computed.
    """

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        self.config: DictConfig | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all cells; raise SystemExit(1) when one failed."""
        assert self.config is not None
        OmegaConf.save(self.config, f"{_made(self.config.hydra.sweep.dir)}/multirun.yaml")
        jobs = _distinct(arguments)
        grid = _grid_id(arguments, jobs)
        results = self.launcher.launch(
            [[*job, f"grid={grid}"] for job in jobs], initial_job_idx=0
        )
        failed = [r for r in results if r.status != JobStatus.COMPLETED]
        print(report([r.return_value for r in results if r.status == JobStatus.COMPLETED]))
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
    jobs = [job for _, job in expand(arguments)]
    found = {cell.signature: list(cell.overrides) for cell in reversed(cells(arguments))}
    wanted = list(found.values())
    return [job for job in jobs if job in wanted]


def _grid_id(arguments: list[str], jobs: list[list[str]]) -> str:
    """The same grid has the same id whenever it is launched."""
    name = next((a.split("=", 1)[1] for a in arguments if a.startswith("+experiments=")), "grid")
    return f"{name}-{signature(sorted(jobs))[:8]}"


def _made(folder: str) -> str:
    from pathlib import Path

    Path(folder).mkdir(parents=True, exist_ok=True)
    return folder
