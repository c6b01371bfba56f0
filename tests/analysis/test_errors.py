"""Which error the main table's tests rest on, and what they then claim."""

import numpy as np
import pytest
from scipy import stats

from analysis.claims import claim_note
from analysis.contrasts import run_tests
from analysis.render.csv import lines
from analysis.scores import Scores
from analysis.seeds import difference
from analysis.significance import bca_interval, correct, paired_t, wilcoxon
from analysis.spec import parse
from analysis.summary import summarise
from tests.analysis.test_summary import SPEC, example

PLACE = ("c", "m")
IDS = tuple(map(str, range(30)))
SEEDS = {"First": 1, "A": 3, "B": 2, "C": 1, "Mixed": 2}


def tables(seed=0, run_sd=0.05):
    generator = np.random.default_rng(seed)
    hard = generator.normal(0.5, 0.2, (30, 1))
    return {
        name: hard
        + generator.normal(0, 0.05, (30, 1))
        + generator.normal(0, run_sd if name != "First" else 0, count)
        + generator.normal(0, 0.05, (30, count))
        for name, count in SEEDS.items()
    }


def main_tests(values=None, healthy=tuple(SEEDS), partial=None, **changes):
    """The tests of such a table; `partial` cuts a row to some queries."""
    systems = {"First": "first_stage", "Mixed": "student+first_stage"}
    rows = [
        {"name": name, "system": systems.get(name, "student")}
        | ({"grid": name} if name != "First" else {})
        for name in SEEDS
    ]
    spec = parse(
        {"name": "x", "grid": dict.fromkeys(SEEDS, []), "measures": ["m"], "rows": rows,
         "baseline": "First", **changes}
    )  # fmt: skip
    scores = {}
    for name, table in (values or tables()).items():
        ids = partial or IDS if name == "First" else IDS
        own = table[: len(ids)]
        scores[name, *PLACE] = Scores(
            ids, own, () if name == "First" else tuple(range(own.shape[1]))
        )
    return run_tests(spec, [PLACE], scores, healthy)


def of(contrasts, treatment):
    return next(c for c in contrasts if c.treatment == treatment)


def test_the_main_table_rests_on_queries_and_runs():
    values = tables()
    first = values["First"]
    found = main_tests(values, comparisons=[["A", "B"], ["B", "Mixed"]], margin=0.2)
    # rows of the kind tell how far a run carries: A, B (and C, which has one run) for students
    for name, others in (("A", "B"), ("B", "A"), ("C", "AB"), ("Mixed", "")):
        test = of(found.against, name)
        expected = difference(
            values[name], first, trained=(True, False), others=[values[o] for o in others]
        )
        assert test.of_choice and test.error > expected.error_queries
        got = (test.comparison.p, test.comparison.low, test.comparison.high, test.error, test.df)
        assert got == pytest.approx(
            (expected.p, expected.low, expected.high, expected.error, expected.df)
        )
    # two one-sided tests on that error, each kind a family
    d, error, df = (
        np.array([value(t) for t in found.against])
        for value in (lambda t: t.comparison.difference, lambda t: t.error, lambda t: t.df)
    )
    no_worse, no_better = (stats.t.sf((0.2 + sign * d) / error, df) for sign in (1, -1))
    assert [t.p_non_inferiority for t in found.against] == pytest.approx(correct(no_worse)[0])
    assert [t.p_equivalence for t in found.against] == pytest.approx(
        correct(np.maximum(no_worse, no_better))[0]
    )
    pair = of(found.comparisons, "A")
    assert pair.comparison.p == pytest.approx(difference(values["A"], values["B"]).p)
    mixed = of(found.comparisons, "B")
    both = difference(values["B"], values["Mixed"], others=[values["A"]])
    assert mixed.comparison.p == pytest.approx(both.p)


def test_all_pairs_are_the_tests_of_two_rows():
    values = tables()
    found = main_tests(values, all_pairs=True, comparisons=[["A", "B"], ["B", "Mixed"], ["C", "A"]])
    pairs = found.pairs[PLACE]
    for contrast in (*found.against, *found.comparisons):
        i, j = (pairs.rows.index(name) for name in (contrast.treatment, contrast.baseline))
        assert pairs.p[i, j] == pairs.p[j, i] == pytest.approx(contrast.comparison.p)
        assert pairs.of_choice[i, j] == pairs.of_choice[j, i] == contrast.of_choice


def test_tests_over_queries_claim_the_models():
    values = tables()
    d = {name: values[name].mean(axis=1) - values["First"][:, 0] for name in SEEDS}
    for test in main_tests(values, test="wilcoxon", margin=0.1).against:
        assert not test.of_choice
        assert test.comparison.p == pytest.approx(float(wilcoxon(d[test.treatment])))
        plain = paired_t(d[test.treatment], np.zeros(30))
        assert (test.comparison.low, test.df) == (pytest.approx(plain.low), 29)
    alone = {name: table[:, :1] for name, table in values.items()}
    for test in main_tests(alone).against:
        plain = paired_t(alone[test.treatment][:, 0], alone["First"][:, 0])
        assert (test.comparison.p, test.of_choice) == (pytest.approx(plain.p), False)


def test_bootstrap_intervals_stay_over_queries():
    values = tables()
    test = of(main_tests(values, interval="bca").against, "A")
    low, high = bca_interval(values["A"].mean(axis=1) - values["First"][:, 0])
    assert (test.comparison.low, test.comparison.high) == pytest.approx((float(low), float(high)))
    assert test.of_choice and test.comparison.p == of(main_tests(values).against, "A").comparison.p


def test_runs_of_sick_rows_count_for_their_own_tests_only():
    values = tables()
    sick = [name for name in SEEDS if name != "A"]  # all but A are healthy
    found = main_tests(values, healthy=sick)
    alone = difference(values["B"], values["First"], trained=(True, False))
    assert of(found.against, "B").error == pytest.approx(alone.error)
    own = difference(values["A"], values["First"], trained=(True, False), others=[values["B"]])
    assert of(found.against, "A").error == pytest.approx(own.error)


def test_common_queries_only():
    values, part = tables(), IDS[:11]
    cut = {name: table[:11] for name, table in values.items()}
    test = of(main_tests(values, partial=part).against, "A")
    expected = difference(cut["A"], cut["First"], trained=(True, False), others=[cut["B"]])
    assert (test.comparison.n, test.comparison.p) == (11, pytest.approx(expected.p))


def test_one_query_allows_no_test():
    one = {name: table[:1] for name, table in tables().items()}
    spec = parse({"name": "x", "grid": {"A": []}, "measures": ["m"], "baseline": "F",
                  "rows": [{"name": "F", "system": "first_stage"},
                           {"name": "A", "grid": "A"}]})  # fmt: skip
    scores = {("F", *PLACE): Scores(("q",), one["First"], ()),
              ("A", *PLACE): Scores(("q",), one["A"], (1, 2, 3))}  # fmt: skip
    [test] = run_tests(spec, [PLACE], scores, {"A"}).against
    assert np.isnan(test.comparison.p) and not test.significant and not test.of_choice


def test_the_footer_says_what_is_claimed():
    of_choice = summarise(parse(SPEC), example())
    assert of_choice.contrasts["A", "c", "nDCG@10"].of_choice
    assert "about the choice" in claim_note(of_choice)
    assert {line.claim for line in lines(of_choice) if line.row == "A"} == {"choice"}
    over_queries = summarise(parse({**SPEC, "test": "randomisation"}), example())
    assert "about these models" in claim_note(over_queries)
    untrained = {**SPEC, "rows": SPEC["rows"][:3], "comparisons": []}
    assert claim_note(summarise(parse(untrained), example())) == ""
