"""A plan for people, and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rdx.plan.history import Span
from rdx.plan.plans import FINISHED, TO_RUN, UNRECORDED, Plan
from rdx.plan.services import Service
from rdx.text import counted

SHOWN = 30  # cells, without --all


def text(planned: Plan, all_cells: bool = False) -> str:
    """The plan without its power, as the terminal shows it."""
    parts = [_head(planned), _stages(planned), _totals(planned), _cells(planned, all_cells)]
    if planned.left_out:
        parts.append(_left_out(planned, all_cells))
    return "\n\n".join(parts)


def as_json(planned: Plan) -> dict[str, Any]:
    """Plain values of a plan."""
    cells = [
        {
            "overrides": list(one.cell.overrides),
            "grid": one.cell.grid,
            "signature": one.cell.signature,
            "state": one.state,
            "computes": list(one.computes),
        }
        for one in planned.cells
    ]
    left_out = [
        {"overrides": list(cell.overrides), "grid": cell.grid, "reason": why}
        for cell, why in planned.left_out
    ]
    return {
        "cells": cells,
        "left_out": left_out,
        "lacking": list(planned.lacking),
        "repeated": planned.repeated,
        "stages": [asdict(stage) for stage in planned.stages],
        "seconds": asdict(planned.seconds),
        "services": [asdict(service) for service in planned.services],
        "store": {"folder": planned.store, "bytes": planned.bytes, "free": planned.free},
        "mlflow_bytes": planned.copied,
    }


def duration(seconds: float) -> str:
    """Time in the unit that a person would take.

    >>> duration(7.4), duration(400), duration(9000), duration(500000)
    ('7 s', '7 min', '2.5 h', '5.8 days')
    """
    for unit, name, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds:.0f} s" if seconds >= 1 or not seconds else f"{seconds:.1g} s"


def amount(held: float) -> str:
    """Bytes in the unit that a person would take.

    >>> amount(900), amount(91_600_000), amount(2.5e9)
    ('0.9 kB', '92 MB', '2.5 GB')
    """
    for unit, name, digits in ((1e12, "TB", 1), (1e9, "GB", 1), (1e6, "MB", 0)):
        if held >= unit:
            return f"{held / unit:.{digits}f} {name}"
    return f"{held / 1e3:.1f} kB"


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns: the first ones to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            one.ljust(width) if i < left else one.rjust(width)
            for i, (one, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _head(planned: Plan) -> str:
    states = [
        f"{planned.count(FINISHED)} finished",
        *([f"{n} stored, not recorded"] if (n := planned.count(UNRECORDED)) else []),
        f"{planned.count(TO_RUN)} to run",
    ]
    line = f"{counted(len(planned.cells), 'cell')}: {', '.join(states)}"
    if planned.repeated:
        line += f"; equal to one of these: {planned.repeated} more"
    if planned.left_out:
        line += f"; {len(planned.left_out)} left out"
    return f"{line}. Nothing was run."


def _stages(planned: Plan) -> str:
    lines = [["stage", "distinct", "stored", "to compute", "time (least to most)", "disk"]]
    for stage in (s for s in planned.stages if s.distinct):
        lines.append([
            stage.stage,
            *(str(n) for n in (stage.distinct, stage.stored, stage.compute)),
            _time(stage.seconds, stage.compute, stage.unknown),
            "?" if stage.bytes is None else amount(stage.bytes) if stage.bytes else "-",
        ])  # fmt: skip
    return aligned(lines)


def _time(span: Span, compute: int, unknown: int) -> str:
    if not compute:
        return "-"
    if unknown == compute:
        return "?"
    told = f"{duration(span.value)} ({duration(span.low)} to {duration(span.high)})"
    return f"{told} + {unknown} unknown" if unknown else told


def _totals(planned: Plan) -> str:
    lines = []
    if planned.count(TO_RUN):
        lines.append(f"time  {_whole_time(planned)}")
        need = "unknown: no stored result to take sizes from"
        if planned.bytes is not None:
            need = f"{amount(planned.bytes)} in {planned.store}"
            need += f" and {amount(planned.copied)} in MLflow" if planned.copied else ""
        lines.append(f"disk  {need}; free: {amount(planned.free)}")
        if planned.bytes is not None and planned.bytes > planned.free:
            lines.append("      WARNING: this does not fit")
    for service in planned.services:
        lines.append(f"asks  {_service(service)}")
    if not planned.services and planned.count(TO_RUN):
        lines.append("asks  no paid service")
    for one in planned.lacking:
        lines.append(f"lacks {one}")
    if n := planned.count(UNRECORDED):
        lines.append(
            f"note  running {counted(n, 'stored cell')} again completes the record in MLflow"
        )
    return "\n".join(lines) or "Nothing to do."


def _whole_time(planned: Plan) -> str:
    whole = planned.seconds
    unknown = [f"{s.stage} {s.unknown}" for s in planned.stages if s.unknown]
    if not whole.observed:
        return "no stored trial to estimate from"
    told = (
        f"{duration(whole.value)} ({duration(whole.low)} to {duration(whole.high)}), one cell "
        "after the other, where the stored ones ran"
    )
    if unknown:
        told += f"; without what no stored trial tells: {', '.join(unknown)}"
    return told


def _service(service: Service) -> str:
    if service.requests is None:
        return f"{service.teacher}: how often is not known before the queries are loaded"
    tokens = (service.input_tokens or 0) + (service.output_tokens or 0)
    requests = counted(service.requests, "request")
    told = f"{service.teacher}: {requests}, about {tokens / 1e6:,.2f} M tokens"
    if service.cost is None:
        return f"{told}; cost unknown without teacher.prices.input=... and .output=..."
    return f"{told}, costing about {service.cost:,.2f}"


def _cells(planned: Plan, everything: bool) -> str:
    alike = set.intersection(*(set(one.cell.overrides) for one in planned.cells))
    alike = alike if len(planned.cells) > 1 else set()
    lines = [["", "state", "cell", "computes"]]
    shown = planned.cells if everything else planned.cells[:SHOWN]
    for number, one in enumerate(shown, 1):
        own = [o for o in one.cell.overrides if o not in alike]
        computes = "all stages" if len(one.computes) > 4 else " ".join(one.computes) or "-"
        lines.append([str(number), one.state, " ".join(own) or "defaults", computes])
    table = aligned(lines, left=4)
    rest = planned.cells[len(shown) :]
    if rest:
        states = Counter(one.state for one in rest)
        told = ", ".join(f"{n} {state}" for state, n in states.items())
        table += f"\n... and {len(rest)} more ({told}); --all shows them"
    return table


def _left_out(planned: Plan, everything: bool) -> str:
    shown = planned.left_out if everything else planned.left_out[:SHOWN]
    lines = [f"left out: {' '.join(cell.overrides)}: {why}" for cell, why in shown]
    rest = len(planned.left_out) - len(shown)
    return "\n".join([*lines, *([f"... and {rest} more; --all shows them"] if rest else [])])
