"""Hydra's composer on conf/, and its parser of overrides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

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


@lru_cache(maxsize=4096)
def parsed(override: str) -> Override:
    """An override as Hydra reads it."""
    return OverridesParser.create().parse_override(override)
