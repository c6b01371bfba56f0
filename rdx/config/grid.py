"""Expand a command line or an experiment into its cells; leave impossible ones out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from hydra.errors import HydraException

from rdx import folders, grids
from rdx.arguments import near
from rdx.config.building import in_cell, part, parts
from rdx.config.cell import Cell
from rdx.config.classes import class_of
from rdx.config.composer import composing, parsed
from rdx.config.composing import Bases, cell_of, load_spec, sweep
from rdx.config.explaining import unread
from rdx.config.schema import Config, ConfigError, Root
from rdx.declared import gives
from rdx.grids import SubGrid


def cells(what: str | Sequence[str]) -> list[Cell]:
    """Every possible cell of an experiment, by its name, or of a list of Hydra overrides.

    Cells that a constraint excludes, or whose teacher cannot give what their loss or the picker of
    their lists needs, are left out; see `split`.

    Raises
    ------
    ConfigError
        On an unknown key, option or value, in any cell; or if no cell is possible.
    """
    return split(what)[0]


def split(
    what: str | Sequence[str], precision: str | None = None, bases: Bases | None = None
) -> tuple[list[Cell], list[tuple[Cell, str]]]:
    """The cells that are possible, and those that are not, each with the reason; see `cells`.

    `precision` is what "auto" stands for; None: what this machine chooses. `bases` keeps what was
    composed, for further calls of the same program.
    """
    bases = {} if bases is None else bases
    overrides = [f"+experiments={what}"] if isinstance(what, str) else list(what)
    composed: list[Cell] = []
    reasons: list[str] = []
    with composing():
        for grid in _sub_grids(overrides):
            jobs = grid.jobs(sweep)
            members = [_cell(grid.name, job, bases, len(jobs), precision) for job in jobs]
            _check_exclude(grid, members)
            composed += members
            reasons += [_excluded(cell, grid) or impossible(cell.cfg) for cell in members]
    if composed and all(reasons):
        raise ConfigError(reasons[0])
    pairs = list(zip(composed, reasons, strict=True))
    return [cell for cell, why in pairs if not why], [(cell, why) for cell, why in pairs if why]


def single(
    overrides: Sequence[str], precision: str | None = None, bases: Bases | None = None
) -> Cell:
    """The one cell of a command line; of an experiment what its file sets, and not its grid.

    Raises
    ------
    ConfigError
        On an unknown key, option or value; if there are several cells; if it is not possible.
    """
    with composing():
        jobs = sweep(overrides)
        if len(jobs) != 1:
            raise ConfigError("names several cells, where one student is to come from one")
        cell = cell_of("", jobs[0], {} if bases is None else bases, precision)
    if why := impossible(cell.cfg):
        raise ConfigError(why)
    return cell


def _cell(
    grid: str,
    job: list[str],
    bases: Bases,
    number: int,
    precision: str | None,
) -> Cell:
    """`cell_of`; where a grid has several cells, its errors name the cell."""
    try:
        return cell_of(grid, job, bases, precision)
    except ConfigError as error:
        if number == 1:
            raise
        raise in_cell(error, job) from error


def impossible(cfg: Config) -> str:
    """Why a cell's loss, or what picks its lists, cannot work with its teacher; "" if they can.

    Every teacher gives an order of passages; what a loss or a picker needs beyond it, and what
    teachers give, is declared by their classes.
    """
    if not isinstance(cfg["loss"], dict) or not isinstance(cfg["teacher"], dict):
        return ""
    return next(_objections(cfg, part(cfg, "teacher")), "")


def _objections(cfg: Config, teacher: Any) -> Iterator[str]:
    """Why a teacher does not fit what learns from it."""
    name, scale = type(teacher).__name__, getattr(teacher, "scale", "none")
    if scale != "none" and not gives(teacher, "scores"):
        yield f"teacher.scale={scale}: teacher {name} gives no scores; teacher.scale=none"
    for kind, one in _taught(cfg):
        needs, accepted = getattr(one, "needs", "ranks"), getattr(one, "scales", None)
        if needs != "ranks" and not gives(teacher, needs):
            yield (
                f"{kind} {type(one).__name__} needs {needs}, which teacher {name} does not give; "
                f"those that do: {', '.join(dict.fromkeys(_giving(needs)))}"
            )
        if accepted is not None and scale not in accepted:
            own = scale == "none" and getattr(teacher, "probabilities", False)
            if own and "probability" in accepted:
                continue
            scales = [each for each in accepted if each != "probability"]
            yield (
                f"{kind} {type(one).__name__} does not accept teacher scores as "
                f"teacher.scale={scale} gives them; scales that it does: {', '.join(scales)}"
                + (", or none of probabilities" if scales != [*accepted] else "")
            )


def _taught(cfg: Config) -> Iterator[tuple[str, Any]]:
    """What learns from the teacher, each with what it is; of a sum, its losses, too."""
    yield from (("loss", loss) for _, loss in parts(part(cfg, "loss"), "loss"))
    if isinstance(cfg["depth"], dict):
        yield "depth.lists", part(cfg, "depth").lists


def _giving(what: str) -> Iterator[str]:
    """The teachers that give it, each with the values that this takes."""
    for file in folders.options("teacher").values():
        cls = class_of(yaml.safe_load(file.read_text(encoding="utf-8")))
        takes = getattr(cls, "gives", {}).get(what)
        if cls is not None and takes is not None:
            values = [f"{key}={value}" for key, value in takes.items()]
            yield cls.__name__ + (f" with {' '.join(values)}" if values else "")


def expand(overrides: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The command lines of the cells: (name of the sub-grid, overrides), one per cell.

    Sweeps ("loss=ranknet,adr_mse") are multiplied out, and keys of a `zip` moved together
    (`rdx.grids`). When `+experiments=NAME` is among the overrides, that happens once for every
    sub-grid of its `spec.grid`; other overrides are added to each and replace its own values of
    the same key, so that `seed=5` narrows a grid. What is excluded is still among them: `split`
    knows, which composes the cells.

    Raises
    ------
    ConfigError
        On an unknown experiment, or a sub-grid, `zip` or `exclude` that is not what it should be.
    """
    with composing():
        return [(grid.name, job) for grid in _sub_grids(overrides) for job in grid.jobs(sweep)]


def _sub_grids(overrides: Sequence[str]) -> list[SubGrid]:
    """The sub-grids of a command line, each with all that the command line adds to it."""
    more = {key: _constraint(overrides, key) for key in ("zip", "exclude")}
    plain = [o for o in overrides if o.split("=", 1)[0] not in ("+zip", "+exclude")]
    name = next((o.split("=", 1)[1] for o in plain if o.startswith("+experiments=")), None)
    try:
        line = grids.on_command_line(plain, more["zip"], more["exclude"])
        if name is None:
            return [line]
        node = load_spec(name).get("grid")
        mine = {*map(grids.key_of, plain), *(key for together in line.zipped for key in together)}
        return [
            SubGrid(
                sub_grid.name,
                (*sub_grid.sweep, *line.sweep),
                (*sub_grid.zipped, *line.zipped),
                (*sub_grid.exclude, *line.exclude),
            )
            for sub_grid in (
                declared.without(mine)
                for declared in grids.sub_grids(node, f"{folders.shown(name)}: spec.grid")
            )
        ]
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _constraint(overrides: Sequence[str], key: str) -> Any:
    """The value of `+zip=...` or `+exclude=...`; [] if it is not there."""
    values = [o for o in overrides if o.split("=", 1)[0] == f"+{key}"]
    if len(values) > 1:
        raise ConfigError(f"+{key} is given {len(values)} times: one list holds all")
    if not values:
        return []
    try:
        return parsed(values[0]).value()
    except HydraException as error:
        raise ConfigError(unread(values, error)) from error


def _excluded(cell: Cell, grid: SubGrid) -> str:
    """Which combination of a sub-grid's `exclude` a cell is; "" if none."""
    for combination in grid.exclude:
        if all(_is_one_of(cell, key, values) for key, values in combination.items()):
            shown = ", ".join(f"{k}={'|'.join(map(grids.text, v))}" for k, v in combination.items())
            return f"excluded by {shown}"
    return ""


def _is_one_of(cell: Cell, key: str, values: list[Any]) -> bool:
    if not cell.has(key):
        return False
    value = cell.value(key)
    return any(value == option or grids.text(value) == grids.text(option) for option in values)


def _check_exclude(grid: SubGrid, members: Sequence[Cell]) -> None:
    """Refuse what can match no cell: keys that none has, options that there are not."""
    where = f"exclude of {grid.name}" if grid.name else "exclude"
    for combination in grid.exclude if members else ():
        for key, values in combination.items():
            if not any(cell.has(key) for cell in members):
                valid = [f.name for f in dataclasses.fields(Root)]
                raise ConfigError(f"{where}: {key}: no such key{near(key, valid)} in any cell")
            options = list(folders.options(key))
            unknown = [v for v in values if key in members[0].levels and v not in options]
            if unknown:
                raise ConfigError(f"{where}: {key}={unknown[0]}: no such option; valid: {options}")
