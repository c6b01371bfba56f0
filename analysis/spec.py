"""The part of ``experiments/NAME.yaml`` that the analysis reads: rows, tests, family, baseline.

The grid itself is expanded by `rdx.config`; here only the names of its sub-grids matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

SYSTEMS = ("first_stage", "teacher", "oracle", "student", "student+first_stage")
# Systems that no trial trains: they are in every trial, and never compete for best and second.
REFERENCES = ("first_stage", "teacher", "oracle")
FAMILIES = ("collection", "all")


class SpecError(ValueError):
    """A spec names something that does not exist, or lacks something that it needs."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    name : str
        What the table prints, and what `baseline` and `comparisons` refer to.
    system : str
        One of `SYSTEMS`.
    grids : tuple of str
        The sub-grids whose trials make up the row; empty = all of them (only for ``first_stage``
        and ``oracle``, which are the same in every trial).
    competes : bool
        Whether the row takes part in best and second; students do.
    test : bool
        Whether the row is tested against the baseline; all but ``oracle`` are.
    """

    name: str
    system: str
    grids: tuple[str, ...]
    competes: bool
    test: bool


@dataclass(frozen=True)
class Spec:
    """What one table and its figure show.

    Attributes
    ----------
    name, claim : str
        File name of the spec, and the sentence that the table is there to check.
    measures : tuple of str
        ir_measures strings, in the order of the columns.
    rows : tuple of Row
        In the order of the table.
    baseline : str or None
        Name of the row that the others are tested against.
    alpha : float
        Family-wise error rate.
    family : str
        Which tests are corrected together: ``collection`` = the rows of one collection and
        measure (the paper's way), ``all`` = every test of the table.
    comparisons : tuple of (str, str)
        Further pairs of rows, first minus second; one family of their own.
    collections : tuple of str
        Which collections to show, in this order; empty = all that the trials were evaluated on.
    figure : str
        The measure of the figure.
    """

    name: str
    claim: str
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: str | None
    alpha: float
    family: str
    comparisons: tuple[tuple[str, str], ...]
    collections: tuple[str, ...]
    figure: str


ROW_KEYS = ("name", "system", "grid", "competes", "test")
SPEC_KEYS = (*(field.name for field in fields(Spec)), "grid")


def parse(node: Mapping[str, Any]) -> Spec:
    """Turn the ``spec:`` node of an experiment file into a `Spec`.

    Raises
    ------
    SpecError
        On an unknown key, system, family, sub-grid or row name; the message lists what is valid.
    """
    name = str(node.get("name", "?"))
    _known_keys(node, SPEC_KEYS, f"spec {name}")
    grids = tuple(str(grid) for grid in node.get("grid", {}))
    rows = tuple(_row(row, grids, name) for row in node.get("rows", ()))
    names = [row.name for row in rows]
    measures = tuple(str(measure) for measure in node.get("measures", ()))
    if not rows or not measures:
        raise SpecError(f"spec {name}: needs `rows` and `measures`")
    for row in names:
        if names.count(row) > 1:
            raise SpecError(f"spec {name}: two rows are called {row!r}")
    comparisons = tuple((str(a), str(b)) for a, b in node.get("comparisons") or ())
    baseline = node.get("baseline")
    for pair in comparisons:
        if pair[0] == pair[1]:
            raise SpecError(f"spec {name}: a comparison of {pair[0]!r} with itself")
    for row in (*([baseline] if baseline is not None else []), *sum(comparisons, ())):
        _one_of(row, names, f"spec {name}: row")
    alpha = float(node.get("alpha", 0.05))
    if not 0 < alpha < 1:
        raise SpecError(f"spec {name}: alpha must lie between 0 and 1, not {alpha}")
    return Spec(
        name=name,
        claim=" ".join(str(node.get("claim", "")).split()),
        measures=measures,
        rows=rows,
        baseline=None if baseline is None else str(baseline),
        alpha=alpha,
        family=_one_of(str(node.get("family", "collection")), FAMILIES, f"spec {name}: family"),
        comparisons=comparisons,
        collections=tuple(str(c) for c in node.get("collections") or ()),
        figure=_one_of(str(node.get("figure", measures[0])), measures, f"spec {name}: figure"),
    )


def _row(node: Mapping[str, Any], grids: tuple[str, ...], spec: str) -> Row:
    name = str(node.get("name", "?"))
    where = f"spec {spec}: row {name!r}"
    _known_keys(node, ROW_KEYS, where)
    system = _one_of(str(node.get("system", "student")), SYSTEMS, f"{where}: system")
    chosen = node.get("grid", ())
    chosen = (chosen,) if isinstance(chosen, str) else tuple(str(grid) for grid in chosen)
    for grid in chosen:
        _one_of(grid, grids, f"{where}: grid")
    if not chosen and system not in ("first_stage", "oracle"):
        raise SpecError(f"{where}: needs `grid`, one of {', '.join(grids)}")
    return Row(
        name=name,
        system=system,
        grids=chosen,
        competes=bool(node.get("competes", system not in REFERENCES)),
        test=bool(node.get("test", system != "oracle")),
    )


def _known_keys(node: Mapping[str, Any], valid: tuple[str, ...], where: str) -> None:
    for key in node:
        if key not in valid:
            raise SpecError(f"{where}: unknown key {key!r}; valid: {', '.join(valid)}")


def _one_of(value: str, valid: tuple[str, ...] | list[str], where: str) -> str:
    if value not in valid:
        raise SpecError(f"{where} {value!r} is not one of: {', '.join(valid)}")
    return value
