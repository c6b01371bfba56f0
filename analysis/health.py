"""Which rows rest on runs that went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from analysis.rows import REFERENCES, Row
from rdx.facts import OK, TrialFacts

# Of a student that learned and is no good; all other states are of one that did not learn.
BAD_SCORES = ("below_first_stage", "below_start")


def states(
    row: Row, signatures: Iterable[str], facts: Mapping[str, TrialFacts]
) -> dict[str, list[str]]:
    """Map health states other than ok to seeds; empty for systems that no trial trains."""
    seeds: dict[str, list[str]] = {}
    if row.system in REFERENCES:
        return seeds
    for signature in signatures:
        if (own := facts[signature]).health != OK:
            seeds.setdefault(own.health, []).append(str(own.seed))
    return seeds


def sound(
    rows: Iterable[Row], signatures: Mapping[str, Iterable[str]], facts: Mapping[str, TrialFacts]
) -> frozenset[str]:
    """Names of the rows that do not rest on a run that went wrong.

    Those whose trials are all well. Where no trained row is, as when a strong first stage beats
    every student, a bad score does not tell a run that collapsed from the others: then all that
    learned something.
    """
    bad = {row.name: states(row, signatures[row.name], facts) for row in rows}
    well = {name for name, own in bad.items() if not own}
    if not any(row.trained and row.name in well and signatures[row.name] for row in rows):
        well |= {name for name, own in bad.items() if set(own) <= set(BAD_SCORES)}
    return frozenset(well)
