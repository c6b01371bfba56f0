"""Spec -> cells -> MLflow runs -> one tidy per-query frame. The only file here that knows MLflow.

A trial is found by the signature of its cell and by nothing else: renaming an experiment or
running its cells on another machine does not hide them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlparse
from urllib.request import url2pathname

import pandas as pd

from analysis.stored import (
    PER_QUERY,
    NoTrialsError,
    TrialError,
    read_facts,
    read_folder,
    read_per_query,
)
from rdx.store import Unreadable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from rdx.config import Cell

__all__ = [
    "COLUMNS",
    "EXPERIMENT",
    "LEVELS",
    "TRACKING_URI",
    "NoTrialsError",
    "TrialError",
    "Trials",
    "collect",
    "imported_as",
    "load",
    "log_report",
    "newest_finished",
]

EXPERIMENT = "rdx"
TRACKING_URI = "sqlite:///mlflow.db"
COMMIT = "mlflow.source.git.commit"
PRECISIONS = ("bf16", "fp32")  # what "auto" becomes
LEVELS = ("data", "sampler", "depth", "teacher", "prefinetune", "loss", "student")
COLUMNS = ("grid", "signature", *LEVELS, "seed", *PER_QUERY)


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
        signature -> MLflow run id, so that a number can be traced to its run; a trial that was
        read from a folder has none.
    left_out : tuple of (Cell, str)
        Cells of the spec that are impossible, with the reason.
    commits : dict
        signature -> git commit of the code that ran the trial; absent if not recorded.
    """

    frame: pd.DataFrame
    cells: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    facts: dict[str, dict[str, Any]]
    runs: dict[str, str]
    left_out: tuple[tuple[Cell, str], ...] = ()
    commits: dict[str, str] = field(default_factory=dict)


def load(
    spec_name: str,
    tracking_uri: str = TRACKING_URI,
    imported: Iterable[str] = (),
    folder: Path | None = None,
) -> Trials:
    """Trials of ``experiments/SPEC_NAME.yaml``.

    Parameters
    ----------
    spec_name : str
        Name of the spec, without folder and suffix.
    tracking_uri : str
        Where MLflow keeps its runs, e.g. ``sqlite:///mlflow.db``.
    imported : iterable of str
        Names of imported runs that the spec shows.
    folder : Path, optional
        Copied trials, looked at first; see `collect`.

    Raises
    ------
    NoTrialsError
        If nothing has been tracked there yet.
    TrialError
        If a finished trial lacks its files or they are not what they should be.
    """
    from rdx.config import split  # Hydra loads only here: everything else works on plain cells

    cells, left_out = split(spec_name)
    elsewhere: list[tuple[Cell, ...]] = []
    if any(cell.pinned for cell in cells):  # this machine chose a precision: others chose another
        elsewhere = list(zip(*(split(spec_name, p)[0] for p in PRECISIONS), strict=True))
    trials = collect(cells, tracking_uri, imported, folder, elsewhere)
    return replace(trials, left_out=tuple(left_out))


def collect(
    cells: Sequence[Cell],
    tracking_uri: str = TRACKING_URI,
    imported: Iterable[str] = (),
    folder: Path | None = None,
    elsewhere: Sequence[Sequence[Cell]] = (),
) -> Trials:
    """Trials of the given cells: for each signature the newest finished one.

    Parameters
    ----------
    cells : sequence of Cell
        What to look for.
    tracking_uri : str
        Where MLflow keeps its runs.
    imported : iterable of str
        Names of imported runs to look for; one that is not there is just absent.
    folder : Path, optional
        Holds copies of trials anywhere below it: a ``trial.json`` with its ``per_query.parquet``
        beside it, as MLflow's artifacts are. Those are taken before MLflow's; with a folder there
        need be no MLflow store.
    elsewhere : sequence of sequences of Cell, optional
        For each cell, what it is on machines that choose another precision; the first that has a
        trial stands for a cell that has none.

    Raises
    ------
    NoTrialsError, TrialError
        As `load`.
    """
    # The same cell may be listed twice in one sub-grid; in two sub-grids it counts in both.
    unique = tuple({(cell.grid, cell.signature): cell for cell in cells}.values())
    others = {
        (cell.grid, cell.signature): alike for cell, alike in zip(cells, elsewhere, strict=False)
    }
    every = [*unique, *(cell for alike in others.values() for cell in alike)]
    signatures, names = {cell.signature for cell in every}, set(imported)
    facts: dict[str, dict[str, Any]] = {}
    tables: dict[str, pd.DataFrame] = {}
    if folder is not None:
        read_folder(folder, signatures, names, facts, tables)
        names -= {trial["imported"]["name"] for trial in facts.values() if "imported" in trial}
    runs: dict[str, Run] = {}
    try:
        runs = newest_finished(tracking_uri, signatures - set(facts), names)
    except NoTrialsError:
        if folder is None:
            raise
    unique = tuple(
        next((c for c in (cell, *alike) if c.signature in facts or c.signature in runs), cell)
        for cell in unique
        for alike in [others.get((cell.grid, cell.signature), ())]
    )
    unused = signatures - {cell.signature for cell in unique}
    facts = {key: trial for key, trial in facts.items() if key not in unused}
    runs = {key: run for key, run in runs.items() if key not in unused}
    with TemporaryDirectory() as scratch:
        for signature, run in runs.items():
            path = _artifact(run, "trial.json", tracking_uri, scratch)
            facts[signature] = read_facts(path, _name(run), signature)
            path = _artifact(run, "per_query.parquet", tracking_uri, scratch)
            tables[signature] = read_per_query(path, _name(run))
    parts = [
        _tidy(cell.grid, cell.signature, tables[cell.signature], facts[cell.signature])
        for cell in unique
        if cell.signature in tables
    ]
    parts += [
        _tidy("", signature, tables[signature], trial)
        for signature, trial in facts.items()
        if "imported" in trial
    ]
    tags = {signature: run.data.tags for signature, run in runs.items()}
    return Trials(
        frame=_concat(parts),
        cells=unique,
        missing=tuple(cell for cell in unique if cell.signature not in tables),
        facts=facts,
        runs={signature: run.info.run_id for signature, run in runs.items()},
        commits={key: own[COMMIT] for key, own in tags.items() if own.get(COMMIT)},
    )


def imported_as(trials: Trials, name: str) -> tuple[str, ...]:
    """Signatures of the run that was imported under a name: one, or none if it is not there."""
    return tuple(
        signature
        for signature, trial in trials.facts.items()
        if trial.get("imported", {}).get("name") == name
    )


def newest_finished(
    tracking_uri: str, signatures: set[str], imported: Iterable[str] = ()
) -> dict[str, Run]:
    """Newest FINISHED trial of each signature and of each imported name: one search for all.

    Those without one are absent. "Newest" = finished last, since a trial that was killed and
    resumed keeps its first start time.

    Raises
    ------
    NoTrialsError
        If there is no store at `tracking_uri`, or no experiment named ``rdx`` in it.
    """
    client, experiment_id = _client(tracking_uri)
    found: dict[str, Run] = {}
    names = set(imported)
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string="tags.`rdx.kind` = 'trial' and attributes.status = 'FINISHED'",
            order_by=["attributes.end_time DESC"],
            max_results=1000,
            page_token=token,
        )
        for run in page:
            signature = run.data.tags.get("rdx.signature", "")
            if (name := run.data.tags.get("rdx.imported")) in names:
                names.discard(name)  # the newest of this name; others have other contents
                found[signature] = run
            elif signature in signatures:
                found.setdefault(signature, run)
        token = page.token
        if not token:
            return found


def log_report(spec_name: str, paths: Iterable[Path], tracking_uri: str = TRACKING_URI) -> str:
    """Log files to the newest parent run of a spec's grid, under ``analysis/``.

    Returns
    -------
    str
        Id of that run; "" if there is none, which is no error: single cells have no parent.
    """
    try:
        client, experiment_id = _client(tracking_uri)
    except NoTrialsError:
        return ""
    grids = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` LIKE '{spec_name}-________'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not grids:
        return ""
    for path in paths:
        client.log_artifact(grids[0].info.run_id, str(path), "analysis")
    return str(grids[0].info.run_id)


def _client(tracking_uri: str) -> tuple[MlflowClient, str]:
    """A client, and the id of rdx's experiment."""
    _require_store(tracking_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient  # seconds to import, and --help must not wait for it

    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise NoTrialsError(f"no experiment {EXPERIMENT!r} at {tracking_uri}")
    return client, experiment.experiment_id


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
    if parsed.scheme == "sqlite":  # MLflow would try for minutes, and end with a traceback
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro"
            with closing(sqlite3.connect(address, uri=True)) as database:
                database.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            raise TrialError(
                f"{path} cannot be read: {error}; its owner must let you read it, or move it away, "
                "and the commands that recorded in it record again"
            ) from error


def _artifact(run: Run, name: str, tracking_uri: str, scratch: str) -> Path:
    uri = f"{run.info.artifact_uri}/{name}"
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):  # the file itself; MLflow's own way takes a second to import
        path = Path(url2pathname(parsed.path) if parsed.scheme else uri)
    else:
        path = _downloaded(run, name, uri, tracking_uri, scratch)
    try:
        absent = not path.is_file()
    except OSError as error:
        raise TrialError(f"{_name(run)}: {Unreadable(path, error)}") from error
    if absent:
        raise TrialError(f"{_name(run)} has no {name} at {uri}")
    return path


def _downloaded(run: Run, name: str, uri: str, tracking_uri: str, scratch: str) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target = Path(scratch) / run.info.run_id
    target.mkdir(exist_ok=True)
    try:
        return Path(
            download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=tracking_uri)
        )
    except (OSError, MlflowException) as error:
        raise TrialError(f"{_name(run)} has no {name} at {uri}: {error}") from error


def _tidy(grid: str, signature: str, table: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    levels = {level: str(facts["levels"].get(level, "")) for level in LEVELS}
    constants = {
        "grid": grid,
        "signature": signature,
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
