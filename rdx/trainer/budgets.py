"""How long to train, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdx import late, parts
from rdx.declared import Positive, settings
from rdx.parts import Length
from rdx.text import counted

if TYPE_CHECKING:
    from torch import nn

    from rdx import batches
    from rdx.students import CrossEncoder
    from rdx.tokens import Tokens
else:
    nn, batches = late.module("torch.nn"), late.module("rdx.batches")


@dataclass(frozen=True)
class Costs:
    """What a training is going to cost, before it starts.

    Attributes
    ----------
    steps, batch, batch_pairs
        Optimiser steps; queries per step; pairs per full step.
    pairs
        Those of the first epoch, continued.
    tokens, flops
        An estimate from the first step, without padding.
    """

    steps: int
    batch: int
    batch_pairs: int
    pairs: int
    tokens: int
    flops: int


@settings(frozen=True)
class Epochs:
    """A budget of passes over the training lists.

    Parameters
    ----------
    epochs
        Passes over all training lists.
    """

    epochs: Positive

    def count(self, schedule: parts.Schedule) -> int:
        """Number of optimiser steps."""
        return self.epochs * schedule.steps_per_epoch

    def length(self, queries: int, k: int, batch: int) -> Length:
        """Steps and pairs, if every query has a list of k passages."""
        return Length(self.epochs * -(-queries // batch), self.epochs * queries * k)


@settings(frozen=True)
class Steps:
    """A budget of optimiser steps.

    Parameters
    ----------
    steps
        Optimiser steps, each of `trainer.batch` lists, which are gone through as often as needed.
    """

    steps: Positive

    def count(self, schedule: parts.Schedule) -> int:
        """Number of optimiser steps."""
        return self.steps

    def length(self, queries: int, k: int, batch: int) -> Length:
        """Steps and pairs, if every query has a list of k passages."""
        return Length(self.steps, _pairs(self.steps, queries, k, batch))


@settings(frozen=True)
class Pairs:
    """A budget of (query, passage) pairs, to the next whole optimiser step.

    Parameters
    ----------
    pairs
        Pairs that the student scores in training, at least.
    """

    pairs: Positive

    def count(self, schedule: parts.Schedule) -> int:
        """Number of optimiser steps."""
        seen = step = 0
        while seen < self.pairs:
            seen += schedule.pairs(step)
            step += 1
        return step

    def length(self, queries: int, k: int, batch: int) -> Length:
        """Steps and pairs, if every query has a list of k passages."""
        whole = self.pairs // (queries * k) * -(-queries // batch)
        rest = self.pairs - _pairs(whole, queries, k, batch)
        steps = whole + -(-rest // (batch * k))
        return Length(steps, _pairs(steps, queries, k, batch))


def _pairs(steps: int, queries: int, k: int, batch: int) -> int:
    """Pairs of so many steps; the last step of an epoch holds what is left."""
    epoch = -(-queries // batch)
    return k * (steps // epoch * queries + min(steps % epoch * batch, queries))


def flops(parameters: int, tokens: float, again: float = 0) -> int:
    """Floating-point operations of training on tokens, padding counted.

    ``6 * parameters * tokens`` (2 for the forward pass, 4 for the backward pass), and
    ``2 * parameters * again`` for those of them that the gradient cache runs forward twice. The
    attention matrix itself (quadratic in the length) is left out, as in Kaplan et al. (2020),
    section 2.1. It is an upper bound with frozen weights (LoRA), which need no gradient of their
    own, and where the last layer goes on with [CLS] alone (`rdx.students.encoder`).

    Parameters
    ----------
    parameters
        Of the student, embedding tables left out (`computing`).
    tokens, again
        Through the student in forward passes that count, and in those before, padding included.
    """
    return round(parameters * (6 * tokens + 2 * again))


def computing(student: nn.Module) -> int:
    """Number of parameters outside embedding tables: those that multiply every token."""
    tables = {id(m.weight) for m in student.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in student.parameters() if id(p) not in tables)


def plan(
    student: CrossEncoder, schedule: batches.Schedule, steps: int, tokens: Tokens, again: float
) -> Costs:
    """What a training is going to cost.

    `again`: the share of the tokens that the gradient cache runs forward twice.
    """
    epoch = [schedule.pairs(i) for i in range(schedule.steps_per_epoch)]
    epochs, rest = divmod(steps, len(epoch))
    pairs = epochs * sum(epoch) + sum(epoch[:rest])
    mean = tokens.lengths(batches.rows_of(schedule.step(0), tokens)).mean()
    return Costs(
        steps=steps,
        batch=min(schedule.batch, schedule.size),
        batch_pairs=max(epoch),
        pairs=pairs,
        tokens=round(pairs * mean),
        flops=flops(computing(student), pairs * mean, pairs * mean * again),
    )


def announcement(name: str, costs: Costs, processes: int) -> str:
    """The costs in one line."""
    spread = f" over {processes} processes" if processes > 1 else ""
    return (
        f"{name}: {counted(costs.steps, 'step')} of {counted(costs.batch, 'query')} "
        f"(up to {counted(costs.batch_pairs, 'pair')}{spread}), {counted(costs.pairs, 'pair')}, "
        f"about {costs.tokens:.2g} tokens and {costs.flops:.2g} FLOPs"
    )
