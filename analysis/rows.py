"""Rows of a table: sets of levels. By hand, or one for every combination of some factors.

    rows: {by: [sampler, depth.k, loss]}      # a row per combination that a cell of the grid has
    rows:
      - {name: First stage, system: first_stage}
      - {by: [sampler, loss], levels: {depth.k: 10}, names: {bm25: BM25}}
      - {by: [loss], system: teacher, name: "Teacher of {loss}"}
      - {name: RankNet, levels: {loss: ranknet}}
      - {name: Large, grid: large}            # the cells of a named sub-grid

A sub-grid's name is a level like others, of the factor ``grid``. Wherever a spec names rows, as
baselines or comparisons, levels may stand in place of names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from analysis.nodes import (
    ByNode,
    Node,
    RowNode,
    SpecError,
    known_keys,
    names,
    one_of,
    plain_names,
    refuse,
)
from analysis.row_names import GRID, PATTERNS, filled, labels_of, told, words_of
from rdx.arguments import near
from rdx.config import Cell, varied
from rdx.grids import text

SYSTEMS = ("first_stage", "teacher", "oracle", "student", "student+first_stage")
# An imported run is a system too: "run:" and the name that it was imported under.
IMPORTED = "run:"
# Systems that no trial trains: they are in every trial, and never compete for best and second.
REFERENCES = ("first_stage", "teacher", "oracle")
TRAINED = ("student", "student+first_stage")
UNDISTILLED = "none"  # option of the group loss: such a cell has no sampler, depth or teacher

Levels = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    name : str
        What the table prints, and what `baseline` and `comparisons` may refer to.
    system : str
        One of `SYSTEMS`, or ``run:NAME`` for a run that was imported under that name.
    levels : mapping
        Factor -> its levels as text, any of which the cells that make up the row have; no factor =
        all cells or, for an imported run, none.
    competes : bool
        Whether the row takes part in best and second; students do.
    test : bool
        Whether the row is tested against the baseline; all but ``oracle`` are.
    imports : tuple of str
        Names of imported runs whose trials hold the row too (``first_stage`` and ``oracle`` only):
        where no cell has been run, they show it.
    """

    name: str
    system: str
    levels: Levels = field(hash=False)
    competes: bool
    test: bool
    imports: tuple[str, ...] = ()

    @property
    def imported(self) -> str:
        """Name of the imported run that the row shows; "" if the trials of the grid make it up."""
        return self.system.removeprefix(IMPORTED) if self.system.startswith(IMPORTED) else ""

    @property
    def trained(self) -> bool:
        """Whether the row's scores come from training runs."""
        return self.system in TRAINED

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is one of those that make up the row."""
        return all(level_of(cell, factor) in levels for factor, levels in self.levels.items())


def level_of(cell: Cell, factor: str) -> str:
    """The level of a factor in a cell; "" where the cell has no such key."""
    if factor == GRID:
        return cell.grid
    return cell.level(factor) if cell.has(factor) else ""


def settings(cells: Sequence[Cell]) -> dict[tuple[str, ...], Cell]:
    """A cell per setting: by the levels of all keys that differ between cells, the seed apart."""
    axes = varied(cells)
    axes.pop("seed", None)
    return {tuple(axis[i] for axis in axes.values()): cell for i, cell in enumerate(cells)}


def rows_of(node: Any, grids: Sequence[str], cells: Sequence[Cell], where: str) -> tuple[Row, ...]:
    """The rows of a spec.

    Parameters
    ----------
    node
        A list of rows, or one mapping with `by`.
    grids
        Names of the sub-grids; none if the grid consists of factors.
    cells
        Those that are possible; rows by hand alone, over sub-grids, need none.

    Raises
    ------
    SpecError
        On an unknown key, system or sub-grid, and on a factor or level that no cell has.
    """
    rows: list[Row] = []
    for one in [node] if isinstance(node, Mapping) else node or ():
        refuse(not isinstance(one, Mapping), f"{where}: row {one!r}: must hold keys and values")
        rows += _by(one, cells, where) if "by" in one else [_row(one, grids, cells, where)]
    given = [row.name for row in rows]
    for name in given:
        refuse(given.count(name) > 1, f"{where}: two rows are called {name!r}")
    return tuple(rows)


def _row(node: Node, grids: Sequence[str], cells: Sequence[Cell], where: str) -> Row:
    """A row by hand."""
    name = str(node.get("name", "?"))
    where = f"{where}: row {name!r}"
    known_keys(node, RowNode, where)
    system = str(node.get("system", "student"))
    imported = system.startswith(IMPORTED) and system != IMPORTED
    if not imported:
        one_of(system, (*SYSTEMS, f"{IMPORTED}NAME"), f"{where}: system")
    of_all = system in ("first_stage", "oracle")
    own_grids, imports = names(node.get(GRID)), names(node.get("imports"))
    for grid in own_grids:
        one_of(grid, grids, f"{where}: grid")
    levels = _levels(node.get("levels"), cells, where)
    levels |= {GRID: own_grids} if own_grids else {}
    surplus = f"{where}: an imported run belongs to no sub-grid; leave `grid` away"
    refuse(imported and bool(levels), surplus)
    lacking = f"{where}: needs `grid`, one of {', '.join(grids)}, or `levels`"
    refuse(bool(grids) and not (levels or imported or of_all), lacking)
    misplaced = f"{where}: `imports` is for first_stage and oracle of all trials"
    refuse(bool(imports) and (bool(levels) or not of_all), misplaced)
    row = Row(
        name=name,
        system=system,
        levels=levels,
        competes=bool(node.get("competes", system not in REFERENCES)),
        test=bool(node.get("test", system != "oracle")),
        imports=imports,
    )
    nobody = "levels" in node and not any(map(row.holds, cells))
    refuse(nobody, f"{where}: no cell that is possible has all of these levels together")
    return row


def _by(node: Node, cells: Sequence[Cell], where: str) -> Iterator[Row]:
    """A row for every combination of levels that cells have, in the order of the cells."""
    where = f"{where}: rows by factors"
    known_keys(node, ByNode, where)
    factors = plain_names(node["by"], f"{where}: by")
    system = one_of(str(node.get("system", "student")), tuple(PATTERNS), f"{where}: system")
    refuse("seed" in factors, f"{where}: seeds are averaged in a row; leave seed out of `by`")
    for factor in factors:
        _known_factor(factor, cells, where)
    only = _levels(node.get("levels"), cells, where)
    only |= {GRID: names(node[GRID])} if GRID in node else {}
    points: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if all(level_of(cell, factor) in levels for factor, levels in only.items()):
            points.setdefault(tuple(level_of(cell, factor) for factor in factors), cell)
    refuse(not points, f"{where}: no cell that is possible has such levels")
    words = words_of(factors, points)
    labels = labels_of(node.get("names"), tuple(words.values()), where)
    pattern = str(node.get("name", PATTERNS[system]))
    for point, name in zip(points, told(factors, points, words, labels), strict=True):
        levels = dict(zip(factors, point, strict=True))
        plain = {f: labels.get(words.get((f, level), ""), level) for f, level in levels.items()}
        yield Row(
            name=filled(pattern, {"": name} | plain, where),
            system=system,
            levels=only | {factor: (level,) for factor, level in levels.items()},
            competes=bool(node.get("competes", system not in REFERENCES)),
            test=bool(node.get("test", True)),
        )


def _levels(node: Any, cells: Sequence[Cell], where: str) -> dict[str, tuple[str, ...]]:
    """Levels that a spec asks of cells, checked."""
    levels = _texts(node, f"{where}: levels")
    for factor, wanted in levels.items():
        _known_factor(factor, cells, where)
        known = tuple(dict.fromkeys(level_of(cell, factor) for cell in cells))
        for level in wanted:
            _known_level(factor, level, known, "cell that is possible", where)
    return levels


def _texts(node: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Levels as text, each factor with those of which any will do."""
    refuse(not isinstance(node or {}, Mapping), f"{where}: must be {{factor: level}}, not {node!r}")
    return {
        str(key): tuple(map(text, value if isinstance(value, list | tuple) else [value]))
        for key, value in (node or {}).items()
    }


def _known_factor(factor: str, cells: Sequence[Cell], where: str) -> None:
    if factor != GRID and not any(cell.has(factor) for cell in cells):
        valid = [key for key in varied(cells) if key != "seed"]
        hint = near(factor, valid)
        raise SpecError(
            f"{where}: {factor}: no cell has this key; what varies: {', '.join(valid)}{hint}"
        )


def _known_level(factor: str, level: str, known: Sequence[str], who: str, where: str) -> None:
    hint = near(level, known)
    refuse(
        level not in known,
        f"{where}: {factor}={level}: no {who} has it; they have: {', '.join(known)}{hint}",
    )


# --- rows by their levels ---


def chosen(node: Any, rows: Sequence[Row], where: str) -> tuple[str, ...]:
    """Names of the rows that a spec means: by a name, by levels, or by a list of these.

    Levels mean every row that has them all, of students if they do not say ``system``.

    Raises
    ------
    SpecError
        If there is no such row.
    """
    if node is None:
        return ()
    if isinstance(node, Mapping):
        return tuple(row.name for row in _with(_asked(node, rows, where), rows, where))
    if isinstance(node, list | tuple):
        return tuple(name for one in node for name in chosen(one, rows, where))
    [name] = names(node)
    one_of(name, [row.name for row in rows], f"{where}: row")
    return (name,)


def pairs(nodes: Any, rows: Sequence[Row], where: str) -> tuple[tuple[str, str], ...]:
    """The pairs of rows that `comparisons` mean, first minus second, each once.

    Parameters
    ----------
    nodes
        A list of ``[A, B]``: two names; or two sets of levels, where every row with the first is
        compared with the row that has the second in place of its own. And of factors, or one: its
        simple effects, every two rows that differ in it alone, the later level minus the earlier.

    Raises
    ------
    SpecError
        If there are no such rows.
    """
    found: list[tuple[str, str]] = []
    for node in nodes if isinstance(nodes, list | tuple) else names(nodes):
        if isinstance(node, str):
            found += _simple_effects(node, rows, where)
            continue
        pair = isinstance(node, list | tuple) and len(node) == 2
        alike = pair and isinstance(node[0], Mapping) == isinstance(node[1], Mapping)
        if not alike:
            raise SpecError(f"{where}: {node!r}: must be [row, row], [levels, levels] or a factor")
        if isinstance(node[0], Mapping):
            found += _moved(node[0], node[1], rows, where)
        else:
            [a], [b] = (chosen(str(one), rows, where) for one in node)
            refuse(a == b, f"{where}: a comparison of {a!r} with itself")
            found.append((a, b))
    return tuple(dict.fromkeys(found))


def _asked(node: Node, rows: Sequence[Row], where: str) -> Levels:
    """The levels that a spec asks of rows, checked; with their ``system``."""
    asked = _texts(node, where)
    known: dict[str, dict[str, None]] = {"system": {}}
    for row in rows:
        known["system"][row.system] = None
        for factor, levels in row.levels.items():
            known.setdefault(factor, {}).update(dict.fromkeys(levels))
    for factor, levels in asked.items():
        hint = near(factor, known)
        refuse(
            factor not in known,
            f"{where}: {factor}: no factor of the rows; they are: {', '.join(known)}{hint}",
        )
        for level in levels:
            _known_level(factor, level, tuple(known[factor]), "row", where)
    return asked


def _with(asked: Levels, rows: Sequence[Row], where: str) -> list[Row]:
    """The rows that have these levels; at least one."""
    systems = asked.get("system", ("student",))
    found = [
        row
        for row in rows
        if row.system in systems
        and all(
            set(row.levels.get(factor, ("",))) <= set(levels)
            for factor, levels in asked.items()
            if factor != "system"
        )
    ]
    told = ", ".join(f"{factor}={'|'.join(levels)}" for factor, levels in asked.items())
    refuse(not found, f"{where}: no row has all of: {told}")
    return found


def _moved(first: Node, second: Node, rows: Sequence[Row], where: str) -> Iterator[tuple[str, str]]:
    """Rows with the first levels, each with the row that has the second in place of its own."""
    moved = _asked(second, rows, where)
    none = True
    for row in _with(_asked(first, rows, where), rows, where):
        levels = {**row.levels, **moved}
        system = levels.pop("system", (row.system,))
        partner = next((r for r in rows if r.levels == levels and r.system in system), row)
        if partner is not row:
            none = False
            yield row.name, partner.name
    refuse(none, f"{where}: no two rows are {dict(first)} and, all else equal, {dict(second)}")


def _simple_effects(factor: str, rows: Sequence[Row], where: str) -> Iterator[tuple[str, str]]:
    """Every two rows of one system that differ in one factor alone."""
    factors = list(dict.fromkeys(f for row in rows if row.trained for f in row.levels))
    one_of(factor, factors, f"{where}: neither [row, row] nor [levels, levels], and as a factor")
    none = True
    for earlier, later in combinations([row for row in rows if row.trained], 2):
        differing = {
            key
            for key in {*earlier.levels, *later.levels}
            if earlier.levels.get(key) != later.levels.get(key)
        }
        if differing == {factor} and earlier.system == later.system:
            none = False
            yield later.name, earlier.name
    refuse(none, f"{where}: no two rows differ in {factor} alone")
