"""Compose cells with Hydra."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rdx import folders
from rdx.arguments import near
from rdx.config.cell import Cell
from rdx.config.composer import composing, parsed
from rdx.config.explaining import explain, unread
from rdx.config.machine import resolve_precision
from rdx.config.paths import absolute
from rdx.config.revisions import resolve_revisions
from rdx.config.schema import GROUPS, Config, ConfigError, Root, check_root
from rdx.grids import key_of


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command line as Hydra composes it: unresolved, ``???`` included.

    Raises
    ------
    ConfigError
        On an unknown key or option.
    """
    _refuse_deletions(overrides)
    with composing():
        try:
            cfg = compose("config", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, overrides)) from error
    OmegaConf.set_struct(cfg, False)
    return cfg


def load_spec(name: str) -> dict[str, Any]:
    """Return the node `spec:` of experiments/NAME.yaml, or of a file whose path ends in .yaml.

    What the recipe that the experiment names says of itself in its own `spec:` is part of it.
    """
    path = folders.experiment(name)
    if path is None:
        known = list(folders.options(folders.EXPERIMENTS))
        raise ConfigError(
            f"no experiment {name!r}{near(name, known)}; known: {', '.join(known)}, or the path of "
            "a .yaml file"
        )
    spec = composed([f"+experiments={name}"]).spec
    if not isinstance(spec, DictConfig):
        raise ConfigError(f"{folders.shown(name)}: spec: must hold keys and values")
    return OmegaConf.to_container(spec, resolve=True)  # type: ignore[return-value]


def settle(cfg: Config, precision: str | None = None) -> tuple[str, ...]:
    """Replace, in a resolved configuration, what this machine and the Hub decide, before signing.

    Parameters
    ----------
    precision
        What "auto" stands for; None: what this machine chooses.

    Returns
    -------
    tuple of str
        Overrides that decide the same anywhere: workers of a grid get them.
    """
    return (*resolve_precision(cfg, precision), *resolve_revisions(cfg))


def resolved(cfg: DictConfig, folder: Path | None = None) -> Config:
    """Return the configuration as plain values, its paths absolute.

    Parameters
    ----------
    folder
        Where the user stands, from which relative paths count; None: the working folder.
    """
    return absolute(_plain(cfg), folder or Path.cwd())


def _plain(cfg: DictConfig) -> Config:
    """The values as they are given; no class is imported."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True, throw_on_missing=True)
    except OmegaConfBaseException:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if not missing:
            raise
        raise ConfigError(
            f"no value for {', '.join(missing)}: give it as {missing[0]}=..."
        ) from None
    return plain  # type: ignore[return-value]


@dataclass(frozen=True)
class Base:
    """A composed configuration that cells of the same options share.

    Composing takes 100 ms, changing values of all that is composed 4 ms, of some of its nodes 1 ms.

    Attributes
    ----------
    cfg
        The composed configuration, pickled by this process: the fastest way to copy one. It is
        never written, and nothing else is ever unpickled (docs/security.md).
    levels
        As `Cell.levels`.
    spec
        The resolved node `spec`, which cells share.
    plain
        All of `cfg` as plain values, pickled likewise; None if it lacks values, or if some
        reference in it is not a plain path.
    refers
        Name of a node of `cfg` to those that its values refer to, as in ``${store}/ledger``.
    parts
        `cfg` with some of its nodes only, by their names.
    known
        Values of such a part, as plain ones, by what was changed.
    """

    cfg: bytes
    levels: dict[str, str]
    spec: Any
    plain: bytes | None
    refers: dict[str, set[str]]
    parts: dict[frozenset[str], bytes]
    known: dict[tuple[str, ...], bytes]

    def changed(self, values: list[str]) -> Config:
        """The configuration with other values, as plain ones."""
        if self.plain is None or any("${" in value for value in values):
            return _plain(_applied(values, self.cfg))
        plain: Config = pickle.loads(self.plain)
        if any(_node(value) not in plain for value in values):
            return _plain(_applied(values, self.cfg))
        for names, mine in self._independent(values):
            if mine not in self.known:
                self.known[mine] = pickle.dumps(self._part(names, mine))
            plain |= pickle.loads(self.known[mine])
        return plain

    def _independent(self, values: list[str]) -> list[tuple[frozenset[str], tuple[str, ...]]]:
        """Group overrides by the nodes that their interpolations affect."""
        groups: list[tuple[set[str], list[int]]] = []
        for i, value in enumerate(values):
            names, mine = self._moved_by([_node(value)]), [i]
            for other in [group for group in groups if group[0] & names]:
                groups.remove(other)
                names, mine = names | other[0], other[1] + mine
            groups.append((names, mine))
        return [
            (frozenset(names), tuple(values[i] for i in sorted(mine))) for names, mine in groups
        ]

    def _part(self, names: frozenset[str], values: tuple[str, ...]) -> Config:
        """Some nodes, with other values, as plain ones."""
        if names not in self.parts:
            part = pickle.loads(self.cfg)
            for name in part.keys() - names:
                part[name] = MISSING
            self.parts[names] = pickle.dumps(part)
        new = _applied(values, self.parts[names])
        return _plain(OmegaConf.masked_copy(new, sorted(names)))

    def _moved_by(self, names: Iterable[str]) -> set[str]:
        """Nodes that refer to these, directly or not, and all that they need to be resolved."""
        moved, before = set(names), set[str]()
        while moved != before:
            before = set(moved)
            moved |= {name for name, others in self.refers.items() if others & moved}
            moved |= {other for name in before for other in self.refers.get(name, ())}
        return moved


Bases = dict[tuple[str, ...], Base]  # by the options of a command line


def _node(override: str) -> str:
    """The outermost key of an override."""
    return key_of(override).split(".")[0]


def _applied(values: Iterable[str], cfg: bytes) -> DictConfig:
    """Apply overrides of values to a composed configuration, as `compose` does."""
    new: DictConfig = pickle.loads(cfg)
    OmegaConf.set_struct(new, True)
    ConfigLoaderImpl._apply_overrides_to_config([parsed(value) for value in values], new)
    OmegaConf.set_struct(new, False)
    return new


def cell_of(
    grid: str,
    overrides: list[str],
    bases: Bases,
    precision: str | None = None,
) -> Cell:
    """Compose one cell; `bases` keeps what cells of the same options have in common.

    `precision` is what "auto" stands for; None: what this machine chooses.

    Raises
    ------
    ConfigError
        On an unknown key, option or value.
    """
    _refuse_deletions(overrides)
    try:
        values = [o for o in overrides if _is_value(o)]
        options = tuple(o for o in overrides if o not in values)
        if options not in bases:
            bases[options] = _base(options)
        base = bases[options]
        plain = {**base.changed(values), "spec": base.spec}
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, overrides)) from error
    known = [f.name for f in dataclasses.fields(Root)]
    if "experiments" in plain:
        raise ConfigError(explain(KeyError("experiments"), overrides))
    for key in plain:  # "+key=value" adds what the schema does not have
        if key not in known:
            raise ConfigError(f"{key}: no such key{near(str(key), known)}; valid: {known}")
    for group in GROUPS:
        if isinstance(plain[group], dict) and "_target_" not in plain[group]:
            raise ConfigError(f"{group}={base.levels.get(group)}: this option has no _target_")
    check_root(plain)
    plain = absolute(plain, Path.cwd())
    pinned = settle(plain, precision)
    return Cell(tuple(overrides), grid, plain, dict(base.levels), pinned=pinned)


def _refuse_deletions(overrides: Iterable[str]) -> None:
    """Refuse to leave out what every configuration has."""
    for override in overrides:
        key = key_of(override)
        if override.startswith("~") and "." not in key:
            raise ConfigError(
                f"~{key}: no group or key of the root can be left out; choose another option or "
                f"value: {key}=..."
            )


def _base(options: tuple[str, ...]) -> Base:
    """Compose the options of a command line."""
    cfg = compose("config", list(options), return_hydra_config=True)
    chosen = levels(cfg.hydra.runtime.choices)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    spec = cfg.spec
    if OmegaConf.is_config(spec):
        spec = OmegaConf.to_container(spec, resolve=True, enum_to_str=True)
    cfg.spec = None
    refers = _references(cfg)
    whole = refers is not None and not OmegaConf.missing_keys(cfg)
    plain = pickle.dumps(_plain(cfg)) if whole else None
    return Base(pickle.dumps(cfg), chosen, spec, plain, refers or {}, {}, {})


def levels(choices: Mapping[str, str]) -> dict[str, str]:
    """`Cell.levels`, given the options that Hydra chose."""
    chosen: dict[str, str] = {}
    for key, option in choices.items():
        group, _, place = str(key).partition("@")
        # what is chosen for another place is a value there
        if place in ("", group.replace("/", ".")) and group != "tracking":
            chosen[group] = str(option)
    return {
        key: chosen[key] for group in GROUPS for key in sorted(chosen) if key.split("/")[0] == group
    }


def _references(cfg: DictConfig) -> dict[str, set[str]] | None:
    """`Base.refers` of a configuration; None if some reference is not a plain path."""
    references: dict[str, set[str]] = {}
    for name, node in OmegaConf.to_container(cfg).items():  # type: ignore[union-attr]
        # rdx's own look at nothing outside of a node
        inner = re.findall(r"\$\{([^}]*)", re.sub(r"\$\{rdx\.\w+:\}", "", json.dumps(node)))
        if not all(re.fullmatch(r"[A-Za-z_][\w.]*", path) for path in inner):
            return None
        references[str(name)] = {path.split(".")[0] for path in inner}
    return references


def _is_value(override: str) -> bool:
    """Whether an override changes a value, and does not choose an option of a group."""
    key = override.split("=", 1)[0].lstrip("+")
    return (
        "=" in override
        and not key.startswith(("~", "hydra", "spec"))
        and not any(c in key for c in "/@")
        and not folders.is_group(key)
    )


def sweep(overrides: Iterable[str]) -> list[list[str]]:
    """Multiply out the sweeps of a command line, as Hydra's own sweeper does."""
    try:
        loader = GlobalHydra.instance().config_loader()  # glob() looks for options
        swept = OverridesParser.create(loader).parse_overrides(list(overrides))
        return [list(job) for batch in BasicSweeper.split_arguments(swept, None) for job in batch]
    except HydraException as error:
        raise ConfigError(unread(list(overrides), error)) from error
