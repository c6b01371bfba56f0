"""The record of a trial: events into the outbox, and a thread that delivers them to MLflow.

The trial itself never waits for MLflow, but for a bounded time at its end.
"""

from __future__ import annotations

import getpass
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from rdx.tracking import notes
from rdx.tracking.environment import environment, uncommitted
from rdx.tracking.outbox import Event, Outbox, claim, left, this_process
from rdx.tracking.runs import Delivery, final

if TYPE_CHECKING:
    from rdx.tracking import MLflow

log = logging.getLogger(__name__)
FLUSH_SECONDS = 5.0  # points of curves are gathered for as long
BEAT_SECONDS = 60.0
RETRY_SECONDS = (1.0, 60.0)  # after a failure; doubled from the first to the last
T = TypeVar("T")
_silent: dict[str, float] = {}  # until when a URI that failed is not asked again (monotonic time)


class Writer:
    """Delivers an outbox in a thread of its own, and tries again for as long as it lives."""

    def __init__(self, settings: MLflow, box: Outbox, monitored: bool = False) -> None:
        self.settings, self.box = settings, box
        self.delivery = Delivery(
            settings.uri, settings.experiment, settings.artifacts, token=box.token
        )
        self.failure = ""  # of the last attempt
        self._monitored = monitored
        self._monitor: SystemMetricsMonitor | None = None
        self._closing, self._given_up = False, False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rdx-mlflow", daemon=True)
        self._warned = False

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def add(self, event: Event) -> None:
        """Keep an event and deliver it soon."""
        self.box.append(event)
        if event["op"] != "points":
            self._wake.set()

    def close(self, seconds: float) -> bool:
        """Deliver what is left, for at most so many seconds; returns whether all is delivered."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        self._given_up = True
        if self._thread.is_alive():
            self.failure = self.failure or f"no answer within {seconds:g} s"
        done = self.box.close()
        if not done:
            _silent[self.settings.uri] = time.monotonic() + RETRY_SECONDS[1]
            self._warn(self.failure)
        return done

    def _work(self) -> None:
        delay, (least, most) = 0.0, RETRY_SECONDS
        beaten = time.monotonic()
        while not self._given_up:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            last = self._closing  # read before delivering, so that nothing added later is missed
            try:
                self._deliver()
                if time.monotonic() - beaten > BEAT_SECONDS:
                    self.delivery.alive()
                    self.box.beat()
                    beaten = time.monotonic()
                delay, self.failure = 0.0, ""
            except Exception as error:  # MLflow's, the network's, the disk's: all are to be tried
                self.failure = notes.brief(error)
                self._warn(self.failure)
                self.box.beat()
                delay = min(max(2 * delay, least), most)
                if not last:
                    self._pause(delay)
                    self._wake.set()
            if last:
                return

    def _pause(self, seconds: float) -> None:
        """Wait, unless the trial ends: new events alone do not make a dead server answer."""
        until = time.monotonic() + seconds
        while not self._closing and (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, 0.1))

    def _deliver(self) -> None:
        while (events := self.box.pending()) and not self._given_up:
            ends = events[0]["op"] == "end"
            if ends:
                self._stop_monitor()
            try:
                count = self.delivery.deliver(events)
            except Exception as error:
                if events[0]["op"] in ("open", "end") or not final(error):
                    raise
                self.delivery.lost = self.delivery.lost or notes.brief(error)
                self._warn(notes.brief(error))
                count = 1
            self.box.delivered(count)
            if events[0]["op"] == "open" and self._monitored:
                self._start_monitor()

    def _start_monitor(self) -> None:
        if self._monitor is None:
            self._monitor = SystemMetricsMonitor(
                self.delivery.run_id,
                resume_logging=self.delivery.resumed,
                tracking_uri=self.settings.uri,
            )
            self._monitor.start()

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor, self._monitored = None, False

    def _warn(self, cause: str) -> None:
        if not self._warned:
            log.warning(
                "MLflow at %s failed (%s). The trial goes on; its record is kept in %s: "
                "`python -m rdx sync` or the same command completes it later.%s",
                self.settings.uri,
                cause,
                self.box.path.parent,
                f" That file lacks something: {self.box.problem}" if self.box.problem else "",
            )
        self._warned = True


class Record:
    """The `rdx.tracking.Trial` of `rdx.tracking.MLflow`: one child run, and its parent."""

    def __init__(
        self,
        settings: MLflow,
        *,
        signature: str,
        levels: dict[str, str],
        config: dict[str, Any],
        grid: str,
        seed: int,
    ) -> None:
        self._settings, self._config = settings, config
        self._about: tuple[str, dict[str, str], int] = (signature, levels, seed)
        self._health = ""
        folder = Path(settings.outbox)
        box = claim(folder, signature) or Outbox(folder, signature)
        self._writer = Writer(settings, box, monitored=settings.system_metrics)
        spec = config.get("spec")
        self._add(
            "open",
            signature=signature,
            name=notes.cut(notes.run_name(levels, seed)),
            grid=notes.grid_name(grid),
            claim=(spec.get("claim") or "").strip() if isinstance(spec, Mapping) else "",
            tags=_tags(signature, levels, seed),
            note=notes.of_trial(signature, levels, seed),
            params=notes.params(config, levels, seed),
            texts={
                "config.yaml": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
                "environment.json": _json(environment(config)),
                **({"uncommitted.diff": changes} if (changes := uncommitted()) else {}),
            },
        )
        self._writer.start()

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Keep one point of each curve; see `rdx.tracking.Trial`."""
        named = {notes.legal(f"{prefix}/{name}"): float(v) for name, v in metrics.items()}
        self._add("points", step=step, metrics=named)

    def log_result(self, folder: Path, facts: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Keep final metrics, artifacts and dataset inputs; see `rdx.tracking.Trial`."""
        collections = facts.get("collections", {})
        self._add(
            "result",
            folder=str(folder.resolve()),
            step=0,
            metrics={
                notes.legal(notes.metric(k, collections)): float(v) for k, v in metrics.items()
            },
            note=notes.of_trial(*self._about, metrics, self._health),
            texts={"trial.json": _json(facts)},
            datasets=_datasets(self._config, self._about[1], facts),
        )
        checkpoint = self._checkpoint(facts.get("signatures", {}))
        if self._settings.log_model and checkpoint:
            self._add("model", folder=str(checkpoint), student=self._config["student"])

    def set_health(self, state: str) -> None:
        """Tag the run; see `rdx.tracking.Trial`."""
        self._health = state
        self.set_tag("rdx.health", state)

    def set_tag(self, key: str, value: str) -> None:
        """Tag the run; see `rdx.tracking.Trial`."""
        self._add("tags", values={key: notes.cut(value)})

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run with an MLflow status, its parent as FINISHED."""
        self._add("end", status=status, error=notes.brief(error) if error else "")
        self._writer.close(self._settings.wait)

    def _add(self, op: str, **event: Any) -> None:
        self._writer.add({"op": op, "time": _now(), **event})

    def _checkpoint(self, signatures: Mapping[str, str]) -> Path | None:
        """Folder of the trained student; None for trials that train nothing."""
        stage = "distill" if self._config.get("loss") else "prefinetune"
        if stage not in signatures:
            return None
        return Path(self._config["store"], stage, signatures[stage]).resolve()


def log_grid(settings: MLflow, grid: str, cells: list[dict[str, Any]], aim: str) -> None:
    """Record the table of a grid; see `rdx.tracking.MLflow.log_grid`."""
    grid = notes.grid_name(grid)
    about = {"grid": grid, "cells": cells, "claim": aim, "source": _source_tags()}
    event = {"op": "grid", "time": _now(), **about}
    folder = Path(settings.outbox)
    writer = Writer(settings, claim(folder, f"grid-{grid}") or Outbox(folder, f"grid-{grid}"))
    writer.add(event)
    writer.start()
    writer.close(settings.wait)


def deliver(settings: MLflow, signature: str, seconds: float) -> tuple[int, int]:
    """Deliver what is left of one trial or, with signature "", of all.

    A record without an end is that of a killed process, and ends as KILLED.

    Returns
    -------
    delivered, kept
        Numbers of records; after one that could not be delivered in time, the others are not tried.
    """
    done, folder = 0, Path(settings.outbox)
    while box := claim(folder, signature):
        events = box.pending()
        writer = Writer(settings, box)
        if events and events[-1]["op"] not in ("end", "grid"):
            ended = max(event["time"] for event in events)
            writer.add({"op": "end", "time": ended, "status": "KILLED", "error": "killed"})
        writer.start()
        if not writer.close(seconds):
            return done, len(left(folder, signature))
        done += 1
    denied = left(folder, signature)  # by the file system: no other process has claimed them
    for path in denied:
        log.warning("%s cannot be taken over: its owner must deliver it, or let you write", path)
    return done, len(denied)


def silent(uri: str) -> bool:
    """Whether an address failed within the last minute."""
    return time.monotonic() < _silent.get(uri, 0.0)


def within(seconds: float, ask: Callable[[], T], otherwise: T, what: str) -> T:
    """The answer of MLflow, or another where it fails or takes longer; that is said.

    An address that failed is not asked again for a minute: finished cells shall not each wait.
    """
    if silent(what):
        return otherwise
    found: list[T] = []
    failure = [f"no answer within {seconds:g} s"]

    def work() -> None:
        try:
            found.append(ask())
        except Exception as error:
            failure[0] = notes.brief(error)

    thread = threading.Thread(target=work, name="rdx-mlflow-question", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        _silent[what] = time.monotonic() + RETRY_SECONDS[1]
        log.warning("MLflow at %s failed: %s", what, failure[0])
    return found[0] if found else otherwise


def _tags(signature: str, levels: Mapping[str, str], seed: int) -> dict[str, str]:
    host, pid, started = this_process()
    return {
        **{group: notes.cut(option) for group, option in levels.items()},
        "seed": str(seed),
        "rdx.kind": "trial",
        "rdx.signature": signature,
        "rdx.host": host,
        "rdx.pid": pid,
        "rdx.started": started,
        "rdx.alive": str(int(time.time())),
        **_source_tags(),
    }


def _source_tags() -> dict[str, str]:
    """Return the tags behind the UI's columns user, source and version."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = "unknown"
    tags = {"mlflow.user": user, "mlflow.source.name": "rdx"}
    commit = environment()["git"]["commit"]
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _datasets(
    config: Mapping[str, Any], levels: Mapping[str, str], facts: Mapping[str, Any]
) -> list[dict[str, str]]:
    """The dataset inputs of a trial: its training lists, and each of its test collections.

    The digest of training lists is the signature of the teacher ranking: it covers collection,
    candidates and teacher.
    """
    found = []
    if teach := facts.get("signatures", {}).get("teach"):
        given = {group: config.get(group) for group in ("data", "sampler", "teacher", "depth")}
        found.append(_dataset(levels.get("data", "data"), teach, given, {}, "training"))
    places = config.get("evaluation")
    places = places.get("collections", {}) if isinstance(places, Mapping) else {}
    for name, one in facts.get("collections", {}).items():
        if one.get("digest"):
            source = {
                "collection": places.get(name, name),
                "first_stage": one.get("first_stage"),
            }
            size = {key: one[key] for key in ("queries", "k") if key in one}
            found.append(_dataset(name, one["digest"], source, size, "evaluation"))
    return found


def _dataset(
    name: str, digest: str, source: Any, profile: dict[str, Any], context: str
) -> dict[str, str]:
    return {
        "name": name,
        "digest": str(digest),
        "source": _json(source),
        "profile": _json(profile),
        "context": context,
    }


def _now() -> int:
    return int(time.time() * 1000)


def _json(value: Any) -> str:
    """Return JSON text; numpy numbers become numbers, anything else unknown its text."""
    return json.dumps(value, indent=2, default=lambda o: o.item() if hasattr(o, "item") else str(o))
