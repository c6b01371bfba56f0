"""Take candidates from a ranking file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from pydantic import JsonValue

from rdx import rankings
from rdx.collection import Collection
from rdx.declared import READ, RELEASED, one_of, settings
from rdx.facts import Fingerprint
from rdx.samplers.indexes import prepared, sha256
from rdx.text import counted

STORED = "ranking.parquet"


@settings(frozen=True)
class Recorded:
    """A given ranking: a TREC run, also `.gz` or `.zst`, or a `.parquet` file.

    Parameters
    ----------
    run
        Path of the file. Parquet has the columns query_id, doc_id, rank and score, the rows of a
        query next to each other.
    order
        "score": trec_eval's order, with a warning where the rank column contradicts it; "rank": the
        rank column decides.
    missing
        Passages of the run without text: "error" names the first, "drop" leaves them out.
    """

    run: Annotated[str, READ, RELEASED]
    order: Annotated[str, one_of("score", "rank")] = "score"
    missing: Annotated[str, one_of("error", "drop")] = "error"

    from_file: ClassVar[bool] = True  # queries and passages are those that a file names

    def check(self) -> None:
        """Raise FileNotFoundError if the file is not there."""
        if not Path(self.run).is_file():
            raise FileNotFoundError(
                f"run={self.run}: no such file (docs/paper.md lists those of the paper)"
            )

    def index_of(self, corpus: JsonValue) -> JsonValue:
        """What decides the index: the content of the file and its order, whatever the passages."""
        run = sha256(self.run) if Path(self.run).is_file() else self.run  # not fetched yet
        return {"recorded": run, "order": self.order}

    def prepare(self, collection: Collection | None, folder: Path) -> None:
        """Convert the file, in bounded memory, so that single queries can be looked up.

        Raises
        ------
        FormatError
            If it is no run, or one of its ids is not one word.
        """
        rankings.store_ranking(self._watched(), folder / STORED)

    def _watched(self) -> Iterator[pd.DataFrame]:
        """The blocks of the file; at its end, a warning if its two orders contradict each other."""
        misranked = 0
        for block in self._blocks():
            misranked += block.attrs.get(rankings.MISRANKED, 0)
            yield block
        if misranked:
            print(
                f"WARNING  {self.run}: the rank column of {counted(misranked, 'query')} "
                "contradicts the scores, which decide, as in trec_eval; order=rank lets the ranks "
                "decide"
            )

    def covered(self, queries: Iterable[str], folder: Path | None = None) -> list[str]:
        """Return those of the queries that the run has, in its order.

        Training queries are drawn from them.
        """
        with prepared(partial(self.prepare, None), folder) as place:
            stored = rankings.StoredRanking(place / STORED)
            wanted = set(queries)
            query_ids = [query_id for query_id in stored.queries if query_id in wanted]
        if not query_ids:
            raise rankings.FormatError(f"{self.run}: none of its queries is in the collection")
        return query_ids

    def candidates(
        self, collection: Collection, k: int, folder: Path | None = None
    ) -> pd.DataFrame:
        """Return the top k passages that the run has for the queries of the collection.

        Parameters
        ----------
        collection
            Its queries are looked up; the others of the run are not read.
        k
            Passages of a query, at most.
        folder
            Where `prepare` converted the run to; None converts it now.

        Returns
        -------
        pandas.DataFrame
            A ranking. Where passages were left out, `attrs["passages_missing"]` tells how many
            rows of the collection's queries, and of how many; they are printed, too.

        Raises
        ------
        FormatError
            If no query of the collection is in the run, or a passage has no text.
        """
        with prepared(partial(self.prepare, collection), folder) as place:
            stored = rankings.StoredRanking(place / STORED)
            known = (q for q in stored.queries if q in collection.queries)
            # where passages are left out, those behind them move up
            ranking = stored.of(known, k if self.missing == "error" else None)
        if ranking.empty:
            raise rankings.FormatError(
                f"{self.run}: none of its queries is among the {len(collection.queries)} queries "
                f"of collection {collection.name!r}"
            )
        if self.missing == "drop":
            return self._with_text(ranking, collection, k)
        unknown = ranking[_without_text(ranking, collection)]
        if len(unknown):
            first = unknown.iloc[0]
            otherwise = self._spelt_otherwise(unknown, collection)
            raise rankings.FormatError(
                f"{self._place(first.query_id, first.doc_id)}: passage {first.doc_id!r} of query "
                f"{first.query_id!r} is not in collection {collection.name!r} "
                f"({len(unknown)} such passages); missing=drop leaves them out{otherwise}"
            )
        return ranking

    def _with_text(self, ranking: pd.DataFrame, collection: Collection, k: int) -> pd.DataFrame:
        """The top k of the passages that have a text."""
        absent = _without_text(ranking, collection)
        kept = top(_dense(ranking[~absent]), k)
        missing = int(absent.sum())
        if missing:
            rows = counted(len(ranking), "row")
            print(
                f"WARNING  {self.run}: {missing:,} of {rows} left out, since {collection.name} has "
                f"no such passages{self._spelt_otherwise(ranking[absent], collection)}"
            )
            kept.attrs["passages_missing"] = (missing, len(ranking))
        return kept

    def _spelt_otherwise(self, unknown: pd.DataFrame, collection: Collection) -> str:
        """What is added to a message about unknown passages that are spelt otherwise."""
        pairs = rankings.alike(unknown.doc_id.unique(), collection.passages)
        some = "; ".join(rankings.shown(pairs))
        return f"; {len(pairs):,} of them it has in another spelling: {some}" if pairs else ""

    def fingerprint(self) -> Fingerprint:
        """Engine, file and its sha256, for table footers."""
        return {"engine": "recorded", "run": Path(self.run).name, "sha256": sha256(self.run)[:16]}

    def _blocks(self) -> Iterator[pd.DataFrame]:
        """The file as rankings of whole queries."""
        if not self.run.endswith(".parquet"):
            yield from rankings.stream_trec(self.run, self.order)  # type: ignore[arg-type]
            return
        for block in rankings.StoredRanking(self.run).blocks():
            absent = [name for name in rankings.COLUMNS if name not in block]
            if absent:
                raise rankings.FormatError(f"{self.run}: columns missing: {', '.join(absent)}")
            self._check_ids(block)
            if self.order == "score":
                yield rankings.rank(block.query_id, block.doc_id, block.score)
                continue
            order = np.lexsort((block["rank"].to_numpy(), pd.factorize(block.query_id)[0]))
            ranked = _dense(block.iloc[order][list(rankings.COLUMNS)].astype({"score": "float32"}))
            rankings.check(ranked, self.run)
            yield ranked

    def _check_ids(self, block: pd.DataFrame) -> None:
        """Refuse ids that no TREC run could be written with; files of columns have none."""
        for name in ("query_id", "doc_id"):
            odd = [word for word in block[name].unique() if not rankings.one_word(str(word))]
            if odd:
                raise rankings.FormatError(
                    f"{self.run}: {len(odd)} values of {name} are not one word, e.g. {odd[0]!r}"
                )

    def _place(self, query_id: str, doc_id: str) -> str:
        """File and, where it has lines, the line of a pair."""
        if self.run.endswith(".parquet"):
            return self.run
        return f"{self.run}:{rankings.line_with(self.run, query_id, doc_id)}"


def top(ranking: pd.DataFrame, k: int) -> pd.DataFrame:
    """The first k passages of every query."""
    return ranking[ranking["rank"] <= k].reset_index(drop=True)


def _without_text(ranking: pd.DataFrame, collection: Collection) -> np.ndarray:
    """Which rows name a passage that is not there; each passage is looked for once."""
    codes, doc_ids = pd.factorize(ranking.doc_id)
    return np.asarray(~collection.holds(doc_ids.tolist())[codes])


def _dense(ranking: pd.DataFrame) -> pd.DataFrame:
    """Number the passages of each query again after some were left out."""
    numbered = ranking.assign(rank=ranking.groupby("query_id", sort=False).cumcount() + 1)
    return numbered.astype({"rank": "int32"}).reset_index(drop=True)
