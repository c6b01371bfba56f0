from functools import partial

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from analysis.significance import paired_differences
from tests.analysis.checks import binomial, table
from tests.analysis.choice_rates import NULLS, choice_checks
from tests.analysis.error_rates import SD, checks, main, power, scores


def test_every_test_keeps_its_promise_over_a_thousand_draws():
    found = list(checks(draws=1000, queries=50, randomisations=999, seed=1))
    broken = [one for one in found if not one.kept]
    assert not broken, table(broken)
    assert len(found) >= 20


def test_claims_about_a_choice_keep_their_promises():
    found = list(choice_checks(draws=150, seed=2, nulls=NULLS[-1:]))
    broken = [one for one in found if not one.kept]
    assert not broken, table(broken)
    assert len(found) >= 20


@pytest.mark.slow
def test_claims_about_a_choice_keep_their_promises_over_many_draws():
    found = list(choice_checks(draws=1000, seed=7))
    broken = [one for one in found if not one.kept]
    assert not broken, table(broken)


@pytest.mark.slow
@pytest.mark.parametrize("queries", [50, 200])
def test_every_test_keeps_its_promise_over_many_draws(queries):
    found = list(checks(draws=4000, queries=queries))
    broken = [one for one in found if not one.kept]
    assert not broken, table(broken)


def test_the_generator_plants_what_it_says():
    generator = np.random.default_rng(0)
    d = paired_differences(*scores(generator, 200, 500, effect=0.04))
    assert d.mean() == pytest.approx(0.04, abs=0.001) and d.std() == pytest.approx(SD, rel=0.01)
    d = paired_differences(*scores(generator, 200, 500, effect=0.04, ties=0.6))
    assert d.mean() == pytest.approx(0.04, abs=0.003)
    assert (d == 0).mean() == pytest.approx(0.6, abs=0.01) and len(np.unique(d.round(9))) <= 91
    d = paired_differences(*scores(generator, 2000, 50, seed_sd=0.03))
    assert d.mean(axis=1).std() == pytest.approx(np.sqrt(SD**2 / 50 + 2 * 0.03**2), rel=0.05)
    with pytest.raises(ValueError, match="effect 0.5 is too large for 0.6 ties"):
        scores(generator, 1, 1, effect=0.5, ties=0.6)


def test_theory():
    expected = TTestPower().power(effect_size=0.4, nobs=50, alpha=0.05)
    assert power(50) == pytest.approx(expected)
    low, high = binomial(0.05, 1000)
    assert (low, high) == (0.029, 0.074)


def test_the_table_marks_a_broken_promise(capsys, monkeypatch):
    monkeypatch.setattr("tests.analysis.error_rates.t_test", lambda d: np.zeros(d.shape[:-1]))
    one_null = partial(choice_checks, nulls=NULLS[-1:])
    monkeypatch.setattr("tests.analysis.error_rates.choice_checks", one_null)
    assert main(["--draws", "20", "--queries", "10"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("| paired t | false positives | 1.0000 (!) |" in line for line in lines)
