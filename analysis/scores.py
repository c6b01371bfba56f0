"""Tidy frame -> per-query scores of each row, after checking that they may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.comparability import ComparabilityError, query_difference
from analysis.pools import Pool, design
from analysis.rows import REFERENCES, Row, level_of, settings
from analysis.significance import FloatArray
from analysis.trials import Trials, imported_as
from rdx.config import Cell
from rdx.equality import same


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


def training_runs(row: Row, scores: Scores) -> int:
    """Training runs behind the scores of a row; 0 for a system that is not trained."""
    return max(1, len(scores.seeds)) if row.trained else 0


def _cells(row: Row, trials: Trials) -> list[Cell]:
    return [cell for cell in trials.cells if row.holds(cell)]


def signatures_of(row: Row, trials: Trials, pools: Sequence[Pool] = ()) -> tuple[str, ...]:
    """Signatures of the trials that make up a row, in the order of its cells.

    Raises
    ------
    ComparabilityError
        If its cells differ in more than the seed and, of pooled collections, the fold.
    """
    if row.imported:
        return imported_as(trials, row.imported)
    cells = _cells(row, trials)
    if row.system not in REFERENCES:
        keys = [key for key in design(trials.cells, pools) if key != "seed"] if pools else None
        apart = settings(cells) if keys is None else {
            tuple(level_of(cell, key) for key in keys): cell for cell in cells
        }  # fmt: skip
        if len(apart) > 1:
            raise ComparabilityError(
                f"row {row.name!r} mixes cells that differ in more than the seed: "
                + " | ".join(" ".join(cell.overrides) for cell in apart.values())
                + "; give each its own row"
            )
    signatures = [cell.signature for cell in cells if cell.signature in trials.facts]
    signatures += [signature for name in row.imports for signature in imported_as(trials, name)]
    return tuple(dict.fromkeys(signatures))


Key = tuple[str, str, str, str]


def series(
    frame: pd.DataFrame, collections: Iterable[str], measures: Iterable[str]
) -> dict[Key, tuple[tuple[str, ...], FloatArray]]:
    """(signature, system, collection, measure) -> (sorted query ids, values)."""
    wanted = frame["collection"].isin(list(collections)) & frame["measure"].isin(list(measures))
    # A trial that stands in two sub-grids is in the frame twice, with the same values.
    first = frame["grid"] == frame.groupby("signature")["grid"].transform("first")
    chosen = frame[wanted & first].sort_values("query_id", kind="stable")
    keys = ["signature", "system", "collection", "measure"]
    return {
        key: (tuple(part["query_id"].tolist()), part["value"].to_numpy(dtype=np.float64))
        for key, part in chosen.groupby(keys, sort=False)
    }


def scores_of(
    row: Row,
    signatures: tuple[str, ...],
    series: dict[Key, tuple[tuple[str, ...], FloatArray]],
    collection: str,
    measure: str,
    trials: Trials,
) -> Scores | None:
    """Scores of one row in one collection and measure; None if no trial holds them.

    Raises
    ------
    ComparabilityError
        If two trials have other queries, or a reference is not the same in all of them.
    """
    parts = [
        (signature, *series[signature, row.system, collection, measure])
        for signature in signatures
        if (signature, row.system, collection, measure) in series
    ]
    if not parts:
        return None
    first, queries, values = parts[0]
    for signature, others, _ in parts[1:]:
        if others != queries:
            raise ComparabilityError(
                f"row {row.name!r}, {collection}, {measure}: "
                + query_difference(
                    f"trial {first[:12]}", queries, f"trial {signature[:12]}", others
                )
            )
    if row.system in REFERENCES:
        differing = next((f for f in parts if not same(f[2], values).all()), None)
        if differing is None:
            return Scores(queries, values[:, None], ())
        # A teacher may itself be random (the shuffled one is); then its seeds are averaged.
        if row.system != "teacher" or len(settings(_cells(row, trials))) > 1:
            at = int(np.argmin(same(differing[2], values)))
            raise ComparabilityError(
                f"row {row.name!r}: the {row.system} of trials {first[:12]} and "
                f"{differing[0][:12]} is not the same: {collection} query {queries[at]}, "
                f"{measure} {values[at]} and {differing[2][at]}"
            )
    if row.imported:  # how it was trained, and how often, is not known
        return Scores(queries, values[:, None], ())
    order = sorted(range(len(parts)), key=lambda i: trials.facts[parts[i][0]].seed)
    return Scores(
        queries=queries,
        values=np.column_stack([parts[i][2] for i in order]),
        seeds=tuple(trials.facts[parts[i][0]].seed for i in order),
    )


def check_queries(
    rows: Iterable[Row],
    scores: dict[tuple[str, str, str], Scores],
    collection: str,
    measure: str,
) -> None:
    """Every row has the same queries; a teacher and an imported run may cover a subset of them.

    Raises
    ------
    ComparabilityError
        If another row has other queries; the message names some of them.
    """
    present = [row for row in rows if (row.name, collection, measure) in scores]
    full = [row for row in present if not _may_be_partial(row)]
    if not full:
        return
    expected = scores[full[0].name, collection, measure].queries
    for row in present:
        queries = scores[row.name, collection, measure].queries
        if queries == expected or (_may_be_partial(row) and set(queries) <= set(expected)):
            continue
        raise ComparabilityError(
            f"{collection}, {measure}: "
            + query_difference(f"row {full[0].name!r}", expected, f"row {row.name!r}", queries)
        )


def _may_be_partial(row: Row) -> bool:
    return row.system == "teacher" or bool(row.imported)
