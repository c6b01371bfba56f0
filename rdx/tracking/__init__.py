"""Record trials in the store and mirror them in MLflow. Only this package imports mlflow.

What a trial logs becomes lines of a log in the store (`rdx.tracking.log`); a thread mirrors them in
MLflow (`rdx.tracking.recorder`, `rdx.tracking.mirror`), as one parent run per grid and one child
run per trial. An MLflow that is slow, fails or is down never stops a trial: what it has not taken
by the end is completed by ``python -m rdx sync``, or by the same command. MLflow is imported when a
trial starts, so that ``tracking=none`` never loads it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from annotated_types import MinLen

from rdx.declared import WRITTEN, From0, NotNegative, Positive, settings
from rdx.facts import Audit, TrialFacts
from rdx.tracking import log as trial_logs
from rdx.tracking.environment import environment
from rdx.tracking.log import FAILED, FINISHED, GRID, KILLED, About, Log, Row, Table
from rdx.tracking.places import NoRecords, RecordError, database_file, interface, target
from rdx.tracking.signals import sigterm_raises

if TYPE_CHECKING:
    from types import ModuleType

    from rdx.tracking.fetching import Fetched
    from rdx.tracking.recorder import Record

__all__ = [
    "MLflow",
    "NoRecords",
    "NoTracking",
    "RecordError",
    "Row",
    "Tracking",
    "Trial",
    "Unrecorded",
    "environment",
    "interface",
]


class Trial(Protocol):
    """The record of a trial as the pipeline sees it. A failing MLflow makes no method raise."""

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve ``<prefix>/<name>``; mirrored in batches, later."""

    def log_result(self, folder: Path, facts: TrialFacts | Audit) -> None:
        """Record the outcome of the trial.

        Parameters
        ----------
        folder
            Of the store; its files become artifacts under their relative paths.
        facts
            Of an evaluation: its means become final values, its collections dataset inputs.
            ``<collection>/<system>/<measure>`` is shown as ``<measure>/<system>/<collection>``, by
            which the UI groups charts. Of labels: their audit, whose numbers become final values.
        """

    def set_health(self, state: str) -> None:
        """Tag the trial with a health state, such as ``ok`` or ``constant_scores``."""

    def set_tag(self, key: str, value: str) -> None:
        """Set any other tag."""


class Tracking(Protocol):
    """Where the trials of a store are recorded."""

    def trial(
        self,
        *,
        store: Path,
        signature: str,
        levels: dict[str, str],
        config: dict[str, Any],
        grid: str,
        seed: int,
        cell: str = "",
    ) -> AbstractContextManager[Trial]:
        """Record what happens inside the context."""

    def finished(self, store: Path, signature: str) -> bool:
        """Whether the record of a trial is complete."""

    def recorded(self, store: Path) -> set[str] | None:
        """Signatures of all finished trials; None if nothing is recorded at all."""

    def log_grid(
        self, store: Path, grid: str, rows: Sequence[Row], claim: str = "", measure: str = ""
    ) -> None:
        """Record the table of all cells of a grid, ranked by a measure."""

    def sync(self, store: Path) -> dict[str, int]:
        """Complete what is missing."""


class Unrecorded:
    """A trial that forgets everything."""

    def _forget(self, *_: object, **__: object) -> None:
        """Do nothing."""

    log_step = log_result = set_health = set_tag = _forget


@settings(frozen=True)
class NoTracking:
    """Record nothing."""

    def trial(self, **_: object) -> AbstractContextManager[Trial]:
        """Return a context whose trial forgets everything."""
        return nullcontext(Unrecorded())

    def finished(self, store: Path, signature: str) -> bool:
        """Return True: there is no record to complete."""
        return True

    def recorded(self, store: Path) -> None:
        """Return None: there is no record, so none lacks."""

    def log_grid(self, *_: object, **__: object) -> None:
        """Do nothing."""

    def sync(self, store: Path) -> dict[str, int]:
        """Return zeros: there is nothing to complete."""
        return {"delivered": 0, "kept": 0, "closed": 0}


@settings(frozen=True)
class MLflow:
    """Record trials in the store and mirror them in MLflow.

    Attributes
    ----------
    uri
        Tracking URI: ``sqlite:///FILE`` or the address of an MLflow server.
    experiment
        Name of the MLflow experiment, created if absent.
    artifacts
        Folder (or URI) of a new experiment's artifacts; null: where the server wants them.
    system_metrics
        Sample CPU, memory, disk and network (GPU, if nvidia-ml-py is installed) every 10 s.
    log_model
        Log the trained student as a model, which takes as much space as its weights; the best cell
        of a grid is then registered with the alias "best".
    timeout, retries
        Of one request to a server, in seconds, and how often MLflow itself repeats it.
    wait
        Seconds that a trial waits at its end for what is not delivered, and at its start for an
        answer.
    """

    uri: Annotated[str, WRITTEN] = "sqlite:///mlflow.db"
    experiment: Annotated[str, MinLen(1)] = "rdx"
    artifacts: Annotated[str | None, WRITTEN] = "mlartifacts"
    system_metrics: bool = True
    log_model: bool = False
    timeout: Positive = 20
    retries: NotNegative = 2
    wait: From0 = 30.0

    def __post_init__(self) -> None:
        """Refuse an empty address, which a variable that is not set gives."""
        if not self.uri:
            raise ValueError(
                "uri is empty: give the address of an MLflow server, tracking.uri=http://"
                "HOST:5000, or set MLFLOW_TRACKING_URI"
            )

    @property
    def target(self) -> str:
        """Name of this place in the store."""
        return target(self.uri, self.experiment)

    @contextmanager
    def trial(
        self,
        *,
        store: Path,
        signature: str,
        levels: dict[str, str],
        config: dict[str, Any],
        grid: str,
        seed: int,
        cell: str = "",
    ) -> Iterator[Trial]:
        """Record what happens inside the context as one child run.

        A run of the same signature that was killed or failed is taken up again (same run id). On
        leaving, the run is FINISHED; FAILED after an exception; KILLED after Ctrl-C or SIGTERM,
        which is raised as ``SystemExit(143)`` inside the context. If MLflow refused a part of the
        record, the run is FAILED as well, so that `finished` stays False. While another process
        records the same trial, this one waits; if that one finished it, nothing is recorded here.

        Parameters
        ----------
        store
            Folder of the store, which keeps the log.
        signature
            Of the cell, hexadecimal.
        levels
            Factor group -> chosen option; become params and tags.
        config
            The resolved configuration; becomes params (nested keys joined by dots, values cut at
            500 characters) and the artifact config.yaml.
        grid
            Name of the grid, which is the parent run; empty: no parent.
        seed
            Becomes a param, a tag and a part of the run's name.
        cell
            Equal for trials that differ in nothing but the seed; empty: it has no other seeds. Once
            two of them are finished, a run above them has mean, SD and interval.
        """
        about = About(
            signature=signature, levels=levels, config=config, grid=grid, seed=seed, cell=cell
        )
        with sigterm_raises(), ExitStack() as stack:
            record = self._record(stack, Log(store, signature), about)
            if record is None:
                yield Unrecorded()
                return
            try:
                yield record
            except BaseException as error:
                record.close(FAILED if isinstance(error, Exception) else KILLED, error)
                raise
            record.close(FINISHED)

    def _record(self, stack: ExitStack, log: Log, about: About) -> Record | None:
        """The record of a trial; None if there shall be none here. `stack` holds the log."""
        recorder = self._import("recorder")
        before = log.status
        try:
            stack.enter_context(log.lock())
            log.read()
            if log.status == FINISHED != before:
                return None
            record: Record = recorder.Record(self, log, about)
            return record
        except OSError as error:
            recorder.logger.warning("The trial is not recorded: %s", error)
            return None

    def finished(self, store: Path, signature: str) -> bool:
        """Return whether the store has the log of a finished trial, as MLflow took it.

        What MLflow has not got of it yet is written first, unless it fails.
        """
        log = Log(store, signature)
        if log.status != FINISHED or log.position(self.target).lost:
            return False
        if self.absent or log.waiting(self.target):
            self._complete(log)
        return True

    def recorded(self, store: Path) -> set[str]:
        """Return the signatures of all FINISHED trials of a store that MLflow got; it is not asked.

        An SQLite file that is not there has none.
        """
        return set() if self.absent else trial_logs.recorded(store, self.target)

    def log_grid(
        self, store: Path, grid: str, rows: Sequence[Row], claim: str = "", measure: str = ""
    ) -> None:
        """Write the table of all cells of a grid to its run, with its score and description.

        Called before the grid, it names the trials that follow; called again after it, it replaces
        what it wrote. A trial is a child of the grid that computed it first; table, links and the
        tag `rdx.in.GRID` have the others too. On a store that cannot be written: nothing.

        Parameters
        ----------
        store
            Folder of the store, which keeps the table.
        grid
            Name of the grid.
        rows
            One per cell.
        claim
            What the grid shall show, for its description.
        measure
            What its cells are ranked by, as in "nDCG@10"; the best of them is tagged. Empty: none.
        """
        recorder = self._import("recorder")
        tags = recorder.source_tags()
        table = Table(
            time=trial_logs.now(),
            grid=grid,
            claim=claim,
            rows=tuple(rows),
            tags=tags,
            measure=measure,
        )
        log = Log(store, f"{GRID}{grid}")
        try:
            with log.free(self.wait) as free:
                if free:
                    recorder.log_table(self, log, table)
        except OSError as error:
            recorder.logger.warning("The grid is not recorded: %s", error)

    def sync(self, store: Path) -> dict[str, int]:
        """Write to MLflow all of a store's trials and grids that it lacks; close dead trials.

        What was there and is not any more, as in a database that was removed, is written again.

        Returns
        -------
        dict
            Numbers of records "delivered" and "kept" (MLflow fails still), of trials "closed".
        """
        counts: dict[str, int] = self._import("recorder").sync(self, store)
        return counts

    @property
    def absent(self) -> bool:
        """Whether this is a local database that is not there."""
        path = database_file(self.uri)
        return path is not None and not path.exists()

    def _complete(self, log: Log) -> None:
        """Mirror the rest of a log, unless MLflow failed of late or somebody else does it."""
        recorder = self._import("recorder")
        if recorder.silent(self.uri):
            return
        try:
            with log.free() as free:
                if free:
                    if self.absent:
                        log.move(self.target, trial_logs.Position())
                    recorder.complete(self, log, self.wait)
        except OSError as error:
            recorder.logger.warning("%s is not in MLflow at %s: %s", log.folder, self.uri, error)

    def fetch(
        self,
        signatures: Collection[str],
        scratch: Path,
        imported: Iterable[str] = (),
        stored: Collection[str] = (),
    ) -> dict[str, Fetched]:
        """The files of the newest FINISHED trial of each signature; those without one are absent.

        Parameters
        ----------
        scratch
            Folder into which files on other machines are downloaded.
        imported
            Names of imported runs to fetch too; the newest of each name.
        stored
            Signatures of trials whose files are at hand: only their runs are looked up.

        Raises
        ------
        NoRecords
            If there is no MLflow store at `uri`, or no such experiment in it.
        RecordError
            If a trial lacks its files, or the database cannot be read.
        """
        fetching = self._import("fetching")
        fetched: dict[str, Fetched] = fetching.fetch(
            self.uri, self.experiment, signatures, scratch, imported, stored
        )
        return fetched

    def log_report(self, spec: str, paths: Iterable[Path], grid: str = "") -> str:
        """Log files to the parent run of a grid, under ``analysis/``.

        Parameters
        ----------
        spec
            Without `grid`, the newest grid of this experiment.
        grid
            Id of the grid.

        Returns
        -------
        str
            Id of that run; "" if there is none, which is no error: single cells have no parent.
        """
        fetching = self._import("fetching")
        return str(fetching.log_report(self.uri, self.experiment, spec, paths, grid))

    def _import(self, module: str) -> ModuleType:
        """Import a part that needs mlflow, with its calls home and its chatter switched off."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        # MLflow's own limits would be minutes: 7 retries of 120 s.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(self.retries)
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(self.timeout)
        return importlib.import_module(f"rdx.tracking.{module}")
