"""On what error a difference of two rows rests: other queries, or other training runs as well.

A mark is a claim about a *choice* (this loss, this sampler) where the runs can be counted in: the
test is the t-test, a side is trained, and some row of the kind has two healthy seeds. Else it is a
claim about the models at hand: what they would do on other queries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from analysis.rows import Row
from analysis.scores import Scores, training_runs
from analysis.significance import FloatArray, Runs, counted_in

BoolArray = npt.NDArray[np.bool_]
Place = tuple[str, str]  # collection, measure
ScoresOf = Mapping[tuple[str, str, str], Scores]  # by row, collection, measure


def of_the_kind(rows: Iterable[Row], a: Row, b: Row, healthy: Collection[str]) -> list[Row]:
    """Further rows whose variance between runs stands for that of two rows as well.

    Trained and healthy ones of the same system as either side: interpolation with a first stage
    changes the variance, and shares the runs of the students that it is made from.
    """
    return [
        row
        for row in rows
        if row.trained
        and row.system in (a.system, b.system)
        and row.name in healthy
        and row.name not in (a.name, b.name)
    ]


@dataclass(frozen=True)
class Errors:
    """Standard errors of differences between the rows of a spec.

    Attributes
    ----------
    rows : dict
        Name -> row of the spec.
    scores : mapping
        (row, collection, measure) -> `Scores`.
    healthy : collection of str
        Names of the rows whose trials all ended well.
    choices : bool
        Whether runs are counted at all; the tests by ranks and by resampling know of queries only.
    """

    rows: Mapping[str, Row]
    scores: ScoresOf
    healthy: Collection[str]
    choices: bool
    _known: dict[object, dict[object, Runs]] = field(default_factory=dict)

    def of(
        self,
        pairs: Sequence[tuple[str, str]],
        place: Place,
        queries: tuple[str, ...],
        square: npt.ArrayLike,
    ) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Standard errors of mean differences, their degrees of freedom, and whether runs count.

        Parameters
        ----------
        pairs : sequence of (str, str), m
            Names of rows.
        place : (str, str)
            Collection and measure.
        queries : tuple of str, n
            Those that both rows of every pair have.
        square : array_like, shape [m]
            Squared standard errors over these queries, of the differences of means over seeds.
        """
        n = len(queries)
        known = self._known.setdefault((place, queries), {})
        pools = [self._pool(a, b, place, queries, known) for a, b in pairs]
        runs = Runs(*(np.array([getattr(p, f.name) for p in pools]) for f in fields(Runs)))
        shares = [self._share(a, place) + self._share(b, place) for a, b in pairs]
        variance, df = counted_in(square, float(n - 1), runs, np.array(shares) / max(n, 1))
        return np.sqrt(variance), df, runs.known

    def _share(self, name: str, place: Place) -> float:
        """1 / runs of a row; 0 of one that is not trained."""
        runs = training_runs(self.rows[name], self.scores[name, *place])
        return 1 / runs if runs else 0.0

    def _pool(
        self, a: str, b: str, place: Place, queries: tuple[str, ...], known: dict[object, Runs]
    ) -> Runs:
        """The runs that tell how far those of two rows carry; nothing if neither is trained."""
        first, second = self.rows[a], self.rows[b]
        sides = tuple(row.name for row in (first, second) if row.trained)
        if not self.choices or not sides:
            return Runs()
        sick = tuple(name for name in sides if name not in self.healthy)
        key = (frozenset((first.system, second.system)), sick)
        if key not in known:
            kind = of_the_kind(self.rows.values(), first, second, self.healthy)
            names = dict.fromkeys((*sides, *(row.name for row in kind)))
            tables = (self._table(name, place, queries) for name in names)
            known[key] = Runs.pooled(table for table in tables if table is not None)
        return known[key]

    def _table(self, name: str, place: Place, queries: tuple[str, ...]) -> FloatArray | None:
        """Scores [n, S] of a row on these queries; None if it lacks one."""
        own = self.scores.get((name, *place))
        if own is None or own.queries == queries:
            return None if own is None else own.values
        places = {query: i for i, query in enumerate(own.queries)}
        if not places.keys() >= set(queries):
            return None
        return own.values[[places[query] for query in queries]]
