"""The options of conf/ as their files give them: nothing is composed, built or run."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from rdx.config import CONF, GROUPS, ROOT
from rdx.declared import types_of

LAUNCHER = "hydra/launcher"
TOPS = (*GROUPS, LAUNCHER)  # the groups that have a page


@dataclass(frozen=True)
class Choice:
    """The option of a config group that a file chooses for one of its keys."""

    group: str
    option: str


@dataclass(frozen=True)
class Node:
    """The keys that an option, or a part of one, gives a class.

    Attributes
    ----------
    group
        The config group that it stands in.
    place
        Its key there, as on the command line; "" for the whole option.
    cls
        The class.
    keys
        Key to value: a plain value, another node's mapping or a `Choice`.
    """

    group: str
    place: str
    cls: type
    keys: Mapping[str, Any]


def groups(group: str) -> list[str]:
    """A group and those below it, as `student/lora`."""
    below = sorted(p.name for p in (CONF / group).iterdir() if p.is_dir() and any(_files(p)))
    return [group, *(f"{group}/{name}" for name in below)]


def _files(folder: Path) -> Iterator[Path]:
    """The options in a folder; templates of prompts are none."""
    yield from sorted(f for f in folder.glob("[!_]*.yaml") if folder.name != "prompts")


def options(group: str) -> dict[str, Path]:
    """Name of every option of rdx's own to its file."""
    folder = ROOT / group if group == "experiments" else CONF / group
    return {file.stem: file for file in _files(folder)}


def first(group: str) -> str:
    """The option that is chosen where none is named; "" if there is none."""
    chosen: dict[str, str] = {}
    parent, _, name = group.rpartition("/")
    files = [CONF / "config.yaml"] if not parent else options(parent).values()
    for file in files if parent != "hydra" else ():
        for entry in _read(file).get("defaults", ()):
            chosen = {**(entry if isinstance(entry, dict) else {}), **chosen}
    return str(chosen.get(name if parent else group, ""))


@cache
def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def keys_of(file: Path) -> dict[str, Any]:
    """What an option gives, with what it takes over from other files of its folder."""
    keys: dict[str, Any] = {}
    own = dict(_read(file))
    for entry in own.pop("defaults", ()):
        if isinstance(entry, str):
            other, _, place = entry.partition("@")
            if place:  # as collections.NAME
                top, _, name = place.partition(".")
                keys[top] = {**keys.get(top, {}), name: {}}
            elif other != "_self_":
                keys = _merged(keys, keys_of(file.parent / f"{other}.yaml"))
        else:
            [(group, option)] = entry.items()
            group, _, place = str(group).partition("@")
            if "." not in place:
                whole = group[1:] if group.startswith("/") else f"{_group(file)}/{group}"
                keys[place or group] = Choice(whole, str(option))
    return _merged(keys, own)


def _merged(keys: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values of two files, those of the second first; mappings are joined."""
    both = {
        k: v for k, v in others.items() if isinstance(v, dict) and isinstance(keys.get(k), dict)
    }
    return {**keys, **others, **{key: {**keys[key], **value} for key, value in both.items()}}


def base(file: Path) -> str:
    """The option of the same group whose keys an option takes over; "" if none."""
    entries = (entry for entry in _read(file).get("defaults", ()) if isinstance(entry, str))
    return next((e for e in entries if not e.startswith("_") and "@" not in e), "")


def _group(file: Path) -> str:
    return file.parent.relative_to(CONF).as_posix()


@cache
def nodes() -> tuple[Node, ...]:
    """Every node of conf/ with a class: whole options first, then what lies inside of them."""
    whole, inner = [], []
    for group in [g for top in TOPS for g in groups(top)]:
        default = first(group)
        # the default first, then what is called as its class is
        order = {
            file: (file.stem != default, not _is_namesake(file), file.stem)
            for file in (CONF / group).glob("*.yaml")
        }
        files = sorted(order, key=lambda file: order[file])
        for file in files:
            for node in _located(group, "", keys_of(file)):
                (inner if node.place else whole).append(node)
    return (*whole, *inner, *_typed((*whole, *inner)))


def _typed(given: Iterable[Node]) -> Iterator[Node]:
    """Records that values of other nodes are, and that no file gives: {NAME: record}."""
    known = {node.cls for node in given}
    for node in given:
        for key, kind in types_of(node.cls).items():
            for record in _records(kind):
                if record not in known:
                    known.add(record)
                    yield Node(node.group, f"{node.place}.{key}.NAME".lstrip("."), record, {})


def _records(kind: Any) -> Iterator[type]:
    """The dataclasses that a type names."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
    for part in typing.get_args(kind):
        yield from _records(part)


def _is_namesake(file: Path) -> bool:
    """Whether an option is called as its class is."""
    return _read(file).get("_target_", "").lower().endswith(f".{file.stem.replace('_', '')}")


def _located(group: str, place: str, value: Any) -> Iterator[Node]:
    if not isinstance(value, dict):
        return
    if "_target_" in value:
        keys = {key: one for key, one in value.items() if key != "_target_"}
        yield Node(group, place, class_named(value["_target_"]), keys)
    for key, child in value.items():
        named = "NAME" if place and "_target_" not in value else key
        yield from _located(group, f"{place}.{named}".lstrip("."), child)


@cache
def class_named(target: str) -> type:
    """The class of a `_target_`."""
    # Not from the package down: modules that Hydra found as plugins are no attributes of theirs.
    module, _, name = target.rpartition(".")
    cls = getattr(import_module(module), name)
    assert isinstance(cls, type), target
    return cls


@cache
def home(cls: type) -> Node:
    """Where a class is told: the first node that names it."""
    return next(node for node in nodes() if node.cls is cls)


@cache
def place_of(cls: type) -> str:
    """The key under which a class stands in its group; "" if it is that of a whole option."""
    group = home(cls).group
    wholes = [keys_of(file).get("_target_") for file in options(group).values()]
    if cls in [class_named(target) for target in wholes if target]:
        return ""
    return next(node.place for node in nodes() if node.cls is cls and node.place)


def told_in(group: str) -> list[Node]:
    """The nodes whose classes are told in a group, one of each."""
    return [node for node in nodes() if node.group == group and home(node.cls) is node]


def described(file: Path) -> str:
    """The first sentence of the comment that an option begins with."""
    prose: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or re.match(r"#( {2,}| python -m)", line):
            break
        if "@package" not in line:
            prose.append(line.lstrip("# "))
    sentence = re.split(r"(?<!al)\.(?:\s+(?=[A-Z])|\s{2,}|$)", " ".join(prose))[0]
    return sentence.rstrip(":. ").replace("|", r"\|")
