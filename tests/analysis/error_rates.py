"""Do the tests keep their promises? Synthetic scores with a known truth, and how often each errs.

``python -m tests.analysis.error_rates`` prints the numbers of ``docs/statistics.md``.

One draw is two systems on n queries, or several pairs of them. Each draw is tested as real scores
would be; over many, the share of rejections under a true null hypothesis must be alpha, that under
a false one the power that theory gives, and the share of intervals that hold the truth .95.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.significance import (
    FloatArray,
    bca_interval,
    correct,
    equivalence,
    non_inferiority,
    paired_differences,
    randomisation,
    t_interval,
    t_test,
    wilcoxon,
)
from tests.analysis.checks import ALPHA, Check, binomial, table
from tests.analysis.choice_rates import choice_checks

SD = 0.10  # of the difference of two re-rankers over queries, as on TREC Deep Learning
EFFECT = 0.04
SEED_SD = 0.01
MARGIN = 0.05
PAIRS = 10
# Differences of the reciprocals of two ranks, 1 to 10.
RANKS = np.array([1 / a - 1 / b for a in range(1, 10) for b in range(a + 1, 11)])
# Wilcoxon's test needs 1 / .955 times the queries of the t-test on normal differences.
EFFICIENCY = {"paired t": 1.0, "randomisation": 1.0, "Wilcoxon": 3 / np.pi}
# What holds for many queries may be off by so much for fifty.
ASYMPTOTIC_GAP = 0.01
ASYMPTOTIC = {"paired t": 0.0, "randomisation": ASYMPTOTIC_GAP, "Wilcoxon": ASYMPTOTIC_GAP}
# Bootstrap intervals are too short where few queries differ, and right with many.
FEW_QUERIES_GAP = 0.1
MANY_QUERIES_GAP = 0.015
TIMES = 10


def scores(
    generator: np.random.Generator,
    draws: int,
    queries: int,
    *,
    effect: float = 0.0,
    seed_sd: float = 0.0,
    ties: float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Per-query scores of a treatment and a baseline, each of shape [draws, queries].

    Parameters
    ----------
    generator : Generator
        Source of chance.
    draws, queries : int
        How many experiments, and their size.
    effect : float
        True mean difference.
    seed_sd : float
        Standard deviation of the luck of a training run, the same on all queries of a draw.
    ties : float
        Share of queries on which both systems score the same. Above 0, the others are won or lost
        by a difference of two reciprocal ranks out of ten; `effect` decides how often each.
    """
    baseline = generator.normal(0.5, 0.25, (draws, queries))
    if ties:
        won = 0.5 + effect / (2 * (1 - ties) * RANKS.mean())
        if not 0 <= won <= 1:
            raise ValueError(f"effect {effect:g} is too large for {ties:g} ties")
        size = generator.choice(RANKS, (draws, queries))
        sign = np.where(generator.random((draws, queries)) < won, 1.0, -1.0)
        differs = generator.random((draws, queries)) >= ties
        difference = size * sign * differs
    else:
        difference = generator.normal(effect, SD, (draws, queries))
    luck = generator.normal(0.0, seed_sd, (2, draws, 1))
    return baseline + difference + luck[0], baseline + luck[1]


def _rejected(p: FloatArray, method: str) -> npt.NDArray[np.bool_]:
    """Which hypotheses of each family [draws, m] are rejected."""
    return np.stack([correct(family, method, ALPHA)[1] for family in p])


def checks(
    draws: int = 1000, queries: int = 50, randomisations: int = 10_000, seed: int = 0
) -> Iterator[Check]:
    """Every check, in the order of the table.

    Parameters
    ----------
    draws, queries : int
        How many experiments, and their size.
    randomisations : int
        Of the randomisation test and of the bootstrap.
    seed : int
        Of the scores.
    """
    generator = np.random.default_rng(seed)
    tests: dict[str, Callable[[FloatArray], FloatArray]] = {
        "paired t": t_test,
        "Wilcoxon": wilcoxon,
        "randomisation": lambda d: randomisation(d, randomisations),
    }

    def drawn(times: int = 1, size: int = queries, **planted: float) -> FloatArray:
        return paired_differences(*scores(generator, draws * times, size, **planted))

    def bca(d: FloatArray) -> tuple[FloatArray, FloatArray]:
        return bca_interval(d, resamples=randomisations)

    def share(hits: npt.ArrayLike) -> float:
        return float(np.asarray(hits, dtype=np.float64).mean())

    for label, ties in (("no difference", 0.0), ("no difference, 60 % ties", 0.6)):
        d = drawn(ties=ties)
        for name, test in tests.items():
            rate = share(test(d) <= ALPHA)
            yield Check(label, name, "false positives", rate, *binomial(ALPHA, draws))
    d = drawn(times=PAIRS)
    for name, test in tests.items():
        p = test(d).reshape(draws, PAIRS)
        for method in ("holm", "hochberg"):
            rate = share(_rejected(p, method).any(axis=1))
            family = 1 - (1 - ALPHA / PAIRS) ** PAIRS  # independent pairs, least p value
            low, high = binomial(family, draws)
            yield Check(f"{PAIRS} pairs, no difference", f"{name}, {method}", "families with a "
                        "false positive", rate, low, high)  # fmt: skip
    half = np.stack([drawn(effect=EFFECT * (i % 2)) for i in range(PAIRS)], axis=1)
    p = t_test(half)
    rejected = _rejected(p, "bh")
    false = rejected[:, ::2].sum(axis=1) / np.maximum(1, rejected.sum(axis=1))
    expected = ALPHA / 2  # alpha times the share of true null hypotheses
    slack = 2.6 * float(false.std()) / np.sqrt(draws)
    yield Check(f"{PAIRS} pairs, half differ by {EFFECT:g}", "paired t, bh",
                "false among the rejections", share(false), expected - slack,
                expected + slack)  # fmt: skip
    rejected = _rejected(p, "holm")
    yield Check(f"{PAIRS} pairs, half differ by {EFFECT:g}", "paired t, holm",
                "families with a false positive", share(rejected[:, ::2].any(axis=1)), 0.0,
                binomial(ALPHA, draws)[1])  # fmt: skip
    d = drawn(effect=EFFECT)
    for name, test in tests.items():
        low, high = binomial(power(queries * EFFICIENCY[name]), draws)
        slack = ASYMPTOTIC[name]
        yield Check(f"difference {EFFECT:g}", name, "power", share(test(d) <= ALPHA),
                    low - slack, high + slack)  # fmt: skip
    for ties in (0.0, 0.6):
        label = f"difference {EFFECT:g}" + (", 60 % ties" if ties else "")
        for name, interval, times, slack in (
            ("t-interval", t_interval, 1, ASYMPTOTIC_GAP if ties else 0.0),
            ("BCa interval", bca, 1, FEW_QUERIES_GAP),
            ("BCa interval", bca, TIMES, MANY_QUERIES_GAP),
        ):
            start, end = interval(drawn(size=queries * times, effect=EFFECT, ties=ties))
            rate = share((start <= EFFECT) & (EFFECT <= end))
            low, high = binomial(0.95, draws)
            where = f"{name}, {queries * times} queries"
            yield Check(label, where, "intervals that hold it", rate, low - slack, high)
    d = drawn(effect=-MARGIN)
    for name, margin_test in (("TOST", equivalence), ("non-inferiority", non_inferiority)):
        p = margin_test(d, MARGIN)
        rate = share(p <= ALPHA)
        label = f"worse by the margin, {MARGIN:g}"
        yield Check(label, name, "false positives", rate, *binomial(ALPHA, draws))
    d = drawn(seed_sd=SEED_SD)
    rate = share(t_test(d) <= ALPHA)
    yield Check(f"one run each, seed SD {SEED_SD:g}", "paired t", "differences that are the "
                "runs' alone", rate, *binomial(lucky(queries), draws))  # fmt: skip


def power(queries: float, effect: float = EFFECT) -> float:
    """Power of the two-sided paired t-test at `ALPHA` for differences with `SD`."""
    df = queries - 1
    edge = stats.t.ppf(1 - ALPHA / 2, df)
    noncentrality = effect / SD * np.sqrt(queries)
    both = stats.nct.sf(edge, df, noncentrality) + stats.nct.cdf(-edge, df, noncentrality)
    return float(both)


def lucky(queries: int) -> float:
    """How often two equal systems differ significantly over queries, through one run's luck."""
    spread = np.sqrt(1 + 2 * SEED_SD**2 / (SD**2 / queries))
    return float(2 * stats.t.sf(stats.t.ppf(1 - ALPHA / 2, queries - 1) / spread, queries - 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a promise is broken."""
    arguments = argparse.ArgumentParser(
        prog="python -m tests.analysis.error_rates", description=__doc__
    )
    arguments.add_argument("--draws", type=int, default=1000)
    arguments.add_argument("--queries", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args(argv)
    every = list(checks(options.draws, options.queries, seed=options.seed))
    every += choice_checks(options.draws, seed=options.seed)
    print(table(every))
    return 0 if all(check.kept for check in every) else 1


if __name__ == "__main__":
    sys.exit(main())
