"""The model card and the description of an exported student."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCardData

from rdx import config
from rdx import evaluation as ev
from rdx.declared import SCHEDULES, WRITTEN, marked
from rdx.export.finished import Finished
from rdx.export.weights import plain
from rdx.students import Student
from rdx.teachers.audit import summary

# What concerns the machine, not the weights, and may say more of it than should be public.
PRIVATE = ("tracking", "store", "force", "grid", "spec")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SYSTEMS = ("student", "student+first_stage", "first_stage", "teacher", "oracle")


def describe_cell(cell: Finished) -> str:
    """YAML: signatures, version of rdx, and the configuration without what concerns the machine."""
    described = {
        "signature": cell.signature,
        "signatures": cell.signatures,
        "rdx": _rdx()["version"],
        "config": public({k: v for k, v in cell.config.items() if k not in PRIVATE}),
    }
    return yaml.safe_dump(described, sort_keys=False, allow_unicode=True)


def public(node: Any) -> Any:
    """A node of the configuration without scheduling, folders of absolute paths left out."""
    if isinstance(node, dict):
        cls = config.class_of(node)
        left_out = {*marked(cls, SCHEDULES), *marked(cls, WRITTEN)}
        return {key: public(value) for key, value in node.items() if key not in left_out}
    if isinstance(node, list):
        return [public(item) for item in node]
    if isinstance(node, str) and Path(node).is_absolute():
        return Path(node).name
    return node


def render(cell: Finished, name: str, licence: str | None, form: str) -> str:
    """The model card: front matter for the Hub, and Markdown."""
    sections = {
        "Use": _use(cell.student, form),
        "Effectiveness": _effectiveness(cell),
        "Training": _training(cell),
        "Labels": _labels(cell),
        "Licence": _licence(cell, licence),
        "Citation": f"```bibtex\n{citation()}\n```",
    }
    intro = (
        "A cross-encoder that re-ranks passages: query and passage go in together, a score comes "
        f"out, higher is more relevant. Trained with rdx {_rdx()['version']}; signature "
        f"`{cell.signature}`, full configuration in `rdx.yaml`."
    )
    front = _front_matter(cell, name, licence, form)
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"---\n{front}\n---\n\n# {name}\n\n{intro}\n\n{body}\n"


def _front_matter(cell: Finished, name: str, licence: str | None, form: str) -> str:
    """Metadata as the Hub reads them; a base model where it is one of the Hub."""
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
    data = ModelCardData(
        license=licence or "unknown",
        library_name="lightning-ir" if form == "lightning_ir" else "sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["cross-encoder", "reranker", "distillation", "rdx"],
        base_model=model if HUB_ID.fullmatch(model) and not Path(model).exists() else None,
        model_name=name,
        eval_results=results,
    )
    return str(data.to_yaml()).strip()


def _use(student: Student, form: str) -> str:
    """How to load the folder, and how long texts are cut."""
    lengths = f"{student.query_length} query tokens and {student.passage_length} passage tokens"
    if form == "lightning_ir":
        return (
            "```python\nfrom lightning_ir import CrossEncoderModule\n\n"
            'model = CrossEncoderModule(model_name_or_path="PATH").eval()\n'
            'scores = model.score("a query", ["a passage", "another passage"]).scores\n```\n\n'
            f"Texts are cut to {lengths}."
        )
    trust, why = "", ""
    if not plain(student):
        trust = ", trust_remote_code=True"
        why = (
            " `trust_remote_code=True` runs `modeling_rdx.py` and `heads.py` of this folder, which "
            "hold what the library has no class for."
        )
    return f"""\
With sentence-transformers:

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("PATH"{trust})
scores = model.predict([("a query", "a passage"), ("a query", "another passage")])
```

With Transformers alone, where long texts are cut as in training:

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH"{trust})
model = AutoModelForSequenceClassification.from_pretrained("PATH"{trust}).eval()


def cut(text, tokens):
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text[: found[tokens - 1][1]] if len(found) > tokens else text


def score(pairs):
    queries = [cut(query, {student.query_length}) for query, _ in pairs]
    passages = [cut(passage, {student.passage_length}) for _, passage in pairs]
    with torch.inference_mode():
        inputs = tokenizer(queries, passages, padding=True, return_tensors="pt")
        return model(**inputs).logits.squeeze(1)
```

Trained on {lengths}. Both ways give the same scores to texts within these lengths; with longer
ones sentence-transformers cuts the pair as a whole.{why}"""


def _effectiveness(cell: Finished) -> str:
    """Mean and 95 % interval over queries of every system, by collection; and the health."""
    measures = list(dict.fromkeys(cell.per_query.measure))
    lines = [
        "| collection | system | queries | " + " | ".join(measures) + " |",
        "|---|---|---:|" + "---:|" * len(measures),
    ]
    for collection, rows in cell.per_query.groupby("collection", sort=False):
        for system in _order(rows.system):
            own = rows[rows.system == system]
            values = [_interval(own[own.measure == measure].value) for measure in measures]
            shown = f"**{system}**" if system == "student" else system
            count = own.query_id.nunique()
            lines.append(f"| {collection} | {shown} | {count} | {' | '.join(values)} |")
    collections = "\n".join(
        f"- {name}: the top {facts['k']} of {_inline(facts['first_stage'])} re-ranked; "
        f"{facts['judged@10']:.0%} of the student's first ten are judged"
        + _mixture(facts.get("weight"))
        for name, facts in cell.facts["collections"].items()
    )
    health = cell.facts["health"]
    said = f"Health: `{health}`."
    if health != "ok":
        said = f"**Health: `{health}`. Do not use this model without knowing why.**"
    return (
        "\n".join(lines)
        + "\n\n± is half of the 95 % t interval over queries. One training with one seed: the "
        + "interval does not say how far another seed would be from it.\n\n"
        + f"{collections}\n\n{said}"
    )


def _mixture(weight: float | None) -> str:
    """What student+first_stage is, where it is in the table."""
    if weight is None:
        return ""
    return (
        f"; student+first_stage is {weight:g} of the student's and {1 - weight:g} of the first "
        "stage's z-scores, chosen on dev queries"
    )


def _training(cell: Finished) -> str:
    """A table of everything that decided the weights."""
    settings, training = cell.config, cell.facts["training"]
    rows = {
        "student": _inline(settings["student"]),
        "stage 1": _inline(settings["prefinetune"]),
        "texts": _inline(settings["data"]),
    }
    if settings["loss"]:
        teacher = dict(settings["teacher"])
        model = teacher.pop("backend", None)
        rows |= {
            "candidates": _inline(settings["sampler"]),
            "depth": _inline(settings["depth"]),
            "teacher": _inline(teacher),
            **({"teacher's model": _inline(model)} if model else {}),
            "loss": _inline(settings["loss"]),
            "budget": _inline(settings["budget"]),
            "optimiser": _inline(settings["trainer"]),
            "seed": str(settings["seed"]),
        }
    counts = {
        "optimiser steps": training.get("steps"),
        "pairs": training.get("pairs"),
        "lists": training.get("lists"),
        "lists left out": training.get("lists_left_out"),
        "texts cut": training.get("truncated_texts"),
    }
    rows |= {key: f"{value:,}" for key, value in counts.items() if value is not None}
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _labels(cell: Finished) -> str:
    """The audit of the teacher's labels."""
    found = cell.facts["training"].get("audit")
    if not cell.config["loss"] or not found:
        return "No teacher: the student is as its first stage left it."
    return f"What the teacher's rankings were worth, before training:\n\n```\n{summary(found)}\n```"


def _licence(cell: Finished, licence: str | None) -> str:
    """What was given, or what is to be decided."""
    if licence:
        return f"`{licence}`."
    return (
        "**To be filled in** (`--licence`, or `license:` above). The weights come from "
        f"`{public(cell.student.model)}`; the terms of that model, of the training texts and "
        "judgements and, with an LLM as teacher, of its provider all bear on it."
    )


def citation() -> str:
    """BibTeX of the paper and of rdx, from CITATION.cff."""
    return "\n\n".join([*map(_bibtex, _rdx()["references"]), _bibtex(_rdx())])


def _rdx() -> dict[str, Any]:
    """What CITATION.cff says of rdx."""
    path = config.ROOT / "CITATION.cff"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _bibtex(entry: dict[str, Any]) -> str:
    """One entry; a person is "family, given", a group is kept together by braces."""
    authors = [
        f"{{{one['name']}}}" if "name" in one else f"{one['family-names']}, {one['given-names']}"
        for one in entry["authors"]
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


def _order(systems: pd.Series) -> list[str]:
    """The student first, the ceiling last."""
    there = list(dict.fromkeys(systems))
    return [s for s in SYSTEMS if s in there] + [s for s in there if s not in SYSTEMS]


def _interval(values: pd.Series) -> str:
    if len(values) < 2:
        return f"{values.mean():.4f}" if len(values) else ""
    return f"{values.mean():.4f} ± {ev.half_width(values):.4f}"


def _inline(node: Any) -> str:
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
