"""Hydra's composer on conf/, and its parser of overrides."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from rdx import folders

# Cells are sent from several threads. It lies here, since a worker that sends its cell again
# pickles the functions of the plugin with all that they name.
COMPOSING = threading.Lock()


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's composer on conf/, also inside a running Hydra job."""
    before = GlobalHydra.instance().hydra
    if before is not None and getattr(composing, "depth", False):
        yield
        return
    GlobalHydra.instance().clear()
    composing.depth = getattr(composing, "depth", 0) + 1  # type: ignore[attr-defined]
    try:
        with initialize_config_dir(str(folders.CONF), version_base="1.3"):
            yield
    finally:
        composing.depth -= 1  # type: ignore[attr-defined]
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


@contextmanager
def remembering() -> Iterator[None]:
    """Compose a command line once: for our checks, for Hydra's mode, and for its run."""
    load = ConfigLoaderImpl.load_configuration
    known: dict[tuple[str | None, tuple[str, ...], RunMode], tuple[str, bytes]] = {}

    def load_configuration(
        self: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        **more: Any,
    ) -> DictConfig:
        key, job = (config_name, tuple(overrides), run_mode), JobRuntime.instance().get("name")
        if key not in known:
            cfg = load(self, config_name, overrides, run_mode, **more)
            known.clear()  # a grid has many
            known[key] = (job, pickle.dumps(cfg))
            return cfg
        before, pickled = known[key]
        cfg = pickle.loads(pickled)
        if cfg.hydra.job.name == before:  # of whoever asked first
            with read_write(cfg.hydra), open_dict(cfg.hydra):
                cfg.hydra.job.name = job
        return cfg

    with patch.object(ConfigLoaderImpl, "load_configuration", load_configuration):
        yield


@lru_cache(maxsize=4096)
def parsed(override: str) -> Override:
    """An override as Hydra reads it."""
    return OverridesParser.create().parse_override(override)
