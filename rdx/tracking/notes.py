"""Names, params, tags and Markdown descriptions of trials and grids in MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdx.facts import origins_of
from rdx.tracking.log import Result, Start

VALUE_LENGTH = 500  # characters of a param or tag; MLflow takes 6000, older servers 500
NOTE_LENGTH = 5000  # characters of a description; MLflow takes 8000, older servers 5000
KEY_LENGTH = 250  # mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH
NOTE = "mlflow.note.content"  # the tag that the UI shows as the description
# How the UI opens an experiment: without a kind, or with NO_KIND, which it sets itself, as GenAI.
KIND, TRAINING, NO_KIND = "mlflow.experimentKind", "custom_model_development", "no_inferred_type"
# The factors of a run's name: those that vary most come first, since the UI cuts long names.
NAME_ORDER = ("loss", "sampler", "depth", "teacher", "prefinetune", "student")
# They are in the artifact config.yaml.
NO_PARAMS = ("tracking", "spec", "grid", "store", "force", "origins")
EXPERIMENT_NOTE = """\
Trials of **rdx**, cross-encoders distilled from LLM re-rankers: choose a grid under *Views* (top \
right) for its cells, best first, or open its run for the best row and the report.

- A run of kind `grid` stands above the cells that it trained, one of kind `cell` above the seeds of
  one configuration: its scores are means; `sd/…`, `low/…`, `high/…` are SD and 95 % interval.
- `0_score/MEASURE` is what cells are ranked by: the student's mean of the first declared measure.
  Of a grid it is that of the best row. All others are `MEASURE/SYSTEM/COLLECTION`: `student` is the
  distilled model, `first_stage` what it re-ranks, `oracle` the best possible order of that.
- Filters: `tags.loss = 'ranknet'`; trials only: `tags."rdx.kind" = 'trial'`; sound ones:
  `tags."rdx.health" = 'ok'`; the best cells of grids: `tags."rdx.best" = 'true'`.
- A mean hides what varies between queries and seeds: tests are in the report of
  `python -m analysis`, not here.
"""
HOW_TO_READ = """\
**How to read it.** `MEASURE/student/COLLECTION` is the distilled model, `first_stage` what it \
re-ranks. Differences of single cells are not tested here."""


def address(experiment_id: str, place: str) -> str:
    """Where the UI shows a part of an experiment, such as "runs/RUN_ID", among model training.

    >>> address("1", "runs/ab")
    '#/experiments/1/runs/ab?workflowType=machine_learning'
    """
    mode = "workflowType=machine_learning"  # GenAI, without it
    return f"#/experiments/{experiment_id}/{place}{'&' if '?' in place else '?'}{mode}"


def quoted(kind: str, key: str) -> str:
    """A metric, param or tag as MLflow's filters and columns name it.

    >>> quoted("params", "depth.k")
    'params.`depth.k`'
    """
    return f"{kind}.`{key}`"


def score_key(measure: str) -> str:
    """The metric that cells are ranked by: a name that stands first where MLflow sorts names.

    >>> score_key("nDCG@10")
    '0_score/nDCG_at_10'
    """
    return legal(f"0_score/{measure}")


def member(grid: str) -> str:
    """The tag of all cells of a grid, also of those that it did not train; its value is their name.

    >>> member("demo-0a1b2c3d")
    'rdx.in.demo-0a1b2c3d'
    """
    return legal(f"rdx.in.{grid}")


def grid_name(grid: str) -> str:
    """Name of a parent run, without what MLflow's filters cannot quote."""
    return grid.replace("'", "")[:KEY_LENGTH]


def run_name(levels: Mapping[str, str], seed: int | None = None) -> str:
    """Name of a trial until its grid is finished: its factors and its seed; None: of all seeds."""
    factors = " ".join(levels[group] for group in NAME_ORDER if group in levels)
    return f"{factors} {'over seeds' if seed is None else f'seed={seed}'}".strip()


def short_names(overrides: Sequence[str]) -> list[str]:
    """Name every cell of a grid by what tells it from the others.

    >>> short_names(["a=1 loss=ranknet seed=1", "a=1 loss=adr_mse seed=1"])
    ['ranknet', 'adr_mse']
    >>> short_names(["depth.k=5 seed=1", "depth.k=50 seed=2"])
    ['depth.k=5 seed=1', 'depth.k=50 seed=2']
    """
    words = [text.split() for text in overrides]
    common = set(words[0]).intersection(*words) if len(words) > 1 else set()
    return [
        " ".join(_shown(word) for word in words_of_cell if word not in common)
        for words_of_cell in words
    ]


def without_seed(name: str) -> str:
    """The name of a cell over its seeds.

    >>> without_seed("ranknet seed=1")
    'ranknet'
    """
    return " ".join(word for word in name.split() if not word.startswith("seed="))


def _shown(word: str) -> str:
    key, _, value = word.partition("=")
    number = re.fullmatch(r"[\d.e+-]+|null|", value)
    return word if number or "." in key else value


def params(config: Mapping[str, Any], levels: Mapping[str, str], seed: int) -> dict[str, str]:
    """The params of a trial: the flattened configuration, and the option of each config group.

    The option of a nested group ("student/lora") is that of its key, student.lora. Of students that
    come from elsewhere, the signature of their weights stands beside what names them.
    """
    origins = origins_of(config).items()
    weights = {f"{key}.checkpoint": origin.checkpoint for key, origin in origins}
    own = {key: value for key, value in config.items() if key not in NO_PARAMS}
    options = {group.replace("/", "."): option for group, option in levels.items()}
    flat = {**flatten(own), **weights, "seed": str(seed), **options}
    return {legal(key): cut(value) for key, value in flat.items()}


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested mapping as {"a.b": text}; lists are written as JSON."""
    flat: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            is_list = isinstance(value, list | tuple)
            flat[f"{prefix}{key}"] = json.dumps(value, default=str) if is_list else str(value)
    return flat


@dataclass(frozen=True)
class Final:
    """A final metric: its name in MLflow, value, collection (None of a mean), and whose it is."""

    key: str
    value: float
    collection: str | None
    of_student: bool


def finals(
    metrics: Mapping[str, float], collections: Collection[str], measure: str = ""
) -> list[Final]:
    """The final metrics of a trial; first, if there is one, its score by a measure.

    >>> for final in finals({"dl19/student/nDCG@10": 0.5}, ["dl19"], "nDCG@10"): print(final)
    Final(key='0_score/nDCG_at_10', value=0.5, collection=None, of_student=True)
    Final(key='nDCG_at_10/student/dl19', value=0.5, collection='dl19', of_student=True)
    """
    mean = score(metrics, measure)
    found = [] if mean is None else [Final(score_key(measure), mean, None, True)]
    for name, value in metrics.items():
        collection, _, rest = name.partition("/")
        known = collection if collection in collections else None
        of_student = rest.partition("/")[0].partition("+")[0] == "student"
        key = legal(metric(name, collections))
        found.append(Final(key, float(value), known, of_student))
    return found


def metric(key: str, collections: Collection[str]) -> str:
    """Name of a final metric; the UI groups charts by all but the last part of it.

    >>> metric("dl19/student/nDCG@10", ["dl19"])
    'nDCG@10/student/dl19'
    >>> metric("lists/shares/ok", ["dl19"])
    'lists/shares/ok'
    """
    first, *rest = key.split("/")
    if len(rest) != 2 or (first not in collections and first != "mean"):
        return key
    return f"{rest[1]}/{rest[0]}/{first}"


def legal(name: str) -> str:
    """Return a name of a param or metric that MLflow accepts.

    It allows letters, digits, "_-. /" and, on some systems, ":"; 250 characters.

    >>> legal("nDCG@10/student+first_stage/dl19")
    'nDCG_at_10/student_plus_first_stage/dl19'
    """
    name = name.replace("@", "_at_").replace("+", "_plus_")
    return re.sub(r"[^/\w.\- ]", "_", name)[:KEY_LENGTH]


def cut(text: str, length: int = VALUE_LENGTH) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def brief(error: BaseException) -> str:
    """An error in one line that fits a tag."""
    return cut(f"{type(error).__name__}: {error}".strip())


def of_trial(start: Start, result: Result | None = None, place: str = "") -> str:
    """Description of a trial: its score, what it is, where the rest is.

    Parameters
    ----------
    place
        Of its run in the UI: "EXPERIMENT_ID/runs/RUN_ID".
    """
    factors = {**start.levels, "seed": start.seed}
    lines = [
        *("| factor | level |", "|---|---|"),
        *(f"| {group} | {option} |" for group, option in factors.items()),
        *("", f"Cell `{start.signature}`."),
    ]
    if result is not None and result.metrics:
        mean = score(result.metrics, start.measure)
        answer = [] if mean is None else [f"**{start.measure} {mean:.4f}** of the student.", ""]
        lines[:0] = [*answer, *_results(result.metrics), ""]
        experiment, _, run = place.partition("/")
        names = ("per_query.parquet", "trial.json", "config.yaml")
        files = [f"[{name}]({address(experiment, f'{run}/artifacts/{name}')})" for name in names]
        lines += [
            f"Health: **{result.health}**.",
            f"Per-query values: {files[0]}; all facts: {files[1]}; to run it again: {files[2]}.",
        ]
    return cut("\n".join(lines), NOTE_LENGTH)


def _results(means: Mapping[str, float]) -> list[str]:
    """A table of systems and measures, one row per collection and system."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in means.items():
        if key.count("/") == 2:
            collection, system, measure = key.split("/")
            rows.setdefault((collection, system), {})[measure] = value
    measures = list(dict.fromkeys(m for row in rows.values() for m in row))
    if not rows:
        return []
    return [
        f"| collection | system | {' | '.join(measures)} |",
        f"|---|---|{'---:|' * len(measures)}",
        *(
            f"| {collection} | {system} | "
            + " | ".join(f"{row[m]:.4f}" if m in row else "" for m in measures)
            + " |"
            for (collection, system), row in rows.items()
        ),
    ]


def score(means: Mapping[str, float], measure: str) -> float | None:
    """What cells are ranked by: the student's mean of a measure over corpora; None without one.

    >>> score({"a/student/RR@10": 0.9, "a/student/nDCG@10": 0.5}, "nDCG@10")
    0.5
    """
    name = f"student/{measure}"
    if (over_corpora := means.get(f"mean/{name}")) is not None:
        return over_corpora
    values = [value for key, value in means.items() if key.partition("/")[2] == name]
    return sum(values) / len(values) if values else None
