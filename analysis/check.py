"""Check a spec against the cells of its grid, before any of them is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb

from analysis.contrasts import all_pairs_at, wanted
from analysis.nodes import SpecError
from analysis.pools import design, tested_on
from analysis.rows import Row
from analysis.spec import Spec, parse
from rdx.arguments import near
from rdx.config import Cell, cells, load_spec, varied
from rdx.facts import Outline


def check(name: str) -> Outline:
    """Refuse a spec that names what no cell of its grid gives; tell what it tests.

    Raises
    ------
    SpecError, ConfigError
        Naming the key of the spec, and what is valid.
    """
    members = cells(name)
    spec = parse(load_spec(name), members)
    against(spec, members)
    return outline(spec, members)


def outline(spec: Spec, members: Sequence[Cell]) -> Outline:
    """What a spec will test, once all of its cells were run and its runs imported."""
    tests = dict.fromkeys(c for cell in members for c in _collections(cell.cfg["evaluation"]))
    known = spec.collections or (*tests, *(pool.name for pool in spec.pools))
    places = [(collection, measure) for collection in known for measure in spec.measures]
    parts = {pool.name: pool.of for pool in spec.pools}
    has = {
        (row.name, collection, measure)
        for row in spec.rows
        for collection, measure in places
        if all(_tested(row, part, members) for part in parts.get(collection, (collection,)))
    }
    against_baselines, declared = wanted(spec, places, has)
    counts = Counter(place for *_, place in against_baselines)
    total = counts.total()
    if spec.family == "grid":
        pairs = [
            comb(sum(row.test and (row.name, *place) in has for row in spec.rows), 2)
            for place in all_pairs_at(spec, places)
        ]
        total += len(declared) + sum(pairs)
    return Outline(
        systems=sum(row.trained for row in spec.rows),
        tests={
            place[0]: count if spec.family == "collection" else total
            for place, count in counts.items()
            if place[1] == spec.measures[0]
        },
        pooled=parts,
        family=spec.family,
    )


def _tested(row: Row, collection: str, members: Sequence[Cell]) -> bool:
    """Whether a row will have scores in a collection; of an imported run that is assumed."""
    own = tested_on([cell for cell in members if row.holds(cell)], collection)
    return bool(own or row.imported)


def against(spec: Spec, members: Sequence[Cell]) -> None:
    """Refuse measures, collections, factors and an axis that cells do not have; and mixed rows.

    An imported run may have other collections than they; of a spec without cells, which shows
    imported runs alone, it also says what is measured.
    """
    if not members:
        return
    where = f"spec {spec.name}"
    varying = design(members, spec.pools)
    for row in spec.rows:
        own = [cell for cell in members if row.holds(cell)]
        apart = [key for key in varied(own) if key != "seed" and key in varying]
        if row.trained and apart:
            raise SpecError(
                f"{where}: row {row.name!r} mixes cells that differ in {', '.join(apart)}: rows "
                "`by` these factors too, or a row for each"
            )
    evaluations = [cell.cfg["evaluation"] for cell in members]
    measured = dict.fromkeys(str(m) for node in evaluations for m in node["measures"])
    _known(spec.measures, measured, f"{where}: measures")
    if not any(row.imported or row.imports for row in spec.rows):
        collections = dict.fromkeys(c for node in evaluations for c in _collections(node))
        _known((p for pool in spec.pools for p in pool.of), collections, f"{where}: pooled")
        collections |= dict.fromkeys(pool.name for pool in spec.pools)
        named = (*spec.collections, *(c for mean in spec.means for c in mean.of))
        _known(named, collections, f"{where}: collections")
    varying = [key for key in varied(members) if key != "seed"]
    told = f"what varies: {', '.join(varying)}"
    for factor in spec.factors:
        hint = near(factor, varying)
        if not all(cell.has(factor) for cell in members):
            raise SpecError(f"{where}: factors: {factor}: no key of every cell; {told}{hint}")
        if len(members) > 1 and len({cell.level(factor) for cell in members}) == 1:
            raise SpecError(f"{where}: factors: {factor} is the same in all cells; {told}{hint}")
    if spec.x is not None and not any(cell.has(spec.x) for cell in members):
        raise SpecError(f"{where}: x: {spec.x}: no key of a cell; {told}{near(spec.x, varying)}")


def _collections(evaluation: dict[str, object]) -> list[str]:
    """Names of an evaluation's collections, and of those that it pools."""
    tests = evaluation["collections"]
    assert isinstance(tests, dict)
    pooled = [f"{node.get('corpus')}.pooled" for node in tests.values() if node.get("corpus")]
    return [*map(str, tests), *(pooled if evaluation.get("paper_compat") else ())]


def _known(names: Iterable[str], valid: Iterable[str], where: str) -> None:
    known = list(valid)
    for name in names:
        if name not in known:
            raise SpecError(f"{where}: {name!r}: no cell has it; they have: {', '.join(known)}")
