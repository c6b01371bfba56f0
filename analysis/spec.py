"""The part of ``experiments/NAME.yaml`` that the analysis reads: rows, tests, family, baseline.

The grid itself is expanded by `rdx.config`; here only the names of its sub-grids matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rdx.faults import Mendable

SYSTEMS = ("first_stage", "teacher", "oracle", "student", "student+first_stage")
# An imported run is a system too: "run:" and the name that it was imported under.
IMPORTED = "run:"
# Systems that no trial trains: they are in every trial, and never compete for best and second.
REFERENCES = ("first_stage", "teacher", "oracle")
TRAINED = ("student", "student+first_stage")
FAMILIES = ("collection", "all", "grid")
TESTS = ("t", "wilcoxon", "randomisation")
INTERVALS = ("t", "bca")
CORRECTIONS = ("holm", "hochberg", "bh")
MOST_BASELINES = 5
PUBLISHED = ("notebook", "readme", "paper")
KINDS = ("arithmetic", "geometric")
PROVENANCE = ("paper", "repository", "assumed")
# What trials that were timed hold beside the measures; lower is better, and no test is made.
SECONDS, BYTES = "seconds per query", "bytes at peak"
COSTS = (SECONDS, BYTES)


class SpecError(Mendable, ValueError):
    """A spec names something that does not exist, or lacks something that it needs."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    name : str
        What the table prints, and what `baseline` and `comparisons` refer to.
    system : str
        One of `SYSTEMS`, or ``run:NAME`` for a run that was imported under that name.
    grids : tuple of str
        The sub-grids whose trials make up the row; empty = all of them (only for ``first_stage``
        and ``oracle``, which are the same in every trial) or, for an imported run, none.
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
    grids: tuple[str, ...]
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


@dataclass(frozen=True)
class Expected:
    """One published number.

    Attributes
    ----------
    row, collection, measure : str
        The cell of the table that it should reproduce; of the measures or `COSTS`.
    value : float
        In units of the measure.
    source : str
        One of `PUBLISHED`.
    tolerance : float or None
        Largest difference that still counts as reproduced; None = as printed.
    """

    row: str
    collection: str
    measure: str
    value: float
    source: str
    tolerance: float | None


@dataclass(frozen=True)
class Mean:
    """A column of means over collections.

    Attributes
    ----------
    name : str
        Head of the column.
    of : tuple of str
        Collections; empty = all that are shown and count (`analysis.means`).
    kind : str
        One of `KINDS`.
    """

    name: str
    of: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Provenance:
    """Where one field of the recipe comes from.

    Attributes
    ----------
    key, value : str
        The field and what it is set to.
    source : str
        One of `PROVENANCE`.
    """

    key: str
    value: str
    source: str


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
    baselines : tuple of str
        Names of the rows that the others are tested against, each with a mark of its own.
    alpha : float
        Error rate that the correction holds: family-wise with Holm and Hochberg, the false
        discovery rate with Benjamini and Hochberg.
    test, interval, correction : str
        One of `TESTS`, `INTERVALS` and `CORRECTIONS`.
    family : str
        Which tests are corrected together: ``collection`` = those against the baselines in one
        collection and measure (the paper's way), ``all`` = those against the baselines in every
        collection and measure, ``grid`` = every test of the spec, `comparisons` and all pairs too.
    comparisons : tuple of (str, str)
        Further pairs of rows, first minus second; one family of their own unless the family is
        ``grid``.
    all_pairs : bool
        Whether all rows are tested against each other and shown with compact letters.
    margin : float or None
        Equivalence margin in units of the measure; None = equivalence is not tested.
    factors : tuple of str
        Config groups or override keys whose effects are estimated.
    x : str or None
        Override key on the horizontal axis of line figures.
    expected : tuple of Expected
        Published numbers.
    fields : tuple of Provenance
        Where the fields of the recipe come from, printed below the table.
    collections : tuple of str
        Which collections to show, in this order; empty = all that the trials were evaluated on.
    figure : str
        The measure of the figure.
    means : tuple of Mean
        Columns of means over collections, after those of the collections.
    """

    name: str
    claim: str
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    baselines: tuple[str, ...]
    alpha: float
    family: str
    comparisons: tuple[tuple[str, str], ...]
    collections: tuple[str, ...]
    figure: str
    test: str = "t"
    interval: str = "t"
    correction: str = "holm"
    all_pairs: bool = False
    margin: float | None = None
    factors: tuple[str, ...] = ()
    x: str | None = None
    expected: tuple[Expected, ...] = ()
    fields: tuple[Provenance, ...] = ()
    means: tuple[Mean, ...] = ()

    @property
    def baseline(self) -> str | None:
        """The first of `baselines`; None if there is none."""
        return self.baselines[0] if self.baselines else None

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)


ROW_KEYS = ("name", "system", "grid", "competes", "test", "imports")
EXPECTED_KEYS = tuple(field.name for field in fields(Expected))
MEAN_KEYS = tuple(field.name for field in fields(Mean))
FIELD_KEYS = tuple(field.name for field in fields(Provenance))
SPEC_KEYS = (*(f.name for f in fields(Spec) if f.name != "baselines"), "baseline", "grid")


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
    baselines = _names(node.get("baseline"))
    for pair in comparisons:
        if pair[0] == pair[1]:
            raise SpecError(f"spec {name}: a comparison of {pair[0]!r} with itself")
    for row in (*baselines, *sum(comparisons, ())):
        _one_of(row, names, f"spec {name}: row")
    if len(baselines) > MOST_BASELINES:
        raise SpecError(f"spec {name}: at most {MOST_BASELINES} baselines, since each has a mark")
    if len(set(baselines)) < len(baselines):
        raise SpecError(f"spec {name}: baseline names a row twice: {', '.join(baselines)}")
    alpha = float(node.get("alpha", 0.05))
    if not 0 < alpha < 1:
        raise SpecError(f"spec {name}: alpha must lie between 0 and 1, not {alpha}")
    margin = _number(node.get("margin"), f"spec {name}: margin")
    if margin is not None and margin <= 0:
        raise SpecError(f"spec {name}: margin must be above 0, in units of the measure")
    if margin is not None and not baselines:
        raise SpecError(f"spec {name}: margin needs `baseline`, to be equivalent to")
    all_pairs = node.get("all_pairs", False)
    if not isinstance(all_pairs, bool):
        raise SpecError(f"spec {name}: all_pairs must be true or false, not {all_pairs!r}")
    collections = tuple(str(c) for c in node.get("collections") or ())
    means = tuple(_mean(mean, collections, name) for mean in node.get("means") or ())
    columns = (*collections, *(mean.name for mean in means)) if collections else ()
    if len(set(columns)) < len(columns):
        raise SpecError(f"spec {name}: two columns of the same name among {', '.join(columns)}")
    return Spec(
        name=name,
        claim=" ".join(str(node.get("claim", "")).split()),
        measures=measures,
        rows=rows,
        baselines=baselines,
        alpha=alpha,
        family=_one_of(str(node.get("family", "collection")), FAMILIES, f"spec {name}: family"),
        comparisons=comparisons,
        collections=collections,
        figure=_one_of(str(node.get("figure", measures[0])), measures, f"spec {name}: figure"),
        test=_one_of(str(node.get("test", "t")), TESTS, f"spec {name}: test"),
        interval=_one_of(str(node.get("interval", "t")), INTERVALS, f"spec {name}: interval"),
        correction=_one_of(
            str(node.get("correction", "holm")), CORRECTIONS, f"spec {name}: correction"
        ),
        all_pairs=all_pairs,
        margin=margin,
        factors=_names(node.get("factors")),
        x=None if node.get("x") is None else str(node["x"]),
        expected=_expected(node.get("expected") or (), names, columns, measures, name),
        fields=tuple(_field(field, name) for field in node.get("fields") or ()),
        means=means,
    )


def _row(node: Mapping[str, Any], grids: tuple[str, ...], spec: str) -> Row:
    name = str(node.get("name", "?"))
    where = f"spec {spec}: row {name!r}"
    _known_keys(node, ROW_KEYS, where)
    system = str(node.get("system", "student"))
    imported = system.startswith(IMPORTED) and system != IMPORTED
    if not imported:
        _one_of(system, (*SYSTEMS, f"{IMPORTED}NAME"), f"{where}: system")
    chosen = node.get("grid", ())
    chosen = (chosen,) if isinstance(chosen, str) else tuple(str(grid) for grid in chosen)
    for grid in chosen:
        _one_of(grid, grids, f"{where}: grid")
    if imported and chosen:
        raise SpecError(f"{where}: an imported run belongs to no sub-grid; leave `grid` away")
    if not chosen and not imported and system not in ("first_stage", "oracle"):
        raise SpecError(f"{where}: needs `grid`, one of {', '.join(grids)}")
    imports = _names(node.get("imports"))
    if imports and (chosen or system not in ("first_stage", "oracle")):
        raise SpecError(f"{where}: `imports` is for first_stage and oracle of all trials")
    return Row(
        name=name,
        system=system,
        grids=chosen,
        competes=bool(node.get("competes", system not in REFERENCES)),
        test=bool(node.get("test", system != "oracle")),
        imports=imports,
    )


def _expected(
    nodes: Iterable[Mapping[str, Any]],
    rows: list[str],
    collections: tuple[str, ...],
    measures: tuple[str, ...],
    spec: str,
) -> tuple[Expected, ...]:
    numbers: dict[tuple[str, str, str, str], Expected] = {}
    for node in nodes:
        where = f"spec {spec}: expected"
        _known_keys(node, EXPECTED_KEYS, where)
        _needed(node, ("row", "collection", "measure", "value", "source"), where)
        row, collection, measure = (str(node[k]) for k in ("row", "collection", "measure"))
        where = f"{where} {row}, {collection}, {measure}:"
        _one_of(row, rows, f"{where} row")
        if collections:
            _one_of(collection, collections, f"{where} collection")
        _one_of(measure, (*measures, *COSTS), f"{where} measure")
        source = _one_of(str(node["source"]), PUBLISHED, f"{where} source")
        value = _number(node["value"], f"{where} value")
        tolerance = _number(node.get("tolerance"), f"{where} tolerance")
        if value is None or (tolerance is not None and tolerance < 0):
            raise SpecError(f"{where} needs a number as value, and none below 0 as tolerance")
        if (row, collection, measure, source) in numbers:
            raise SpecError(f"{where} is given twice for {source}")
        numbers[row, collection, measure, source] = Expected(
            row, collection, measure, value, source, tolerance
        )
    return tuple(numbers.values())


def _mean(node: Mapping[str, Any], collections: tuple[str, ...], spec: str) -> Mean:
    where = f"spec {spec}: means"
    _known_keys(node, MEAN_KEYS, where)
    _needed(node, ("name",), where)
    name, of = str(node["name"]), _names(node.get("of"))
    if collections:
        for collection in of:
            _one_of(collection, collections, f"{where} {name}: collection")
    kind = _one_of(str(node.get("kind", "arithmetic")), KINDS, f"{where} {name}: kind")
    return Mean(name, of, kind)


def _field(node: Mapping[str, Any], spec: str) -> Provenance:
    where = f"spec {spec}: fields"
    _known_keys(node, FIELD_KEYS, where)
    _needed(node, FIELD_KEYS, where)
    key = str(node["key"])
    source = _one_of(str(node["source"]), PROVENANCE, f"{where} {key}: source")
    return Provenance(key, str(node["value"]), source)


def _names(node: Any) -> tuple[str, ...]:
    """One name or a list of them, as a tuple."""
    return () if node is None else (node,) if isinstance(node, str) else tuple(map(str, node))


def _number(node: Any, where: str) -> float | None:
    if node is None:
        return None
    if isinstance(node, bool) or not isinstance(node, int | float) or not math.isfinite(node):
        raise SpecError(f"{where} must be a number, not {node!r}")
    return float(node)


def _needed(node: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    absent = [key for key in keys if key not in node]
    if absent:
        raise SpecError(f"{where}: {dict(node)} lacks {', '.join(absent)}")


def _known_keys(node: Mapping[str, Any], valid: tuple[str, ...], where: str) -> None:
    for key in node:
        if key not in valid:
            raise SpecError(f"{where}: unknown key {key!r}; valid: {', '.join(valid)}")


def _one_of(value: str, valid: tuple[str, ...] | list[str], where: str) -> str:
    if value not in valid:
        raise SpecError(f"{where} {value!r} is not one of: {', '.join(valid)}")
    return value
