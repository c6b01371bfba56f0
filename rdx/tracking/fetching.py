"""Fetch the files of trials that only MLflow has, and log reports to their grids."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from rdx.tracking.database import address, search
from rdx.tracking.notes import grid_name
from rdx.tracking.places import NoRecords, RecordError, database_file, deleted, page

FILES = ("trial.json", "per_query.parquet")
COMMIT = "mlflow.source.git.commit"


@dataclass(frozen=True)
class Fetched:
    """A trial of MLflow.

    Attributes
    ----------
    run_id
        Of its run.
    folder
        Where its ``trial.json`` and ``per_query.parquet`` are now; None if they were not wanted.
    commit
        Of the code that ran it; "" if not recorded.
    page
        Address of its page; see `rdx.tracking.places.page`.
    """

    run_id: str
    folder: Path | None
    commit: str
    page: str


def fetch(
    uri: str,
    experiment: str,
    signatures: Collection[str],
    scratch: Path,
    imported: Iterable[str] = (),
    stored: Collection[str] = (),
) -> dict[str, Fetched]:
    """Newest FINISHED trials by signature; see `rdx.tracking.MLflow.fetch`."""
    runs = newest(uri, experiment, {*signatures, *stored}, imported)
    return {
        signature: Fetched(
            run.info.run_id,
            None if signature in stored else _files(run, uri, scratch),
            run.data.tags.get(COMMIT, ""),
            page(uri, run.info.experiment_id, run.info.run_id),
        )
        for signature, run in runs.items()
    }


def newest(
    uri: str, experiment: str, signatures: Collection[str], imported: Iterable[str] = ()
) -> dict[str, Run]:
    """The FINISHED run of each signature and each imported name that finished last.

    A trial that was killed and resumed keeps its first start time. One search answers for all.
    """
    client, experiment_id = _client(uri, experiment)
    runs: dict[str, Run] = {}
    names = set(imported)
    finished = "tags.`rdx.kind` = 'trial' and attributes.status = 'FINISHED'"
    for run in search(client, experiment_id, finished, "end_time DESC"):
        signature = run.data.tags.get("rdx.signature", "")
        if (name := run.data.tags.get("rdx.imported")) in names:
            names.discard(name)  # the newest of this name; others have other contents
            runs[signature] = run
        elif signature in signatures:
            runs.setdefault(signature, run)
    return runs


def log_report(uri: str, experiment: str, spec: str, paths: Iterable[Path], grid: str = "") -> str:
    """Log files to a grid; see `rdx.tracking.MLflow.log_report`."""
    wanted = grid_name(grid) if grid else f"{spec}-________"
    try:
        client, experiment_id = _client(uri, experiment)
    except NoRecords:
        return ""
    grids = client.search_runs(
        [experiment_id],
        filter_string=f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` LIKE '{wanted}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not grids:
        return ""
    for path in paths:
        client.log_artifact(grids[0].info.run_id, str(path), "analysis")
    return str(grids[0].info.run_id)


def _client(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client, and the id of an experiment; nothing is created."""
    _require_database(uri)
    client = MlflowClient(tracking_uri=address(uri))
    known = client.get_experiment_by_name(experiment)
    if known is None:
        raise NoRecords(f"no experiment {experiment!r} at {uri}")
    if known.lifecycle_stage != "active":
        raise NoRecords(str(deleted(experiment, known.experiment_id, uri)))
    return client, str(known.experiment_id)


def _require_database(uri: str) -> None:
    """Refuse a local database that is not there: MLflow would create an empty one."""
    parsed, database = urlparse(uri), database_file(uri)
    if database is None and parsed.scheme not in ("", "file"):
        return
    path = database or Path(url2pathname(parsed.path) if parsed.scheme else uri)
    if not path.exists():
        raise NoRecords(f"no MLflow store at {uri}")
    if database is not None:  # MLflow would try for minutes, and end with a traceback
        try:
            read_only = f"file:{quote(str(path.absolute()))}?mode=ro"
            with closing(sqlite3.connect(read_only, uri=True)) as connection:
                connection.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            raise RecordError(
                f"{path} cannot be read: {error}; its owner must let you read it, or move it away, "
                "and the commands that recorded in it record again"
            ) from error


def _files(run: Run, uri: str, scratch: Path) -> Path:
    """The folder of a run's `FILES`; those on another machine are downloaded."""
    parsed = urlparse(run.info.artifact_uri)
    if parsed.scheme in ("", "file"):
        place = url2pathname(parsed.path) if parsed.scheme else run.info.artifact_uri
        folder = Path(place)
    else:
        folder = scratch / run.info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            _download(run, name, uri, folder)
    try:
        absent = [name for name in FILES if not (folder / name).is_file()]
    except OSError as error:
        raise RecordError(f"{_name(run)}: {folder} cannot be read: {error}") from error
    if absent:
        raise RecordError(f"{_name(run)} has no {absent[0]} at {folder / absent[0]}")
    return folder


def _download(run: Run, name: str, uri: str, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts  # takes a second, which local files need not

    place = f"{run.info.artifact_uri}/{name}"
    try:
        download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=address(uri))
    except (OSError, MlflowException) as error:
        raise RecordError(f"{_name(run)} has no {name} at {place}: {error}") from error


def _name(run: Run) -> str:
    return f"trial {run.data.tags.get('rdx.signature', '?')[:12]} (MLflow run {run.info.run_id})"
