"""MLflow runs of grids and trials; import it through `rdx.tracking`, which silences mlflow."""

from __future__ import annotations

import functools
import getpass
import json
import logging
import re
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from rdx.tracking.environment import environment, machine

log = logging.getLogger(__name__)
for _chatty in ("mlflow", "alembic"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

VALUE_LENGTH = 500  # characters of a param or tag; MLflow takes 6000, older servers 500
KEY_LENGTH = 250  # mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH
DIGEST_LENGTH = 36  # mlflow.utils.validation.MAX_DATASET_DIGEST_SIZE
METRICS_PER_BATCH = 1000  # mlflow.utils.validation.MAX_METRICS_PER_BATCH
PARAMS_PER_BATCH = 100  # mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH
FLUSH_SECONDS = 5.0
RETRY_SECONDS = 60.0
# The factors of a run's name: those that vary most come first, since the UI cuts long names.
NAME_ORDER = ("loss", "sampler", "depth", "teacher", "prefinetune", "student")


def finished(uri: str, experiment: str, signature: str) -> bool:
    """Return whether a FINISHED trial of this signature is recorded; False if MLflow fails."""
    try:
        client = _client(uri)
        found = client.get_experiment_by_name(experiment)
        condition = f"{_trials_of(signature)} and attributes.status = 'FINISHED'"
        return found is not None and bool(
            client.search_runs([found.experiment_id], condition, max_results=1)
        )
    except Exception as error:
        log.warning("MLflow at %s failed: %s", uri, _brief(error))
        return False


def recorded(uri: str, experiment: str) -> set[str]:
    """Return the signatures of all FINISHED trials; none if MLflow fails."""
    signatures: set[str] = set()
    try:
        client, token = _client(uri), None
        found = client.get_experiment_by_name(experiment)
        while found is not None:
            condition = "tags.`rdx.kind` = 'trial' and attributes.status = 'FINISHED'"
            page = client.search_runs(
                [found.experiment_id], condition, max_results=1000, page_token=token
            )
            signatures |= {run.data.tags.get("rdx.signature", "") for run in page}
            token = page.token
            if not token:
                break
    except Exception as error:
        log.warning("MLflow at %s failed: %s", uri, _brief(error))
    return signatures


def log_grid(
    uri: str, experiment: str, artifacts: str, grid: str, cells: list[dict[str, Any]]
) -> None:
    """Write cells.json, the cells of a grid with their run ids, to the grid's parent run."""
    grid = _grid_name(grid)
    try:
        client = _client(uri)
        experiment_id = _experiment_id(client, experiment, artifacts)
        trials = client.search_runs(
            [experiment_id], "tags.`rdx.kind` = 'trial'", max_results=50_000
        )
        ids = {run.data.tags["rdx.signature"]: run.info.run_id for run in trials}
        rows = [{**cell, "run_id": ids.get(cell["signature"])} for cell in cells]
        _upload(client, _parent(client, experiment_id, grid), "cells.json", _json(rows))
    except Exception as error:
        log.warning("MLflow at %s failed: %s", uri, _brief(error))


def close_dead_runs(client: MlflowClient, experiment_id: str) -> list[str]:
    """Set RUNNING trials of this host whose process is gone to KILLED; return their run ids.

    A process is recognised by its id and its time of creation, since ids are reused.
    """
    running = client.search_runs(
        [experiment_id],
        "attributes.status = 'RUNNING' and tags.`rdx.kind` = 'trial' "
        f"and tags.`rdx.host` = '{socket.gethostname()}'",
    )
    dead = [run.info.run_id for run in running if not _lives(run.data.tags)]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return dead


class Record:
    """The `rdx.tracking.Trial` of `rdx.tracking.MLflow`: one child run, and its parent."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._run_id = ""  # stays empty if the run cannot be started: nothing is recorded then
        self._parent_id = ""
        self._monitor: SystemMetricsMonitor | None = None
        self._points: list[Metric] = []
        self._next_flush = 0.0
        self._warned = False
        self._incomplete = ""  # the first error that lost a part of the record

    @property
    def _client(self) -> MlflowClient:
        return _client(self._uri)

    def open(
        self,
        *,
        experiment: str,
        artifacts: str,
        signature: str,
        levels: dict[str, str],
        config: dict[str, Any],
        grid: str,
        seed: int,
        system_metrics: bool,
    ) -> None:
        """Start or resume the run; log params, configuration, environment."""
        grid = _grid_name(grid)
        factors = " ".join(levels[group] for group in NAME_ORDER if group in levels)

        def start() -> None:
            experiment_id = _experiment_id(self._client, experiment, artifacts)
            close_dead_runs(self._client, experiment_id)
            if grid:
                self._parent_id = _parent(self._client, experiment_id, grid)
            tags = _trial_tags(signature, self._parent_id)
            name = f"{factors} seed={seed}".strip()
            run, resumed = _child(self._client, experiment_id, signature, name, tags)
            self._run_id = run.info.run_id
            _log_params(self._client, run, {**_flatten(config), "seed": str(seed), **levels})
            self._upload("config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            self._upload("environment.json", _json(environment()))
            if system_metrics:
                self._monitor = SystemMetricsMonitor(
                    self._run_id, resume_logging=resumed, tracking_uri=self._uri
                )
                self._monitor.start()

        self._attempt(start)

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Buffer one point of each curve; see `rdx.tracking.Trial`."""
        self._points += _points({f"{prefix}/{name}": v for name, v in metrics.items()}, step)
        if self._run_id and time.monotonic() >= self._next_flush:
            written = self._attempt(self._flush, loses=False)
            self._next_flush = time.monotonic() + (FLUSH_SECONDS if written else RETRY_SECONDS)

    def log_result(self, folder: Path, facts: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Log final metrics, artifacts and dataset inputs; see `rdx.tracking.Trial`."""
        self._points += _points(metrics, 0)
        if not self._run_id:
            return

        def upload() -> None:
            self._client.log_artifacts(self._run_id, str(folder))
            self._upload("trial.json", _json(facts))
            datasets = _datasets(facts.get("collections", {}))
            if datasets:
                self._client.log_inputs(self._run_id, datasets)

        self._attempt(self._flush, loses=False)
        self._attempt(upload)

    def set_health(self, state: str) -> None:
        """Tag the run; see `rdx.tracking.Trial`."""
        self.set_tag("rdx.health", state)

    def set_tag(self, key: str, value: str) -> None:
        """Tag the run; see `rdx.tracking.Trial`."""
        if self._run_id:
            self._attempt(lambda: self._client.set_tag(self._run_id, key, value))

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run with an MLflow status, its parent as FINISHED."""
        if not self._run_id:
            return

        def end() -> None:
            if self._monitor is not None:
                self._monitor.finish()
            cause = _brief(error) if error else self._incomplete
            if cause:
                self._client.set_tag(self._run_id, "rdx.error", cause)
            lacking = status == "FINISHED" and self._incomplete
            self._client.set_terminated(self._run_id, "FAILED" if lacking else status)
            if self._parent_id:
                self._client.set_terminated(self._parent_id, "FINISHED")

        self._attempt(self._flush)
        self._attempt(end)

    def _attempt(self, action: Callable[[], object], loses: bool = True) -> bool:
        """Run an action on MLflow; on an exception warn, once a trial, and return False."""
        try:
            action()
        except Exception as error:
            if loses:
                self._incomplete = self._incomplete or f"record incomplete: {_brief(error)}"
            if not self._warned:
                log.warning(
                    "MLflow at %s failed (%s). The trial goes on and its results are stored; "
                    "the same command completes the record later.",
                    self._uri,
                    _brief(error),
                )
            self._warned = True
            return False
        return True

    def _flush(self) -> None:
        """Write the buffered points; those that cannot be written stay in the buffer."""
        while self._points:
            self._client.log_batch(self._run_id, metrics=self._points[:METRICS_PER_BATCH])
            del self._points[:METRICS_PER_BATCH]

    def _upload(self, name: str, text: str) -> None:
        _upload(self._client, self._run_id, name, text)


def _upload(client: MlflowClient, run_id: str, name: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        client.log_artifact(run_id, str(path))


@functools.cache
def _client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri)


def _experiment_id(client: MlflowClient, name: str, artifacts: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        local = artifacts and "://" not in artifacts
        location = str(Path(artifacts).resolve()) if local else artifacts or None
        try:
            return str(client.create_experiment(name, location))
        except Exception:
            found = client.get_experiment_by_name(name)  # was another process first?
            if found is None:
                raise
    return str(found.experiment_id)


def _parent(client: MlflowClient, experiment_id: str, grid: str) -> str:
    """Return the run id of the grid's parent run, which is created at need and left FINISHED."""

    def search() -> list[Run]:
        condition = f"tags.`rdx.kind` = 'grid' and tags.`rdx.grid` = '{grid}'"
        return list(client.search_runs([experiment_id], condition, order_by=["start_time ASC"]))

    found = search()
    if not found:
        tags = {"rdx.kind": "grid", "rdx.grid": grid, **_source_tags()}
        own = client.create_run(experiment_id, tags=tags, run_name=grid).info.run_id
        client.set_terminated(own, "FINISHED")
        found = search()
        if found[0].info.run_id != own:  # two processes created it at once: the first one counts
            client.delete_run(own)
    return str(found[0].info.run_id)


def _child(
    client: MlflowClient, experiment_id: str, signature: str, name: str, tags: dict[str, str]
) -> tuple[Run, bool]:
    """Return the trial's run, and whether it resumes one that was killed or failed.

    A RUNNING run of the same signature belongs to a living process, and is left alone.
    """
    ended = client.search_runs(
        [experiment_id],
        f"{_trials_of(signature)} "
        "and attributes.status != 'FINISHED' and attributes.status != 'RUNNING'",
        order_by=["start_time ASC"],
        max_results=1,
    )
    if not ended:
        return client.create_run(experiment_id, tags=tags, run_name=name), False
    run = ended[0]
    client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in tags.items()])
    for stale in {"rdx.error", "rdx.health"} & run.data.tags.keys():
        client.delete_tag(run.info.run_id, stale)
    client.update_run(run.info.run_id, status="RUNNING", name=name)
    return run, True


def _trials_of(signature: str) -> str:
    return f"tags.`rdx.kind` = 'trial' and tags.`rdx.signature` = '{signature}'"


def _trial_tags(signature: str, parent_id: str) -> dict[str, str]:
    process = psutil.Process()
    tags = {
        "rdx.kind": "trial",
        "rdx.signature": signature,
        "rdx.host": socket.gethostname(),
        "rdx.pid": str(process.pid),
        "rdx.started": f"{process.create_time():.2f}",
        **_source_tags(),
    }
    return {**tags, "mlflow.parentRunId": parent_id} if parent_id else tags


def _source_tags() -> dict[str, str]:
    """Return the tags behind the UI's columns user, source and version."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = "unknown"
    tags = {"mlflow.user": user, "mlflow.source.name": "rdx"}
    commit = machine()["git"]["commit"]
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _lives(tags: Mapping[str, str]) -> bool:
    try:
        process = psutil.Process(int(tags["rdx.pid"]))
        same = abs(process.create_time() - float(tags["rdx.started"])) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, str]) -> None:
    """Log the params a run lacks; params are immutable, so changed values go into a tag."""
    cut = {_name(key): _cut(value) for key, value in params.items()}
    logged = run.data.params
    new = [Param(key, value) for key, value in cut.items() if key not in logged]
    for i in range(0, len(new), PARAMS_PER_BATCH):
        client.log_batch(run.info.run_id, params=new[i : i + PARAMS_PER_BATCH])
    changed = {k: v for k, v in cut.items() if k in logged and logged[k] != v}
    if changed:
        client.set_tag(run.info.run_id, "rdx.params_changed", _cut(json.dumps(changed)))


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested mapping as {"a.b": text}; lists are written as JSON."""
    flat: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            is_list = isinstance(value, list | tuple)
            flat[f"{prefix}{key}"] = json.dumps(value, default=str) if is_list else str(value)
    return flat


def _points(metrics: Mapping[str, float], step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(_name(key), float(value), now, step) for key, value in metrics.items()]


def _grid_name(grid: str) -> str:
    return grid.replace("'", "")[:KEY_LENGTH]  # it is quoted in MLflow's filters


def _name(name: str) -> str:
    """Return a name of a param or metric that MLflow accepts.

    It allows letters, digits, "_-. /" and, on some systems, ":"; 250 characters.

    >>> _name("dl19/student+first_stage/nDCG@10")
    'dl19/student_plus_first_stage/nDCG_at_10'
    """
    name = name.replace("@", "_at_").replace("+", "_plus_")
    return re.sub(r"[^/\w.\- ]", "_", name)[:KEY_LENGTH]


def _datasets(collections: Mapping[str, Mapping[str, Any]]) -> list[DatasetInput]:
    return [
        DatasetInput(
            Dataset(
                name=name,
                digest=str(facts["digest"])[:DIGEST_LENGTH],
                source_type="rdx",
                source=_json({"collection": name, "first_stage": facts.get("first_stage")}),
            ),
            tags=[InputTag("mlflow.data.context", "evaluation")],
        )
        for name, facts in collections.items()
        if facts.get("digest")
    ]


def _brief(error: BaseException) -> str:
    return _cut(f"{type(error).__name__}: {error}")


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"


def _json(value: Any) -> str:
    """Return JSON text; numpy numbers become numbers, anything else unknown its text."""
    return json.dumps(value, indent=2, default=lambda o: o.item() if hasattr(o, "item") else str(o))
