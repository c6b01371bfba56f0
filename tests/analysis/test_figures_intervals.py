"""The interval of a difference says what its mark says, whatever the test and the correction."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.contrasts import run_tests
from analysis.figures import inputs, intervals
from analysis.significance import correct, levels, randomisation, t_interval, t_test, wilcoxon

RNG = np.random.default_rng(5)
P = [0.001, 0.012, 0.03, 0.2, float("nan")]  # of four tests; at .05 Holm rejects two of them


def test_levels_by_hand():
    holm = levels(P)
    assert holm[:4] == pytest.approx([0.05 / 4, 0.05 / 3, 0.05 / 2, 0.05 / 2])
    hochberg = levels([0.001, 0.04, 0.045, 0.2], "hochberg")
    assert hochberg == pytest.approx([0.05 / 4, 0.05 / 3, 0.05 / 3, 0.05 / 3])
    bh = levels(P, "bh")  # .03 is at most .05 · 3 / 4: three rejections
    assert bh[:4] == pytest.approx([0.05 * 3 / 4] * 3 + [0.05])
    for level in (holm, bh):
        assert np.isnan(level[4])
    assert levels([0.01], alpha=0.1) == pytest.approx([0.1])
    assert levels([0.01, 0.01, 0.9]) == pytest.approx([0.05 / 3, 0.05 / 3, 0.05])  # equals
    assert levels([]).shape == (0,)


@pytest.mark.parametrize("method", ["holm", "hochberg", "bh"])
def test_a_test_is_rejected_exactly_at_its_level(method):
    for size in range(1, 9):
        for _ in range(40):
            p = RNG.uniform(0, RNG.choice([0.02, 0.1, 1.0]), size)
            level = levels(p, method)
            assert (correct(p, method)[1] == (p <= level)).all()
            assert (level <= 0.05 + 1e-12).all()


@pytest.mark.parametrize("test", ["wilcoxon", "randomisation"])
def test_inverted_tests_leave_out_zero_where_they_reject(test):
    d = RNG.normal([[0.0], [0.3], [1.6], [-1.2], [0.02]], 0.8, (5, 12)).round(1)  # with ties
    p = {"wilcoxon": wilcoxon, "randomisation": randomisation}[test](d)
    level = levels(p)
    low, high = intervals.inverted(d, test, level)
    assert ((p <= level) == ((low > 0) | (high < 0))).all() and (p <= level).any()
    again = intervals.inverted(np.zeros((1, 12)), test, [0.05])
    assert [float(end[0]) for end in again] == [0, 0]
    few = intervals.inverted([[0.1, 0.2, 0.3]], test, [0.05])  # no p value is below .25
    assert np.isnan(few).all()
    assert np.isnan(intervals.inverted(np.zeros((2, 0)), test, [0.05, 0.05])).all()


def test_inverted_tests_are_the_intervals_of_textbooks():
    d = RNG.normal(0.2, 1.0, (1, 40))
    low, high = intervals.inverted(d, "randomisation", [0.05])
    assert [low[0], high[0]] == pytest.approx([float(e) for e in t_interval(d[0])], abs=0.04)
    low, high = intervals.inverted(d[:, :12], "wilcoxon", [0.05])
    # Hollander and Wolfe: the ordered means of pairs at the critical value of the signed ranks, 14
    pairs = np.sort([(a + b) / 2 for i, a in enumerate(d[0, :12]) for b in d[0, i:12]])
    assert [low[0], high[0]] == pytest.approx([pairs[13], pairs[-14]], abs=2e-3)


def changed(table, **spec):
    """The table's summary, tested in another way."""
    other = replace(table.spec, **spec)
    places = [(c, m) for c in table.collections for m in other.measures]
    healthy = {row.name for row in other.rows}
    return replace(table, spec=other, against=run_tests(other, places, table.scores,
                                                        healthy).against)  # fmt: skip


@pytest.mark.parametrize("correction", ["holm", "hochberg", "bh"])
@pytest.mark.parametrize("test", ["t", "wilcoxon", "randomisation"])
def test_drawn_intervals_agree_with_their_marks(table, test, correction):
    baseline = ("RankNet",)  # near to some of the others
    own = changed(table, test=test, correction=correction, baselines=baseline, alpha=0.2)
    points = [point for panel in inputs.overview(own)[0].values() for point in panel]
    assert len(points) == 12
    for point in points:
        assert point.significant == (point.low > 0 or point.high < 0), point
    assert {point.significant for point in points} == {True, False}


def test_t_intervals_have_the_level_of_their_step_and_count_runs(table):
    for contrast in table.contrasts.values():
        (ends,) = intervals.matching(table, [contrast])
        half = stats.t.ppf(1 - contrast.level / 2, contrast.df) * contrast.error
        middle = contrast.comparison.difference
        assert ends == pytest.approx((middle - half, middle + half))
        d = intervals.differences_of(table, contrast)
        plain = [float(end) for end in t_interval(d, 1 - contrast.level)]
        if contrast.of_choice:
            assert ends[1] - ends[0] >= plain[1] - plain[0] - 1e-12
        else:
            assert contrast.comparison.p == pytest.approx(float(t_test(d)))
            assert ends == pytest.approx(tuple(plain))
    assert {contrast.of_choice for contrast in table.contrasts.values()} == {True, False}
    together = list(table.contrasts.values())
    sizes = sorted({round(contrast.level, 6) for contrast in together})
    assert sizes[0] == pytest.approx(0.05 / 6, abs=1e-6) and sizes[-1] <= 0.05
