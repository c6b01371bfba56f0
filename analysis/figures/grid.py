"""The settings of a grid and their per-query scores, as the grid figures need them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.render.figures.style import number
from analysis.rows import REFERENCES, TRAINED, UNDISTILLED
from analysis.significance import FloatArray
from analysis.summary import Summary
from rdx.config import varied

Levels = dict[str, str]
SEED = "seed"
NAMES = ("engine", "name", "path")  # how a first stage's fingerprint may name it


@dataclass(frozen=True)
class Conditions:
    """Per-query scores of the settings of a grid, on the queries that all of them have.

    Attributes
    ----------
    levels : tuple of dict, c
        Of each setting: override key -> level as text. The keys are those that vary between the
        cells, without the seed, and ``system`` if students stand in more than one form.
    collections : tuple of str, n
        Collection of each query.
    values : ndarray, shape [n, c]
        Means over seeds.
    """

    levels: tuple[Levels, ...]
    collections: tuple[str, ...]
    values: FloatArray

    def of(self, chosen: Iterable[int]) -> Conditions:
        """Only the settings at these places."""
        places = list(chosen)
        return Conditions(
            tuple(self.levels[i] for i in places), self.collections, self.values[:, places]
        )

    def on(self, collections: Iterable[str]) -> Conditions:
        """Only the queries of these collections."""
        names = set(collections)
        rows = [i for i, name in enumerate(self.collections) if name in names]
        return Conditions(self.levels, tuple(self.collections[i] for i in rows), self.values[rows])


def conditions(summary: Summary, measure: str) -> Conditions | None:
    """Scores of every setting that was run, whatever rows show it; None if there are none.

    Queries without a value in some setting are left out, so that the settings stay comparable.
    """
    frame, trials = summary.trials.frame, summary.trials
    systems = {row.system for row in summary.spec.rows if row.system not in REFERENCES}
    chosen = frame[
        (frame["measure"] == measure)
        & frame["collection"].isin(summary.tested)
        & frame["system"].isin(systems)
    ]
    cells = {cell.signature: cell for cell in trials.cells if cell.signature in trials.facts}
    chosen = chosen[chosen["signature"].isin(cells)]
    if chosen.empty:
        return None
    axes = varied(tuple(cells.values()))
    axes.pop(SEED, None)
    settings = {s: tuple(axis[i] for axis in axes.values()) for i, s in enumerate(cells)}
    chosen = chosen.assign(setting=chosen["signature"].map(settings))
    chosen = chosen.drop(columns="grid").drop_duplicates()
    wide = (
        chosen.groupby(["collection", "query_id", "system", "setting"], sort=False)["value"]
        .mean()
        .unstack(["system", "setting"])
        .dropna()
    )
    if wide.empty:
        return None
    several = len({system for system, _ in wide.columns}) > 1
    levels = [
        dict(zip(axes, setting, strict=True)) | ({"system": system} if several else {})
        for system, setting in wide.columns
    ]
    ranked = {key: in_order(values) for key, values in axes.items()} | {"system": list(TRAINED)}
    order = sorted(
        range(len(levels)), key=lambda i: [ranked[key].index(v) for key, v in levels[i].items()]
    )
    scored = Conditions(
        levels=tuple(levels),
        collections=tuple(wide.index.get_level_values("collection")),
        values=wide.to_numpy(dtype=np.float64),
    )
    return scored.of(order)


def in_order(levels: Iterable[str]) -> list[str]:
    """Each level once: numbers by size, then words as they come, which is how a spec names them."""
    numbers = {level: number(level) for level in levels}
    words = {level: math.isnan(value) for level, value in numbers.items()}
    return sorted(
        numbers, key=lambda level: (words[level], 0.0 if words[level] else numbers[level])
    )


def groups(summary: Summary) -> dict[str, tuple[str, ...]]:
    """First stage -> the collections that were re-ranked from it; lines are drawn per group."""
    stages: dict[str, list[str]] = {}
    for name in summary.tested:
        facts = summary.collection_facts.get(name)
        stage = facts.first_stage if facts else {}
        engine = next((str(stage[key]) for key in NAMES if key in stage), "first stage")
        stages.setdefault(engine, []).append(name)
    return {stage: tuple(names) for stage, names in stages.items()}


def varying(settings: Conditions, factors: Sequence[str]) -> list[str]:
    """The factors that have several levels."""
    levels = settings.levels
    return [f for f in factors if len({setting[f] for setting in levels if f in setting}) > 1]


def factorial(settings: Conditions, factors: Sequence[str]) -> Conditions:
    """The settings that differ in nothing but the factors, as most do; controls are left out.

    A key whose level follows from that of one factor (they were varied together) is no difference.
    What was not distilled stands at no level of a factor but the loss.
    """
    by_loss = list(factors) == ["loss"]
    usable = [
        i
        for i, levels in enumerate(settings.levels)
        if all(factor in levels for factor in factors)
        and (by_loss or levels.get("loss") != UNDISTILLED)
    ]
    part = settings.of(usable).levels
    keys = dict.fromkeys(key for levels in part for key in levels if key not in factors)
    free = [key for key in keys if not any(_follows(part, key, factor) for factor in factors)]
    rest = {
        i: tuple(levels.get(key, "") for key in free)
        for i, levels in zip(usable, part, strict=True)
    }
    usual = Counter(rest.values()).most_common(1)
    return settings.of(i for i in usable if rest[i] == usual[0][0])


def _follows(settings: Sequence[Levels], key: str, factor: str) -> bool:
    """Whether a key has one level at each level of a factor."""
    pairs = {(setting[factor], setting.get(key)) for setting in settings}
    return len(pairs) == len({level for level, _ in pairs})


def crossed(
    settings: Conditions, factors: Sequence[str]
) -> tuple[Conditions, dict[str, list[str]]]:
    """The largest part of a factorial in which every combination of levels was run, and its levels.

    Until it is complete, the level with the smallest share of its combinations is left out. Ties:
    the later factor and level go first.
    """
    usable = list(range(len(settings.levels)))
    while True:
        part = settings.of(usable)
        levels = {f: in_order(setting[f] for setting in part.levels) for f in factors}
        size = math.prod(len(values) for values in levels.values())
        if len(usable) == size or not usable:
            return part, levels
        shares = [
            (
                sum(setting[f] == value for setting in part.levels) * len(levels[f]) / size,
                -factors.index(f),
                -levels[f].index(value),
            )
            for f in factors
            for value in levels[f]
            if len(levels[f]) > 1
        ]
        _, minus_factor, minus_level = min(shares)
        factor = factors[-minus_factor]
        gone = levels[factor][-minus_level]
        usable = [i for i in usable if settings.levels[i][factor] != gone]
