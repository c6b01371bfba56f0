import math
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import optimize, stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import AnovaRM, anova_lm

from analysis.factors import analyse, marginal_means, simple_effects, tukey
from analysis.factors.design import added, block
from analysis.factors.studentised import beyond, critical
from analysis.seeds import difference
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
def test_sums_of_squares_equal_statsmodels(type, dropped):
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


def test_one_seed_equals_statsmodels_repeated_measures():
    """Queries are the subjects: F = effect / (subject x effect), and p where that has one df."""
    runs = [run for run in CELLS if run[2:] == ("u", 0)]
    scores, levels, long = data(runs, queries=9)
    grid = analyse(scores, {f: levels[f] for f in "ab"})
    reference = AnovaRM(long, "y", "q", within=["a", "b"]).fit().anova_table
    for effect, name in zip(grid.effects[:3], ["a", "b", "a:b"], strict=True):
        f, df, error_df, p = reference.loc[name]
        assert (effect.f, effect.df) == (pytest.approx(f), df)
        assert effect.error_df <= error_df + 1e-9  # less where contrasts do not vary alike
        if df == 1:
            assert (effect.error_df, effect.p) == (error_df, pytest.approx(p))
    assert not grid.of_choice


def test_the_error_by_hand():
    """F' of Clark (1973) in its form with a difference, and Satterthwaite's degrees of freedom."""
    runs = [run for run in CELLS if run[1:3] == ("1", "u") and run[0] in "xy"]  # two of x, two of y
    scores, levels, _ = data(runs)
    scores += np.array([0.0, 0.4, 0.1, 0.3])[:, None]
    grid = analyse(scores, {"a": levels["a"]})
    n, per_level = 6, scores.reshape(2, 2, 6)
    cells = per_level.mean(axis=1)
    own = cells - cells.mean(axis=1)[:, None] - cells.mean(axis=0) + cells.mean()
    crossed = 2 * (own**2).sum() / (n - 1)
    between = n * sum(table.mean(axis=1).var(ddof=1) for table in per_level) / 2
    rests = [t - t.mean(axis=1)[:, None] - t.mean(axis=0) + t.mean() for t in per_level]
    rest = sum((r**2).sum() for r in rests) / (2 * (n - 1))
    assert between > rest  # else the runs would not count
    error = crossed + between - rest
    df = error**2 / (crossed**2 / 5 + between**2 / 2 + rest**2 / 10)
    effect = grid.effects[0]
    squares = 2 * n * ((cells.mean(axis=1) - cells.mean()) ** 2).sum()
    assert (effect.sum_squares, effect.df) == (pytest.approx(squares), 1)
    assert (effect.error, effect.error_df) == pytest.approx((error, df))
    assert effect.p == pytest.approx(stats.f.sf(squares / error, 1, df))
    assert grid.of_choice
    quiet = per_level.copy()  # the runs of a level have one mean: they count as 0
    quiet -= (quiet.mean(axis=2) - quiet.mean(axis=(1, 2))[:, None])[:, :, None]
    effect = analyse(quiet.reshape(4, 6), {"a": levels["a"]}).effects[0]
    assert (effect.error, effect.error_df) == (pytest.approx(crossed), 5)


def test_two_levels_are_the_difference_with_runs_random():
    runs = [run for run in CELLS if run[1:3] == ("1", "u") and run[0] in "xy"]
    runs += [("y", "1", "u", 2)]
    scores, levels, _ = data(runs, queries=12, seed=3)
    scores += np.array([0.0, 0.3, 0.1, 0.4, 0.2])[:, None]
    effect = analyse(scores, {"a": levels["a"]}).effects[0]
    test = difference(scores[:2].T, scores[2:].T)
    assert test.error > test.error_queries
    assert (effect.p, effect.error_df) == pytest.approx((test.p, test.df))
    (pair,) = tukey(analyse(scores, {"a": levels["a"]}), "a")
    assert (pair.difference, pair.low, pair.high, pair.p) == pytest.approx(
        (test.difference, test.low, test.high, test.p), rel=1e-6
    )


def test_the_error_equals_a_mixed_model():
    """REML with queries, query x factor and runs random; equal where no estimate is negative."""
    generator = np.random.default_rng(8)
    n, runs = 15, [(a, s) for a in "xyz" for s in range(3)]
    own = {a: generator.normal(0, 0.2, n) for a in "xyz"}
    hard = generator.normal(0.5, 0.3, n)
    scores = np.stack(
        [hard + own[a] + generator.normal(0, 0.1) + generator.normal(0, 0.1, n) for a, _ in runs]
    )
    long = pd.DataFrame(
        [(a, f"{a}{s}", q, scores[i, q]) for i, (a, s) in enumerate(runs) for q in range(n)],
        columns=["a", "r", "q", "y"],
    )
    parts = {"q": "0 + C(q)", "qa": "0 + C(q):C(a)", "r": "0 + C(r)"}
    with warnings.catch_warnings(action="ignore"):
        model = smf.mixedlm("y ~ C(a)", long, groups=np.ones(len(long)), vc_formula=parts)
        fit = model.fit(reml=True)
    grid = analyse(scores, {"a": [a for a, _ in runs]})
    effect = grid.effects[0]
    # the variance of a difference of two levels is 2 / (3 seeds x n) of the error
    assert effect.error * 2 / (3 * n) == pytest.approx(float(fit.bse_fe.iloc[1]) ** 2, rel=2e-3)
    between, rest = grid.runs.squares
    assert rest == pytest.approx(fit.scale, rel=1e-3)
    assert (between - rest) / n == pytest.approx(fit.vcomp[2], rel=1e-2)


def test_sphericity():
    """Of contrasts of which one varies only, half the degrees of freedom are left; 1 if alike."""
    generator = np.random.default_rng(9)
    one = generator.normal(0, 1, 400)
    levels = {"a": "xyz"}
    alike = analyse(generator.normal(0, 1, (3, 400)), levels).effects[0]
    assert alike.sphericity == pytest.approx(1, abs=0.02)
    effect = analyse([one, np.zeros(400), np.zeros(400)], levels).effects[0]
    assert effect.sphericity == pytest.approx(0.5)
    assert (effect.error_df, effect.df) == (pytest.approx(399), 2)
    # and that is the t-test of that contrast
    assert effect.p == pytest.approx(stats.ttest_1samp(one, 0).pvalue)


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
    # every contrast of the runs has (±.1, ∓.1) / 2 on the two queries: mean square .02 / 4
    assert [by_term[t].error for t in (("a",), ("b",), ("a", "b"))] == pytest.approx([0.005] * 3)
    assert by_term["a",].f == pytest.approx(0.32 / 0.005) and by_term["a",].error_df == 1
    assert not grid.of_choice  # no cell was repeated
    assert marginal_means(grid, "a") == pytest.approx({"0": 0.3, "1": 0.7})
    main = analyse(scores, {"a": "0011", "b": "0101"}, order=1)
    assert [e.term for e in main.effects] == [("a",), ("b",), ("query",)]


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


@pytest.mark.parametrize(("means", "df"), [(2, 2.0), (3, 4.4), (3, 49.0), (7, 12.0)])
def test_studentised_range_equals_scipy(means, df):
    reference = stats.studentized_range
    for far in (0.3, 2.0, 5.0):
        assert beyond(far, means, df) == pytest.approx(reference.sf(far, means, df), abs=1e-7)
    assert critical(0.95, means, df) == pytest.approx(reference.ppf(0.95, means, df), rel=1e-6)


def test_tukey_by_hand():
    """Each pair has its own paired error; corrected by the studentised range of three means."""
    scores = np.random.default_rng(2).random((3, 12))
    for pair, (i, j) in zip(
        tukey(analyse(scores, {"a": "xyz"}), "a", 0.9), [(0, 1), (0, 2), (1, 2)], strict=True
    ):
        d = scores[i] - scores[j]
        error = d.std(ddof=1) / math.sqrt(12)
        assert pair.difference == pytest.approx(d.mean())
        p = stats.studentized_range.sf(abs(d.mean()) / error * math.sqrt(2), 3, 11)
        assert pair.p == pytest.approx(p, abs=1e-8)
        half = stats.studentized_range.ppf(0.9, 3, 11) * error / math.sqrt(2)
        assert (pair.low, pair.high) == pytest.approx((d.mean() - half, d.mean() + half))


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
    # at one level: the error over queries is of the runs there, the runs are of the whole grid
    here = [i for i, b in enumerate(levels["b"]) if b == "1"]
    alone = analyse(scores[here], {"a": [levels["a"][i] for i in here]}).effects[0]
    between, rest = grid.runs.squares
    [own] = [e for e in (simple["1"],) if e.df == 2]
    z = added(block({"a": tuple(levels["a"][i] for i in here)}, ("a",)), ()).T @ scores[here]
    crossed = z.var(axis=1, ddof=1).mean()
    assert own.sum_squares == pytest.approx(alone.sum_squares)
    assert own.error == pytest.approx(crossed + max(0.0, float(between - rest)))
    assert own.p == pytest.approx(stats.f.sf(own.f, 2 * own.sphericity, own.error_df))
    for factor, at, message in (("a", "a", "two factors"), ("a", "d", "'d' is not one")):
        with pytest.raises(ValueError, match=message):
            simple_effects(grid, factor, at)


def steiger(f, df, rest_df, observations, share):
    """Noncentrality l with the share of F below the observed one, as l / (l + N)."""
    value = optimize.brentq(lambda nc: stats.ncf.cdf(f, df, rest_df, nc) - share, 0, 1e4)
    return value / (value + observations)


def test_omega_squared_of_one_error_is_steigers():
    generator = np.random.default_rng(3)
    scores = generator.normal(0, 0.1, (3, 40)) + np.array([[0.0], [0.05], [0.1]])
    grid = analyse(scores, {"a": "xyz"})
    effect = grid.effects[0]
    # Olejnik and Algina: (SS - df MS_error) / (SS + (N - df) MS_error), by F
    gain = 2 * (effect.f - 1)
    assert effect.omega == pytest.approx(gain / (gain + 120))
    assert effect.sphericity == 1.0
    low, high = (steiger(effect.f, 2, 78, 120, share) for share in (0.975, 0.025))
    assert (effect.low, effect.high) == pytest.approx((low, high), abs=2e-3)
    narrow = analyse(scores, {"a": "xyz"}, confidence=0.5).effects[0]
    assert effect.low < narrow.low < effect.omega < narrow.high < effect.high
    assert math.isnan(analyse(scores, {"a": "xyz"}, confidence=None).effects[0].low)


def test_omega_squared_of_nothing_and_of_everything():
    generator = np.random.default_rng(4)
    noise = generator.normal(0, 0.1, (3, 40))
    same = noise - noise.mean(axis=1)[:, None]
    weak = analyse(same + generator.normal(0, 1e-4, (3, 1)), {"a": "xyz"}).effects[0]
    assert weak.omega < 0 and weak.low == weak.high == 0.0  # less than chance, at both ends
    strong = analyse(same + np.array([[0.0], [9.0], [18.0]]), {"a": "xyz"}).effects[0]
    assert 0.99 < strong.low < strong.omega < strong.high < 1


def test_omega_squared_does_not_depend_on_how_much_was_run():
    """Planted: effect variance .0004 of .0004 + .01 (query x level) + .0001 (runs) + .0025."""
    generator = np.random.default_rng(5)
    truth = 0.0004 / (0.0004 + 0.01 + 0.0001 + 0.0025)
    for n, seeds in ((100, 2), (1000, 6)):
        estimates = []
        for _ in range(60):
            own = generator.normal(0, 0.1, (2, 1, n)) + np.array([-0.02, 0.02])[:, None, None]
            own = own + generator.normal(0, 0.01, (2, seeds, 1))
            scores = (own + generator.normal(0, 0.05, (2, seeds, n))).reshape(2 * seeds, n)
            levels = {"a": np.repeat(["x", "y"], seeds)}
            estimates.append(analyse(scores, levels, confidence=None).effects[0].omega)
        assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / 60**0.5)


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
    assert math.isnan(saturated.effects[0].p) and math.isnan(tukey(saturated, "a")[0].p)


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
