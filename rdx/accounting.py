"""Count, print and limit dropped training data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from rdx.collection import SPELT_OTHERWISE, Collection
from rdx.facts import Count, Counts, QuerySample, Selection, Timing
from rdx.faults import Mendable
from rdx.rankings import USABLE
from rdx.text import counted

USED = "used"
# Why a training query has no list, in the order in which it is found out.
LOST = ("no_candidates", "malformed", "refused", "failed", "too_short", "not_drawn")


class Limits(TypedDict, total=False):
    """The largest share, 0 to 1, of each count that a cell goes on with; None: any.

    Attributes
    ----------
    queries_no_candidates : share of the queries sampled
        The sampler found nothing for them.
    queries_malformed : share of the queries sampled
        The teacher's answer was no ranking, or its scores were no finite numbers.
    queries_refused : share of the queries sampled
        The teacher refused to answer.
    queries_failed : share of the queries sampled
        No answer came, or the teacher's ranking lacks them.
    queries_too_short : share of the queries sampled
        Fewer than two passages have a label.
    queries_not_drawn : share of the queries sampled
        No relevant passage or no negative (`depth/lists=single_relevant`).
    lists_left_out : share of the queries sampled
        All of the above together.
    passages_missing : share of the rows of a given run
        Their passages have no text (`sampler.missing=drop`).
    labels_repaired : share of the teacher's lists
        An answer had to be repaired.
    lists_below_k : share of the lists
        Fewer than `depth.k` passages to pick from.
    passages_unlabelled : share of the candidates of usable lists
        The teacher's ranking lacks them.
    duplicate_queries : share of the lists
        The text of the query is another training query's, too.
    duplicate_passages : share of the passages of lists
        The text is in the same list already.
    queries_truncated : share of the queries
        The student sees the beginning only.
    passages_truncated : share of the passages
        The student sees the beginning only.
    train_queries_tested : share of the queries sampled
        Also a test query, by its words or by (collection, query id).
    """

    queries_no_candidates: float | None
    queries_malformed: float | None
    queries_refused: float | None
    queries_failed: float | None
    queries_too_short: float | None
    queries_not_drawn: float | None
    lists_left_out: float | None
    passages_missing: float | None
    labels_repaired: float | None
    lists_below_k: float | None
    passages_unlabelled: float | None
    duplicate_queries: float | None
    duplicate_passages: float | None
    queries_truncated: float | None
    passages_truncated: float | None
    train_queries_tested: float | None


NAMES = tuple(Limits.__annotations__)


class TooMany(Mendable, ValueError):
    """More was lost than the configuration allows; the message names the key."""


_WARNED: set[str] = set()  # once a process: both stages look, and so does every cell of a grid


def of_training(
    sample: QuerySample,
    split: Collection,
    candidates: pd.DataFrame,
    teacher_ranking: pd.DataFrame,
    selected: pd.DataFrame,
    used: Sequence[str],
    k: int,
) -> Selection:
    """Find the fate of every sampled training query, and count all that was dropped.

    Parameters
    ----------
    sample, candidates, teacher_ranking
        The sampled queries, and what first stage and teacher made of them.
    split
        The training collection.
    selected, used
        The passages that the depth keeps; the queries that have a list.
    k
        Passages of a whole list.
    """
    fate_of = fates(sample.queries, candidates, teacher_ranking, selected, used)
    kept = selected[selected.query_id.isin(used)]
    counts = of_queries(fate_of)
    counts["passages_missing"] = sample.passages_missing or Count(0, len(candidates))
    counts |= of_labels(candidates, teacher_ranking, kept, k)
    counts |= of_texts(kept, split.queries, split.passages)
    return Selection(split.name, fate_of, counts)


def fates(
    query_ids: Sequence[str],
    candidates: pd.DataFrame,
    teacher_ranking: pd.DataFrame,
    selected: pd.DataFrame,
    used: Iterable[str],
) -> dict[str, str]:
    """Find what became of each training query: "used", or the first of `LOST` that is true.

    Parameters
    ----------
    asked
        The query sample.
    candidates, teacher_ranking
        Rankings of the first stage and of the teacher, the latter with `state`.
    selected
        What `rdx.lists.Depth.select` kept.
    used
        Queries that have a training list.
    """
    retrieved, kept, listed = set(candidates.query_id), set(selected.query_id), set(used)
    states = dict(zip(teacher_ranking.query_id, teacher_ranking.state, strict=True))

    def fate(query_id: str) -> str:
        if query_id not in retrieved:
            return "no_candidates"
        state = str(states.get(query_id, "failed"))
        if state not in USABLE:
            return state
        if query_id not in kept:
            return "too_short"
        return USED if query_id in listed else "not_drawn"

    return {query_id: fate(query_id) for query_id in query_ids}


def of_queries(fate_of: Mapping[str, str]) -> Counts:
    """How many queries were lost, by reason, and together (`lists_left_out`)."""
    reasons = list(fate_of.values())
    lost = {f"queries_{reason}": reasons.count(reason) for reason in LOST}
    lost["lists_left_out"] = sum(lost.values())
    return {name: Count(n, len(reasons)) for name, n in lost.items()}


def left_out(lists: int, queries: int) -> Counts:
    """How many of the queries have no list."""
    return {"lists_left_out": Count(queries - lists, queries)}


def of_labels(
    candidates: pd.DataFrame, teacher_ranking: pd.DataFrame, selected: pd.DataFrame, k: int
) -> Counts:
    """Lists that are repaired or shorter than k, and candidates without a label.

    `passages_unlabelled` are candidates of usable lists that the teacher has not ranked.
    """
    states = teacher_ranking.groupby("query_id", sort=False).state.first()
    usable = set(states.index[states.isin(USABLE)])
    offered = candidates[candidates.query_id.isin(usable)]
    ranked = teacher_ranking[teacher_ranking.query_id.isin(usable)]
    labelled = offered.merge(ranked[["query_id", "doc_id"]], on=["query_id", "doc_id"])
    sizes = selected.groupby("query_id", sort=False).size()
    return {
        "labels_repaired": Count(int((states == "repaired").sum()), len(states)),
        "lists_below_k": Count(int((sizes < k).sum()), len(sizes)),
        "passages_unlabelled": Count(len(offered) - len(labelled), len(offered)),
    }


def of_texts(
    selected: pd.DataFrame, queries: Mapping[str, str], passages: Mapping[str, str]
) -> Counts:
    """Repeated texts: queries that are another's words, and passages within one list."""
    query_texts = [queries[query_id] for query_id in selected.query_id.unique()]
    texts = {doc_id: passages[doc_id] for doc_id in selected.doc_id.unique()}
    same = selected.assign(text=selected.doc_id.map(texts)).duplicated(["query_id", "text"])
    return {
        "duplicate_queries": Count(len(query_texts) - len(set(query_texts)), len(query_texts)),
        "duplicate_passages": Count(int(same.sum()), len(selected)),
    }


def of_truncation(queries: npt.NDArray[np.bool_], passages: npt.NDArray[np.bool_]) -> Counts:
    """Queries and passages of which the student sees the beginning only, given which of all."""
    return {
        "queries_truncated": Count(int(queries.sum()), len(queries)),
        "passages_truncated": Count(int(passages.sum()), len(passages)),
    }


def of_tested(collection: str, timing: Timing) -> Counts:
    """Texts of a test collection of which the student saw the beginning only; have no limit."""
    return {f"{collection}/texts_truncated": Count(timing.texts_truncated, timing.texts)}


def block(name: str, counts: Counts, oddities: Mapping[str, int]) -> str:
    """A few lines: everything that is not 0, in the order of the counts.

    `oddities` are those of the collection as it was loaded (`Collection.counts`).
    """
    lines = [f"  {what}: {c.n:,} of {c.of:,} ({c.share:.1%})" for what, c in counts.items() if c.n]
    lines += [f"  {what}: {n:,} (of the collection)" for what, n in oddities.items() if n]
    return "\n".join([f"{name}: {'what was lost or is odd' if lines else 'nothing lost'}", *lines])


def check(counts: Counts, limits: Mapping[str, float | None]) -> None:
    """Refuse shares above their limits.

    Raises
    ------
    TooMany
        If a count is a larger share of its total than `limits` says; all such are named.
    """
    over = [
        f"{name}: {counts[name].n:,} of {counts[name].of:,} ({counts[name].share:.1%}), more than "
        f"limits.{name}={limit}"
        for name, limit in limits.items()
        if limit is not None and name in counts and counts[name].share > limit
    ]
    if over:
        raise TooMany("; ".join(over))


@dataclass(frozen=True)
class QuerySet:
    """The queries of a collection: (collection, query id) is a key, the bare query id is none."""

    collection: str
    queries: Mapping[str, str]


def leaks(train: QuerySet, tests: Mapping[str, QuerySet]) -> tuple[Count, list[str]]:
    """Training queries that are also test queries: the same words, or the same id of a collection.

    Case and white space make no other words.

    Parameters
    ----------
    tests
        Test sets by name.

    Returns
    -------
    count, messages
        Training queries that are tested, of all; a message for each test set that has such.
    """
    words = {query_id: _plain(text) for query_id, text in train.queries.items()}
    tested_ids: set[str] = set()
    messages = []
    for name, test in tests.items():
        tested = {_plain(text): query_id for query_id, text in test.queries.items()}
        same = {query_id: tested[text] for query_id, text in words.items() if text in tested}
        if test.collection == train.collection:
            same |= {query_id: query_id for query_id in words if query_id in test.queries}
        if same:
            first = min(same)
            messages.append(
                f"{len(same):,} training queries of {train.collection!r} are test queries of "
                f"{name!r} ({test.collection!r}), e.g. {first!r} and {same[first]!r}: "
                f"{train.queries[first]!r}"
            )
        tested_ids |= set(same)
    return Count(len(tested_ids), len(words)), messages


def of_leaks(train: QuerySet, tests: Mapping[str, QuerySet]) -> Counts:
    """Count training queries that are tested; warn of these, and of test sets that collide."""
    count, messages = leaks(train, tests)
    for message in (*messages, *collisions(tests)):
        _warn_once(message)
    return {"train_queries_tested": count}


def warn(collection: Collection) -> None:
    """Warn of judged passages that a collection has in another spelling."""
    if n := collection.counts.get(SPELT_OTHERWISE):
        _warn_once(
            f"{collection.name}: {counted(n, 'judgement')} of passages that the corpus has in "
            f"another spelling, so that they are never met: "
            f"{'; '.join(collection.examples[SPELT_OTHERWISE])}; write them alike in both files"
        )


def own_passages(ranking: pd.DataFrame, collection: Collection) -> list[str]:
    """Queries that retrieve themselves: a passage with their id, whose text is theirs.

    A title may stand before the passage's text, and its end may be cut. An equal id alone says
    nothing: many collections number queries and passages alike. Where there are no texts to look
    at, the first place says that it is the same.
    """
    own = ranking[ranking.query_id == ranking.doc_id]
    try:
        return [
            query_id
            for query_id in own.query_id
            if query_id in collection.passages
            and _repeats(collection.queries[query_id], collection.passages[query_id])
        ]
    except FileNotFoundError:  # of ir_datasets, and not fetched
        return [str(query_id) for query_id in own.query_id[own["rank"] == 1]]


def warn_of_own(name: str, ranking: pd.DataFrame, collection: Collection, rule: str | None) -> None:
    """Warn of queries that retrieve themselves, where no rule says what is to be done."""
    queries = own_passages(ranking, collection) if rule is None else []
    if queries:
        _warn_once(
            f"{name}: {len(queries):,} of {counted(ranking.query_id.nunique(), 'query')} have "
            f"their own text, under their own id, among their passages, e.g. {queries[0]!r}; "
            "evaluation.self_retrieval=drop leaves it out (BEIR's rule), =keep says that it counts"
        )


def _warn_once(message: str) -> None:
    if message not in _WARNED:
        print(f"WARNING  {message}")
        _WARNED.add(message)


def _repeats(query: str, passage: str) -> bool:
    """Whether a passage is the beginning of a query, or all of it, with perhaps a title before."""
    asked, words = _plain(query).split(), _plain(passage).split()
    enough = min(5, len(asked))
    return any(
        len(words) - title >= max(enough, title) and words[title:] == asked[: len(words) - title]
        for title in range(len(words))
    )


def collisions(tests: Mapping[str, QuerySet]) -> list[str]:
    """Query ids that are different queries in two test sets; and sets that share some queries.

    A message for each pair of test sets, with an example of both. Sets with the same queries under
    the same ids, as two first stages of one collection have, are none; neither are sets of
    unlike collections with different ids.
    """
    messages = []
    named = list(tests.items())
    for i, (name, test_set) in enumerate(named):
        for other_name, other_set in named[i + 1 :]:
            if test_set.queries == other_set.queries:
                continue
            where = (
                f"{name!r} ({test_set.collection!r}) and {other_name!r} ({other_set.collection!r})"
            )
            ids = [q for q in test_set.queries if q in other_set.queries]
            unlike = [q for q in ids if _plain(test_set.queries[q]) != _plain(other_set.queries[q])]
            if unlike:
                first = unlike[0]
                messages.append(
                    f"{where}: {counted(len(unlike), 'query id')} with another text, "
                    f"e.g. {first!r}: "
                    f"{test_set.queries[first]!r} and {other_set.queries[first]!r}"
                )
            words = {_plain(text): q for q, text in other_set.queries.items()}
            shared = [q for q, text in test_set.queries.items() if _plain(text) in words]
            if shared:
                first = shared[0]
                messages.append(
                    f"{where}: {counted(len(shared), 'query')} in both, e.g. {first!r}: "
                    f"{test_set.queries[first]!r}; a mean over the two counts them twice"
                )
    return messages


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
