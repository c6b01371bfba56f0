"""Where trials are recorded: MLflow, or nowhere. The only place of rdx that imports mlflow.

One parent run per grid, one child run per trial. MLflow lives in `rdx.tracking.runs`, which is
imported when a trial starts, so that ``tracking=none`` never loads it. A tracking store that
fails never stops a trial: the results are in rdx's own store; the trial warns once and goes on,
and the next command that finds it not `finished` completes the record.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rdx.tracking.environment import environment
from rdx.tracking.lookup import recorded_in_sqlite

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MLflow", "NoTracking", "Trial", "environment"]


class Trial(Protocol):
    """What the pipeline sees of a trial's record. A failing store makes no method raise."""

    def log_step(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve ``<prefix>/<name>``; buffered, written in batches."""

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
            Final values by name, ``<collection>/<system>/<measure>``.
        """

    def set_health(self, state: str) -> None:
        """Tag the trial with a health state, such as ``ok`` or ``constant_scores``."""

    def set_tag(self, key: str, value: str) -> None:
        """Set any other tag."""


@dataclass(frozen=True)
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

    def log_grid(self, grid: str, cells: list[dict[str, Any]]) -> None:
        """Do nothing."""


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


@dataclass(frozen=True)
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
    """

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "rdx"
    artifacts: str = "mlartifacts"
    system_metrics: bool = True

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
        which is raised as ``SystemExit(143)`` inside the context. If a part of the record could
        not be written, the run is FAILED as well, so that `finished` stays False.

        Parameters
        ----------
        signature
            Of the cell, hexadecimal.
        levels
            Factor group -> chosen option; become params.
        config
            The resolved configuration; becomes params (nested keys joined by dots, values cut at
            500 characters) and the artifact config.yaml.
        grid
            Name of the grid, which is the parent run; empty: no parent.
        seed
            Becomes a param and a part of the run's name.
        """
        with _sigterm_raises():
            record = _runs().Record(self.uri)
            try:
                record.open(
                    experiment=self.experiment,
                    artifacts=self.artifacts,
                    signature=signature,
                    levels=levels,
                    config=config,
                    grid=grid,
                    seed=seed,
                    system_metrics=self.system_metrics,
                )
                yield record
                record.close("FINISHED")
            except BaseException as error:
                record.close("FAILED" if isinstance(error, Exception) else "KILLED", error)
                raise

    def finished(self, signature: str) -> bool:
        """Return whether a FINISHED run of this signature exists; False if MLflow fails."""
        return bool(_runs().finished(self.uri, self.experiment, signature))

    def recorded(self) -> set[str]:
        """Return the signatures of all FINISHED trials, in one look; none if MLflow fails.

        Nothing is written: an SQLite file that is not there is not created.
        """
        local = recorded_in_sqlite(self.uri, self.experiment)
        return _runs().recorded(self.uri, self.experiment) if local is None else local

    def log_grid(self, grid: str, cells: list[dict[str, Any]]) -> None:
        """Write the table of all cells of a grid, cells.json, to its parent run.

        A trial is a child of the grid that computed it first; the table also names those cells
        that an earlier grid computed.

        Parameters
        ----------
        grid
            Name of the grid.
        cells
            One row per cell, all of the same keys, among them "signature".
        """
        _runs().log_grid(self.uri, self.experiment, self.artifacts, grid, cells)


def _runs() -> ModuleType:
    """Import the part that needs mlflow, with its calls home and long retries switched off."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A dead server shall cost seconds, not the minutes of MLflow's defaults (7 retries, 120 s).
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from rdx.tracking import runs

    return runs


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
