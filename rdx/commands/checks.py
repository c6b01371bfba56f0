"""Check the cells of a command line before any work starts."""

from __future__ import annotations

from collections.abc import Sequence

from rdx import config
from rdx.config import Cell
from rdx.fetching import require


def check(cells: Sequence[Cell], overrides: Sequence[str]) -> None:
    """Check values of cells, and that their data and models are here or can be fetched.

    Raises
    ------
    ConfigError, OSError
        Naming the first key that is wrong, or what is missing.
    """
    require((cell.cfg for cell in cells), overrides)
    config.check_all(cells)
    config.require_models(cell.cfg for cell in cells)
