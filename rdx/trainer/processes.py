"""Several processes, as `torchrun` and `accelerate launch` start them.

The main process runs the program. The others wait until it calls a method that is marked
`everywhere`, and do the same with the same arguments. Orders go over a group of their own, on CPUs
and without a time limit: between two trainings a teacher may work for days.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import torch.distributed as dist

F = TypeVar("F", bound=Callable[..., Any])
_orders: Any = None  # the group; None in a program of one process


class OutOfStep(BaseException):
    """A process failed in the middle of what all do together: they cannot go on.

    No `Exception`, so that a grid does not try its next cell.
    """


def run(program: Callable[[], None], follow: Callable[[], None]) -> None:
    """Run a program in the main process, and `follow` in the others until the program ends.

    If it fails, the others are ended by what started them all. A `SystemExit` without a status is
    an end like any other: nothing is raised.
    """
    global _orders
    dist.init_process_group()  # NCCL for tensors on GPUs, gloo for those on CPUs
    _orders = dist.new_group(backend="gloo", timeout=timedelta(days=365))
    if dist.get_rank() != 0:
        follow()
    else:
        try:
            program()
        except SystemExit as end:
            if end.code:
                raise
        _tell(None)
    _orders = None
    dist.destroy_process_group()


def running() -> bool:
    """Whether this process is in `run`."""
    return _orders is not None


def several() -> bool:
    """Whether there are processes that follow the main one, or this is one that follows."""
    return running() and dist.get_world_size() > 1


def everywhere(method: F) -> F:
    """Mark a method that every process calls when the main one does."""

    @wraps(method)
    def call(self: Any, *arguments: Any) -> Any:
        if not several():
            return method(self, *arguments)
        if dist.get_rank() == 0:
            _tell((method.__name__, arguments))
        try:
            return method(self, *arguments)
        except Exception as error:
            raise OutOfStep(f"process {dist.get_rank()} failed: {error!r}") from error

    return call  # type: ignore[return-value]


def told() -> Any:
    """The next order of the main process: (name of a method, its arguments); None = the end."""
    received = [None]
    dist.broadcast_object_list(received, 0, _orders)
    return received[0]


def union(some: set[str]) -> set[str]:
    """What any process has."""
    if not several():
        return some
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, some, _orders)
    return set().union(*found)


def _tell(order: Any) -> None:
    dist.broadcast_object_list([order], 0, _orders)
