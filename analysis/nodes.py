"""Nodes of a spec as YAML gives them: their keys, and checks with errors that name the key.

The docstrings of the node classes are the reference of the keys (docs/spec.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from rdx.arguments import near
from rdx.faults import Mendable

Node = Mapping[str, Any]


class SpecNode(TypedDict, total=False):
    """The `spec:` of an experiment as it is written.

    Attributes
    ----------
    name : text
        The name of the file, which messages and tables show.
    claim : text
        The sentence that the table is there to check; printed above it.
    grid : factors, a list of these, or NAME: sub-grid
        The cells, see below. ``{}``: none, a table of imported runs alone.
    measures : list of measures; needed
        In the words of ir_measures, in the order of the columns. The cells must measure them:
        ``evaluation.measures``.
    rows : list of rows, or one mapping with `by`; needed
        The systems of the table, in its order.
    baseline : row, levels, or a list of these
        The rows that all others are tested against, at most five, each with a mark of its own.
    comparisons : list
        Further tests, first minus second: ``[ROW, ROW]``; ``[LEVELS, LEVELS]``, every row with the
        first against the row that has the second in its place; or the name of a factor, every two
        rows that differ in it alone. One family of their own, unless `family` is `grid`.
    all_pairs : true, false; default false
        Test all rows against each other, too, and show it by compact letters.
    test : t, wilcoxon or randomisation; default t
        Paired over queries. With several seeds and the default, of the choice: queries and training
        runs are random (docs/statistics.md).
    interval : t or bca; default t
        Of the 95 % intervals of differences; `bca`: bootstrap.
    correction : holm, hochberg or bh; default holm
        For many tests: the family-wise error rate, or with `bh` the false discovery rate.
    family : collection, all or grid; default collection
        Which tests are corrected together: those against the baselines in one collection and
        measure; those in every collection and measure; or every test of the spec.
    alpha : number > 0, < 1; default 0.05
        The error rate that the correction holds.
    margin : number > 0, or null; default null
        Smallest difference that matters, in units of the measure: within it rows are tested for
        equivalence and non-inferiority, and planning says whether the grid could find it. Needs
        `baseline`. null: no such test.
    factors : list of keys
        Config groups or keys whose main effects, interactions and simple effects are estimated.
        Every cell must have them.
    x : key, or null; default null
        A key with numbers: the horizontal axis of line figures.
    figure : one of `measures`; default the first
        The measure of the figures.
    collections : list of test sets
        Which to show, in this order; default all that the cells are evaluated on.
    pooled : NAME: list of collections
        Test sets of several folds that are joined into one, of all their queries: each scored by
        the trials that were tested on it. No query may be in two of them. Tests and figures are of
        the whole.
    means : list of means
        Further columns, each a mean over collections.
    expected : list of expected numbers
        Published numbers that rows should reproduce; the table says whether they do.
    fields : KEY: [VALUE, SOURCE]
        Where the settings of a recipe come from: `paper`, `repository` or `assumed`; printed below
        the table. null in place of the list takes away what the recipe says of a key.
    source : text
        Where the recipe was published.
    deviations : list of text
        In what the cells differ from what was published, and cannot help it.
    """

    name: str
    claim: str
    grid: Any
    measures: list[str]
    rows: Any
    baseline: Any
    comparisons: list[Any]
    all_pairs: bool
    test: str
    interval: str
    correction: str
    family: str
    alpha: float
    margin: float | None
    factors: list[str]
    x: str | None
    figure: str
    collections: list[str]
    pooled: Mapping[str, list[str]]
    means: list[Any]
    expected: list[Any]
    fields: Mapping[str, Any]
    source: str
    deviations: list[str]


class RowNode(TypedDict, total=False):
    """A row as it is written.

    Attributes
    ----------
    name : text
        What the table prints, and what `baseline`, `comparisons` and `expected` may refer to.
    system : one of the systems above; default student
        What is taken from the cells of the row.
    levels : KEY: level, or a list of levels
        Which cells make up the row: those that have one of the levels of every key. Without
        `levels` and `grid`: all cells.
    grid : name, or list of names
        The sub-grids whose cells make up the row; needed where the spec has sub-grids, except for
        `first_stage`, `oracle` and imported runs, unless `levels` are given.
    competes : true, false
        Whether the row takes part in best and second. Default: students and imported runs do.
    test : true, false
        Whether the row is tested against the baselines. Default: all but `oracle` are.
    imports : name, or list of names
        Of `first_stage` and `oracle`: imported runs whose trials hold the row too. They show it
        where no cell has been run.
    """

    name: str
    system: str
    levels: Mapping[str, Any]
    grid: str | list[str]
    competes: bool
    test: bool
    imports: str | list[str]


class ByNode(TypedDict, total=False):
    """A row for every combination of levels that cells have, as it is written.

    Attributes
    ----------
    by : list of keys
        Config groups or keys; the name of a sub-grid is the level of the key `grid`. The seed is
        none of them: a row is the mean over its seeds.
    system : student, student+first_stage or teacher; default student
        As of a row.
    levels : KEY: level, or a list of levels
        Only cells that have one of the levels of every key.
    grid : name, or list of names
        Only cells of these sub-grids.
    name : text; default by `system`: {}, {} + first stage or {} (teacher)
        The names of the rows: ``{}`` stands for the levels that tell them apart, ``{KEY}`` for the
        level of one factor.
    names : LEVEL: text
        What the names of rows say in place of a level, or of KEY=LEVEL.
    competes : true, false
        As of a row.
    test : true, false
        As of a row.
    """

    by: list[str]
    system: str
    levels: Mapping[str, Any]
    grid: str | list[str]
    name: str
    names: Mapping[str, str]
    competes: bool
    test: bool


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


def known_keys(node: Node, record: type, where: str) -> None:
    """Refuse a node with a key that its record, a class with a field per key, does not have."""
    valid = list(record.__annotations__)
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
