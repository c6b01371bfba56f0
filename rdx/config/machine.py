"""Values that a configuration leaves to the machine: resolved before they are signed."""

from __future__ import annotations

from typing import Any

from rdx import precision
from rdx.config.schema import located, pinning

# Classes whose precision the machine decides where the configuration has "auto", or does not say.
PRECISE = frozenset(
    (
        "rdx.trainer.Trainer",
        "rdx.teachers.QueryLikelihood",
        "rdx.teachers.Local",
        "rdx.samplers.ColBERT",
    )
)


def resolve_precision(cfg: dict[str, Any], assumed: str | None = None) -> tuple[str, ...]:
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
    for path, node in located(cfg, PRECISE):
        if node.get("precision", precision.AUTO) == precision.AUTO:
            node["precision"] = assumed or precision.chosen(precision.AUTO, _device(node))
            overrides += pinning(f"{path}.precision", node["precision"])
    return tuple(overrides)


def precisions(cfg: dict[str, Any]) -> dict[str, str]:
    """Every precision of a resolved configuration, by its key."""
    return {f"{path}.precision": str(node["precision"]) for path, node in located(cfg, PRECISE)}


def emulated(cfg: dict[str, Any]) -> list[str]:
    """Keys of a precision "bf16" that this machine's CPU would emulate."""
    return [
        f"{path}.precision"
        for path, node in located(cfg, PRECISE)
        if node["precision"] == "bf16" and not precision.native_bf16(_device(node))
    ]


def _device(node: dict[str, Any]) -> str:
    return str(node.get("device", "auto"))
