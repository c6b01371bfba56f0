"""Show a plan as text or JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rdx.plan.history import How, Source, Span
from rdx.plan.plans import FINISHED, TO_RUN, UNRECORDED, Plan
from rdx.plan.services import Service
from rdx.text import aligned, amount, counted, duration

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
            "overrides": list(planned_cell.cell.overrides),
            "grid": planned_cell.cell.grid,
            "signature": planned_cell.cell.signature,
            "state": planned_cell.state,
            "computes": list(planned_cell.computes),
        }
        for planned_cell in planned.cells
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
    shown = f"{duration(span.value)} ({duration(span.low)} to {duration(span.high)})"
    return f"{shown} + {unknown} unknown" if unknown else shown


def _totals(planned: Plan) -> str:
    lines = []
    if planned.count(TO_RUN):
        lines.append(f"time  {_whole_time(planned)}")
        lines += [f"      {line}" for line in _bases(planned)]
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
    for file in planned.lacking:
        lines.append(f"lacks {file}")
    if n := planned.count(UNRECORDED):
        lines.append(
            f"note  running {counted(n, 'stored cell')} again completes the record in MLflow"
        )
    return "\n".join(lines) or "Nothing to do."


def _whole_time(planned: Plan) -> str:
    whole = planned.seconds
    unknown = [f"{s.stage} {s.unknown}" for s in planned.stages if s.unknown]
    if not whole.observed:
        return "unknown"
    shown = f"{duration(whole.value)} ({duration(whole.low)} to {duration(whole.high)})"
    shown += ", one cell after the other"
    return f"{shown}; without what is unknown: {', '.join(unknown)}" if unknown else shown


def _bases(planned: Plan) -> Iterator[str]:
    """A line for each source of times: what it is, and the stages that it tells of."""
    stages: dict[Source, list[str]] = defaultdict(list)
    for stage in planned.stages:
        for basis in stage.bases:
            count = f" {basis.results}" if basis.results > 1 else ""
            stages[basis.source].append(f"{stage.stage}{count}")
    for source, told in stages.items():
        yield f"{_source(source)}: {', '.join(told)}"


def _source(source: Source) -> str:
    results = counted(source.results, "result")
    on = f" on {source.device}" if source.device else ""
    if source.how == How.EQUAL:
        return f"from {results} of equal work{on}"
    if source.how == How.PACE:
        return f"by the pace of {results}{on}"
    if source.how == How.SCALED:
        return (
            f"scaled by FLOPs to a model of {_millions(source.model)} from the pace of {results} "
            f"of a model of {_millions(source.of)}{on}"
        )
    if source.how == How.SHORT:
        return f"too short, interrupted or far in size to extrapolate, {results}{on}"
    missing = f"no measurement for {source.device or 'this'}"
    if source.how == How.ELSEWHERE:
        places = " and ".join(
            place or "a device that was not recorded" for place in source.elsewhere
        )
        missing += f" ({results} on {places})"
    return missing


def _millions(parameters: int) -> str:
    """Parameters that compute, as in "10.6 M"."""
    return f"{parameters / 1e6:.3g} M"


def _service(service: Service) -> str:
    if service.requests is None:
        return f"{service.teacher}: how often is not known before the queries are loaded"
    tokens = (service.input_tokens or 0) + (service.output_tokens or 0)
    requests = counted(service.requests, "request")
    shown = f"{service.teacher}: {requests}, about {tokens / 1e6:,.2f} M tokens"
    if service.cost is None:
        return f"{shown}; cost unknown without teacher.prices.input=... and .output=..."
    return f"{shown}, costing about {service.cost:,.2f}"


def _cells(planned: Plan, everything: bool) -> str:
    alike = set.intersection(*(set(planned_cell.cell.overrides) for planned_cell in planned.cells))
    alike = alike if len(planned.cells) > 1 else set()
    lines = [["", "state", "cell", "computes"]]
    shown = planned.cells if everything else planned.cells[:SHOWN]
    for number, planned_cell in enumerate(shown, 1):
        overrides = [o for o in planned_cell.cell.overrides if o not in alike]
        computes = (
            "all stages"
            if len(planned_cell.computes) > 4
            else " ".join(planned_cell.computes) or "-"
        )
        lines.append([str(number), planned_cell.state, " ".join(overrides) or "defaults", computes])
    table = aligned(lines, left=4)
    rest = planned.cells[len(shown) :]
    if rest:
        states = Counter(planned_cell.state for planned_cell in rest)
        summary = ", ".join(f"{n} {state}" for state, n in states.items())
        table += f"\n... and {len(rest)} more ({summary}); --all shows them"
    return table


def _left_out(planned: Plan, everything: bool) -> str:
    shown = planned.left_out if everything else planned.left_out[:SHOWN]
    lines = [f"left out: {' '.join(cell.overrides)}: {why}" for cell, why in shown]
    rest = len(planned.left_out) - len(shown)
    return "\n".join([*lines, *([f"... and {rest} more; --all shows them"] if rest else [])])
