"""Nodes of a spec as YAML gives them: checked, with errors that name the key and what is valid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rdx.arguments import near
from rdx.faults import Mendable

Node = Mapping[str, Any]


class SpecError(Mendable, ValueError):
    """A spec names something that does not exist, or lacks something that it needs."""


def refuse(wrong: bool, message: str) -> None:
    """Raise `SpecError` if something is wrong."""
    if wrong:
        raise SpecError(message)


def names(node: Any) -> tuple[str, ...]:
    """One name or a list of them, as a tuple."""
    if node is None or isinstance(node, str):
        return () if node is None else (node,)
    if not isinstance(node, list | tuple):
        raise SpecError(f"{node!r}: must be a name or a list of names; YAML reads it as no text")
    return tuple(map(str, node))


def plain_names(node: Any, where: str) -> tuple[str, ...]:
    """Names without commas, such as keys and measures: one, or a list of them."""
    found = names(node)
    for name in found:
        refuse("," in name, f"{where}: {name!r} is one name; a list is written [{name}]")
    return found


def number(node: Any, where: str) -> float | None:
    """A finite number, or None."""
    if node is None:
        return None
    if isinstance(node, bool) or not isinstance(node, int | float) or not math.isfinite(node):
        raise SpecError(f"{where} must be a number, not {node!r}")
    return float(node)


def needed(node: Node, keys: Sequence[str], where: str) -> None:
    """Refuse a node without one of the keys."""
    absent = [key for key in keys if key not in node]
    refuse(bool(absent), f"{where}: {dict(node)} lacks {', '.join(absent)}")


def known_keys(node: Node, valid: Sequence[str], where: str) -> None:
    """Refuse a node with another key."""
    for key in node:
        refuse(key not in valid, f"{where}: unknown key {key!r}; valid: {', '.join(valid)}")


def choice(node: Node, key: str, valid: Sequence[str], where: str) -> str:
    """The value of a key; the first of the valid ones is the default."""
    return one_of(str(node.get(key, valid[0])), valid, f"{where}: {key}")


def one_of(value: str, valid: Sequence[str], where: str) -> str:
    """The value, if it is one of the valid ones."""
    hint = near(value, valid)
    between = "; " if any("," in name for name in valid) else ", "
    refuse(value not in valid, f"{where} {value!r} is not one of: {between.join(valid)}{hint}")
    return value
