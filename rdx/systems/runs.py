"""Read TREC runs of other systems."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import rankings
from rdx.collection import Collection
from rdx.facts import ImportedFile
from rdx.rankings.trec import Order


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

    def read(self, test: Collection) -> pd.DataFrame:
        """The ranking of the queries of a collection; others are left out.

        Raises
        ------
        FileNotFoundError, FormatError
            If there is no such file, it is no run, or it ranks none of the queries.
        """
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such file (in {Path.cwd()})")
        ranking = rankings.read_trec(self.path, order=self.order)
        if self.order == "rank":  # then no rule for ties may look at the scores
            ranking = ranking.assign(score=-ranking["rank"].astype("float32"))
        kept = ranking[ranking.query_id.isin(test.queries)].reset_index(drop=True)
        if kept.empty:
            raise rankings.FormatError(
                f"{self.path}: none of its {ranking.query_id.nunique()} queries is among the "
                f"{len(test.queries)} judged queries of collection {test.name!r}"
            )
        return kept


def outside(ranking: pd.DataFrame, first: pd.DataFrame) -> pd.Series[bool]:
    """Whether each passage of a ranking is not among the candidates."""
    pairs = pd.MultiIndex.from_frame(ranking[["query_id", "doc_id"]])
    inside = pairs.isin(pd.MultiIndex.from_frame(first[["query_id", "doc_id"]]))
    return pd.Series(~inside, index=ranking.index)
