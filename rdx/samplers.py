"""Where candidates come from, and how many of them make a training list."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.draws import generator

VARIANTS = ("robertson", "atire", "bm25l", "bm25+", "lucene")
MODES = ("first_stage", "relabel", "teacher")


@dataclass(frozen=True)
class BM25:
    """BM25 by bm25s, with PyStemmer's Snowball stemmers.

    Passages that share no term with the query are not retrieved. Ties as trec_eval.

    Parameters
    ----------
    variant
        One of bm25s' variants.
    k1, b
        k1 >= 0, 0 <= b <= 1.
    stopwords
        A language code of bm25s' stop word lists, or "none".
    stemmer
        Name of a Snowball stemmer, or "none".
    """

    variant: str = "lucene"
    k1: float = 0.9
    b: float = 0.4
    stopwords: str = "en"
    stemmer: str = "english"

    def __post_init__(self) -> None:
        """Check values."""
        import Stemmer

        _one_of("sampler.variant", self.variant, VARIANTS)
        _one_of("sampler.stemmer", self.stemmer, ("none", *Stemmer.algorithms()))
        if self.k1 < 0:
            raise ValueError(f"sampler.k1={self.k1}: must be at least 0")
        if not 0 <= self.b <= 1:
            raise ValueError(f"sampler.b={self.b}: must be between 0 and 1")

    def candidates(self, collection: Any, k: int) -> pd.DataFrame:
        """Rank the top k passages for every query of a collection."""
        doc_ids, index = self._index(collection.passages)
        tokens = self._tokens(list(collection.queries.values()))
        found, scores = _retrieve(index, tokens, k, len(doc_ids))
        query_ids = np.repeat(np.array(list(collection.queries), dtype=object), found.shape[1])
        hit = scores.ravel() > 0
        ranking = rankings.rank(
            query_ids[hit], np.array(doc_ids, dtype=object)[found.ravel()[hit]], scores.ravel()[hit]
        )
        return top(ranking, k)

    def fingerprint(self) -> dict[str, Any]:
        """Engine, versions and parameters, for table footers."""
        versions = {name: importlib.metadata.version(name) for name in ("bm25s", "PyStemmer")}
        return {"engine": "bm25s", "versions": versions, **asdict(self)}

    def _index(self, passages: Any) -> tuple[list[str], Any]:
        """The index of a collection, kept for as long as the process uses the same passages."""
        key = (self, id(passages))
        if key not in _INDEXES:
            import bm25s

            doc_ids = list(passages)
            texts = [passages[doc_id] for doc_id in doc_ids]
            logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs to the console by itself
            index = bm25s.BM25(method=self.variant, k1=self.k1, b=self.b)
            index.index(self._tokens(texts), show_progress=len(texts) > 50_000)
            # What BM25L and BM25+ give a passage for terms that it lacks is a constant per query:
            # without it the order is the same, and only passages that share a term are above 0.
            index.nonoccurrence_array = None
            _INDEXES.clear()  # one index at a time
            _INDEXES[key] = (passages, doc_ids, index)
        return _INDEXES[key][1:]

    def _tokens(self, texts: list[str]) -> Any:
        import bm25s
        import Stemmer

        return bm25s.tokenize(
            texts,
            stopwords=None if self.stopwords == "none" else self.stopwords,
            stemmer=None if self.stemmer == "none" else Stemmer.Stemmer(self.stemmer),
            show_progress=False,
        )


_INDEXES: dict[Any, Any] = {}


@dataclass(frozen=True)
class Random:
    """Passages drawn uniformly without replacement: a pure function of (seed, query id).

    Parameters
    ----------
    seed
        Another seed draws others.
    positives
        Whether the query's relevant passages are put among them (replacing the last drawn).
    """

    seed: int = 0
    positives: bool = False

    def candidates(self, collection: Any, k: int) -> pd.DataFrame:
        """Draw k passages for every query; the score is the negative position."""
        doc_ids = np.array(list(collection.passages), dtype=object)
        relevant = collection.relevant() if self.positives else {}
        rows: list[tuple[str, str, float]] = []
        for query_id in collection.queries:
            draw = generator(self.seed, query_id)
            drawn = draw.choice(doc_ids, size=min(k, len(doc_ids)), replace=False).tolist()
            wanted = [d for d in relevant.get(query_id, {}) if d in collection.passages][:k]
            rest = [d for d in drawn if d not in wanted]
            mixed = wanted + rest[: len(drawn) - len(wanted)]
            order = draw.permutation(len(mixed)) if wanted else range(len(mixed))
            rows += [(query_id, mixed[j], -float(i)) for i, j in enumerate(order)]
        return rankings.rank(*zip(*rows, strict=True))

    def fingerprint(self) -> dict[str, Any]:
        """Engine and parameters, for table footers."""
        return {"engine": "random", **asdict(self)}


@dataclass(frozen=True)
class Recorded:
    """A given TREC run.

    Parameters
    ----------
    run
        Path of the run.
    order
        "score": trec_eval's order; "rank": the rank column decides.
    missing
        Passages of the run without text: "error" names the first, "drop" leaves them out.
    """

    run: str
    order: str = "score"
    missing: str = "error"

    def __post_init__(self) -> None:
        """Check values and that the file is there."""
        _one_of("sampler.order", self.order, ("score", "rank"))
        _one_of("sampler.missing", self.missing, ("error", "drop"))
        if not Path(self.run).is_file():
            raise ValueError(
                f"sampler.run={self.run}: no such file (docs/paper.md lists those of the paper)"
            )

    def covered(self, queries: Iterable[str]) -> list[str]:
        """Those of the queries that the run has: what training queries are drawn from."""
        ranking = rankings.read_trec(self.run, order=self.order)  # type: ignore[arg-type]
        found = set(ranking.query_id.unique())
        return [query_id for query_id in queries if query_id in found]

    def candidates(self, collection: Any, k: int) -> pd.DataFrame:
        """Return the top k passages that the run has for the queries of the collection.

        Raises
        ------
        FormatError
            If no query of the collection is in the run, or a passage has no text.
        """
        ranking = rankings.read_trec(self.run, order=self.order)  # type: ignore[arg-type]
        ranking = ranking[ranking.query_id.isin(collection.queries)]
        if ranking.empty:
            raise rankings.FormatError(
                f"{self.run}: none of its queries is among the {len(collection.queries)} queries "
                f"of collection {collection.name!r}"
            )
        known = ranking.doc_id.map(lambda doc_id: doc_id in collection.passages)
        kept = ranking[known] if self.missing == "drop" else ranking
        kept = top(_dense(kept), k)
        unknown = kept[~kept.doc_id.map(lambda doc_id: doc_id in collection.passages)]
        if len(unknown):
            first = unknown.iloc[0]
            line = rankings.line_with(self.run, first.query_id, first.doc_id)
            raise rankings.FormatError(
                f"{self.run}:{line}: passage {first.doc_id!r} of query {first.query_id!r} is not "
                f"in collection {collection.name!r} ({len(unknown)} such passages); "
                "missing=drop leaves them out"
            )
        return kept

    def fingerprint(self) -> dict[str, Any]:
        """Engine, file and its sha256, for table footers."""
        with Path(self.run).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"engine": "recorded", "run": Path(self.run).name, "sha256": digest[:16]}


@dataclass(frozen=True)
class Depth:
    """How many candidates a training list holds, and which lists there are.

    Parameters
    ----------
    k
        Passages of a training list, at most.
    mode
        "first_stage": the teacher ranks `pool` candidates, those with first-stage rank <= k are
        kept in the teacher's order (the paper); "relabel": the teacher ranks the top k only;
        "teacher": the teacher ranks `pool`, its own top k are kept.
    pool
        Candidates that the teacher is given in the modes "first_stage" and "teacher"; >= k.
    queries
        Number of training queries; None = all. Samples of one seed are nested.
    seed
        Of the query sample.
    """

    k: int
    mode: str = "first_stage"
    pool: int = 100
    queries: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check values."""
        _one_of("depth.mode", self.mode, MODES)
        if self.k < 2:
            raise ValueError(f"depth.k={self.k}: must be at least 2")
        if self.mode != "relabel" and self.pool < self.k:
            raise ValueError(f"depth.pool={self.pool}: must be at least depth.k={self.k}")
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"depth.queries={self.queries}: must be at least 1, or null for all")

    @property
    def asked(self) -> int:
        """How many candidates the teacher is given."""
        return self.k if self.mode == "relabel" else self.pool

    def select(self, candidates: pd.DataFrame, taught: pd.DataFrame) -> pd.DataFrame:
        """Keep the passages of the training lists.

        Columns: query_id, doc_id, rank, score (both of the first stage), teacher_rank,
        teacher_score (NaN where the teacher gives an order only).

        Lists whose teacher ranking failed (state other than ok and repaired) and lists of fewer
        than two passages are left out. Teacher ranks are those of the longer list, so that they
        may have gaps; every loss only compares them or ranks them again.
        """
        usable = taught[taught.state.isin(rankings.USABLE)]
        labels = usable.rename(columns={"score": "teacher_score"})
        lists = candidates.merge(
            labels[["query_id", "doc_id", "teacher_rank", "teacher_score"]],
            on=["query_id", "doc_id"],
        )
        if self.mode == "teacher":
            order = lists.sort_values(["teacher_rank", "rank"]).groupby("query_id").cumcount()
            lists = lists[order.reindex(lists.index) < self.k]
        else:
            lists = lists[lists["rank"] <= self.k]
        size = lists.groupby("query_id").doc_id.transform("size")
        return lists[size >= 2].reset_index(drop=True)


def _retrieve(index: Any, tokens: Any, k: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """At least the top k of every query, and whatever ties with the last of them.

    The engine cuts ties arbitrarily; their order is ours.
    """
    depth = k + 32
    while True:
        depth = min(depth, size)
        found, scores = index.retrieve(tokens, k=depth, show_progress=False, n_threads=1)
        cut = scores[:, min(k, size) - 1]
        if depth == size or not ((scores[:, -1] == cut) & (cut > 0)).any():
            return found, scores
        depth *= 4


def top(ranking: pd.DataFrame, k: int) -> pd.DataFrame:
    """The first k passages of every query."""
    return ranking[ranking["rank"] <= k].reset_index(drop=True)


def _dense(ranking: pd.DataFrame) -> pd.DataFrame:
    """Number the passages of each query again after some were left out."""
    numbered = ranking.assign(rank=ranking.groupby("query_id", sort=False).cumcount() + 1)
    return numbered.astype({"rank": "int32"}).reset_index(drop=True)


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"{name}={value!r}: must be one of {list(valid)}")
