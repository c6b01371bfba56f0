"""Several test collections together: means, shared queries, and the paper's pooling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.collection import Collection
from rdx.evaluation.measurement import Tested
from rdx.evaluation.measures import per_query
from rdx.evaluation.quality import quality_of
from rdx.evaluation.settings import Evaluation, TestSet
from rdx.facts import CollectionFacts, Means, OverCollections, Setting, shallow

POOLED = ".pooled"


def by_corpus(
    evaluation: Evaluation,
    tests: Mapping[str, Tested],
    settings: Mapping[str, Setting],
    weight: float | None = None,
    selected_on: Iterable[str] = (),
) -> tuple[pd.DataFrame, dict[str, CollectionFacts]]:
    """The per-query table and the facts of all collections.

    With paper_compat=true also those of pooled corpora.

    Parameters
    ----------
    evaluation
        The settings.
    tests, settings
        Test sets by name.
    weight
        Of the student in its interpolation with the first stage; None without one.
    selected_on
        Test sets that decided which weights were kept.
    """
    selected = set(selected_on)
    tables = [test.table for test in tests.values()]
    facts = {
        name: CollectionFacts(
            **shallow(settings[name]),
            **shallow(test.quality),
            weight=weight,
            oddities=test.collection.counts,
            selected_on=name in selected,
        )
        for name, test in tests.items()
    }
    for corpus, names in corpora(evaluation.collections).items():
        shared = overlapping({name: tests[name].collection.queries for name in names})
        facts |= {name: replace(facts[name], shared=shared[name]) for name in names}
        if evaluation.paper_compat:
            pooled = pool([tests[name] for name in names], corpus + POOLED, evaluation)
            tables.append(pooled.table)
            of_pool = _pooled_facts(corpus, names, tests, settings, pooled)
            facts[corpus + POOLED] = replace(of_pool, selected_on=not selected.isdisjoint(names))
    return pd.concat(tables, ignore_index=True), facts


def _pooled_facts(
    corpus: str,
    names: Sequence[str],
    tests: Mapping[str, Tested],
    settings: Mapping[str, Setting],
    pooled: Tested,
) -> CollectionFacts:
    ids = [query_id for name in names for query_id in tests[name].collection.queries]
    digests = "".join(settings[name].digest for name in names)
    return CollectionFacts(
        **shallow(pooled.quality),
        queries=int(pooled.collection.qrels.query_id.nunique()),
        k=settings[names[0]].k,
        digest=hashlib.sha256(digests.encode()).hexdigest()[:16],
        first_stage={name: settings[name].first_stage for name in names},
        corpus=corpus,
        in_mean=False,
        pooled=tuple(names),
        colliding_queries=len(ids) - len(set(ids)),
    )


def corpora(test_sets: Mapping[str, TestSet]) -> dict[str, list[str]]:
    """Corpus -> names of its test sets, of those that name one."""
    names: dict[str, list[str]] = {}
    for name, test_set in test_sets.items():
        if test_set.corpus is not None:
            names.setdefault(test_set.corpus, []).append(name)
    return names


def pool(tests: Sequence[Tested], name: str, evaluation: Evaluation) -> Tested:
    """The test sets of a corpus as one, pooled as in the paper.

    Only queries that every system ranks are kept, as in its notebook, so that a query without
    candidates is not counted as 0. Rankings of some queries only (the teacher's) are left out.
    """
    names = [system for system in tests[0].systems if system != "teacher"]
    systems = {s: concatenated(test.systems[s] for test in tests) for s in names}
    qrels = concatenated(test.collection.qrels for test in tests)
    common = set.intersection(*(set(ranking.query_id) for ranking in systems.values()))
    qrels = qrels[qrels.query_id.isin(common)].reset_index(drop=True)
    queries = {q: text for test in tests for q, text in test.collection.queries.items()}
    table = per_query(name, systems, qrels, evaluation.measures, evaluation.ties)
    system = next((s for s in names if s not in ("first_stage", "oracle")), "first_stage")
    quality = quality_of(systems["first_stage"], systems[system], qrels, table, evaluation)
    return Tested(Collection(name, queries, {}, qrels), systems, table, quality)


def collection_means(
    table: pd.DataFrame, collections: Mapping[str, CollectionFacts], degenerate: bool = False
) -> Means:
    """Means over collections: first over the queries of a corpus, then over corpora.

    Collections of one corpus share their queries' mean; a query that two of them have (see
    `overlapping`) counts once, with the first one's values. Queries are told apart by collection
    and id, so that equal ids of other queries never meet. Systems that some corpus lacks are
    absent.

    Parameters
    ----------
    table
        Per-query table [collection, system, query_id, measure, value].
    collections
        Facts by name.
    degenerate
        Whether degenerate collections take part.
    """
    kept, left_out = {}, {}
    for name, facts in collections.items():
        if not facts.in_mean:
            continue
        if facts.selected_on:
            left_out[name] = "weights were selected on it"
        elif facts.degenerate and not degenerate:
            left_out[name] = f"degenerate: {facts.reason}"
        else:
            kept[name] = facts.corpus or name
    rows = table[table.collection.isin(list(kept))]
    shared = pd.MultiIndex.from_tuples(
        [(name, q) for name in kept for q in collections[name].shared] or [("", "")]
    )
    rows = rows[~pd.MultiIndex.from_frame(rows[["collection", "query_id"]]).isin(shared)]
    rows = rows.assign(corpus=rows.collection.map(kept))
    return _means(rows, tuple(dict.fromkeys(kept.values())), left_out)


def _means(rows: pd.DataFrame, names: tuple[str, ...], left_out: dict[str, str]) -> Means:
    """Means over the values [corpus, system, measure, value] of some corpora.

    Each corpus weighs the same; systems that some lack are absent.
    """
    means = rows.groupby(["system", "measure", "corpus"]).value.mean().unstack("corpus").dropna()
    order = pd.MultiIndex.from_frame(rows[["system", "measure"]].drop_duplicates())
    means = means.loc[order[order.isin(means.index)]]  # as declared, not as the alphabet has it
    keys = {key: "/".join(key) for key in means.index}
    with np.errstate(divide="ignore"):
        geometric = np.exp(np.log(means).mean(axis=1))
    return Means(
        corpora=names,
        left_out=left_out,
        arithmetic={keys[key]: float(value) for key, value in means.mean(axis=1).items()},
        geometric={keys[key]: float(value) for key, value in geometric.items()},
    )


def over_collections(
    table: pd.DataFrame,
    collections: Mapping[str, CollectionFacts],
    named: Mapping[str, Sequence[str]] | None = None,
) -> OverCollections:
    """The means over collections; if corpora were pooled, the paper's; and those with a name.

    The paper's keep degenerate collections; a corpus counts if one of its test sets does. One with
    a name is over the test sets `named` for it, whatever corpus they have.
    """
    by_set = table.rename(columns={"collection": "corpus"})
    pools = {
        name: replace(facts, in_mean=any(collections[part].in_mean for part in facts.pooled))
        for name, facts in collections.items()
        if facts.pooled
    }
    return OverCollections(
        collections=collection_means(table, collections),
        paper_compat=collection_means(table, pools, degenerate=True) if pools else None,
        named={
            name: _means(by_set[by_set.corpus.isin(of)], tuple(of), {})
            for name, of in (named or {}).items()
        },
    )


def named_means(table: pd.DataFrame, over: OverCollections) -> dict[str, float]:
    """COLLECTION/SYSTEM/MEASURE -> mean over queries.

    Of several corpora also mean/SYSTEM/MEASURE, and NAME/SYSTEM/MEASURE of means with a name.
    `over` is what `over_collections` gave. Measures keep the order of the table.
    """
    values = table.groupby(["collection", "system", "measure"], sort=False).value.mean()
    means = {"/".join(map(str, key)): float(value) for key, value in values.items()}
    if len(over.collections.corpora) > 1:
        means |= {f"mean/{name}": v for name, v in over.collections.arithmetic.items()}
    for name, of in over.named.items():
        means |= {f"{name}/{key}": value for key, value in of.arithmetic.items()}
    return means


def overlapping(queries: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Query ids of each collection that an earlier one has with the same text.

    Parameters
    ----------
    queries
        Collection -> query id -> text, of collections of one corpus. (TREC-7's and TREC-8's topics
        are among those of Robust04.) Equal ids with other texts are other queries.
    """
    seen: dict[str, set[str]] = {}
    shared = {}
    for name, texts in queries.items():
        shared[name] = tuple(q for q, text in texts.items() if _words(text) in seen.get(q, ()))
        for query_id, text in texts.items():
            seen.setdefault(query_id, set()).add(_words(text))
    return shared


def concatenated(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
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
