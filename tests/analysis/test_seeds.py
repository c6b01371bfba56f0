import math
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.regression.mixed_linear_model import MixedLM

from analysis.seeds import components, difference
from analysis.significance import paired_t


def system(generator, queries, runs, effect=0.0, hard=None, run_sd=0.05, rest_sd=0.05):
    """Scores [queries, runs] of one system, with the queries' difficulty shared."""
    hard = np.zeros(queries) if hard is None else hard
    own = hard + effect + generator.normal(0, 0.1, queries)
    return (
        own[:, None]
        + generator.normal(0, run_sd, runs)[None, :]
        + generator.normal(0, rest_sd, (queries, runs))
    )


def pair(seed, queries=12, runs=(3, 3), **how):
    generator = np.random.default_rng(seed)
    hard = generator.normal(0.5, 0.2, queries)
    return [
        system(generator, queries, s, e, hard, **how) for s, e in zip(runs, (0.05, 0), strict=True)
    ]


def test_components_by_hand():
    # rows .15 .45 .9, columns .4 .6, mean .5; rest ±.05, ±.05, ∓.1
    got = components([[0.1, 0.2], [0.4, 0.5], [0.7, 1.1]])
    rows = 2 * (0.35**2 + 0.05**2 + 0.4**2) / 2
    columns = 3 * (0.1**2 + 0.1**2) / 1
    rest = (4 * 0.05**2 + 2 * 0.1**2) / 2
    assert got.query == pytest.approx((rows - rest) / 2)
    assert got.run == pytest.approx((columns - rest) / 3)
    assert got.rest == pytest.approx(rest)
    assert got.seed_sd == pytest.approx(math.sqrt(0.02))
    assert got.seed_sd**2 == pytest.approx(got.run + got.rest / 3)
    assert (got.queries, got.runs, got.truncated) == (3, 2, ())


def test_components_equal_reml_on_balanced_data():
    table = pair(0)[0]
    long = pd.DataFrame(
        [(q, s, table[q, s]) for q in range(12) for s in range(3)], columns=["q", "s", "y"]
    )
    parts = {"query": "0 + C(q)", "run": "0 + C(s)"}
    with warnings.catch_warnings(action="ignore"):
        fit = smf.mixedlm("y ~ 1", long, groups=np.ones(len(long)), vc_formula=parts).fit()
    got = components(table)
    assert not got.truncated
    assert [got.query, got.run, got.rest] == pytest.approx([*fit.vcomp, fit.scale], rel=1e-3)


def test_components_are_right_on_average():
    generator = np.random.default_rng(1)
    found = [
        components(system(generator, 30, 4, hard=generator.normal(0, 0.2, 30))) for _ in range(400)
    ]
    assert np.mean([f.query for f in found]) == pytest.approx(0.05, rel=0.05)  # .2² + .1²
    assert np.mean([f.rest for f in found]) == pytest.approx(0.0025, rel=0.03)
    assert np.mean([f.run for f in found]) == pytest.approx(0.0025, rel=0.15)


def test_negative_components_are_truncated_and_named():
    # Both runs have the same mean, so nothing is left for the runs once the rest is taken out.
    got = components([[0.1, 0.3], [0.5, 0.3], [0.9, 0.9]])
    assert (got.run, got.truncated, got.seed_sd) == (0.0, ("run",), pytest.approx(0, abs=1e-15))
    flat = components([[0.2, 0.2], [0.2, 0.2]])
    assert (flat.query, flat.run, flat.rest, flat.truncated) == (0, 0, 0, ())


def test_components_of_one_run_and_of_one_query():
    one = components([[0.1], [0.3]])
    assert one.query == pytest.approx(0.02)
    assert all(math.isnan(x) for x in (one.run, one.rest, one.seed_sd))
    single = components([[0.1, 0.3]])
    assert single.seed_sd == pytest.approx(math.sqrt(0.02))
    assert all(math.isnan(x) for x in (single.query, single.run, single.rest))


def test_difference_by_hand():
    a, b = pair(2)
    got = difference(a, b)
    n, s = a.shape
    per_query = (a - b).mean(axis=1)
    parts = [components(t) for t in (a, b)]
    run = sum(p.seed_sd**2 - p.rest / n for p in parts) / 2  # no truncation: run ≥ 0 on average
    assert run > 0
    assert got.difference == pytest.approx(per_query.mean())
    assert got.error**2 == pytest.approx(per_query.var(ddof=1) / n + run * 2 / s)
    assert got.error_queries == pytest.approx(per_query.std(ddof=1) / math.sqrt(n))
    assert (got.runs, got.method, got.message) == ((3, 3), "anova", "")
    assert 2 < got.df < 15  # between that of the runs and of the queries and runs together
    wide = difference(a, b, confidence=0.99)
    assert wide.low < got.low < got.difference < got.high < wide.high
    swapped = difference(b, a)
    assert (swapped.difference, swapped.p) == pytest.approx((-got.difference, got.p))


@pytest.mark.parametrize("runs", [(3, 3), (2, 4), (3, 1)])
def test_difference_equals_mixed_model(runs):
    a, b = pair(0, runs=runs, run_sd=0.1)
    by_squares, by_reml = difference(a, b), difference(a, b, method="reml")
    assert by_reml.method == "reml" and by_squares.method == "anova"
    assert by_reml.error > 1.2 * by_reml.error_queries  # runs do matter here
    # Exactly equal where both sides have as many runs; REML weighs unequal ones a little otherwise.
    tolerance = 1e-3 if runs[0] == runs[1] else 1e-2
    assert by_reml.error == pytest.approx(by_squares.error, rel=tolerance)
    assert by_reml.difference == by_squares.difference


def test_no_convergence_falls_back_and_says_so(monkeypatch):
    a, b = pair(0)
    fit = MixedLM.fit
    monkeypatch.setattr(MixedLM, "fit", lambda self, **how: fit(self, maxiter=0, **how))
    got = difference(a, b, method="reml")
    assert got.method == "anova" and "did not converge" in got.message
    assert got.error == difference(a, b).error

    def singular(self, **how):
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(MixedLM, "fit", singular)
    assert "did not converge" in difference(a, b, method="reml").message


def test_single_runs():
    a, b = pair(3)
    one = difference(a[:, :1], b[:, :1])
    plain = paired_t(a[:, 0], b[:, 0])
    assert (one.p, one.low, one.high) == pytest.approx((plain.p, plain.low, plain.high))
    assert one.method == "queries only" and "one training run" in one.message
    lent = difference(a, b[:, :1])
    assert "one training run on one side" in lent.message
    assert lent.error > difference(a, b[:, :1], trained=(True, False)).error


def test_a_side_that_is_not_trained_has_no_variance_of_runs():
    a, b = pair(4)
    got = difference(a, b[:, :1], trained=(True, False))
    spread = a.mean(axis=1) - b[:, 0]
    parts = components(a)
    assert got.runs == (3, 0) and got.message == ""
    expected = spread.var(ddof=1) / 12 + (parts.seed_sd**2 - parts.rest / 12) / 3
    assert got.error**2 == pytest.approx(expected)
    none = difference(a[:, :1], b[:, :1], trained=(False, False))
    assert (none.method, none.message, none.runs) == ("queries only", "", (0, 0))


def test_other_systems_help_to_estimate_the_variance_of_runs():
    a, b = pair(5, run_sd=0.1)
    more = [*pair(6, run_sd=0.1), a[:, :1]]
    got, alone = difference(a, b, others=more), difference(a, b)
    n, s = a.shape
    parts = [components(t) for t in (a, b, *more[:2])]
    run = sum(p.seed_sd**2 - p.rest / n for p in parts) / 4
    assert got.error**2 == pytest.approx(got.error_queries**2 + run * 2 / s)
    assert got.df > alone.df
    single = difference(a[:, :1], b[:, :1], others=more)
    assert single.runs == (1, 1) and "other systems" in single.message
    assert single.error > single.error_queries
    fixed = difference(a[:, :1], b[:, :1], trained=(False, False), others=more)
    assert fixed.error == fixed.error_queries


def test_runs_that_do_not_differ_give_the_paired_test():
    generator = np.random.default_rng(5)
    base = generator.random(20)
    noise = generator.normal(0, 0.05, 20)
    a = np.column_stack([base + noise, base - noise])
    a -= a.mean(axis=0) - a.mean()  # both runs have the same mean
    got = difference(a, base[::-1, None], trained=(True, False))
    plain = paired_t(a.mean(axis=1), base[::-1])
    assert (got.p, got.df) == (pytest.approx(plain.p), 19)
    assert "taken as 0" in got.message
    close = a + [0.001, -0.001]  # they differ by less than the rest alone would make them
    assert "taken as 0" in difference(close, base[::-1, None], trained=(True, False)).message
    same = difference(a, a)
    assert (same.difference, same.p) == (0.0, 1.0)


def test_false_positives_with_both_factors_random():
    """With no effect the paired test rejects far too often, this one about as often as it says."""
    generator = np.random.default_rng(6)
    draws, ours, paired = 600, 0, 0
    for _ in range(draws):
        hard = generator.normal(0.5, 0.2, 40)
        a, b = (system(generator, 40, 3, hard=hard, run_sd=0.05) for _ in range(2))
        ours += difference(a, b).p < 0.05
        paired += paired_t(a.mean(axis=1), b.mean(axis=1)).p < 0.05
    assert paired / draws > 0.15
    assert ours / draws < 0.075


@pytest.mark.parametrize(
    ("a", "b", "how", "message"),
    [
        ([0.1, 0.2], [[0.1], [0.2]], {}, "shape"),
        ([[0.1], [math.nan]], [[0.1], [0.2]], {}, "finite"),
        ([[0.1], [0.2]], [[0.1]], {}, "shape"),
        ([[0.1, 0.2]], [[0.1]], {"trained": (False, True)}, "one column"),
        ([[0.1]], [[0.1]], {"method": "ml"}, "anova, reml"),
        ([[0.1]], [[0.1]], {"others": [[[0.1, 0.2], [0.3, 0.4]]]}, "same queries"),
        ([[0.1]], [[0.1]], {"others": [[[0.1]]], "method": "reml"}, "leave out others"),
    ],
)
def test_bad_input(a, b, how, message):
    with pytest.raises(ValueError, match=message):
        difference(a, b, **how)
    with pytest.raises(ValueError, match="shape"):
        components(np.empty((0, 2)))
