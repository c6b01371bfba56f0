"""Names, params, tags and Markdown descriptions of trials and grids in MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdx.facts import origins_of

VALUE_LENGTH = 500  # characters of a param or tag; MLflow takes 6000, older servers 500
NOTE_LENGTH = 5000  # characters of a description; MLflow takes 8000, older servers 5000
KEY_LENGTH = 250  # mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH
NOTE = "mlflow.note.content"  # the tag that the UI shows as the description
# The factors of a run's name: those that vary most come first, since the UI cuts long names.
NAME_ORDER = ("loss", "sampler", "depth", "teacher", "prefinetune", "student")
RUN = "RUN_ADDRESS"  # stands in a description for the address of its own run in the UI
# They are in the artifact config.yaml.
NO_PARAMS = ("tracking", "spec", "grid", "store", "force", "origins")
EXPERIMENT_NOTE = """\
Trials of **rdx**: cross-encoders distilled from LLM re-rankers.

- A run of kind `grid` is one grid (its description gives claim, results and report); its children
  are its cells. `tags."rdx.kind" = 'trial'` hides the grids.
- A run of kind `cell` stands above the seeds of one configuration, once two are finished: each
  score is their mean, `sd/…`, `low/…` and `high/…` its SD and 95 % interval over seeds.
- Filter by factor: `tags.loss = 'ranknet' and tags.sampler = 'bm25'`. Only sound trials:
  `tags."rdx.health" = 'ok'`. The best cell of a grid: `tags."rdx.best" = 'true'`.
- Metrics are `MEASURE/SYSTEM/COLLECTION`, so that charts group by measure and system. `student` is
  the distilled model; `first_stage` is what it re-ranks, `oracle` the best possible order of it.
- A mean hides what varies between queries and seeds: tests are in the report of
  `python -m analysis`, not here.
"""


def address(experiment_id: str, run_id: str) -> str:
    """Where the UI shows a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


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


def finals(metrics: Mapping[str, float], collections: Collection[str]) -> list[Final]:
    """The final metrics of a trial.

    >>> finals({"dl19/student/nDCG@10": 0.5}, ["dl19"])
    [Final(key='nDCG_at_10/student/dl19', value=0.5, collection='dl19', of_student=True)]
    """
    found = []
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


def of_trial(
    signature: str,
    levels: Mapping[str, str],
    seed: int,
    means: Mapping[str, float] | None = None,
    health: str = "",
) -> str:
    """Description of a trial: what it is, how it did, where the rest is."""
    factors = [f"| {group} | {option} |" for group, option in {**levels, "seed": seed}.items()]
    lines = ["| factor | level |", "|---|---|", *factors, "", f"Cell `{signature}`."]
    if means:
        lines[:0] = [*_results(means), ""]
        lines += [
            f"Health: **{health}**.",
            f"Per-query values: [per_query.parquet]({RUN}/artifacts/per_query.parquet); all facts: "
            f"[trial.json]({RUN}/artifacts/trial.json); to run it again: "
            f"[config.yaml]({RUN}/artifacts/config.yaml).",
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


@dataclass(frozen=True)
class Cell:
    """A row in the description of a grid; `address` may be "", `score` is None without one."""

    name: str
    address: str
    state: str
    health: str | None
    score: float | None


def of_grid(grid: str, claim: str, cells: Sequence[Cell] = (), measure: str = "") -> str:
    """Description of a grid: its claim, how to read it, its cells, and its report.

    Parameters
    ----------
    cells
        In the order in which they shall stand.
    measure
        What their scores are.
    """
    lines = [f"**Claim.** {claim}", ""] if claim else []
    lines += [
        "**How to read it.** Each child run is one cell. Sort by a column of metrics, or select "
        "cells and press *Compare*; `MEASURE/student/COLLECTION` is the distilled model, "
        "`first_stage` what it re-ranks. Differences of single cells are not tested here.",
    ]
    lines += [
        "",
        f"**Report.** [analysis/report.html]({RUN}/artifacts/analysis/report.html), with "
        f"tests: there after `python -m analysis {grid}`.",
    ]
    if cells:
        lines += ["", f"| cell | {measure or 'score'} | state | health |", "|---|---:|---|---|"]
    rest = len(cells)
    for cell in cells:
        name = f"[{cell.name}]({cell.address})" if cell.address else cell.name
        score = "" if cell.score is None else f"{cell.score:.4f}"
        row = f"| {name} | {score} | {cell.state} | {cell.health or ''} |"
        if sum(map(len, lines)) + len(lines) + len(row) > NOTE_LENGTH - 400:
            break
        lines.append(row)
        rest -= 1
    if rest:
        lines += ["", f"… and {rest} more: [cells.json]({RUN}/artifacts/cells.json)"]
    return cut("\n".join(lines), NOTE_LENGTH)


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
