"""The schedule of training lists, and micro-batches."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from rdx.batches import (
    Schedule,
    cuts,
    micro_batches,
    pairs_of,
    positions_of,
    scores_of,
    targets,
)
from rdx.collection import Collection
from rdx.lists import TrainingList

# --- Schedule ---


def make_lists(n):
    return [TrainingList(f"q{i}", ("a", "b"), (1, 2)) for i in range(n)]


def test_schedule_covers_every_list_once_per_epoch():
    lists = make_lists(10)
    schedule = Schedule(lambda epoch: lists, 4, seed=0)
    assert schedule.steps_per_epoch == 3
    orders = []
    for epoch in range(4):
        steps = [schedule.step(3 * epoch + i) for i in range(3)]
        assert [len(step) for step in steps] == [4, 4, 2]
        orders.append(tuple(one.query_id for step in steps for one in step))
        assert sorted(orders[-1]) == sorted(one.query_id for one in lists)
    assert len(set(orders)) == 4


def test_schedule_is_a_function_of_seed_and_step():
    lists = make_lists(10)
    forth = Schedule(lambda epoch: lists, 3, seed=0)
    back = Schedule(lambda epoch: lists, 3, seed=0)
    expected = {step: forth.step(step) for step in range(12)}
    assert all(back.step(step) == expected[step] for step in reversed(range(12)))
    other = Schedule(lambda epoch: lists, 3, seed=1)
    assert [other.step(step) for step in range(4)] != [expected[step] for step in range(4)]


def test_schedule_asks_for_the_lists_of_the_epoch():
    def of_epoch(epoch):
        return [TrainingList(f"q{i}", (f"d{epoch}",), (1,)) for i in range(3)]

    schedule = Schedule(of_epoch, 2, seed=0)
    seen = [{one.doc_ids[0] for one in schedule.step(step)} for step in range(6)]
    assert seen == [{"d0"}, {"d0"}, {"d1"}, {"d1"}, {"d2"}, {"d2"}]


def test_schedule_refuses_nothing():
    with pytest.raises(ValueError, match="no training list is left"):
        Schedule(lambda epoch: [], 2, seed=0)


# --- tensors ---

RAGGED = [
    TrainingList("q1", ("a", "b", "c"), (2, 9, 1)),
    TrainingList("q2", ("d",), (1,)),
    TrainingList("q3", ("e", "f"), (4, 3)),
]
TEXTS = Collection(
    "toy",
    {"q1": "one", "q2": "two", "q3": "three"},
    {d: d * 3 for d in "abcdef"},
    pd.DataFrame({"query_id": [], "doc_id": [], "relevance": []}),
)


def test_targets_of_ragged_lists():
    ranks, mask = targets(RAGGED)
    assert ranks.tolist() == [[2, 9, 1], [1, 0, 0], [4, 3, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [True, True, False]]


def test_scores_of_ragged_lists():
    lists = [
        TrainingList("q1", ("a",), (1,), (0.25,)),
        TrainingList("q2", ("b", "c"), (1, 2)),
        TrainingList("q3", ("d", "e", "f"), (3, 1, 2), (1.0, 3.0, 2.0)),
    ]
    found = scores_of(lists)
    assert found.dtype == torch.float32
    assert found[2].tolist() == [1.0, 3.0, 2.0] and found[0, 0] == 0.25
    assert found.isnan().tolist() == [[False, True, True], [True] * 3, [False] * 3]
    assert scores_of(lists[1:2]) is None


def test_positions_put_every_pair_where_its_rank_lies():
    positions = positions_of(RAGGED)
    assert positions == [0, 1, 2, 3, 6, 7]
    ranks, mask = targets(RAGGED)
    assert mask.flatten().nonzero().flatten().tolist() == positions
    flat = [r for one in RAGGED for r in one.teacher_ranks]
    assert ranks.flatten()[positions].tolist() == flat
    pairs = pairs_of(RAGGED, TEXTS)
    assert pairs == [
        ("one", "aaa"), ("one", "bbb"), ("one", "ccc"),
        ("two", "ddd"), ("three", "eee"), ("three", "fff"),
    ]  # fmt: skip


class Words:
    """A tokeniser with one token per word, which records what it pads."""

    def encode(self, pairs):
        return [{"input_ids": [len(w) for w in f"{q} {p}".split()], "parts": []} for q, p in pairs]

    def pad(self, encoded):
        width = max(len(one["input_ids"]) for one in encoded)
        rows = [one["input_ids"] + [0] * (width - len(one["input_ids"])) for one in encoded]
        return {"input_ids": torch.tensor(rows)}, torch.zeros(len(rows), width)


@pytest.mark.parametrize("max_tokens", [1, 7, 12, 40, 10_000])
def test_micro_batches_hold_every_pair_once_within_the_limit(max_tokens):
    lengths = [3, 9, 5, 2, 7, 7, 3, 4, 11, 6]
    pairs = [("x" * (i + 1), " ".join(["y"] * (n - 1))) for i, n in enumerate(lengths)]
    positions = [100 + 3 * i for i in range(len(pairs))]
    found = micro_batches(pairs, positions, Words(), max_tokens)
    assert sorted(p for one in found for p in one.positions.tolist()) == positions
    widths = []
    for one in found:
        ids = one.inputs["input_ids"]
        rows = [(p - 100) // 3 for p in one.positions.tolist()]
        assert ids.shape == (len(rows), max(lengths[row] for row in rows)) == one.parts.shape
        assert ids.numel() <= max_tokens or len(rows) == 1
        # the first token is the query's, whose length tells the pair
        assert ids[:, 0].tolist() == [row + 1 for row in rows]
        assert (ids > 0).sum(1).tolist() == [lengths[row] for row in rows]
        widths.append(ids.shape[1])
    assert widths == sorted(widths, reverse=True)
    if max_tokens == 10_000:
        assert len(found) == 1
    if max_tokens == 1:
        assert len(found) == len(pairs)


def test_micro_batches_are_filled():
    pairs = [("x", "y y y")] * 10
    sizes = [len(one.positions) for one in micro_batches(pairs, range(10), Words(), 12)]
    assert sizes == [1, 3, 3, 3]


def test_cuts_by_hand():
    """A group costs 160 / 16 = 10: the first cut saves 80 of padding, another one 6 only."""
    assert cuts([30, 10, 10, 7, 7], 160) == [(0, 1), (1, 5)]
    assert cuts([30, 10, 10, 7, 7], 32) == [
        (0, 1),
        (1, 3),
        (3, 5),
    ]  # 32 hold three tens, or four sevens
    assert cuts([], 100) == []
    assert cuts([500], 100) == [(0, 1)]
    assert cuts([500, 400], 100) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("max_tokens", [1, 16, 40, 100, 1000])
@pytest.mark.parametrize("seed", range(6))
def test_no_other_cuts_cost_less(seed, max_tokens):
    lengths = sorted(np.random.default_rng(seed).integers(1, 40, 9).tolist(), reverse=True)

    def cost(groups):
        sizes = [lengths[start] * (end - start) for start, end in groups]
        alone = [end - start == 1 for start, end in groups]
        if any(size > max_tokens and not a for size, a in zip(sizes, alone, strict=True)):
            return math.inf
        return sum(sizes) + len(groups) * max_tokens / 16

    every = []
    for chosen in itertools.product([False, True], repeat=8):
        edges = [0, *(i + 1 for i, cut in enumerate(chosen) if cut), 9]
        every.append(list(itertools.pairwise(edges)))
    assert cost(cuts(lengths, max_tokens)) == min(map(cost, every))
