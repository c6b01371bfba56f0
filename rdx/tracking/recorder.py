"""Record running trials: write their logs, and mirror these in MLflow by a thread.

The trial itself never waits for MLflow, but for a bounded time at its end.
"""

from __future__ import annotations

import getpass
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from rdx.facts import Audit, TrialFacts, numbers
from rdx.store.locks import LEASE
from rdx.tracking import notes
from rdx.tracking.database import address, final, run_ids
from rdx.tracking.environment import environment, uncommitted
from rdx.tracking.log import (
    FINISHED,
    KILLED,
    About,
    End,
    Entry,
    Input,
    Log,
    Points,
    Position,
    Result,
    Start,
    Table,
    Tags,
    dead,
    logs,
    now,
)
from rdx.tracking.mirror import Mirror

if TYPE_CHECKING:
    from rdx.tracking import MLflow

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 5.0  # points of curves are gathered for as long
RETRY_SECONDS = (1.0, 60.0)  # after a failure; doubled from the first to the last
T = TypeVar("T")
_silent: dict[str, float] = {}  # until when a URI that failed is not asked again (monotonic time)


class Writer:
    """Mirrors a log in a thread of its own, and tries again for as long as it lives."""

    def __init__(self, settings: MLflow, log: Log, live: bool = False) -> None:
        self.settings, self.log = settings, log
        self.mirror = Mirror(settings, log)
        self.failure = ""  # of the last attempt
        self._live, self._monitored = live, live and settings.system_metrics
        self._monitor: SystemMetricsMonitor | None = None
        self._closing, self._given_up, self._warned = False, False, False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rdx-mlflow", daemon=True)

    def start(self) -> Writer:
        """Begin to write."""
        self._thread.start()
        return self

    def add(self, entry: Entry) -> None:
        """Keep a line in the log and mirror it soon."""
        try:
            self.log.append(entry)
        except OSError as error:
            self._warn(f"{self.log.folder} cannot be written: {error}")
        if not isinstance(entry, Points):
            self._wake.set()

    def close(self, seconds: float) -> bool:
        """Write what is left, for at most so many seconds; returns whether all is there."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        self._given_up = self.mirror.closed = True
        if self._thread.is_alive():
            self.failure = self.failure or f"no answer within {seconds:g} s"
        done = not self.failure and not self.mirror.pending()
        if not done:
            _silent[self.settings.uri] = time.monotonic() + RETRY_SECONDS[1]
            self._warn(self.failure)
        return done

    def _work(self) -> None:
        delay, (least, most) = 0.0, RETRY_SECONDS
        while not self._given_up:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            last = self._closing  # read before writing, so that nothing added later is missed
            try:
                self._deliver()
                self._close_dead()
                delay, self.failure = 0.0, ""
            except Exception as error:  # MLflow's, the network's, the disk's: all are to be tried
                self.failure = notes.brief(error)
                self._warn(self.failure)
                delay = min(max(2 * delay, least), most)
                if not last:
                    self._pause(delay)
                    self._wake.set()
            if last:
                return

    def _pause(self, seconds: float) -> None:
        """Wait, unless the trial ends: new lines alone do not make a dead server answer."""
        until = time.monotonic() + seconds
        while not self._closing and (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, 0.1))

    def _deliver(self) -> None:
        while (entries := self.mirror.pending()) and not self._given_up:
            if isinstance(entries[0], End):
                self._stop_monitor()
            try:
                self.mirror.deliver(entries)
            except Exception as error:
                if final(error):
                    self.mirror.require_experiment()  # of one that was deleted, nothing is lost
                if isinstance(entries[0], Start | End | Table) or not final(error):
                    raise
                self.mirror.refused(notes.brief(error))
                self._warn(notes.brief(error))
            if self._monitored and isinstance(entries[0], Start):
                self._start_monitor()

    def _close_dead(self) -> None:
        """Close the trials of processes that are gone, once in the life of a writer."""
        if self._live:
            self._live = False
            close_dead(self.settings, self.log.store)

    def _start_monitor(self) -> None:
        if self._monitor is None:
            self._monitor = SystemMetricsMonitor(
                self.mirror.run_id,
                resume_logging=self.mirror.resumed,
                tracking_uri=address(self.settings.uri),
            )
            self._monitor.start()

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def _warn(self, cause: str) -> None:
        if not self._warned:
            logger.warning(
                "MLflow at %s failed (%s). The trial goes on; its log is kept in %s: "
                "`python -m rdx sync` or the same command completes the record later.",
                *(self.settings.uri, cause, self.log.folder),
            )
        self._warned = True


class Record:
    """The `rdx.tracking.Trial` of `rdx.tracking.MLflow`; its caller holds the log."""

    def __init__(self, settings: MLflow, log: Log, about: About) -> None:
        self._settings, self._about = settings, about
        self._log, self._health = log, ""
        first = log.entries[0] if log.entries else None
        goes_on = isinstance(first, Start) and log.status != FINISHED
        token = first.token if isinstance(first, Start) and goes_on else uuid.uuid4().hex[:16]
        start = Start(**vars(about), time=now(), token=token, tags=source_tags())
        log.attach("environment.json", _json(environment(about.config)))
        log.attach("uncommitted.diff", uncommitted())
        log.append(start) if goes_on else log.restart(start)
        self._writer = Writer(settings, log, live=True).start()

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Keep one point of each curve; see `rdx.tracking.Trial`."""
        named = {f"{prefix}/{name}": float(value) for name, value in metrics.items()}
        self._writer.add(Points(time=now(), step=step, values=named))

    def log_result(self, folder: Path, facts: TrialFacts | Audit) -> None:
        """Keep final metrics, artifacts and dataset inputs; see `rdx.tracking.Trial`."""
        signatures: dict[str, str] = {}
        inputs: list[Input] = []
        metrics: dict[str, float]
        match facts:
            case TrialFacts():
                signatures, metrics = facts.signatures, facts.means
                for name, setting in facts.collections.items():
                    size = {"queries": setting.queries, "k": setting.k}
                    inputs.append(self._test(name, setting.digest, setting.first_stage, size))
            case Audit():
                metrics = numbers(facts)
        self._writer.add(
            Result(
                time=now(),
                folder=self._place(folder),
                metrics={name: float(value) for name, value in metrics.items()},
                inputs=(*self._training(signatures), *inputs),
                health="" if isinstance(facts, Audit) else self._health,
                checkpoint=self._checkpoint(signatures),
            )
        )

    def set_health(self, state: str) -> None:
        """Tag the run; see `rdx.tracking.Trial`."""
        self._health = state
        self.set_tag("rdx.health", state)

    def set_tag(self, key: str, value: str) -> None:
        """Tag the run; see `rdx.tracking.Trial`."""
        self._writer.add(Tags(values={key: value}))

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End the run with an MLflow status, its parent as FINISHED."""
        cause = notes.brief(error) if error else ""
        self._writer.add(End(time=now(), status=status, error=cause))
        self._writer.close(self._settings.wait)

    def _place(self, folder: Path) -> str:
        """A folder as seen from the store, if it is inside: a store may be moved."""
        whole, store = folder.resolve(), self._log.store.resolve()
        return str(whole.relative_to(store) if whole.is_relative_to(store) else whole)

    def _checkpoint(self, signatures: Mapping[str, str]) -> str:
        """Folder of the trained student; "" for trials that train nothing."""
        stage = "distill" if self._about.config.get("loss") else "prefinetune"
        return f"{stage}/{signatures[stage]}" if stage in signatures else ""

    def _training(self, signatures: Mapping[str, str]) -> list[Input]:
        """The training lists: the teacher ranking's signature covers all that decides them."""
        if "teach" not in signatures:
            return []
        source = {group: self._about.config.get(group) for group in _DECIDE_LABELS}
        name = self._about.levels.get("data", "data")
        return [_input(name, signatures["teach"], source, {}, "training")]

    def _test(self, name: str, digest: str, first_stage: Any, size: dict[str, int]) -> Input:
        places = self._about.config.get("evaluation")
        places = places.get("collections", {}) if isinstance(places, Mapping) else {}
        source = {"collection": places.get(name, name), "first_stage": first_stage}
        return _input(name, digest, source, size, "evaluation")


_DECIDE_LABELS = ("data", "sampler", "teacher", "depth")


def log_table(settings: MLflow, log: Log, table: Table) -> None:
    """Log the table of a grid; see `rdx.tracking.MLflow.log_grid`."""
    log.restart(table, keep_runs=True)
    Writer(settings, log, live=True).start().close(settings.wait)


def complete(settings: MLflow, log: Log, seconds: float) -> bool:
    """Mirror the rest of a log that this process holds; returns whether all is there.

    A trial without an end is that of a killed process, and ends as KILLED.
    """
    if not log.status:
        ended = max((getattr(entry, "time", 0) for entry in log.entries), default=now())
        log.append(End(time=ended, status=KILLED, error="killed"))
    return Writer(settings, log).start().close(seconds)


def close_dead(settings: MLflow, store: Path) -> None:
    """Close the trials of processes that are gone from this machine; the thread of a trial asks."""
    for log in dead(store):
        with log.free(0) as free:
            if free and log.entries and not log.status:
                complete(settings, log, settings.wait)


def sync(settings: MLflow, store: Path) -> dict[str, int]:
    """Complete the mirror; see `rdx.tracking.MLflow.sync`."""
    all_logs = logs(store)
    counts = {"delivered": 0, "kept": 0, "closed": 0}
    if not all_logs:
        return counts
    mirrored: set[str] | None = set()
    if not settings.absent:  # to look makes no database
        mirrored = within(
            4 * settings.wait, lambda: run_ids(settings.uri, settings.experiment), settings.uri
        )
    answers = mirrored is not None
    written: set[str] = set()  # trials; the page of their grid, which comes after them, names them
    for log in all_logs:
        vanished = mirrored is not None and log.position(settings.target).run_id not in {
            "",
            *mirrored,
        }
        outdated = log.table is not None and any(row.signature in written for row in log.table.rows)
        if not (vanished or outdated or log.waiting(settings.target)):
            continue
        if not answers:
            counts["kept"] += 1
            continue
        try:
            with log.free(2 * LEASE if log.silent() else 0.5) as free:
                if not free:
                    continue  # it runs
                if vanished or outdated:
                    kept = "" if vanished else log.position(settings.target).run_id
                    log.move(settings.target, Position(run_id=kept))
                counts["closed"] += not log.status
                answers = complete(settings, log, 4 * settings.wait)
                counts["delivered" if answers else "kept"] += 1
                written |= {log.name} if answers else set()
        except OSError as error:
            logger.warning("%s: its owner must sync it: %s", log.folder, error)
            counts["kept"] += 1
    return counts


def silent(uri: str) -> bool:
    """Whether an address failed within the last minute."""
    return time.monotonic() < _silent.get(uri, 0.0)


def within(seconds: float, ask: Callable[[], T], what: str) -> T | None:
    """Ask MLflow; None, with a warning, if it fails or takes longer."""
    answers: list[T] = []
    failure = [f"no answer within {seconds:g} s"]

    def work() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            failure[0] = notes.brief(error)

    thread = threading.Thread(target=work, name="rdx-mlflow-question", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        _silent[what] = time.monotonic() + RETRY_SECONDS[1]
        logger.warning("MLflow at %s failed: %s", what, failure[0])
    return answers[0] if answers else None


def source_tags() -> dict[str, str]:
    """Return the tags behind the UI's columns user, source and version."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = "unknown"
    tags = {"mlflow.user": user, "mlflow.source.name": "rdx"}
    commit = environment()["git"]["commit"]
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _input(name: str, digest: str, source: Any, profile: dict[str, Any], context: str) -> Input:
    return Input(
        name=name,
        digest=str(digest),
        source=_json(source),
        profile=_json(profile),
        context=context,
    )


def _json(value: Any) -> str:
    """Return JSON text; numpy numbers become numbers, anything else unknown its text."""
    return json.dumps(value, indent=2, default=lambda o: o.item() if hasattr(o, "item") else str(o))
