"""The root of the configuration, its groups, and the error of a bad one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from rdx.faults import Mendable

GROUPS = (
    *("data", "sampler", "depth", "teacher", "prefinetune", "loss", "student"),
    *("budget", "trainer", "evaluation", "tracking"),
)


class ConfigError(Mendable, ValueError):
    """A configuration that cannot be run; the message names the key and lists what is valid."""


@dataclass
class Root:
    """The root of the configuration; the groups are plain classes, checked when they are built."""

    data: Any = None
    sampler: Any = None
    depth: Any = None
    teacher: Any = None
    prefinetune: Any = None
    loss: Any = None
    student: Any = None
    budget: Any = None
    trainer: Any = None
    evaluation: Any = None
    tracking: Any = None
    seed: int = 1
    force: bool = False
    store: str = "store"
    grid: str = ""
    limits: Any = None
    spec: Any = None


ConfigStore.instance().store(name="schema", node=Root)


@dataclass(frozen=True)
class Cell:
    """One full configuration of the grid.

    Attributes
    ----------
    overrides
        The command line that gives it.
    grid
        Name of the sub-grid of the spec; "" for the command line.
    cfg
        The resolved configuration.
    levels
        Option chosen per config group, the factor levels of the cell.
    signature
        Signature of the cell: of its last step (`rdx.stages.signed`); "" before it is signed.
    keys
        Signature of every step, by its name.
    pinned
        Overrides for what the machine chose (`rdx.config.machine`), for workers elsewhere.
    """

    overrides: tuple[str, ...]
    grid: str
    cfg: dict[str, Any]
    levels: dict[str, str] = field(default_factory=dict)
    signature: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a plain configuration that has a `_target_`, the outer ones first."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from nodes(one)


def located(cfg: dict[str, Any], targets: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Nodes of the groups whose `_target_` is one of these, each with its path; outer first."""
    for group in GROUPS:
        yield from _located(cfg.get(group), group, targets)


def _located(tree: Any, path: str, targets: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(tree, dict):
        if tree.get("_target_") in targets:
            yield path, tree
        for key, value in tree.items():
            yield from _located(value, f"{path}.{key}", targets)
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _located(value, f"{path}[{i}]", targets)


# What Hydra takes as the key of an override.
_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def pinning(key: str, value: str) -> list[str]:
    """The override that gives a key a text, if the key can be one of an override."""
    return [f"++{key}='{value}'"] if _KEY.fullmatch(key) else []
