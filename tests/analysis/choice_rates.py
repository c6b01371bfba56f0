"""Do claims about a choice keep their promises? Planted grids, and how often each table errs.

One draw is a whole experiment of 50 queries whose systems (or levels of factors) have equal means:
they differ by what each query makes of a system, by the luck of their training runs, or by both.
Whatever prints a p or an interval must reject, or miss the truth, in 5 % of such experiments.
Part of the table of ``python -m tests.analysis.error_rates``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from analysis.contrasts import Tests, run_tests
from analysis.factors import analyse, simple_effects, tukey
from analysis.replication import DIFFERS, Noise, verdict
from analysis.scores import Scores
from analysis.seeds import difference
from analysis.significance import FloatArray
from analysis.spec import parse
from rdx.power import Assumption, Design, pooled_seed_sd
from tests.analysis.checks import ALPHA, Check, binomial

QUERIES = 50
REST_SD = 0.05  # of a score once query, system and run are known
EFFECT = 0.03
MARGIN = 0.05
# Without a variance between runs its estimate is 0 half of the time, and else in the error.
CAUTIOUS = 0.025
# Satterthwaite's approximation with few degrees of freedom between runs: 4 with 3 + 3 runs, and 2
# with 2 + 2.
FEW_RUNS = {4: 0.01, 2: 0.03}
LEVELS = {"a": "xy", "b": "123"}


@dataclass(frozen=True)
class Null:
    """What makes equal systems differ.

    Attributes
    ----------
    crossed, run : float
        Standard deviation of what a query makes of a system (or of a level, and of a combination of
        levels), and of the luck of a run.
    """

    crossed: float
    run: float

    def __str__(self) -> str:
        """For the table."""
        parts = [f"query × choice SD {self.crossed:g}"] * (self.crossed > 0)
        parts += [f"run SD {self.run:g}"] * (self.run > 0)
        return ", ".join(parts) or "nothing but rest"


NULLS = (Null(0, 0), Null(0.05, 0), Null(0, 0.02), Null(0.05, 0.006), Null(0.05, 0.02))


def systems(
    generator: np.random.Generator, null: Null, seeds: tuple[int, ...], effects: FloatArray
) -> list[FloatArray]:
    """Scores [queries, seeds] of one system per entry of `seeds`, with these true effects."""
    hard = generator.normal(0.5, 0.2, QUERIES)
    return [
        (hard + generator.normal(0, null.crossed, QUERIES))[:, None]
        + effect
        + generator.normal(0, null.run, count)
        + generator.normal(0, REST_SD, (QUERIES, count))
        for count, effect in zip(seeds, effects, strict=True)
    ]


def grid(
    generator: np.random.Generator, null: Null, seeds: int = 3, dropped: tuple[int, ...] = ()
) -> tuple[FloatArray, dict[str, list[str]]]:
    """Scores [runs, queries] of two samplers × three losses × seeds, and the levels of each run."""
    runs = [(a, b, s) for a, b in product(*LEVELS.values()) for s in range(seeds)]
    runs = [run for i, run in enumerate(runs) if i not in dropped]
    keys = [*LEVELS["a"], *LEVELS["b"], *product(*LEVELS.values())]
    own = {key: generator.normal(0, null.crossed, QUERIES) for key in keys}
    hard = generator.normal(0.5, 0.2, QUERIES)
    scores = np.stack([hard + own[a] + own[b] + own[a, b] for a, b, _ in runs])
    scores += generator.normal(0, null.run, (len(runs), 1))
    scores += generator.normal(0, REST_SD, scores.shape)
    return scores, {"a": [a for a, *_ in runs], "b": [b for _, b, _ in runs]}


def choice_checks(
    draws: int = 400, seed: int = 0, nulls: tuple[Null, ...] = NULLS
) -> Iterator[Check]:
    """Every check, in the order of the table; those of ω² and Tukey by a quarter of the draws."""
    generator = np.random.default_rng(seed)
    for null in nulls:
        yield from _main_table(generator, null, draws)
    for null in nulls:
        yield from _two_systems(generator, null, draws)
    for null in nulls:
        yield from _factors(generator, null, draws)
    for null in nulls[-1:] if len(nulls) == 1 else nulls[1::3]:
        yield from _sizes(generator, null, max(draws // 4, 5))
    yield from _these_models(generator, draws)
    yield from _replication(generator, draws)


def _check(
    null: Null | str, what: str, quantity: str, hits: npt.ArrayLike,
    rate: float = ALPHA, above: float = 0.0, below: float = 0.0,
) -> Check:  # fmt: skip
    """A share of draws, which must lie where the rate puts it; cautious without a run variance."""
    each = np.asarray(hits, dtype=np.float64)
    low, high = binomial(rate, len(each))
    if isinstance(null, Null) and not null.run:
        low, high = (low - CAUTIOUS, high) if rate <= ALPHA else (low, high + CAUTIOUS)
    low, high = max(0.0, low - below), min(1.0, high + above)
    return Check(str(null), what, quantity, float(each.mean()), low, high)


def _tests(tables: list[FloatArray], margin: float | None = None, every: bool = True) -> Tests:
    """The tests of a main table whose rows A, B, C have these scores."""
    names = "ABC"[: len(tables)]
    spec = parse(
        {
            "name": "planted",
            "measures": ["m"],
            "grid": dict.fromkeys(names, []),
            "rows": [{"name": n, "grid": n, "test": every or n != "C"} for n in names],
            "baseline": "A",
            "comparisons": [["B", "C"]] if every else [],
            "all_pairs": every,
            "margin": margin,
        }
    )
    ids = tuple(map(str, range(QUERIES)))
    scores = {
        (name, "c", "m"): Scores(ids, table, tuple(range(table.shape[1])))
        for name, table in zip(names, tables, strict=True)
    }
    return run_tests(spec, [("c", "m")], scores, set(names))


def _main_table(generator: np.random.Generator, null: Null, draws: int) -> Iterator[Check]:
    hits: dict[str, list[bool]] = {"against": [], "declared": [], "pairs": [], "one seed": []}
    margins: dict[str, list[bool]] = {"same": [], "no worse": [], "held": [], "found": []}
    sd = float(np.sqrt(2 * (null.crossed**2 + REST_SD**2 / 3)))
    least = Design(QUERIES, 3, Assumption(sd, null.run), runs_df=6.0).detectable()
    for _ in range(draws):
        tests = _tests(systems(generator, null, (3, 3, 3), np.zeros(3)))
        hits["against"].append(tests.against[0].comparison.p <= ALPHA)
        hits["declared"].append(tests.comparisons[0].significant)
        hits["pairs"].append(bool(tests.pairs["c", "m"].significant.any()))
        tests = _tests(systems(generator, null, (3, 1, 3), np.zeros(3)), every=False)
        hits["one seed"].append(tests.against[0].significant)
        effects = np.array([0.0, -MARGIN, 0.0])
        tests = _tests(systems(generator, null, (3, 3, 3), effects), MARGIN, every=False)
        test = tests.against[0]
        margins["same"].append(test.equivalent)
        margins["no worse"].append(test.non_inferior)
        margins["held"].append(test.comparison.low <= -MARGIN <= test.comparison.high)
        effects = np.array([0.0, least, 0.0])
        tests = _tests(systems(generator, null, (3, 3, 3), effects), every=False)
        margins["found"].append(tests.against[0].significant)
    yield _check(null, "main table, 3 rows × 3 seeds", "false positives", hits["against"])
    yield _check(null, "declared comparison", "false positives", hits["declared"])
    # Holm over three pairs that share rows: below alpha, and above what one pair alone would give
    yield _check(null, "all pairs, Holm", "families with a false positive", hits["pairs"],
                 below=0.02)  # fmt: skip
    yield _check(null, "main table, one seed, run SD of 2 rows × 3", "false positives",
                 hits["one seed"], above=FEW_RUNS[4])  # fmt: skip
    # of two one-sided tests only one can err at the margin
    yield _check(null, "TOST at the margin", "false positives", margins["same"])
    yield _check(null, "non-inferiority at the margin", "false positives", margins["no worse"])
    yield _check(
        null, "interval of the main table", "intervals that hold it", margins["held"], 0.95
    )
    if null.run:  # else the test is cautious, and the power is that of the paired t-test at most
        yield _check(null, "difference that the power table gives", "power", margins["found"], 0.8,
                     above=0.02, below=0.03)  # fmt: skip


def _two_systems(generator: np.random.Generator, null: Null, draws: int) -> Iterator[Check]:
    for seeds in (3, 2):
        pairs = [systems(generator, null, (seeds, seeds), np.zeros(2)) for _ in range(draws)]
        p = np.array([difference(a, b).p for a, b in pairs])
        what = f"differences with runs random, {seeds} + {seeds} runs"
        yield _check(null, what, "false positives", p <= ALPHA, above=FEW_RUNS[2 * seeds - 2])


def _factors(generator: np.random.Generator, null: Null, draws: int) -> Iterator[Check]:
    terms = {("a",): "2 levels", ("b",): "3 levels", ("a", "b"): "interaction"}
    for label, dropped in (("", ()), (", unbalanced", (0, 1, 8))):
        rejected: dict[tuple[str, ...], list[bool]] = {term: [] for term in terms}
        simple = []
        for _ in range(draws):
            fitted = analyse(*grid(generator, null, dropped=dropped), confidence=None)
            for effect in fitted.effects[:-1]:
                rejected[effect.term].append(effect.p <= ALPHA)
            if not dropped:
                simple.append(simple_effects(fitted, "b", "a", None)["x"].p <= ALPHA)
        for term, hits in rejected.items():
            yield _check(null, f"factors, {terms[term]}{label}", "false positives", hits)
        if not dropped:
            yield _check(null, "simple effect, 3 levels", "false positives", simple)


def _sizes(generator: np.random.Generator, null: Null, draws: int) -> Iterator[Check]:
    """ω² and Tukey's intervals of a factor that has an effect."""
    effects = {"1": -EFFECT, "2": 0.0, "3": EFFECT}
    explained = float(np.var([*effects.values()]))
    # query × a, × b and × both at each score; what queries have in common is not in it
    spread = (
        (null.crossed**2 * (1 / 2 + 2 / 3 + 5 / 6) * 6 / 5 if null.crossed else 0.0)
        + null.run**2
        + REST_SD**2
    )
    truth = explained / (explained + spread)
    held, together, none = [], [], []
    for _ in range(draws):
        scores, levels = grid(generator, null)
        scores += np.array([effects[b] for b in levels["b"]])[:, None]
        fitted = analyse(scores, levels)
        size = fitted.effects[1]
        held.append(size.low <= truth <= size.high)
        none.append(fitted.effects[0].low > 0)
        together.append(
            all(
                pair.low <= effects[pair.first] - effects[pair.second] <= pair.high
                for pair in tukey(fitted, "b")
            )
        )
    yield _check(null, "interval of ω²", "intervals that hold it", held, 0.95)
    yield _check(null, "interval of ω² of no effect", "intervals above 0", none, ALPHA / 2,
                 below=CAUTIOUS)  # fmt: skip
    yield _check(null, "Tukey's intervals, 3 levels", "sets that hold all", together, 0.95)


def _these_models(generator: np.random.Generator, draws: int) -> Iterator[Check]:
    """One seed: the models are given, and only queries are random."""
    null = Null(0.05, 0)
    found = [
        [
            effect.p <= ALPHA
            for effect in analyse(*grid(generator, null, 1), confidence=None).effects[:-1]
        ]
        for _ in range(draws)
    ]
    for i, what in enumerate(("2 levels", "3 levels", "interaction")):
        hits = np.array(found)[:, i]
        yield _check(f"{null}, one seed", f"factors, {what}", "false positives", hits)
    pairs = [
        _tests(systems(generator, null, (1, 1), np.zeros(2)), every=False) for _ in range(draws)
    ]
    hits = [tests.against[0].significant for tests in pairs]
    yield _check(f"{null}, one seed", "main table", "false positives", hits)


def _replication(generator: np.random.Generator, draws: int) -> Iterator[Check]:
    """A published number is one more run of our system on the same queries."""
    for null in NULLS[2:]:
        hits = []
        for _ in range(draws):
            ours, *others = systems(generator, null, (4, 3, 3), np.zeros(3))
            published, runs = float(ours[:, 0].mean()), ours[:, 1:]
            pooled = pooled_seed_sd([table.mean(axis=0) for table in (runs, *others)])
            assert pooled is not None
            noise = Noise(3, *pooled)
            judged = verdict(published, float(runs.mean()), noise=noise, decimals=9)
            hits.append(judged.verdict == DIFFERS)
        yield _check(str(null), "replication verdict, 3 rows × 3 seeds", "“differs” of the same",
                     hits)  # fmt: skip
