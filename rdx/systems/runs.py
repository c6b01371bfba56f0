"""Read TREC runs of other systems."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import rankings
from rdx.collection import Collection
from rdx.data.texts import StoredTexts
from rdx.facts import Count, Counts, ImportedFile
from rdx.rankings.trec import Order
from rdx.text import counted


@dataclass(frozen=True)
class Run:
    """A TREC run.

    Parameters
    ----------
    path
        The file; may be .gz or .zst.
    order
        "score": by score, ties by doc id descending, as trec_eval; "rank": by the rank column, and
        scores are the negative ranks.
    """

    path: str
    order: Order = "score"

    @property
    def name(self) -> str:
        """File name without the endings of runs."""
        name = Path(self.path).name
        for ending in (".gz", ".zst", ".run", ".trec", ".txt"):
            name = name.removesuffix(ending)
        return name

    @property
    def imported(self) -> ImportedFile:
        """What identifies it in the record of a trial."""
        with Path(self.path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return ImportedFile(Path(self.path).name, content, self.order)

    def read(self, test: Collection, self_retrieval: str | None = None) -> ReadRun:
        """The ranking of the queries of a collection; others are left out.

        Parameters
        ----------
        test
            The collection, cut down to its judged queries.
        self_retrieval
            "drop" leaves out passages with the id of their query (`evaluation.self_retrieval`).

        Raises
        ------
        FileNotFoundError, FormatError
            If there is no such file, it is no run, or it ranks none of the queries.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file (in {Path.cwd()})")
        whole = rankings.read_trec(self.path, order=self.order)
        misranked = whole.attrs.get(rankings.MISRANKED, 0)
        if self.order == "rank":  # then no rule for ties may look at the scores
            whole = whole.assign(score=-whole["rank"].astype("float32"))
        asked = whole.query_id.unique()
        unknown = [query_id for query_id in asked if query_id not in test.queries]
        unranked = test.queries.keys() - set(asked)
        queries = rankings.alike(unknown, unranked)
        kept = whole[whole.query_id.isin(test.queries)].reset_index(drop=True)
        if kept.empty:
            otherwise = "; ".join(rankings.shown(queries))
            raise rankings.FormatError(
                f"{self.path}: none of its {len(asked)} queries is among the "
                f"{len(test.queries)} judged queries of collection {test.name!r}"
                + (f"; it spells some otherwise: {otherwise}" if otherwise else "")
            )
        rows, own = len(kept), int((kept.query_id == kept.doc_id).sum())
        if self_retrieval == "drop" and own:
            kept = rankings.without_own(kept)
        passages, size = _alike_passages(kept, test), kept.doc_id.nunique()
        return ReadRun(
            kept,
            {
                "queries_not_in_collection": Count(len(unknown), len(asked)),
                "queries_spelt_otherwise": Count(len(queries), len(asked)),
                "passages_spelt_otherwise": Count(len(passages), size),
                "passages_not_in_corpus": Count(_absent(kept, test), size),
                "queries_misranked": Count(misranked, len(asked)),
                "own_passages": Count(own, rows),
            },
            rankings.shown(queries) + rankings.shown(passages),
        )


@dataclass(frozen=True)
class ReadRun:
    """A run beside a collection.

    Attributes
    ----------
    ranking
        Of the queries of the collection.
    counts
        Of its queries those that the collection does not test, those of them that it has in
        another spelling, and those whose rank column contradicts the scores; of its passages those
        of which the judgements have another spelling, and those that the corpus lacks (0 where it
        is not a file of the user's); of its rows those whose passage has the id of the query.
    spellings
        The first few ids that are spelt otherwise, and how.
    """

    ranking: pd.DataFrame
    counts: Counts
    spellings: tuple[str, ...]

    def warnings(self) -> list[str]:
        """What of it may make a wrong number."""
        n = {name: count.n for name, count in self.counts.items()}
        messages = []
        if self.spellings:
            messages.append(
                f"{counted(n['queries_spelt_otherwise'], 'query id')} and "
                f"{counted(n['passages_spelt_otherwise'], 'passage id')} have another spelling in "
                f"the collection, where they are never met: {'; '.join(self.spellings)}; write "
                "them alike in both files"
            )
        if n["queries_misranked"]:
            messages.append(
                f"the rank column of {counted(n['queries_misranked'], 'query')} contradicts the "
                "scores, which decide, as in trec_eval; --order rank lets the ranks decide"
            )
        return messages


def _alike_passages(ranking: pd.DataFrame, test: Collection) -> dict[str, str]:
    """Ranked passages without a judgement -> judged passages that the run lacks, if alike."""
    ranked, judged = set(ranking.doc_id), set(test.qrels.doc_id)
    return rankings.alike(sorted(ranked - judged), sorted(judged - ranked))


def _absent(ranking: pd.DataFrame, test: Collection) -> int:
    """How many of its passages the corpus lacks; passages of ir_datasets are not looked up."""
    if not isinstance(test.passages, StoredTexts):
        return 0
    return sum(doc_id not in test.passages for doc_id in ranking.doc_id.unique())


def outside(ranking: pd.DataFrame, first: pd.DataFrame) -> pd.Series[bool]:
    """Whether each passage of a ranking is not among the candidates."""
    pairs = pd.MultiIndex.from_frame(ranking[["query_id", "doc_id"]])
    inside = pairs.isin(pd.MultiIndex.from_frame(first[["query_id", "doc_id"]]))
    return pd.Series(~inside, index=ranking.index)
