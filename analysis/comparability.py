"""What must be equal before two trials may stand in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rdx.facts import CollectionFacts, TrialFacts
from rdx.faults import Mendable


class ComparabilityError(Mendable, ValueError):
    """Trials stand in one table that must not be compared: other queries, data or settings."""


def collection_facts(trials: Mapping[str, TrialFacts]) -> dict[str, CollectionFacts]:
    """Return what the trials say of each collection, after checking that they agree.

    One that decided which weights were kept in one of them is marked so for all, so that means
    are over the same collections.

    Parameters
    ----------
    trials : mapping
        signature -> facts of the trial.

    Raises
    ------
    ComparabilityError
        If two trials evaluated on one collection differ in its digest, the rule for ties, the
        re-ranked depth or the first stage; the message names both trials and both values.
        An imported run may have re-ranked anything: of it only digest and rule must agree.
    """
    first: dict[str, tuple[str, CollectionFacts]] = {}
    for signature, trial in sorted(trials.items(), key=lambda item: item[1].imported is not None):
        for name, facts in trial.collections.items():
            other, expected = first.setdefault(name, (signature, facts))
            ours = _compared(facts, trial.imported is not None)
            theirs = _compared(expected, trial.imported is not None)
            for key, value in theirs.items():
                if value != ours[key]:
                    raise ComparabilityError(
                        f"collection {name}: trials {other[:12]} and {signature[:12]} "
                        f"differ in {key}: {value} and {ours[key]}"
                    )
    selected = {
        name
        for trial in trials.values()
        for name, own in trial.collections.items()
        if own.selected_on
    }
    return {name: replace(own, selected_on=name in selected) for name, (_, own) in first.items()}


def _compared(facts: CollectionFacts, imported: bool) -> dict[str, object]:
    """What must be equal; of the ties, the rule alone: how many there are is a system's own."""
    compared: dict[str, object] = {"digest": facts.digest, "ties": facts.ties.rule}
    if not imported:
        compared |= {"k": facts.k, "first_stage": facts.first_stage}
    return compared


def query_difference(a: str, queries_a: Sequence[str], b: str, queries_b: Sequence[str]) -> str:
    """Say how the query ids of `a` and `b` differ; names the first three on either side."""

    def only(these: Sequence[str], those: Sequence[str]) -> str:
        return ", ".join(sorted(set(these) - set(those))[:3]) or "none"

    return (
        f"{a} and {b} have other queries ({len(queries_a)} and {len(queries_b)}); "
        f"only in {a}: {only(queries_a, queries_b)}; only in {b}: {only(queries_b, queries_a)}"
    )
