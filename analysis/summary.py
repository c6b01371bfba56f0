"""Tidy frame + spec -> the numbers of the table: means, paired tests, corrections.

All arithmetic of a table happens here, on arrays; words and marks are `report`'s. Scores are
paired by (collection, query_id); a value of a row is the mean over queries of the per-query mean
over seeds, and the tests see those per-query means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.comparability import ComparabilityError, collection_facts, query_difference
from analysis.significance import SAME_ABS, SAME_REL, Comparison, FloatArray, holm, paired_t
from analysis.spec import REFERENCES, Row, Spec
from analysis.trials import Trials


@dataclass(frozen=True)
class Scores:
    """Per-query scores of one row in one collection and measure.

    Attributes
    ----------
    queries : tuple of str, n
        Sorted query ids.
    values : ndarray, shape [n, s]
        One column per seed (one column if the row does not depend on the seed).
    seeds : tuple of int, s
        The seeds of the columns; empty if every trial gives the same values.
    """

    queries: tuple[str, ...]
    values: FloatArray
    seeds: tuple[int, ...]

    @property
    def per_query(self) -> FloatArray:
        """Mean over seeds, shape [n]."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def mean(self) -> float:
        """Mean over queries of the mean over seeds."""
        return float(self.per_query.mean())

    @property
    def seed_means(self) -> FloatArray:
        """Mean over queries of each seed, shape [s]."""
        return np.asarray(self.values.mean(axis=0))


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
    p_holm : float
        Corrected p value.
    significant : bool
        Whether the corrected p value is at most alpha.
    family : int
        Number of tests corrected together.
    """

    treatment: str
    baseline: str
    collection: str
    measure: str
    comparison: Comparison
    baseline_mean: float
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    seed_differences: tuple[float, ...]
    p_holm: float = float("nan")
    significant: bool = False
    family: int = 0

    @property
    def single_seed(self) -> bool:
        """Whether either side is one training run."""
        return any(len(seeds) == 1 for seeds in self.seeds)


@dataclass(frozen=True)
class Summary:
    """The numbers of one table.

    Attributes
    ----------
    spec : Spec
        What was asked for.
    trials : Trials
        What it was computed from.
    collections : tuple of str
        In the order of the columns.
    collection_facts : dict
        collection -> its facts (queries, k, first stage, digest, ...), equal in every trial.
    scores : dict
        (row, collection, measure) -> `Scores`; absent = missing.
    contrasts : dict
        (row, collection, measure) -> `Contrast` with the spec's baseline.
    comparisons : tuple of Contrast
        The spec's `comparisons`, in its order, then by collection and measure.
    signatures : dict
        row -> signatures of the trials found for it.
    """

    spec: Spec
    trials: Trials
    collections: tuple[str, ...]
    collection_facts: dict[str, dict[str, Any]]
    scores: dict[tuple[str, str, str], Scores]
    contrasts: dict[tuple[str, str, str], Contrast]
    comparisons: tuple[Contrast, ...]
    signatures: dict[str, tuple[str, ...]]

    @property
    def places(self) -> list[tuple[str, str]]:
        """(collection, measure) of every column; before the first trial with a nameless one."""
        return [(c, m) for c in self.collections or ("",) for m in self.spec.measures]

    def scores_of(self, row: str) -> list[Scores]:
        """Scores of one row in every column that has them."""
        return [self.scores[row, c, m] for c, m in self.places if (row, c, m) in self.scores]


def summarise(spec: Spec, trials: Trials) -> Summary:
    """All numbers of the table of `spec`.

    Raises
    ------
    ComparabilityError
        If two trials differ in the data of a collection; if two rows (the teacher apart, which may
        cover a subset) or two seeds have other queries; if a row mixes cells that differ in more
        than the seed; if a reference row is not the same in all of its trials.
    """
    facts = collection_facts(trials.facts)
    collections = spec.collections or tuple(facts)
    signatures = {row.name: _signatures(row, trials) for row in spec.rows}
    series = _series(trials.frame, collections, spec.measures)
    places = [(c, m) for c in collections for m in spec.measures]
    scores: dict[tuple[str, str, str], Scores] = {}
    for row in spec.rows:
        for collection, measure in places:
            found = _scores(row, signatures[row.name], series, collection, measure, trials)
            if found is not None:
                scores[row.name, collection, measure] = found
    for collection, measure in places:
        _check_queries(spec.rows, scores, collection, measure)

    against = []
    if spec.baseline is not None:
        against = [
            contrast
            for collection, measure in places
            for row in spec.rows
            if row.test and row.name != spec.baseline
            if (contrast := _contrast(row.name, spec.baseline, collection, measure, scores))
        ]
    families: dict[object, list[Contrast]] = {}
    for contrast in against:
        place = (contrast.collection, contrast.measure)
        families.setdefault(place if spec.family == "collection" else "all", []).append(contrast)
    corrected = [c for family in families.values() for c in _correct(family, spec.alpha)]
    pairs = [
        contrast
        for treatment, baseline in spec.comparisons
        for collection, measure in places
        if (contrast := _contrast(treatment, baseline, collection, measure, scores))
    ]
    return Summary(
        spec=spec,
        trials=trials,
        collections=collections,
        collection_facts=facts,
        scores=scores,
        contrasts={(c.treatment, c.collection, c.measure): c for c in corrected},
        comparisons=tuple(_correct(pairs, spec.alpha)),
        signatures=signatures,
    )


def _cells(row: Row, trials: Trials) -> list[Any]:
    return [cell for cell in trials.cells if not row.grids or cell.grid in row.grids]


def _signatures(row: Row, trials: Trials) -> tuple[str, ...]:
    cells = _cells(row, trials)
    if row.system not in REFERENCES:
        by_setting = {_setting(cell.overrides): cell.overrides for cell in cells}
        if len(by_setting) > 1:
            raise ComparabilityError(
                f"row {row.name!r} mixes cells that differ in more than the seed: "
                + " | ".join(" ".join(overrides) for overrides in by_setting.values())
                + "; give each its own sub-grid"
            )
    return tuple(dict.fromkeys(c.signature for c in cells if c.signature in trials.facts))


def _setting(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(o for o in overrides if not o.startswith("seed=")))


Key = tuple[str, str, str, str]


def _series(
    frame: pd.DataFrame, collections: Iterable[str], measures: Iterable[str]
) -> dict[Key, tuple[tuple[str, ...], FloatArray]]:
    """(signature, system, collection, measure) -> (sorted query ids, values)."""
    wanted = frame["collection"].isin(list(collections)) & frame["measure"].isin(list(measures))
    # A trial that stands in two sub-grids is in the frame twice, with the same values.
    chosen = frame[wanted].drop(columns="grid").drop_duplicates()
    chosen = chosen.sort_values("query_id", kind="stable")
    keys = ["signature", "system", "collection", "measure"]
    return {
        key: (tuple(part["query_id"].tolist()), part["value"].to_numpy(dtype=np.float64))
        for key, part in chosen.groupby(keys, sort=False)
    }


def _scores(
    row: Row,
    signatures: tuple[str, ...],
    series: dict[Key, tuple[tuple[str, ...], FloatArray]],
    collection: str,
    measure: str,
    trials: Trials,
) -> Scores | None:
    found = [
        (signature, *series[signature, row.system, collection, measure])
        for signature in signatures
        if (signature, row.system, collection, measure) in series
    ]
    if not found:
        return None
    first, queries, values = found[0]
    for signature, others, _ in found[1:]:
        if others != queries:
            raise ComparabilityError(
                f"row {row.name!r}, {collection}, {measure}: "
                + query_difference(
                    f"trial {first[:12]}", queries, f"trial {signature[:12]}", others
                )
            )
    if row.system in REFERENCES:
        differing = next((f for f in found if not _same(f[2], values).all()), None)
        if differing is None:
            return Scores(queries, values[:, None], ())
        settings = {_setting(cell.overrides) for cell in _cells(row, trials)}
        # A teacher may itself be random (the shuffled one is); then its seeds are averaged.
        if row.system != "teacher" or len(settings) > 1:
            at = int(np.argmin(_same(differing[2], values)))
            raise ComparabilityError(
                f"row {row.name!r}: the {row.system} of trials {first[:12]} and "
                f"{differing[0][:12]} is not the same: {collection} query {queries[at]}, "
                f"{measure} {values[at]} and {differing[2][at]}"
            )
    order = sorted(range(len(found)), key=lambda i: trials.facts[found[i][0]]["seed"])
    return Scores(
        queries=queries,
        values=np.column_stack([found[i][2] for i in order]),
        seeds=tuple(int(trials.facts[found[i][0]]["seed"]) for i in order),
    )


def _same(a: FloatArray, b: FloatArray) -> npt.NDArray[np.bool_]:
    return np.isclose(a, b, rtol=SAME_REL, atol=SAME_ABS)


def _check_queries(
    rows: Iterable[Row],
    scores: dict[tuple[str, str, str], Scores],
    collection: str,
    measure: str,
) -> None:
    """Every row has the same queries; a teacher's may be a subset of them."""
    present = [row for row in rows if (row.name, collection, measure) in scores]
    full = [row for row in present if row.system != "teacher"]
    if not full:
        return
    expected = scores[full[0].name, collection, measure].queries
    for row in present:
        queries = scores[row.name, collection, measure].queries
        if queries == expected or (row.system == "teacher" and set(queries) <= set(expected)):
            continue
        raise ComparabilityError(
            f"{collection}, {measure}: "
            + query_difference(f"row {full[0].name!r}", expected, f"row {row.name!r}", queries)
        )


def _contrast(
    treatment: str,
    baseline: str,
    collection: str,
    measure: str,
    scores: dict[tuple[str, str, str], Scores],
) -> Contrast | None:
    a = scores.get((treatment, collection, measure))
    b = scores.get((baseline, collection, measure))
    if a is None or b is None:
        return None
    _, in_a, in_b = np.intersect1d(a.queries, b.queries, assume_unique=True, return_indices=True)
    if not len(in_a):
        return None
    reference = b.per_query[in_b]
    return Contrast(
        treatment=treatment,
        baseline=baseline,
        collection=collection,
        measure=measure,
        comparison=paired_t(a.per_query[in_a], reference),
        baseline_mean=float(reference.mean()),
        seeds=(a.seeds, b.seeds),
        seed_differences=tuple((a.values[in_a].mean(axis=0) - reference.mean()).tolist()),
    )


def _correct(family: Sequence[Contrast], alpha: float) -> list[Contrast]:
    p = np.array([contrast.comparison.p for contrast in family], dtype=np.float64)
    adjusted, reject = holm(p, alpha)
    size = int((~np.isnan(p)).sum())
    return [
        replace(contrast, p_holm=float(adjusted[i]), significant=bool(reject[i]), family=size)
        for i, contrast in enumerate(family)
    ]
