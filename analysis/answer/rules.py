"""Summary -> answer: which tests count, and which do not.

A test counts if both of its sides are there, on all queries of the collection and on at least
`FEWEST` of them, no run behind them learned nothing, and the collection is neither degenerate nor
one on which weights were selected. The numbers of others stand in the tables;
nothing is concluded from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import combinations
from math import prod

import numpy as np

from analysis.answer.records import Answer, Asked, Difference, Effect, Levels, Reason, Unanswered
from analysis.claims import CORRECTIONS
from analysis.contrasts import Contrast
from analysis.factors import QUERY, Corrected, Design, corrected, designs_of
from analysis.health import BAD_SCORES
from analysis.means import why_left_out
from analysis.power import POWER
from analysis.rows import level_of
from analysis.summary import Summary
from rdx.config import Cell
from rdx.facts import OK
from rdx.power import detectable

# Buckley and Voorhees (2000), *Evaluating evaluation measure stability*, SIGIR: 25 are the least,
# 50 are better.
FEWEST = 25
NAN = float("nan")

Tested = tuple[list[Difference], list[Unanswered]]


def answer(summary: Summary, designs: Mapping[str, Design] | None = None) -> Answer:
    """What the tests of a summary say; `designs` as of `designs_of`, if they are there already."""
    spec = summary.spec
    designs = designs_of(summary) if designs is None else designs
    differences, unanswered = _differences(summary)
    effects, no_effects = _effects(summary, designs)
    runs = {
        row.name: min(len(scores.seeds) for scores in summary.scores_of(row.name))
        for row in spec.rows
        if row.trained and summary.scores_of(row.name)
    }
    single = tuple(name for name, seeds in runs.items() if seeds == 1)
    return Answer(
        measures=(spec.figure, *(m for m in spec.measures if m != spec.figure)),
        collections=summary.tested,
        differences=tuple(differences),
        effects=tuple(effects),
        unanswered=(*no_effects, *unanswered),
        missing=len(summary.trials.missing),
        cells=len(summary.trials.cells),
        single=single,
        every_single=bool(runs) and len(single) == len(runs),
        correction=CORRECTIONS[spec.correction],
        margin=spec.margin,
        alpha=spec.alpha,
        best=_best(summary),
    )


def _best(summary: Summary) -> tuple[str, float] | None:
    """The best competing row of the first collection, if it is the only one."""
    if len(summary.tested) != 1:
        return None
    [collection] = summary.tested
    means = [
        (row.name, scores.mean)
        for row in summary.spec.rows
        if row.competes and not summary.apart(row.name)
        if (scores := summary.scores.get((row.name, collection, summary.spec.figure)))
    ]
    return max(means, key=lambda pair: pair[1], default=None)


# --- rows ---


def _differences(summary: Summary) -> Tested:
    """Every declared comparison, every row against every baseline, and all pairs."""
    spec = summary.spec
    against = {(c.treatment, c.baseline, *c.place): c for c in summary.against}
    declared = {(c.treatment, c.baseline, *c.place): c for c in summary.comparisons}
    baselines = [
        (row.name, baseline)
        for i, baseline in enumerate(spec.baselines)
        for row in spec.rows
        if row.test and row.name not in spec.baselines[: i + 1]
    ]
    differences: list[Difference] = []
    unanswered: list[Unanswered] = []
    for asked, pairs, tests in (
        (Asked.COMPARISONS, spec.comparisons, declared),
        (Asked.BASELINE, baselines, against),
    ):
        for a, b in pairs:
            for place in _places(summary, {key[2:] for key in tests if key[:2] == (a, b)}):
                test = tests.get((a, b, *place))
                refused = _refused(
                    summary, (a, b), place, None if test is None else test.comparison.n
                )
                if refused is None and test is not None:
                    differences.append(_difference(summary, asked, test))
                elif refused is not None:
                    because, reason = refused
                    unanswered.append(Unanswered(asked, (a, b), because, *place, reason))
    return differences + _pairs(summary), unanswered


def _places(summary: Summary, made: Set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Where two rows should be compared, of what `made` says where they were.

    A pooled collection and its parts want one comparison.
    """
    parts = {pool.name: pool.of for pool in summary.spec.pools}
    for collection, measure in summary.places:
        on_parts = any((part, measure) in made for part in parts.get(collection, ()))
        asked = collection in (*summary.tested, "")  # "" before the first trial
        if (collection, measure) in made or (asked and not on_parts):
            yield collection, measure


def _refused(
    summary: Summary, pair: tuple[str, str], place: tuple[str, str], n: int | None
) -> tuple[str, Reason] | None:
    """Why a comparison on n queries does not count, and the row that is to blame."""
    for name in pair:
        if (name, *place) not in summary.scores:
            return name, Reason.MISSING
    for name in pair:
        trained = summary.spec.row(name).trained
        if trained and not _learned(summary, summary.signatures[name]):
            return name, Reason.BROKEN
    if why := _unfit(summary, place[0]):
        return why, Reason.UNFIT
    sizes = [len(summary.scores[name, *place].queries) for name in pair]
    most = summary.queries(place[0])
    if n is None or n < most:
        return pair[sizes.index(min(sizes))], Reason.QUERIES
    return ("", Reason.FEW) if n < FEWEST else None


def _unfit(summary: Summary, collection: str) -> str:
    """Why a collection is no test; "" if it is one."""
    facts = summary.collection_facts[collection]
    return why_left_out(facts) if facts.selected_on or facts.degenerate else ""


def _learned(summary: Summary, signatures: Iterable[str]) -> bool:
    """Whether every run learned something, however bad its scores are."""
    return all(summary.trials.facts[s].health in (OK, *BAD_SCORES) for s in signatures)


def _difference(summary: Summary, asked: Asked, test: Contrast) -> Difference:
    spec, result = summary.spec, test.comparison
    by_t = spec.test == "t" and test.error > 0
    level = spec.alpha / max(test.family, 1)
    return Difference(
        asked=asked,
        first=test.treatment,
        second=test.baseline,
        collection=test.collection,
        measure=test.measure,
        difference=result.difference,
        low=result.low,
        high=result.high,
        p=test.p_corrected,
        family=test.family,
        p_equivalence=test.p_equivalence,
        differs=test.significant,
        equivalent=test.equivalent,
        of_choice=test.of_choice,
        detectable=detectable(test.error, test.df, level, POWER) if by_t else NAN,
    )


def _pairs(summary: Summary) -> list[Difference]:
    """All pairs, the better row first; they have p values and no intervals."""
    differences = []
    for (collection, measure), square in summary.pairs.items():
        most = summary.queries(collection)
        for i, j in combinations(range(len(square.rows)), 2):
            names = square.rows[i], square.rows[j]
            if _refused(summary, names, (collection, measure), most) is not None:
                continue
            if square.means[i] < square.means[j]:
                i, j = j, i
            differences.append(
                Difference(
                    asked=Asked.PAIRS,
                    first=square.rows[i],
                    second=square.rows[j],
                    collection=collection,
                    measure=measure,
                    difference=float(square.means[i] - square.means[j]),
                    low=NAN,
                    high=NAN,
                    p=float(square.p_corrected[i, j]),
                    family=square.family,
                    p_equivalence=NAN,
                    differs=bool(square.significant[i, j]),
                    equivalent=False,
                    of_choice=bool(square.of_choice[i, j]),
                    detectable=NAN,
                )
            )
    return differences


# --- factors ---


def _effects(
    summary: Summary, designs: Mapping[str, Design]
) -> tuple[list[Effect], list[Unanswered]]:
    """Every main effect and interaction, of the collections whose grid allows an answer."""
    factors, figure = summary.spec.factors, summary.spec.figure
    refused = [
        Unanswered(Asked.FACTORS, factors, because, collection, figure, reason)
        for collection, design in designs.items()
        for because, reason in _no_effects(summary, collection, design)
    ]
    if factors and not designs:
        refused = [Unanswered(Asked.FACTORS, factors, "", "", figure, Reason.MISSING)]
    tested = corrected(summary.spec, designs)
    without = {each.collection for each in refused}
    effects = [
        _effect(collection, design, effect.term, figure, tested[collection, effect.term])
        for collection, design in designs.items()
        if collection not in without
        for effect in design.grid.effects
        if effect.term != (QUERY,) and effect.p == effect.p
    ]
    return effects, refused


def _no_effects(summary: Summary, collection: str, design: Design) -> Iterable[tuple[str, Reason]]:
    """Why the effects of a grid do not count: one reason, or none."""
    factors = summary.spec.factors

    def point(cell: Cell) -> tuple[str, ...]:
        return tuple(level_of(cell, factor) for factor in factors)

    run = {point(cell) for cell in design.cells}
    lacking = {point(cell) for cell in summary.trials.missing} - run
    if lacking:
        yield f"{len(lacking)} of {len(run | lacking)} combinations", Reason.MISSING
    elif not _learned(summary, [cell.signature for cell in design.cells]):
        yield "", Reason.BROKEN
    elif why := _unfit(summary, collection):
        yield why, Reason.UNFIT
    elif design.queries < FEWEST:
        yield "", Reason.FEW


def _effect(
    collection: str, design: Design, term: tuple[str, ...], measure: str, test: Corrected
) -> Effect:
    [effect] = [e for e in design.grid.effects if e.term == term]
    return Effect(
        term=term,
        collection=collection,
        measure=measure,
        omega=effect.omega,
        low=effect.low,
        high=effect.high,
        p=test.p,
        family=test.family,
        shown=test.significant,
        of_choice=design.grid.of_choice,
        levels=_widest(design, *term) if len(term) == 1 else _crossed(design, *term),
    )


def _widest(design: Design, factor: str) -> tuple[Levels, ...]:
    """The two levels of a factor that are furthest apart, the better one first."""
    pairs = [pair for pair in design.pairs[factor] if pair.difference == pair.difference]
    if not pairs:
        return ()
    pair = max(pairs, key=lambda p: abs(p.difference))
    if pair.difference >= 0:
        return (Levels(factor, pair.first, pair.second, pair.difference, pair.low, pair.high),)
    return (Levels(factor, pair.second, pair.first, -pair.difference, -pair.high, -pair.low),)


def _crossed(design: Design, factor: str, at: str) -> tuple[Levels, ...]:
    """The difference of two levels at the two levels of another factor where it changes most."""
    means = _means(design, factor, at)
    if means is None:
        return ()
    own = list(dict.fromkeys(level for level, _ in means))
    others = list(dict.fromkeys(level for _, level in means))
    changes = [
        (means[a, x] - means[b, x] - means[a, y] + means[b, y], a, b, x, y)
        for a, b in combinations(own, 2)
        for x, y in combinations(others, 2)
    ]
    change, a, b, x, y = max(changes, key=lambda entry: abs(entry[0]))
    if change < 0:
        a, b = b, a
    return tuple(
        Levels(factor, a, b, means[a, level] - means[b, level], at=f"{at}={level}")
        for level in (x, y)
    )


def _means(design: Design, factor: str, at: str) -> Mapping[tuple[str, str], float] | None:
    """Mean per combination of two factors' levels, every combination of the others weighing alike.

    None if the grid lacks a combination of all factors: then these means would not be comparable.
    """
    grid = design.grid
    runs = grid.scores.mean(axis=1)
    cells: dict[tuple[str, ...], list[float]] = {}
    for i, point in enumerate(zip(*grid.levels.values(), strict=True)):
        cells.setdefault(point, []).append(float(runs[i]))
    if len(cells) < prod(len(set(levels)) for levels in grid.levels.values()):
        return None
    names = list(grid.levels)
    places = names.index(factor), names.index(at)
    combined: dict[tuple[str, str], list[float]] = {}
    for point, own in cells.items():
        combined.setdefault((point[places[0]], point[places[1]]), []).append(float(np.mean(own)))
    return {pair: float(np.mean(own)) for pair, own in combined.items()}
