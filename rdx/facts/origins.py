"""Students from elsewhere, as a configuration holds them under `origins`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OriginNode:
    """A student that a cell takes from elsewhere (`rdx.stages.origins`).

    Attributes
    ----------
    given
        How it was named.
    cell
        Configuration of the cell that it is the result of; None: it lies in `folder`.
    folder
        The folder that was named; None of a cell.
    checkpoint
        Signature of its weights.
    """

    given: str
    cell: dict[str, Any] | None = None
    folder: str | None = None
    checkpoint: str


def origins_of(cfg: Mapping[str, Any]) -> dict[str, OriginNode]:
    """The students that a configuration takes from elsewhere, by the keys that name them."""
    return {key: OriginNode(**node) for key, node in (cfg.get("origins") or {}).items()}
