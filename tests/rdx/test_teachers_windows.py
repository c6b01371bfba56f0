"""Sliding windows, shuffles and central rankings against naive loops and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdx.teachers.windows import applied, check, merged, positions, shuffled

# --- positions ---


def rank_llm_positions(size, window, stride):
    """A loop with the condition to stop of rank_llm."""
    spans, start, end = [], size - window, size
    while end > 0 and start + stride != 0:
        start = max(start, 0)
        spans.append((start, end))
        start, end = start - stride, end - stride
    return spans


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [
        (0, 20, 10, []),
        (1, 20, 10, []),
        (2, 20, 10, [(0, 2)]),
        (10, 20, 10, [(0, 10)]),
        (20, 20, 10, [(0, 20)]),
        (21, 20, 10, [(1, 21), (0, 11)]),
        (35, 20, 10, [(15, 35), (5, 25), (0, 15)]),
        (40, 20, 20, [(20, 40), (0, 20)]),
        (6, 2, 1, [(4, 6), (3, 5), (2, 4), (1, 3), (0, 2)]),
        (7, 3, 3, [(4, 7), (1, 4)]),
    ],
)
def test_positions_worked_by_hand(size, window, stride, expected):
    assert positions(size, window, stride) == expected


def test_a_hundred_passages_are_nine_windows():
    assert positions(100, 20, 10) == [(start, start + 20) for start in range(80, -1, -10)]


WINDOWS = st.integers(2, 30).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w)))


@given(st.integers(0, 150), WINDOWS)
def test_positions_cover_the_list_from_back_to_front(size, form):
    window, stride = form
    spans = positions(size, window, stride)
    covered = {i for start, end in spans for i in range(start, end)}
    alone = size == 1 or (stride == window and size % window == 1)
    assert covered == set(range(alone, size))
    assert all(2 <= end - start <= window for start, end in spans)
    assert all(end - start == window for start, end in spans[:-1])
    steps = [(a[0] - b[0], a[1] - b[1]) for a, b in itertools.pairwise(spans)]
    assert all(end == stride and 0 < start <= stride for start, end in steps)


@given(st.integers(0, 150), WINDOWS)
def test_positions_are_those_of_rank_llm(size, form):
    window, stride = form
    expected = rank_llm_positions(size, window, stride)
    if size == window - stride:  # by its condition to stop it gives such lists no window
        assert expected == []
        expected = [(0, size)]
    expected = [(start, end) for start, end in expected if end - start > 1]
    assert positions(size, window, stride) == expected


@given(st.integers(2, 120), st.data())
def test_one_pass_of_perfect_answers_finds_the_best(size, data):
    order = data.draw(st.permutations(range(size)))
    for start, end in positions(size, 20, 10):
        window = order[start:end]
        order = applied(order, start, np.argsort(window).tolist())
    assert order[:10] == list(range(min(size, 10)))


@pytest.mark.parametrize(
    ("window", "stride", "passes", "value"),
    [
        (1, 1, 1, "window=1:"),
        (20, 0, 1, "stride=0:"),
        (20, -1, 1, "stride=-1:"),
        (20, 21, 1, "stride=21:"),
        (20, 10, 0, "passes=0:"),
    ],
)
def test_windows_that_miss_passages_are_errors(window, stride, passes, value):
    with pytest.raises(ValueError, match=value):
        check(window, stride, passes)


def test_extreme_windows_are_allowed():
    check(2, 1, 1)
    check(2, 2, 3)


# --- applied ---


@given(st.lists(st.text(), max_size=30), st.data())
def test_applied_is_a_naive_loop(order, data):
    start = data.draw(st.integers(0, len(order)))
    end = data.draw(st.integers(start, len(order)))
    permutation = data.draw(st.permutations(range(end - start)))
    expected = list(order)
    for place, position in enumerate(permutation):
        expected[start + place] = order[start + position]
    before = list(order)
    assert applied(order, start, permutation) == expected
    assert order == before


@pytest.mark.parametrize(
    ("start", "permutation"), [(0, (0, 0)), (0, (1, 2)), (2, (1, 0)), (-1, (0, 1)), (0, (0, -1))]
)
def test_applied_takes_permutations_within_the_list(start, permutation):
    with pytest.raises(ValueError):
        applied(["a", "b", "c"], start, permutation)


# --- shuffled ---


def test_shuffles_are_pure_functions_of_their_key():
    base = shuffled(50, 0, "q1", 1)
    assert base == shuffled(50, 0, "q1", 1)
    others = [shuffled(50, 1, "q1", 1), shuffled(50, 0, "q2", 1), shuffled(50, 0, "q1", 2)]
    assert all(sorted(order) == list(range(50)) and order != base for order in others)


def test_the_first_shuffle_is_the_input_order():
    assert shuffled(5, 7, "q", 0) == [0, 1, 2, 3, 4]
    assert shuffled(0, 7, "q", 1) == []


def test_shuffles_are_uniform():
    places = np.array([shuffled(4, 0, f"q{i}", 1) for i in range(4000)])
    counts = np.array([np.bincount(column, minlength=4) for column in places.T])
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(750)


# --- merged ---


def distance(order, votes):
    """Sum of Kendall tau distances: a naive loop over pairs."""
    return sum(
        ranking.index(order[i]) > ranking.index(order[j])
        for ranking in votes
        for i, j in itertools.combinations(range(len(order)), 2)
    )


def least(votes):
    return min(distance(order, votes) for order in itertools.permutations(votes[0]))


RANKINGS = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.permutations("abcdef"[:n]), min_size=1, max_size=5)
)


@given(RANKINGS)
def test_borda_sorts_by_mean_rank(votes):
    first = votes[0]
    mean = {x: np.mean([ranking.index(x) for ranking in votes]) for x in first}
    expected = sorted(first, key=lambda x: (round(mean[x], 9), first.index(x)))
    assert merged(votes) == expected


def test_borda_ties_keep_the_order_of_the_first_ranking():
    assert merged([["c", "a", "b"], ["b", "a", "c"]]) == ["c", "a", "b"]
    assert merged([["b", "a", "c"], ["c", "a", "b"]]) == ["b", "a", "c"]


def test_kemeny_follows_the_majority_where_borda_follows_the_mean():
    # three of five prefer a to b; b is never bad, and wins by mean rank (3 against 4 in all)
    votes = ["abc", "abc", "abc", "bca", "bca"]
    assert merged(votes) == ["b", "a", "c"]
    assert merged(votes, "kemeny") == ["a", "b", "c"]
    assert distance("abc", votes) == 4 and distance("bac", votes) == 5
    assert least([list(vote) for vote in votes]) == 4


@given(RANKINGS)
def test_kemeny_is_between_brute_force_and_borda(votes):
    centre = merged(votes, "kemeny")
    assert sorted(centre) == sorted(votes[0])
    assert least(votes) <= distance(centre, votes) <= distance(merged(votes), votes)


def test_kemeny_nearly_always_equals_brute_force():
    draw = np.random.default_rng(0)
    excess = []
    for _ in range(200):
        n, size = draw.integers(3, 7), draw.integers(2, 8)
        votes = [draw.permutation(n).tolist() for _ in range(size)]
        excess.append(distance(merged(votes, "kemeny"), votes) - least(votes))
    assert np.mean(np.array(excess) == 0) >= 0.98


@given(st.lists(st.permutations(range(12)), min_size=1, max_size=5))
def test_no_single_move_improves_kemeny(votes):
    centre = merged(votes, "kemeny")
    reached = distance(centre, votes)
    for at, to in itertools.product(range(12), repeat=2):
        moved = centre[:at] + centre[at + 1 :]
        moved.insert(to, centre[at])
        assert distance(moved, votes) >= reached


@pytest.mark.parametrize("method", ["borda", "kemeny"])
def test_rankings_that_agree_are_their_own_centre(method):
    ranking = shuffled(100, 0, "q", 1)
    assert merged([ranking], method) == ranking
    assert merged([ranking] * 3, method) == ranking
    assert merged([ranking, ranking, ranking[::-1]], method) == ranking
    assert merged([[]], method) == []


@pytest.mark.parametrize("method", ["borda", "kemeny"])
def test_the_centre_of_noisy_rankings_is_nearer_to_the_truth(method):
    draw = np.random.default_rng(1)
    noisy = [np.argsort(np.arange(100) + draw.normal(0, 20, 100)).tolist() for _ in range(10)]
    truth = list(range(100))
    alone = np.mean([distance(truth, [ranking]) for ranking in noisy])
    assert distance(truth, [merged(noisy, method)]) < alone / 2


@pytest.mark.parametrize(
    ("votes", "method"),
    [
        ([], "borda"),
        ([["a", "b"], ["a", "c"]], "borda"),
        ([["a", "b"], ["a", "b", "b"]], "borda"),
        ([["a", "a"]], "borda"),
        ([["a"]], "mean"),
    ],
)
def test_rankings_that_cannot_be_merged_are_errors(votes, method):
    with pytest.raises(ValueError):
        merged(votes, method)
