"""A collection in files as it is laid out on disk: read and checked once, then mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import facts
from rdx.collection import SPELT_OTHERWISE, Collection
from rdx.data.blank import NAMED, Empty, of_blank, refuse, without
from rdx.data.splits import oddities, qrels_of
from rdx.data.texts import Oddities, StoredTexts, store_texts, unique
from rdx.rankings import FormatError, alike, has_header, line_of, read_qrels, shown

_TOPICS = "topics.json"

Cut = Callable[[dict[str, str], pd.DataFrame], tuple[dict[str, str], pd.DataFrame]]


@dataclass(frozen=True)
class _Topics:
    """Queries, and what is odd in the files.

    Attributes
    ----------
    queries
        All of them, without text too.
    repeated_texts
        Passages whose text an earlier one has.
    blank_passages, blank_queries
        Ids of those without text.
    alike
        Judged passage that the corpus lacks -> the one that it has in another spelling.
    """

    queries: dict[str, str]
    repeated_texts: int
    blank_passages: tuple[str, ...]
    blank_queries: tuple[str, ...]
    alike: dict[str, str]


def lay_out(
    folder: Path,
    corpus: str,
    queries: str,
    qrels: Mapping[str, str],
    max_words: int | None,
    empty: Empty,
) -> None:
    """Read and check the files of a collection once; write what `collection` maps into memory.

    Parameters
    ----------
    folder
        Where to write.
    corpus, queries, max_words, empty
        As of `rdx.data.Files`.
    qrels
        Files of judgements by name.

    Raises
    ------
    FormatError
        If a file breaks its format, if qrels name queries that the queries file lacks, or, with
        empty="error", if passages or queries have no text.
    """
    topics, odd_queries = unique(queries)
    judged: set[str] = set()
    for name, path in qrels.items():
        judgements = _read_qrels(path, topics, queries)
        judgements.to_parquet(folder / _file(name), index=False)
        judged |= set(judgements["doc_id"])
    odd = store_texts(corpus, folder, max_words, drop=empty == "drop")
    if empty == "error":
        refuse(
            *(list(odd.blank), list(odd_queries.blank)),
            {"passage": _first(corpus, odd), "query": _first(queries, odd_queries)},
        )
    passages = StoredTexts(folder)
    absent = sorted(d for d in judged if d not in passages and d not in odd.blank)
    laid_out = _Topics(
        topics,
        odd.repeated,
        tuple(odd.blank),
        tuple(odd_queries.blank),
        alike(absent, passages),
    )
    (folder / _TOPICS).write_text(facts.dump(laid_out), encoding="utf-8")


def collection(
    folder: Path,
    name: str,
    qrels: Sequence[str],
    cut: Cut,
    *,
    where: str,
    empty: Empty,
    judged: bool,
) -> Collection:
    """The collection that `lay_out` wrote to a folder; passages stay on disk.

    Parameters
    ----------
    name
        Of the collection.
    qrels
        Which of its judgements, by their names; none: it is one without judgements.
    cut
        Gives queries and judgements of a split, of all.
    where
        What an error names.
    empty
        As of `rdx.data.Files`.
    judged
        Whether queries without a judgement are left out.

    Returns
    -------
    Collection
        Its counts are those that `rdx.data.Files.load` describes.
    """
    topics = facts.parse(_Topics, (folder / _TOPICS).read_bytes())
    tables = [pd.read_parquet(folder / _file(name)) for name in qrels]
    queries, judgements = cut(topics.queries, _together(tables))
    counts = {"repeated_texts": topics.repeated_texts}
    examples = {}
    counts |= of_blank(queries, judgements, topics.blank_passages, topics.blank_queries)
    if empty == "drop":
        queries, judgements = without(topics.blank_queries, queries, judgements, where)
    passages = StoredTexts(folder)
    if qrels:
        absent = [doc_id for doc_id in judgements["doc_id"] if doc_id not in passages]
        otherwise = [doc_id for doc_id in absent if doc_id in topics.alike]
        counts["qrels_without_passage"] = len(absent)
        counts[SPELT_OTHERWISE] = len(otherwise)
        examples[SPELT_OTHERWISE] = shown({d: topics.alike[d] for d in otherwise})
        counts |= oddities(queries, judgements)
    if judged:
        kept = set(judgements["query_id"])
        queries = {q: text for q, text in queries.items() if q in kept}
    return Collection(name, queries, passages, judgements, counts, examples)


def _together(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Judgements of several files as one; of a pair that is in two, the first's."""
    known = list(tables)
    if len(known) < 2:
        return known[0] if known else qrels_of()
    both = pd.concat(known, ignore_index=True)
    return both.drop_duplicates(["query_id", "doc_id"], ignore_index=True)


def _file(name: str) -> str:
    return f"qrels.{name}.parquet"


def _read_qrels(path: str, queries: dict[str, str], where: str) -> pd.DataFrame:
    """Judgements of a file, all of queries that there are in the file `where`."""
    qrels = read_qrels(path)
    unknown = (~qrels["query_id"].isin(list(queries))).to_numpy()
    if unknown.any():
        row = int(unknown.argmax()) + has_header(path)
        ids = list(qrels["query_id"][unknown].unique())
        more = ", ".join(map(repr, ids[1:NAMED]))
        otherwise = "; ".join(shown(alike(ids, queries)))
        raise FormatError(
            f"{path}:{line_of(path, row)}: query {ids[0]!r} is not in "
            f"{where} ({len(ids)} such queries{f', also {more}' if more else ''})"
            + (f"; it has in another spelling: {otherwise}" if otherwise else "")
        )
    return qrels


def _first(path: str, odd: Oddities) -> str:
    """File and line of the first text of which nothing can be seen."""
    return f"{path}:{next(iter(odd.blank.values()), 0)}"
