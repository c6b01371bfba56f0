"""Teachers that need no model: recorded rankings, labels, and controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.declared import READ, RELEASED, one_of, settings
from rdx.draws import generator
from rdx.teachers.tables import permutation, taught


@settings(frozen=True)
class Recorded:
    """A given teacher ranking, such as an LLM's published run.

    Parameters
    ----------
    run
        TREC run, plain, `.gz` or `.zst`; or a parquet file with `query_id`, `doc_id`, `rank` and
        `score`, whose lists are looked up. Only the lists that are asked for are held in memory.
    order
        "rank": the rank column is the permutation, and scores are left out (those of such files
        are often copies of the first stage's); "score": trec_eval's order, and scores are kept.
    """

    run: Annotated[str, READ, RELEASED]
    order: Annotated[str, one_of("rank", "score")] = "rank"

    ranks_unseen = False
    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"scores": {"order": "score"}}

    def check(self) -> None:
        """Raise FileNotFoundError if the file is not there."""
        if not Path(self.run).is_file():
            raise FileNotFoundError(
                f"run={self.run}: no such file (docs/paper.md lists those of the paper; "
                "`python -m rdx data status` says which can be fetched)"
            )

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Look the candidates up; a list of which a passage is not in the run is "failed".

        Raises
        ------
        FormatError
            If the run covers no list of the candidates.
        """
        given = self._lists(list(dict.fromkeys(candidates.query_id)))
        found = candidates.merge(
            given.rename(columns={"rank": "given", "score": "theirs"})[
                ["query_id", "doc_id", "given", "theirs"]
            ],
            on=["query_id", "doc_id"],
            how="left",
        )
        complete = found.given.notna().groupby(found.query_id).transform("all")
        if not complete.any():
            raise rankings.FormatError(
                f"{self.run}: ranks all candidates of none of the {found.query_id.nunique()} "
                "training queries; are the candidates those that the teacher was given?"
            )
        found["given"] = found.given.fillna(np.inf)
        ranked = permutation(found, ["given", "rank"])
        state = np.where(complete.to_numpy(), "ok", "failed")
        score = found.theirs if self.order == "score" else np.float32("nan")
        added = found[["query_id", "doc_id"]].assign(score=score, state=state)
        added["score"] = added.score.astype("float32")
        return ranked.drop(columns=["score", "state"]).merge(added, on=["query_id", "doc_id"])

    def _lists(self, queries: list[str]) -> pd.DataFrame:
        """The lists of some queries, those that the run has, as a ranking."""
        if not self.run.endswith(".parquet"):
            blocks = rankings.stream_trec(self.run, self.order)  # type: ignore[arg-type]
            parts = [block[block.query_id.isin(queries)] for block in blocks]
            return pd.concat(parts, ignore_index=True)
        stored = rankings.StoredRanking(self.run)
        lists = stored.of([query_id for query_id in queries if query_id in stored])
        if self.order == "score":
            return rankings.rank(lists.query_id, lists.doc_id, lists.score)
        lists = lists.sort_values("rank", kind="stable")
        return lists.assign(rank=lists.groupby("query_id").cumcount() + 1)


@settings(frozen=True)
class Labels:
    """The relevance judgements: higher grades first, equal grades tied (teacher_rank 1, 2, ...)."""

    ranks_unseen = False
    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"labels": {}, "scores": {}}

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Rank by grade; unjudged counts as 0."""
        grade = _grades(candidates, collection)
        ranks = (-grade).groupby(candidates.query_id).rank(method="dense").astype("int32")
        return taught(candidates.assign(teacher_rank=ranks, score=grade.astype("float32")))


@settings(frozen=True)
class Oracle:
    """Control: by relevance judgement, ties in the order of the first stage; a permutation."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Rank by grade, then first-stage rank."""
        graded = candidates.assign(grade=-_grades(candidates, collection))
        return permutation(graded, ["grade", "rank"])


@settings(frozen=True)
class Identity:
    """Control: the candidates as the first stage ranked them."""

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Keep the first-stage order."""
        return permutation(candidates, ["rank"])


@settings(frozen=True)
class Shuffled:
    """Control: a random permutation of every list, a pure function of (seed, query id)."""

    seed: int = 0

    ranks_unseen = False

    def rank(self, candidates: pd.DataFrame, collection: Any, work: Path) -> pd.DataFrame:
        """Shuffle every list."""
        sizes = candidates.groupby("query_id", sort=False).size()
        drawn = [generator(self.seed, "shuffled", q).permutation(n) for q, n in sizes.items()]
        ordered = candidates.sort_values("query_id", key=_first_seen(candidates), kind="stable")
        return permutation(ordered.assign(drawn=np.concatenate(drawn)), ["drawn"])


def _grades(candidates: pd.DataFrame, collection: Any) -> pd.Series:
    relevant = collection.relevant()
    if not relevant:
        raise rankings.FormatError(f"collection {collection.name!r} has no relevance judgements")
    pairs = zip(candidates.query_id, candidates.doc_id, strict=True)
    return pd.Series([relevant.get(q, {}).get(d, 0) for q, d in pairs], index=candidates.index)


def _first_seen(frame: pd.DataFrame) -> Any:
    seen = {q: i for i, q in enumerate(dict.fromkeys(frame.query_id))}
    return lambda ids: ids.map(seen)
