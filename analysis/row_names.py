"""Names of rows by factors, made from the levels that tell them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.nodes import one_of, refuse
from rdx import folders
from rdx.config import Cell
from rdx.grids import key_of

GRID = "grid"  # the factor whose levels are the names of sub-grids
# `name` of rows by factors: "{}" stands for the levels that tell them apart, "{FACTOR}" for one.
PATTERNS = {
    "student": "{}",
    "student+first_stage": "{} + first stage",
    "teacher": "{} (teacher)",
}


def words_of(
    factors: Sequence[str], points: Iterable[tuple[str, ...]]
) -> dict[tuple[str, str], str]:
    """(factor, level) -> its name, for the factors that have several levels.

    An option of a group stands for itself, unless it is "none" or another factor has it too; all
    else is KEY=LEVEL.
    """
    columns = dict(zip(factors, map(dict.fromkeys, zip(*points, strict=True)), strict=True))
    telling = {factor: tuple(levels) for factor, levels in columns.items() if len(levels) > 1}
    owners = Counter(level for levels in telling.values() for level in levels)

    def word(factor: str, level: str) -> str:
        if level == "":
            return f"no {factor}"
        plain = factor == GRID or folders.is_group(factor.replace(".", "/"))
        return level if plain and level != "none" and owners[level] == 1 else f"{factor}={level}"

    return {(f, level): word(f, level) for f, levels in telling.items() for level in levels}


def labels_of(node: Any, words: Sequence[str], where: str) -> dict[str, str]:
    """What a spec's ``names`` prints in place of the names of levels."""
    refuse(not isinstance(node or {}, Mapping), f"{where}: names: must be {{LEVEL: NAME}}")
    labels = {str(key): str(label) for key, label in (node or {}).items()}
    for label in labels:
        one_of(label, words, f"{where}: names:")
    return labels


def told(
    factors: Sequence[str],
    points: Mapping[tuple[str, ...], Cell],
    words: Mapping[tuple[str, str], str],
    labels: Mapping[str, str],
) -> list[str]:
    """The levels that tell rows apart and that their command lines give, as names.

    Where what command lines give does not tell rows apart, all levels are told.
    """
    full = [[p for p in zip(factors, point, strict=True) if p in words] for point in points]
    given = [{_spelt(key_of(o)) for o in cell.overrides} | {GRID} for cell in points.values()]
    short = [[p for p in pairs if _spelt(p[0]) in g] for pairs, g in zip(full, given, strict=True)]
    apart = all(short) and len(set(map(tuple, short))) == len(short)
    return [
        ", ".join(labels.get(words[pair], words[pair]) for pair in pairs) or "student"
        for pairs in (short if apart else full)
    ]


def filled(pattern: str, levels: Mapping[str, str], where: str) -> str:
    """A name of rows with the levels of one of them in the place of ``{FACTOR}``."""
    for factor in re.findall(r"{([^{}]*)}", pattern):
        one_of(factor, tuple(levels), f"{where}: name: {{{factor}}}:")
    return re.sub(r"{([^{}]*)}", lambda place: levels[place[1]], pattern)


def _spelt(key: str) -> str:
    """A key in one of its spellings: "depth/lists" and "depth.lists" are one."""
    return key.rpartition("@")[2].replace("/", ".")
