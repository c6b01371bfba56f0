"""Words for the tests behind a table's marks: which test, which family, which error rate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from analysis.render.entry import MARKS
from analysis.significance import RANDOMISATIONS, RESAMPLES, SEED
from analysis.summary import Summary

TESTS = {
    "t": "two-sided paired t-test over queries",
    "wilcoxon": "two-sided Wilcoxon signed-rank test over queries",
    "randomisation": f"two-sided randomisation test over queries ({RANDOMISATIONS:,} assignments "
    f"of signs, seed {SEED})",
}
WITH_RUNS = "two-sided t-test with queries and training runs random"
INTERVALS = {
    "t": "t-intervals of the mean difference",
    "bca": f"bootstrap intervals (BCa, {RESAMPLES:,} samples of queries, seed {SEED})",
}
CORRECTIONS = {"holm": "Holm", "hochberg": "Hochberg", "bh": "Benjamini-Hochberg"}
FAMILIES = {
    "collection": "within each collection and measure",
    "all": "within the whole table",
    "grid": "over every test of this spec",
}


def test_notes(summary: Summary) -> list[str]:
    """Name the tests behind the marks of the main table."""
    sentences = (baseline_note(summary), _margin_note(summary), _pairs_note(summary))
    return [note for note in sentences if note]


def baseline_note(summary: Summary) -> str:
    """Name the test, its baselines, family and alpha."""
    spec = summary.spec
    if not spec.baselines:
        return ""
    if len(spec.baselines) == 1:
        meaning = f"† = differs significantly from the baseline, {spec.baseline}"
    else:
        marked = zip(MARKS, spec.baselines, strict=False)
        meaning = "Differs significantly from " + ", ".join(f"{name} ({m})" for m, name in marked)
    test = test_of(summary, [contrast.of_choice for contrast in summary.against])
    return f"{meaning}: {test}, {_family(summary)}, α = {spec.alpha:g}."


def test_of(summary: Summary, of_choice: Iterable[bool]) -> str:
    """Name the test of some comparisons, by what each of them claims."""
    claims = set(of_choice)
    over_queries = TESTS[summary.spec.test]
    if claims == {True, False}:
        return f"{WITH_RUNS} ({over_queries} where no run can be counted)"
    return WITH_RUNS if claims == {True} else over_queries


def claim_note(summary: Summary) -> str:
    """Say what the marks claim: the choice, or these models."""
    contrasts = (*summary.against, *summary.comparisons)
    claims = {(c.treatment, c.baseline): c.of_choice for c in contrasts}
    claims |= {
        (a, b): bool(pairs.of_choice[i, i + 1 + j])
        for pairs in summary.pairs.values()
        for i, a in enumerate(pairs.rows)
        for j, b in enumerate(pairs.rows[i + 1 :])
    }
    trained = {row.name for row in summary.spec.rows if row.trained}
    of_models = [pair for pair, choice in claims.items() if not choice and trained & set(pair)]
    if not any(claims.values()):
        return (
            "Claims are about these models on other queries, not about other training runs."
            if of_models
            else ""
        )
    note = (
        "Claims are about the choice, on other queries and with other training runs; how far a run "
        "carries is estimated from all healthy rows of its kind that have several seeds."
    )
    names = [name for name in dict.fromkeys(a for a, _ in of_models) if name in trained]
    return note + (f" About these models only: {'; '.join(names)}." if names else "")


def interval_note(summary: Summary) -> str:
    """Say how the intervals were made, and what they claim where that is not the marks' claim."""
    spec = summary.spec
    of_choice = any(c.of_choice for c in (*summary.against, *summary.comparisons))
    if not of_choice:
        return f"The 95 % intervals are {INTERVALS[spec.interval]} and are not corrected."
    claim = (
        "of the same claim as the marks"
        if spec.interval == "t"
        else "over queries: about these models, whatever the marks claim"
    )
    return f"The 95 % intervals are {INTERVALS[spec.interval]}, {claim}, and are not corrected."


def _family(summary: Summary) -> str:
    """Words for the correction and the family of the tests against the baselines."""
    sizes = sorted({contrast.family for contrast in summary.against})
    size = f"family of {', '.join(map(str, sizes))}" if sizes else "nothing tested yet"
    return f"{CORRECTIONS[summary.spec.correction]} {FAMILIES[summary.spec.family]} ({size})"


def _margin_note(summary: Summary) -> str:
    spec = summary.spec
    if spec.margin is None:
        return ""
    return (
        f"≈ = equivalent to {'it' if len(spec.baselines) == 1 else 'that baseline'}: the "
        f"difference lies within ±{spec.margin:g} by two one-sided t-tests on its error, corrected "
        f"likewise, α = {spec.alpha:g}. {_non_inferior(summary)}"
    )


def _non_inferior(summary: Summary) -> str:
    """The rows that are shown to be not worse, where they are shown nothing more."""
    spec = summary.spec
    where: dict[str, list[str]] = {}
    for c in summary.against:
        better = c.significant and c.comparison.difference > 0
        if not c.non_inferior or c.equivalent or better:
            continue
        of = f"{c.treatment} than {c.baseline}" if len(spec.baselines) > 1 else c.treatment
        column = [c.collection] * (len(summary.collections) > 1)
        column += [c.measure] * (len(spec.measures) > 1)
        where.setdefault(of, []).append(" ".join(column))
    rows = [row + (f" ({', '.join(cells)})" if any(cells) else "") for row, cells in where.items()]
    return (
        f"Neither ≈ nor better, but not worse by more than {spec.margin:g} (non-inferior): "
        f"{'; '.join(rows) or 'none'}."
    )


def _pairs_note(summary: Summary) -> str:
    if not summary.pairs:
        return ""
    spec = summary.spec
    sizes = sorted({pairs.family for pairs in summary.pairs.values()})
    compared = {name for pairs in summary.pairs.values() for name in pairs.rows}
    uncompared = [row.name for row in spec.rows if row.name not in compared]
    choices = [
        pairs.of_choice[np.triu_indices(len(pairs.rows), 1)] for pairs in summary.pairs.values()
    ]
    test = test_of(summary, map(bool, np.concatenate(choices)))
    return (
        f"All pairs: rows that share a letter do not differ significantly, {test}, "
        f"{CORRECTIONS[spec.correction]} {FAMILIES[spec.family]} (family of "
        f"{', '.join(map(str, sizes))}), α = {spec.alpha:g}"
        + (f"; not among them: {'; '.join(uncompared)}." if uncompared else ".")
    )
