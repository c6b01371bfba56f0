"""The part of ``experiments/NAME.yaml`` that the analysis reads: rows, tests, family, baseline.

The grid itself is expanded by `rdx.config`; rows are read by `analysis.rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from analysis.nodes import (
    Node,
    SpecError,
    choice,
    known_keys,
    names,
    needed,
    number,
    one_of,
    refuse,
)
from analysis.pools import Pool
from analysis.rows import Row, chosen, pairs, rows_of
from rdx.config import Cell
from rdx.grids import sub_grids, text

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
    pools : tuple of Pool
        Collections that are joined from those of several folds (``pooled`` in the file).
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
    pools: tuple[Pool, ...] = ()
    source: str = ""
    deviations: tuple[str, ...] = ()

    @property
    def baseline(self) -> str | None:
        """The first of `baselines`; None if there is none."""
        return self.baselines[0] if self.baselines else None

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)


EXPECTED_KEYS = tuple(field.name for field in fields(Expected))
MEAN_KEYS = tuple(field.name for field in fields(Mean))
_NAMED = {"baselines": "baseline", "pools": "pooled"}  # otherwise in the file
SPEC_KEYS = (*(_NAMED.get(f.name, f.name) for f in fields(Spec)), "grid")


def parse(node: Node, cells: Sequence[Cell] = ()) -> Spec:
    """Turn the ``spec:`` node of an experiment file into a `Spec`.

    Parameters
    ----------
    cells
        The possible cells of its grid, for rows that are said by levels.

    Raises
    ------
    SpecError
        On an unknown key, system, family, sub-grid, level or row name; the message lists what is
        valid.
    """
    name = str(node.get("name", "?"))
    where = f"spec {name}"
    known_keys(node, SPEC_KEYS, where)
    try:
        grids = [grid.name for grid in sub_grids(node["grid"], f"{where}: grid") if grid.name]
    except KeyError:
        grids = []
    except ValueError as error:
        raise SpecError(str(error)) from error
    rows = rows_of(node.get("rows"), grids, cells, where)
    called = [row.name for row in rows]
    measures = tuple(str(measure) for measure in node.get("measures", ()))
    refuse(not rows or not measures, f"{where}: needs `rows` and `measures`")
    comparisons = pairs(node.get("comparisons") or (), rows, f"{where}: comparisons")
    baselines = chosen(node.get("baseline"), rows, f"{where}: baseline")
    most = f"{where}: at most {MOST_BASELINES} baselines, since each has a mark"
    refuse(len(baselines) > MOST_BASELINES, most)
    twice = f"{where}: baseline names a row twice: {', '.join(baselines)}"
    refuse(len(set(baselines)) < len(baselines), twice)
    alpha = float(node.get("alpha", 0.05))
    refuse(not 0 < alpha < 1, f"{where}: alpha must lie between 0 and 1, not {alpha}")
    margin = number(node.get("margin"), f"{where}: margin")
    if margin is not None:
        refuse(margin <= 0, f"{where}: margin must be above 0, in units of the measure")
        refuse(not baselines, f"{where}: margin needs `baseline`, to be equivalent to")
    all_pairs = node.get("all_pairs", False)
    if not isinstance(all_pairs, bool):
        raise SpecError(f"{where}: all_pairs must be true or false, not {all_pairs!r}")
    collections = tuple(str(c) for c in node.get("collections") or ())
    means = tuple(_mean(mean, collections, f"{where}: means") for mean in node.get("means") or ())
    pools = _pools(node.get("pooled") or {}, collections, f"{where}: pooled")
    columns = (*collections, *(mean.name for mean in means)) if collections else ()
    twice = f"{where}: two columns of the same name among {', '.join(columns)}"
    refuse(len(set(columns)) < len(columns), twice)
    return Spec(
        name=name,
        claim=" ".join(str(node.get("claim", "")).split()),
        measures=measures,
        rows=rows,
        baselines=baselines,
        alpha=alpha,
        family=choice(node, "family", FAMILIES, where),
        comparisons=comparisons,
        collections=collections,
        figure=choice(node, "figure", measures, where),
        test=choice(node, "test", TESTS, where),
        interval=choice(node, "interval", INTERVALS, where),
        correction=choice(node, "correction", CORRECTIONS, where),
        all_pairs=all_pairs,
        margin=margin,
        factors=names(node.get("factors")),
        x=None if node.get("x") is None else str(node["x"]),
        expected=_expected(
            node.get("expected") or (), called, columns, measures, f"{where}: expected"
        ),
        fields=provenance(node.get("fields") or {}, f"{where}: fields"),
        means=means,
        pools=pools,
        source=str(node.get("source") or ""),
        deviations=names(node.get("deviations")),
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
        known_keys(node, EXPECTED_KEYS, key)
        needed(node, ("row", "collection", "measure", "value", "source"), key)
        row, collection, measure = (str(node[k]) for k in ("row", "collection", "measure"))
        where = f"{key} {row}, {collection}, {measure}:"
        one_of(row, rows, f"{where} row")
        if collections:
            one_of(collection, collections, f"{where} collection")
        one_of(measure, (*measures, *COSTS), f"{where} measure")
        source = one_of(str(node["source"]), PUBLISHED, f"{where} source")
        value = number(node["value"], f"{where} value")
        tolerance = number(node.get("tolerance"), f"{where} tolerance")
        if value is None or (tolerance is not None and tolerance < 0):
            raise SpecError(f"{where} needs a number as value, and none below 0 as tolerance")
        place = (row, collection, measure, source)
        refuse(place in numbers, f"{where} is given twice for {source}")
        numbers[place] = Expected(row, collection, measure, value, source, tolerance)
    return tuple(numbers.values())


def _mean(node: Node, collections: tuple[str, ...], where: str) -> Mean:
    known_keys(node, MEAN_KEYS, where)
    needed(node, ("name",), where)
    name, of = str(node["name"]), names(node.get("of"))
    if collections:
        for collection in of:
            one_of(collection, collections, f"{where} {name}: collection")
    return Mean(name, of, choice(node, "kind", KINDS, f"{where} {name}"))


def _pools(node: Node, collections: tuple[str, ...], where: str) -> tuple[Pool, ...]:
    wrong = f"{where}: must be {{NAME: [collection, collection]}}, not {node!r}"
    refuse(not isinstance(node, Mapping), wrong)
    pools = tuple(Pool(str(name), names(of)) for name, of in node.items())
    parts = [part for pool in pools for part in pool.of]
    for pool in pools:
        refuse(len(pool.of) < 2, f"{where}: {pool.name}: needs two collections or more")
        for part in pool.of:
            refuse(parts.count(part) > 1, f"{where}: {part} is named twice")
        refuse(pool.name in parts, f"{where}: {pool.name} is a part of a pool")
        if collections:
            one_of(pool.name, collections, f"{where}: not among `collections`:")
    return pools


def provenance(node: Node, where: str) -> tuple[Provenance, ...]:
    """Fields of a recipe, ``KEY: [VALUE, SOURCE]``; null takes away what a recipe says of a key."""
    tags = []
    refuse(not isinstance(node, Mapping), f"{where}: must be KEY: [VALUE, SOURCE], not {node!r}")
    for key, tag in node.items():
        if tag is None:
            continue
        refuse(
            not isinstance(tag, list | tuple) or len(tag) != 2,
            f"{where}: {key}: must be [VALUE, SOURCE], or null, not {tag!r}",
        )
        source = one_of(str(tag[1]), PROVENANCE, f"{where}: {key}: source")
        tags.append(Provenance(str(key), text(tag[0]), source))
    return tuple(tags)
