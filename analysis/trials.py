"""Spec -> cells -> finished trials -> one tidy per-query frame.

A trial is found by the signature of its cell and by nothing else: renaming an experiment or
running its cells on another machine does not hide them. Copies in a folder come first, then the
cell's own store; MLflow is asked for what neither has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pandas as pd

from analysis import stored
from analysis.stored import PER_QUERY, NoTrialsError, Trial, TrialError
from rdx import tracking
from rdx.facts import TrialFacts

if TYPE_CHECKING:
    from analysis.sources import Source
    from rdx.config import Cell
    from rdx.tracking.fetching import Fetched

TRACKING_URI = "sqlite:///mlflow.db"
COLUMNS = ("grid", "signature", "seed", *PER_QUERY)


@dataclass(frozen=True)
class Trials:
    """The trials of one spec.

    Attributes
    ----------
    frame : DataFrame
        One row per trial, collection, system, query and measure; columns `COLUMNS`. A trial that
        stands in two sub-grids is there twice, once per grid.
    cells : tuple of Cell
        Every cell of the spec, in its order, missing ones included.
    missing : tuple of Cell
        The cells without a finished trial.
    facts : dict
        signature -> what the trial says of itself.
    runs : dict
        signature -> MLflow run id, so that a number can be traced to its run; a trial that was
        read from a folder has none.
    left_out : tuple of (Cell, str)
        Cells of the spec that are impossible, with the reason.
    commits : dict
        signature -> git commit of the code that ran the trial; absent if not recorded.
    pages : dict
        signature -> address of its run's page in MLflow.
    interface : str
        The command that must run for these addresses to answer; "" of a tracking server.
    """

    frame: pd.DataFrame
    cells: tuple[Cell, ...]
    missing: tuple[Cell, ...]
    facts: dict[str, TrialFacts]
    runs: dict[str, str]
    left_out: tuple[tuple[Cell, str], ...] = ()
    commits: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    interface: str = ""


def load(source: Source, tracking_uri: str = TRACKING_URI, folder: Path | None = None) -> Trials:
    """Trials of a source, and the imported runs that its spec shows; see `collect`."""
    imported = [name for row in source.spec.rows for name in (row.imported, *row.imports) if name]
    wanted = (source.cells, tracking_uri, imported, folder)
    try:
        trials = collect(*wanted)
    except NoTrialsError:
        if source.elsewhere is None:
            raise
    else:
        if source.elsewhere is None or not trials.missing:
            return replace(trials, left_out=source.left_out)
    return replace(collect(*wanted, source.elsewhere()), left_out=source.left_out)


def collect(
    cells: Sequence[Cell],
    tracking_uri: str = TRACKING_URI,
    imported: Iterable[str] = (),
    folder: Path | None = None,
    elsewhere: Sequence[Sequence[Cell]] = (),
) -> Trials:
    """Trials of the given cells.

    Parameters
    ----------
    cells : sequence of Cell
        What to look for.
    tracking_uri : str
        Where MLflow keeps its runs; of several finished ones of a signature, the newest.
    imported : iterable of str
        Names of imported runs to look for; one that is not there is just absent.
    folder : Path, optional
        Holds copies of trials anywhere below it: a ``trial.json`` with its ``per_query.parquet``
        beside it, as MLflow's artifacts are. Those are taken before all others; of two with one
        signature, the last path's.
    elsewhere : sequence of sequences of Cell, optional
        For each cell, what it is on machines that choose another precision; the first that has a
        trial stands for a cell that has none.

    Raises
    ------
    NoTrialsError
        If there is no trial anywhere, and nothing has been tracked there yet.
    TrialError
        If a finished trial lacks its files or they are not what they should be.
    """
    # The same cell may be listed twice in one sub-grid; in two sub-grids it counts in both.
    unique: dict[tuple[str, str], tuple[Cell, ...]] = {}
    unique |= {(cell.grid, cell.signature): (cell,) for cell in cells}
    for cell, alike in zip(cells, elsewhere, strict=False):
        unique[cell.grid, cell.signature] = (cell, *alike)
    every = [cell for alike in unique.values() for cell in alike]
    signatures, names = {cell.signature for cell in every}, set(imported)
    trials: dict[str, Trial] = {}
    if folder is not None:
        trials = {t.facts.signature: t for t in stored.in_folder(folder, signatures, names)}
    copied = set(trials)
    rest = {cell.signature: cell for cell in every if cell.signature not in trials}
    trials |= {t.facts.signature: t for t in stored.in_stores(rest.values())}
    names -= {trial.imported for trial in trials.values()}
    with TemporaryDirectory() as scratch:
        records = _records(
            tracking_uri,
            (signatures - trials.keys(), Path(scratch), names, trials.keys() - copied),
            needed=folder is None and not trials,
        )
        for signature, record in records.items():
            if record.folder is not None:
                label = f"trial {signature[:12]} (MLflow run {record.run_id})"
                trials[signature] = stored.read(record.folder, label, signature)
    chosen = tuple(
        next((cell for cell in alike if cell.signature in trials), alike[0])
        for alike in unique.values()
    )
    for unused in signatures - {cell.signature for cell in chosen}:
        trials.pop(unused, None)
        records.pop(unused, None)
    parts = [(c.grid, trials[c.signature]) for c in chosen if c.signature in trials]
    parts += [("", trial) for trial in trials.values() if trial.imported]
    return Trials(
        frame=_frame(parts),
        cells=chosen,
        missing=tuple(cell for cell in chosen if cell.signature not in trials),
        facts={signature: trial.facts for signature, trial in trials.items()},
        runs={signature: record.run_id for signature, record in records.items()},
        commits={key: record.commit for key, record in records.items() if record.commit},
        pages={key: record.page for key, record in records.items()},
        interface=tracking.interface(tracking_uri),
    )


def imported_as(trials: Trials, name: str) -> tuple[str, ...]:
    """Signatures of the run that was imported under a name: one, or none if it is not there."""
    return tuple(
        signature
        for signature, trial in trials.facts.items()
        if trial.imported and trial.imported.name == name
    )


def log_report(
    spec_name: str, paths: Iterable[Path], tracking_uri: str = TRACKING_URI, grid: str = ""
) -> str:
    """Log files to a grid's parent run, without its id to a spec's newest; see `rdx.tracking`."""
    return tracking.MLflow(tracking_uri).log_report(spec_name, paths, grid)


def _records(
    tracking_uri: str, wanted: tuple[set[str], Path, set[str], set[str]], *, needed: bool
) -> dict[str, Fetched]:
    """The trials' runs in MLflow; none if nothing was tracked, an error if one is needed."""
    try:
        return tracking.MLflow(tracking_uri).fetch(*wanted)
    except tracking.NoRecords as error:
        if needed:
            raise NoTrialsError(str(error)) from error
        return {}
    except tracking.RecordError as error:
        raise TrialError(str(error)) from error


def _frame(trials: Sequence[tuple[str, Trial]]) -> pd.DataFrame:
    """The tidy frame of trials with their sub-grids."""
    parts = [
        trial.scores.assign(grid=grid, signature=trial.facts.signature, seed=trial.facts.seed)
        for grid, trial in trials
    ]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]
