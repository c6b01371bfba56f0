"""Precisions that a configuration leaves to the machine, resolved before they are signed."""

from __future__ import annotations

from typing import Any

from rdx import precision
from rdx.config.classes import with_mark
from rdx.config.schema import Config, pinning
from rdx.declared import PRECISION


def resolve_precision(cfg: Config, assumed: str | None = None) -> tuple[str, ...]:
    """Replace every precision "auto" of a resolved configuration by the one chosen here.

    Parameters
    ----------
    assumed
        "bf16" or "fp32": what another machine would choose, to find what it computed.

    Returns
    -------
    tuple of str
        Overrides that make the same choices on any machine: workers of a grid get them, so that
        all cells of it are computed, signed and found alike, wherever they run.
    """
    overrides: list[str] = []
    for path, node, name in with_mark(cfg, PRECISION):
        if node.get(name, precision.AUTO) == precision.AUTO:
            node[name] = assumed or precision.chosen(precision.AUTO, _device(node))
            overrides += pinning(f"{path}.{name}", node[name])
    return tuple(overrides)


def precisions(cfg: Config) -> dict[str, str]:
    """Every precision of a resolved configuration, by its key."""
    return {f"{path}.{name}": str(node[name]) for path, node, name in with_mark(cfg, PRECISION)}


def emulated(cfg: Config) -> list[str]:
    """Keys of a precision "bf16" that this machine's CPU would emulate."""
    return [
        f"{path}.{name}"
        for path, node, name in with_mark(cfg, PRECISION)
        if node[name] == "bf16" and not precision.native_bf16(_device(node))
    ]


def _device(node: dict[str, Any]) -> str:
    return str(node.get("device", "auto"))
