"""Training lists in order, and length-sorted micro-batches that are prepared ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rdx.draws import generator
from rdx.lists import Lists, TrainingList, sizes
from rdx.tokens import PairRows, Tokens

IntArray = npt.NDArray[np.int64]
T = TypeVar("T")
U = TypeVar("U")

CHUNK = 2**14  # pairs that are cut together; more would save little padding
DEPTH = 2  # batches that are prepared in advance


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

    def pinned(self, device: torch.device) -> MicroBatch:
        """The same in memory that a GPU reads by itself; as it is for other devices."""
        return self._each(Tensor.pin_memory) if device.type == "cuda" else self

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device; from pinned memory nothing waits for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> MicroBatch:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return MicroBatch(inputs, change(self.parts), change(self.positions))


def pairs_in(lists: Sequence[TrainingList]) -> int:
    """Number of (query, passage) pairs."""
    return sum(len(ranking.doc_ids) for ranking in lists)


def rows_of(lists: Sequence[TrainingList], tokens: Tokens) -> PairRows:
    """The pairs of the lists, one list after the other."""
    query_ids = [ranking.query_id for ranking in lists for _ in ranking.doc_ids]
    return tokens.rows(query_ids, [d for ranking in lists for d in ranking.doc_ids])


def positions_of(lists: Sequence[TrainingList]) -> IntArray:
    """Where the pairs of `rows_of` lie in the flattened [B * N]."""
    return np.flatnonzero(_mask(lists))


def targets(lists: Sequence[TrainingList]) -> tuple[Tensor, Tensor]:
    """Teacher ranks [B, N] (0 at padding) and mask [B, N]."""
    mask = _mask(lists)
    ranks = np.zeros(mask.shape, dtype=np.int64)
    ranks[mask] = list(chain.from_iterable(ranking.teacher_ranks for ranking in lists))
    return torch.from_numpy(ranks), torch.from_numpy(mask)


def scores_of(lists: Sequence[TrainingList]) -> Tensor | None:
    """Teacher scores [B, N] (float32), NaN at padding and in lists without; None if none has any.

    A ranking in which some passages have no score keeps NaN there: it is the loss's to refuse.
    """
    if all(ranking.teacher_scores is None for ranking in lists):
        return None
    scores = np.full((len(lists), _width(lists)), np.nan, dtype=np.float32)
    for row, ranking in zip(scores, lists, strict=True):
        if ranking.teacher_scores is not None:
            row[: len(ranking.teacher_scores)] = ranking.teacher_scores
    return torch.from_numpy(scores)


def _mask(lists: Sequence[TrainingList]) -> npt.NDArray[np.bool_]:
    """Whether there is a pair at [B, N]."""
    sizes = np.array([len(ranking.doc_ids) for ranking in lists])
    return np.arange(_width(lists)) < sizes[:, None]


def _width(lists: Sequence[TrainingList]) -> int:
    """N: passages of the longest list."""
    return max(len(ranking.doc_ids) for ranking in lists)


def micro_batches(
    tokens: Tokens,
    rows: PairRows,
    positions: IntArray,
    max_tokens: int,
    lists: IntArray | None = None,
) -> list[MicroBatch]:
    """Micro-batches of at most `max_tokens` tokens each, the longest pairs first (`groups`).

    `lists` [P], which list each pair is of, is for students that score lists.
    """
    return [
        _micro_batch(tokens, rows, members, positions, lists)
        for members in groups(tokens.lengths(rows), max_tokens, lists)
    ]


def _micro_batch(
    tokens: Tokens,
    rows: PairRows,
    members: IntArray,
    positions: IntArray,
    lists: IntArray | None,
) -> MicroBatch:
    sizes = None
    if lists is not None:
        starts = np.flatnonzero(np.diff(lists[members], prepend=-1))
        sizes = np.diff(starts, append=len(members))
    inputs, parts = tokens.assemble(rows[members], sizes)
    return MicroBatch(inputs, parts, torch.from_numpy(positions[members]))


def scores(
    model: Callable[[dict[str, Tensor], Tensor], Tensor],
    tokens: Tokens,
    rows: PairRows,
    device: torch.device,
    max_tokens: int,
    done: Callable[[int], object] = lambda pairs: None,
    lists: IntArray | None = None,
) -> npt.NDArray[np.float32]:
    """Scores [P] of pairs, the longest first, so that too little memory shows at once.

    Batches are prepared ahead, a few at a time; scores stay on the device until all are known.

    Parameters
    ----------
    model
        Gives the scores of a micro-batch, as a student does; it is on `device`.
    done
        Told how many more pairs were given to the model.
    lists
        [P]: which list each pair is of, for students that score lists.
    """
    values = torch.zeros(len(rows), device=device)
    places = np.arange(len(rows))

    def prepared(members: IntArray) -> MicroBatch:
        return _micro_batch(tokens, rows, members, places, lists).pinned(device)

    with closing(ahead(groups(tokens.lengths(rows), max_tokens, lists), prepared)) as micros:
        for micro in micros:
            inputs = micro.to(device)
            values[inputs.positions] = model(inputs.inputs, inputs.parts).float()
            done(len(inputs.positions))
    return values.cpu().numpy()


def ahead(items: Iterable[T], make: Callable[[T], U], depth: int = DEPTH) -> Generator[U]:
    """Make `make(item)` of every item, in order, up to `depth` in advance in another thread.

    Items are iterated in that thread, too. An error of either is raised where its item would have
    come. Close the iterator (`contextlib.closing`) where not all of it may be taken: this ends the
    thread, after what it is making.
    """
    remaining = iter(items)

    def one() -> list[U]:
        return [make(item) for item in islice(remaining, 1)]

    thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        waiting: deque[Future[list[U]]] = deque(thread.submit(one) for _ in range(depth))
        while made := waiting.popleft().result():
            waiting.append(thread.submit(one))
            yield made.pop()
    finally:
        thread.shutdown(cancel_futures=True)


def groups(lengths: IntArray, max_tokens: int, lists: IntArray | None = None) -> Iterator[IntArray]:
    """Which pairs make a micro-batch of at most `max_tokens`, the longest pairs first.

    Padding counts; a single pair that is longer still is a group of its own. Of equal lengths the
    first pair comes first. The cuts (`cuts`) are those with the least padding.

    With `lists` [P], the number from 0 of the list that each pair is of, lists stay whole: those
    with the longest pairs come first, of equal ones that with the smaller number, and one that
    takes more than `max_tokens` is a group of its own. The pairs of a list stand together, in
    their order.
    """
    if lists is not None:
        yield from _whole(lengths, max_tokens, lists)
        return
    order = np.argsort(-lengths, kind="stable")
    for first in range(0, len(order), CHUNK):
        chunk = order[first : first + CHUNK]
        for start, end in cuts(lengths[chunk], max_tokens):
            yield chunk[start:end]


def _whole(lengths: IntArray, max_tokens: int, lists: IntArray) -> Iterator[IntArray]:
    order = np.argsort(lists, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(lists[order])) + 1) if len(order) else []
    pieces.sort(key=lambda own: -int(lengths[own].max()))
    group: list[IntArray] = []
    for own in pieces:
        size = sum(map(len, group)) + len(own)
        if group and size * int(lengths[group[0]].max()) > max_tokens:
            yield np.concatenate(group)
            group = []
        group.append(own)
    if group:
        yield np.concatenate(group)


def cuts(lengths: Sequence[int] | IntArray, max_tokens: int) -> list[tuple[int, int]]:
    """Where to cut falling lengths into groups, so that computing them costs least.

    A group costs its number of members times its first (largest) length, at most `max_tokens` if it
    has several members; and, so that there are not too many, a sixteenth of `max_tokens` beside.
    Of equal ways the one with the largest groups at the end.

    Dynamic programming over the ends. What a group costs that begins at a start is a line over the
    ends, up to the last that it may have. Lengths fall, so a later start that was once the better
    stays so (the cost is Monge), and a queue holds the starts in the order in which they become the
    best: O(n). Galil and Park, "Dynamic programming with convexity, concavity and sparsity", 1992.

    Returns
    -------
    list of (start, end)
        In order, `end` excluded; [] without lengths.
    """
    widths = np.asarray(lengths, dtype=np.int64)
    most = np.maximum(max_tokens // np.maximum(widths, 1), 1)  # members, if one begins here
    expiry = (np.arange(len(widths)) + most + 1).tolist()  # the first end it may not have
    slopes = (16 * widths).tolist()  # costs are in sixteenths of a token: exact
    heights: list[int] = []  # of the lines: cost of start `i` at end `e` = height + slope * e
    chosen: list[int] = []  # the best start of every end
    queue: deque[tuple[int, int]] = deque()  # starts, and from which end on they are the best
    cost = 0  # of the best way to cut what comes before `start`
    for start, slope in enumerate(slopes):
        height, since = cost + max_tokens - slope * start, 0
        heights.append(height)
        while queue:
            other, others = queue[-1]
            since = expiry[other]
            if steeper := slopes[other] - slope:
                since = min(since, (height - heights[other]) // steeper + 1)
            if since > others:
                break
            queue.pop()
        queue.append((start, since if queue else 0))
        end = start + 1
        while len(queue) > 1 and queue[1][1] <= end:
            queue.popleft()
        best = queue[0][0]
        chosen.append(best)
        cost = heights[best] + slopes[best] * end
    pieces: list[tuple[int, int]] = []
    end = len(chosen)
    while end:
        pieces.append((chosen[end - 1], end))
        end = chosen[end - 1]
    return pieces[::-1]
