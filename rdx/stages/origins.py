"""Students that a cell takes from elsewhere: what `start` and `sampler.student` name.

One is named by

    the signature of a finished cell of the store, or a beginning of it
    a folder that holds a student of rdx: a checkpoint, or an exported one
    overrides, by which another cell differs from this one

What is named is found, and compared with the student that is to begin from it, before anything is
signed or run. The configuration then holds it under `origins`: of a cell its whole configuration
(which may have origins of its own, and so on), so that what is stored tells its lineage by itself.
How a student is named has no part in the identity of a cell; what it is has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from rdx import config, folders, store
from rdx.artifacts import Evaluated, student_in, weights_in
from rdx.config import Cell, ConfigError, MissingFile
from rdx.declared import STUDENT
from rdx.facts import OriginNode, shallow
from rdx.grids import key_of, text
from rdx.job import REDRAWS, START, Parts
from rdx.stages.stage import trained
from rdx.store import signature
from rdx.students.folders import check_folder

_SPEC = ("zip", "exclude")  # of a command line, and of none of its cells

Compose = Callable[[Sequence[str]], Cell]
Sign = Callable[[Cell], Cell]


def found(cell: Cell, compose: Compose, sign: Sign) -> Cell:
    """A cell with the students that it takes from elsewhere in its configuration.

    Parameters
    ----------
    compose
        Gives the one cell of a command line.
    sign
        Gives another cell its origins and signatures.

    Raises
    ------
    ConfigError
        If there is no such student, or the cell's own cannot begin from it.
    """
    given: dict[str, Any] = {START: cell.cfg.get(START)}
    for path, node, name in config.with_mark(cell.cfg, STUDENT):
        given[f"{path}.{name}"] = node.get(name)
    if cell.cfg.get("origins") is not None or given == {START: None}:
        return cell
    seeker = _Seeker(cell, compose, sign)
    origins: dict[str, OriginNode] = {}
    pinned = cell.pinned
    for key, value in given.items():
        if value is not None:
            origins[key], pins = seeker.origin(key, value)
            pinned += pins
        elif key != START:
            raise ConfigError(f"{key}=null: names no student; give one, or start=...")
    told = {START: origins[START].given} if START in origins else {}
    nodes = {key: shallow(origin) for key, origin in origins.items()}
    cfg, levels = {**cell.cfg, "origins": nodes}, {**cell.levels, **told}
    return replace(cell, cfg=cfg, levels=levels, pinned=pinned)


@dataclass(frozen=True)
class _Seeker:
    """What looks for the students of a cell."""

    cell: Cell
    compose: Compose
    sign: Sign

    def origin(self, key: str, value: Any) -> tuple[OriginNode, tuple[str, ...]]:
        """What stands under `origins`, and overrides that name the same on any machine."""
        given = text(value)
        where = f"{key}={given}"
        if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            try:
                other = self._differing(value)
            except ConfigError as error:
                raise type(error)(f"{where}: {error}") from error
            pins = (f"++{key}={text([*value, *other.pinned])}",) if other.pinned else ()
            return self._of_cell(key, given, other), pins
        if isinstance(value, bool | float) or not isinstance(value, str | int):
            raise ConfigError(
                f"{where}: must be the signature of a finished cell (quoted twice, if it is a "
                "number), a folder, or a list of overrides, as in \"['loss=lce','seed=2']\""
            )
        if "/" in str(value):
            return self._of_folder(key, given, Path(str(value))), ()
        return self._of_cell(key, given, self._finished(where, str(value))), ()

    def _of_cell(self, key: str, given: str, other: Cell) -> OriginNode:
        parts = Parts(other.cfg)
        if key == START:
            self._compare(f"{key}={given}", config.identity(parts.student))
        return OriginNode(
            given=given,
            cell={**other.cfg, "spec": None},
            checkpoint=other.keys[str(trained(parts))],
        )

    def _differing(self, changes: Sequence[str]) -> Cell:
        """The cell that differs from this one by overrides."""
        overrides = _changed(self.cell.overrides, changes)
        if overrides == list(self.cell.overrides):
            raise ConfigError("names the cell itself, which cannot come before itself")
        return self.sign(self.compose(overrides))

    def _finished(self, where: str, beginning: str) -> Cell:
        """A finished cell of the store, as it was configured."""
        root = Path(self.cell.cfg["store"])
        try:
            evaluated = Evaluated(store.whole(beginning, root / "evaluate"))
        except store.NotFound as error:
            raise ConfigError(f"{where}: no such folder, and {error}") from error
        if problem := store.damage(evaluated.folder):
            raise ConfigError(f"{where}: {evaluated.folder} is damaged: {problem}")
        cfg = {**evaluated.config, "store": str(root), "spec": None}
        other = self.sign(Cell((), "", cfg))
        step = trained(Parts(cfg))
        was, now = evaluated.facts.signatures.get(str(step), ""), other.keys[str(step)]
        if was != now:
            raise ConfigError(
                f"{where}: its student was made from other files, or by other versions, than it "
                f"would be today; to begin from its weights as they are: "
                f"start={root / step.stage / was}"
            )
        return other

    def _of_folder(self, key: str, given: str, folder: Path) -> OriginNode:
        where, student = f"{key}={given}", Parts(self.cell.cfg).student
        try:
            check_folder(folder, where, student.head, student.between)
        except FileNotFoundError as error:
            raise MissingFile(str(error)) from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
        saved = student_in(folder)
        if saved is None:
            raise ConfigError(
                f"{where}: holds a model that rdx did not save as a student, or that an older "
                "version did; as the model of another student it is student.model=FOLDER"
            )
        self._compare(where, saved)
        held = signature(weights_in(folder))
        return OriginNode(given=given, folder=str(folder), checkpoint=held)

    def _compare(self, where: str, theirs: JsonValue) -> None:
        """Refuse to begin from a student of another kind."""
        student = Parts(self.cell.cfg).student
        mine = config.identity(student)
        assert isinstance(mine, dict) and isinstance(theirs, dict)
        for name in {**theirs, **mine}:
            if name not in student.trained_by and mine.get(name) != theirs.get(name):
                there, here = (
                    " " + text(which[name]) if isinstance(which.get(name), str | int | None) else ""
                    for which in (theirs, mine)
                )
                raise ConfigError(
                    f"{where}: student.{name} is{there or ' another'} there, and{here or ' not'} "
                    "here; a student begins from one of its own kind"
                )


def _changed(overrides: Sequence[str], changes: Sequence[str]) -> list[str]:
    """A command line with other overrides in the place of its own.

    An override replaces those of the same key; an option of a group also those of the group's
    keys, which it may not have. Students from elsewhere are not inherited.
    """
    keys = [_place(change) for change in changes]
    options = [key for change, key in zip(changes, keys, strict=True) if _chooses(change)]
    kept = [
        override
        for override in overrides
        if (key := _place(override)) not in (*_SPEC, START, REDRAWS, *keys)
        and not any(key.startswith(f"{option}.") for option in options)
    ]
    return [*kept, *([] if START in keys else [f"{START}=null"]), *changes]


def _place(override: str) -> str:
    """The key that an override gives a value, as in "depth.lists" of ``depth/lists=all``."""
    return key_of(override).rpartition("@")[2].replace("/", ".")


def _chooses(override: str) -> bool:
    """Whether an override chooses an option of a group."""
    key = key_of(override)
    return "/" in key or "@" in key or folders.is_group(key)
