"""Hydra: a command line to a resolved cell, and its errors in readable words."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rdx.config.building import allowed
from rdx.config.identity import signatures
from rdx.config.schema import CONF, GROUPS, ROOT, Cell, ConfigError, Root, near, nodes
from rdx.grids import key_of


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command line as Hydra composes it: unresolved, ``???`` included.

    Raises
    ------
    ConfigError
        On an unknown key or option.
    """
    with composing():
        try:
            cfg = compose("config", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, overrides)) from error
    OmegaConf.set_struct(cfg, False)
    return cfg


def load_spec(name: str) -> dict[str, Any]:
    """Return the `spec:` node of experiments/NAME.yaml."""
    known = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no experiment {name!r}; known: {', '.join(known)}")
    whole = OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")
    # Hydra itself would make those below a spec's node ``hydra``
    for node in nodes(OmegaConf.to_container(whole)):
        target = str(node["_target_"])
        if not allowed(target):
            told = "a spec may name classes of rdx and of declared extensions only"
            raise ConfigError(f"experiments/{name}.yaml: _target_: {target}: {told}")
    spec = OmegaConf.select(whole, "spec", default=OmegaConf.create())
    return OmegaConf.to_container(spec, resolve=True)  # type: ignore[return-value]


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain values."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True, throw_on_missing=True)
    except OmegaConfBaseException:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if not missing:
            raise
        told = f"no value for {', '.join(missing)}: give it as {missing[0]}=..."
        raise ConfigError(told) from None
    return plain  # type: ignore[return-value]


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's composer on conf/, also inside a running Hydra job."""
    before = GlobalHydra.instance().hydra
    if before is not None and getattr(composing, "depth", False):
        yield
        return
    GlobalHydra.instance().clear()
    composing.depth = getattr(composing, "depth", 0) + 1  # type: ignore[attr-defined]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        composing.depth -= 1  # type: ignore[attr-defined]
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


@dataclass(frozen=True)
class Base:
    """What cells of the same options have in common.

    Composing takes 100 ms, changing values of what is composed 1 ms.

    Attributes
    ----------
    cfg
        The composed configuration, pickled by this process: the fastest way to copy one. It is
        never written, and nothing else is ever unpickled (docs/security.md).
    levels
        As `Cell.levels`.
    spec
        The resolved node `spec`, which cells share.
    """

    cfg: bytes
    levels: dict[str, str]
    spec: Any


def cell_of(grid: str, overrides: list[str], bases: dict[tuple[str, ...], Base]) -> Cell:
    """Compose one cell; `bases` keeps what cells of the same options have in common.

    Raises
    ------
    ConfigError
        On an unknown key, option or value.
    """
    try:
        values = [o for o in overrides if _is_value(o)]
        options = tuple(o for o in overrides if o not in values)
        if options not in bases:
            bases[options] = _base(options)
        base = bases[options]
        cfg = pickle.loads(base.cfg)
        # what `compose` itself does with values, after the options
        ConfigLoaderImpl._apply_overrides_to_config([parsed(o) for o in values], cfg)
        OmegaConf.set_struct(cfg, False)
        plain = {**resolved(cfg), "spec": base.spec}
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, overrides)) from error
    known = [f.name for f in dataclasses.fields(Root)]
    for key in plain:  # "+key=value" adds what the schema does not have
        if key not in known:
            raise ConfigError(f"{key}: no such key{near(str(key), known)}; valid: {known}")
    keys = signatures(plain)
    return Cell(tuple(overrides), grid, plain, dict(base.levels), keys["evaluate"], keys)


def _base(options: tuple[str, ...]) -> Base:
    """Compose the options of a command line."""
    cfg = compose("config", list(options), return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    levels = {group: str(choices[group]) for group in GROUPS if group != "tracking"}
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    spec = cfg.spec
    if OmegaConf.is_config(spec):
        spec = OmegaConf.to_container(spec, resolve=True, enum_to_str=True)
    cfg.spec = None
    OmegaConf.set_struct(cfg, True)
    return Base(pickle.dumps(cfg), levels, spec)


def _is_value(override: str) -> bool:
    """Whether an override changes a value, and does not choose an option of a group."""
    key = override.split("=", 1)[0].lstrip("+")
    return (
        "=" in override
        and not key.startswith(("~", "hydra", "spec"))
        and not any(c in key for c in "/@")
        and not (CONF / key).is_dir()
    )


@lru_cache(maxsize=4096)
def parsed(override: str) -> Override:
    """An override as Hydra reads it."""
    return OverridesParser.create().parse_override(override)


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """One readable message: what is wrong, what would be right, in which command line."""
    text = str(error).strip()
    for override in overrides:
        key = key_of(override)
        if f"Could not override '{key}'" in text or f"full_key: {key}" in text:
            parent, _, name = key.rpartition(".")
            valid = _valid_keys(parent, overrides)
            if valid and name not in valid:
                where = f"{parent}.{name}" if parent else name
                return f"{where}: no such key{near(name, valid)}; valid: {valid}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = ("Config search path", "Set the env", "provider=")
    lines = [line for line in lines if not line.startswith(noise)]
    if error.__cause__ is not None and text.startswith("Error merging override"):
        lines.append(str(error.__cause__).strip().splitlines()[0])
    return "\n  ".join([*lines, f"in: python -m rdx {' '.join(overrides)}"])


def _valid_keys(parent: str, overrides: Sequence[str]) -> list[str]:
    """Keys of a node of the configuration with the options chosen, if there is such a node."""
    chosen = [o for o in overrides if key_of(o) in GROUPS]
    with composing():
        cfg = compose("config", chosen)
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return [str(k) for k in node if k != "_target_"] if isinstance(node, DictConfig) else []


def sweep(overrides: Iterable[str]) -> list[list[str]]:
    """Multiply out the sweeps of a command line, as Hydra's own sweeper does."""
    try:
        every = OverridesParser.create().parse_overrides(list(overrides))
        return [list(job) for batch in BasicSweeper.split_arguments(every, None) for job in batch]
    except HydraException as error:
        raise ConfigError(f"{error}\n  in: {' '.join(overrides)}") from error
