"""MLflow runs of grids and trials; import it through `rdx.tracking`, which silences mlflow."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from requests import RequestException

from rdx.tracking import database, notes
from rdx.tracking.outbox import Event, alive

DIGEST_LENGTH = 36  # mlflow.utils.validation.MAX_DATASET_DIGEST_SIZE
METRICS_PER_BATCH = 1000  # mlflow.utils.validation.MAX_METRICS_PER_BATCH
PARAMS_PER_BATCH = 100  # mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH
REFUSED = (400, 409)  # of HTTP: the same request would be refused again


def final(error: Exception) -> bool:
    """Whether trying again is no use: MLflow refuses what is sent, or it is not there."""
    if isinstance(error, MlflowException):
        return error.get_http_status_code() in REFUSED
    if isinstance(error, RequestException):
        return False
    return isinstance(error, TypeError | ValueError | KeyError | FileNotFoundError)


def finished(uri: str, experiment: str, signature: str) -> bool:
    """Return whether a FINISHED trial of this signature is recorded."""
    found = client_of(uri).get_experiment_by_name(experiment)
    condition = f"{_trials_of(signature)} and attributes.status = 'FINISHED'"
    return found is not None and bool(
        client_of(uri).search_runs([found.experiment_id], condition, max_results=1)
    )


def recorded(uri: str, experiment: str) -> set[str]:
    """Return the signatures of all FINISHED trials."""
    found = client_of(uri).get_experiment_by_name(experiment)
    condition = "tags.`rdx.kind` = 'trial' and attributes.status = 'FINISHED'"
    if found is None:
        return set()
    trials = search(client_of(uri), found.experiment_id, condition)
    return {run.data.tags.get("rdx.signature", "") for run in trials}


def close_dead(uri: str, experiment: str) -> list[str]:
    """Close the dead runs of an experiment, if it is there; see `close_dead_runs`."""
    found = client_of(uri).get_experiment_by_name(experiment)
    return close_dead_runs(client_of(uri), found.experiment_id) if found else []


def close_dead_runs(client: MlflowClient, experiment_id: str) -> list[str]:
    """Set RUNNING trials whose process is gone to KILLED; return their run ids."""
    running = search(
        client, experiment_id, "attributes.status = 'RUNNING' and tags.`rdx.kind` = 'trial'"
    )
    dead = [run.info.run_id for run in running if not _lives(run.data.tags)]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return dead


def _lives(tags: Mapping[str, str]) -> bool:
    try:
        process = (tags["rdx.host"], tags["rdx.pid"], tags["rdx.started"])
        return alive(*process, seen=float(tags.get("rdx.alive", 0)))
    except (KeyError, ValueError):
        return False


def search(client: MlflowClient, experiment_id: str, condition: str) -> list[Run]:
    """All runs that meet a condition, the oldest first."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


class Delivery:
    """Writes the events of one outbox to MLflow; each of them may be written again.

    Attributes
    ----------
    run_id
        Of the trial; empty until its start is delivered.
    lost
        The first reason why MLflow refused a part of the record; empty if it did not.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str, token: str) -> None:
        self.uri, self.experiment, self.artifacts, self.token = uri, experiment, artifacts, token
        self.run_id = self.parent_id = self.grid = self.lost = ""
        self.experiment_id = ""
        self.resumed = self.ended = False

    @property
    def client(self) -> MlflowClient:
        """The client that writes."""
        return client_of(self.uri)

    def deliver(self, events: list[Event]) -> int:
        """Write the first event, and whatever points of curves fit with it; return how many."""
        first = events[0]
        count = 1
        if first["op"] == "points":
            points: list[Metric] = []
            for count, event in enumerate(events, 1):
                if event["op"] != "points":
                    count -= 1
                    break
                points += _metrics(event)
                if len(points) >= METRICS_PER_BATCH:
                    break
            self._points(points)
        else:
            getattr(self, f"_{first['op']}")(first)
        return count

    def alive(self) -> None:
        """Show other machines that the trial's process lives."""
        if self.run_id and not self.ended:
            self.client.set_tag(self.run_id, "rdx.alive", str(int(time.time())))

    def _open(self, event: Event) -> None:
        self.experiment_id = experiment_id(self.client, self.experiment, self.artifacts)
        close_dead_runs(self.client, self.experiment_id)
        self.grid, tags = event["grid"], {**event["tags"], "rdx.trial": self.token}
        if self.grid:
            source = {key: value for key, value in tags.items() if key.startswith("mlflow.")}
            self.parent_id = parent(
                self.client, self.experiment_id, self.grid, event["claim"], source
            )
            tags["mlflow.parentRunId"] = self.parent_id
        run, self.resumed = self._child(event["signature"], event["name"], tags, event["time"])
        self.run_id, self.ended = run.info.run_id, False
        self._note(event["note"])
        log_params(self.client, run, event["params"])
        self._texts(event["texts"])

    def _child(
        self, signature: str, name: str, tags: dict[str, str], start: int
    ) -> tuple[Run, bool]:
        """Return the trial's run, and whether it was there before.

        It is the one of this token; else one of the same signature that was killed or failed, which
        goes on. A RUNNING run of another token belongs to a living process, and is left alone.
        """
        own = f"tags.`rdx.trial` = '{self.token}'"
        ended = (
            f"{_trials_of(signature)} "
            "and attributes.status != 'FINISHED' and attributes.status != 'RUNNING'"
        )
        found = search(self.client, self.experiment_id, own) or search(
            self.client, self.experiment_id, ended
        )
        if not found:
            run = self.client.create_run(
                self.experiment_id, tags=tags, run_name=name, start_time=start
            )
            return run, False
        run = found[0]
        self.client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        for stale in {"rdx.error", "rdx.health"} & run.data.tags.keys():
            self.client.delete_tag(run.info.run_id, stale)
        self.client.update_run(run.info.run_id, status="RUNNING", name=name)
        return run, True

    def _points(self, points: list[Metric]) -> None:
        for i in range(0, len(points), METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=points[i : i + METRICS_PER_BATCH])

    def _tags(self, event: Event) -> None:
        tags = [RunTag(key, value) for key, value in event["values"].items()]
        self.client.log_batch(self.run_id, tags=tags)

    def _result(self, event: Event) -> None:
        self._points(_metrics(event))
        self._note(event["note"])
        datasets = [_dataset(one) for one in event["datasets"]]
        if datasets:
            _log_inputs(self.client, self.run_id, datasets)
        if not Path(event["folder"]).is_dir():
            raise FileNotFoundError(f"{event['folder']} is not there any more")
        self.client.log_artifacts(self.run_id, event["folder"])
        self._texts(event["texts"])

    def _model(self, event: Event) -> None:
        from rdx.tracking.models import log_model

        log_model(self.client, self.run_id, Path(event["folder"]), event["student"])

    def _end(self, event: Event) -> None:
        cause = event["error"] or (f"record incomplete: {self.lost}" if self.lost else "")
        if cause:
            self.client.set_tag(self.run_id, "rdx.error", notes.cut(cause))
        lacking = event["status"] == "FINISHED" and self.lost
        status = "FAILED" if lacking else event["status"]
        self.client.set_terminated(self.run_id, status, end_time=event["time"])
        self.ended = True
        if self.parent_id:
            merged(self.client, self.experiment_id, self.grid)
            self.client.set_terminated(self.parent_id, "FINISHED")

    def _grid(self, event: Event) -> None:
        from rdx.tracking.grids import log_grid

        self.experiment_id = experiment_id(self.client, self.experiment, self.artifacts)
        close_dead_runs(self.client, self.experiment_id)
        claim, source = event["claim"], event["source"]
        self.run_id = parent(self.client, self.experiment_id, event["grid"], claim, source)
        merged(self.client, self.experiment_id, event["grid"])
        log_grid(self.client, self.experiment_id, self.run_id, event)

    def _note(self, text: str) -> None:
        place = notes.address(self.experiment_id, self.run_id)
        self.client.set_tag(self.run_id, notes.NOTE, text.replace(notes.RUN, place))

    def _texts(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            upload(self.client, self.run_id, name, text)


def upload(client: MlflowClient, run_id: str, name: str, text: str) -> None:
    """Log a text as an artifact."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        client.log_artifact(run_id, str(path))


@functools.cache
def client_of(uri: str) -> MlflowClient:
    """The client of a tracking URI."""
    return database.client(uri)


def experiment_id(client: MlflowClient, name: str, artifacts: str) -> str:
    """Id of an experiment, which is created at need, with its description."""
    found = client.get_experiment_by_name(name)
    if found is None:
        local = artifacts and "://" not in artifacts
        location = str(Path(artifacts).resolve()) if local else artifacts or None
        try:
            made = str(client.create_experiment(name, location))
        except Exception:
            found = client.get_experiment_by_name(name)  # was another process first?
            if found is None:
                raise
        else:
            client.set_experiment_tag(made, notes.NOTE, notes.EXPERIMENT_NOTE)
            return made
    return str(found.experiment_id)


def parent(
    client: MlflowClient,
    experiment: str,
    grid: str,
    claim: str = "",
    source: Mapping[str, str] | None = None,
) -> str:
    """Return the run id of the grid's parent run, which is created at need and left FINISHED."""
    found = _parents(client, experiment, grid)
    if not found:
        tags = {
            "rdx.kind": "grid",
            "rdx.grid": grid,
            "rdx.claim": notes.cut(claim),
            **(source or {}),
        }
        own = client.create_run(experiment, tags=tags, run_name=grid).info.run_id
        place = notes.address(experiment, own)
        client.set_tag(own, notes.NOTE, notes.of_grid(grid, claim).replace(notes.RUN, place))
        client.set_terminated(own, "FINISHED")
        return merged(client, experiment, grid)
    return str(found[0].info.run_id)


def merged(client: MlflowClient, experiment: str, grid: str) -> str:
    """Return the parent run of a grid; of several, the first gets the children of the others.

    Two processes that find no parent at the same moment both create one. Each of them comes here
    afterwards, and once more at the end of its trial, so that in the end there is one.
    """
    first, *others = _parents(client, experiment, grid)
    for other in others:
        of_other = f"tags.`mlflow.parentRunId` = '{other.info.run_id}'"
        for child in search(client, experiment, of_other):
            client.set_tag(child.info.run_id, "mlflow.parentRunId", first.info.run_id)
        client.delete_run(other.info.run_id)
    return str(first.info.run_id)


def _parents(client: MlflowClient, experiment: str, grid: str) -> list[Run]:
    return search(client, experiment, f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` = '{grid}'")


def _trials_of(signature: str) -> str:
    return f"tags.`rdx.kind` = 'trial' and tags.`rdx.signature` = '{signature}'"


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


def _log_inputs(client: MlflowClient, run_id: str, datasets: list[DatasetInput]) -> None:
    """Log inputs; where two processes add the same new dataset, MLflow refuses one of them."""
    for _ in datasets:
        try:
            client.log_inputs(run_id, datasets)
        except MlflowException:  # it is found at the next attempt, then
            continue
        return
    client.log_inputs(run_id, datasets)


def _metrics(event: Event) -> list[Metric]:
    return [
        Metric(key, float(value), event["time"], event["step"])
        for key, value in event["metrics"].items()
    ]


def _dataset(one: Mapping[str, str]) -> DatasetInput:
    return DatasetInput(
        Dataset(
            name=one["name"],
            digest=one["digest"][:DIGEST_LENGTH],
            source_type="rdx",
            source=one["source"],
            profile=one["profile"],
        ),
        tags=[InputTag("mlflow.data.context", one["context"])],
    )
