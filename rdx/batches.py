"""The order that training lists come in, and their tokenised, length-sorted micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rdx.collection import Collection
from rdx.draws import generator
from rdx.lists import Lists, TrainingList, sizes


class Schedule:
    """Which lists make which optimiser step: a pure function of (seed, step)."""

    def __init__(self, lists: Lists, batch: int, seed: int) -> None:
        self.lists, self.batch, self.seed = lists, batch, seed
        self.size = len(lists(0))
        if not self.size:
            raise ValueError("no training list is left: every query was dropped")
        self.steps_per_epoch = -(-self.size // batch)
        self._epoch: tuple[int, Sequence[TrainingList], np.ndarray] = (-1, [], np.zeros(0))

    def step(self, step: int) -> list[TrainingList]:
        """Lists of a step, counted from 0; the last step of an epoch may hold fewer."""
        lists, places = self._of(step)
        return [lists[i] for i in places.tolist()]

    def pairs(self, step: int) -> int:
        """(Query, passage) pairs of a step; its lists are not made for it."""
        lists, places = self._of(step)
        return int(sizes(lists)[places].sum())

    def _of(self, step: int) -> tuple[Sequence[TrainingList], np.ndarray]:
        """The lists of a step's epoch, and which of them are the step's."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            lists = self.lists(epoch)
            order = generator(self.seed, epoch, "order").permutation(len(lists))
            self._epoch = (epoch, lists, order)
        _, lists, order = self._epoch
        return lists, order[inside * self.batch : (inside + 1) * self.batch]


@dataclass(frozen=True)
class MicroBatch:
    """Some of a step's pairs, padded to the longest: where their scores belong in [B * N]."""

    inputs: dict[str, Tensor]
    parts: Tensor
    positions: Tensor


def pairs_in(lists: Sequence[TrainingList]) -> int:
    """Number of (query, passage) pairs."""
    return sum(len(ranking.doc_ids) for ranking in lists)


def targets(lists: Sequence[TrainingList]) -> tuple[Tensor, Tensor]:
    """Teacher ranks [B, N] (0 at padding) and mask [B, N]."""
    width = _width(lists)
    rows = [ranking.teacher_ranks for ranking in lists]
    ranks = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    return ranks, ranks > 0


def scores_of(lists: Sequence[TrainingList]) -> Tensor | None:
    """Teacher scores [B, N] (float32), NaN at padding and in lists without; None if none has any.

    A ranking in which some passages have no score keeps NaN there: it is the loss's to refuse.
    """
    if all(ranking.teacher_scores is None for ranking in lists):
        return None
    width = _width(lists)
    rows = [ranking.teacher_scores or () for ranking in lists]
    return torch.tensor([[*row, *[float("nan")] * (width - len(row))] for row in rows])


def pairs_of(lists: Sequence[TrainingList], collection: Collection) -> list[tuple[str, str]]:
    """The (query, passage) texts of the lists, one list after the other."""
    return [
        (collection.queries[ranking.query_id], collection.passages[doc_id])
        for ranking in lists
        for doc_id in ranking.doc_ids
    ]


def positions_of(lists: Sequence[TrainingList]) -> list[int]:
    """Where the pairs of `pairs_of` lie in the flattened [B * N]."""
    width = _width(lists)
    return [
        row * width + i for row, ranking in enumerate(lists) for i in range(len(ranking.doc_ids))
    ]


def _width(lists: Sequence[TrainingList]) -> int:
    """N: passages of the longest list."""
    return max(len(ranking.doc_ids) for ranking in lists)


class Tokeniser(Protocol):
    """What turns texts into inputs of a student (`rdx.students.Pairs`)."""

    def encode(self, pairs: list[tuple[str, str]]) -> list[dict[str, list[int]]]:
        """Token ids (and whatever the model wants beside) of every pair, unpadded."""
        ...

    def pad(self, encoded: list[dict[str, list[int]]]) -> tuple[dict[str, Tensor], Tensor]:
        """Pad to the longest; gives model inputs [P, L] and parts [P, L]."""
        ...


def micro_batches(
    pairs: list[tuple[str, str]], positions: Sequence[int], tokenise: Tokeniser, max_tokens: int
) -> list[MicroBatch]:
    """Sort pairs by length and cut them so that no micro-batch has more than `max_tokens`.

    Padding counts; a single pair that is longer still is a micro-batch of its own. The cuts
    (`cuts`) are those with the least padding.
    """
    encoded = tokenise.encode(pairs)
    order = sorted(range(len(pairs)), key=lambda i: (-len(encoded[i]["input_ids"]), i))
    lengths = [len(encoded[i]["input_ids"]) for i in order]
    micros = []
    for start, end in cuts(lengths, max_tokens):
        members = order[start:end]
        inputs, parts = tokenise.pad([encoded[i] for i in members])
        micros.append(MicroBatch(inputs, parts, torch.tensor([positions[i] for i in members])))
    return micros


def cuts(lengths: Sequence[int], max_tokens: int) -> list[tuple[int, int]]:
    """Where to cut falling lengths into groups, so that computing them costs least.

    A group costs its number of members times its first (largest) length, at most `max_tokens` if it
    has several members; and, so that there are not too many, a sixteenth of `max_tokens` beside.
    Of equal ways the one with the largest groups at the end. Dynamic programming over the ends.

    Returns
    -------
    list of (start, end)
        In order, `end` excluded; [] without lengths.
    """
    widths = np.asarray(lengths, dtype=np.int64)
    best, starts = np.zeros(len(widths) + 1), np.zeros(len(widths) + 1, dtype=np.int64)
    for end in range(1, len(widths) + 1):
        first = max(end - max(max_tokens // max(widths[end - 1], 1), 1), 0)
        size = widths[first:end] * (end - np.arange(first, end))
        fits = size <= max_tokens
        fits[-1] = True  # a pair alone
        costs = np.where(fits, best[first:end] + size + max_tokens / 16, np.inf)
        starts[end] = first + int(costs.argmin())
        best[end] = costs.min()
    groups: list[tuple[int, int]] = []
    end = len(widths)
    while end:
        groups.append((int(starts[end]), end))
        end = int(starts[end])
    return groups[::-1]
