"""What every collection of a planned experiment can show, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.power.calculation import (
    Assumption,
    detectable,
    power_of,
    queries_needed,
    seeds_needed,
)


@dataclass(frozen=True)
class Plan:
    """What one collection can show; differences are in units of the measure.

    Attributes
    ----------
    collection : str
        Its name.
    queries, seeds, tests : int
        Queries, training runs per system, and tests that Holm corrects together.
    assumption : Assumption
        On what the numbers rest.
    detectable : float
        Smallest difference found with the wanted power by one test; NaN below two queries.
    detectable_holm : float
        The same at Holm's first step, alpha / tests: what the strongest of `tests` must overcome.
    wanted : float or None
        A difference that should be found at Holm's first step.
    power_of_wanted : float or None
        Probability of finding it with `queries` and `seeds`.
    seeds_needed, queries_needed : int or None
        Fewest seeds at `queries`, and fewest queries at `seeds`, that find it with the wanted
        power; None if no number does, or nothing is wanted.
    """

    collection: str
    queries: int
    seeds: int
    tests: int
    assumption: Assumption
    detectable: float
    detectable_holm: float
    wanted: float | None = None
    power_of_wanted: float | None = None
    seeds_needed: int | None = None
    queries_needed: int | None = None


def planned(
    collections: Mapping[str, int],
    seeds: int,
    assumptions: Mapping[str, Assumption] | None = None,
    *,
    tests: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    wanted: float | None = None,
    trained: int = 2,
) -> tuple[Plan, ...]:
    """What every collection of a planned experiment can show.

    Parameters
    ----------
    collections : mapping of str to int
        Collection -> number of its test queries.
    seeds : int
        Training runs of each system.
    assumptions : mapping of str to Assumption, optional
        Collection -> standard deviations, e.g. those of stored trials; others are assumed.
    tests, alpha, power, trained
        As in `power_of` and `detectable`.
    wanted : float, optional
        A difference that should be found at Holm's first step.
    """
    if wanted is not None and not wanted > 0:
        raise ValueError(f"the wanted difference must be positive, not {wanted}")
    plans = []
    for name, queries in collections.items():
        known = (assumptions or {}).get(name, Assumption())
        one = detectable(queries, seeds, known, alpha=alpha, power=power, trained=trained)
        first = detectable(
            queries, seeds, known, alpha=alpha, power=power, tests=tests, trained=trained
        )
        plan = Plan(name, queries, seeds, tests, known, one, first)
        if wanted is not None:
            found = power_of(
                wanted, queries, seeds, known, alpha=alpha, tests=tests, trained=trained
            )
            how: Any = {"alpha": alpha, "power": power, "tests": tests, "trained": trained}
            plan = replace(
                plan,
                wanted=wanted,
                power_of_wanted=float(found),
                seeds_needed=seeds_needed(wanted, queries, known, **how),
                queries_needed=queries_needed(wanted, seeds, known, **how),
            )
        plans.append(plan)
    return tuple(plans)


def report(plans: tuple[Plan, ...], cost: str = "") -> str:
    """Lay the plans out as plain text; `cost` is a sentence of whoever knows it."""
    head = ["collection", "queries", "seeds", "SD", "seed SD", "tests", "detectable", "first Holm"]
    wanted = next((plan.wanted for plan in plans if plan.wanted is not None), None)
    if wanted is not None:
        head += [f"power at {wanted:g}", "seeds needed", "queries needed"]
    lines = [head]
    for plan in plans:
        known = plan.assumption
        line = [plan.collection, str(plan.queries), str(plan.seeds), f"{known.sd:.3f}"]
        line += [f"{known.seed_sd:.4f}", str(plan.tests)]
        line += [_number(plan.detectable), _number(plan.detectable_holm)]
        if wanted is not None:
            line += [
                _number(plan.power_of_wanted, 2),
                str(plan.seeds_needed or "none suffices"),
                str(plan.queries_needed or "none suffices"),
            ]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    text += [
        f"{plan.collection}: SD over queries and seeds {plan.assumption.source}." for plan in plans
    ]
    return "\n".join([*text, *([cost] if cost else [])])


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
