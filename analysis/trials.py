"""Spec -> cells -> MLflow runs -> one tidy per-query frame. The only file here that knows MLflow.

A trial is found by the signature of its cell and by nothing else: renaming an experiment or
running its cells on another machine does not hide them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mlflow.entities import Run

    from rdx.config import Cell

EXPERIMENT = "rdx"
TRACKING_URI = "sqlite:///mlflow.db"
LEVELS = ("data", "sampler", "depth", "teacher", "prefinetune", "loss", "student")
PER_QUERY = ("collection", "system", "query_id", "measure", "value")
COLUMNS = ("grid", "signature", *LEVELS, "seed", *PER_QUERY)


class NoTrialsError(FileNotFoundError):
    """There is no MLflow store at the tracking URI, or no experiment of rdx in it."""


class TrialError(RuntimeError):
    """A finished trial does not hold what a finished trial must hold."""


@dataclass(frozen=True)
class Trials:
    """The trials of one spec.

    Attributes
    ----------
    frame : DataFrame
        One row per trial, collection, system, query and measure; columns `COLUMNS`. A trial that
        stands in two sub-grids is there twice, once per grid.
    cells : tuple of Cell
        Every cell of the spec, in its order, missing ones included.
    missing : tuple of Cell
        The cells without a finished trial.
    facts : dict
        signature -> the trial's ``trial.json``.
    runs : dict
        signature -> MLflow run id, so that a number can be traced to its run.
    """

    frame: pd.DataFrame
    cells: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    facts: dict[str, dict[str, Any]]
    runs: dict[str, str]


def load(spec_name: str, tracking_uri: str = TRACKING_URI) -> Trials:
    """Trials of ``experiments/SPEC_NAME.yaml``.

    Parameters
    ----------
    spec_name : str
        Name of the spec, without folder and suffix.
    tracking_uri : str
        Where MLflow keeps its runs, e.g. ``sqlite:///mlflow.db``.

    Raises
    ------
    NoTrialsError
        If nothing has been tracked there yet.
    TrialError
        If a finished trial lacks its files or they are not what they should be.
    """
    from rdx.config import cells  # Hydra loads only here: everything else works on plain cells

    return collect(cells(spec_name), tracking_uri)


def collect(cells: Iterable[Cell], tracking_uri: str = TRACKING_URI) -> Trials:
    """Trials of the given cells: for each signature the newest finished one.

    Raises
    ------
    NoTrialsError, TrialError
        As `load`.
    """
    # The same cell may be listed twice in one sub-grid; in two sub-grids it counts in both.
    unique = tuple({(cell.grid, cell.signature): cell for cell in cells}.values())
    runs = newest_finished(tracking_uri, {cell.signature for cell in unique})
    facts: dict[str, dict[str, Any]] = {}
    tables: dict[str, pd.DataFrame] = {}
    with TemporaryDirectory() as scratch:
        for signature, run in runs.items():
            facts[signature] = _facts(run, signature, tracking_uri, scratch)
            tables[signature] = _per_query(run, tracking_uri, scratch)
    parts = [
        _tidy(cell, tables[cell.signature], facts[cell.signature])
        for cell in unique
        if cell.signature in runs
    ]
    return Trials(
        frame=_concat(parts),
        cells=unique,
        missing=tuple(cell for cell in unique if cell.signature not in runs),
        facts=facts,
        runs={signature: run.info.run_id for signature, run in runs.items()},
    )


def newest_finished(tracking_uri: str, signatures: set[str]) -> dict[str, Run]:
    """Newest FINISHED trial of each signature: one search, however many cells.

    Signatures without one are absent. "Newest" = finished last, since a trial that was killed and
    resumed keeps its first start time.

    Raises
    ------
    NoTrialsError
        If there is no store at `tracking_uri`, or no experiment named ``rdx`` in it.
    """
    _require_store(tracking_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient  # seconds to import, and --help must not wait for it

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise NoTrialsError(f"no experiment {EXPERIMENT!r} at {tracking_uri}")
    found: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            filter_string="tags.`rdx.kind` = 'trial' and attributes.status = 'FINISHED'",
            order_by=["attributes.end_time DESC"],
            max_results=1000,
            page_token=token,
        )
        for run in page:
            signature = run.data.tags.get("rdx.signature", "")
            if signature in signatures:
                found.setdefault(signature, run)
        token = page.token
        if not token:
            return found


def _require_store(tracking_uri: str) -> None:
    # MLflow would create an empty database where it finds none.
    parsed = urlparse(tracking_uri)
    if parsed.scheme == "sqlite":
        path = Path(parsed.path[1:])
    elif parsed.scheme in ("", "file"):
        path = Path(parsed.path)
    else:
        return
    if not path.exists():
        raise NoTrialsError(f"no MLflow store at {tracking_uri}")


def _artifact(run: Run, name: str, tracking_uri: str, scratch: str) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    uri = f"{run.info.artifact_uri}/{name}"
    local = urlparse(uri).scheme in ("", "file")  # then MLflow gives the file itself, uncopied
    target = Path(scratch) / run.info.run_id
    if not local:
        target.mkdir(exist_ok=True)
    try:
        path = Path(
            download_artifacts(
                artifact_uri=uri,
                dst_path=None if local else str(target),
                tracking_uri=tracking_uri,
            )
        )
    except (OSError, MlflowException) as error:
        raise TrialError(f"{_name(run)} has no {name} at {uri}: {error}") from error
    if not path.is_file():
        raise TrialError(f"{_name(run)} has no {name} at {uri}")
    return path


def _facts(run: Run, signature: str, tracking_uri: str, scratch: str) -> dict[str, Any]:
    path = _artifact(run, "trial.json", tracking_uri, scratch)
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrialError(f"{_name(run)}: {path} is not JSON: {error}") from error
    absent = [key for key in ("signature", "levels", "seed", "collections") if key not in facts]
    if absent:
        raise TrialError(f"{_name(run)}: {path} lacks {', '.join(absent)}")
    if facts["signature"] != signature:
        raise TrialError(
            f"{_name(run)} is tagged {signature}, but {path} is of {facts['signature']}"
        )
    return facts


def _per_query(run: Run, tracking_uri: str, scratch: str) -> pd.DataFrame:
    path = _artifact(run, "per_query.parquet", tracking_uri, scratch)
    table = pd.read_parquet(path)
    absent = [column for column in PER_QUERY if column not in table.columns]
    if absent:
        raise TrialError(f"{_name(run)}: {path} lacks the columns {', '.join(absent)}")
    table = table[list(PER_QUERY)]
    key = ["collection", "system", "query_id", "measure"]
    repeated = table.duplicated(key)
    if repeated.any():
        first = table.loc[repeated, key].iloc[0].tolist()
        raise TrialError(f"{_name(run)}: {path} has two values for {first}")
    broken = ~np.isfinite(table["value"].to_numpy(dtype=float))
    if broken.any():
        first = table.loc[broken, key].iloc[0].tolist()
        raise TrialError(f"{_name(run)}: {path} has no finite value for {first}")
    return table


def _tidy(cell: Cell, table: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    levels = {level: str(facts["levels"].get(level, "")) for level in LEVELS}
    constants = {
        "grid": cell.grid,
        "signature": cell.signature,
        **levels,
        "seed": int(facts["seed"]),
    }
    return table.assign(**constants)[list(COLUMNS)]


def _concat(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)


def _name(run: Run) -> str:
    return f"trial {run.data.tags.get('rdx.signature', '?')[:12]} (MLflow run {run.info.run_id})"
