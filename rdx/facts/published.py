"""What is published of a grid, and what a plan knows of an experiment's table."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue

from rdx.facts.store import Device
from rdx.facts.trial import TrialFacts


@dataclass(frozen=True, kw_only=True)
class Made:
    """How long a stage's result took, and on what; None where that was not recorded."""

    seconds: float
    device: Device | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedTrial:
    """A trial without weights, texts, judgements and rankings; its scores lie beside it.

    Attributes
    ----------
    overrides
        The command line that gives its cell; empty of an imported system.
    settings
        Its configuration, of paths the names alone; empty of an imported system.
    made
        Training and evaluation by stage, as far as the store still had them.
    """

    facts: TrialFacts
    overrides: tuple[str, ...] = ()
    settings: dict[str, JsonValue] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The results of a grid (``results.json``): what `arguments` expand to, and its trials."""

    grid: str
    arguments: tuple[str, ...]
    trials: tuple[PublishedTrial, ...]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What an experiment's spec will test, as far as its grid tells.

    Attributes
    ----------
    systems
        Rows of the table that are trained.
    tests
        Collection -> how many tests are corrected together with one in it, of its first measure.
    pooled
        Collection that is joined from others -> these (`pooled` of a spec).
    family
        Of the spec: "collection", "all" or "grid".
    """

    systems: int
    tests: dict[str, int]
    pooled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    family: str = "collection"
