"""The part of ``experiments/NAME.yaml`` that the analysis reads: rows, tests, family, baseline.

The grid itself is expanded by `rdx.config`; here only the names of its sub-grids matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rdx.faults import Mendable
from rdx.grids import text

Node = Mapping[str, Any]  # as YAML gives it
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
    source : str
        Where the recipe was published.
    deviations : tuple of str
        In what the recipe's cells differ from what was published, and cannot help it.
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
    source: str = ""
    deviations: tuple[str, ...] = ()

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
SPEC_KEYS = (*(f.name for f in fields(Spec) if f.name != "baselines"), "baseline", "grid")


def parse(node: Node) -> Spec:
    """Turn the ``spec:`` node of an experiment file into a `Spec`.

    Raises
    ------
    SpecError
        On an unknown key, system, family, sub-grid or row name; the message lists what is valid.
    """
    name = str(node.get("name", "?"))
    where = f"spec {name}"
    _known_keys(node, SPEC_KEYS, where)
    grids = tuple(str(grid) for grid in node.get("grid", {}))
    rows = tuple(_row(row, grids, where) for row in node.get("rows", ()))
    names = [row.name for row in rows]
    measures = tuple(str(measure) for measure in node.get("measures", ()))
    _refuse(not rows or not measures, f"{where}: needs `rows` and `measures`")
    for row in names:
        _refuse(names.count(row) > 1, f"{where}: two rows are called {row!r}")
    comparisons = tuple((str(a), str(b)) for a, b in node.get("comparisons") or ())
    baselines = _names(node.get("baseline"))
    for a, b in comparisons:
        _refuse(a == b, f"{where}: a comparison of {a!r} with itself")
    for row in (*baselines, *sum(comparisons, ())):
        _one_of(row, names, f"{where}: row")
    most = f"{where}: at most {MOST_BASELINES} baselines, since each has a mark"
    _refuse(len(baselines) > MOST_BASELINES, most)
    twice = f"{where}: baseline names a row twice: {', '.join(baselines)}"
    _refuse(len(set(baselines)) < len(baselines), twice)
    alpha = float(node.get("alpha", 0.05))
    _refuse(not 0 < alpha < 1, f"{where}: alpha must lie between 0 and 1, not {alpha}")
    margin = _number(node.get("margin"), f"{where}: margin")
    if margin is not None:
        _refuse(margin <= 0, f"{where}: margin must be above 0, in units of the measure")
        _refuse(not baselines, f"{where}: margin needs `baseline`, to be equivalent to")
    all_pairs = node.get("all_pairs", False)
    if not isinstance(all_pairs, bool):
        raise SpecError(f"{where}: all_pairs must be true or false, not {all_pairs!r}")
    collections = tuple(str(c) for c in node.get("collections") or ())
    means = tuple(_mean(mean, collections, f"{where}: means") for mean in node.get("means") or ())
    columns = (*collections, *(mean.name for mean in means)) if collections else ()
    twice = f"{where}: two columns of the same name among {', '.join(columns)}"
    _refuse(len(set(columns)) < len(columns), twice)
    return Spec(
        name=name,
        claim=" ".join(str(node.get("claim", "")).split()),
        measures=measures,
        rows=rows,
        baselines=baselines,
        alpha=alpha,
        family=_choice(node, "family", FAMILIES, where),
        comparisons=comparisons,
        collections=collections,
        figure=_choice(node, "figure", measures, where),
        test=_choice(node, "test", TESTS, where),
        interval=_choice(node, "interval", INTERVALS, where),
        correction=_choice(node, "correction", CORRECTIONS, where),
        all_pairs=all_pairs,
        margin=margin,
        factors=_names(node.get("factors")),
        x=None if node.get("x") is None else str(node["x"]),
        expected=_expected(
            node.get("expected") or (), names, columns, measures, f"{where}: expected"
        ),
        fields=provenance(node.get("fields") or {}, f"{where}: fields"),
        means=means,
        source=str(node.get("source") or ""),
        deviations=_names(node.get("deviations")),
    )


def _row(node: Node, grids: tuple[str, ...], where: str) -> Row:
    name = str(node.get("name", "?"))
    where = f"{where}: row {name!r}"
    _known_keys(node, ROW_KEYS, where)
    system = str(node.get("system", "student"))
    imported = system.startswith(IMPORTED) and system != IMPORTED
    if not imported:
        _one_of(system, (*SYSTEMS, f"{IMPORTED}NAME"), f"{where}: system")
    of_all = system in ("first_stage", "oracle")
    own_grids, imports = _names(node.get("grid")), _names(node.get("imports"))
    for grid in own_grids:
        _one_of(grid, grids, f"{where}: grid")
    surplus = f"{where}: an imported run belongs to no sub-grid; leave `grid` away"
    _refuse(imported and bool(own_grids), surplus)
    needed = f"{where}: needs `grid`, one of {', '.join(grids)}"
    _refuse(not (own_grids or imported or of_all), needed)
    misplaced = f"{where}: `imports` is for first_stage and oracle of all trials"
    _refuse(bool(imports) and (bool(own_grids) or not of_all), misplaced)
    return Row(
        name=name,
        system=system,
        grids=own_grids,
        competes=bool(node.get("competes", system not in REFERENCES)),
        test=bool(node.get("test", system != "oracle")),
        imports=imports,
    )


def _expected(
    nodes: Iterable[Node],
    rows: list[str],
    collections: tuple[str, ...],
    measures: tuple[str, ...],
    key: str,
) -> tuple[Expected, ...]:
    numbers: dict[tuple[str, str, str, str], Expected] = {}
    for node in nodes:
        _known_keys(node, EXPECTED_KEYS, key)
        _needed(node, ("row", "collection", "measure", "value", "source"), key)
        row, collection, measure = (str(node[k]) for k in ("row", "collection", "measure"))
        where = f"{key} {row}, {collection}, {measure}:"
        _one_of(row, rows, f"{where} row")
        if collections:
            _one_of(collection, collections, f"{where} collection")
        _one_of(measure, (*measures, *COSTS), f"{where} measure")
        source = _one_of(str(node["source"]), PUBLISHED, f"{where} source")
        value = _number(node["value"], f"{where} value")
        tolerance = _number(node.get("tolerance"), f"{where} tolerance")
        if value is None or (tolerance is not None and tolerance < 0):
            raise SpecError(f"{where} needs a number as value, and none below 0 as tolerance")
        place = (row, collection, measure, source)
        _refuse(place in numbers, f"{where} is given twice for {source}")
        numbers[place] = Expected(row, collection, measure, value, source, tolerance)
    return tuple(numbers.values())


def _mean(node: Node, collections: tuple[str, ...], where: str) -> Mean:
    _known_keys(node, MEAN_KEYS, where)
    _needed(node, ("name",), where)
    name, of = str(node["name"]), _names(node.get("of"))
    if collections:
        for collection in of:
            _one_of(collection, collections, f"{where} {name}: collection")
    return Mean(name, of, _choice(node, "kind", KINDS, f"{where} {name}"))


def provenance(node: Node, where: str) -> tuple[Provenance, ...]:
    """Fields of a recipe, ``KEY: [VALUE, SOURCE]``; null takes away what a recipe says of a key."""
    tags = []
    _refuse(not isinstance(node, Mapping), f"{where}: must be KEY: [VALUE, SOURCE], not {node!r}")
    for key, tag in node.items():
        if tag is None:
            continue
        _refuse(
            not isinstance(tag, list | tuple) or len(tag) != 2,
            f"{where}: {key}: must be [VALUE, SOURCE], or null, not {tag!r}",
        )
        source = _one_of(str(tag[1]), PROVENANCE, f"{where}: {key}: source")
        tags.append(Provenance(str(key), text(tag[0]), source))
    return tuple(tags)


def _names(node: Any) -> tuple[str, ...]:
    """One name or a list of them, as a tuple."""
    if node is None or isinstance(node, str):
        return () if node is None else (node,)
    if not isinstance(node, list | tuple):
        raise SpecError(f"{node!r}: must be a name or a list of names; YAML reads it as no text")
    return tuple(map(str, node))


def _number(node: Any, where: str) -> float | None:
    if node is None:
        return None
    if isinstance(node, bool) or not isinstance(node, int | float) or not math.isfinite(node):
        raise SpecError(f"{where} must be a number, not {node!r}")
    return float(node)


def _needed(node: Node, keys: tuple[str, ...], where: str) -> None:
    absent = [key for key in keys if key not in node]
    _refuse(bool(absent), f"{where}: {dict(node)} lacks {', '.join(absent)}")


def _known_keys(node: Node, valid: tuple[str, ...], where: str) -> None:
    for key in node:
        _refuse(key not in valid, f"{where}: unknown key {key!r}; valid: {', '.join(valid)}")


def _choice(node: Node, key: str, valid: tuple[str, ...], where: str) -> str:
    """The value of a key; the first of the valid ones is the default."""
    return _one_of(str(node.get(key, valid[0])), valid, f"{where}: {key}")


def _one_of(value: str, valid: Sequence[str], where: str) -> str:
    _refuse(value not in valid, f"{where} {value!r} is not one of: {', '.join(valid)}")
    return value


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise SpecError(message)
