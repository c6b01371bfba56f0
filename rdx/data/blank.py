"""Passages and queries without text: refuse them all at once, drop them, or keep them.

A text is blank if nothing of it can be seen: it is empty, null, or of white space, control
characters and invisible ones (zero-width spaces, byte order marks, soft hyphens) alone.

=========  =======================================  ==============================================
`empty=`   passages                                 queries
=========  =======================================  ==============================================
error      all of them are named, nothing is read   all of them are named, nothing is read
drop       are not in the collection: no index has  are not in the collection, nor are their
           them; their judgements stay, so that     judgements: means are over the others
           an ideal ranking is that of the qrels
keep       are in the collection as they come: no   are in it as they come: BM25 finds nothing for
           term, so BM25 never retrieves them; a    them, so that they count 0 if they are judged;
           given run or a draw may, and then a      a given run's passages are scored beside an
           teacher or student is shown no text      empty query
=========  =======================================  ==============================================
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

import pandas as pd

from rdx.declared import one_of
from rdx.rankings import FormatError
from rdx.text import counted

Empty = Annotated[str, one_of("error", "drop", "keep")]
_INVISIBLE = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf"))
NAMED = 3


def blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def refuse(passages: Sequence[str], queries: Sequence[str], places: Mapping[str, str]) -> None:
    """Raise FormatError, naming how many there are and the first few, if any has no text.

    Parameters
    ----------
    passages, queries
        Ids of those without text.
    places
        File, and line of the first, of "passage" and of "query".
    """
    both = {"passage": passages, "query": queries}
    named = [
        f"{places[noun]}: {counted(len(ids), noun)} without text: "
        + ", ".join([*map(repr, ids[:NAMED]), *(["..."] if len(ids) > NAMED else [])])
        for noun, ids in both.items()
        if ids
    ]
    if named:
        raise FormatError(
            f"{'; '.join(named)}; data.empty=drop leaves them out and counts them, data.empty=keep "
            "takes them as they are (of a test set: evaluation.collections.NAME.data.empty=...)"
        )


def of_blank(
    queries: Mapping[str, str],
    qrels: pd.DataFrame,
    blank_passages: Collection[str],
    blank_queries: Collection[str],
) -> dict[str, int]:
    """Count what has no text in a split, and the judgements of either, before any is dropped."""
    passages, asked = set(blank_passages), queries.keys() & set(blank_queries)
    concerned = qrels["doc_id"].isin(passages) | qrels["query_id"].isin(asked)
    return {
        "empty_passages": len(passages),
        "empty_queries": len(asked),
        "qrels_of_empty": int(concerned.sum()),
    }


def without(
    blank_queries: Collection[str], queries: Mapping[str, str], qrels: pd.DataFrame, where: str
) -> tuple[dict[str, str], pd.DataFrame]:
    """Leave out the queries without text and their judgements; ValueError if none is left."""
    none = set(blank_queries)
    kept = {q: text for q, text in queries.items() if q not in none}
    if not kept:
        raise ValueError(f"{where}: no query has a text")
    return kept, qrels[~qrels["query_id"].isin(none)].reset_index(drop=True)
