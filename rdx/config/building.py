"""Configuration to objects: the only place that instantiates."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

from rdx.config.schema import GROUPS, Cell, ConfigError, near


def build(node: Any, where: str) -> Any:
    """Turn a node with `_target_` into an object, its nested nodes first.

    The only place that instantiates. Targets are classes of rdx and nothing else.

    Raises
    ------
    ConfigError
        If a key is not an argument of the class (valid ones are listed) or a value is refused.
    """
    if isinstance(node, list):
        return [build(item, f"{where}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {key: build(value, f"{where}.{key}") for key, value in node.items()}
    target = str(node["_target_"])
    if not target.startswith("rdx."):
        raise ConfigError(f"{where}._target_={target}: must be a class of rdx")
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (AttributeError, ModuleNotFoundError) as error:
        raise ConfigError(f"{where}._target_={target}: {error}") from error
    arguments = {k: build(v, f"{where}.{k}") for k, v in node.items() if k != "_target_"}
    valid = list(inspect.signature(cls).parameters)
    for key in arguments:
        if key not in valid:
            raise ConfigError(f"{where}.{key}: no such key{near(key, valid)}; valid: {valid}")
    _check_types(cls, arguments, where)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        message = str(error)
        prefix = "" if message.startswith(f"{where}.") else f"{where}: "
        raise ConfigError(f"{prefix}{message}") from error


def check(cell: Cell) -> None:
    """Build every object of a cell (cheap: nothing is loaded or computed) to find bad values."""
    for group in GROUPS:
        node = cell.cfg[group]
        try:
            built = build(node, group)
            tests = getattr(built, "collections", {}).values()  # of `evaluation`
            for one in (built, *(test_set.data for test_set in tests)):
                if hasattr(one, "check"):
                    one.check()
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"{error}\n  in: python -m rdx {' '.join(cell.overrides)}") from error
    _check_limits(cell.cfg.get("limits") or {})


def _check_types(cls: type, arguments: dict[str, Any], where: str) -> None:
    """Refuse a text where a number is meant: dataclasses do not check by themselves."""
    if not dataclasses.is_dataclass(cls):
        return
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str}
    for f in dataclasses.fields(cls):
        if f.name not in arguments:
            continue
        value, annotation = arguments[f.name], str(f.type)
        allowed = [k for k in kinds if k in annotation.replace(" ", "").split("|")]
        if not allowed or (value is None and "None" in annotation):
            continue
        right = any(isinstance(value, kinds[k]) for k in allowed)  # type: ignore[arg-type]
        if not right or (isinstance(value, bool) and "bool" not in allowed):
            raise ConfigError(f"{where}.{f.name}={value!r}: must be {annotation}")


def _check_limits(limits: dict[str, Any]) -> None:
    """Refuse what is no share; the names are those of conf/config.yaml, which Hydra checks."""
    for name, limit in limits.items():
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (number and 0 <= limit <= 1):
            raise ConfigError(f"limits.{name}={limit!r}: must be a share from 0 to 1, or null")
