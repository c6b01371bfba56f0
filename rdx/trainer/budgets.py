"""How long to train, and what that costs."""

from __future__ import annotations

from typing import Any

from torch import nn

from rdx.batches import Schedule, pairs_of
from rdx.declared import Positive, settings
from rdx.text import counted

SAMPLE = 512  # pairs that are tokenised to estimate the length of all


@settings(frozen=True)
class Epochs:
    """A budget of passes over the training lists."""

    epochs: Positive

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""
        return self.epochs * schedule.steps_per_epoch


@settings(frozen=True)
class Steps:
    """A budget of optimiser steps."""

    steps: Positive

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""
        return self.steps


@settings(frozen=True)
class Pairs:
    """A budget of (query, passage) pairs, to the next whole optimiser step."""

    pairs: Positive

    def count(self, schedule: Schedule) -> int:
        """Number of optimiser steps."""
        seen = step = 0
        while seen < self.pairs:
            seen += sum(len(one.doc_ids) for one in schedule.step(step))
            step += 1
        return step


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
    student: Any, schedule: Schedule, steps: int, collection: Any, kept: float
) -> dict[str, Any]:
    """What a training is going to cost, before it starts.

    Parameters
    ----------
    kept
        Tokens of a step up to which graphs are kept; beyond, the gradient cache is used.

    Returns
    -------
    dict
        steps, batch (queries per step), batch_pairs (pairs per full step), pairs, tokens, flops.
        The pairs are those of the first epoch, continued; the tokens an estimate from the
        first `SAMPLE` pairs, without padding.
    """
    first = [
        sum(len(one.doc_ids) for one in schedule.step(i)) for i in range(schedule.steps_per_epoch)
    ]
    epochs, rest = divmod(steps, len(first))
    pairs = epochs * sum(first) + sum(first[:rest])
    encoded = student.pairs.encode(pairs_of(schedule.step(0), collection)[:SAMPLE])
    tokens = round(pairs * sum(len(one["input_ids"]) for one in encoded) / len(encoded))
    return {
        "steps": steps,
        "batch": min(schedule.batch, schedule.size),
        "batch_pairs": max(first),
        "pairs": pairs,
        "tokens": tokens,
        "flops": flops(computing(student), tokens, tokens / steps > kept),
    }


def announcement(name: str, costs: dict[str, Any], processes: int) -> str:
    """The plan in one line."""
    spread = f" over {processes} processes" if processes > 1 else ""
    largest = counted(costs["batch_pairs"], "pair")
    return (
        f"{name}: {counted(costs['steps'], 'step')} of {counted(costs['batch'], 'query')} "
        f"(up to {largest}{spread}), {counted(costs['pairs'], 'pair')}, "
        f"about {costs['tokens']:.2g} tokens and {costs['flops']:.2g} FLOPs"
    )
