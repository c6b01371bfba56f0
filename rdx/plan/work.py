"""How much work a stage is, and what that took when it was done before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from rdx import config
from rdx.plan.shelf import Entry, Past, Shelf
from rdx.store import signature

STAGES = ("candidates", "teach", "prefinetune", "distill", "reference", "evaluate")


@dataclass(frozen=True)
class Span:
    """An estimate in seconds.

    Attributes
    ----------
    value, low, high
        Median, least and most of what was observed, scaled to what is planned.
    observed
        Results behind it; of a sum, those behind its least certain part.
    """

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    observed: int = 0

    def __add__(self, other: Span) -> Span:
        """One after the other."""
        counts = [span.observed for span in (self, other) if span.observed]
        return Span(
            self.value + other.value,
            self.low + other.low,
            self.high + other.high,
            min(counts, default=0),
        )


class History:
    """What the stages of finished cells took."""

    def __init__(self, past: Iterable[Past], shelf: Shelf) -> None:
        self._rates: dict[tuple[str, str], list[float]] = defaultdict(list)  # seconds a unit
        self._bytes: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._models: dict[str, list[int]] = defaultdict(list)  # bytes of checkpoints
        seen = set()
        for one in past:
            for stage in STAGES:
                entry = shelf.entry(one.folder.parents[1], stage, one.keys.get(stage, "-"))
                place = (one.folder.parents[1], stage, one.keys.get(stage))
                if entry is not None and place not in seen:
                    seen.add(place)
                    self._add(stage, one.cfg, entry)

    def _add(self, stage: str, cfg: dict[str, Any], entry: Entry) -> None:
        try:
            kind, units = (stage, like(stage, cfg)), size(stage, cfg)
            student = same("student", cfg)
        except (KeyError, TypeError, AttributeError, config.ConfigError):
            return  # configured for another version of rdx
        if entry.seconds is not None:
            self._rates[kind].append(entry.seconds / (units or 1))
        self._bytes[kind].append(entry.bytes)
        if stage in ("prefinetune", "distill"):
            self._models[student].append(entry.bytes)

    def seconds(self, stage: str, cfg: dict[str, Any]) -> Span | None:
        """What a result will take; None if nothing comparable is stored.

        A teacher ranks test passages as it ranked those of the training.
        """
        source = "teach" if stage == "reference" else stage
        rates = self._rates.get((source, like(stage, cfg)))
        if not rates:
            return None
        units = size(stage, cfg) or 1
        return Span(units * median(rates), units * min(rates), units * max(rates), len(rates))

    def bytes(self, stage: str, cfg: dict[str, Any]) -> int | None:
        """What a result will occupy, the median of comparable ones; None if there is none.

        A checkpoint is as large as any other of the same student.
        """
        if stage == "reference":
            return 0  # a few kB per test set
        held = self._bytes.get((stage, like(stage, cfg)))
        if not held and stage in ("prefinetune", "distill"):
            held = self._models.get(same("student", cfg))
        return round(median(held)) if held else None


def size(stage: str, cfg: dict[str, Any]) -> float | None:
    """Units of work of a stage, as far as the configuration tells; None if it does not.

    Of teach and reference the passages to rank, of prefinetune and distill the pairs to train on;
    other stages are taken as they are, as 1.
    """
    depth, first, test = cfg["depth"], cfg["prefinetune"], cfg["evaluation"]
    if stage == "teach":
        return None if depth["queries"] is None else depth["queries"] * asked(depth)
    if stage == "reference":
        return int(test["teacher_queries"] * test["k"] * len(test["collections"]))
    if stage == "prefinetune" and first is not None:
        lists = None if first["queries"] is None else first["queries"] * first["epochs"]
        return None if lists is None else lists * (1 + first["negatives"])
    if stage == "distill":
        return _pairs(cfg)
    return 1


def asked(depth: dict[str, Any]) -> int:
    """How many candidates of a query the teacher ranks."""
    return int(depth["k"] if depth["mode"] == "relabel" else depth["pool"])


def _pairs(cfg: dict[str, Any]) -> float | None:
    budget, depth = cfg["budget"], cfg["depth"]
    if "pairs" in budget:
        return float(budget["pairs"])
    if "steps" in budget:
        return float(budget["steps"] * cfg["trainer"]["batch"] * depth["k"])
    if depth["queries"] is None:
        return None
    return float(budget["epochs"] * depth["queries"] * depth["k"])


def like(stage: str, cfg: dict[str, Any]) -> str:
    """Results of a stage are comparable where this is equal.

    Candidates: the same data and sampler. Teacher rankings: the same teacher. Trainings: the same
    student and precision. Evaluations: the same test sets as well. Where the work is not known
    (`size`), the same depth and stage 1, too.
    """
    student = (same("student", cfg), cfg["trainer"]["precision"])
    what: dict[str, Any] = {
        "candidates": (same("data", cfg), same("sampler", cfg)),
        "teach": same("teacher", cfg),
        "reference": same("teacher", cfg),
        "prefinetune": (student, cfg["prefinetune"] is None),
        "distill": student,
        "evaluate": (student, same("evaluation", cfg)),
    }
    if size(stage, cfg) is None:
        return signature([what[stage], same("depth", cfg), same("prefinetune", cfg)])
    return signature(what[stage])


def same(group: str, cfg: dict[str, Any]) -> str:
    """Signature of a group's part of the identity."""
    return _same(group, json.dumps(cfg[group], sort_keys=True))


def but_for_the_seed(cfg: dict[str, Any]) -> str:
    """Cells for which this is equal are training runs of one system."""
    return signature([same(group, cfg) for group in config.GROUPS if group != "tracking"])


@lru_cache(maxsize=4096)
def _same(group: str, node: str) -> str:
    return signature(config.identity(config.build(json.loads(node), group)))
