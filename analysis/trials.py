"""Spec -> cells -> finished trials -> one tidy per-query frame.

A trial is found by the signature of its cell and by nothing else: renaming an experiment or
running its cells on another machine does not hide them. Copies in a folder come first, then the
cell's own store; MLflow is asked for what neither has.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote, urlparse
from urllib.request import url2pathname

import pandas as pd

from analysis import stored
from analysis.stored import PER_QUERY, NoTrialsError, Trial, TrialError
from rdx.facts import TrialFacts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from rdx.config import Cell

__all__ = [
    "COLUMNS",
    "EXPERIMENT",
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
COLUMNS = ("grid", "signature", "seed", *PER_QUERY)


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
        signature -> what the trial says of itself.
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
    facts: dict[str, TrialFacts]
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
        If there is no trial anywhere, and nothing has been tracked there yet.
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
    """Trials of the given cells.

    Parameters
    ----------
    cells : sequence of Cell
        What to look for.
    tracking_uri : str
        Where MLflow keeps its runs; of several finished ones of a signature, the newest.
    imported : iterable of str
        Names of imported runs to look for; one that is not there is just absent.
    folder : Path, optional
        Holds copies of trials anywhere below it: a ``trial.json`` with its ``per_query.parquet``
        beside it, as MLflow's artifacts are. Those are taken before all others; of two with one
        signature, the last path's.
    elsewhere : sequence of sequences of Cell, optional
        For each cell, what it is on machines that choose another precision; the first that has a
        trial stands for a cell that has none.

    Raises
    ------
    NoTrialsError, TrialError
        As `load`.
    """
    # The same cell may be listed twice in one sub-grid; in two sub-grids it counts in both.
    unique: dict[tuple[str, str], tuple[Cell, ...]] = {}
    unique |= {(cell.grid, cell.signature): (cell,) for cell in cells}
    for cell, alike in zip(cells, elsewhere, strict=False):
        unique[cell.grid, cell.signature] = (cell, *alike)
    every = [cell for alike in unique.values() for cell in alike]
    signatures, names = {cell.signature for cell in every}, set(imported)
    trials: dict[str, Trial] = {}
    if folder is not None:
        trials = {t.facts.signature: t for t in stored.in_folder(folder, signatures, names)}
    copied = set(trials)
    rest = {cell.signature: cell for cell in every if cell.signature not in trials}
    trials |= {t.facts.signature: t for t in stored.in_stores(rest.values())}
    names -= {trial.imported for trial in trials.values()}
    runs: dict[str, Run] = {}
    try:
        runs = newest_finished(tracking_uri, signatures - copied, names)
    except NoTrialsError:
        if folder is None and not trials:
            raise
    available = {*trials, *runs}
    chosen = tuple(
        next((cell for cell in alike if cell.signature in available), alike[0])
        for alike in unique.values()
    )
    unused = signatures - {cell.signature for cell in chosen}
    runs = {signature: run for signature, run in runs.items() if signature not in unused}
    with TemporaryDirectory() as scratch:
        for signature in runs.keys() - trials:
            run = runs[signature]
            trials[signature] = stored.read(
                _artifacts(run, tracking_uri, scratch), _label(run), signature
            )
    trials = {signature: t for signature, t in trials.items() if signature not in unused}
    parts = [(c.grid, trials[c.signature]) for c in chosen if c.signature in trials]
    parts += [("", trial) for trial in trials.values() if trial.imported]
    tags = {signature: run.data.tags for signature, run in runs.items()}
    return Trials(
        frame=_frame(parts),
        cells=chosen,
        missing=tuple(cell for cell in chosen if cell.signature not in trials),
        facts={signature: trial.facts for signature, trial in trials.items()},
        runs={signature: run.info.run_id for signature, run in runs.items()},
        commits={key: own[COMMIT] for key, own in tags.items() if own.get(COMMIT)},
    )


def imported_as(trials: Trials, name: str) -> tuple[str, ...]:
    """Signatures of the run that was imported under a name: one, or none if it is not there."""
    return tuple(
        signature
        for signature, trial in trials.facts.items()
        if trial.imported and trial.imported.name == name
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


def _artifacts(run: Run, tracking_uri: str, scratch: str) -> Path:
    """Folder with the files of a trial."""
    parsed = urlparse(run.info.artifact_uri)
    if parsed.scheme in ("", "file"):  # the files themselves: MLflow takes a second to import
        return Path(url2pathname(parsed.path) if parsed.scheme else run.info.artifact_uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    target = Path(scratch) / run.info.run_id
    target.mkdir(exist_ok=True)
    for name in (stored.FACTS, stored.SCORES):
        uri = f"{run.info.artifact_uri}/{name}"
        try:
            download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=tracking_uri)
        except (OSError, MlflowException) as error:
            raise TrialError(f"{_label(run)} has no {name} at {uri}: {error}") from error
    return target


def _frame(trials: Sequence[tuple[str, Trial]]) -> pd.DataFrame:
    """The tidy frame of trials with their sub-grids."""
    parts = [
        trial.scores.assign(grid=grid, signature=trial.facts.signature, seed=trial.facts.seed)
        for grid, trial in trials
    ]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _label(run: Run) -> str:
    return f"trial {run.data.tags.get('rdx.signature', '?')[:12]} (MLflow run {run.info.run_id})"
