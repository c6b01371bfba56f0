"""What a teacher behind a paid service would be asked, and what that costs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rdx import config
from rdx.config import Cell
from rdx.plan.work import asked

# Tokens of a prompt per passage that is shown, its share of query and instructions included, and
# of its place in the answer: counted over TREC DL 2019 (docs/teachers.md).
TOKENS_IN, TOKENS_OUT = 120, 6


@dataclass(frozen=True)
class Service:
    """What one teacher behind a service is asked for all cells.

    Attributes
    ----------
    teacher
        Model and address.
    requests, input_tokens, output_tokens
        If nothing is in the ledger and every answer is usable; None if the number of queries is
        not known before they are loaded.
    cost
        In the currency of ``teacher.prices``; None if these are not given, or the requests unknown.
    """

    teacher: str
    requests: int | None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None


def services(teach: Iterable[Cell], reference: Iterable[Cell]) -> tuple[Service, ...]:
    """What services are asked.

    Parameters
    ----------
    teach, reference
        One cell for each ranking of training queries, and of test queries, that is to be made.
    """
    work: dict[str, list[tuple[int | None, int]]] = defaultdict(list)
    for cell in teach:
        depth = cell.cfg["depth"]
        work[_node(cell)].append((depth["queries"], asked(depth)))
    for cell in reference:
        test = cell.cfg["evaluation"]
        lists = test["teacher_queries"] * len(test["collections"])
        work[_node(cell)].append((lists, test["k"]))
    return tuple(
        _service(json.loads(node), lists)
        for node, lists in work.items()
        if _is_service(json.loads(node))
    )


def _node(cell: Cell) -> str:
    return json.dumps(cell.cfg["teacher"], sort_keys=True)


def _is_service(teacher: Any) -> bool:
    """Whether a teacher asks a service that may take money."""
    backend = teacher.get("backend") if isinstance(teacher, dict) else None
    return getattr(config.class_of(backend), "paid", False)


def _service(teacher: dict[str, Any], work: list[tuple[int | None, int]]) -> Service:
    from rdx.teachers.windows import positions

    address = teacher["backend"]["base_url"] or "the default address"
    name = f"{teacher['backend']['model']} at {address}"
    requests = shown = 0
    for lists, length in work:
        if lists is None:
            return Service(name, None)
        windows = positions(length, teacher["window"], teacher["stride"])
        times = lists * teacher["passes"] * teacher["shuffles"]
        requests += times * len(windows)
        shown += times * sum(end - start for start, end in windows)
    prices = config.build(teacher["prices"], "teacher.prices")
    taken, given = shown * TOKENS_IN, shown * TOKENS_OUT
    cost = prices.cost(taken, given) if prices.input or prices.output else None
    return Service(name, requests, taken, given, cost)
