import math

import numpy as np
import pytest
from scipy import stats

from analysis.figures import data
from analysis.figures.grid import (
    Conditions,
    conditions,
    crossed,
    factorial,
    groups,
    in_order,
)

RNG = np.random.default_rng(3)


def test_levels_are_numbers_by_size_and_words_as_they_come():
    assert in_order(["shallow", "100", "deep", "20", "shallow"]) == ["20", "100", "shallow", "deep"]


def test_one_setting_has_the_ordinary_interval():
    values = RNG.normal(0.5, 0.2, 30)
    mean, half = data.within(values[:, None], ["c"] * 30)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert [mean[0] - half[0], mean[0] + half[0]] == pytest.approx([*expected])
    wide = data.within(values[:, None], ["c"] * 30, confidence=0.99)[1]
    assert wide[0] > half[0]


def test_two_settings_have_the_interval_of_their_difference_over_root_two():
    values = RNG.normal(0.5, 0.2, (30, 1)) + RNG.normal(0, 0.05, (30, 2))
    _, half = data.within(values, ["c"] * 30)
    found = stats.ttest_rel(values[:, 0], values[:, 1]).confidence_interval(0.95)
    assert half == pytest.approx([(found.high - found.low) / 2 / math.sqrt(2)] * 2)


def test_what_is_common_to_a_query_does_not_widen_the_interval():
    values = RNG.normal(0, 0.05, (20, 4))
    shifted = values + RNG.normal(0, 10, (20, 1))
    assert data.within(shifted, ["c"] * 20)[1] == pytest.approx(data.within(values, ["c"] * 20)[1])


def test_collections_weigh_alike_with_welchs_degrees_of_freedom():
    a, b = RNG.normal(0.2, 0.1, 10), RNG.normal(0.8, 0.3, 25)
    mean, half = data.within(np.concatenate([a, b])[:, None], ["a"] * 10 + ["b"] * 25)
    assert mean[0] == pytest.approx((a.mean() + b.mean()) / 2)
    # half the interval of the difference of two independent means, which has the same variance
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert half[0] == pytest.approx((welch.high - welch.low) / 4)


def test_intervals_of_little_data():
    mean, half = data.within(np.zeros((0, 2)), [])
    assert np.isnan(mean).all() and np.isnan(half).all()
    mean, half = data.within([[0.1, 0.3]], ["c"])
    assert list(mean) == [0.1, 0.3] and np.isnan(half).all()
    _, half = data.within(np.full((5, 3), 0.4), ["c"] * 5)
    assert half == pytest.approx([0, 0, 0], abs=1e-12)
    with pytest.raises(ValueError, match=r"shape \[2, j\]"):
        data.within([0.1, 0.2], ["c", "c"])


def test_conditions_are_means_over_seeds(depth):
    found = conditions(depth, "nDCG@10")
    assert found.values.shape == (2 * (43 + 54), 7)
    at = found.levels.index({"depth.k": "20", "depth.queries": "10000"})
    rows = [i for i, name in enumerate(found.collections) if name == "dl-19-bm25"]
    own = depth.scores["k20q10000", "dl-19-bm25", "nDCG@10"]
    assert sorted(found.values[rows, at]) == pytest.approx(sorted(own.per_query))
    assert conditions(depth, "AP") is None
    assert groups(depth) == {
        "bm25": ("dl-19-bm25", "dl-20-bm25"),
        "colbert": ("dl-19-colbert", "dl-20-colbert"),
    }


def conditions_of(*levels):
    n = len(levels)
    values = np.arange(3.0)[:, None] + np.arange(n)
    return Conditions(levels, ("c",) * 3, values)


def test_lines_are_settings_that_differ_in_one_key():
    settings = conditions_of({"k": "10", "l": "a"}, {"k": "20", "l": "a"}, {"k": "10", "l": "b"},
                 {"k": "20", "l": "b"}, {"k": "10", "l": "c"})  # fmt: skip
    a, b = data.lines(settings, "k", {"bm25": ("c",)})
    assert (a.label, a.x, a.mean) == ("a", ("10", "20"), (1.0, 2.0))
    assert (b.label, b.mean) == ("b", (3.0, 4.0))
    named = data.lines(settings, "k", {"bm25": ("c",), "colbert": ("d",)})
    assert [line.label for line in named] == ["a, bm25", "b, bm25"]  # no queries of d
    assert data.lines(settings, "other", {"bm25": ("c",)}) == []


FULL = [{"k": k, "l": x, "t": "real"} for k in ("10", "20") for x in "ab"]


def test_controls_are_no_part_of_a_factorial():
    settings = conditions_of(
        *FULL, {"k": "10", "l": "a", "t": "shuffled"}, {"k": "10", "l": "none", "t": "real"}
    )
    part = factorial(settings, ["k", "l"])
    assert list(part.levels) == [*FULL, {"k": "10", "l": "none", "t": "real"}]
    part, levels = crossed(part, ["k", "l"])
    assert list(part.levels) == FULL and levels == {"k": ["10", "20"], "l": ["a", "b"]}
    whole = factorial(settings, ["k", "l"])
    table = data.cell_means(whole, ["10", "20"], ["a", "b", "none"], {"t": "real"}, ("k", "l"))
    assert table[0].tolist() == [1.0, 2.0, 6.0] and np.isnan(table[1, 2])


def test_what_was_not_distilled_stands_at_no_depth():
    trained = [{"depth.k": k, "loss": loss} for k in ("10", "20") for loss in ("lce", "ranknet")]
    settings = conditions_of({"depth.k": "10", "loss": "none"}, *trained)
    assert list(factorial(settings, ["depth.k", "loss"]).levels) == trained
    only_losses = conditions_of({"loss": "none"}, {"loss": "lce"})
    assert len(factorial(only_losses, ["loss"]).levels) == 2


def test_what_was_varied_together_with_a_factor_is_no_difference():
    zipped = [{"k": k, "rate": rate, "l": x} for k, rate in (("1", "x"), ("2", "y")) for x in "ab"]
    assert len(factorial(conditions_of(*zipped), ["k", "l"]).levels) == 4
    odd = [*zipped, {"k": "1", "rate": "y", "l": "a"}]  # now it does not follow from k
    assert len(factorial(conditions_of(*odd), ["k", "l"]).levels) == 3


def test_an_interaction_has_every_combination_that_was_run():
    settings = conditions_of(
        *FULL, {"k": "10", "l": "none", "t": "real"}, {"k": "10", "l": "a", "t": "shuffled"}
    )
    plot = data.interaction(settings, "k", "l", ["k", "l"])
    a, b, alone = plot.lines
    assert (a.label, a.mean, b.mean) == ("a", (1.0, 3.0), (2.0, 4.0))
    assert alone.mean[0] == 5.0 and np.isnan(alone.mean[1])
    assert "20 with none" in plot.note
    table = settings.values[:, :5]
    mean, half = data.within(table, settings.collections)
    assert a.high[0] - a.mean[0] == pytest.approx(half[0])


def test_means_of_an_interaction_are_over_the_same_other_settings():
    three = [{"k": k, "l": x, "m": m} for k in "12" for x in "ab" for m in "pq"]
    whole = data.interaction(conditions_of(*three), "k", "l", ["k", "l", "m"])
    values = np.arange(8.0).reshape(2, 2, 2).mean(axis=2) + 1  # k, l, averaged over m
    assert [line.mean for line in whole.lines] == [tuple(values[:, i]) for i in (0, 1)]
    lacking = data.interaction(conditions_of(*three[:-1]), "k", "l", ["k", "l", "m"])
    only_p = np.arange(8.0).reshape(2, 2, 2)[:, :, 0] + 1
    assert [line.mean for line in lacking.lines] == [tuple(only_p[:, i]) for i in (0, 1)]
    assert "1 of 2 settings of m" in lacking.note
    # none of the other settings has all combinations: the largest complete part
    scattered = [s for s in three if (s["m"], s["k"], s["l"]) not in (("p", "1", "a"),
                                                                     ("q", "2", "b"))]  # fmt: skip
    assert data.interaction(conditions_of(*scattered), "k", "l", ["k", "l", "m"]) is None
    assert data.interaction(conditions_of({"k": "1", "l": "a"}), "k", "l", ["k", "l"]) is None


def test_wins():
    row = data.wins([-0.2, 0.0, 0.1, 0.0])
    assert row.differences.tolist() == [0.1, 0.0, 0.0, -0.2]
    assert (row.wins, row.ties, row.losses) == (1, 2, 1)
    assert data.wins([]).losses == 0


def test_pareto():
    assert data.pareto([1, 2, 3, 2], [0.5, 0.6, 0.55, 0.6]).tolist() == [True, True, False, True]
    assert data.pareto([1, 1], [0.5, 0.6]).tolist() == [False, True]
    assert data.pareto([], []).tolist() == []


def test_mean_ranks_share_ties():
    assert data.mean_ranks([[0.3, 0.1, 0.3], [0.9, 0.5, 0.1]]).tolist() == [1.25, 2.5, 2.25]
    assert data.mean_ranks([[0.1 + 0.2, 0.3]]).tolist() == [1.5, 1.5]


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_the_published_quantiles(k, q):
    # Demšar (2006), table 5a
    quantile = data.critical_difference(k, 14) / math.sqrt(k * (k + 1) / (6 * 14))
    assert quantile == pytest.approx(q, abs=1e-3)
    assert data.critical_difference(k, 14, 0.01) > data.critical_difference(k, 14)


def test_critical_difference_of_nothing():
    with pytest.raises(ValueError, match="2 systems"):
        data.critical_difference(1, 10)


def test_bars_are_the_longest_runs():
    ranks = [3.0, 1.0, 2.0, 4.0]
    apart = np.zeros((4, 4), dtype=bool)
    apart[1, 3] = apart[3, 1] = True  # best and worst
    assert data.bars(ranks, apart) == [(1, 2, 0), (2, 0, 3)]
    assert data.bars(ranks, np.zeros((4, 4))) == [(1, 2, 0, 3)]
    assert data.bars(ranks, ~np.eye(4, dtype=bool)) == []
