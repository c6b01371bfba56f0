"""Where trials are recorded: MLflow, or nowhere. The only place of rdx that imports mlflow.

One parent run per grid, one child run per trial. What is recorded goes into a local outbox
(`rdx.tracking.outbox`) and from there to MLflow, in a thread (`rdx.tracking.record`): a tracking
store that is slow, fails or is down never stops a trial. What it has not taken by the end stays in
the outbox, for ``python -m rdx sync`` or for the same command. MLflow is imported when a trial
starts, so that ``tracking=none`` never loads it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from annotated_types import MinLen

from rdx.declared import WRITTEN, From0, NotNegative, Positive, settings
from rdx.tracking.environment import environment
from rdx.tracking.lookup import recorded_in_sqlite

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MLflow", "NoTracking", "Trial", "environment"]


class Trial(Protocol):
    """What the pipeline sees of a trial's record. A failing store makes no method raise."""

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve ``<prefix>/<name>``; written in batches, later."""

    def log_result(self, folder: Path, facts: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Record the outcome of the trial.

        Parameters
        ----------
        folder
            Its files become artifacts under their relative paths (per_query.parquet, runs/...).
        facts
            Written as trial.json; ``facts["collections"]`` (name -> {"digest", ...}) become the
            dataset inputs of the run.
        metrics
            Final values by name; ``<collection>/<system>/<measure>`` of the facts' collections
            becomes ``<measure>/<system>/<collection>``, by which the UI groups charts.
        """

    def set_health(self, state: str) -> None:
        """Tag the trial with a health state, such as ``ok`` or ``constant_scores``."""

    def set_tag(self, key: str, value: str) -> None:
        """Set any other tag."""


@settings(frozen=True)
class NoTracking:
    """Record nothing."""

    def trial(
        self,
        *,
        signature: str,
        levels: dict[str, str],
        config: dict[str, Any],
        grid: str,
        seed: int,
    ) -> AbstractContextManager[Trial]:
        """Return a context whose trial forgets everything."""
        return nullcontext(_Unrecorded())

    def finished(self, signature: str) -> bool:
        """Return True: there is no record to complete."""
        return True

    def recorded(self) -> None:
        """Return None: there is no record, so none lacks."""

    def log_grid(self, grid: str, cells: list[dict[str, Any]], claim: str = "") -> None:
        """Do nothing."""

    def sync(self) -> dict[str, int]:
        """Return zeros: there is nothing to deliver."""
        return {"delivered": 0, "kept": 0, "closed": 0}


class _Unrecorded:
    """The trial of `NoTracking`."""

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def log_result(self, folder: Path, facts: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def set_health(self, state: str) -> None:
        """Do nothing."""

    def set_tag(self, key: str, value: str) -> None:
        """Do nothing."""


@settings(frozen=True)
class MLflow:
    """Record trials in MLflow.

    Attributes
    ----------
    uri
        Tracking URI: ``sqlite:///FILE`` or the address of an MLflow server.
    experiment
        Name of the MLflow experiment, created if absent.
    artifacts
        Folder (or URI) of a new experiment's artifacts; empty: where the server wants them.
    system_metrics
        Sample CPU, memory, disk and network (GPU, if nvidia-ml-py is installed) every 10 s.
    log_model
        Log the trained student as a model, which takes as much space as its weights; the best cell
        of a grid is then registered with the alias "best".
    outbox
        Folder of what is not delivered yet.
    timeout, retries
        Of one request to a server, in seconds, and how often MLflow itself repeats it.
    wait
        Seconds that a trial waits at its end for what is not delivered, and at its start for an
        answer.
    """

    uri: Annotated[str, WRITTEN] = "sqlite:///mlflow.db"
    experiment: Annotated[str, MinLen(1)] = "rdx"
    artifacts: Annotated[str, WRITTEN] = "mlartifacts"
    system_metrics: bool = True
    log_model: bool = False
    outbox: Annotated[str, WRITTEN] = "outbox"
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

    @contextmanager
    def trial(
        self,
        *,
        signature: str,
        levels: dict[str, str],
        config: dict[str, Any],
        grid: str,
        seed: int,
    ) -> Iterator[Trial]:
        """Record what happens inside the context as one child run.

        A run of the same signature that was killed or failed is taken up again (same run id). On
        leaving, the run is FINISHED; FAILED after an exception; KILLED after Ctrl-C or SIGTERM,
        which is raised as ``SystemExit(143)`` inside the context. If MLflow refused a part of the
        record, the run is FAILED as well, so that `finished` stays False.

        Parameters
        ----------
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
        """
        with _sigterm_raises():
            record = self._recording().Record(
                self, signature=signature, levels=levels, config=config, grid=grid, seed=seed
            )
            try:
                yield record
            except BaseException as error:
                record.close("FAILED" if isinstance(error, Exception) else "KILLED", error)
                raise
            record.close("FINISHED")

    def finished(self, signature: str) -> bool:
        """Return whether a FINISHED run of this signature exists; False if MLflow fails.

        What the outbox holds of it is delivered first.
        """
        recording = self._recording()

        def ask() -> bool:
            from rdx.tracking import runs

            return runs.finished(self.uri, self.experiment, signature)

        if not recording.silent(self.uri):
            recording.deliver(self, signature, self.wait)
        return bool(recording.within(self.wait, ask, False, self.uri))

    def recorded(self) -> set[str]:
        """Return the signatures of all FINISHED trials, in one look; none if MLflow fails.

        Nothing is written: an SQLite file that is not there is not created.
        """
        local = recorded_in_sqlite(self.uri, self.experiment)
        if local is not None:
            return local
        recording = self._recording()

        def ask() -> set[str]:
            from rdx.tracking import runs

            return runs.recorded(self.uri, self.experiment)

        found: set[str] = recording.within(4 * self.wait, ask, set(), self.uri)
        return found

    def log_grid(self, grid: str, cells: list[dict[str, Any]], claim: str = "") -> None:
        """Write the table of all cells of a grid to its parent run, and the description of it.

        A trial is a child of the grid that computed it first; the table also names those cells
        that an earlier grid computed. The grid's own children are named by what tells them apart,
        and the best is tagged. Called before the grid and after it, it replaces what it wrote.

        Parameters
        ----------
        grid
            Name of the grid.
        cells
            One row per cell, all of the same keys, among them "signature"; "overrides", "state",
            "health" and "means" are shown if they are there.
        claim
            What the grid shall show, for its description.
        """
        self._recording().log_grid(self, grid, cells, claim)

    def sync(self) -> dict[str, int]:
        """Deliver all that is left in the outbox, and close the runs of dead processes.

        Returns
        -------
        dict
            Numbers of records "delivered" and "kept" (MLflow fails still), of runs "closed".
        """
        recording = self._recording()
        delivered, kept = recording.deliver(self, "", 4 * self.wait)

        def close() -> int:
            from rdx.tracking import runs

            return len(runs.close_dead(self.uri, self.experiment))

        closed = recording.within(self.wait, close, 0, self.uri)
        return {"delivered": delivered, "kept": kept, "closed": closed}

    def _recording(self) -> ModuleType:
        """Import the part that needs mlflow, with its calls home and its chatter switched off."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        # MLflow's own limits would be minutes: 7 retries of 120 s.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(self.retries)
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(self.timeout)
        from rdx.tracking import record

        return record


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into ``SystemExit(143)``, unless somebody else handles it already."""
    owner = os.getpid()

    def raise_exit(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a forked worker inherits the handler, not the record
            os._exit(143)
        raise SystemExit(143)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, raise_exit)
    except ValueError:  # not in the main thread
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
