import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from rdx.plan.command import report
from rdx.plan.evidence import assumption
from rdx.power import (
    ASSUMED_SD,
    Assumption,
    Design,
    pooled_run_sd,
    pooled_seed_sd,
    sensitivity,
    spread,
)

QUIET = Assumption(sd=0.1, seed_sd=0.0)


@pytest.mark.parametrize("n", [20, 43, 300])
@pytest.mark.parametrize("tests", [1, 14])
def test_equal_to_statsmodels_without_seeds(n, tests):
    reference = TTestPower()
    how = {"nobs": n, "alpha": 0.05 / tests}
    design = Design(n, 1, QUIET, tests=tests)
    assert design.detectable() == pytest.approx(
        0.1 * reference.solve_power(power=0.8, **how), rel=1e-5
    )
    for effect in (0.0, 0.02, 0.03):  # beyond that, statsmodels gives NaN for 300 queries
        assert float(Design(n, 1, QUIET, tests=tests).power(effect)) == pytest.approx(
            reference.power(effect / 0.1, **how), abs=1e-9
        )


@pytest.mark.parametrize(("n", "effect"), [(5, 0.34), (3, 0.05), (43, 0.05), (1000, 0.05)])
@pytest.mark.parametrize("tests", [1, 14])
def test_equal_to_the_integral(n, effect, tests):
    """P(|T| > c), given the sample's standard deviation a normal probability, integrated over it.

    Far out, the noncentral t distribution is NaN in scipy, and so are powers made of it.
    """
    df, centre = n - 1, effect / 0.1 * math.sqrt(n)
    critical = stats.t.isf(0.05 / tests / 2, df)

    def density(u):
        tails = stats.norm.sf(critical * u - centre) + stats.norm.cdf(-critical * u - centre)
        return tails * 2 * u * df * stats.chi2.pdf(u * u * df, df)

    expected = integrate.quad(density, 0, 8, points=[0.5, 0.9, 1, 1.1, 2], epsabs=1e-12)[0]
    assert float(Design(n, 1, QUIET, tests=tests).power(effect)) == pytest.approx(
        expected, abs=1e-7
    )


@pytest.mark.parametrize(
    ("n", "tests", "published"),
    [(43, 1, (0.034, 0.051)), (97, 1, (0.023, 0.034)),
     (43, 14, (0.046, 0.069)), (97, 14, (0.030, 0.046))],
)  # fmt: skip
def test_published_numbers_are_the_normal_approximation(n, tests, published):
    """SD .08 to .12; the t distribution asks for a little more than the normal one does."""
    z = stats.norm.isf(0.05 / tests / 2) + stats.norm.ppf(0.8)
    for sd, number in zip((0.08, 0.12), published, strict=True):
        assert z * sd / math.sqrt(n) == pytest.approx(number, abs=0.00051)
        exact = Design(n, 1, Assumption(sd, 0.0), tests=tests).detectable()
        assert 1.0 < exact / (z * sd / math.sqrt(n)) < 1.06


def test_seeds_enter_the_standard_error():
    known = Assumption(sd=0.1, seed_sd=0.02)
    design = Design(50, 3, known)
    by_hand = math.sqrt(0.01 / 50 + 2 * 0.0004 / 3)
    assert design.standard_error == pytest.approx(by_hand)
    one_trained = Design(50, 3, known, trained=1)
    assert one_trained.standard_error == pytest.approx(math.sqrt(0.01 / 50 + 0.0004 / 3))
    queries, runs = 0.01 / 50, 2 * 0.0004 / 3
    for own, runs_df in ((design, 4), (replace(design, runs_df=11.0), 11)):
        df = (queries + runs) ** 2 / (queries**2 / 49 + runs**2 / runs_df)
        critical, far = stats.t.isf(0.025, df), own.detectable() / by_hand
        assert stats.nct.sf(critical, df, far) == pytest.approx(0.8, abs=1e-4)
    untrained = Design(50, 3, known, trained=0)
    assert untrained.detectable() == pytest.approx(Design(50, 3, QUIET).detectable())


def test_power_of_what_is_detectable():
    for how in ({}, {"tests": 5}, {"alpha": 0.01}, {"trained": 1}):
        design = Design(30, 2, **how)
        assert float(design.power(design.detectable(0.9))) == pytest.approx(0.9)


def test_simulated_power():
    generator = np.random.default_rng(0)
    draws = generator.normal(0.04, 0.1, (4000, 43))
    significant = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert significant == pytest.approx(float(Design(43, 1, QUIET).power(0.04)), abs=0.025)


def test_power_grows():
    by_queries = [float(Design(n, 3).power(0.03)) for n in range(2, 400)]
    assert (np.diff(by_queries) > 0).all()
    by_seeds = [float(Design(100, s).power(0.03)) for s in (1, 2, 3, 10)]
    assert (np.diff(by_seeds) > 0).all()
    design = Design(43)
    assert design.power([0.01, 5.0, 50.0])[1:] == pytest.approx([1, 1])
    assert float(design.power(0.0)) == pytest.approx(0.05)
    assert float(design.power(-0.03)) == pytest.approx(float(design.power(0.03)))
    assert math.isnan(Design(1).power(0.03)) and math.isnan(Design(1).detectable())


def test_needed_is_the_least_that_suffices():
    known = Assumption(sd=0.1, seed_sd=0.005)
    n = Design(2, 3, known).queries_needed(0.03)
    assert Design(n, 3, known).power(0.03) >= 0.8 > Design(n - 1, 3, known).power(0.03)
    s = Design(2 * n, 1, known).seeds_needed(0.03)
    assert Design(2 * n, s, known).power(0.03) >= 0.8
    noisy = Assumption(sd=0.1, seed_sd=0.03)
    s = Design(200, 1, noisy).seeds_needed(0.03)
    assert s > 1
    assert Design(200, s, noisy).power(0.03) >= 0.8 > Design(200, s - 1, noisy).power(0.03)
    drowned = Design(2, 3, Assumption(0.1, 0.03))
    assert drowned.queries_needed(0.03) is None  # the runs alone drown it
    assert Design(20, 1, known).seeds_needed(0.03) is None  # and here the queries do
    assert Design(1, 1, known).seeds_needed(0.03) is None  # no test at all
    reference = TTestPower().solve_power(effect_size=0.3, power=0.8, alpha=0.05)
    assert Design(2, 1, QUIET).queries_needed(0.03) == math.ceil(reference)


def test_sensitivities():
    stored = Assumption(0.08, 0.004, "of the stored trials")
    design = Design(97, 3, stored, tests=14)
    a = sensitivity("a", Design(43, 3, tests=14), wanted=0.03)
    b = sensitivity("b", design, wanted=0.03)
    assert (a.design.assumption.sd, a.design.assumption.source) == (ASSUMED_SD, "assumed")
    assert b.detectable == pytest.approx(Design(97, 3, stored).detectable())
    assert b.detectable_holm == pytest.approx(design.detectable())
    assert b.power_of_wanted == pytest.approx(float(design.power(0.03)))
    assert b.seeds_needed == design.seeds_needed(0.03)
    assert b.queries_needed == design.queries_needed(0.03)
    assert sensitivity("a", Design(43, 3)).wanted is None
    lines = report([a, b], cost="About 3 GPU-hours.").splitlines()
    assert lines[0].split()[-7:] == ["power", "at", "0.03", "seeds", "needed", "queries", "needed"]
    assert lines[2].split()[:8] == ["b", "97", "3", "0.080", "0.0040", "14", f"{b.detectable:.3f}",
                                    f"{b.detectable_holm:.3f}"]  # fmt: skip
    assert lines[-1] == "About 3 GPU-hours."
    tiny = report([sensitivity("tiny", Design(1))]).splitlines()
    assert tiny[0].split()[-1] == "Holm" and tiny[1].split()[-2:] == ["–", "–"]


def test_spread():
    assert spread([0.1, 0.5, 0.3], [0.0, 0.1, 0.1]) == pytest.approx(
        np.std([0.1, 0.4, 0.2], ddof=1)
    )
    assert spread([0.1], [0.2]) == spread([], []) == spread([0.3, 1.0], [0.1 * 3, 1.0]) == 0.0


def test_pooled_run_sd():
    # run means .2 and .3, their sum of squares .005; rest ±.1, sum of squares .04 over two queries
    interacting = [[0.1, 0.4], [0.3, 0.2]]
    assert pooled_run_sd([interacting]) == (0.0, 1)  # .005 - .04 / 2 is below 0
    plain = [[0.1, 0.2, 0.6], [0.3, 0.4, 0.8]]  # means .2, .3, .7: no rest
    sd, df = pooled_run_sd([plain, [[0.5], [0.6]], [[0.1, 0.9]], []])
    assert (sd, df) == (pytest.approx(math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2)), 2)
    sd, df = pooled_run_sd([plain, interacting])
    assert (sd, df) == (pytest.approx(math.sqrt((0.14 + 0.005 - 0.02) / 3)), 3)
    assert pooled_run_sd([[[0.5], [0.6]]]) is None


def test_pooled_seed_sd():
    sd, df = pooled_seed_sd([[0.1, 0.3], [0.5], [0.2, 0.2, 0.5]])
    assert (df, sd) == (3, pytest.approx(math.sqrt((0.02 + 0.06) / 3)))
    assert pooled_seed_sd([[0.1], [0.2]]) is None and pooled_seed_sd([]) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Assumption(sd=0.0), "sd"),
        (lambda: Assumption(seed_sd=-1.0), "seed_sd"),
        (lambda: Design(43, 0), "seeds"),
        (lambda: Design(43, trained=3), "trained"),
        (lambda: Design(43, tests=0), "tests"),
        (lambda: Design(43).detectable(0.01), "power"),
        (lambda: Design(43, alpha=1.5), "alpha"),
        (lambda: sensitivity("a", Design(43), wanted=0.0), "wanted"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- standard deviations of stored trials ---


def test_assumption_by_hand():
    systems = {
        "a": {1: {"q1": 0.5, "q2": 0.7}, 2: {"q1": 0.7, "q2": 0.9}},
        "b": {1: {"q1": 0.5, "q2": 0.5, "q3": 1.0}},
        "c": {1: {"q1": 0.5, "q2": 0.4}},
    }
    known = assumption(systems)
    # differences of a - b (.1, .3), a - c (.1, .4) and b - c (0, .1)
    assert known.sd == pytest.approx(np.median([0.2, 0.3, 0.1]) / math.sqrt(2))
    assert known.seed_sd == pytest.approx(0.2 / math.sqrt(2))  # of .6 and .8, alike on both
    assert "median of 3 pairs" in known.source and "(1 df)" in known.source


def test_what_no_trial_tells_is_assumed():
    nothing = assumption({})
    assert (nothing.sd, nothing.seed_sd) == (Assumption().sd, Assumption().seed_sd)
    assert nothing.source == "over queries assumed, over seeds assumed"
    single = {"a": {1: {"q1": 0.5, "q2": 0.7}}}
    assert assumption(single) == nothing
    assert assumption({**single, "b": single["a"]}) == nothing  # they never differ
    assert assumption({**single, "b": {1: {"q9": 0.1}}}) == nothing  # no common query
