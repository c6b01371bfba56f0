"""Pooled collections: test sets of several folds as one, with the queries of all of them.

Where every query is tested once, but by students of other training data (train on one year, test
on the other, and back), a row consists of trials of both folds, and each is tested on a part.
``pooled: {dl: [dl19, dl20]}`` joins the parts: a row's value of a query is that of its own trial
which was tested on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import pandas as pd

from analysis.comparability import ComparabilityError
from analysis.row_names import GRID
from analysis.rows import level_of
from analysis.trials import Trials
from rdx.config import Cell, varied
from rdx.facts import CollectionFacts, Fingerprint
from rdx.store import signature

KEY = ["system", "query_id", "measure"]


@dataclass(frozen=True)
class Pool:
    """A collection that consists of others: its name, and theirs."""

    name: str
    of: tuple[str, ...]


def with_pools(trials: Trials, pools: Iterable[Pool]) -> Trials:
    """The trials, their frame with the rows of every pool.

    A pooled score stands under the signature of the trial that was tested on the first part. Trials
    belong together that differ only in what no two cells of one part differ in: a fold's training
    and test data, and no seed and no factor. Where a part is missing (a cell that was not run, a
    system that only some parts have), nothing is pooled.

    Raises
    ------
    ComparabilityError
        If a query id stands in two parts.
    """
    frames = [trials.frame]
    for pool in pools:
        frames += _pooled(trials, pool)
    return (
        trials if len(frames) == 1 else replace(trials, frame=pd.concat(frames, ignore_index=True))
    )


def _pooled(trials: Trials, pool: Pool) -> Iterator[pd.DataFrame]:
    wanted = trials.frame[trials.frame["collection"].isin(pool.of)]
    tables = dict(iter(wanted.drop_duplicates(["signature", "collection", *KEY]).groupby(
        ["signature", "collection"], sort=False
    )))  # fmt: skip
    for group in _groups(trials, pool):
        parts = [tables.get(place) for place in zip(group, pool.of, strict=True)]
        present = [part for part in parts if part is not None]
        if len(present) < len(parts):
            continue
        every = reduce(
            set.intersection, ({*zip(p["system"], p["measure"], strict=True)} for p in present)
        )
        rows = pd.concat(present, ignore_index=True)
        rows = rows[[pair in every for pair in zip(rows["system"], rows["measure"], strict=True)]]
        twice = rows[rows.duplicated(KEY)]
        if len(twice):
            raise ComparabilityError(
                f"pooled {pool.name}: query {twice['query_id'].iloc[0]} is in two of "
                f"{', '.join(pool.of)}: it would count twice"
            )
        first = present[0].iloc[0]
        yield rows.assign(collection=pool.name, **first[["grid", "signature", "seed"]].to_dict())


def _groups(trials: Trials, pool: Pool) -> Iterator[tuple[str, ...]]:
    """Signatures of the trials that were tested on the parts, in their order."""
    keys = design(trials.cells, [pool])
    by_point: dict[tuple[str, ...], dict[str, str]] = {}
    for part in pool.of:
        for cell in tested_on(trials.cells, part):
            point = tuple(level_of(cell, key) for key in keys)
            by_point.setdefault(point, {})[part] = cell.signature
    whole = (one for one in by_point.values() if len(one) == len(pool.of))
    groups = [tuple(one[part] for part in pool.of) for one in whole]
    imported = [(key,) * len(pool.of) for key, own in trials.facts.items() if own.imported]
    yield from dict.fromkeys((*groups, *imported))


def design(cells: Sequence[Cell], pools: Iterable[Pool]) -> list[str]:
    """Keys in which cells differ that are tested on the same: what varies beside the fold.

    Without a pool, all in which they differ. The name of the sub-grid may be one of them.
    """
    parts = [tested_on(cells, part) for pool in pools for part in pool.of]
    pooled = {id(cell) for part in parts for cell in part}
    parts.append([cell for cell in cells if id(cell) not in pooled])
    keys = {key: None for part in parts for key in varied(part)}
    several = any(len({cell.grid for cell in part}) > 1 for part in parts)
    return [*keys, *([GRID] if several else [])]


def tested_on(cells: Iterable[Cell], collection: str) -> list[Cell]:
    """The cells that are tested on a collection."""
    return [cell for cell in cells if collection in cell.cfg["evaluation"]["collections"]]


def pooled_facts(
    pools: Iterable[Pool], facts: Mapping[str, CollectionFacts]
) -> dict[str, CollectionFacts]:
    """Facts of the pools of which all parts are known; shares and ceilings weigh queries alike.

    Raises
    ------
    ComparabilityError
        If two parts differ in the re-ranked depth or the rule for ties.
    """
    return {
        pool.name: _facts(pool, [facts[part] for part in pool.of])
        for pool in pools
        if all(part in facts for part in pool.of)
    }


def _facts(pool: Pool, parts: Sequence[CollectionFacts]) -> CollectionFacts:
    for key, values in (("k", [p.k for p in parts]), ("ties", [p.ties.rule for p in parts])):
        if len(set(values)) > 1:
            told = ", ".join(f"{name} {value}" for name, value in zip(pool.of, values, strict=True))
            raise ComparabilityError(f"pooled {pool.name}: its parts differ in {key}: {told}")
    queries = sum(part.queries for part in parts)

    def mean(name: str) -> float:
        return sum(float(getattr(part, name)) * part.queries for part in parts) / queries

    return replace(
        parts[0],
        queries=queries,
        digest=signature([part.digest for part in parts]),
        first_stage=_first_stage(pool, [part.first_stage for part in parts]),
        in_mean=False,
        ceiling=mean("ceiling"),
        judged_at_10=mean("judged_at_10"),
        judged_at_10_first_stage=mean("judged_at_10_first_stage"),
        reason="; ".join(
            f"{name}: {part.reason}"
            for name, part in zip(pool.of, parts, strict=True)
            if part.reason
        ),
        missing_queries=sum(part.missing_queries for part in parts),
        pooled=pool.of,
        selected_on=any(part.selected_on for part in parts),
    )


def _first_stage(pool: Pool, parts: Sequence[Fingerprint]) -> Fingerprint:
    """What the first stages of the parts have in common, then what each has alone."""
    first = parts[0]
    common = {k: v for k, v in first.items() if all(part.get(k) == v for part in parts)}
    own = {
        name: {key: value for key, value in part.items() if key not in common}
        for name, part in zip(pool.of, parts, strict=True)
    }
    return common | {name: rest for name, rest in own.items() if rest}
