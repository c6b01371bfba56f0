"""The schedule of training lists, micro-batches, and how they are prepared ahead."""

import itertools
import math
import threading
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
import torch

from rdx import batches
from rdx.batches import (
    MicroBatch,
    Schedule,
    ahead,
    cuts,
    groups,
    micro_batches,
    positions_of,
    rows_of,
    scores,
    scores_of,
    targets,
)
from rdx.lists import TrainingList
from rdx.tokens import PairRows
from tests.rdx.small_tokens import letters

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
    positions = positions_of(RAGGED).tolist()
    assert positions == [0, 1, 2, 3, 6, 7]
    ranks, mask = targets(RAGGED)
    assert mask.flatten().nonzero().flatten().tolist() == positions
    flat = [r for one in RAGGED for r in one.teacher_ranks]
    assert ranks.flatten()[positions].tolist() == flat


def words(lengths, queries=1):
    """Texts whose ids are numbers: a query is one token, passage n is `lengths[n]` times n + 1."""
    return letters(
        {str(i): chr(1 + i) for i in range(queries)},
        {str(i): chr(1 + i) * length for i, length in enumerate(lengths)},
    )


def all_rows(tokens):
    """Every passage with every query."""
    queries, passages = len(tokens.queries), len(tokens.passages)
    return PairRows(np.repeat(np.arange(queries), passages), np.tile(np.arange(passages), queries))


def test_rows_are_those_of_the_lists_in_order():
    lists = [TrainingList("7", ("2", "0"), (1, 2)), TrainingList("5", ("1",), (1,))]
    rows = rows_of(lists, words([1, 1, 1], queries=8))
    assert (rows.queries.tolist(), rows.passages.tolist()) == ([7, 7, 5], [2, 0, 1])


# --- micro-batches ---


@pytest.mark.parametrize("max_tokens", [1, 7, 12, 40, 10_000])
def test_micro_batches_hold_every_pair_once_within_the_limit(max_tokens):
    tokens = words([3, 9, 5, 2, 7, 7, 3, 4, 11, 6])
    rows, positions = all_rows(tokens), 100 + 3 * np.arange(10)
    lengths = tokens.lengths(rows)
    found = micro_batches(tokens, rows, positions, max_tokens)
    assert sorted(p for one in found for p in one.positions.tolist()) == positions.tolist()
    widths = []
    for one in found:
        ids = one.inputs["input_ids"]
        rows = [(p - 100) // 3 for p in one.positions.tolist()]
        assert ids.shape == (len(rows), max(lengths[row] for row in rows)) == one.parts.shape
        assert ids.numel() <= max_tokens or len(rows) == 1
        assert ids[:, 1].tolist() == [row + 1 for row in rows]
        assert (ids > 0).sum(1).tolist() == [lengths[row] for row in rows]
        widths.append(ids.shape[1])
    assert widths == sorted(widths, reverse=True)
    if max_tokens == 10_000:
        assert len(found) == 1
    if max_tokens == 1:
        assert len(found) == 10


def test_micro_batches_are_filled():
    tokens = words([3] * 10)
    found = micro_batches(tokens, all_rows(tokens), np.arange(10), 12)
    assert [len(one.positions) for one in found] == [1, 3, 3, 3]


def test_of_equal_lengths_the_first_comes_first():
    assert [g.tolist() for g in groups(np.array([2, 3, 2, 3, 2]), 6)] == [[1, 3], [0, 2, 4]]
    assert list(groups(np.array([], dtype=np.int64), 6)) == []


def test_many_pairs_are_cut_in_chunks_longest_first(monkeypatch):
    lengths = np.random.default_rng(0).integers(1, 30, 100)
    whole = list(groups(lengths, 64))
    monkeypatch.setattr(batches, "CHUNK", 32)
    chunks = list(groups(lengths, 64))
    assert np.concatenate(chunks).tolist() == np.concatenate(whole).tolist()
    assert all(len(g) * lengths[g[0]] <= 64 for g in chunks)
    assert len(whole) <= len(chunks) <= len(whole) + 3
    assert {0, 32, 64, 96} <= set(np.cumsum([0, *map(len, chunks)]).tolist())


# --- cuts ---


def test_lists_stay_whole():
    """The longest pairs are of lists 7 (9), 2 (5), 0 (5) and 4 (1)."""
    lists = np.array([4, 2, 7, 2, 0, 7, 0, 7, 4])
    lengths = np.array([1, 5, 2, 3, 5, 9, 2, 2, 1])
    cut = {
        30: [[2, 5, 7], [4, 6, 1, 3, 0, 8]],
        29: [[2, 5, 7], [4, 6, 1, 3], [0, 8]],
        1: [[2, 5, 7], [4, 6], [1, 3], [0, 8]],
        44: [[2, 5, 7], [4, 6, 1, 3, 0, 8]],
        45: [[2, 5, 7, 4, 6], [1, 3, 0, 8]],
        81: [[2, 5, 7, 4, 6, 1, 3, 0, 8]],
    }
    for max_tokens, expected in cut.items():
        assert [g.tolist() for g in groups(lengths, max_tokens, lists)] == expected
    assert list(groups(lengths[:0], 9, lists[:0])) == []


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_a_student_of_lists_is_told_which_pairs_make_one(max_tokens):
    """Scores are those of a naive loop, list by list, in whatever order the pairs come."""
    tokens = words(np.random.default_rng(0).integers(1, 12, 12), queries=5)
    pairs = all_rows(tokens)[np.random.default_rng(1).permutation(60)[:37]]
    seen = []

    def model(inputs, parts):
        own = inputs["input_ids"].sum(1).float()
        of_list = torch.zeros(len(own))
        for members in inputs["lists"]:
            members = members[members >= 0]
            assert len(inputs["input_ids"][members, 0].unique()) == 1  # the query's token
            of_list[members] = own[members].sum()
            seen.extend(members.tolist())
        return own / of_list

    found = scores(model, tokens, pairs, torch.device("cpu"), max_tokens, lists=pairs.queries)
    inputs, _ = tokens.assemble(pairs)
    own = inputs["input_ids"].sum(1).numpy()
    expected = [own[i] / own[pairs.queries == q].sum() for i, q in enumerate(pairs.queries)]
    assert found == pytest.approx(np.array(expected))
    assert len(seen) == 37


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


def naive_cuts(lengths, max_tokens):
    """Every start of every end is tried."""
    best, starts = [0.0], [0]
    for end in range(1, len(lengths) + 1):
        costs = []
        for start in range(end):
            size = lengths[start] * (end - start)
            fits = size <= max_tokens or end - start == 1
            costs.append(best[start] + size + max_tokens / 16 if fits else math.inf)
        starts.append(int(np.argmin(costs)))
        best.append(min(costs))
    found, end = [], len(lengths)
    while end:
        found.append((starts[end], end))
        end = starts[end]
    return found[::-1]


@pytest.mark.parametrize("most", [1, 2, 5, 30, 500])
def test_cuts_are_those_of_a_naive_loop(most):
    """Ties included: of few distinct lengths there are many."""
    draw = np.random.default_rng(most)
    for max_tokens in (1, 7, 16, 40, 100, 333, 1000, 4096):
        for count in (1, 2, 3, 17, 60):
            lengths = sorted(draw.integers(1, most + 1, count).tolist(), reverse=True)
            assert cuts(lengths, max_tokens) == naive_cuts(lengths, max_tokens)


@pytest.mark.parametrize("max_tokens", [512, 4096])
def test_cuts_of_lengths_like_those_of_passages(max_tokens):
    drawn = np.random.default_rng(0).lognormal(4.5, 0.35, 400)
    lengths = np.sort(np.clip(drawn, 20, 256).astype(np.int64))[::-1]
    assert cuts(lengths, max_tokens) == naive_cuts(lengths.tolist(), max_tokens)


# --- ahead ---


def living():
    """Threads that prepare."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_ahead_keeps_the_order(depth, count):
    assert list(ahead(range(count), lambda item: item * item, depth)) == [
        item * item for item in range(count)
    ]
    assert living() == []


def test_ahead_takes_none_and_empty_values_for_values():
    assert list(ahead([0, 1, 2], [None, (), 0].__getitem__)) == [None, (), 0]


@pytest.mark.parametrize("depth", [1, 3])
def test_ahead_is_at_most_so_far_ahead(depth):
    begun, enough = [], threading.Event()

    def make(item):
        begun.append(item)
        if len(begun) == 1 + depth:
            enough.set()
        return item

    with closing(ahead(itertools.count(), make, depth)) as items:
        assert next(items) == 0
        assert enough.wait(60)  # while the first is used, others are made
        for item in range(1, 6):
            assert next(items) == item
            assert len(begun) <= item + 1 + depth
    assert living() == []


def test_ahead_works_in_another_thread():
    def items():
        yield threading.get_ident()

    [(source, maker)] = ahead(items(), lambda item: (item, threading.get_ident()))
    assert source == maker != threading.get_ident()


def test_an_error_comes_where_its_item_would():
    def items():
        yield from range(3)
        raise LookupError("no fourth item")

    with closing(ahead(items(), lambda item: 1 / (1 - item), 3)) as results:
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
    with closing(ahead(items(), lambda item: item, 3)) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(LookupError, match="fourth"):
            next(results)
    assert living() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_consumer_that_stops_ends_the_thread(error):
    made = []
    with pytest.raises(error), closing(ahead(itertools.count(), made.append, 2)) as items:
        next(items)
        raise error
    assert living() == []
    count = len(made)
    assert count <= 4 and len(made) == count


# --- scores ---


def summed(inputs, parts):
    """A model: query token times the sum of the others."""
    ids = inputs["input_ids"].float()
    assert torch.equal(parts > 0, ids > 0)
    return ids[:, 0] * ids[:, 1:].sum(1)


@pytest.mark.parametrize("max_tokens", [1, 20, 10_000])
def test_scores_of_every_pair(max_tokens):
    tokens = words(np.random.default_rng(0).integers(1, 12, 30), queries=2)
    rows, told, widths = all_rows(tokens), [], []

    def model(inputs, parts):
        widths.append(parts.shape[1])
        return summed(inputs, parts)

    found = scores(model, tokens, rows, torch.device("cpu"), max_tokens, told.append)
    assert found.dtype == np.float32
    expected = (1 + rows.queries) * (1 + rows.passages) * (tokens.lengths(rows) - 1)
    assert found.tolist() == expected.tolist()
    assert sum(told) == 60 and len(told) == len(widths)
    assert widths == sorted(widths, reverse=True)  # too little memory shows at once


def test_scores_of_no_pairs():
    tokens = words([1])
    nothing = tokens.rows([], [])
    assert scores(summed, tokens, nothing, torch.device("cpu"), 10).shape == (0,)


def test_an_error_of_the_model_ends_the_thread():
    def broken(inputs, parts):
        raise torch.OutOfMemoryError

    tokens = words([3] * 10)
    with pytest.raises(torch.OutOfMemoryError):
        scores(broken, tokens, all_rows(tokens), torch.device("cpu"), 8)
    assert living() == []


@pytest.mark.parametrize("queries", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_scores_hold_few_batches_at_a_time(queries, monkeypatch):
    """80 bytes a pair (order, positions, scores) instead of the 320 of all assembled tokens."""
    monkeypatch.setattr(batches, "CHUNK", 2**10)
    tokens = words(np.random.default_rng(0).integers(15, 25, 100), queries)
    rows = all_rows(tokens)

    def first(inputs, parts):
        return inputs["input_ids"][:, 0].float()

    tracemalloc.start()
    found = scores(first, tokens, rows, torch.device("cpu"), 2**12)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tolist() == (1 + rows.queries).tolist()
    assert peak < 80 * len(rows)


def test_a_batch_on_its_own_device_is_not_copied():
    one = MicroBatch({"input_ids": torch.ones(1, 2)}, torch.ones(1, 2), torch.zeros(1))
    cpu = torch.device("cpu")
    there = one.pinned(cpu).to(cpu)
    assert there.inputs["input_ids"].data_ptr() == one.inputs["input_ids"].data_ptr()


@pytest.mark.gpu
def test_pinned_batches_and_scores_on_a_gpu():
    device = torch.device("cuda")
    tokens = words(np.random.default_rng(0).integers(1, 12, 300), queries=4)
    rows = all_rows(tokens)
    assert micro_batches(tokens, rows, np.arange(1200), 64)[0].pinned(device).parts.is_pinned()
    expected = scores(summed, tokens, rows, torch.device("cpu"), 64)
    assert np.array_equal(scores(summed, tokens, rows, device, 64), expected)
