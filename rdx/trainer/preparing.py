"""What a step scores together: groups of its lists, and their micro-batches.

A loss whose denominator is known before anything is scored (`rdx.losses.Divisible`) is made up of
those of groups of lists. So a step scores a group, takes its gradient, and forgets it before the
next one: memory holds the graphs of a group, at any depth and any number of lists. For other losses
all lists are one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rdx.batches import (
    IntArray,
    MicroBatch,
    groups,
    micro_batches,
    positions_of,
    rows_of,
    scores_of,
    targets,
)
from rdx.lists import TrainingList
from rdx.losses.combined import Weighted, divided, divisible
from rdx.parts import Loss
from rdx.students.packing import places
from rdx.tokens import PairRows, Tokens

# Lists are together up to so many times `max_tokens`, or alone. On a GPU the graphs of a group then
# take what those of one micro-batch may; on a CPU, where micro-batches are small for its caches,
# more of them are sorted by length together.
MICROS = {"gpu": 1, "cpu": 8}


@dataclass(frozen=True)
class Share:
    """Which pairs a process has of a group: every `processes`-th, or those of every such list.

    `level` asks for equally many micro-batches in all processes, some of them perhaps idle.
    """

    process: int = 0
    processes: int = 1
    level: bool = False


@dataclass(frozen=True)
class Group:
    """Whole lists that are scored, and passed back, together.

    Attributes
    ----------
    micros
        The pairs of this process; positions lie in [B * N], where [B * N] itself is nowhere.
    targets
        Teacher ranks and mask [B, N], and teacher scores if the step has some.
    losses
        Weighted: their sum over all groups is the loss of the step.
    tokens
        In all processes, without padding.
    padded
        In this process, with padding.
    small
        Whether one micro-batch would hold the pairs of any process.
    """

    micros: tuple[MicroBatch, ...]
    targets: tuple[Tensor, ...]
    losses: list[Weighted]
    tokens: int
    padded: int
    small: bool

    def pinned(self, device: torch.device) -> Group:
        """With micro-batches in memory that a GPU reads by itself."""
        return replace(self, micros=tuple(micro.pinned(device) for micro in self.micros))


@dataclass(frozen=True)
class Prepared:
    """A step's lists, in groups for micro-batches of `max_tokens`.

    `truncated`: rows of passages that were cut when they were tokenised, and ~row of queries.
    """

    lists: Sequence[TrainingList]
    max_tokens: int
    groups: tuple[Group, ...]
    truncated: frozenset[int]

    def pinned(self, device: torch.device) -> Prepared:
        """With micro-batches in memory that a GPU reads by itself."""
        return replace(self, groups=tuple(group.pinned(device) for group in self.groups))


def prepare(
    lists: Sequence[TrainingList],
    tokens: Tokens,
    loss: Loss,
    max_tokens: int,
    limit: int,
    share: Share,
    packs: bool = False,
    whole_lists: bool = False,
) -> Prepared:
    """The groups of a step: a function of its arguments alone.

    Parameters
    ----------
    max_tokens
        Of a micro-batch.
    limit
        Tokens of a group and process; a list that has more is a group of its own.
    packs
        Whether the student wants to know where real tokens are (`rdx.students.packing`).
    whole_lists
        Whether the student scores lists: each is in one micro-batch, of one process.
    """
    rows = rows_of(lists, tokens)
    lengths = tokens.lengths(rows)
    starts = np.cumsum([0, *(len(ranking.doc_ids) for ranking in lists)])
    sums = np.diff(np.concatenate([[0], np.cumsum(lengths)])[starts])
    together = sums.sum() if not divisible(loss) else limit * share.processes
    # one list would leave the other processes without any
    least = share.processes if whole_lists else 1
    ranges = list(_together(sums.tolist(), int(together), least))
    whole = _targets(lists)
    parts = []
    for start, end in ranges:
        width = int(np.diff(starts[start : end + 1]).max())
        parts.append(tuple(tensor[start:end, :width] for tensor in whole))
    losses = divided(loss, whole, parts)
    made = [
        _group(
            *(lists[a:b], tokens, rows[starts[a] : starts[b]], own, weighted),
            *(max_tokens, share, whole_lists),
        )
        for (a, b), own, weighted in zip(ranges, parts, losses, strict=True)
    ]
    if packs:
        made = [replace(group, micros=tuple(map(_placed, group.micros))) for group in made]
    return Prepared(lists, max_tokens, tuple(made), _truncated(tokens, rows))


def _placed(micro: MicroBatch) -> MicroBatch:
    return replace(micro, inputs=micro.inputs | places(micro.inputs["attention_mask"]))


def _together(sizes: list[int], limit: int, least: int = 1) -> Iterator[tuple[int, int]]:
    """Neighbours whose sizes add up to at most `limit`, or `least` of them: (start, end)."""
    start = total = 0
    for i, size in enumerate(sizes):
        if i >= start + least and total + size > limit:
            yield start, i
            start, total = i, 0
        total += size
    yield start, len(sizes)


def _targets(lists: Sequence[TrainingList]) -> tuple[Tensor, ...]:
    """Teacher ranks and mask [B, N], and teacher scores if there are some."""
    scores = scores_of(lists)
    return targets(lists) if scores is None else (*targets(lists), scores)


def _group(
    lists: Sequence[TrainingList],
    tokens: Tokens,
    rows: PairRows,
    own: tuple[Tensor, ...],
    losses: list[Weighted],
    max_tokens: int,
    share: Share,
    whole_lists: bool,
) -> Group:
    lengths = tokens.lengths(rows)
    # what goes to one process, and into one micro-batch: a pair, or a list
    units = np.arange(len(rows))
    if whole_lists:
        units = np.repeat(np.arange(len(lists)), [len(ranking.doc_ids) for ranking in lists])
    owners = units % share.processes
    shares = [np.flatnonzero(owners == process) for process in range(share.processes)]

    def of(pairs: IntArray) -> IntArray | None:
        return units[pairs] if whole_lists else None

    def cut(pairs: IntArray, positions: IntArray) -> list[MicroBatch]:
        return micro_batches(tokens, rows[pairs], positions, max_tokens, of(pairs))

    mine = shares[share.process]
    micros = cut(mine, positions_of(lists)[mine])
    padded = sum(micro.parts.numel() for micro in micros)
    if share.level:
        idle = cut(np.array([0]), np.array([own[0].numel()]))  # nowhere
        most = max(len(list(groups(lengths[one], max_tokens, of(one)))) for one in shares)
        micros = micros + idle * (most - len(micros))
    return Group(
        micros=tuple(micros),
        targets=own,
        losses=losses,
        tokens=int(lengths.sum()),
        padded=padded,
        small=units.max() < share.processes
        or int(lengths.max()) * max(map(len, shares)) <= max_tokens,
    )


def _truncated(tokens: Tokens, rows: PairRows) -> frozenset[int]:
    queries = rows.queries[tokens.queries.truncated[rows.queries]]
    passages = rows.passages[tokens.passages.truncated[rows.passages]]
    return frozenset([*(~queries).tolist(), *passages.tolist()])
