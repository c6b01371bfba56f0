"""Per-query scores + spec -> tests against the baselines, declared comparisons and all pairs.

Which tests are corrected together is decided here, once for all of them; see `Spec.family`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.scores import Scores
from analysis.significance import (
    Comparison,
    FloatArray,
    all_pairs,
    compact_letters,
    compare,
    correct,
    equivalence,
    non_inferiority,
    paired_differences,
)
from analysis.spec import Row, Spec

Place = tuple[str, str]  # collection, measure
ScoresOf = Mapping[tuple[str, str, str], Scores]  # by row, collection, measure
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
    baseline_mean: float
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    seed_differences: tuple[float, ...]
    p_corrected: float = NAN
    significant: bool = False
    family: int = 0
    p_equivalence: float = NAN
    p_non_inferiority: float = NAN
    equivalent: bool = False
    non_inferior: bool = False

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
    """

    rows: tuple[str, ...]
    means: FloatArray
    p: FloatArray
    p_corrected: FloatArray
    significant: npt.NDArray[np.bool_]
    letters: tuple[str, ...] = ()
    family: int = 0


@dataclass(frozen=True)
class Tests:
    """Every test of a spec, corrected."""

    against: tuple[Contrast, ...]
    comparisons: tuple[Contrast, ...]
    pairs: dict[Place, Pairs]


def run_tests(spec: Spec, places: Sequence[Place], scores: ScoresOf) -> Tests:
    """Make and correct every test that the spec asks for and the scores allow."""
    wanted = [
        (row.name, baseline, place)
        for place in places
        for i, baseline in enumerate(spec.baselines)
        for row in spec.rows
        # Of two baselines, the first is not tested against the second as well.
        if row.test and row.name not in spec.baselines[: i + 1]
    ]
    declared = [(a, b, place) for a, b in spec.comparisons for place in places]
    drafts = _contrasts([*wanted, *declared], scores, spec)
    against = [c for key in wanted if (c := drafts.get(key))]
    comparisons = [c for key in declared if (c := drafts.get(key))]
    pairs: dict[Place, Pairs] = {}
    if spec.all_pairs:
        pairs = {p: square for p in places if (square := _pairs(spec.rows, p, scores, spec.test))}
    against, comparisons, pairs = _corrected(spec, against, comparisons, pairs)
    if spec.margin is not None:
        against = _equivalences(spec, against, scores)
    return Tests(tuple(against), tuple(comparisons), pairs)


def _contrasts(
    wanted: Iterable[tuple[str, str, Place]], scores: ScoresOf, spec: Spec
) -> dict[tuple[str, str, Place], Contrast]:
    """Uncorrected contrasts; those on as many queries are computed together."""
    by_size: dict[int, list[tuple[tuple[str, str, Place], FloatArray]]] = {}
    for key in dict.fromkeys(wanted):
        common = _common(*key, scores)
        if common is not None:
            treatment, reference = common
            d = paired_differences(treatment.mean(axis=1), reference)
            by_size.setdefault(len(d), []).append((key, d))
    contrasts = {}
    for group in by_size.values():
        results = compare(np.stack([d for _, d in group]), spec.test, spec.interval)
        for (key, _), comparison in zip(group, results, strict=True):
            contrasts[key] = _contrast(*key, comparison, scores)
    return contrasts


def _contrast(a: str, b: str, place: Place, comparison: Comparison, scores: ScoresOf) -> Contrast:
    common = _common(a, b, place, scores)
    assert common is not None
    treatment, reference = common
    return Contrast(
        treatment=a,
        baseline=b,
        collection=place[0],
        measure=place[1],
        comparison=comparison,
        baseline_mean=float(reference.mean()),
        seeds=(scores[a, *place].seeds, scores[b, *place].seeds),
        seed_differences=tuple((treatment.mean(axis=0) - reference.mean()).tolist()),
    )


def _common(a: str, b: str, place: Place, scores: ScoresOf) -> tuple[FloatArray, FloatArray] | None:
    """Values [n, seeds] of `a` and means over seeds [n] of `b` on the queries that both have."""
    if (a, *place) not in scores or (b, *place) not in scores:
        return None
    treatment, baseline = scores[a, *place], scores[b, *place]
    if treatment.queries == baseline.queries:
        return treatment.values, baseline.per_query
    _, in_a, in_b = np.intersect1d(
        treatment.queries, baseline.queries, assume_unique=True, return_indices=True
    )
    return (treatment.values[in_a], baseline.per_query[in_b]) if len(in_a) else None


def _pairs(rows: Iterable[Row], place: Place, scores: ScoresOf, test: str) -> Pairs | None:
    """Uncorrected; None with fewer than two rows of the same queries."""
    present = [row.name for row in rows if row.test and (row.name, *place) in scores]
    most = max((len(scores[name, *place].queries) for name in present), default=0)
    names = tuple(name for name in present if len(scores[name, *place].queries) == most)
    if len(names) < 2 or most == 0:
        return None
    values = np.stack([scores[name, *place].per_query for name in names])
    p = all_pairs(values, test)
    return Pairs(names, values.mean(axis=1), p, p, np.zeros(p.shape, dtype=bool))


def _corrected(
    spec: Spec,
    against: Sequence[Contrast],
    comparisons: Sequence[Contrast],
    pairs: Mapping[Place, Pairs],
) -> tuple[list[Contrast], list[Contrast], dict[Place, Pairs]]:
    families: dict[object, list[FloatArray]] = {}
    keys: list[object] = []

    def add(kind: str, place: Place, p: npt.ArrayLike) -> None:
        key: object = (kind, place) if spec.family == "collection" else kind
        if kind == "comparisons":
            key = kind
        keys.append("grid" if spec.family == "grid" else key)
        families.setdefault(keys[-1], []).append(np.atleast_1d(p))

    for c in against:
        add("against", (c.collection, c.measure), c.comparison.p)
    for c in comparisons:
        add("comparisons", (c.collection, c.measure), c.comparison.p)
    for place, square in pairs.items():
        add("pairs", place, square.p[np.triu_indices(len(square.rows), 1)])
    results = {key: iter(_correct(parts, spec)) for key, parts in families.items()}
    order = iter([next(results[key]) for key in keys])

    def contrasts(old: Sequence[Contrast]) -> list[Contrast]:
        new = []
        for c in old:
            p, significant, size = next(order)
            new.append(
                replace(c, p_corrected=float(p[0]), significant=bool(significant[0]), family=size)
            )
        return new

    first, second = contrasts(against), contrasts(comparisons)
    return first, second, {place: _square(square, *next(order)) for place, square in pairs.items()}


def _correct(
    parts: Sequence[FloatArray], spec: Spec
) -> list[tuple[FloatArray, npt.NDArray[np.bool_], int]]:
    """Correct arrays of p values as one family; give them back in parts, with its size."""
    whole = np.concatenate(parts)
    adjusted, significant = correct(whole, spec.correction, spec.alpha)
    size = int((~np.isnan(whole)).sum())
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return [
        (p, s, size)
        for p, s in zip(np.split(adjusted, ends), np.split(significant, ends), strict=True)
    ]


def _square(
    pairs: Pairs, adjusted: FloatArray, significant: npt.NDArray[np.bool_], size: int
) -> Pairs:
    upper = np.triu_indices(len(pairs.rows), 1)
    p, different = np.full_like(pairs.p, np.nan), np.zeros(pairs.p.shape, dtype=bool)
    p[upper], different[upper] = adjusted, significant
    p.T[upper], different.T[upper] = adjusted, significant
    letters = compact_letters(different, pairs.means)
    return replace(pairs, p_corrected=p, significant=different, letters=letters, family=size)


def _equivalences(spec: Spec, against: Sequence[Contrast], scores: ScoresOf) -> list[Contrast]:
    """Add equivalence and non-inferiority, corrected in the families of the main tests."""
    assert spec.margin is not None
    families: dict[object, list[int]] = {}
    both: list[tuple[float, float]] = []
    for i, c in enumerate(against):
        place = (c.collection, c.measure)
        common = _common(c.treatment, c.baseline, place, scores)
        assert common is not None
        d = paired_differences(common[0].mean(axis=1), common[1])
        both.append((float(equivalence(d, spec.margin)), float(non_inferiority(d, spec.margin))))
        families.setdefault(place if spec.family == "collection" else "all", []).append(i)
    new = list(against)
    for members in families.values():
        p = np.array([both[i] for i in members])
        same, equivalent = correct(p[:, 0], spec.correction, spec.alpha)
        no_worse, non_inferior = correct(p[:, 1], spec.correction, spec.alpha)
        for j, i in enumerate(members):
            new[i] = replace(
                new[i],
                p_equivalence=float(same[j]),
                equivalent=bool(equivalent[j]),
                p_non_inferiority=float(no_worse[j]),
                non_inferior=bool(non_inferior[j]),
            )
    return new
