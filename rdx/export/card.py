"""Write the model card and the description of an exported student."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rdx import config, hub
from rdx.config import Config
from rdx.declared import MODEL
from rdx.export.cells import Finished
from rdx.export.weights import plain
from rdx.facts import TrialFacts, origins_of
from rdx.job import REDRAWS, START
from rdx.public import public, settings, shown
from rdx.spread import half_width
from rdx.teachers.audit import summary

TEMPLATE = Path(__file__).parent / "templates" / "card.md"
SYSTEMS = ("student", "student+first_stage", "first_stage", "teacher", "oracle")


def describe_cell(cell: Finished) -> str:
    """YAML: signatures, version of rdx, and the configuration without what concerns the machine."""
    described = {
        "signature": cell.facts.signature,
        "signatures": cell.facts.signatures,
        "rdx": version(),
        "student": config.identity(config.build(cell.config["student"], "student")),
        "config": settings(cell.config),
    }
    return str(yaml.safe_dump(described, sort_keys=False, allow_unicode=True))


def card(cell: Finished, name: str, licence: str | None, form: str) -> ModelCard:
    """The model card: metadata as the Hub reads them, and Markdown."""
    training = cell.facts.training
    audit = cell.facts.checkpoint.audit if cell.facts.checkpoint else None
    model_card: ModelCard = ModelCard.from_template(
        _metadata(cell, name, licence, form),
        template_path=str(TEMPLATE),
        name=name,
        rdx=version(),
        signature=cell.facts.signature,
        form=form,
        plain=plain(cell.student),
        lists=cell.student.scores_lists,
        query_length=cell.student.query_length,
        passage_length=cell.student.passage_length,
        measures=list(dict.fromkeys(cell.per_query.measure)),
        scores=list(_scores(cell.per_query)),
        collections=cell.facts.collections,
        inline=inline,
        health=cell.facts.health,
        training=_settings(cell.config) | _counts(cell.facts),
        audit=summary(audit) if audit and training else None,
        licence=licence,
        weights=shown(cell.student.model, (MODEL,)),
        citation=citation(),
    )
    return model_card


def _metadata(cell: Finished, name: str, licence: str | None, form: str) -> ModelCardData:
    """A base model where it is one of the Hub."""
    model = cell.student.model
    students = cell.per_query[cell.per_query.system == "student"]
    means = students.groupby(["collection", "measure"], sort=False).value.mean()
    results = [
        EvalResult(
            task_type="text-ranking",
            task_name="Passage re-ranking",
            dataset_type=collection,
            dataset_name=collection,
            metric_type=re.sub(r"\W+", "_", measure.lower()).strip("_"),
            metric_name=measure,
            metric_value=round(float(value), 4),
        )
        for (collection, measure), value in means.items()
    ]
    return ModelCardData(
        license=licence or "unknown",
        library_name="lightning-ir" if form == "lightning_ir" else "sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["cross-encoder", "reranker", "distillation", "rdx"],
        base_model=model if hub.is_id(model) else None,
        model_name=name,
        eval_results=results,
    )


@dataclass(frozen=True)
class Score:
    """A system on a collection: per measure its mean and half of the 95 % interval."""

    collection: str
    system: str
    queries: int
    values: list[str]


def _scores(per_query: pd.DataFrame) -> Iterator[Score]:
    """By collection, the student first, the ceiling last."""
    measures = list(dict.fromkeys(per_query.measure))
    for collection, rows in per_query.groupby("collection", sort=False):
        present = list(dict.fromkeys(rows.system))
        for system in sorted(present, key=lambda s: SYSTEMS.index(s) if s in SYSTEMS else 99):
            rows_of_system = rows[rows.system == system]
            values = [
                _interval(rows_of_system[rows_of_system.measure == measure].value)
                for measure in measures
            ]
            yield Score(str(collection), system, rows_of_system.query_id.nunique(), values)


def _interval(values: pd.Series) -> str:
    half = half_width(values)
    mean = f"{values.mean():.4f}" if len(values) else ""
    return f"{mean} ± {half:.4f}" if math.isfinite(half) else mean


def _settings(cfg: Config) -> dict[str, str]:
    """Everything that decided the weights."""
    teacher = dict(cfg["teacher"])
    nodes = {
        "student": cfg["student"],
        "stage 1": cfg["prefinetune"],
        "texts": cfg["data"],
    }
    if cfg["loss"]:
        nodes |= {"candidates": cfg["sampler"], "depth": cfg["depth"]}
        model = teacher.pop("backend", None)
        nodes |= {"teacher": teacher} | ({"teacher's model": model} if model else {})
        nodes |= {"loss": cfg["loss"], "budget": cfg["budget"]}
        nodes |= {"optimiser": cfg["trainer"]}
    rows = {label: inline(node) for label, node in nodes.items()} | dict(_lineage(cfg))
    return rows | ({"seed": str(cfg["seed"])} if cfg["loss"] else {})


ORIGINS = {START: "begins from", REDRAWS: "candidates drawn by"}


def _lineage(settings: Config) -> Iterator[tuple[str, str]]:
    """Where the students came from that the training took from elsewhere."""
    for key, origin in origins_of(settings).items():
        student, other = f"the student `{origin.checkpoint}`", origin.cell
        if other is not None:
            told = {name: inline(other[name]) for name in ("prefinetune", "teacher", "loss")}
            student += f": {', '.join(f'{name} {node}' for name, node in told.items())}"
        yield ORIGINS.get(key, key), student
        for label, earlier in _lineage(other) if other is not None else ():
            yield f"before: {label}", earlier


def _counts(facts: TrialFacts) -> dict[str, str]:
    """How much was trained."""
    training = facts.training
    if training is None:
        return {}
    lost = facts.checkpoint.dropped.get("lists_left_out") if facts.checkpoint else None
    counts = {
        "optimiser steps": training.steps,
        "pairs": training.pairs,
        "lists": training.lists,
        "lists left out": lost.n if lost else None,
        "texts cut": training.truncated_texts,
    }
    return {label: f"{count:,}" for label, count in counts.items() if count is not None}


def citation() -> str:
    """BibTeX of the paper and of rdx, from CITATION.cff."""
    return "\n\n".join([*map(_bibtex, _rdx()["references"]), _bibtex(_rdx())])


def version() -> str:
    """Of rdx."""
    return str(_rdx()["version"])


def _rdx() -> dict[str, Any]:
    """What CITATION.cff says of rdx."""
    path = config.ROOT / "CITATION.cff"
    citation: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return citation


def _bibtex(entry: dict[str, Any]) -> str:
    """One entry; a person is "family, given", a group is kept together by braces."""
    authors = [
        f"{{{who['name']}}}" if "name" in who else f"{who['family-names']}, {who['given-names']}"
        for who in entry["authors"]
    ]
    paper = entry["type"] == "conference-paper"
    fields = {
        "title": f"{{{entry['title']}}}",
        "author": " and ".join(authors),
        "booktitle": entry["conference"]["name"] if paper else None,
        "year": entry.get("year"),
        "doi": entry.get("doi"),
        "url": entry.get("url"),
        "version": entry.get("version"),
    }
    key = f"{entry['authors'][0]['family-names'].lower()}{entry['year']}" if paper else "rdx"
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{'inproceedings' if paper else 'software'}{{{key},", *lines, "}"])


def inline(node: Any) -> str:
    """A node of the configuration on one line, safe in a table: Class(key=value, ...)."""
    return "none" if node is None else f"`{_text(public(node))}`".replace("|", "\\|")


def _text(node: Any) -> str:
    if isinstance(node, dict):
        name = str(node.get("_target_", "")).rpartition(".")[2]
        inside = [f"{k}={_text(v)}" for k, v in node.items() if k != "_target_" and v is not None]
        return f"{name}({', '.join(inside)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    return str(node).replace("\n", " ").replace("`", "'")
