import math

import numpy as np
import pytest
from scipy import stats

from analysis.replication import (
    DIFFERS,
    NOT_RUN,
    REPRODUCED,
    WITHIN_NOISE,
    Noise,
    delta_relative_improvement,
    effect_ratio,
    kendall_tau_union,
    printed_decimals,
    rbo,
    rmse,
    verdict,
)


@pytest.mark.parametrize(
    ("published", "obtained", "how", "expected"),
    [
        (0.480, 0.4795, {}, REPRODUCED),  # prints as .480 (or .479: exactly half a unit)
        (0.480, 0.4794, {}, DIFFERS),
        (0.480, 0.4794, {"tolerance": 0.001}, REPRODUCED),
        (0.480, 0.4790, {"tolerance": 0.001}, REPRODUCED),
        (0.480, 0.4789, {"tolerance": 0.001}, DIFFERS),
        (0.480, 0.4795, {"tolerance": 0.0}, REPRODUCED),  # never below rounding
        (0.480, 0.4820, {"decimals": 2}, REPRODUCED),
        (0.606080, 0.6065, {"tolerance": 0.0005}, REPRODUCED),
        (0.682818, 0.6829, {}, DIFFERS),
        (0.720, 0.7312, {"noise": Noise(3, 0.005)}, WITHIN_NOISE),
        (0.720, 0.7319, {"noise": Noise(3, 0.005)}, DIFFERS),
        (0.720, 0.7319, {"noise": Noise(1, 0.005)}, WITHIN_NOISE),  # one run: further off
        (0.720, 0.7319, {"noise": Noise(3, 0.005, 4)}, WITHIN_NOISE),  # estimated: wider
        (0.720, 0.7319, {"noise": Noise(3, 0.005, 4, confidence=0.5)}, DIFFERS),
        (0.720, 0.7312, {"noise": Noise(0, 0.005)}, DIFFERS),  # not trained
        (0.720, 0.7312, {"noise": Noise(error=0.01)}, WITHIN_NOISE),
        (0.7259, 0.7245, {"decimals": 4}, DIFFERS),
        (0.7259, 0.7245, {"decimals": 4, "ties": (0.7245, 0.7259)}, REPRODUCED),
        (0.7270, 0.7245, {"decimals": 4, "ties": (0.7245, 0.7259)}, DIFFERS),
        (0.720, None, {}, NOT_RUN),
        (0.720, math.nan, {"noise": Noise(3, 0.005)}, NOT_RUN),
    ],
)
def test_verdicts(published, obtained, how, expected):
    assert verdict(published, obtained, **how).verdict == expected


def test_the_numbers_behind_a_verdict():
    got = verdict(0.72, 0.7312, noise=Noise(3, 0.005), tolerance=0.002, ties=(0.7300, 0.7320))
    assert (got.difference, got.gap) == (pytest.approx(0.0112), pytest.approx(0.01))
    assert got.tolerance == 0.002
    z = stats.norm.ppf(0.975)
    assert got.noise == pytest.approx(0.0005 + z * 0.005 * math.sqrt(4 / 3))
    missing = verdict(0.72, None)
    assert math.isnan(missing.gap) and missing.tolerance == 0.0005


def test_noise_is_a_prediction_interval():
    """Of one further run beside the mean of three, with the deviation estimated from the three."""
    generator = np.random.default_rng(0)
    runs = generator.normal(0.7, 0.01, (4000, 4))
    limits = [Noise(3, ours.std(ddof=1), 2).limit for ours in runs[:, :3]]
    inside = np.abs(runs[:, 3] - runs[:, :3].mean(axis=1)) <= limits
    assert inside.mean() == pytest.approx(0.95, abs=0.012)
    both = Noise(1, 0.003, error=0.004).limit
    assert both == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(2 * 0.003**2 + 0.004**2))
    assert Noise().limit == 0.0


def test_decimals():
    assert [printed_decimals(v) for v in (0.48, 0.7803, 0.60608, 1.0)] == [3, 4, 5, 3]


# One query ranked by an original and a reproduced system, and two systems' scores of five queries;
# the values are those of repro_eval 0.5.0.
OLD, NEW = list("dbhace"), list("bdafhg")
SCORES = (
    [0.61, 0.35, 0.80, 0.12, 0.55],
    [0.42, 0.30, 0.71, 0.15, 0.40],
    [0.58, 0.40, 0.77, 0.10, 0.49],
    [0.45, 0.28, 0.70, 0.18, 0.41],
)
THEIRS = {
    "ktu": -0.33333333333333,
    "rbo": 0.3423799578096125,
    "rbo_depth": 0.5456187895212286,
    "rmse": 0.04074309757492676,
    "er": 0.7111111111111112,
    "dri": 0.06885688568856876,
}


def test_equal_to_repro_eval():
    assert kendall_tau_union(OLD, NEW, union="sorted") == pytest.approx(THEIRS["ktu"])
    assert rbo(OLD, NEW) == pytest.approx(THEIRS["rbo"])
    assert rbo(OLD, NEW, p=0.8, depth=4) == pytest.approx(THEIRS["rbo_depth"])
    assert rmse(SCORES[0], SCORES[2]) == pytest.approx(THEIRS["rmse"])
    assert effect_ratio(*SCORES) == pytest.approx(THEIRS["er"])
    assert delta_relative_improvement(*SCORES) == pytest.approx(THEIRS["dri"])


def test_equal_to_an_installed_repro_eval():
    order = pytest.importorskip("repro_eval.measure.document_order")
    ranked = [{"q": {d: -float(i) for i, d in enumerate(docs)}} for docs in (OLD, NEW)]
    assert kendall_tau_union(OLD, NEW, union="sorted") == pytest.approx(order.KTU(*ranked))
    theirs = order.RBO(*ranked, p=0.9, depth=50, pbar=False, per_topic=False)
    assert rbo(OLD, NEW, p=0.9, depth=50) == pytest.approx(theirs)


def test_kendall_tau_union():
    assert kendall_tau_union("abc", "abd") == 1.0  # the example of the paper
    assert kendall_tau_union("abc", "cba") == -1.0
    assert kendall_tau_union("abcd", "bacd") == pytest.approx(4 / 6)
    assert kendall_tau_union("abcdxy", "abcdyx", depth=4) == 1.0
    assert kendall_tau_union("abcd", "ba") == -1.0  # cut to two
    assert math.isnan(kendall_tau_union("a", "b"))
    # By rank, what passages are called does not matter; sorted by id, it does.
    names = dict(zip("abcd", "cdab", strict=True))
    renamed = ["".join(names[d] for d in text) for text in ("acbd", "bcda")]
    assert kendall_tau_union("acbd", "bcda") == kendall_tau_union(*renamed)
    by_id = [kendall_tau_union(*pair, union="sorted") for pair in (("acbd", "bcda"), renamed)]
    assert by_id[0] != by_id[1]


def test_rbo():
    # overlaps 0/1, 2/2, weights 1, .5
    assert rbo("ab", "ba", p=0.5, depth=2) == pytest.approx(0.5 / 1.5)
    assert rbo("abc", "abc", depth=3) == pytest.approx(1.0)
    assert rbo("abc", "xyz") == 0.0
    assert rbo("abc", "acb", p=0.9, depth=3) > rbo("abc", "acb", p=0.99, depth=3)
    generator = np.random.default_rng(1)
    a, b = (list(generator.permutation(30)[:20]) for _ in range(2))
    weights = [0.9**d for d in range(25)]
    naive = sum(w * len(set(a[:d]) & set(b[:d])) / d for d, w in enumerate(weights, 1))
    assert rbo(a, b, p=0.9, depth=25) == pytest.approx(naive / sum(weights))


def test_effects():
    assert effect_ratio([0.5], [0.4], [0.7], [0.5]) == pytest.approx(2.0)
    assert effect_ratio([0.5], [0.4], [0.4], [0.5]) == pytest.approx(-1.0)
    assert delta_relative_improvement([0.5], [0.4], [0.6], [0.5]) == pytest.approx(0.25 - 0.2)
    assert rmse([0.3, 0.4], [0.3, 0.4]) == 0.0
    assert math.isnan(rmse([], []))
    assert math.isnan(effect_ratio([0.5], [0.5], [0.7], [0.5]))
    assert math.isnan(effect_ratio([], [], [], []))
    assert math.isnan(delta_relative_improvement([0.5], [0.0], [0.6], [0.5]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verdict(math.nan, 0.5), "finite"),
        (lambda: verdict(0.5, 0.5, tolerance=-0.1), "tolerance"),
        (lambda: verdict(0.5, 0.5, ties=(0.6, 0.7)), "tie range"),
        (lambda: Noise(1, -0.1), "zero or more"),
        (lambda: Noise(1, 0.1, 0), "seed_df"),
        (lambda: Noise(1, 0.1, confidence=1.0), "confidence"),
        (lambda: rmse([0.1], [0.1, 0.2]), "shape"),
        (lambda: rmse([math.nan], [0.1]), "finite"),
        (lambda: rbo("aa", "ab"), "twice"),
        (lambda: rbo("ab", "ab", p=1.0), "p must"),
        (lambda: rbo("ab", "ab", depth=0), "depth"),
        (lambda: kendall_tau_union("ab", "ab", union="x"), "ranked, sorted"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
