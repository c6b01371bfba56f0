"""What MLflow is asked and told; the file of a local database is made in one piece."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from requests import RequestException

from rdx.folders import encoded, is_address
from rdx.tracking import notes
from rdx.tracking.log import Input
from rdx.tracking.places import SQLITE, database_file, deleted

DIGEST_LENGTH = 36  # mlflow.utils.validation.MAX_DATASET_DIGEST_SIZE
REFUSED = (400, 409)  # of HTTP: the same request would be refused again
PARAMS_PER_BATCH = 100  # mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH


def final(error: Exception) -> bool:
    """Whether an error is final: MLflow refuses what is sent, or a file is missing."""
    if isinstance(error, MlflowException):
        return error.get_http_status_code() in REFUSED
    if isinstance(error, RequestException):
        return False
    return isinstance(error, TypeError | ValueError | KeyError | FileNotFoundError)


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


@functools.cache
def client_of(uri: str) -> MlflowClient:
    """The client of a tracking URI, one per process."""
    return client(uri)


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


def run_ids(uri: str, experiment: str) -> set[str]:
    """All runs of rdx that an experiment has, deleted ones too."""
    client = client_of(uri)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        return set()
    runs = search(client, str(known.experiment_id), "", view=ViewType.ALL)
    return {run.info.run_id for run in runs}


def experiment_id(client: MlflowClient, name: str, artifacts: str | None, uri: str) -> str:
    """Id of an experiment, which is created at need, with its description.

    The UI opens it as model training, unless somebody gave it another kind.

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
            client.set_experiment_tag(created, notes.KIND, notes.TRAINING)
            return created
    if known.lifecycle_stage != "active":
        raise deleted(name, known.experiment_id, uri)
    if known.tags.get(notes.KIND, notes.NO_KIND) == notes.NO_KIND:
        client.set_experiment_tag(known.experiment_id, notes.KIND, notes.TRAINING)
    return str(known.experiment_id)


def tag_other(client: MlflowClient, run_id: str, key: str, value: str) -> None:
    """Tag a run, unless somebody deleted it or its database is gone."""
    try:
        client.set_tag(run_id, key, value)
    except MlflowException as error:
        if error.get_http_status_code() not in (*REFUSED, 404):
            raise


def log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    """Log the params a run lacks; params are immutable, so changed values go into a tag."""
    logged = run.data.params
    new = [Param(key, value) for key, value in params.items() if key not in logged]
    for i in range(0, len(new), PARAMS_PER_BATCH):
        client.log_batch(run.info.run_id, params=new[i : i + PARAMS_PER_BATCH])
    changed = {k: v for k, v in params.items() if k in logged and logged[k] != v}
    if changed:
        text = ", ".join(f"{key}={value}" for key, value in changed.items())
        client.set_tag(run.info.run_id, "rdx.params_changed", notes.cut(text))


def log_inputs(client: MlflowClient, run_id: str, inputs: Sequence[Input]) -> None:
    """Log inputs; where two processes add the same new dataset, MLflow refuses one of them."""
    datasets = [_dataset(entry) for entry in inputs]
    for attempt, _ in enumerate(datasets):
        try:
            client.log_inputs(run_id, datasets)
            return
        except MlflowException:  # it is found at the next attempt, then
            if attempt == len(datasets) - 1:
                raise


def _dataset(entry: Input) -> DatasetInput:
    return DatasetInput(
        Dataset(
            name=entry.name,
            digest=entry.digest[:DIGEST_LENGTH],
            source_type="rdx",
            source=entry.source,
            profile=entry.profile,
        ),
        tags=[InputTag("mlflow.data.context", entry.context)],
    )
