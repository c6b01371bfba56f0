"""Several processes, as `torchrun` and `accelerate launch` start them.

All processes run the same `rdx.trainer.fit` on the same arguments. What is around a training (the
grid, the store, teachers, MLflow) runs in the main process only: `run` gives it the program, and
the others wait for one order per training, which `together` sends them.

Within a training, tensors go through Accelerate. What only the main process does (validating,
writing checkpoints, reporting) goes through `by_main`, which gives all processes its result, or
raises in all of them. Orders and results use a gloo group of their own, on CPUs and without a time
limit: between two trainings a teacher may work for days, and NCCL waits for ten minutes.

Not `accelerator.prepare`: DistributedDataParallel wants equally many micro-batches in every process
and takes the mean of their gradients, where a step has any number and needs the sum
(`rdx.trainer.step`, `rdx.trainer.sharding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rdx import late
from rdx.faults import Ended

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import nn
else:
    dist = late.module("torch.distributed")

Result = TypeVar("Result")
_group: dist.ProcessGroup | None = None  # None outside `run`


class OutOfStep(BaseException):
    """A process failed in the middle of what all do together: they cannot go on.

    No `Exception`, so that a grid does not try its next cell.
    """


class MainFailed(Exception):
    """The main process failed in `by_main`: raised in the others, which wait for the next order."""

    raised_by_all = True


class _Order(NamedTuple):
    order: Any


class _Result(NamedTuple):
    value: Any
    error: str | None


class _End(NamedTuple):
    """The program has ended."""


def run(program: Callable[[], None], take_part: Callable[[Any], object]) -> None:
    """Run a program in the main process; in the others, `take_part` in every order until it ends.

    If it fails between two trainings, the others end as after any program; in the middle of one,
    what started them all ends them. A `SystemExit` without a status is an end like any other:
    nothing is raised.
    """
    global _group
    dist.init_process_group()  # NCCL for tensors on GPUs, gloo for those on CPUs
    _group = dist.new_group(backend="gloo", timeout=timedelta(days=365))
    if is_main():
        try:
            program()
        except SystemExit as end:
            if end.code:
                raise
        except (Exception, Ended):  # not in the middle of a training: the others wait
            _broadcast(_End())
            raise
        _broadcast(_End())
    else:
        while isinstance(message := _broadcast(None), _Order):
            with suppress(MainFailed), in_step():
                take_part(message.order)
    _group = None
    dist.destroy_process_group()


def running() -> bool:
    """Whether this process is in `run`."""
    return _group is not None


def several() -> bool:
    """Whether there are processes beside this one that `run` joined with it."""
    return running() and dist.get_world_size() > 1


def count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if running() else 1


def is_main() -> bool:
    """Whether this is the main process, or the only one."""
    return not running() or dist.get_rank() == 0


def together(order: object) -> None:
    """Send an order to the other processes, which `take_part` in it; to be called by the main one.

    The caller goes on to do the same, within `in_step`.
    """
    if several():
        _broadcast(_Order(order))


@contextmanager
def in_step() -> Iterator[None]:
    """Around what all processes do together: end all of them if it fails in one.

    An error of `by_main` passes: it is raised in all, so that a grid goes on with its next cell.
    """
    try:
        yield
    except Exception as error:
        if not several() or getattr(error, "raised_by_all", False):
            raise
        raise OutOfStep(f"process {dist.get_rank()} failed: {error!r}") from error


def by_main(work: Callable[[], Result]) -> Result:
    """What `work` gives in the main process, in all; to be called by all, within `in_step`."""
    if not several():
        return work()
    if not is_main():
        message = _broadcast(None)
        if not isinstance(message, _Result):
            raise RuntimeError("the main process goes on without the others")
        if message.error is not None:
            raise MainFailed(message.error)
        shared: Result = message.value
        return shared
    try:
        result = work()
    except Exception as error:
        error.raised_by_all = True  # type: ignore[attr-defined]
        _broadcast(_Result(None, repr(error)))
        raise
    _broadcast(_Result(result, None))
    return result


def share_weights(module: nn.Module) -> None:
    """Give a module on the CPU the weights that it has in the main process."""
    if several():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0, _group)


def _broadcast(message: Any) -> Any:
    """A message of the main process."""
    messages = [message]
    dist.broadcast_object_list(messages, 0, _group)
    return messages[0]
