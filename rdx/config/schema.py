"""The root of the configuration, its groups, and the error of a bad one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
# conf/experiments links to experiments/, which is a config group too: `+experiments=demo`. (The
# project folder itself must not be searched: its folder store/ would be taken for a group.)
GROUPS = (
    *("data", "sampler", "depth", "teacher", "prefinetune", "loss", "student"),
    *("budget", "trainer", "evaluation", "tracking"),
)


class ConfigError(ValueError):
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
        Signature of the cell: of its last stage.
    keys
        Signature of every stage (`signatures`).
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


def near(key: str, valid: Iterable[str]) -> str:
    """A hint at the valid key that looks most like a wrong one; "" if none does."""
    close = difflib.get_close_matches(key, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
