"""Classes that a configuration may name, and the nodes that name them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from rdx.config.schema import GROUPS, Config, ConfigError
from rdx.declared import Mark, marked, marks, names_place, types_of
from rdx.facts import origins_of

# An environment variable, so that a configuration cannot extend its own allow-list.
EXTENSIONS = "RDX_EXTENSIONS"
MUST_BE = f"must be a class of rdx, or of a package that the variable {EXTENSIONS} names"


def allowed(target: str) -> bool:
    """Whether a `_target_` lies in rdx or in a declared package."""
    declared = (name.strip() for name in os.environ.get(EXTENSIONS, "").split(","))
    return any(target.startswith(f"{name}.") for name in ("rdx", *declared) if name)


def find_extensions() -> None:
    """Let declared packages in the working folder be imported by console scripts, as by `-m`."""
    here = os.getcwd()
    if os.environ.get(EXTENSIONS) and not sys.flags.safe_path and here not in sys.path:
        sys.path.append(here)


def class_named(target: str) -> type:
    """The class of a `_target_`: neither a function, nor what its module only imports.

    Raises
    ------
    ConfigError
        If there is none, or it is neither rdx's nor of a declared package.
    """
    if not allowed(target):
        raise ConfigError(MUST_BE)
    return _class_named(target, os.environ.get(EXTENSIONS, ""), tuple(sys.path))


@lru_cache(maxsize=512)
def _class_named(target: str, extensions: str, path: tuple[str, ...]) -> type:
    """Import the class; cached per set of extensions and import path."""
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (AttributeError, ModuleNotFoundError) as error:
        raise ConfigError(str(error)) from error
    if not (isinstance(cls, type) and allowed(f"{cls.__module__}.{name}")):
        raise ConfigError(MUST_BE)
    return cls


def class_of(node: Any) -> type | None:
    """The class that a node names; None if it names none that may be built."""
    if not isinstance(node, dict) or "_target_" not in node:
        return None
    try:
        return class_named(str(node["_target_"]))
    except ConfigError:
        return None


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a plain configuration that has a `_target_`, the outer ones first."""
    for _, node in _located(tree, ""):
        yield node


def with_mark(cfg: Config, mark: Mark) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Path, node and field of every field with a mark in the groups of a configuration.

    Those of the cells that its students come from are among them, as in "start/teacher".
    """
    for path, node in _in_groups(cfg):
        for name in marked(class_of(node), mark):
            yield path, node, name


def places(cfg: Config) -> Iterator[tuple[str, Any, Any]]:
    """Key, value and type of every field that names a place, in the groups of a configuration."""
    for path, node in _in_groups(cfg):
        cls = class_of(node)
        for name, field_marks in marks(cls).items() if cls else ():
            if cls and name in node and names_place(field_marks):
                yield f"{path}.{name}", node[name], types_of(cls)[name]


def lineage(cfg: Config) -> Iterator[tuple[str, Config]]:
    """A configuration, and those of the cells that its students come from, each with its path.

    The path of the configuration itself is "", of the others as in "start" and "start/start".
    """
    yield "", cfg
    for key, origin in origins_of(cfg).items():
        for path, other in lineage(origin.cell) if origin.cell else ():
            yield f"{key}/{path}".rstrip("/"), other


def _in_groups(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a `_target_` in the groups of a configuration and its lineage."""
    for of, own in lineage(cfg):
        for group in GROUPS:
            yield from _located(own.get(group), f"{of}/{group}" if of else group)


def _located(tree: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from _located(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _located(value, f"{path}[{i}]")
