"""Scales of the scores of a query: hand-worked values, scipy's, and what holds for all of them."""

import numpy as np
import pytest
from scipy import stats

from rdx.rankings import SCALES, scaled

NAN = float("nan")
SCORES = [3.0, 1.0, 2.0, 5.0, 2.0]


@pytest.mark.parametrize(
    ("how", "scores", "expected"),
    [
        ("none", SCORES, SCORES),
        ("minmax", SCORES, [0.5, 0.0, 0.25, 1.0, 0.25]),
        # mean 2, variance (1 + 1) / 3
        ("zscore", [3.0, 1.0, 2.0], [1.5**0.5, -(1.5**0.5), 0.0]),
        # the fourth beats four of four, the two that tie one and half of each other
        ("quantile", SCORES, [0.75, 0.0, 0.375, 1.0, 0.375]),
        *((how, [0.1] * 3, [0.5] * 3) for how in ("minmax", "quantile")),
        *((how, [7.0], [0.5]) for how in ("minmax", "quantile")),
        *(("zscore", [0.1] * n, [0.0] * n) for n in (1, 3)),
        ("minmax", [4.0, NAN, 2.0], [1.0, NAN, 0.0]),
        ("zscore", [4.0, NAN, 2.0], [1.0, NAN, -1.0]),
        ("quantile", [4.0, NAN, 2.0, 3.0], [1.0, NAN, 0.0, 0.5]),
        *((how, [NAN, NAN], [NAN, NAN]) for how in SCALES),
        *((how, [], []) for how in SCALES),
    ],
)
def test_values(how, scores, expected):
    value = scaled(scores, ["q"] * len(scores), how)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected, rtol=1e-15)


def drawn():
    """Scores of three queries among each other, with ties."""
    random = np.random.default_rng(0)
    return random.integers(0, 9, 60).astype(np.float32) / 3, random.integers(0, 3, 60)


def test_equals_scipy():
    scores, queries = drawn()
    for query in range(3):
        own = scores[queries == query].astype(np.float64)
        theirs = {
            "zscore": stats.zscore(own),
            "quantile": (stats.rankdata(own) - 1) / (len(own) - 1),
            "minmax": (own - own.min()) / np.ptp(own),
        }
        for how, expected in theirs.items():
            ours = scaled(scores, queries, how)[queries == query]
            np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", SCALES)
def test_a_query_is_scaled_by_itself_and_keeps_its_order(how):
    scores, queries = drawn()
    together = scaled(scores, np.array(["x", "y", "z"])[queries], how)
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(scaled(scores[order], queries[order], how), together[order])
    for query in range(3):
        rows = queries == query
        np.testing.assert_allclose(scaled(scores[rows], queries[rows], how), together[rows])
        np.testing.assert_array_equal(
            stats.rankdata(together[rows], "min"), stats.rankdata(scores[rows], "min")
        )


@pytest.mark.parametrize("how", ["minmax", "zscore", "quantile"])
def test_shift_and_unit_of_scores_change_nothing(how):
    scores, queries = drawn()
    moved = scaled(scores * 4.0 - 7, queries, how)
    np.testing.assert_allclose(moved, scaled(scores, queries, how), rtol=1e-6, atol=1e-7)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="'max'"):
        scaled([1.0], ["q"], "max")
