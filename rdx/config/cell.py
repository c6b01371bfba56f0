"""A cell of the grid: one full configuration, and the value of every key of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from rdx.config.building import built
from rdx.config.schema import Config
from rdx.grids import key_of, text


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
        Option chosen per config group, nested ones ("depth/lists") included: the factor levels of
        the cell. Once it is signed, also what it starts from ("start"), if it does.
    signature
        Signature of the cell: of its last step (`rdx.stages.signed`); "" before it is signed.
    keys
        Signature of every step, by its name.
    pinned
        Overrides for what the machine chose (`rdx.config.machine`), for workers elsewhere.
    """

    overrides: tuple[str, ...]
    grid: str
    cfg: Config
    levels: dict[str, str] = field(default_factory=dict)
    signature: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()

    def value(self, key: str) -> Any:
        """The value of a key: of a config group the option, of an object the name of its class.

        `key` is written as on the command line: "loss", "depth/lists", "trainer.batch",
        "depth.lists.margin". Values have their declared types, and one that the configuration does
        not give is the default of its class, so that both spellings are one level.

        Raises
        ------
        KeyError
            If the cell has no such key.
        """
        group = key.rpartition("@")[2].replace(".", "/")
        if group in self.levels:
            return self.levels[group]
        first, *rest = group.split("/")
        value: Any = self.cfg[first]
        if rest and isinstance(value, dict) and "_target_" in value:
            value = built(value, first)
        for name in rest:
            if isinstance(value, Mapping):
                value = value[name]
            elif is_dataclass(value) and name in {f.name for f in fields(value)}:
                value = getattr(value, name)
            else:
                raise KeyError(key)
        if isinstance(value, dict) and "_target_" in value:
            return str(value["_target_"]).rpartition(".")[2]
        return type(value).__name__ if is_dataclass(value) else value

    def level(self, key: str) -> str:
        """The value of a key as text, as on the command line: null, true, [1,2].

        Raises
        ------
        KeyError
            If the cell has no such key.
        """
        return text(self.value(key))

    def has(self, key: str) -> bool:
        """Whether the cell has a value of this key."""
        try:
            self.value(key)
        except KeyError:
            return False
        return True


def varied(cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    """Keys of the command lines that differ between cells: key -> its level in each of them.

    The level is "" where a cell has no such key. A key is named as it is spelt first: "depth/lists"
    and "depth.lists" are one.
    """
    spelt: dict[str, str] = {}
    for key in (key_of(override) for cell in cells for override in cell.overrides):
        spelt.setdefault(key.rpartition("@")[2].replace("/", "."), key)
    columns = {
        key: tuple(cell.level(key) if cell.has(key) else "" for cell in cells)
        for key in spelt.values()
    }
    return {key: column for key, column in columns.items() if len(set(column)) > 1}
