"""Cut a collection down to a split of its queries; the form of qrels."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from rdx.collection import split_of

SPLITS = ("train", "dev", "all")
QRELS = {"query_id": "str", "doc_id": "str", "relevance": "int32"}


def qrels_of(rows: Iterable[tuple[str, str, int]] = ()) -> pd.DataFrame:
    """Judgements as a frame: query id, doc id, relevance."""
    return pd.DataFrame(list(rows), columns=list(QRELS)).astype(QRELS)


def of_split(
    queries: dict[str, str], qrels: pd.DataFrame, split: str, dev: float, where: str
) -> tuple[dict[str, str], pd.DataFrame]:
    """Queries of a split, and their judgements.

    Parameters
    ----------
    split
        "train" (queries that are not held out), "dev" (those that are) or "all".
    dev
        Share of the queries that is held out.
    where
        What the error names.

    Raises
    ------
    ValueError
        If the split is unknown or has no query.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected 'train', 'dev' or 'all'")
    if split != "all":
        queries = {q: text for q, text in queries.items() if split_of(q, dev) == split}
    if not queries:
        raise ValueError(f"{where}: no query in split {split!r} (data.dev={dev})")
    return queries, qrels[qrels["query_id"].isin(list(queries))].reset_index(drop=True)


def oddities(queries: Iterable[str], qrels: pd.DataFrame) -> dict[str, int]:
    """Count what is odd in the judgements of a split.

    Returns
    -------
    dict
        "queries_without_qrels"; "queries_without_relevant", which are judged but have no grade of
        1 or more, so that every system has 0; "negative_qrels", judgements below 0.
    """
    judged = set(qrels["query_id"])
    relevant = set(qrels.loc[qrels["relevance"] >= 1, "query_id"])
    return {
        "queries_without_qrels": len(set(queries) - judged),
        "queries_without_relevant": len(judged - relevant),
        "negative_qrels": int((qrels["relevance"] < 0).sum()),
    }
