"""The part of ``experiments/NAME.yaml`` that the analysis reads: rows, tests, family, baseline.

The grid itself is expanded by `rdx.config`; rows are read by `analysis.rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.nodes import (
    Node,
    SpecError,
    SpecNode,
    choice,
    known_keys,
    names,
    needed,
    number,
    one_of,
    plain_names,
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
    row : name of a row
        The row that should reproduce it.
    collection : name of a test set, or of a mean
        The column that should reproduce it.
    measure : one of `measures`, seconds per query or bytes at peak
        In which of them. The last two are those of trials that were timed
        (``evaluation.efficiency``).
    value : number
        In units of the measure.
    source : notebook, readme or paper
        Where it was published. A number may be given once for each.
    tolerance : number >= 0, or null; default null
        Largest difference that still counts as reproduced; null: half a unit of the last decimal.
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
    name : text
        Head of the column.
    of : list of test sets
        What it is the mean of; without it, all that are shown and are neither degenerate
        (``evaluation.gates``) nor left out of means (``evaluation.collections.NAME.in_mean``).
    kind : arithmetic or geometric; default arithmetic
        How it is taken.
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
    """What one table and its figure show: a `SpecNode`, checked.

    Attributes mean what the keys of the node do, with these differences.

    Attributes
    ----------
    baselines : tuple of str
        Names of the rows that `baseline` means.
    comparisons : tuple of (str, str)
        Names of the rows that are compared, first minus second.
    fields : tuple of Provenance
        Where the fields of the recipe come from.
    pools
        Collections that are joined from those of several folds; ``pooled`` in the file.
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
    known_keys(node, SpecNode, where)
    try:
        grids = [grid.name for grid in sub_grids(node["grid"], f"{where}: grid") if grid.name]
    except KeyError:
        grids = []
    except ValueError as error:
        raise SpecError(str(error)) from error
    rows = rows_of(node.get("rows"), grids, cells, where)
    called = [row.name for row in rows]
    measures = plain_names(node.get("measures"), f"{where}: measures")
    refuse(not rows or not measures, f"{where}: needs `rows` and `measures`")
    comparisons = pairs(node.get("comparisons"), rows, f"{where}: comparisons")
    baselines = chosen(node.get("baseline"), rows, f"{where}: baseline")
    most = f"{where}: at most {MOST_BASELINES} baselines, since each has a mark"
    refuse(len(baselines) > MOST_BASELINES, most)
    twice = f"{where}: baseline names a row twice: {', '.join(baselines)}"
    refuse(len(set(baselines)) < len(baselines), twice)
    alpha = number(node.get("alpha", 0.05), f"{where}: alpha")
    if alpha is None or not 0 < alpha < 1:
        raise SpecError(f"{where}: alpha must lie between 0 and 1, not {alpha}")
    margin = number(node.get("margin"), f"{where}: margin")
    if margin is not None:
        refuse(margin <= 0, f"{where}: margin must be above 0, in units of the measure")
        refuse(not baselines, f"{where}: margin needs `baseline`, to be equivalent to")
    all_pairs = node.get("all_pairs", False)
    if not isinstance(all_pairs, bool):
        raise SpecError(f"{where}: all_pairs must be true or false, not {all_pairs!r}")
    collections = plain_names(node.get("collections"), f"{where}: collections")
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
        factors=plain_names(node.get("factors"), f"{where}: factors"),
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
        known_keys(node, Expected, key)
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
    known_keys(node, Mean, where)
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
