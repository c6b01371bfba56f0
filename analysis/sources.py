"""What tables are asked of: the grid of a spec, or one that was launched."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.assumed import assumed
from analysis.spec import Spec, parse
from analysis.stored import TrialError, results_in
from rdx import folders
from rdx.config import Bases, Cell, load_spec
from rdx.facts import Grid
from rdx.public import settings
from rdx.stages import split

PRECISIONS = ("bf16", "fp32")  # what "auto" becomes
EXPERIMENT = "+experiments="


@dataclass(frozen=True)
class Source:
    """Cells, and the table that they are for.

    Attributes
    ----------
    name : str
        Of its folder below results/.
    spec : Spec
        The table.
    cells : tuple of Cell
        The possible cells, signed.
    left_out : tuple of (Cell, str)
        Those that are impossible or excluded, with the reason.
    elsewhere : callable or None
        Gives for each cell what it is on machines that choose another precision: seconds of work,
        which is needed only where a cell has no trial as it is here. None: the same everywhere.
    command : str
        What trains the cells that have not been run.
    grid : str
        Id of the grid that was launched; "" of a spec.
    """

    name: str
    spec: Spec
    cells: tuple[Cell, ...]
    left_out: tuple[tuple[Cell, str], ...]
    elsewhere: Callable[[], Sequence[Sequence[Cell]]] | None
    command: str
    grid: str = ""


def of_spec(name: str) -> Source:
    """The grid of an experiment, by its name or the path of its file.

    Raises
    ------
    SpecError, ConfigError
        If the file is wrong.
    """
    bases: Bases = {}  # what the cells of all precisions are composed from
    cells, left_out = split(name, bases=bases)
    spec = parse(load_spec(name), cells)
    chosen_here = any(cell.pinned for cell in cells)  # a precision: other machines choose another
    elsewhere = partial(_elsewhere, name, bases) if chosen_here else None
    command = f"python -m rdx {EXPERIMENT}{name}"
    return Source(folders.title(name), spec, tuple(cells), tuple(left_out), elsewhere, command)


def _elsewhere(name: str, bases: Bases) -> list[tuple[Cell, ...]]:
    return list(zip(*(split(name, precision, bases)[0] for precision in PRECISIONS), strict=True))


def of_grid(record: Grid, store: Path) -> Source:
    """A grid that was launched, its cells as they were signed then.

    Parameters
    ----------
    store
        Where it was recorded, and its cells are.

    Raises
    ------
    SpecError, ConfigError
        If the options or the experiment of the grid are no longer there.
    """
    cells, left_out = split(list(record.arguments))
    launched = {cell.overrides: cell.signature for cell in record.cells}
    then = {c.signature: launched[c.overrides] for c in cells if c.overrides in launched}
    signed = [
        replace(
            cell,
            signature=then.get(cell.signature, cell.signature),
            cfg={**cell.cfg, "store": str(store.absolute())},
        )
        for cell in cells
    ]
    name = _experiment(record.arguments)
    spec = parse(load_spec(name), signed) if name else assumed(record.grid, signed)
    command = f"python -m rdx -m {shlex.join((*record.arguments, *record.hydra))}"
    return Source(record.grid, spec, tuple(signed), tuple(left_out), None, command, record.grid)


def as_published(source: Source, folder: Path) -> Source:
    """The cells with the signatures under which published results below a folder have them.

    So the tables need no data: a cell is known by the command line that gives it.

    Raises
    ------
    TrialError
        If published results are damaged, or of cells that this spec configures otherwise.
    """
    known = {
        trial.overrides: trial
        for results in results_in(folder)
        for trial in results.record.trials
        if trial.facts.imported is None
    }
    cells = []
    for cell in source.cells:
        trial = known.get(cell.overrides)
        if trial is None:
            cells.append(cell)
            continue
        if differing := _differing(trial.settings, settings(cell.cfg)):
            raise TrialError(
                f"{' '.join(cell.overrides)}: published with other settings than this spec gives: "
                f"{differing}; take the spec that it was published with"
            )
        cells.append(replace(cell, signature=trial.facts.signature))
    return replace(source, cells=tuple(cells))


def _differing(there: Any, here: Any, key: str = "") -> str:
    """The first key in which two configurations differ; of precisions, machines choose."""
    if isinstance(there, dict) and isinstance(here, dict):
        both = {name: None for name in (*there, *here) if name != "precision"}
        each = (_differing(there.get(n), here.get(n), f"{key}.{n}".strip(".")) for n in both)
        return next(filter(None, each), "")
    return "" if there == here else f"{key}: {there} there, {here} here"


def _experiment(arguments: Sequence[str]) -> str:
    """The experiment of a command line; "" without one."""
    found = (a.removeprefix(EXPERIMENT) for a in arguments if a.startswith(EXPERIMENT))
    return next(found, "")
