"""Configuration to objects: the only place that instantiates."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

from rdx import security
from rdx.arguments import near
from rdx.config.schema import GROUPS, Cell, ConfigError
from rdx.faults import line

EXTENSIONS = "RDX_EXTENSIONS"  # a variable, not a key: no configuration may widen what it may name


def build(node: Any, where: str) -> Any:
    """Turn a node with `_target_` into an object, its nested nodes first.

    The only place that instantiates. Targets are classes of rdx and of the packages that the
    environment variable RDX_EXTENSIONS names (with commas between), and nothing else: neither
    functions, nor what those only import.

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
    module, _, name = target.rpartition(".")
    if not allowed(target):
        raise ConfigError(f"{where}._target_={target}: {MUST_BE}")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (AttributeError, ModuleNotFoundError) as error:
        raise ConfigError(f"{where}._target_={target}: {error}") from error
    if not (isinstance(cls, type) and allowed(f"{cls.__module__}.{name}")):
        raise ConfigError(f"{where}._target_={target}: {MUST_BE}")
    arguments = {k: build(v, f"{where}.{k}") for k, v in node.items() if k != "_target_"}
    valid = inspect.signature(cls).parameters
    for key in arguments:
        if key not in valid:
            told = f"{where}.{key}: no such key{near(key, valid)}; valid: {list(valid)}"
            raise ConfigError(told)
    for key, parameter in valid.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and key not in arguments and not variadic:
            raise ConfigError(f"{where}.{key}: no value; give it as {where}.{key}=...")
    _check_types(cls, arguments, where)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        message = str(error)
        prefix = "" if message.startswith(f"{where}.") else f"{where}: "
        raise ConfigError(f"{prefix}{message}") from error


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


def check(cell: Cell) -> None:
    """Build every object of a cell (cheap: nothing is loaded or computed) to find bad values.

    Raises
    ------
    ConfigError
        On a bad value; or if a value holds a key or password, for all values are recorded.
    """
    key = security.exposed({name: node for name, node in cell.cfg.items() if name != "spec"})
    if key:
        raise ConfigError(
            f"{key}: holds a key or password, and configurations are recorded; leave it in an "
            "environment variable (docs/security.md)"
        )
    if not cell.cfg["store"]:
        raise ConfigError("store: no value; give it as store=FOLDER")
    for group in GROUPS:
        node = cell.cfg[group]
        if isinstance(node, dict) and "_target_" not in node:
            raise ConfigError(f"{group}={cell.levels.get(group)}: this option has no _target_")
        try:
            built = build(node, group)
            tests = getattr(built, "collections", {}).values()  # of `evaluation`
            for one in (built, *(test_set.data for test_set in tests)):
                if hasattr(one, "check"):
                    one.check()
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(line(error)) from error
    _check_limits(cell.cfg.get("limits") or {})
    _check_dev(cell.cfg)


def check_all(every: Sequence[Cell]) -> None:
    """`check` the cells of a grid; the error names the cell, if there are several."""
    for cell in every:
        try:
            check(cell)
        except ConfigError as error:
            if len(every) == 1:
                raise
            raise ConfigError(f"{error} (in the cell {' '.join(cell.overrides)})") from error


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


def _check_dev(cfg: dict[str, Any]) -> None:
    """Refuse what needs dev queries where none are held out, which showed after the training."""
    wants = {"evaluation.interpolate": cfg["evaluation"].get("interpolate")}
    if isinstance(cfg["loss"], dict):
        wants["trainer.validate_every"] = cfg["trainer"].get("validate_every")
    for key, value in wants.items():
        if value and cfg["data"].get("dev", 1) == 0:
            off = "false" if value is True else "null"
            raise ConfigError(
                f"{key}={str(value).lower()}: needs dev queries; give data.dev=0.1, or {key}={off}"
            )
