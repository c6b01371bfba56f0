"""What teachers that score single passages share: a ledger, batches, and labels out of scores.

A chunk of passages is scored for all queries that they are candidates of, and is in the ledger
before it is used: a killed teacher goes on from there, with the same numbers, because batches never
cross chunks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from rdx import rankings
from rdx.assets import check_model
from rdx.bars import bar
from rdx.collection import Collection
from rdx.precision import chosen
from rdx.teachers.tables import as_teacher_ranking
from rdx.text import counted

LEDGER = "scores.jsonl"

Asked = tuple[str, list[str]]  # a passage, and the queries that it is to be scored for
Value = TypeVar("Value")


class Settings:
    """What the settings of teachers with a model in this process have in common."""

    if TYPE_CHECKING:  # fields of each teacher
        model: str
        revision: str | None
        precision: str
        device: str

    ranks_unseen = True
    gives: ClassVar[Mapping[str, Mapping[str, str]]] = {"scores": {}}

    def __post_init__(self) -> None:
        """Choose the precision."""
        object.__setattr__(self, "precision", chosen(self.precision, self.device))

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError if the model is none that could be loaded."""
        check_model(self.model, self.revision)


class Scorer(Protocol):
    """A loaded model."""

    def scores(self, asked: Sequence[Asked], progress: tqdm) -> list[list[float]]:
        """Of each passage, a score for each of its queries; `progress` counts the scores."""


def scored(
    candidates: pd.DataFrame,
    collection: Collection,
    ledger: Path,
    chunk: int,
    load: Callable[[], Scorer],
) -> pd.Series[float]:
    """The score (float32) of every candidate; the model is loaded if the ledger lacks some.

    Parameters
    ----------
    chunk
        Passages that are scored, and appended to the ledger, at a time.
    """
    scores = dict(_read(ledger))
    asked = {d: list(rows.query_id) for d, rows in candidates.groupby("doc_id", sort=False)}
    passages = list(asked)
    chunks = [passages[i : i + chunk] for i in range(0, len(passages), chunk)]
    todo = [part for part in chunks if any(d not in scores for d in part)]
    model = load() if todo else None
    total = sum(len(asked[d]) for part in todo for d in part)
    with bar(total=total, desc="teaching", unit="pair", disable=not todo) as progress:
        for part in todo:
            assert model is not None
            texts = [(collection.passages[d], [collection.queries[q] for q in asked[d]])
                     for d in part]  # fmt: skip
            values_of = model.scores(texts, progress)
            fresh = {d: dict(zip(asked[d], values, strict=True))
                     for d, values in zip(part, values_of, strict=True)}  # fmt: skip
            _append(ledger, fresh)
            scores.update(fresh)
    rows = zip(candidates.query_id, candidates.doc_id, strict=True)
    return pd.Series([scores[d][q] for q, d in rows], candidates.index, dtype="float32")


def ranked(
    candidates: pd.DataFrame,
    scores: pd.Series[float],
    model: str,
    final: pd.Series[float] | None = None,
) -> pd.DataFrame:
    """The teacher ranking by scores, ties as trec_eval.

    A list of several passages that all have the same score, or of which one has none that is
    finite, is "malformed": it has the order of the first stage and no scores.

    Parameters
    ----------
    scores
        Of the model [rows of the candidates], float32.
    model
        Named by the error.
    final
        What is ranked by, where that is not what the model gave.

    Raises
    ------
    FormatError
        If all lists are malformed.
    """
    lists = scores.groupby(candidates.query_id)
    spread = lists.transform("max") > lists.transform("min")
    finite = np.isfinite(scores).groupby(candidates.query_id).transform("all")
    usable = finite & (spread | (lists.transform("size") == 1))
    if len(usable) and not usable.any():
        why = "scores that are not finite" if not finite.any() else "the same score in a list"
        raise rankings.FormatError(
            f"model={model}: gives passages {why}, in all of "
            f"{counted(candidates.query_id.nunique(), 'list')}: it has no order of them. Is it a "
            "re-ranker, whole and asked in its own form? (fp32 may mend what bf16 cannot)"
        )
    final = (scores if final is None else final).where(usable, -candidates["rank"])
    table = rankings.rank(candidates.query_id, candidates.doc_id, final)
    lost = table.query_id.isin(set(candidates.query_id[~usable]))
    table["score"] = table.score.where(~lost)
    labels = as_teacher_ranking(table.rename(columns={"rank": "teacher_rank"}))
    return labels.assign(state=np.where(lost, "malformed", "ok"))


def by_length(
    lengths: Sequence[int], batch: int, score: Callable[[list[int]], Sequence[Value]]
) -> list[Value]:
    """What `score` makes of items, given by their numbers: so many at a time, the shortest first.

    Returns
    -------
    list
        In the order of the items.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    values: dict[int, Value] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        values.update(zip(some, score(some), strict=True))
    return [values[i] for i in range(len(lengths))]


def of_pairs(
    asked: Sequence[Asked], score: Callable[[list[tuple[str, str]]], Sequence[float]]
) -> list[list[float]]:
    """The scores of passages by a function that scores (query, passage) pairs."""
    values = iter(score([(query, passage) for passage, queries in asked for query in queries]))
    return [list(islice(values, len(queries))) for _, queries in asked]


def _read(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Passage, and the score of each of its queries.

    A line that a killed process did not finish is taken out of the file.
    """
    if path.exists():
        lines = path.read_bytes().split(b"\n")
        whole = b"".join(line + b"\n" for line in lines[:-1])
        if lines[-1]:
            path.write_bytes(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            yield entry["doc_id"], entry["scores"]


def _append(path: Path, scores: dict[str, dict[str, float]]) -> None:
    entries = [{"doc_id": d, "scores": by_query} for d, by_query in scores.items()]
    with path.open("ab") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        file.flush()
        os.fsync(file.fileno())
