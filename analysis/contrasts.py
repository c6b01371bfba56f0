"""Per-query scores + spec -> tests against the baselines, declared comparisons and all pairs.

Which tests are corrected together is decided here, once for all of them; see `Spec.family`.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.errors import Errors, Place, ScoresOf
from analysis.rows import Row
from analysis.significance import (
    Comparison,
    FloatArray,
    all_pairs,
    compact_letters,
    compare,
    correct,
    levels,
    margin_p,
    mean_error,
    paired_differences,
    t_of,
)
from analysis.spec import Spec

Key = tuple[str, str, Place]  # treatment, baseline, where
Family = tuple[str, Place | None]  # kind of test; the place, if each has a family of its own
# Corrected p, significance, size of the family, level at which each is tested.
Corrected = tuple[FloatArray, npt.NDArray[np.bool_], int, FloatArray]
NAN = float("nan")


@dataclass(frozen=True)
class Contrast:
    """Treatment minus baseline in one collection and measure, on the queries both have.

    Attributes
    ----------
    treatment, baseline : str
        Row names.
    collection, measure : str
        Where.
    comparison : Comparison
        Difference, interval, uncorrected p, d_z and the number of common queries.
    error, df : float
        Standard error of the difference and the degrees of freedom of its t distribution.
    of_choice : bool
        Whether `error` counts other training runs too, so that p (and the t-interval) speak about
        the choice; else they speak about these models on other queries.
    baseline_mean : float
        Mean of the baseline over the common queries.
    seeds : (tuple of int, tuple of int)
        Seeds on both sides; empty = does not depend on the seed.
    seed_differences : tuple of float
        Difference of each seed of the treatment to the baseline's mean over seeds.
    p_corrected : float
        Corrected p value.
    significant : bool
        Whether the corrected p value is at most alpha.
    family : int
        Number of tests corrected together.
    level : float
        Level at which the correction tests this one: significant means p at most this.
    p_equivalence, p_non_inferiority : float
        Corrected p values of "the same up to the margin" and "not worse by more than the margin",
        each kind in families of its own; NaN without a margin.
    equivalent, non_inferior : bool
        Whether those are at most alpha.
    """

    treatment: str
    baseline: str
    collection: str
    measure: str
    comparison: Comparison
    error: float
    df: float
    of_choice: bool
    baseline_mean: float
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    seed_differences: tuple[float, ...]
    p_corrected: float = NAN
    significant: bool = False
    family: int = 0
    level: float = NAN
    p_equivalence: float = NAN
    p_non_inferiority: float = NAN
    equivalent: bool = False
    non_inferior: bool = False

    @property
    def place(self) -> Place:
        """Collection and measure."""
        return self.collection, self.measure

    @property
    def single_seed(self) -> bool:
        """Whether either side is one training run."""
        return any(len(seeds) == 1 for seeds in self.seeds)


@dataclass(frozen=True)
class Pairs:
    """All pairs of rows in one collection and measure.

    Attributes
    ----------
    rows : tuple of str, k
        Names; rows that cover other queries than the rest are not among them.
    means : ndarray, shape [k]
        Mean scores.
    p : ndarray, shape [k, k]
        Uncorrected p values, symmetric, NaN on the diagonal.
    p_corrected : ndarray, shape [k, k]
        Likewise.
    significant : ndarray of bool, shape [k, k]
        Whether the corrected p value is at most alpha.
    letters : tuple of str, k
        Rows that share a letter do not differ significantly; "a" is the best.
    family : int
        Number of tests corrected together.
    of_choice : ndarray of bool, shape [k, k]
        As of `Contrast`, of each pair.
    """

    rows: tuple[str, ...]
    means: FloatArray
    p: FloatArray
    p_corrected: FloatArray
    significant: npt.NDArray[np.bool_]
    of_choice: npt.NDArray[np.bool_]
    letters: tuple[str, ...] = ()
    family: int = 0


@dataclass(frozen=True)
class Tests:
    """Every test of a spec, corrected."""

    against: tuple[Contrast, ...]
    comparisons: tuple[Contrast, ...]
    pairs: dict[Place, Pairs]


class Common(NamedTuple):
    """Two rows on the queries of both: ids [n], scores [n, seeds], means over seeds [n]."""

    queries: tuple[str, ...]
    treatment: FloatArray
    baseline: FloatArray


def run_tests(
    spec: Spec, places: Sequence[Place], scores: ScoresOf, healthy: Collection[str]
) -> Tests:
    """Make and correct every test that the spec asks for and the scores allow.

    `healthy` names the rows whose runs tell how far a run carries; see `analysis.errors`.
    """
    rows = {row.name: row for row in spec.rows}
    errors = Errors(rows, scores, healthy, choices=spec.test == "t")
    against_baselines, declared = wanted(spec, places, scores)
    contrasts = _contrasts([*against_baselines, *declared], errors, spec)
    against = [contrasts[key] for key in against_baselines if key in contrasts]
    comparisons = [contrasts[key] for key in declared if key in contrasts]
    alone = all_pairs_at(spec, places)
    pairs = {p: square for p in alone if (square := _pairs(spec.rows, p, errors, spec.test))}
    against, comparisons, pairs = _corrected(spec, against, comparisons, pairs)
    if spec.margin is not None:
        against = _equivalences(spec, spec.margin, against)
    return Tests(tuple(against), tuple(comparisons), pairs)


def wanted(
    spec: Spec, places: Sequence[Place], scores: Container[tuple[str, str, str]]
) -> tuple[list[Key], list[Key]]:
    """The tests against the baselines and the declared ones, of rows that have scores.

    Rows that have a pooled collection are not tested on its parts as well.
    """
    against = [
        (row.name, baseline, place)
        for place in places
        for i, baseline in enumerate(spec.baselines)
        for row in spec.rows
        # Of two baselines, the first is not tested against the second as well.
        if row.test and row.name not in spec.baselines[: i + 1]
    ]
    declared = [(a, b, place) for a, b in spec.comparisons for place in places]

    def made(key: Key) -> bool:
        a, b, place = key
        both = (a, *place) in scores and (b, *place) in scores
        return both and not _in_pool(key, spec, scores)

    return list(filter(made, against)), list(filter(made, declared))


def all_pairs_at(spec: Spec, places: Sequence[Place]) -> list[Place]:
    """Where all pairs of rows are tested: not on the parts of pooled collections."""
    parts = {part for pool in spec.pools for part in pool.of}
    return [place for place in places if spec.all_pairs and place[0] not in parts]


def _in_pool(key: Key, spec: Spec, scores: Container[tuple[str, str, str]]) -> bool:
    """Whether two rows are tested on a pool that holds this collection, and so not here as well."""
    a, b, (collection, measure) = key
    return any(
        collection in pool.of
        and (a, pool.name, measure) in scores
        and (b, pool.name, measure) in scores
        for pool in spec.pools
    )


def _contrasts(keys: Iterable[Key], errors: Errors, spec: Spec) -> dict[Key, Contrast]:
    """Uncorrected contrasts; those on as many queries are computed together."""
    by_size: dict[int, list[tuple[Key, Common, FloatArray]]] = {}
    for key in dict.fromkeys(keys):
        common = _common(*key, errors.scores)
        if common is not None:
            d = paired_differences(common.treatment.mean(axis=1), common.baseline)
            by_size.setdefault(len(d), []).append((key, common, d))
    contrasts = {}
    for group in by_size.values():
        differences = np.stack([d for *_, d in group])
        results = compare(differences, spec.test, spec.interval)
        squares = mean_error(differences)[1] ** 2
        for (key, common, _), result, square in zip(group, results, squares, strict=True):
            contrasts[key] = _contrast(key, common, result, float(square), errors, spec)
    return contrasts


def _contrast(
    key: Key, common: Common, result: Comparison, square: float, errors: Errors, spec: Spec
) -> Contrast:
    """A contrast on the error that its claim needs; `square` is the squared one over queries."""
    a, b, place = key
    [error], [df], [choice] = errors.of([(a, b)], place, common.queries, [square])
    if choice:
        low, high, p = map(float, t_of(result.difference, error, df))
        result = replace(result, p=p)
        if spec.interval == "t":
            result = replace(result, low=low, high=high)
    means = common.treatment.mean(axis=0) - common.baseline.mean()
    return Contrast(
        treatment=a,
        baseline=b,
        collection=place[0],
        measure=place[1],
        comparison=result,
        error=float(error),
        df=float(df),
        of_choice=bool(choice),
        baseline_mean=float(common.baseline.mean()),
        seeds=(errors.scores[a, *place].seeds, errors.scores[b, *place].seeds),
        seed_differences=tuple(means.tolist()),
    )


def _common(a: str, b: str, place: Place, scores: ScoresOf) -> Common | None:
    """What two rows have on the queries of both; None without any."""
    if (a, *place) not in scores or (b, *place) not in scores:
        return None
    treatment, baseline = scores[a, *place], scores[b, *place]
    if treatment.queries == baseline.queries:
        return Common(treatment.queries, treatment.values, baseline.per_query)
    queries, in_a, in_b = np.intersect1d(
        treatment.queries, baseline.queries, assume_unique=True, return_indices=True
    )
    if not len(in_a):
        return None
    return Common(tuple(queries.tolist()), treatment.values[in_a], baseline.per_query[in_b])


def _pairs(rows: Iterable[Row], place: Place, errors: Errors, test: str) -> Pairs | None:
    """Uncorrected; None with fewer than two rows of the same queries."""
    scores = errors.scores
    present = [row.name for row in rows if row.test and (row.name, *place) in scores]
    most = max((len(scores[name, *place].queries) for name in present), default=0)
    names = tuple(name for name in present if len(scores[name, *place].queries) == most)
    if len(names) < 2 or most == 0:
        return None
    values = np.stack([scores[name, *place].per_query for name in names])
    means, p = values.mean(axis=1), all_pairs(values, test)
    choice = np.zeros(p.shape, dtype=bool)
    if errors.choices:
        pairs = list(combinations(range(len(names)), 2))
        square = np.concatenate(
            [mean_error(paired_differences(values[i + 1 :], values[i]))[1] ** 2
             for i in range(len(names) - 1)]
        )  # fmt: skip
        named = [(names[i], names[j]) for i, j in pairs]
        error, df, counted = errors.of(named, place, scores[names[0], *place].queries, square)
        upper = np.triu_indices(len(names), 1)
        with_runs = t_of(means[upper[1]] - means[upper[0]], error, df)[2]
        choice[upper] = choice.T[upper] = counted
        p[upper] = p.T[upper] = np.where(counted, with_runs, p[upper])
    return Pairs(names, means, p, p, np.zeros(p.shape, dtype=bool), choice)


def _corrected(
    spec: Spec,
    against: Sequence[Contrast],
    comparisons: Sequence[Contrast],
    pairs: Mapping[Place, Pairs],
) -> tuple[list[Contrast], list[Contrast], dict[Place, Pairs]]:
    """All tests with their corrected p values."""
    p_values: list[tuple[Family, npt.ArrayLike]] = [
        *((_family(spec, "against", c.place), [c.comparison.p]) for c in against),
        *((_family(spec, "comparisons"), [c.comparison.p]) for c in comparisons),
        *(
            (_family(spec, "pairs", place), square.p[np.triu_indices(len(square.rows), 1)])
            for place, square in pairs.items()
        ),
    ]
    results = iter(_correct(p_values, spec))

    def corrected(contrast: Contrast) -> Contrast:
        p, significant, size, level = next(results)
        return replace(
            contrast,
            p_corrected=float(p[0]),
            significant=bool(significant[0]),
            family=size,
            level=float(level[0]),
        )

    return (
        [corrected(contrast) for contrast in against],
        [corrected(contrast) for contrast in comparisons],
        {place: _square(square, *next(results)[:3]) for place, square in pairs.items()},
    )


def _family(spec: Spec, kind: str, place: Place | None = None) -> Family:
    """The family of a test; see `Spec.family`."""
    if spec.family == "grid":
        return ("grid", None)
    return (kind, place if spec.family == "collection" else None)


def _correct(p_values: Sequence[tuple[Family, npt.ArrayLike]], spec: Spec) -> list[Corrected]:
    """Correct arrays of p values, family by family."""
    families: dict[Family, list[int]] = {}
    for i, (family, _) in enumerate(p_values):
        families.setdefault(family, []).append(i)
    results: dict[int, Corrected] = {}
    for members in families.values():
        parts = [np.atleast_1d(p_values[i][1]) for i in members]
        whole = np.concatenate(parts)
        adjusted, significant = correct(whole, spec.correction, spec.alpha)
        size = int((~np.isnan(whole)).sum())
        ends = np.cumsum([len(part) for part in parts])[:-1]
        columns = (adjusted, significant, levels(whole, spec.correction, spec.alpha))
        split = zip(members, *(np.split(column, ends) for column in columns), strict=True)
        results.update({i: (p, s, size, level) for i, p, s, level in split})
    return [results[i] for i in range(len(p_values))]


def _square(
    pairs: Pairs, adjusted: FloatArray, significant: npt.NDArray[np.bool_], size: int
) -> Pairs:
    upper = np.triu_indices(len(pairs.rows), 1)
    p, different = np.full_like(pairs.p, np.nan), np.zeros(pairs.p.shape, dtype=bool)
    p[upper], different[upper] = adjusted, significant
    p.T[upper], different.T[upper] = adjusted, significant
    letters = compact_letters(different, pairs.means)
    return replace(pairs, p_corrected=p, significant=different, letters=letters, family=size)


def _equivalences(spec: Spec, margin: float, against: Sequence[Contrast]) -> list[Contrast]:
    """Add equivalence and non-inferiority, corrected in the families of the main tests."""
    p_values: list[tuple[Family, npt.ArrayLike]] = []
    for contrast in against:
        place = contrast.place if spec.family == "collection" else None
        same, no_worse = margin_p(
            contrast.comparison.difference, contrast.error, contrast.df, margin
        )
        p_values.append((("equivalence", place), same))
        p_values.append((("non-inferiority", place), no_worse))
    results = _correct(p_values, spec)
    return [
        replace(
            contrast,
            p_equivalence=float(same[0][0]),
            equivalent=bool(same[1][0]),
            p_non_inferiority=float(no_worse[0][0]),
            non_inferior=bool(no_worse[1][0]),
        )
        for contrast, same, no_worse in zip(against, results[::2], results[1::2], strict=True)
    ]
