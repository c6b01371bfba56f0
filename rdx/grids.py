"""Grids: factors or sweeps, keys that move together, and combinations to leave out.

The ``grid`` of a spec is one of

    factors      {loss: [ranknet, adr_mse], seed: [1, 2]}: every combination of their levels; with
                 `zip` and `exclude` as below
    a list       of such mappings, whose cells it has together
    sub-grids    {NAME: SUB-GRID}, where cells differ in what no factor describes

and all become `SubGrid`s. A sub-grid is a list of Hydra overrides, or a mapping of the keys of
`SubGridNode`.

No import of rdx, of Hydra or of anything heavy: plain values in, plain values out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypedDict


class SubGridNode(TypedDict, total=False):
    """A sub-grid as it is written; `zip` and `exclude` may also stand beside factors.

    Attributes
    ----------
    sweep : list of overrides
        Multiplied out: ``[loss=ranknet,adr_mse, "seed=1,2"]`` is four cells.
    zip : list of mappings
        Keys that move together: ``[{sampler: [bm25, random], depth.k: [10, 50]}]`` is two
        combinations, not four. The lists of one mapping are equally long; several mappings are
        multiplied out.
    exclude : list of mappings
        Combinations to leave out: ``[{loss: adr_mse, depth.k: [10, 50]}]``. One matches when all
        of its keys do; a list of values when one of them does.
    """

    sweep: list[str]
    zip: list[dict[str, list[Any]]]
    exclude: list[dict[str, Any]]


KEYS = tuple(SubGridNode.__annotations__)


@dataclass(frozen=True)
class SubGrid:
    """One named part of a grid; see the module's first lines.

    Attributes
    ----------
    name
        "" for a command line, and for a grid of factors.
    sweep
        Hydra overrides.
    zipped
        Key -> its values; those of one mapping have the same number and move together.
    exclude
        Key -> the value, or values, that are left out when all keys of the mapping match.
    """

    name: str
    sweep: tuple[str, ...]
    zipped: tuple[dict[str, list[Any]], ...] = ()
    exclude: tuple[dict[str, list[Any]], ...] = ()

    def without(self, keys: Iterable[str]) -> SubGrid:
        """Without these keys in `sweep` and `zipped`: the command line has them."""
        gone = set(keys)
        zipped = [{k: v for k, v in values.items() if k not in gone} for values in self.zipped]
        return replace(
            self,
            sweep=tuple(override for override in self.sweep if key_of(override) not in gone),
            zipped=tuple(filter(None, zipped)),
        )

    def jobs(self, multiplied: Callable[[Sequence[str]], list[list[str]]]) -> list[list[str]]:
        """The command lines, excluded ones too: sweeps first, then what moves together.

        Parameters
        ----------
        multiplied
            Turns overrides with sweeps into the combinations of their values.
        """
        moved = [
            [
                [f"{key}={text(values[i])}" for key, values in together.items()]
                for i in range(len(next(iter(together.values()))))
            ]
            for together in self.zipped
        ]
        return [
            [*job, *(override for part in row for override in part)]
            for job in multiplied(self.sweep)
            for row in product(*moved)
        ]


def sub_grids(node: Any, where: str) -> list[SubGrid]:
    """The sub-grids of a spec's ``grid``; of factors, one that has no name.

    Raises
    ------
    ValueError
        If it is none of what the first lines of this module list; the message names the key.
    """
    if isinstance(node, list) and node:
        return [_of_factors(block, f"{where}[{i}]") for i, block in enumerate(node)]
    if not isinstance(node, Mapping):  # one without a cell has tables of imported runs
        raise ValueError(f"{where}: must be a mapping of factors or sub-grids")
    if any(_holds_levels(str(key), child) for key, child in node.items()):
        return [_of_factors(node, where)]
    return [sub_grid(str(name), child, f"{where}.{name}") for name, child in node.items()]


def _holds_levels(key: str, node: Any) -> bool:
    """Whether a key of a ``grid`` belongs to a grid of factors: its values are no overrides."""
    if key in ("zip", "exclude"):
        return True
    return isinstance(node, list) and bool(node) and not any(map(_is_override, node))


def _is_override(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"[+~]*[\w/.@]+=|~", value) is not None


def _of_factors(node: Any, where: str) -> SubGrid:
    """All combinations of the levels of factors."""
    if not isinstance(node, Mapping):
        raise ValueError(f"{where}={node!r}: must be factors, {{key: [value, value]}}")
    factors = {str(k): v for k, v in node.items() if k not in ("zip", "exclude")}
    for key, levels in factors.items():
        if isinstance(levels, Mapping) and levels and not set(levels) & set(KEYS):
            inner = next(iter(levels))
            raise ValueError(f"{where}.{key}: a key of a group is {key}.{inner}: [level, level]")
        if not isinstance(levels, list) or not levels or any(map(_is_override, levels)):
            raise ValueError(
                f"{where}.{key}={levels!r}: must be a list of levels, as in loss: [ranknet, lce]; "
                "factors and named sub-grids do not mix"
            )
    together = zipped(node.get("zip") or [], f"{where}.zip")
    grid = SubGrid(
        "",
        (),
        (*({key: levels} for key, levels in factors.items()), *together),
        excluded(node.get("exclude") or [], f"{where}.exclude"),
    )
    return _once(grid, where)


def sub_grid(name: str, node: Any, where: str) -> SubGrid:
    """A sub-grid of a spec.

    Raises
    ------
    ValueError
        If the node is neither a list of overrides nor a mapping of `KEYS`; the message names the
        key.
    """
    if isinstance(node, list):
        node = {"sweep": node}
    if not isinstance(node, Mapping):
        raise ValueError(f"{where}: must be a list of overrides or a mapping of {list(KEYS)}")
    unknown = [str(key) for key in node if key not in KEYS]
    if unknown:
        raise ValueError(f"{where}.{unknown[0]}: no such key; valid: {list(KEYS)}")
    sweep = node.get("sweep") or []
    if not isinstance(sweep, list) or not all(isinstance(override, str) for override in sweep):
        raise ValueError(f"{where}.sweep={sweep!r}: must be a list of Hydra overrides")
    grid = SubGrid(
        name,
        tuple(sweep),
        zipped(node.get("zip") or [], f"{where}.zip"),
        excluded(node.get("exclude") or [], f"{where}.exclude"),
    )
    return _once(grid, where)


def zipped(node: Any, where: str) -> tuple[dict[str, list[Any]], ...]:
    """Keys that move together, checked: lists of equal length."""
    checked = []
    for i, together in enumerate(_mappings(node, where)):
        for key, values in together.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{where}[{i}].{key}={values!r}: must be a list of values")
        sizes = {key: len(values) for key, values in together.items()}
        if len(set(sizes.values())) > 1:
            lengths = ", ".join(f"{key} has {size}" for key, size in sizes.items())
            raise ValueError(f"{where}[{i}]: keys that move together need equal lists; {lengths}")
        checked.append(together)
    return tuple(checked)


def excluded(node: Any, where: str) -> tuple[dict[str, list[Any]], ...]:
    """Combinations to leave out, every value as a list of those that match."""
    return tuple(
        {key: value if isinstance(value, list) else [value] for key, value in combination.items()}
        for combination in _mappings(node, where)
    )


def on_command_line(sweep: Sequence[str], more_zip: Any, more_exclude: Any) -> SubGrid:
    """The sub-grid of a command line with ``+zip=[...]`` and ``+exclude=[...]``."""
    grid = SubGrid("", tuple(sweep), zipped(more_zip, "+zip"), excluded(more_exclude, "+exclude"))
    return _once(grid, "command line")


def key_of(override: str) -> str:
    """The key of a Hydra override."""
    return override.split("=", 1)[0].lstrip("+~")


def text(value: Any) -> str:
    """A value as Hydra's command line has it.

    >>> text(None), text(True), text([1, "a"]), text(1e-5), text(["loss=lce"])
    ('null', 'true', '[1,a]', '1e-05', "['loss=lce']")
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_element, value))}]"
    return str(value)


def _element(value: Any) -> str:
    """A value in a list; a text that would be more than one word there is quoted."""
    if not isinstance(value, str) or re.fullmatch(r"[\w/.+*@?|%-]+", value):
        return text(value)
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), value)
    return f"'{escaped}'"


def _mappings(node: Any, where: str) -> list[dict[str, Any]]:
    if not (isinstance(node, list) and all(isinstance(m, Mapping) and m for m in node)):
        raise ValueError(f"{where}={node!r}: must be a list of mappings, [{{key: value}}]")
    return [{str(key): value for key, value in mapping.items()} for mapping in node]


def _once(grid: SubGrid, where: str) -> SubGrid:
    """Refuse a key that is swept and moved, or moved twice."""
    keys = [*map(key_of, grid.sweep), *(key for together in grid.zipped for key in together)]
    moved = {key for together in grid.zipped for key in together}
    twice = [key for key in dict.fromkeys(keys) if key in moved and keys.count(key) > 1]
    if twice:
        raise ValueError(f"{where}: {twice[0]} is given twice; once among sweep and zip, please")
    return grid
