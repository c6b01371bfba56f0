import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from analysis.significance import (
    all_pairs,
    bca_interval,
    cohens_dz,
    compact_letters,
    compare,
    correct,
    equivalence,
    non_inferiority,
    paired_differences,
    paired_t,
    randomisation,
    t_interval,
    t_test,
    wilcoxon,
)


def test_paired_t_by_hand():
    # differences 1, 2, 3, 4: mean 2.5, sd sqrt(5/3), se = sd/2, t = 2.5/se = 3.8730
    got = paired_t([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    sd = math.sqrt(5 / 3)
    t = 2.5 / (sd / 2)
    critical = 3.182446305284263  # t(.975, 3 df), from a printed table
    assert got.n == 4
    assert got.difference == pytest.approx(2.5)
    assert got.d_z == pytest.approx(2.5 / sd)
    assert got.p == pytest.approx(2 * stats.t.sf(t, 3))
    assert got.low == pytest.approx(2.5 - critical * sd / 2)
    assert got.high == pytest.approx(2.5 + critical * sd / 2)


def test_paired_t_equals_scipy_and_is_antisymmetric():
    generator = np.random.default_rng(0)
    a, b = generator.random(300), generator.random(300)
    reference = stats.ttest_rel(a, b)
    got, reverse = paired_t(a, b), paired_t(b, a)
    assert got.p == pytest.approx(reference.pvalue, rel=1e-12)
    interval = reference.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert reverse.difference == pytest.approx(-got.difference)
    assert (reverse.low, reverse.high) == pytest.approx((-got.high, -got.low))
    assert (reverse.p, reverse.d_z) == pytest.approx((got.p, -got.d_z))
    wide = paired_t(a, b, confidence=0.99)
    assert wide.high - wide.low > got.high - got.low


def test_interval_and_p_agree_at_the_edge_of_significance():
    generator = np.random.default_rng(1)
    for _ in range(200):
        got = paired_t(generator.normal(0.2, 1.0, 40), np.zeros(40))
        assert (got.p < 0.05) == (not got.low <= 0.0 <= got.high)


def test_degenerate_inputs():
    same = paired_t([0.3, 0.4], [0.3, 0.4])
    assert (same.difference, same.low, same.high, same.p, same.d_z) == (0, 0, 0, 1, 0)
    shifted = paired_t([0.2, 0.3, 0.4], [0.1, 0.2, 0.3])
    assert (shifted.p, shifted.d_z) == (0.0, math.inf)
    assert shifted.low == shifted.high == pytest.approx(0.1)
    assert paired_t([0.1, 0.2], [0.2, 0.3]).d_z == -math.inf
    one = paired_t([0.5], [0.4])
    assert (one.n, one.difference) == (1, pytest.approx(0.1))
    assert all(math.isnan(x) for x in (one.low, one.high, one.p, one.d_z))
    none = paired_t([], [])
    assert none.n == 0 and math.isnan(none.difference) and math.isnan(none.p)


def test_last_bits_are_no_difference():
    # The mean of three equal numbers need not be that number: 0.1 + 0.1 + 0.1 != 0.3.
    values = np.random.default_rng(2).random(50)
    means = (values + values + values) / 3
    assert (means != values).any()
    assert paired_t(means, values).p == 1.0
    assert not paired_differences(means, values).any()


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, 2.0], [1.0]), ([[1.0]], [[1.0]]), ([1.0, math.nan], [1.0, 2.0]), ([math.inf], [1.0])],
)
def test_bad_pairs_are_errors(a, b):
    with pytest.raises(ValueError):
        paired_t(a, b)


@pytest.mark.parametrize(
    ("method", "expected"),
    [  # sorted .005 .01 .03 .04
        ("holm", [0.03, 0.06, 0.06, 0.02]),  # times 4 3 2 1 = .02 .03 .06 .04, running maximum
        ("hochberg", [0.03, 0.04, 0.04, 0.02]),  # the same, running minimum from the right
        ("bh", [0.02, 0.04, 0.04, 0.02]),  # times 4/1 4/2 4/3 4/4, running minimum from the right
    ],
)
def test_corrections_by_hand(method, expected):
    adjusted, reject = correct([0.01, 0.04, 0.03, 0.005], method, alpha=0.05)
    assert adjusted == pytest.approx(expected)
    assert reject.tolist() == [p <= 0.05 for p in expected]


def test_holm_leaves_missing_tests_out_of_the_family():
    p = [0.02, math.nan, 0.03, math.nan]
    adjusted, reject = correct(p)
    assert adjusted[[0, 2]] == pytest.approx(multipletests([0.02, 0.03], method="holm")[1])
    assert np.isnan(adjusted[[1, 3]]).all()
    assert reject.tolist() == [True, False, True, False]
    assert np.isnan(correct([math.nan])[0]).all()
    assert correct([])[0].shape == (0,)


def test_holm_properties():
    generator = np.random.default_rng(3)
    for _ in range(10):
        p = generator.random(12) ** 3
        adjusted, reject = correct(p, alpha=0.1)
        order = np.argsort(p)
        assert (adjusted >= p).all() and (adjusted <= 1).all()
        assert (np.diff(adjusted[order]) >= 0).all()
        assert (reject == (adjusted <= 0.1)).all()
        assert (adjusted <= np.minimum(1, p * 12) + 1e-15).all()  # never beyond Bonferroni


@pytest.mark.parametrize("p", [[1.5], [-0.1], [[0.1]]])
def test_holm_rejects_what_is_no_p_value(p):
    with pytest.raises(ValueError):
        correct(p)


# --- other tests and intervals ---


def draws(m, n, seed=0, effect=0.1, step=0.0):
    d = np.random.default_rng(seed).normal(effect, 0.3, (m, n))
    return np.round(d / step) * step if step else d


def test_one_row_is_what_it_is_among_many():
    d = draws(7, 60, step=0.1)
    one_each = (t_test, wilcoxon, randomisation, cohens_dz)
    for test in one_each:
        assert test(d) == pytest.approx([float(test(row)) for row in d], rel=1e-12)
    for interval in (t_interval, bca_interval):
        many = np.array(interval(d))
        assert many == pytest.approx(np.array([interval(row) for row in d]).T, rel=1e-9)
    for test in (equivalence, non_inferiority):
        assert test(d, 0.1) == pytest.approx([float(test(row, 0.1)) for row in d])


def test_t_equals_scipy_in_every_row():
    d = draws(9, 33)
    expected = stats.ttest_1samp(d, 0.0, axis=1)
    assert t_test(d) == pytest.approx(expected.pvalue, rel=1e-12)
    interval = expected.confidence_interval(0.9)
    low, high = t_interval(d, 0.9)
    assert (low, high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@pytest.mark.parametrize("n", [5, 20, 50])
def test_wilcoxon_is_exact_for_few_queries(n):
    d = draws(5, n)  # no ties: scipy counts them out as well
    expected = [stats.wilcoxon(row, method="exact").pvalue for row in d]
    assert wilcoxon(d) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "step"), [(51, 0.0), (200, 0.0), (200, 0.1), (80, 0.3)])
def test_wilcoxon_of_many_queries_is_scipys_approximation(n, step):
    d = draws(5, n, step=step)
    d = d[(d != 0).sum(axis=1) > 50]
    assert len(d)
    expected = [stats.wilcoxon(row, method="asymptotic", correction=False).pvalue for row in d]
    assert wilcoxon(d) == pytest.approx(expected, rel=1e-9)


def every_sign(d):
    return np.array(list(itertools.product([1.0, -1.0], repeat=len(d)))) * d


def test_wilcoxon_with_ties_equals_every_assignment_of_signs():
    d = np.array([0.1, 0.1, -0.1, 0.2, 0.2, -0.3, 0.0, 0.4])
    nonzero = d[d != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    sums = every_sign(ranks).sum(axis=1)
    observed = (np.sign(nonzero) * ranks).sum()
    assert float(wilcoxon(d)) == pytest.approx(np.mean(np.abs(sums) >= abs(observed) - 1e-9))


def test_randomisation_counts_every_assignment_where_there_are_few():
    d = np.array([0.1, 0.1, -0.1, 0.2, 0.25, -0.3, 0.0, 0.4])
    sums = every_sign(d).sum(axis=1)
    expected = np.mean(np.abs(sums) >= abs(d.sum()) - 1e-9)
    assert float(randomisation(d)) == pytest.approx(expected)
    assert float(randomisation(d, randomisations=256)) == pytest.approx(expected)
    sampled = float(randomisation(d, randomisations=255))
    assert sampled != expected and sampled == pytest.approx(expected, abs=0.1)


def test_randomisation_agrees_with_scipy_and_is_never_zero():
    d = draws(1, 40, effect=0.08)[0]
    ours = float(randomisation(d, randomisations=100_000))
    theirs = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=100_000, rng=1
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.004)
    sure = randomisation(np.full(30, 0.5), randomisations=999)
    assert float(sure) == 1 / 1000
    p = float(randomisation(d, randomisations=999))
    assert p == float(randomisation(d, randomisations=999)) == round(p * 1000) / 1000
    assert p != float(randomisation(d, randomisations=999, seed=1))
    with pytest.raises(ValueError, match="at least 1"):
        randomisation(d, randomisations=0)


def test_blocks_change_nothing(monkeypatch):
    d = draws(3, 40)
    before = bca_interval(d, resamples=500), randomisation(d, randomisations=500)
    few = randomisation(d[:, :7])
    monkeypatch.setattr("analysis.significance.resampling.BLOCK", 1000)
    monkeypatch.setattr("analysis.significance.resampling.MOST_ROWS", 2)
    assert randomisation(d[:, :7]) == pytest.approx(few)
    after = bca_interval(d, resamples=500), randomisation(d, randomisations=500)
    assert np.array(after[0]) == pytest.approx(np.array(before[0]))
    assert after[1] == pytest.approx(before[1])


@pytest.mark.parametrize(("n", "step"), [(12, 0.0), (60, 0.0), (60, 0.25)])
def test_bca_equals_scipy_with_the_same_seed(n, step):
    d = np.random.default_rng(n).exponential(0.3, n) - 0.2
    d = np.round(d / step) * step if step else d
    expected = stats.bootstrap(
        (d,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    low, high = bca_interval(d, resamples=2000, seed=5)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), rel=1e-9)
    wide = bca_interval(d, 0.99, resamples=2000, seed=5)
    assert wide[0] < low and wide[1] > high


@pytest.mark.parametrize("margin", [0.02, 0.1, 0.3])
def test_tost_equals_statsmodels(margin):
    generator = np.random.default_rng(4)
    a, b = generator.random(60), generator.random(60)
    p, lower, _ = ttost_paired(a, b, -margin, margin)
    d = paired_differences(a, b)
    assert float(equivalence(d, margin)) == pytest.approx(p)
    assert float(non_inferiority(d, margin)) == pytest.approx(lower[1])
    low, high = t_interval(d, 0.90)  # the interval that belongs to alpha = .05
    assert (float(equivalence(d, margin)) < 0.05) == (-margin < low and high < margin)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_is_above_zero(margin):
    with pytest.raises(ValueError, match="margin must be above 0"):
        equivalence([0.1, 0.2], margin)


def test_edges_of_every_test():
    with_p = (t_test, wilcoxon, randomisation)
    for test in with_p:
        assert math.isnan(test([]))
        assert float(test(np.zeros(30))) == 1.0
        assert test(np.zeros((0, 5))).shape == (0,)
        with pytest.raises(ValueError, match=r"shape \[n\] or \[m, n\]"):
            test(1.0)
    assert math.isnan(t_test([0.3])) and float(wilcoxon([0.3])) == float(randomisation([0.3])) == 1
    for interval in (t_interval, bca_interval):
        assert np.isnan(interval([0.3])).all() and np.isnan(interval([])).all()
        assert np.array(interval(np.full(9, 0.2))) == pytest.approx([0.2, 0.2])
    assert math.isnan(equivalence([0.3], 0.1))
    assert float(equivalence(np.zeros(9), 0.1)) == 0.0
    assert float(equivalence(np.full(9, 0.2), 0.1)) == 1.0
    assert float(non_inferiority(np.full(9, 0.2), 0.1)) == 0.0


def test_compare_uses_the_test_and_the_interval_of_choice():
    d = draws(3, 40, step=0.1)
    for test, function in (("t", t_test), ("wilcoxon", wilcoxon), ("randomisation", randomisation)):
        assert [one.p for one in compare(d, test)] == function(d).tolist()
    for interval, ends in (("t", t_interval), ("bca", bca_interval)):
        found = compare(d, interval=interval, confidence=0.9)
        assert [(one.low, one.high) for one in found] == list(zip(*ends(d, 0.9), strict=True))
    with pytest.raises(ValueError, match="test 'z' is not one of: t, wilcoxon, randomisation"):
        compare(d, "z")
    with pytest.raises(ValueError, match="interval 'z' is not one of: t, bca"):
        compare(d, interval="z")


def test_an_unknown_correction_is_refused():
    with pytest.raises(ValueError, match="holm, hochberg, bh"):
        correct([0.1], "fdr")


# --- all pairs ---


@pytest.mark.parametrize("test", ["t", "wilcoxon", "randomisation"])
@pytest.mark.parametrize("n", [8, 70])
def test_all_pairs_are_the_single_comparisons(test, n):
    scores = np.round(np.random.default_rng(n).random((6, n)), 1)
    scores[3] = scores[1]
    p = all_pairs(scores, test)
    single = {"t": t_test, "wilcoxon": wilcoxon, "randomisation": randomisation}[test]
    assert np.isnan(np.diag(p)).all() and p[1, 3] == 1.0
    for i, j in itertools.permutations(range(6), 2):
        assert p[i, j] == pytest.approx(float(single(paired_differences(scores[i], scores[j]))))


def test_all_pairs_at_the_edges():
    assert all_pairs(np.zeros((1, 5))).shape == (1, 1)
    assert np.isnan(all_pairs(np.zeros((3, 0)), "randomisation")).all()
    assert float(all_pairs(np.eye(3, 9), "randomisation", 50)[0, 1]) == 1.0
    with pytest.raises(ValueError, match="test 'z' is not one of"):
        all_pairs(np.zeros((2, 2)), "z")
    with pytest.raises(ValueError, match=r"\[systems, queries\]"):
        all_pairs(np.zeros(3))


def test_letters_by_hand():
    # c is the best; it differs from a and b; nothing else does.
    different = np.zeros((4, 4), dtype=bool)
    for i, j in ((0, 2), (1, 2)):
        different[i, j] = different[j, i] = True
    assert compact_letters(different, [0.1, 0.2, 0.4, 0.3]) == ("b", "b", "a", "ab")
    assert compact_letters(np.zeros((3, 3)), [1, 2, 3]) == ("a", "a", "a")
    assert compact_letters(~np.eye(3, dtype=bool), [1, 2, 3]) == ("c", "b", "a")
    assert compact_letters(np.zeros((0, 0)), []) == ()
    many = compact_letters(~np.eye(54, dtype=bool), -np.arange(54))
    assert (many[0], many[26], many[51], many[53]) == ("a", "A", "Z", "(54)")
    with pytest.raises(ValueError, match="symmetric"):
        compact_letters([[0, 1], [0, 0]], [1, 2])


def test_letters_are_shared_exactly_by_those_that_do_not_differ():
    generator = np.random.default_rng(7)
    for _ in range(60):
        k = int(generator.integers(2, 12))
        upper = np.triu(generator.random((k, k)) < generator.random(), 1)
        different = upper | upper.T
        letters = compact_letters(different, generator.random(k))
        for i, j in itertools.combinations(range(k), 2):
            assert bool(set(letters[i]) & set(letters[j])) == (not different[i, j])
        assert all(letters)
