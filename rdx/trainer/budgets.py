"""How long to train, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rdx import parts
from rdx.batches import Schedule, pairs_of
from rdx.collection import Collection
from rdx.declared import Positive, settings
from rdx.parts import Length
from rdx.students import CrossEncoder
from rdx.text import counted

SAMPLE = 512  # pairs that are tokenised to estimate the length of all


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
        An estimate from the first `SAMPLE` pairs, without padding.
    """

    steps: int
    batch: int
    batch_pairs: int
    pairs: int
    tokens: int
    flops: int


@settings(frozen=True)
class Epochs:
    """A budget of passes over the training lists."""

    epochs: Positive

    def count(self, schedule: parts.Schedule) -> int:
        """Number of optimiser steps."""
        return self.epochs * schedule.steps_per_epoch

    def length(self, queries: int, k: int, batch: int) -> Length:
        """Steps and pairs, if every query has a list of k passages."""
        return Length(self.epochs * -(-queries // batch), self.epochs * queries * k)


@settings(frozen=True)
class Steps:
    """A budget of optimiser steps."""

    steps: Positive

    def count(self, schedule: parts.Schedule) -> int:
        """Number of optimiser steps."""
        return self.steps

    def length(self, queries: int, k: int, batch: int) -> Length:
        """Steps and pairs, if every query has a list of k passages."""
        return Length(self.steps, _pairs(self.steps, queries, k, batch))


@settings(frozen=True)
class Pairs:
    """A budget of (query, passage) pairs, to the next whole optimiser step."""

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


def flops(parameters: int, tokens: int, cached: bool) -> int:
    """Floating-point operations of training on tokens, padding counted.

    ``6 * parameters * tokens`` (2 for the forward pass, 4 for the backward pass), and
    ``8 * parameters * tokens`` where the gradient cache runs the forward pass twice. The attention
    matrix itself (quadratic in the length) is left out, as in Kaplan et al. (2020), section 2.1.
    With frozen weights (LoRA) this is an upper bound: they need no gradient of their own.

    Parameters
    ----------
    parameters
        Of the student, embedding tables left out (`computing`).
    tokens
        Through the student in forward passes that count, padding included.
    cached
        Whether the gradient cache was in use.
    """
    return (8 if cached else 6) * parameters * tokens


def computing(student: nn.Module) -> int:
    """Number of parameters outside embedding tables: those that multiply every token."""
    tables = {id(m.weight) for m in student.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in student.parameters() if id(p) not in tables)


def plan(
    student: CrossEncoder, schedule: Schedule, steps: int, collection: Collection, kept: float
) -> Costs:
    """What a training is going to cost.

    `kept`: tokens of a step up to which graphs are kept; beyond, the gradient cache is used.
    """
    epoch = [schedule.pairs(i) for i in range(schedule.steps_per_epoch)]
    epochs, rest = divmod(steps, len(epoch))
    pairs = epochs * sum(epoch) + sum(epoch[:rest])
    encoded = student.pairs.encode(pairs_of(schedule.step(0), collection)[:SAMPLE])
    tokens = round(pairs * sum(len(pair["input_ids"]) for pair in encoded) / len(encoded))
    return Costs(
        steps=steps,
        batch=min(schedule.batch, schedule.size),
        batch_pairs=max(epoch),
        pairs=pairs,
        tokens=tokens,
        flops=flops(computing(student), tokens, tokens / steps > kept),
    )


def announcement(name: str, costs: Costs, processes: int) -> str:
    """The costs in one line."""
    spread = f" over {processes} processes" if processes > 1 else ""
    return (
        f"{name}: {counted(costs.steps, 'step')} of {counted(costs.batch, 'query')} "
        f"(up to {counted(costs.batch_pairs, 'pair')}{spread}), {counted(costs.pairs, 'pair')}, "
        f"about {costs.tokens:.2g} tokens and {costs.flops:.2g} FLOPs"
    )
