"""Export labels: a teacher's rankings for trainings elsewhere, with what is known about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from rdx import config, evaluation, fetching, ir_metadata, pipeline, rankings
from rdx.accounting import USED
from rdx.artifacts import Evaluated, Selected, TeacherRanking
from rdx.config import Cell, Config
from rdx.export.card import citation, inline, version
from rdx.export.cells import ExportError, check_licence, complete, intact
from rdx.export.croissant import croissant
from rdx.export.folder import whole
from rdx.job import TRAINING, Job, source
from rdx.public import settings
from rdx.stages import COLLECTION, EVALUATE, SELECT, TEACH, Signatures, Step
from rdx.teachers.audit import summary

VALUES = ("rank", "score")
RUN, LISTS, AUDIT, CARD = "labels.run.gz", "labels.parquet", "audit.json", "README.md"
TEMPLATE = Path(__file__).parent / "templates" / "labels.md"
BLOCK = 1000  # lists that are in memory at once


@dataclass(frozen=True)
class Labels:
    """A teacher's rankings of training candidates as the store has them.

    Attributes
    ----------
    config
        Of the cell that is exported, or of the one that had the candidates ranked.
    teacher
        The whole teacher ranking.
    ranking
        What is exported: a ranking whose scores are the teacher's ranks, negative.
    scores
        [query_id, doc_id, score]: the teacher's scores; NaN where it gives an order only.
    cell
        Signature of the cell whose training lists these are; "" of a whole teacher ranking.
    """

    config: Config
    teacher: TeacherRanking
    ranking: pd.DataFrame
    scores: pd.DataFrame
    cell: str = ""


def export_labels(
    store: Path,
    signature: str,
    out: Path,
    licence: str | None = None,
    name: str | None = None,
    texts: bool = True,
    values: str = "rank",
) -> Path:
    """Write the labels of a cell, or a whole teacher ranking, to a new folder.

    A TREC run with its ir-metadata, the lists as parquet in the form that sentence-transformers
    calls labeled-list (query, docs, labels), the audit, a Croissant description and a card. The
    folder appears when it is complete.

    Parameters
    ----------
    store, signature, out
        As of `rdx.export.export`. Of a finished cell, the lists that it was trained on are written;
        the signature of a teacher ranking (stage `teach`) stands for all its usable lists.
    licence
        Identifier of the labels' licence as the Hub knows it; None = still to be given.
    name
        Of the data set on its card; None = the folder's.
    texts
        Write queries and passages, which have terms of their own; without, their ids stand there.
    values
        Labels of a list of n passages: "rank": n - 1 for the teacher's first, down to 0; "score":
        the teacher's own scores.

    Raises
    ------
    ExportError
        If there are no such labels or they are damaged, if the folder is not empty, if the teacher
        gives no scores, or if the texts are not those that were labelled any more.
    """
    check_licence(licence)
    if values not in VALUES:
        raise ExportError(f"values={values!r}: must be one of {list(VALUES)}")
    with whole(out, like=CARD) as folder:
        labels = find_labels(store, signature)
        if values == "score" and labels.scores.score.isna().any():
            raise ExportError(
                f"values='score': {labels.teacher.folder.name} has no score for every passage, its "
                "teacher gives an order; values='rank' labels by it"
            )
        shown = _texts(store, labels) if texts else None
        rankings.write_trec(labels.ranking, folder / RUN, "rdx")
        ir_metadata.write(folder / RUN, ir_metadata.of_labels(labels.config))
        _write_lists(folder / LISTS, labels, shown, values)
        TeacherRanking.write_audit(folder, labels.teacher.audit)
        terms = licences(labels.config)
        title = name or out.name
        croissant(folder, title, _description(labels), licence, terms, texts)
        _card(labels, title, licence, terms, texts, values).save(folder / CARD)
    return out.absolute()


def find_labels(store: Path, signature: str) -> Labels:
    """The labels of a finished cell, or of a teacher ranking, by a beginning of its signature."""
    folder = intact(complete(store, signature, EVALUATE.name, TEACH.name))
    if folder.parent.name == TEACH.name:
        teacher = TeacherRanking(folder)
        usable = teacher.ranking[teacher.ranking.state.isin(rankings.USABLE)]
        return Labels(teacher.config, teacher, evaluation.as_ranking(usable), usable)
    cell = Evaluated(folder)
    keys = cell.facts.signatures
    if SELECT.name not in keys:
        raise ExportError(f"{folder.name} was not distilled from a teacher: it has no labels")
    selected = Selected(intact(store / SELECT.name / keys[SELECT.name]))
    teacher = TeacherRanking(intact(store / TEACH.name / keys[TEACH.name]))
    used = {query for query, fate in selected.selection.fates.items() if fate == USED}
    lists = selected.ranking[selected.ranking.query_id.isin(used)]
    scores = lists.drop(columns="score").rename(columns={"teacher_score": "score"})
    return Labels(cell.config, teacher, evaluation.as_ranking(lists), scores, folder.name)


def licences(cfg: Config) -> list[str]:
    """What rdx knows of the terms of the texts and rankings that labels are made of."""
    made_of = {group: cfg[group] for group in ("data", "sampler", "teacher")}
    terms = [text for need in fetching.needs([made_of]) for text in need.licences()]
    own: Callable[[], list[str]] = getattr(config.part(cfg, "data"), "licences", list)
    return list(dict.fromkeys([*own(), *terms]))


def _texts(store: Path, labels: Labels) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The queries and passages that were labelled, by their ids."""
    cfg = labels.config | {"store": str(store)}
    job = Job.of(Cell((), "", cfg))
    teacher = labels.teacher.folder.name
    if Signatures(job.parts).key(Step(TEACH.name)) != teacher:
        raise ExportError(
            f"{teacher}: its configuration would give other labels here and now: the files of its "
            "collection, or versions of what ranked it, have changed; run its command again, or "
            "export it without texts"
        )
    folder = pipeline.obtain(job, COLLECTION, TRAINING).folder
    collection = job.split(source(job.parts, TRAINING), folder)
    return collection.queries, collection.passages


def _write_lists(
    path: Path,
    labels: Labels,
    texts: tuple[Mapping[str, str], Mapping[str, str]] | None,
    values: str,
) -> None:
    """One row a list, in the order of the run, its passages the best first."""
    names = ("query", "docs") if texts else ("query_id", "doc_ids")
    types = (pa.string(), pa.list_(pa.string()), pa.list_(pa.float32()))
    schema = pa.schema(list(zip((*names, "labels"), types, strict=True)))
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _blocks(labels, values):
            if texts:
                queries, passages = texts
                rows = [(queries[q], [passages[d] for d in docs], own) for q, docs, own in rows]
            columns = [
                pa.array(own, kind)
                for own, kind in zip(zip(*rows, strict=True), types, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=schema))


Row = tuple[str, list[str], list[float]]


def _blocks(labels: Labels, values: str) -> Iterator[list[Row]]:
    keys = ["query_id", "doc_id"]
    known = labels.ranking[[*keys, "rank"]].merge(labels.scores[[*keys, "score"]], on=keys)
    rows: list[Row] = []
    for query_id, one in known.groupby("query_id", sort=False):
        own = (len(one) - one["rank"]) if values == "rank" else one["score"]
        rows.append((str(query_id), one["doc_id"].tolist(), own.astype(float).tolist()))
        if len(rows) == BLOCK:
            yield rows
            rows = []
    if rows:
        yield rows


def _description(labels: Labels) -> str:
    lists, passages = labels.ranking.query_id.nunique(), len(labels.ranking)
    return f"{lists:,} training queries, {passages:,} passages in the order of a teacher"


def _card(
    labels: Labels, name: str, licence: str | None, terms: list[str], texts: bool, values: str
) -> DatasetCard:
    """The card of a data set: metadata as the Hub reads them, and Markdown."""
    known = settings(labels.config)
    made_of = ["data", "sampler", "depth", "teacher"]
    card: DatasetCard = DatasetCard.from_template(
        DatasetCardData(
            license=licence or "unknown",
            pretty_name=name,
            tags=["reranking", "distillation", "sentence-transformers", "rdx"],
            task_categories=["text-ranking"],
        ),
        template_path=str(TEMPLATE),
        name=name,
        description=_description(labels),
        rdx=version(),
        signature=labels.teacher.folder.name,
        cell=labels.cell,
        texts=texts,
        values=values,
        settings={group: inline(known[group]) for group in made_of},
        audit=summary(labels.teacher.audit),
        licence=licence,
        terms=terms,
        citation=citation(),
    )
    return card
