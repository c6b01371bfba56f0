"""Check a spec against the cells of its grid, before any of them is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.nodes import SpecError
from analysis.spec import Spec, parse
from rdx.arguments import near
from rdx.config import Cell, cells, load_spec, varied


def check(name: str) -> None:
    """Refuse a spec that names what no cell of its grid gives.

    Raises
    ------
    SpecError, ConfigError
        Naming the key of the spec, and what is valid.
    """
    members = cells(name)
    against(parse(load_spec(name), members), members)


def against(spec: Spec, members: Sequence[Cell]) -> None:
    """Refuse measures, collections, factors and an axis that cells do not have; and mixed rows.

    An imported run may have other collections than they; of a spec without cells, which shows
    imported runs alone, it also says what is measured.
    """
    if not members:
        return
    where = f"spec {spec.name}"
    for row in spec.rows:
        own = [cell for cell in members if row.holds(cell)]
        apart = [key for key in varied(own) if key != "seed"]
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
