"""The sweeper of rdx; Hydra loads sweepers from this package only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

IMPLIED = ("hydra.mode=", "+hydra.sweeper.retry=")  # by the verb `retry`


class GridSweeper(Sweeper):
    """Hydra's basic sweeper, plus the named sub-grids of `experiments/` and a closing report."""

    def __init__(
        self, max_batch_size: int | None = None, params: Any = None, retry: bool = False
    ) -> None:
        # The first two are those of Hydra's basic sweeper, whose configuration ours is merged into.
        self.retry = retry
        self.config: DictConfig | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all cells; see `rdx.sweeper.sweep`."""
        from rdx.sweeper import sweep  # Hydra imports every plugin at every start

        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        hydra = [o for o in self.config.hydra.overrides.hydra if not o.startswith(IMPLIED)]
        sweep(self.launcher, arguments, hydra, self.retry)
