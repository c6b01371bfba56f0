"""Stored per-query scores, seeds and queries: how noisy the planned tests will be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from statistics import fmean, median

from rdx import config
from rdx.artifacts import Evaluated
from rdx.job import Parts
from rdx.plan.history import but_for_the_seed
from rdx.plan.plans import Plan
from rdx.plan.stored import Past, Shelf
from rdx.power import ASSUMED_SD, ASSUMED_SEED_SD, Assumption, pooled_run_sd, spread
from rdx.store import signature

MOST_TRIALS = 40  # that scores are read from; the cells of the plan come first

Runs = Mapping[int, Mapping[str, float]]  # seed -> query -> score
Scores = dict[str, dict[str, dict[int, dict[str, float]]]]


def scores(planned: Plan, measure: str) -> Scores:
    """Per-query scores of stored students on the planned test sets.

    Returns
    -------
    dict
        Collection -> system (cells that differ in the seed alone) -> seed -> query -> value.
    """
    per_query: Scores = defaultdict(lambda: defaultdict(dict))
    for past in _comparable(planned)[:MOST_TRIALS]:
        table = Evaluated(past.folder).per_query
        table = table[(table.system == "student") & (table.measure == measure)]
        for collection, rows in table.groupby("collection"):
            values = dict(zip(rows.query_id.astype(str), map(float, rows.value), strict=True))
            system = but_for_the_seed(past.parts)
            per_query[str(collection)][system][past.parts.seed] = values
    return {collection: dict(systems) for collection, systems in per_query.items()}


def seeds(planned: Plan) -> tuple[int, int]:
    """Number of systems (they differ in more than the seed), and fewest seeds of a trained one."""
    seeds_of: dict[str, set[int]] = defaultdict(set)
    trained = set()
    for planned_cell in planned.cells:
        parts = Parts(planned_cell.cell.cfg)
        system = but_for_the_seed(parts)
        seeds_of[system].add(parts.seed)
        if parts.loss is not None:
            trained.add(system)
    return len(seeds_of), min((len(seeds_of[system]) for system in trained or seeds_of), default=1)


def queries(planned: Plan, sizes: dict[str, int]) -> dict[str, int | None]:
    """Test queries by collection; None where nothing tells.

    The number of `sizes`; else that of a stored trial; else the configured one, of which there
    may be fewer.
    """
    numbers: dict[str, int | None] = {}
    for planned_cell in planned.cells:
        for name, test_set in planned_cell.cell.cfg["evaluation"]["collections"].items():
            numbers.setdefault(name, test_set["queries"])
    for past in _comparable(planned)[:1]:
        collections = Evaluated(past.folder).facts.collections
        numbers |= {name: collections[name].queries for name in numbers if name in collections}
    return {name: sizes.get(name, count) for name, count in numbers.items()}


def assumption(systems: Mapping[str, Runs]) -> Assumption:
    """What the trained systems of one collection say about the noise of the next ones.

    Parameters
    ----------
    systems : mapping of str to mapping of int to mapping of str to float
        System -> seed -> query -> score.

    Returns
    -------
    Assumption
        sd: the median over all pairs of systems of the standard deviation over their common
        queries of the difference of their means over seeds; pairs that never differ say nothing.
        seed_sd: of mean scores over seeds, what more queries would not remove, pooled over the
        systems that have several. What no trial tells is assumed, and `source` says which is which.
    """
    means = {name: _mean_over_seeds(runs) for name, runs in systems.items() if runs}
    spreads = []
    for first, second in combinations(means.values(), 2):
        common = [query for query in first if query in second]
        sd = spread([first[q] for q in common], [second[q] for q in common])
        if sd > 0:
            spreads.append(sd)
    pooled = pooled_run_sd([_table(runs) for runs in systems.values() if runs])
    source = (
        f"over queries of the stored trials (median of {len(spreads)} pairs of systems)"
        if spreads
        else "over queries assumed"
    )
    return Assumption(
        sd=median(spreads) if spreads else ASSUMED_SD,
        seed_sd=ASSUMED_SEED_SD if pooled is None else pooled[0],
        source=source
        + ", over seeds "
        + ("assumed" if pooled is None else f"of the stored trials ({pooled[1]} df)"),
    )


def _table(runs: Runs) -> list[list[float]]:
    """A row per query that all seeds have, a column per seed."""
    first, *others = runs.values()
    queries = [query for query in first if all(query in run for run in others)]
    return [[run[query] for run in runs.values()] for query in queries]


def _mean_over_seeds(runs: Runs) -> dict[str, float]:
    """Query -> mean over seeds, of the queries that all seeds have."""
    first, *others = runs.values()
    return {
        query: fmean([first[query], *(run[query] for run in others)])
        for query in first
        if all(query in run for run in others)
    }


def _comparable(planned: Plan) -> list[Past]:
    """Finished cells with the same test sets, those of the plan first."""
    cells = [planned_cell.cell for planned_cell in planned.cells]
    tests = {_tests(Parts(cell.cfg)) for cell in cells}
    shelf = Shelf()
    past = shelf.finished(cells)
    if len(past) < MOST_TRIALS:
        past += shelf.others(cells)
    return [cell for cell in past if _tests(cell.parts) in tests]


def _tests(parts: Parts) -> str:
    """What must be equal before the scores of two cells are compared; "" if it cannot be built."""
    try:
        return signature(config.identity(parts.evaluation))
    except (KeyError, TypeError, ValueError):
        return ""  # configured for another version of rdx
