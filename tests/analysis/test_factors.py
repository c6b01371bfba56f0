import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.factors import analyse, marginal_means, omega_squared, simple_effects, tukey
from analysis.significance import paired_t

CELLS = [(a, b, c, s) for a in "xyz" for b in "12" for c in "uv" for s in range(2)]


def data(runs, queries=6, seed=0):
    generator = np.random.default_rng(seed)
    scores = generator.random((len(runs), queries)) + generator.normal(0, 1, queries)
    scores += np.array([0.3 * "xyz".index(a) + 0.2 * (b == "2") for a, b, *_ in runs])[:, None]
    levels = {f: [run[i] for run in runs] for i, f in enumerate("abc")}
    lines = [(*run[:3], q, scores[i, q]) for i, run in enumerate(runs) for q in range(queries)]
    return scores, levels, pd.DataFrame(lines, columns=["a", "b", "c", "q", "y"])


@pytest.mark.parametrize("type", [2, 3])
@pytest.mark.parametrize("dropped", [(), (0, 5, 6)], ids=["balanced", "unbalanced"])
def test_anova_equals_statsmodels(type, dropped):
    runs = [run for i, run in enumerate(CELLS) if i not in dropped]
    scores, levels, long = data(runs)
    grid = analyse(scores, levels, type=type)
    terms = [f"C({x}, Sum)" for x in "abc"]
    terms += [f"{terms[i]}:{terms[j]}" for i, j in ((0, 1), (0, 2), (1, 2))]
    reference = anova_lm(ols("y ~ C(q, Sum) + " + " + ".join(terms), long).fit(), typ=type)
    for effect, name in zip(grid.effects, [*terms, "C(q, Sum)"], strict=True):
        line = reference.loc[name]
        assert effect.df == line["df"]
        assert effect.sum_squares == pytest.approx(line["sum_sq"], rel=1e-9, abs=1e-12)
        assert (effect.f, effect.p) == pytest.approx((line["F"], line["PR(>F)"]), rel=1e-8)
    assert grid.rest_df == reference.loc["Residual", "df"]
    assert grid.rest * grid.rest_df == pytest.approx(reference.loc["Residual", "sum_sq"])


def test_types_agree_where_balanced_and_not_elsewhere():
    scores, levels, _ = data(CELLS)
    squares = [[e.sum_squares for e in analyse(scores, levels, type=t).effects] for t in (2, 3)]
    assert squares[0] == pytest.approx(squares[1])
    scores, levels, _ = data(CELLS[1:])
    squares = [[e.sum_squares for e in analyse(scores, levels, type=t).effects] for t in (2, 3)]
    assert squares[0] != pytest.approx(squares[1])


def test_balanced_two_by_two_by_hand():
    # runs (a, b): means .2 .4 .5 .9, the same on both queries but for ±.1, ∓.1 of the first run
    scores = np.array([[0.3, 0.1], [0.4, 0.4], [0.5, 0.5], [0.9, 0.9]])
    grid = analyse(scores, {"a": "0011", "b": "0101"})
    by_term = {effect.term: effect for effect in grid.effects}
    assert by_term["a",].sum_squares == pytest.approx(8 * 0.2**2)  # .3 and .7
    assert by_term["b",].sum_squares == pytest.approx(8 * 0.15**2)  # .35 and .65
    assert by_term["a", "b"].sum_squares == pytest.approx(8 * 0.05**2)
    assert by_term["query",].sum_squares == pytest.approx(8 * 0.025**2)
    assert grid.rest_df == 3
    assert grid.rest == pytest.approx((0.02 - 8 * 0.025**2) / 3)
    assert math.isnan(by_term["a",].p_runs)  # no cell was repeated
    assert marginal_means(grid, "a") == pytest.approx({"0": 0.3, "1": 0.7})
    main = analyse(scores, {"a": "0011", "b": "0101"}, order=1)
    assert [e.term for e in main.effects] == [("a",), ("b",), ("query",)]
    assert main.rest_df == 4


def test_two_levels_are_a_paired_t_test():
    generator = np.random.default_rng(1)
    scores = generator.random((2, 25)) + generator.random(25)
    grid = analyse(scores, {"loss": ["adr", "net"]})
    (pair,) = tukey(grid, "loss")
    test = paired_t(scores[0], scores[1])
    assert grid.effects[0].p == pytest.approx(test.p)
    assert pair.p == pytest.approx(test.p, rel=1e-4)
    assert (pair.difference, pair.low, pair.high) == pytest.approx(
        (test.difference, test.low, test.high), rel=1e-4
    )


def test_p_runs_is_the_anova_of_the_runs_means():
    runs = [run for run in CELLS if run[1:3] == ("1", "u")]
    scores, levels, _ = data(runs)
    effect = analyse(scores, {"a": levels["a"]}).effects[0]
    groups = [scores.mean(axis=1)[[a == x for x in levels["a"]]] for a in "xyz"]
    assert effect.p_runs == pytest.approx(stats.f_oneway(*groups).pvalue)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (3, 5, 2)])
def test_tukey_equals_scipy_on_one_query(sizes):
    # With one query nothing is blocked, and the runs are the plain observations of one factor.
    generator = np.random.default_rng(2)
    groups = [generator.normal(i, 1, size) for i, size in enumerate(sizes)]
    labels = np.repeat(["x", "y", "z"], sizes)
    grid = analyse(np.concatenate(groups)[:, None], {"a": labels})
    reference = stats.tukey_hsd(*groups)
    interval = reference.confidence_interval(0.9)
    for pair, (i, j) in zip(tukey(grid, "a", 0.9), [(0, 1), (0, 2), (1, 2)], strict=True):
        assert pair.difference == pytest.approx(reference.statistic[i, j])
        assert pair.p == pytest.approx(reference.pvalue[i, j], abs=1e-6)
        assert (pair.low, pair.high) == pytest.approx((interval.low[i, j], interval.high[i, j]))
    assert grid.effects[0].p == pytest.approx(stats.f_oneway(*groups).pvalue)


def test_marginal_means_weigh_combinations_alike():
    # a=y was run with b=2 only once, so its plain mean would lean to b=1
    scores = np.array([[0.1], [0.5], [0.2], [0.2], [0.6]])
    levels = {"a": "xxyyy", "b": "12112"}
    grid = analyse(scores, levels)
    assert marginal_means(grid, "a") == pytest.approx({"x": 0.3, "y": 0.4})
    assert marginal_means(grid, "b") == pytest.approx({"1": 0.15, "2": 0.55})


def test_empty_combinations():
    scores = np.random.default_rng(3).random((5, 8))
    levels = {"a": "xxyyz", "b": "12121"}  # z with 2 is missing
    grid = analyse(scores, levels)
    interaction = next(e for e in grid.effects if e.term == ("a", "b"))
    assert interaction.df == 1
    assert math.isnan(marginal_means(grid, "a")["z"]) and marginal_means(grid, "a")["x"] > 0
    assert math.isnan(tukey(grid, "a")[1].p) and tukey(grid, "a")[0].p <= 1
    assert marginal_means(analyse(scores, levels, order=1), "a")["z"] > 0
    with pytest.raises(ValueError, match="type 3 needs every combination"):
        analyse(scores, levels, type=3)


def test_simple_effects_add_up():
    # Main effect + interaction = the simple effects together, where balanced.
    runs = [run for run in CELLS if run[2] == "u"]
    scores, levels, _ = data(runs)
    grid = analyse(scores, {"a": levels["a"], "b": levels["b"]})
    by_term = {effect.term: effect for effect in grid.effects}
    simple = simple_effects(grid, "a", "b")
    assert list(simple) == ["1", "2"]
    total = by_term["a",].sum_squares + by_term["a", "b"].sum_squares
    assert sum(e.sum_squares for e in simple.values()) == pytest.approx(total)
    one = simple["1"]
    assert (one.df, one.f) == (2, pytest.approx(one.sum_squares / 2 / grid.rest))
    assert one.p == pytest.approx(stats.f.sf(one.f, 2, grid.rest_df))
    for factor, at, message in (("a", "a", "two factors"), ("a", "d", "'d' is not one")):
        with pytest.raises(ValueError, match=message):
            simple_effects(grid, factor, at)


def test_omega_squared():
    # Olejnik and Algina: (SS - df MS_rest) / (SS + (N - df) MS_rest), here with MS_rest = 1
    omega, low, high = omega_squared(4.0, 2, 57, 60)
    assert omega == pytest.approx((8 - 2) / (8 + 58))
    for end, share in ((low, 0.975), (high, 0.025)):
        noncentrality = end * 60 / (1 - end)
        assert stats.ncf.cdf(4.0, 2, 57, noncentrality) == pytest.approx(share)
    narrow = omega_squared(4.0, 2, 57, 60, confidence=0.5)
    assert low < narrow[1] < omega < narrow[2] < high
    weak = omega_squared(0.3, 2, 57, 60)
    assert weak[0] < 0 and weak[1] == 0.0
    assert omega_squared(0.001, 2, 57, 60)[2] == 0.0  # less than chance allows, at both ends
    assert 0 < omega_squared(4000.0, 2, 57, 60)[1] < 1


def test_null_factors_are_rejected_as_often_as_they_should():
    generator = np.random.default_rng(4)
    draws = 200
    rejected = sum(
        analyse(
            generator.normal(0, 1, (6, 10)) + generator.normal(0, 2, 10), {"a": "xxyyzz"}
        ).effects[0].p < 0.05
        for _ in range(draws)
    )  # fmt: skip
    low, high = stats.binom.interval(0.999, draws, 0.05)
    assert low <= rejected <= high


def test_nothing_to_test():
    flat = analyse(np.full((4, 3), 0.5), {"a": "xxyy"})
    assert math.isnan(flat.effects[0].p) and flat.effects[0].sum_squares == 0
    assert math.isnan(tukey(flat, "a")[0].p)
    saturated = analyse([[0.1], [0.2]], {"a": "xy"})  # one query, one run per level
    assert saturated.rest_df == 0 and math.isnan(saturated.effects[0].p)
    assert tukey(saturated, "a")[0].difference == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("scores", "levels", "how", "message"),
    [
        ([0.1, 0.2], {"a": "xy"}, {}, "shape"),
        ([[0.1], [math.nan]], {"a": "xy"}, {}, "finite"),
        ([[0.1], [0.2]], {}, {}, "needs a factor"),
        ([[0.1], [0.2]], {"a": "xyz"}, {}, "factor a: 3 labels for 2 runs"),
        ([[0.1], [0.2]], {"a": "xx"}, {}, "one level only: x"),
        ([[0.1], [0.2]], {"a": "xy"}, {"type": 1}, "2 or 3"),
        ([[0.1], [0.2]], {"a": "xy"}, {"order": 0}, "order"),
    ],
)
def test_bad_input(scores, levels, how, message):
    with pytest.raises(ValueError, match=message):
        analyse(scores, levels, **how)
