"""Which queries a training had, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue

from rdx.facts.counts import Count, Counts
from rdx.facts.labels import Audit


@dataclass(frozen=True)
class QuerySample:
    """Training queries that candidates were ranked for; passages of a given run without text."""

    collection: str
    queries: tuple[str, ...]
    passages_missing: Count | None = None


@dataclass(frozen=True)
class Selection:
    """What became of the sampled training queries, and of their passages.

    Attributes
    ----------
    collection
        Name of the training collection.
    fates
        Query id -> "used", or why it has no list (`rdx.accounting.LOST`).
    dropped
        Training data that was left out, by name (`rdx.accounting.NAMES`).
    """

    collection: str
    fates: dict[str, str]
    dropped: Counts


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validated measure before training and of the kept weights, each with its step.

    `best_step`: after how many steps it was best; `kept_step`: of the weights that were kept.
    """

    start: float
    kept: float
    best_step: int
    kept_step: int


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a training did.

    Attributes
    ----------
    steps, pairs, lists
        Optimiser steps; (query, passage) pairs; training lists of an epoch.
    tokens, padding, flops
        Tokens without padding; padding's share of the computed tokens; floating-point operations
        (`rdx.trainer.budgets.flops`).
    max_tokens
        Of a micro-batch, in the end.
    truncated_texts
        Texts, by their ids, of which the student saw the beginning only.
    last_loss, weight_change
        Loss of the last step; largest change of some probed weights.
    validation
        None without one.
    """

    steps: int
    pairs: int
    lists: int
    tokens: int
    padding: float
    flops: int
    max_tokens: int
    truncated_texts: int
    last_loss: float
    weight_change: float
    validation: Validation | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """How a checkpoint came about.

    Attributes
    ----------
    training
        None of a student that was saved as it came.
    dropped
        Training data that was left out or cut, by name (`rdx.accounting.NAMES`).
    audit, states
        Of the labels of a distillation: their audit, and rows of the teacher ranking by state.
    student
        What decided it as a student (its configuration's identity): what begins from its weights
        must be of its kind.
    """

    training: TrainingFacts | None = None
    dropped: Counts = field(default_factory=dict)
    audit: Audit | None = None
    states: dict[str, int] = field(default_factory=dict)
    student: dict[str, JsonValue] | None = None
