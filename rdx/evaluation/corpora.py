"""One collection measured; several together: means, shared queries, and the paper's pooling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.evaluation.measures import judged, per_query, tie_range
from rdx.evaluation.quality import facts
from rdx.evaluation.reranking import oracle

POOLED = ".pooled"


@dataclass(frozen=True)
class Tested:
    """A test collection, and what is known of the rankings of its queries.

    Attributes
    ----------
    collection
        Has the queries and their qrels.
    systems
        Rankings by system.
    table
        Their per-query table [collection, system, query_id, measure, value].
    facts
        What stands beside the scores: see `quality.facts`, and "tie_range": for each system with
        tied passages, measure -> lowest and highest mean over queries that an order of them gives.
    """

    __test__ = False  # not a test case of pytest

    collection: Any
    systems: Mapping[str, pd.DataFrame]
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """The first stage of a collection and the oracle, beside which systems stand.

    Attributes
    ----------
    systems, table, tie_range
        As of `Tested`, of "first_stage" and "oracle".
    judged
        Judged@10 of the first stage.
    """

    systems: Mapping[str, pd.DataFrame]
    table: pd.DataFrame
    tie_range: Mapping[str, dict[str, list[float]]]
    judged: float


def beside(name: str, test: Any, first: pd.DataFrame, evaluation: Any) -> Beside:
    """Measure what is the same for every system of a collection; parameters as of `measure`."""
    systems = {"first_stage": first, "oracle": oracle(first, test.qrels)}
    table = per_query(name, systems, test.qrels, evaluation.measures, evaluation.ties)
    ranges = _tie_ranges({"first_stage": first}, test.qrels, evaluation)
    return Beside(systems, table, ranges, judged(first, test.qrels))


def measure(
    name: str,
    test: Any,
    first: pd.DataFrame,
    systems: Mapping[str, pd.DataFrame],
    evaluation: Any,
    partial: Mapping[str, pd.DataFrame] | None = None,
    known: Beside | None = None,
) -> Tested:
    """Measure rankings of a collection beside its first stage and the oracle.

    Parameters
    ----------
    name
        Of the collection.
    test
        The collection, cut down to the tested queries.
    first
        The candidates.
    systems
        Rankings of the tested queries; the facts are about the first of them.
    evaluation
        The settings.
    partial
        Rankings of some of the queries, measured on these alone.
    known
        What `beside` gave, where several systems are measured one after the other.
    """
    qrels = test.qrels
    base = known or beside(name, test, first, evaluation)
    groups = [(systems, qrels)]
    for system, ranking in (partial or {}).items():
        groups.append(({system: ranking}, qrels[qrels.query_id.isin(ranking.query_id)]))
    tables, ranges = [base.table], dict(base.tie_range)
    for some, of_some in groups:
        tables.append(per_query(name, some, of_some, evaluation.measures, evaluation.ties))
        ranges |= _tie_ranges(some, of_some, evaluation)
    ranking = next(iter(systems.values()))
    found = facts(first, ranking, qrels, base.table, evaluation, base.judged)
    found["tie_range"] = ranges
    table = pd.concat(tables, ignore_index=True)
    return Tested(test, {**base.systems, **systems, **(partial or {})}, table, found)


def _tie_ranges(
    systems: Mapping[str, pd.DataFrame], qrels: pd.DataFrame, evaluation: Any
) -> dict[str, dict[str, list[float]]]:
    """The `tie_range` of systems with tied passages, where scores decide."""
    if evaluation.ties == "rank":
        return {}
    found = {s: tie_range(ranking, qrels, evaluation.measures) for s, ranking in systems.items()}
    return {system: one for system, one in found.items() if one}


def corpora(test_sets: Mapping[str, Any]) -> dict[str, list[str]]:
    """Corpus -> names of its test sets, of those that name one."""
    found: dict[str, list[str]] = {}
    for name, one in test_sets.items():
        if one.corpus is not None:
            found.setdefault(one.corpus, []).append(name)
    return found


def by_corpus(
    evaluation: Any, tests: Mapping[str, Tested], collections: dict[str, dict[str, Any]]
) -> pd.DataFrame:
    """The per-query table of all collections, with paper_compat=true those of pooled corpora too.

    Which queries the test sets of a corpus share is written into the facts, `collections`, as are
    the facts of pooled corpora.
    """
    tables = [one.table for one in tests.values()]
    for corpus, names in corpora(evaluation.collections).items():
        shared = overlapping({name: tests[name].collection.queries for name in names})
        for name in names:
            collections[name]["shared"] = shared[name]
        if evaluation.paper_compat:
            table, found = pool((tests[n] for n in names), corpus + POOLED, evaluation)
            found["first_stage"] = {name: collections[name]["first_stage"] for name in names}
            digests = "".join(collections[name]["digest"] for name in names)
            found["digest"] = hashlib.sha256(digests.encode()).hexdigest()[:16]
            collections[corpus + POOLED] = {**found, "corpus": corpus, "pooled": names}
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def pool(
    tests: Iterable[Tested], name: str, evaluation: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The per-query table and the facts of the test sets of a corpus, pooled as in the paper.

    Only queries that every system ranks are kept, as in its notebook, so that a query without
    candidates is not counted as 0. Rankings of some queries only (the teacher's) are left out.
    """
    every = list(tests)
    names = [s for s in every[0].systems if s != "teacher"]
    systems = {s: pooled(test.systems[s] for test in every) for s in names}
    qrels = pooled(test.collection.qrels for test in every)
    common = set.intersection(*(set(one.query_id) for one in systems.values()))
    qrels = qrels[qrels.query_id.isin(common)].reset_index(drop=True)
    table = per_query(name, systems, qrels, evaluation.measures, evaluation.ties)
    ids = [q for test in every for q in test.collection.queries]
    last = next((s for s in names if s not in ("first_stage", "oracle")), "first_stage")
    found = facts(systems["first_stage"], systems[last], qrels, table, evaluation)
    return table, {
        **found,
        "queries": int(qrels.query_id.nunique()),
        "k": evaluation.k,
        "colliding_queries": len(ids) - len(set(ids)),
        "in_mean": False,
    }


def collection_means(
    table: pd.DataFrame, collections: Mapping[str, Mapping[str, Any]], degenerate: bool = False
) -> dict[str, Any]:
    """Means over collections: first over the queries of a corpus, then over corpora.

    Collections of one corpus share their queries' mean; a query that two of them have (see
    `overlapping`) counts once, with the first one's values. Queries are told apart by collection
    and id, so that equal ids of other queries never meet.

    Parameters
    ----------
    table
        Per-query table [collection, system, query_id, measure, value].
    collections
        Facts by name, of which "corpus", "in_mean", "degenerate" and "shared" (query ids that an
        earlier collection has) are read.
    degenerate
        Whether degenerate collections take part.

    Returns
    -------
    dict
        "corpora": their names; "left_out": collection -> why; "arithmetic" and "geometric":
        "system/measure" -> mean over corpora. Systems that some corpus lacks are absent.
    """
    kept, left_out = {}, {}
    for name, found in collections.items():
        if not found.get("in_mean", True):
            continue
        if found.get("degenerate") and not degenerate:
            left_out[name] = f"degenerate: {found.get('reason', '')}"
        else:
            kept[name] = found.get("corpus") or name
    rows = table[table.collection.isin(list(kept))]
    again = pd.MultiIndex.from_tuples(
        [(name, q) for name in kept for q in collections[name].get("shared", ())] or [("", "")]
    )
    rows = rows[~pd.MultiIndex.from_frame(rows[["collection", "query_id"]]).isin(again)]
    rows = rows.assign(corpus=rows.collection.map(kept))
    means = rows.groupby(["system", "measure", "corpus"]).value.mean().unstack("corpus").dropna()
    names = {key: "/".join(key) for key in means.index}
    with np.errstate(divide="ignore"):
        geometric = np.exp(np.log(means).mean(axis=1))
    return {
        "corpora": list(dict.fromkeys(kept.values())),
        "left_out": left_out,
        "arithmetic": {names[key]: float(v) for key, v in means.mean(axis=1).items()},
        "geometric": {names[key]: float(v) for key, v in geometric.items()},
    }


def all_means(
    table: pd.DataFrame, collections: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The means over "collections" and, if corpora were pooled, the paper's: "paper_compat".

    The paper's keep degenerate collections; a corpus counts if one of its test sets does.
    """
    found = {"collections": collection_means(table, collections)}
    pools = {
        name: {**one, "in_mean": any(collections[n].get("in_mean", True) for n in one["pooled"])}
        for name, one in collections.items()
        if "pooled" in one
    }
    if pools:
        found["paper_compat"] = collection_means(table, pools, degenerate=True)
    return found


def overlapping(queries: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Query ids of each collection that an earlier one has with the same text.

    Parameters
    ----------
    queries
        Collection -> query id -> text, of collections of one corpus. (TREC-7's and TREC-8's topics
        are among those of Robust04.) Equal ids with other texts are other queries.
    """
    seen: dict[str, set[str]] = {}
    found = {}
    for name, texts in queries.items():
        found[name] = [q for q, text in texts.items() if _words(text) in seen.get(q, ())]
        for query_id, text in texts.items():
            seen.setdefault(query_id, set()).add(_words(text))
    return found


def pooled(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Rankings or qrels of several test sets as one, equal query ids taken for one query.

    What the paper's notebook computed: of a (query, passage) pair that occurs twice the last stays.
    Ranks are counted anew, scores of all lists of an id compared with each other.
    """
    rows = pd.concat(list(frames), ignore_index=True)
    rows = rows.drop_duplicates(["query_id", "doc_id"], keep="last", ignore_index=True)
    if "score" not in rows:
        return rows
    return rankings.rank(rows.query_id, rows.doc_id, rows.score)


def _words(text: str) -> str:
    return " ".join(text.lower().split())
