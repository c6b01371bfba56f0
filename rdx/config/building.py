"""Build the objects of a configuration and check them: the only place that instantiates."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ValidationError

from rdx import security
from rdx.arguments import near
from rdx.config.classes import class_named, lineage, places
from rdx.config.paths import blank
from rdx.config.schema import GROUPS, Config, ConfigError, MissingFile
from rdx.config.wrong import or_null, placed, wrong
from rdx.declared import converted, types_of
from rdx.faults import line

if TYPE_CHECKING:
    from rdx.config.cell import Cell


def build(node: Any, where: str) -> Any:
    """Turn a node with `_target_` into an object, its nested nodes first.

    The only place that instantiates. Targets are classes of rdx and of the packages that the
    environment variable RDX_EXTENSIONS names (with commas between), and nothing else: neither
    functions, nor what those only import. Values are converted to the types that the class
    declares (`rdx.declared`).

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
    try:
        cls = class_named(target)
    except ConfigError as error:
        raise ConfigError(f"{where}._target_={target}: {error}") from error
    kinds = types_of(cls)
    arguments = {
        k: build(_classed(v, kinds.get(k)), f"{where}.{k}")
        for k, v in node.items()
        if k != "_target_"
    }
    valid = inspect.signature(cls).parameters
    for key in arguments:
        if key not in valid:
            raise ConfigError(f"{where}.{key}: no such key{near(key, valid)}; valid: {list(valid)}")
    for key, parameter in valid.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and key not in arguments and not variadic:
            raise ConfigError(f"{where}.{key}: no value; give it as {where}.{key}=...")
    if not hasattr(cls, "__pydantic_validator__"):  # of an extension
        for key, value in arguments.items():
            try:
                arguments[key] = converted(cls, key, value)
            except ValidationError as error:
                raise ConfigError(wrong(error, cls, arguments, where, (key,))) from error
    try:
        return cls(**arguments)
    except ValidationError as error:
        raise ConfigError(wrong(error, cls, arguments, where)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(placed(str(error), where, valid)) from error


def _classed(node: Any, kind: Any) -> Any:
    """Of a field with objects of one class by name, the nodes with that class as their target."""
    while typing.get_origin(kind) is Annotated:
        kind = kind.__origin__
    cls = next(iter(typing.get_args(kind)[1:]), None)
    of_class = typing.get_origin(kind) is Mapping and dataclasses.is_dataclass(cls)
    if not of_class or not isinstance(node, dict) or not isinstance(cls, type):
        return node
    target = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
    return {k: {**target, **v} if isinstance(v, dict) else v for k, v in node.items()}


def built(node: Any, where: str) -> Any:
    """Build a node; equal nodes give the same object."""
    return _built(json.dumps(node, sort_keys=True), where)


@lru_cache(maxsize=4096)
def _built(node: str, where: str) -> Any:
    return build(json.loads(node), where)


def part(cfg: Config, group: str) -> Any:
    """The object of a config group of a configuration; equal nodes share one.

    Raises
    ------
    ConfigError
        On a bad value, or if it is not what the group is for.
    """
    from rdx import parts as protocols  # pandas: no need to for --help

    thing = built(cfg[group], group)
    kinds: dict[str, Any] = {
        "data": protocols.DataSource,
        "sampler": protocols.Sampler | protocols.Redrawn,
        "teacher": protocols.Teacher,
        "loss": protocols.Loss | None,
        "budget": protocols.Budget,
    }
    if not isinstance(thing, kinds.get(group, object)):
        raise ConfigError(f"{group}._target_={cfg[group].get('_target_')}: is no {group}")
    return thing


def check(cell: Cell, known: dict[int, Any] | None = None) -> None:
    """Build every object of a cell (cheap: nothing is loaded or trained) to find bad values.

    Parameters
    ----------
    known
        Objects of other cells that were checked, by their id; those of this one are added.

    Raises
    ------
    MissingFile
        If a file that a value names, or a package that it needs, is not on this machine.
    ConfigError
        On a bad value; or if a value holds a key or password, for all values are recorded.
    """
    key = security.exposed({name: node for name, node in cell.cfg.items() if name != "spec"})
    if key:
        raise ConfigError(
            f"{key}: holds a key or password, and configurations are recorded; leave it in an "
            "environment variable (docs/security.md)"
        )
    known = {} if known is None else known
    for of, cfg in lineage(cell.cfg):
        try:
            _check(cfg, known)
        except ConfigError as error:
            raise type(error)(f"{of}: {error}" if of else str(error)) from error
    _check_places(cell.cfg)


def _check(cfg: Config, known: dict[int, Any]) -> None:
    """`check` of a configuration, without those that its students come from."""
    for group in GROUPS:
        thing = part(cfg, group)
        if id(thing) not in known:  # which keeps it, so that no other gets its id
            check_here(thing, group)
            known[id(thing)] = thing
    _check_limits(cfg.get("limits") or {})
    _check_dev(cfg)
    _check_redrawn(cfg)


def check_all(cells: Sequence[Cell]) -> None:
    """`check` the cells of a grid, what they share once; the error names the cell of several."""
    known: dict[int, Any] = {}
    for cell in cells:
        try:
            check(cell, known)
        except ConfigError as error:
            if len(cells) == 1:
                raise
            raise in_cell(error, cell.overrides) from error


def in_cell(error: ConfigError, overrides: Sequence[str]) -> ConfigError:
    """The same error, naming the cell that it is of; keys and passwords are taken out."""
    return type(error)(security.hidden(f"{error} (in the cell {' '.join(overrides)})"))


def parts(whole: Any, where: str) -> Iterator[tuple[str, Any]]:
    """An object and everything nested in it, each with its key."""
    yield where, whole
    if dataclasses.is_dataclass(whole):
        for name in (f.name for f in dataclasses.fields(whole)):
            yield from parts(getattr(whole, name), f"{where}.{name}")
    elif isinstance(whole, Mapping):
        for name, value in whole.items():
            yield from parts(value, f"{where}.{name}")
    elif isinstance(whole, list | tuple):
        for i, value in enumerate(whole):
            yield from parts(value, f"{where}[{i}]")


def check_here(root: Any, key: str) -> None:
    """Check that this machine has what an object, and everything nested in it, needs.

    Raises
    ------
    MissingFile, ConfigError
        Naming the key.
    """
    for where, thing in parts(root, key):
        _check_installed(thing, where)
        if not hasattr(thing, "check"):
            continue
        try:
            thing.check()
        except (FileNotFoundError, ValueError) as error:
            kind = MissingFile if isinstance(error, FileNotFoundError) else ConfigError
            names = inspect.signature(type(thing)).parameters
            raise kind(placed(line(error), where, names)) from error


def _check_installed(thing: Any, where: str) -> None:
    """Refuse what an optional package would have to compute that is not here."""
    package: str | None = getattr(type(thing), "requires", None)
    if package is not None and importlib.util.find_spec(package) is None:
        absent = ModuleNotFoundError(f"needs {package}", name=package)
        raise MissingFile(f"{where}: {line(absent)}")


def _check_places(cfg: Config) -> None:
    """Refuse the name of a file, folder, address or model that is blank.

    A variable of the shell that is not set gives it; as a path it would be the working folder, and
    as a database one in memory.
    """
    for key, value, kind in places(cfg):
        if isinstance(value, str) and blank(value):
            raise ConfigError(
                f"{key}={value!r}: names nothing (a variable that is not set?); give it a "
                f"value{or_null(kind)}"
            )


def _check_limits(limits: dict[str, Any]) -> None:
    """Refuse what is no share; the names are those of conf/config.yaml, which Hydra checks."""
    for name, limit in limits.items():
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (number and 0 <= limit <= 1):
            raise ConfigError(f"limits.{name}={limit!r}: must be a share from 0 to 1, or null")


def _check_dev(cfg: Config) -> None:
    """Refuse what needs dev queries where none are held out, which showed after the training."""
    wants = {"evaluation.interpolate": part(cfg, "evaluation").interpolate}
    trainer = part(cfg, "trainer")
    if isinstance(cfg["loss"], dict) and trainer.validate_on is None:
        wants["trainer.validate_every"] = trainer.validate_every
    for key, value in wants.items():
        if value and not getattr(part(cfg, "data"), "has_dev", True):
            off = "false" if value is True else "null"
            raise ConfigError(
                f"{key}={str(value).lower()}: needs dev queries; give data.dev=0.1, or {key}={off}"
            )


def _check_redrawn(cfg: Config) -> None:
    """Refuse fewer candidates than the teacher is asked about."""
    from rdx.parts import Redrawn

    sampler, asked = part(cfg, "sampler"), part(cfg, "depth").asked
    if isinstance(sampler, Redrawn) and sampler.pool < asked:
        raise ConfigError(
            f"sampler.pool={sampler.pool}: the teacher is asked about {asked} of these passages "
            f"(depth.pool, or depth.k of depth.mode=relabel); give at least {asked}"
        )
