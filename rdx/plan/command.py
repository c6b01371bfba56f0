"""The command `python -m rdx plan`."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from rdx.arguments import Parser
from rdx.config import ConfigError
from rdx.faults import line
from rdx.plan import tables, why
from rdx.plan.cautions import cautions
from rdx.plan.evidence import assumption, queries, scores, seeds
from rdx.plan.plans import Plan
from rdx.plan.plans import plan as make_plan
from rdx.plan.text import as_json, text
from rdx.power import Assumption, Design, Sensitivity, sensitivity
from rdx.text import aligned, counted, duration


def plan(arguments: Sequence[str]) -> None:
    """Say what a grid would take, and what it could find; run and write nothing."""
    parser = Parser(
        prog="python -m rdx plan",
        description="Cells, shared stages, time, disk, cost and power of a grid, before "
        "it is run. Nothing is run and nothing is written.",
    )
    parser.add_argument("overrides", nargs="*", help="as of python -m rdx; +experiments=NAME, too")
    parser.add_argument("--all", action="store_true", help="show every cell")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument(
        "--why",
        metavar="CELL",
        help="explain what a cell does not share with what is stored, stage by stage and field by "
        "field: its number in the plan, or the beginning of its signature",
    )
    parser.add_argument(
        "--difference", type=float, metavar="D", help="how many seeds and queries find it, e.g. .01"
    )
    parser.add_argument(
        "--measure", metavar="M", help="of ir_measures; default: the first of evaluation.measures"
    )
    parser.add_argument(
        "--queries",
        action="append",
        default=[],
        metavar="COLLECTION=N",
        help="test queries, where neither the configuration nor the store tells",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="tell the times of results of the store that were made on this device, as a plan "
        "names it, e.g. 'NVIDIA H200'; default: this machine",
    )
    options = parser.parse_intermixed_args([a for a in arguments if a not in ("-m", "--multirun")])
    try:
        with tables.checked(options.overrides):
            planned = make_plan(options.overrides, options.device)
        if options.why is not None:
            cell = why.chosen([planned_cell.cell for planned_cell in planned.cells], options.why)
            print(why.text(why.explain(cell)))
            return
        plans, outlook = power(planned, options.measure, options.difference, options.queries)
    except (ValueError, OSError) as error:
        sys.exit(f"rdx: {line(error)}")
    run, table = commands(planned, options.overrides)
    if options.json:
        told = {"power": plans, "run": run, "table": table}
        print(json.dumps({**as_json(planned), **told}, indent=1))
    else:
        warnings = [f"WARNING  {line}\n" for line in cautions([p.cell for p in planned.cells])]
        print("\n".join([text(planned, options.all), "", outlook, "", *warnings]))
        print(f"to run it:  {run}" + (f"\nits table:  {table}" if table else ""))


def commands(planned: Plan, overrides: Sequence[str]) -> tuple[str, str]:
    """What runs the cells of a plan, and what makes their table; "" for a single cell."""
    experiment = tables.experiment(overrides)
    grid = len(planned.cells) + planned.repeated + len(planned.left_out) > 1
    words = [*(["-m"] if grid and not experiment else []), *overrides]
    run = f"python -m rdx {shlex.join(words)}".rstrip()
    if not (experiment or grid):
        return run, ""
    return run, f"python -m analysis {shlex.quote(experiment) if experiment else ''}".rstrip()


def power(
    planned: Plan, measure: str | None, wanted: float | None, sizes: Sequence[str]
) -> tuple[list[dict[str, Any]], str]:
    """What the planned tests can find, per collection: plain values, and text.

    Every system is tested against one of them, with Holm's correction over these tests.

    Parameters
    ----------
    measure
        Of ir_measures; None: the first of the evaluation.
    wanted
        A difference that should be found.
    sizes
        "COLLECTION=N": its number of test queries.

    Raises
    ------
    ConfigError
        If `sizes` is not that, or names no collection of the plan.
    ValueError
        If `wanted` is not positive.
    """
    sized = queries(planned, _counts(sizes, planned))
    measure = measure or planned.cells[0].cell.cfg["evaluation"]["measures"][0]
    known = {name: assumption(runs) for name, runs in scores(planned, measure).items()}
    systems, runs = seeds(planned)
    tests = max(1, systems - 1)
    known_sizes = {name: count for name, count in sized.items() if count is not None}
    sensitivities = [
        sensitivity(
            name,
            Design(n, runs, known.get(name, Assumption()), tests=tests, systems=systems),
            wanted=wanted,
        )
        for name, n in known_sizes.items()
    ]
    lines = [
        f"Smallest difference in {measure} that is found with probability .8: "
        f"{counted(systems, 'system')} of {counted(runs, 'seed')} or more, "
        f"{counted(tests, 'test')} against one of them"
    ]
    lines += (
        [report(sensitivities, price(planned, sensitivities, systems))] if sensitivities else []
    )
    lines += [
        f"{name}: how many test queries it has is not known before it is loaded; give --queries "
        f"{name}=N"
        for name, count in sized.items()
        if count is None
    ]
    return [dataclasses.asdict(collection) for collection in sensitivities], "\n".join(lines)


def price(planned: Plan, sensitivities: Sequence[Sensitivity], systems: int) -> str:
    """What the needed seeds take beyond those that are planned; "" if there are enough."""
    needed = [s.seeds_needed for s in sensitivities if s.seeds_needed is not None]
    seeds_planned = sensitivities[0].design.seeds
    if not needed or max(needed) <= seeds_planned:
        return ""
    more = systems * (max(needed) - seeds_planned)
    outlook = (
        f"{counted(max(needed), 'seed')} in place of {seeds_planned}: {counted(more, 'cell')} more"
    )
    span = planned.one_more
    if span is None:
        return f"{outlook}; no stored trial tells how long these take."
    least, most = duration(more * span.low), duration(more * span.high)
    return f"{outlook}: {duration(more * span.value)} ({least} to {most}), one after the other."


def report(sensitivities: Sequence[Sensitivity], cost: str = "") -> str:
    """Lay sensitivities out as plain text; `cost` is a sentence of whoever knows it."""
    head = ["collection", "queries", "seeds", "SD", "seed SD", "tests", "detectable", "first Holm"]
    wanted = next((s.wanted for s in sensitivities if s.wanted is not None), None)
    if wanted is not None:
        head += [f"power at {wanted:g}", "seeds needed", "queries needed"]
    lines = [head]
    for row in sensitivities:
        design, known = row.design, row.design.assumption
        line = [row.collection, str(design.queries), str(design.seeds), f"{known.sd:.3f}"]
        line += [f"{known.seed_sd:.4f}", str(design.tests)]
        line += [_number(row.detectable), _number(row.detectable_holm)]
        if wanted is not None:
            line += [
                _number(row.power_of_wanted, 2),
                str(row.seeds_needed or "none suffices"),
                str(row.queries_needed or "none suffices"),
            ]
        lines.append(line)
    sources = [
        f"{s.collection}: SD over queries and seeds {s.design.assumption.source}."
        for s in sensitivities
    ]
    return "\n".join([aligned(lines), *sources, *([cost] if cost else [])])


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _counts(sizes: Sequence[str], planned: Plan) -> dict[str, int]:
    """The numbers of `--queries`."""
    known = {
        name
        for planned_cell in planned.cells
        for name in planned_cell.cell.cfg["evaluation"]["collections"]
    }
    numbers = {}
    for size in sizes:
        name, _, count = size.partition("=")
        if not count.isdecimal() or int(count) < 1:
            raise ConfigError(f"--queries {size}: must be COLLECTION=N, N at least 1")
        if name not in known:
            raise ConfigError(f"--queries {size}: no such collection; there are {sorted(known)}")
        numbers[name] = int(count)
    return numbers
