"""A trial's files, ``trial.json`` and ``per_query.parquet``: read and checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rdx import rankings
from rdx.faults import Mendable
from rdx.store import read_json

# What run files are called.
RUN = re.compile(r"\.(run|trec|res)(\.gz|\.zst)?$")
PER_QUERY = ("collection", "system", "query_id", "measure", "value")


class NoTrialsError(FileNotFoundError):
    """There is no MLflow store at the tracking URI, or no experiment of rdx in it."""


class TrialError(Mendable, RuntimeError):
    """A finished trial does not hold what a finished trial must hold."""


def read_folder(
    folder: Path,
    signatures: set[str],
    names: set[str],
    facts: dict[str, dict[str, Any]],
    tables: dict[str, pd.DataFrame],
) -> None:
    """Add the wanted trials below a folder; of two with one signature, the last path's."""
    if not folder.is_dir():
        raise NoTrialsError(f"no folder {folder}")
    paths = sorted(folder.rglob("trial.json"))
    if not paths:
        raise NoTrialsError(_no_trial(folder))
    for path in paths:
        found = read_facts(path, f"trial {path.parent}")
        if found["signature"] in signatures or found.get("imported", {}).get("name") in names:
            facts[found["signature"]] = found
            table = path.with_name("per_query.parquet")
            if not table.exists():
                raise TrialError(f"trial {path.parent} has no per_query.parquet")
            tables[found["signature"]] = read_per_query(table, f"trial {path.parent}")


def _no_trial(folder: Path) -> str:
    """Say that a folder has no trials; of TREC runs, what makes trials of them."""
    held = (path for path in sorted(folder.rglob("*")) if RUN.search(path.name))
    run = next(held, None)
    if run is None:
        return f"no trial.json below {folder}"
    return (
        f"no trial.json below {folder}; {run} is a run: first measure it and its like with "
        "`python -m rdx import` (docs/evaluation.md), which records judgements, first stage and "
        "the rule for ties, then leave --import away"
    )


def read_facts(path: Path, name: str, signature: str | None = None) -> dict[str, Any]:
    """Read a trial.json; checked against the signature that its MLflow run is tagged with."""
    try:
        facts = read_json(path)
    except OSError as error:
        raise TrialError(f"{name}: {error}") from error
    if "version" in facts:
        facts = _renamed(facts)
    absent = [key for key in ("signature", "levels", "seed", "collections") if key not in facts]
    if absent:
        raise TrialError(f"{name}: {path} lacks {', '.join(absent)}")
    if signature is not None and facts["signature"] != signature:
        raise TrialError(f"{name} is tagged {signature}, but {path} is of {facts['signature']}")
    return facts


def _renamed(facts: dict[str, Any]) -> dict[str, Any]:
    """The record of a trial by the keys that are read here."""
    for found in facts.get("collections", {}).values():
        found["degenerate"] = bool(found["reason"])
        found["judged@10"] = found["judged_at_10"]
        if found["passages_of_copy"] is not None:
            found["local_copy"] = {"passages": found["passages_of_copy"]}
    return {key: value for key, value in facts.items() if value is not None}


def read_per_query(path: Path, name: str) -> pd.DataFrame:
    """Read a per_query.parquet: columns `PER_QUERY`, no value twice, all finite."""
    try:
        table = rankings.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TrialError(f"{name}: {error}") from error
    absent = [column for column in PER_QUERY if column not in table.columns]
    if absent:
        raise TrialError(f"{name}: {path} lacks the columns {', '.join(absent)}")
    table = table[list(PER_QUERY)]
    key = ["collection", "system", "query_id", "measure"]
    repeated = table.duplicated(key)
    if repeated.any():
        first = table.loc[repeated, key].iloc[0].tolist()
        raise TrialError(f"{name}: {path} has two values for {first}")
    broken = ~np.isfinite(table["value"].to_numpy(dtype=float))
    if broken.any():
        first = table.loc[broken, key].iloc[0].tolist()
        raise TrialError(f"{name}: {path} has no finite value for {first}")
    return table
