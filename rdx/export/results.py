"""Publish what the trials of a grid measured, and take published trials into a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rdx import stages
from rdx.artifacts import PER_QUERY, TRIAL, Evaluated
from rdx.config import Cell
from rdx.export.cells import ExportError
from rdx.export.folder import whole
from rdx.facts import Grid, GridCell, Made, Manifest, Published, PublishedTrial, TrialFacts
from rdx.grids import key_of
from rdx.holdings import IMPORT
from rdx.job import Parts
from rdx.public import settings
from rdx.rankings import read_parquet
from rdx.stages import DISTILL, EVALUATE, LAST, PREFINETUNE, Signatures
from rdx.store import MANIFEST, Store, damage, published, read, results
from rdx.store.grids import all_grids, read_grid
from rdx.text import counted

EXPERIMENT = "+experiments="
PRECISIONS = (None, "bf16", "fp32")  # this machine's, and what "auto" becomes elsewhere
TIMED = (PREFINETUNE.name, DISTILL.name, EVALUATE.name)
KEY = ["collection", "system", "query_id", "measure"]


def export_results(root: Path, name: str, out: Path) -> tuple[Published, int]:
    """Write the results of a grid's finished cells to a new folder.

    With them those of imported systems on the same collections, which its tables may show.

    Parameters
    ----------
    root
        The store.
    name
        Id of the grid, the beginning of one, or its experiment, whose newest grid is taken.

    Returns
    -------
    (Published, int)
        What was written, and how many cells of the grid are not finished.

    Raises
    ------
    ExportError
        If no cell is finished, a result is damaged, or the folder is not empty.
    """
    grid = _grid(root, name)
    with whole(out, like=published.RESULTS) as folder:
        cells = list({cell.overrides: cell for cell in grid.cells}.values())
        finished = [cell for cell in cells if (root / LAST.stage / cell.signature).is_dir()]
        if not finished:
            raise ExportError(
                f"grid {grid.grid}: none of its {counted(len(cells), 'cell')} is finished"
            )
        trials: list[PublishedTrial] = []
        tables: list[pd.DataFrame] = []
        axes = _axes(finished)
        for cell in finished:
            trial, table = _trial(root, cell)
            levels = dict(map(_split, cell.overrides))
            coordinates = {axis: levels.get(axis, "") for axis in axes}
            if cell.signature not in {own.facts.signature for own in trials}:
                tables.append(_scored(table, trial.facts, coordinates))
            trials.append(trial)
        tested = {name for trial in trials for name in trial.facts.collections}
        for facts, table in _imported(root, tested):
            trials.append(PublishedTrial(facts=facts))
            tables.append(_scored(table, facts, dict.fromkeys(axes, "")))
        record = Published(grid=grid.grid, arguments=grid.arguments, trials=tuple(trials))
        published.write(folder, record, pd.concat(tables, ignore_index=True))
    return record, len(cells) - len(finished)


def _grid(root: Path, name: str) -> Grid:
    """The grid of an id, or the newest of an experiment."""
    of_experiment = [g for g in all_grids(root)[0] if f"{EXPERIMENT}{name}" in g.arguments]
    if of_experiment:
        return max(of_experiment, key=lambda grid: grid.launched)
    return read_grid(root, name)


def _split(override: str) -> tuple[str, str]:
    return key_of(override), override.partition("=")[2]


def _axes(cells: Sequence[GridCell]) -> list[str]:
    """Keys of the command lines that differ between cells, the seed apart."""
    lines = [dict(map(_split, cell.overrides)) for cell in cells]
    keys = dict.fromkeys(key for line in lines for key in line if key != "seed")
    return [key for key in keys if len({line.get(key) for line in lines}) > 1]


def _trial(root: Path, cell: GridCell) -> tuple[PublishedTrial, pd.DataFrame]:
    folder = root / LAST.stage / cell.signature
    if problem := damage(folder):
        raise ExportError(f"{folder} is damaged: {problem}; run the cell's command again")
    evaluated = Evaluated(folder)
    if (trial := published.taken(folder)) is not None:
        return replace(trial, overrides=cell.overrides), evaluated.per_query
    facts = evaluated.facts
    places = {
        stage: root / stage / key for stage, key in facts.signatures.items() if stage in TIMED
    }
    made = {}
    for stage, place in places.items():
        if (place / MANIFEST).is_file():
            manifest = read(Manifest, place / MANIFEST)
            made[stage] = Made(seconds=manifest.seconds, device=manifest.device)
    trial = PublishedTrial(
        facts=facts, overrides=cell.overrides, settings=settings(evaluated.config), made=made
    )
    return trial, evaluated.per_query


def _scored(table: pd.DataFrame, facts: TrialFacts, coordinates: dict[str, str]) -> pd.DataFrame:
    """Values of a trial, in one order, with what tells it from others."""
    own = table[[*KEY, "value"]].sort_values(KEY, kind="stable")
    head = {"signature": facts.signature, **coordinates, "seed": facts.seed}
    for i, (name, value) in enumerate(head.items()):
        own.insert(i, name, value)
    return own


def _imported(root: Path, tested: set[str]) -> Iterator[tuple[TrialFacts, pd.DataFrame]]:
    """Imported systems on some collections, by name."""
    for folder in results(root / IMPORT):
        facts = read(TrialFacts, folder / TRIAL)
        if tested & facts.collections.keys():
            yield facts, read_parquet(folder / PER_QUERY)


def import_results(folder: Path, root: Path) -> tuple[int, int]:
    """Write published trials into a store, as finished cells without weights.

    The cells are composed here, from the same command line, and each must have the signature under
    which its trial was published: then the grid finds it finished. Nothing is written if one has
    not. Imported systems are left alone: `python -m rdx import` measures them.

    Returns
    -------
    (int, int)
        How many cells were written, and how many the store had already.

    Raises
    ------
    DamagedResults
        If a file is not as it was written.
    ExportError
        If a cell has another signature here, or is none of the command line's.
    """
    held = published.read(folder)
    trials = [trial for trial in held.record.trials if trial.facts.imported is None]
    cells = _composed(held.record.arguments, trials)
    written = 0
    for trial in trials:
        cell = cells[trial.facts.signature]
        store = Store(root)
        if store.find(LAST.stage, cell.signature) is not None:
            continue
        with store.lock(LAST.stage, cell.signature) as lock:
            if store.recheck(LAST.stage, cell.signature) is not None:
                continue
            signed = Signatures(Parts(cell.cfg)).signed(LAST)
            table = held.of(trial.facts.signature)[[*KEY, "value"]]

            def write(
                partial: Path, trial: PublishedTrial = trial, table: pd.DataFrame = table,
                cell: Cell = cell,
            ) -> None:  # fmt: skip
                Evaluated.write(partial, trial.facts, table, cell.cfg, cell.overrides)
                published.write_taken(partial, trial)

            store.make(LAST.stage, cell.signature, signed, write, lock, anew=True)
        written += 1
    return written, len(trials) - written


def _composed(arguments: Sequence[str], trials: Sequence[PublishedTrial]) -> dict[str, Cell]:
    """Signature -> cell of each trial, composed here."""
    wanted = {trial.overrides: trial.facts.signature for trial in trials}
    first = ""
    for precision in PRECISIONS:
        cells = {cell.overrides: cell for cell in stages.split(list(arguments), precision)[0]}
        unlike = [
            own for own, key in wanted.items() if own not in cells or cells[own].signature != key
        ]
        if not unlike:
            return {key: cells[own] for own, key in wanted.items()}
        own = unlike[0]
        here = cells[own].signature if own in cells else "no such cell"
        first = first or f"{' '.join(own)}: {here} here, {wanted[own]} there"
    raise ExportError(
        f"{first}: the cell would not be the same, since its data, its configuration or versions "
        "that decide its result differ; python -m analysis NAME --import FOLDER reads the results "
        "as they are"
    )
