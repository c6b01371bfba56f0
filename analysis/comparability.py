"""What must be equal before two trials may stand in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdx.faults import Mendable

IMPORTED = ("digest", "ties")
TRAINED = (*IMPORTED, "k", "first_stage")


class ComparabilityError(Mendable, ValueError):
    """Trials stand in one table that must not be compared: other queries, data or settings."""


def collection_facts(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what the trials say of each collection, after checking that they agree.

    Parameters
    ----------
    facts : dict
        signature -> trial.json.

    Raises
    ------
    ComparabilityError
        If two trials evaluated on one collection differ in its digest, the rule for ties, the
        re-ranked depth or the first stage; the message names both trials and both values.
        An imported run may have re-ranked anything: of it only digest and rule must agree.
    """
    seen: dict[str, tuple[str, dict[str, Any]]] = {}
    for signature, trial in sorted(facts.items(), key=lambda item: "imported" in item[1]):
        for name, here in trial["collections"].items():
            first_signature, first = seen.setdefault(name, (signature, here))
            for key in IMPORTED if "imported" in trial else TRAINED:
                one, other = _value(first, key), _value(here, key)
                if one != other:
                    raise ComparabilityError(
                        f"collection {name}: trials {first_signature[:12]} and {signature[:12]} "
                        f"differ in {key}: {one} and {other}"
                    )
    return {name: found for name, (_, found) in seen.items()}


def _value(facts: dict[str, Any], key: str) -> Any:
    """A fact; of the ties, the rule alone: how many there are is a system's own."""
    if key == "ties":
        return facts.get(key, {}).get("rule", "trec_eval")
    return facts.get(key)


def query_difference(a: str, queries_a: Sequence[str], b: str, queries_b: Sequence[str]) -> str:
    """Say how the query ids of `a` and `b` differ; names the first three on either side."""

    def only(these: Sequence[str], those: Sequence[str]) -> str:
        return ", ".join(sorted(set(these) - set(those))[:3]) or "none"

    return (
        f"{a} and {b} have other queries ({len(queries_a)} and {len(queries_b)}); "
        f"only in {a}: {only(queries_a, queries_b)}; only in {b}: {only(queries_b, queries_a)}"
    )
