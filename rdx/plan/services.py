"""Estimate the requests to teachers behind paid services, and their cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rdx import config
from rdx.job import Parts, source
from rdx.stages import REFERENCE, TEACH, Step
from rdx.store import signature

# Tokens of a prompt per passage that is shown, its share of query and instructions included, and
# of its place in the answer: counted over TREC DL 2019 (docs/teachers.md).
TOKENS_IN, TOKENS_OUT = 120, 6


@runtime_checkable
class Paid(Protocol):
    """A teacher that may ask a service."""

    @property
    def service(self) -> str:
        """Model and address; "" if it asks none."""

    def requests(self, length: int) -> tuple[int, int]:
        """Requests, and passages that they show, of a list of so many passages."""

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """In the currency of ``teacher.prices``; None if these are not given."""


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


def services(to_make: Iterable[tuple[Parts, Step]]) -> tuple[Service, ...]:
    """What services are asked for the rankings that are to be made."""
    teachers: dict[str, Paid] = {}
    lists: dict[str, list[tuple[int | None, int]]] = defaultdict(list)
    for whole, step in to_make:
        if step.stage not in (TEACH.name, REFERENCE.name):
            continue
        parts = whole.of(step.of)
        for _, teacher in config.parts(parts.teacher, "teacher"):  # and the members of a fused one
            if isinstance(teacher, Paid) and teacher.service:
                key = signature([config.identity(teacher, config.ANSWERS), teacher.service])
                teachers[key] = teacher
                lists[key].append(_lists(parts, step))
    return tuple(_service(teacher, lists[key]) for key, teacher in teachers.items())


def _lists(parts: Parts, step: Step) -> tuple[int | None, int]:
    """How many lists a teacher ranks in a step, and their length."""
    if step.stage == TEACH.name:
        return parts.depth.queries, parts.depth.asked
    return parts.evaluation.teacher_queries, source(parts, step.role).k


def _service(teacher: Paid, lists: list[tuple[int | None, int]]) -> Service:
    requests = shown = 0
    for number, length in lists:
        if number is None:
            return Service(teacher.service, None)
        of_list, passages = teacher.requests(length)
        requests += number * of_list
        shown += number * passages
    tokens_in, tokens_out = shown * TOKENS_IN, shown * TOKENS_OUT
    cost = teacher.cost(tokens_in, tokens_out)
    return Service(teacher.service, requests, tokens_in, tokens_out, cost)
