"""Clients and experiments of MLflow; the file of a local database is made in one piece."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from rdx.folders import encoded, is_address
from rdx.tracking import notes
from rdx.tracking.places import SQLITE, database_file, deleted


def client(uri: str) -> MlflowClient:
    """The client of a tracking URI, whose SQLite file is made if it is not there.

    MLflow makes its tables step by step and without a lock: of several processes that find no file
    all but one fail, and so does everyone after a process that was killed meanwhile. So each makes
    a file of its own, and the first one that is complete gets the name.
    """
    path = database_file(uri)
    if path is not None and not path.exists():
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            MlflowClient(address(f"{SQLITE}{encoded(draft)}")).search_experiments(max_results=1)
            with suppress(FileExistsError):  # another process was first
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    return MlflowClient(address(uri))


def address(uri: str) -> str:
    """A tracking URI as MLflow is given it: named so, it makes no folder of an encoded name."""
    encoded_path = uri.startswith(SQLITE) and "%" in uri
    return uri.replace("sqlite:", "sqlite+pysqlite:", 1) if encoded_path else uri


def search(
    client: MlflowClient,
    experiment: str,
    condition: str,
    order: str = "start_time ASC",
    view: int = ViewType.ACTIVE_ONLY,
) -> list[Run]:
    """All runs of an experiment that meet a condition, by default the oldest first."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            condition,
            run_view_type=view,
            max_results=1000,
            order_by=[f"attributes.{order}"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def experiment_id(client: MlflowClient, name: str, artifacts: str | None, uri: str) -> str:
    """Id of an experiment, which is created at need, with its description.

    Raises
    ------
    RecordError
        If it was deleted.
    """
    known = client.get_experiment_by_name(name)
    if known is None:
        location = artifacts or None
        if artifacts and not is_address(artifacts):
            location = Path(artifacts).resolve().as_uri()  # as a path, MLflow would decode it
        try:
            created = str(client.create_experiment(name, location))
        except Exception:
            known = client.get_experiment_by_name(name)  # was another process first?
            if known is None:
                raise
        else:
            client.set_experiment_tag(created, notes.NOTE, notes.EXPERIMENT_NOTE)
            return created
    if known.lifecycle_stage != "active":
        raise deleted(name, known.experiment_id, uri)
    return str(known.experiment_id)
