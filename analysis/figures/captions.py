"""What stands below a figure: what its marks and intervals mean, and of how many queries it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.claims import CORRECTIONS, FAMILIES, test_of
from analysis.figures.grid import Conditions, factorial, varying
from analysis.figures.inputs import places
from analysis.power import POWER
from analysis.render.figures.maps import Grid
from analysis.render.figures.ranks import Ranking
from analysis.summary import Contrast, Summary
from rdx.text import counted

WITHIN = (
    "Intervals: 95 % over queries, of these models, without what is common to a query (Cousineau "
    "and Morey): for the eye, no test."
)
LINES = f"Mean scores over the levels of the grid, one line per setting of all else. {WITHIN}"
EFFICIENCY = (
    "Effectiveness against time per query, numbered as in the key. Filled markers, joined by the "
    "line: no other system is both as fast and as good."
)


def interval(summary: Summary) -> str:
    """Words for the intervals of the differences, short enough for an axis."""
    confidence = [1 - contrast.level for contrast in _tested(summary) if contrast.level > 0]
    if not confidence:
        return "no interval"
    low, high = (f"{100 * end:.4g}" for end in (min(confidence), max(confidence)))
    size = low if low == high else f"{low} to {high}"
    return f"{size} % intervals, as {CORRECTIONS[summary.spec.correction]} tests"


def differences(summary: Summary) -> str:
    """Of the overview."""
    spec, tested = summary.spec, _tested(summary)
    test = test_of(summary, [contrast.of_choice for contrast in tested])
    correction = f"{CORRECTIONS[spec.correction]} {FAMILIES[spec.family]}"
    sentences = [
        f"Mean difference of each row to {spec.baseline} in {spec.figure}, over the queries that "
        f"both have.",
        f"Filled: significant, α = {spec.alpha:g}, {correction}: {test}.",
        f"Each interval is of that test, at the level at which the correction makes it "
        f"({interval(summary)}), so that it leaves out 0 where the marker is filled and nowhere "
        "else; the 95 % intervals of the tables are those of one test alone.",
    ]
    if spec.test == "wilcoxon":
        sentences.append("It is about the pseudo-median of the differences, not about their mean.")
    if spec.margin is not None:
        sentences.append(
            f"Equivalent: within ±{spec.margin:g} by two one-sided tests, corrected likewise; the "
            "interval drawn is wider than theirs."
        )
    return " ".join(sentences)


def interaction(summary: Summary, settings: Conditions | None, place: str) -> str:
    """Of interaction plots."""
    return (
        f"Every pair of factors: {_means(summary, settings, place)}. Lines that are not parallel "
        f"are an interaction; the table of effects tests it. {WITHIN}{_left_out(summary, settings)}"
    )


def heat_map(
    summary: Summary, settings: Conditions | None, place: str, panels: Sequence[Grid]
) -> str:
    """Of the heat map."""
    cells = np.concatenate([grid.values.ravel() for grid in panels])
    missing = int(np.isnan(cells).sum())
    gaps = f" Hatched: {missing} of {counted(len(cells), 'cell')} not run." if missing else ""
    return (
        f"Every cell of the grid: {_means(summary, settings, place)}.{gaps}"
        f"{_left_out(summary, settings)}"
    )


def queries(summary: Summary, place: str) -> str:
    """Of wins and losses."""
    return (
        f"{place}: difference of each row to {summary.spec.baseline} in {summary.spec.figure} on "
        "every query, sorted. A panel's width is all of its queries, whose number it gives; counts "
        "are wins / ties / losses. All panels have the same heights."
    )


def labels(place: str) -> str:
    """Of students over the quality of what they learned from."""
    return (
        f"{place}: each row's mean score against the quality of its labels on the training "
        "queries, numbered as in the key; the table of labels has the numbers."
    )


def bars(summary: Summary, rankings: Mapping[str, Ranking]) -> str:
    """Which test the bars of the rank diagram come from."""
    spec = summary.spec
    if all(ranking.distance is None for ranking in rankings.values()):
        correction = CORRECTIONS[spec.correction]
        return f"bar: not told apart by the all-pairs tests, {correction}, α = {spec.alpha:g}"
    return f"bar: not told apart by Nemenyi's test over queries (these models), α = {spec.alpha:g}"


def ranks(summary: Summary, note: str) -> str:
    """Of the rank diagram."""
    return (
        f"Mean over queries of each row's rank in {summary.spec.figure}, 1 = best, ties sharing "
        f"their mean; {note}."
    )


def power(summary: Summary) -> str:
    """Of the curves of power."""
    spec = summary.spec
    return (
        f"Probability of finding a true difference in {spec.figure} to {spec.baseline}, with the "
        f"variances and tests of the table of power: by one test at α = {spec.alpha:g}, and at α "
        f"divided by the number of tests, Holm's first step. Marks: the table's smallest "
        f"differences that are found with probability {POWER:g}."
    )


def _tested(summary: Summary) -> list[Contrast]:
    measure = summary.spec.figure
    return [c for c in summary.contrasts.values() if c.measure == measure]


def _means(summary: Summary, settings: Conditions | None, place: str) -> str:
    """What a mean of the grid is over."""
    collections = places(summary)[place]
    here = settings.on(collections).collections if settings is not None else ()
    size = counted(len(here), "query")
    if len(set(here)) > 1:
        return f"means of {summary.spec.figure} over seeds and {size}, {place} weighing alike"
    return f"means of {summary.spec.figure} over seeds and {size} of {here[0]}"


def _left_out(summary: Summary, settings: Conditions | None) -> str:
    """Settings that differ in something that is no factor."""
    if settings is None:
        return ""
    part = factorial(settings, varying(settings, summary.spec.factors))
    others = len(settings.levels) - len(part.levels)
    if not others:
        return ""
    verb = "differs" if others == 1 else "differ"
    return f" Left out: {counted(others, 'setting')} that {verb} in something else as well."
