"""Per-query values of rankings, by ir_measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import ir_measures
import numpy as np
import pandas as pd

from rdx import rankings
from rdx.evaluation import ties as tied_orders
from rdx.faults import Mendable

JUDGED = "Judged@10"


class MeasureError(Mendable, ValueError):
    """A measure that ir_measures knows and cannot compute here; the message names it."""


def measured(
    ranking: pd.DataFrame, qrels: pd.DataFrame, measures: Iterable[str], ties: str = "rank"
) -> pd.DataFrame:
    """Per-query values [query_id, measure, value] for every query of the qrels.

    A judged query without a ranked passage counts 0. Ids have no part in it: a provider that
    writes files for another program, as that of ERR does, would stop at some and confuse others.

    Parameters
    ----------
    ranking, qrels, measures
        What is measured; measures are ir_measures strings.
    ties
        "rank": the rank column decides, in which `rankings.rank` has broken ties as trec_eval does;
        "trec_eval": the scores decide, ties by doc id descending; "expected": the expected value
        over all orders of tied passages (see `rdx.evaluation.ties`).

    Raises
    ------
    MeasureError
        Naming the measure, if its provider fails.
    """
    if ties not in tied_orders.RULES:
        raise ValueError(f"ties={ties!r}: must be one of {list(tied_orders.RULES)}")
    if ties == "expected":
        return _expected(ranking, qrels, list(measures))
    if ties == "trec_eval":
        ranking = rankings.rank(ranking.query_id, ranking.doc_id, ranking.score)
    parsed = {str(ir_measures.parse_measure(m)): m for m in measures}
    queries, query_ids = _numbered(ranking.query_id, qrels.query_id)
    documents, _ = _numbered(ranking.doc_id, qrels.doc_id)
    size = len(ranking)
    # Not the scores: ir_measures' providers break ties differently (RR@10 by doc id ascending).
    run = _by_query(queries[:size], documents[:size], -ranking["rank"].astype("float64"))
    judgements = _by_query(queries[size:], documents[size:], qrels.relevance)
    values = {
        (query_ids[int(query)], parsed[measure]): value
        for query, measure, value in _calculated(list(parsed), judgements, run)
    }
    rows = [
        (query_id, measure, values.get((query_id, measure), 0.0))
        for query_id in dict.fromkeys(qrels.query_id)
        for measure in parsed.values()
    ]
    return pd.DataFrame(rows, columns=["query_id", "measure", "value"])


def per_query(
    collection: str,
    systems: Mapping[str, pd.DataFrame],
    qrels: pd.DataFrame,
    measures: Sequence[str],
    ties: str = "rank",
) -> pd.DataFrame:
    """The per-query table [collection, system, query_id, measure, value] of several rankings."""
    parts = [
        measured(ranking, qrels, measures, ties).assign(collection=collection, system=system)
        for system, ranking in systems.items()
    ]
    return pd.concat(parts)[["collection", "system", "query_id", "measure", "value"]]


def judged(ranking: pd.DataFrame, qrels: pd.DataFrame) -> float:
    """Mean share of judged passages in the top 10."""
    return float(measured(ranking, qrels, [JUDGED]).value.mean())


def tied(ranking: pd.DataFrame) -> float:
    """Share of neighbours in the ranking of a query whose scores are equal; 0 without neighbours.

    Scores are compared as trec_eval does, as 32-bit floats.
    """
    ordered = ranking.sort_values(["query_id", "score"], kind="stable")
    query, score = ordered.query_id.to_numpy(), ordered.score.to_numpy(dtype=np.float32)
    neighbours = query[1:] == query[:-1]
    return float((score[1:] == score[:-1])[neighbours].mean()) if neighbours.any() else 0.0


def tie_range(
    ranking: pd.DataFrame, qrels: pd.DataFrame, measures: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """How far a mean over queries may move with the order of passages of equal score.

    The lowest value of a query is that with the least relevant of tied passages first, the highest
    that with the most relevant first, for every measure that does not fall when a more relevant
    passage moves up (nDCG, P, R, RR, AP, Success; not Judged). Scores are compared as trec_eval
    does, as 32-bit floats.

    Returns
    -------
    dict
        Measure -> lowest and highest mean over the queries of the qrels; empty without ties.
    """
    if not tied(ranking):
        return {}
    graded = ranking.merge(qrels, on=["query_id", "doc_id"], how="left").fillna({"relevance": 0})
    graded["score"] = graded.score.astype("float32")
    ends = []
    for best_first in (False, True):
        # The doc id decides where the grade does not, so that the same files give the same order.
        keys, up = ["query_id", "score", "relevance", "doc_id"], [True, False, not best_first, True]
        ordered = graded.sort_values(keys, ascending=up, ignore_index=True)
        ordered["rank"] = ordered.groupby("query_id").cumcount() + 1
        values = measured(ordered, qrels, measures, "rank")
        ends.append(values.groupby("measure").value.mean())
    low, high = ends
    return {measure: (float(low[measure]), float(high[measure])) for measure in measures}


Nested = dict[str, dict[str, float]]  # query -> document -> value


def _calculated(
    measures: Sequence[str], judgements: Nested, run: Nested
) -> list[tuple[str, str, float]]:
    """(query, measure, value) of everything that ir_measures gives."""
    try:
        metrics = ir_measures.iter_calc(
            [ir_measures.parse_measure(measure) for measure in measures], judgements, run
        )
        return [(str(m.query_id), str(m.measure), float(m.value)) for m in metrics]
    except Exception as error:  # each of its providers has errors of its own
        if len(measures) == 1:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise MeasureError(f"{measures[0]} cannot be computed: {why}") from error
    return [row for measure in measures for row in _calculated([measure], judgements, run)]


def _numbered(ranked: pd.Series, judged: pd.Series) -> tuple[list[str], list[str]]:
    """The ids of a ranking, then those of the qrels, as numbers; and the id of each number."""
    codes, ids = pd.factorize(pd.concat([ranked, judged], ignore_index=True))
    return [str(code) for code in codes.tolist()], [str(i) for i in ids]


def _by_query(queries: Sequence[str], documents: Sequence[str], values: pd.Series) -> Nested:
    """Query -> document -> value: of what ir_measures takes, the form that it walks fastest."""
    nested: Nested = {}
    for query, document, value in zip(queries, documents, values.tolist(), strict=True):
        nested.setdefault(query, {})[document] = value
    return nested


def _expected(ranking: pd.DataFrame, qrels: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    graded = ranking.merge(qrels, on=["query_id", "doc_id"], how="left").fillna({"relevance": 0})
    ranked = {q: (rows.relevance.to_numpy(float), rows.score.to_numpy(np.float32))
              for q, rows in graded.groupby("query_id", sort=False)}  # fmt: skip
    nothing = (np.zeros(0), np.zeros(0))
    rows = [
        (query_id, measure, tied_orders.expected(measure, *ranked.get(query_id, nothing), grades))
        for query_id, grades in (
            (q, own.relevance.to_numpy(float)) for q, own in qrels.groupby("query_id", sort=False)
        )
        for measure in measures
    ]
    return pd.DataFrame(rows, columns=["query_id", "measure", "value"])
