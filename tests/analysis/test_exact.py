"""Verdicts on measures that are rationals, against the same in exact fractions."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from analysis.figures import data
from analysis.render.entry import Flag, mark_best, number
from analysis.replication import DIFFERS, REPRODUCED, effect_ratio, verdict
from analysis.significance import (
    all_pairs,
    bca_interval,
    compact_letters,
    correct,
    equivalence,
    paired_differences,
    randomisation,
    wilcoxon,
)

QUERIES = 9


def systems(seed, denominators=(10,), many=8, queries=QUERIES):
    """P@k-like scores of systems: exact [many][queries], and as floats; some are means over seeds.

    The floats are made as they are in use, by sums and divisions, so that their last bits differ.
    """
    generator = np.random.default_rng(seed)
    exact, floats = [], []
    for _ in range(many):
        k = int(generator.choice(denominators))
        hits = generator.integers(0, k + 1, (queries, 3))
        exact.append([sum((Fraction(int(h), k) for h in row), Fraction(0)) / 3 for row in hits])
        floats.append((hits / k).mean(axis=1))
    return exact, np.array(floats)


def exact_wilcoxon(differences):
    """Two-sided p by all assignments of signs, ranks in fractions."""
    kept = [d for d in differences if d != 0]
    if not kept:
        return 1.0
    sizes = sorted(abs(d) for d in kept)
    rank = {s: Fraction(sizes.index(s) + 1 + sizes.index(s) + sizes.count(s), 2) for s in sizes}
    ranks = [rank[abs(d)] for d in kept]
    middle = sum(ranks, Fraction(0)) / 2
    seen = abs(sum((r for r, d in zip(ranks, kept, strict=True) if d > 0), Fraction(0)) - middle)
    sums = [Fraction(0)]
    for r in ranks:
        sums += [s + r for s in sums]
    return sum(abs(s - middle) >= seen for s in sums) / len(sums)


def exact_randomisation(differences):
    """Share of the assignments of signs with a sum at least as large."""
    seen = abs(sum(differences, Fraction(0)))
    sums = [Fraction(0)]
    for d in differences:
        sums = [s + sign * d for s in sums for sign in (1, -1)]
    return sum(abs(s) >= seen for s in sums) / len(sums)


@pytest.mark.parametrize("denominators", [(10,), (5, 10, 20)])
@pytest.mark.parametrize(
    ("test", "exact_test"),
    [("wilcoxon", exact_wilcoxon), ("randomisation", exact_randomisation)],
)
def test_rank_and_randomisation_tests_see_the_ties_of_fractions(test, exact_test, denominators):
    exact, floats = systems(0, denominators, many=6)
    of_pairs = all_pairs(floats, test)
    single = {"wilcoxon": wilcoxon, "randomisation": randomisation}[test]
    for i, j in product(range(6), repeat=2):
        if i < j:
            expected = exact_test([a - b for a, b in zip(exact[j], exact[i], strict=True)])
            assert of_pairs[i, j] == pytest.approx(expected, abs=1e-12)
            alone = single(paired_differences(floats[j], floats[i]))
            assert float(alone) == pytest.approx(expected, abs=1e-12)


def test_last_bits_flipped_a_verdict():
    """P@10 of eight queries: all differences are ±.1 in fractions, in floats of three sizes."""
    a, b = np.array([4, 3, 8, 7, 5, 9, 6, 2]) / 10, np.array([3, 2, 7, 6, 4, 8, 5, 3]) / 10
    d = paired_differences(a, b)
    assert len(set(np.abs(d).tolist())) > 1
    assert float(wilcoxon(d)) == 18 / 256  # as the sign test: 7 of 8 won, twice (1 + 8) / 256
    with_bits = stats.wilcoxon(d, method="exact").pvalue
    assert float(wilcoxon(d)) != pytest.approx(with_bits, abs=1e-3)


def test_wins_ties_and_losses():
    exact, floats = systems(1, (3, 6, 7), many=10, queries=40)
    for (own, a), (other, b) in product(zip(exact, floats, strict=True), repeat=2):
        won = data.wins(paired_differences(a, b))
        counts = (
            sum(x > y for x, y in zip(own, other, strict=True)),
            sum(x == y for x, y in zip(own, other, strict=True)),
            sum(x < y for x, y in zip(own, other, strict=True)),
        )
        assert (won.wins, won.ties, won.losses) == counts


def test_mean_ranks():
    exact, floats = systems(2, (5, 10), many=7, queries=30)
    ranks = np.zeros(7)
    for query in range(30):
        column = [system[query] for system in exact]
        for i, own in enumerate(column):
            better, equal = sum(x > own for x in column), sum(x == own for x in column)
            ranks[i] += better + (equal + 1) / 2
    assert data.mean_ranks(floats.T) == pytest.approx(ranks / 30, abs=1e-12)


def test_pareto_front():
    # near one line, so that many are on the front, in pairs that only their last bits tell apart
    counts = np.random.default_rng(3).permutation([(a, b) for a in range(9) for b in (9, 10)] * 2)
    costs = [Fraction(int(a), 10) for a, _ in counts]
    gains = [Fraction(int(a + b), 10) for a, b in counts]
    floats = np.array([[a * 0.1, a / 10 + b * 0.1] for a, b in counts])
    floats[::2] = [[a / 10, (a + b) / 10] for a, b in counts[::2]]
    points = list(zip(costs, gains, strict=True))
    expected = [
        not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        for cost, gain in points
    ]
    assert data.pareto(floats[:, 0], floats[:, 1]).tolist() == expected


def test_best_and_second_of_equal_means():
    """Two systems with one mean share the mark and the digits, however they were summed."""
    for thousandths in range(5, 10000, 10):  # between two printed values
        value = thousandths / 10000
        near = [value, float(np.nextafter(value, 0.0)), float(np.nextafter(value, 1.0)), 0.0001]
        entries = mark_best([number(v) for v in near], [True] * 4)
        assert len({entry.text for entry in entries[:3]}) == 1
        assert all(Flag.BEST in entry.flags for entry in entries[:3])


def test_letters_go_down_from_the_first_of_equals():
    apart = ~np.eye(3, dtype=bool)
    for means in ((0.1 + 0.2, 0.3, 0.2), (0.3, 0.1 + 0.2, 0.2)):
        assert compact_letters(apart, means) == ("a", "b", "c")


def test_at_the_margin_and_at_alpha():
    # all differences are -.1, the margin: t is 0 of an error of 0, in floats ±inf
    d = paired_differences(np.array([0.2, 0.3, 0.8]), np.array([0.3, 0.4, 0.9]))
    assert float(equivalence(d, 0.1)) == 0.5
    for m in range(1, 60):  # p x m is alpha, of which a float may be above
        assert correct([0.05 / m] * m)[1].all()
        assert not correct([0.0501 / m] * m)[1].any()


def test_replication_at_the_tolerance():
    for printed in range(100, 900, 7):
        published = printed / 1000
        at = [published + 0.003, published - 0.003, (published * 3 + 0.009) / 3]
        assert {verdict(published, value, tolerance=0.003).verdict for value in at} == {REPRODUCED}
        assert verdict(published, published + 0.0031, tolerance=0.003).verdict == DIFFERS
    # an improvement of the original that is 0 in fractions has no ratio
    assert np.isnan(effect_ratio([0.1, 0.2], [0.2, 0.1], [0.5, 0.5], [0.1, 0.1]))
    assert np.isnan(effect_ratio([0.1 + 0.2], [0.3], [0.5], [0.1]))


def test_bootstrap_counts_means_equal_to_the_observed_one_as_half():
    """BCa's bias counts resampled means below the observed one: ties are none of them."""
    exact, floats = systems(4, (10,), many=2, queries=6)
    d = [a - b for a, b in zip(*exact, strict=True)]
    scaled = np.array([float(x * 30) for x in d])  # whole numbers: floats are exact
    low, high = bca_interval(paired_differences(*floats), resamples=400)
    whole_low, whole_high = bca_interval(scaled, resamples=400)
    assert (low * 30, high * 30) == (pytest.approx(whole_low), pytest.approx(whole_high))
