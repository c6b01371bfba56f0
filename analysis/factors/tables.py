"""Effects of the grid's factors: analysis of variance, Tukey's comparisons, simple effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from analysis.claims import CORRECTIONS
from analysis.factors.anova import QUERY, Effect, Grid, analyse, simple_effects
from analysis.factors.levels import Pair, marginal_means, tukey
from analysis.render.entry import (
    ABSENT,
    Entry,
    Table,
    count,
    interval,
    number,
    numbers,
    p_value,
    sentences,
    significant,
    words,
)
from analysis.rows import UNDISTILLED
from analysis.significance import correct
from analysis.spec import Spec
from analysis.summary import Summary
from rdx.config import Cell, varied
from rdx.text import counted


@dataclass(frozen=True)
class Design:
    """The cells of one collection that differ in nothing but the factors and the seed.

    Attributes
    ----------
    grid : Grid
        The analysis of their scores.
    cells : tuple of Cell
        Of the runs of `grid`, in their order.
    queries : int
        Their number.
    notes : tuple of str
        What had to be left out.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    queries: int
    notes: tuple[str, ...]

    @cached_property
    def pairs(self) -> dict[str, tuple[Pair, ...]]:
        """Tukey's comparisons of the levels of each factor."""
        return {factor: tukey(self.grid, factor) for factor in self.grid.levels}


Place = tuple[str, tuple[str, ...]]  # collection, term


class Corrected(NamedTuple):
    """A corrected p value, whether it is at most alpha, and the number of tests of its family."""

    p: float
    significant: bool
    family: int


def tables(summary: Summary, designs: Mapping[str, Design] | None = None) -> tuple[Table, ...]:
    """Effects and comparisons of levels; none if the spec names no factors that vary.

    `designs` as of `designs_of`, if they are there already: they take a while.
    """
    designs = designs_of(summary) if designs is None else designs
    if not designs:
        return ()
    return _effects(summary, designs), _levels(summary, designs)


def designs_of(summary: Summary) -> dict[str, Design]:
    """Collection -> its design; none if the spec names no factors that vary."""
    if not summary.spec.factors:
        return {}
    designs = {name: design_of(summary, name) for name in summary.tested}
    return {name: design for name, design in designs.items() if design is not None}


def corrected(spec: Spec, designs: Mapping[str, Design]) -> dict[Place, Corrected]:
    """(collection, term) -> the p value of an effect, corrected over all main and interactions.

    By the spec's correction, in each collection or, if its family is another one than
    ``collection``, over all of them: an analysis of variance of several factors makes several tests
    (Cramer et al. 2016, *Hidden multiplicity in exploratory multiway ANOVA*).
    """
    tests = [
        ((name, effect.term), effect.p)
        for name, design in designs.items()
        for effect in design.grid.effects
        if effect.term != (QUERY,)
    ]
    families = [[t for t in tests if t[0][0] == name] for name in designs]
    results: dict[Place, Corrected] = {}
    for family in families if spec.family == "collection" else [tests]:
        adjusted, significant = correct([p for _, p in family], spec.correction, spec.alpha)
        size = sum(p == p for _, p in family)
        for (place, _), p, shown in zip(family, adjusted, significant, strict=True):
            results[place] = Corrected(float(p), bool(shown), size)
    return results


def design_of(summary: Summary, collection: str) -> Design | None:
    """Analyse the students of one collection by the spec's factors; None if none varies."""
    spec = summary.spec
    scores = _scores(summary.trials.frame, collection, spec.figure)
    cells = {
        cell.signature: cell for cell in summary.trials.cells if cell.signature in scores.index
    }
    if not cells:
        return None
    chosen, others = _alike(list(cells.values()), spec.factors)
    left_out = sorted(
        {
            " ".join(_others(cell, chosen[0], spec.factors)) or f"loss={UNDISTILLED}"
            for cell in others
        }
    )
    levels = {name: [level_of(cell, name) for cell in chosen] for name in spec.factors}
    varying = {name: column for name, column in levels.items() if len(set(column)) > 1}
    fixed = [name for name in spec.factors if name not in varying]
    if not varying:
        return None
    table = scores.loc[[cell.signature for cell in chosen]].to_numpy(dtype=float)
    order = 1 if _incomplete(varying) else 2
    notes = sentences(
        f"{collection}: cells that also differ in something else are left out: "
        f"{'; '.join(left_out)}."
        if left_out
        else "",
        f"{collection}: one level only among these cells: {', '.join(fixed)}." if fixed else "",
        f"{collection}: some combinations of two factors were not run, so that only main effects "
        "are estimated."
        if order == 1 and len(varying) > 1
        else "",
    )
    grid = analyse(table, varying, order=order)
    return Design(grid, tuple(chosen), table.shape[1], notes)


def level_of(cell: Cell, factor: str) -> str:
    """Level of a factor in a cell; see `Cell.level`.

    Raises
    ------
    ValueError
        If the cell has no such key.
    """
    try:
        return cell.level(factor)
    except KeyError as error:
        message = f"factors: {factor!r} is no config group and no key of the cells"
        raise ValueError(message) from error


def _alike(cells: list[Cell], factors: tuple[str, ...]) -> tuple[list[Cell], list[Cell]]:
    """The most cells that differ in factors and seed alone, and the rest.

    The rest would confound a factor with what else it differs in. What was not distilled
    (``loss=none``) has no sampler, depth or teacher either, and belongs to the rest.
    """
    trained = [cell for cell in cells if cell.levels.get("loss") != UNDISTILLED] or cells
    groups: list[list[Cell]] = [[cell for cell in cells if cell not in trained]]
    for cell in trained:
        alike = (group for group in groups[1:] if not _others(cell, group[0], factors))
        group = next(alike, None)
        if group is None:
            groups.append([cell])
        else:
            group.append(cell)
    most = max(groups[1:], key=len)
    return most, [cell for group in groups if group is not most for cell in group]


def _others(cell: Cell, reference: Cell, factors: tuple[str, ...]) -> tuple[str, ...]:
    """Keys, with the cell's levels, that differ from a reference and are no factor nor the seed.

    What neither command line gives may differ: it follows from the options that are factors.
    """
    return tuple(
        f"{key}={levels[0]}" if levels[0] else f"no {key}"
        for key, levels in sorted(varied((cell, reference)).items())
        if key not in ("seed", *factors) and not any(f.startswith(f"{key}.") for f in factors)
    )


def _scores(frame: pd.DataFrame, collection: str, measure: str) -> pd.DataFrame:
    """Per-query scores of the students: a row per trial, a column per query that all have."""
    wanted = (
        (frame["system"] == "student")
        & (frame["collection"] == collection)
        & (frame["measure"] == measure)
    )
    chosen = frame.loc[wanted, ["signature", "query_id", "value"]]
    chosen = chosen.drop_duplicates(["signature", "query_id"])  # a trial may be in two sub-grids
    return chosen.pivot(index="signature", columns="query_id", values="value").dropna(axis=1)


def _incomplete(levels: Mapping[str, list[str]]) -> bool:
    """Whether some two factors lack a combination of their levels."""
    return any(
        len(set(zip(levels[a], levels[b], strict=True))) < len(set(levels[a])) * len(set(levels[b]))
        for a, b in combinations(levels, 2)
    )


def _effects(summary: Summary, designs: Mapping[str, Design]) -> Table:
    spec, tested = summary.spec, corrected(summary.spec, designs)
    rows = []
    for collection, design in designs.items():
        for effect in design.grid.effects:
            test = tested.get((collection, effect.term))
            rows.append(_effect_row(collection, " × ".join(effect.term), effect, test))
            if len(effect.term) == 2 and test and test.significant:
                rows += [
                    _effect_row(collection, f"{factor} at {at}={level}", simple)
                    for factor, at in (effect.term, effect.term[::-1])
                    for level, simple in simple_effects(design.grid, factor, at).items()
                ]
    by = CORRECTIONS[spec.correction]
    heads = ("df", "F", "df of error", "p", f"p ({by})", "ω²", "95 % CI")
    family = "in each collection" if spec.family == "collection" else "over all collections"
    sizes = (
        f"{name}: {counted(len(design.cells), 'run')} on {counted(design.queries, 'query')}."
        for name, design in designs.items()
    )
    return Table(
        label=f"{summary.spec.name}-factors",
        caption=f"Effects of {', '.join(summary.spec.factors)} on {summary.spec.figure}: analysis "
        "of variance with queries and training runs random.",
        columns=(*words("Collection", "Effect"), *numbers(*heads)),
        rows=tuple(rows),
        notes=sentences(
            f"† = significant at α = {spec.alpha:g}: p by {by} over main effects and interactions "
            f"{family}. Type II sums of squares of the per-query scores. ω²: partial, the share of "
            "the variance of one score that the effect explains, what queries have in common left "
            "out; below 0 = not more than chance. "
            '"A at B=b" is the effect of one factor at one level of another, shown where their '
            "interaction is significant, its p not corrected. Queries are random and not tested.",
            _claims(designs),
            *sizes,
            *(note for design in designs.values() for note in design.notes),
        ),
    )


def _claims(designs: Mapping[str, Design]) -> str:
    """What the tests and intervals of a table claim, by the collections of which they do."""
    choice = [name for name, design in designs.items() if design.grid.of_choice]
    models = [name for name in designs if name not in choice]
    both = bool(choice and models)
    return " ".join(
        sentences(
            "Claims are about the choice"
            + (f" ({', '.join(choice)})" if both else "")
            + ", on other queries and with other training runs: the error is query × effect plus "
            "runs of one cell less query × run, degrees of freedom after Satterthwaite."
            if choice
            else "",
            "1 seed per cell"
            + (f" ({', '.join(models)})" if both else "")
            + ": claims are about these models on other queries (the error is query × effect); "
            "nothing tells an effect from the luck of a training run."
            if models
            else "",
        )
    )


def _effect_row(
    collection: str, name: str, effect: Effect, test: Corrected | None = None
) -> tuple[Entry, ...]:
    return (
        Entry(collection),
        Entry(name),
        count(effect.df),
        number(effect.f, 2),
        number(effect.error_df, 1),
        p_value(effect.p),
        ABSENT if test is None else p_value(test.p).flagged(*significant(test.significant)),
        number(effect.omega),
        interval(effect.low, effect.high, sign=False),
    )


def _levels(summary: Summary, designs: Mapping[str, Design]) -> Table:
    alpha = summary.spec.alpha
    rows = []
    for collection, design in designs.items():
        for factor in design.grid.levels:
            means = marginal_means(design.grid, factor)
            rows += [
                (
                    Entry(collection),
                    Entry(factor),
                    Entry(f"{pair.first} − {pair.second}"),
                    number(means[pair.first]),
                    number(means[pair.second]),
                    number(pair.difference, sign=True, flags=significant(pair.p <= alpha)),
                    interval(pair.low, pair.high),
                    p_value(pair.p),
                )
                for pair in design.pairs[factor]
            ]
    heads = ("Mean of first", "Mean of second", "Difference", "95 % CI", "p (Tukey)")
    return Table(
        label=f"{summary.spec.name}-levels",
        caption=f"Levels of each factor compared in {summary.spec.figure}: Tukey's honestly "
        "significant differences.",
        columns=(*words("Collection", "Factor", "Levels"), *numbers(*heads)),
        rows=tuple(rows),
        notes=(
            f"† = significant at α = {alpha:g} among all pairs of one factor in one collection. "
            "Means weigh every combination of the other factors alike; p and the simultaneous "
            "intervals come from the studentised range, each pair with its own error. "
            + _claims(designs),
        ),
    )
