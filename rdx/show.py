"""What the store tells of a cell or a grid: typed rows, as text and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rdx import config, progress, store
from rdx.artifacts import Evaluated
from rdx.facts import OK, Grid, GridCell, Manifest, Origin, TrialFacts
from rdx.faults import Mendable
from rdx.grids import text as typed
from rdx.holdings import IMPORT, Holdings, read, size
from rdx.progress import Standing
from rdx.stages import LAST, Step
from rdx.store import MANIFEST
from rdx.text import aligned, amount, counted, duration
from rdx.tracking.notes import NO_PARAMS, score


@dataclass(frozen=True)
class StageFacts:
    """A stage of a cell, and its result.

    Attributes
    ----------
    folder
        "" where there is none yet.
    seconds, resumed
        That it took; if it was `resumed`, those since then.
    device
        "" where that was not recorded, or is not this machine.
    shared
        Other cells, imports and labellings that need it.
    """

    step: str
    signature: str
    folder: str = ""
    bytes: int | None = None
    seconds: float | None = None
    resumed: bool = False
    device: str = ""
    shared: int = 0


@dataclass(frozen=True)
class Score:
    """The means of all systems for a measure in a collection, or over several."""

    collection: str
    measure: str
    systems: dict[str, float]


@dataclass(frozen=True)
class CellFacts:
    """A cell.

    Attributes
    ----------
    overrides
        The command line that gave it; empty where that was not recorded.
    levels, differs
        Its options; what of them and of their keys is not as by default, as overrides: None of a
        cell whose configuration is not stored, or of options that there are not any more.
    origins
        Students that it took from elsewhere.
    warnings
        What is wrong with its collections.
    """

    signature: str
    standing: Standing
    overrides: tuple[str, ...]
    levels: dict[str, str]
    differs: tuple[str, ...] | None
    seed: int | None
    origins: tuple[Origin, ...]
    stages: tuple[StageFacts, ...]
    scores: tuple[Score, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class GridRow:
    """A cell of a grid.

    Attributes
    ----------
    differs
        What of its command line not all of its grid have.
    value
        Of the student, by the grid's measure; None without one.
    """

    differs: tuple[str, ...]
    signature: str
    standing: Standing
    value: float | None


@dataclass(frozen=True)
class GridFacts:
    """A grid.

    Attributes
    ----------
    common
        What all its command lines have.
    measure
        The first that its cells declare; "" while none is finished.
    seconds
        Of all stages that its cells need, each once.
    bytes
        Of them.
    best
        Signature of the cell that is best by the measure, among those of health ok; "" for none.
    """

    grid: str
    launched: float
    arguments: tuple[str, ...]
    common: tuple[str, ...]
    counts: dict[str, int]
    measure: str
    seconds: float
    bytes: int
    best: str
    cells: tuple[GridRow, ...]


# --- a cell ---


def of_cell(root: Path, cell: GridCell) -> CellFacts:
    """What the store tells of a cell.

    Raises
    ------
    Unreadable
        If it is finished and cannot be read.
    """
    held = read(root)
    evaluated = Evaluated(root / _stage(held, cell) / cell.signature)
    finished = (evaluated.folder / MANIFEST).exists()
    facts = evaluated.facts if finished else None
    imported = facts is not None and facts.imported is not None
    own = {IMPORT if imported else str(LAST): cell.signature}
    signatures = (facts.signatures if facts else cell.signatures) or own
    cfg = evaluated.config if facts is not None and not imported else None
    return CellFacts(
        signature=cell.signature,
        standing=_standing(root, cell, facts),
        overrides=cell.overrides,
        levels=facts.levels if facts else {},
        differs=None if cfg is None or facts is None else differs(cfg, facts.levels),
        seed=facts.seed if facts and not imported else None,
        origins=facts.origins if facts else (),
        stages=tuple(stage_facts(held, name, key) for name, key in signatures.items()),
        scores=tuple(scores(facts.means)) if facts else (),
        warnings=tuple(_warnings(facts)) if facts else (),
    )


def _stage(held: Holdings, cell: GridCell) -> str:
    return IMPORT if (IMPORT, cell.signature) in held.results else LAST.stage


def _standing(root: Path, cell: GridCell, facts: TrialFacts | None) -> Standing:
    if facts is not None and facts.imported is not None:
        return Standing("imported", health=facts.health)
    return progress.standing(root, cell.signature)


def stage_facts(held: Holdings, name: str, key: str) -> StageFacts:
    """The result of a step, as far as it is there."""
    stage = Step.stage_of(name)
    shared = max(held.users[stage, key] - 1, 0)
    folder = held.root / stage / key
    try:
        manifest = store.read(Manifest, folder / MANIFEST)
    except OSError:
        return StageFacts(name, key, shared=shared)
    return StageFacts(
        *(name, key, str(folder), held.results.get((stage, key), size(folder))),
        seconds=manifest.seconds,
        resumed=manifest.resumed,
        device="" if manifest.device is None else str(manifest.device),
        shared=shared,
    )


def scores(means: Mapping[str, float]) -> Iterable[Score]:
    """The means of a trial, COLLECTION/SYSTEM/MEASURE, by collection and measure."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in means.items():
        collection, system, measure = name.rsplit("/", 2)
        rows.setdefault((collection, measure), {})[system] = value
    return (Score(*where, systems) for where, systems in rows.items())


def _warnings(facts: TrialFacts) -> Iterable[str]:
    for name, each in facts.collections.items():
        if each.degenerate:
            yield f"{name} is degenerate: {each.reason}"
        if each.selected_on:
            yield f"{name} decided which weights were kept: it is no test of them"


def differs(cfg: Mapping[str, Any], levels: Mapping[str, str]) -> tuple[str, ...] | None:
    """Options and keys of a configuration that are not as by default, as overrides.

    None if there is no such option here any more.
    """
    try:
        default = config.single([]).levels
        groups = [f"{g}={o}" for g, o in levels.items() if g in default and default[g] != o]
        node = config.composed(groups)
        missing = OmegaConf.missing_keys(node)
        for key in missing:
            OmegaConf.update(node, key, None)
        plain = config.resolved(node)
        config.settle(plain)
    except (Mendable, OSError):
        return None
    here = _flat(cfg)
    there = {key: value for key, value in _flat(plain).items() if key not in missing}
    keys = [key for key in here if here[key] != there.get(key, _ABSENT)]
    started = [f"{g}={o}" for g, o in levels.items() if g not in default]
    return (*groups, *started, *(f"{key}={typed(here[key])}" for key in keys))


_ABSENT = object()


def _flat(cfg: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by their keys, but for what is no part of a cell."""
    flat: dict[str, Any] = {}
    for key, value in cfg.items():
        if not prefix and key in (*NO_PARAMS, "start"):
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# --- a grid ---


def of_grid(root: Path, grid: Grid) -> GridFacts:
    """What the store tells of a grid; a cell that cannot be read has no value."""
    held, table = read(root), progress.table(root, grid)
    first = grid.cells[0].overrides if grid.cells else ()
    common = [o for o in first if all(o in cell.overrides for cell in grid.cells)]
    measure, rows = "", []
    for cell, stood in table.cells:
        value = None
        if stood.state == "finished":
            evaluated = Evaluated(root / LAST.stage / cell.signature)
            with suppress(OSError, KeyError):
                measure = measure or str(evaluated.config["evaluation"]["measures"][0])
                value = score(evaluated.facts.means, measure)
        rest = tuple(o for o in cell.overrides if o not in common or len(grid.cells) == 1)
        rows.append(GridRow(rest, cell.signature, stood, value))
    sound = [row for row in rows if row.value is not None and row.standing.health == OK]
    best = max(sound, key=lambda row: row.value or 0.0, default=None)
    keys = {key for needs in held.of_grid(grid).values() for key in needs if key in held.results}
    stages = [stage_facts(held, *key) for key in keys]
    return GridFacts(
        grid=grid.grid,
        launched=grid.launched,
        arguments=grid.arguments,
        common=tuple(common) if len(grid.cells) > 1 else (),
        counts=table.counts,
        measure=measure,
        seconds=sum(stage.seconds or 0.0 for stage in stages),
        bytes=sum(stage.bytes or 0 for stage in stages),
        best=best.signature if best else "",
        cells=tuple(rows),
    )


# --- as text and JSON ---


def as_json(facts: CellFacts | GridFacts) -> dict[str, Any]:
    """Plain values."""
    return asdict(facts)


def text(facts: CellFacts | GridFacts) -> str:
    """For people."""
    return _cell(facts) if isinstance(facts, CellFacts) else _grid(facts)


def _cell(facts: CellFacts) -> str:
    shown = GridCell(facts.overrides, facts.signature)
    head = [progress.text_of_cell(shown, facts.standing)]
    if facts.differs is not None:
        head.append(f"differs  {' '.join(facts.differs) or 'in nothing from the defaults'}")
    elif facts.levels:
        head.append(f"options  {_options(facts.levels)}")
    if facts.overrides:
        head.append(f"command  python -m rdx {' '.join(facts.overrides)}")
    head += [f"{o.path} is {o.given}, weights {o.checkpoint}" for o in facts.origins]
    tables = [_stages(facts.stages), *([_scores(facts.scores)] if facts.scores else [])]
    warnings = [f"WARNING  {warning}" for warning in facts.warnings]
    return "\n\n".join(["\n".join(head), *tables, *warnings])


def _options(levels: Mapping[str, str]) -> str:
    return " ".join(f"{group}={option}" for group, option in levels.items())


def _stages(stages: Iterable[StageFacts]) -> str:
    lines = [["stage", "folder", "size", "time", "device", "shared with"]]
    for stage in stages:
        there = stage.bytes is not None
        resumed = ", resumed" if stage.resumed else ""
        lines.append([
            stage.step,
            stage.folder or "not there",
            amount(stage.bytes) if stage.bytes is not None else "-",
            f"{duration(stage.seconds)}{resumed}" if stage.seconds is not None else "-",
            stage.device or "-",
            counted(stage.shared, "other") if stage.shared and there else "-",
        ])  # fmt: skip
    return aligned(lines, left=2)


def _scores(rows: Sequence[Score]) -> str:
    systems = list(dict.fromkeys(system for row in rows for system in row.systems))
    lines = [["collection", "measure", *systems]]
    for row in rows:
        values = (row.systems.get(system) for system in systems)
        shown = ("-" if value is None else f"{value:.4f}" for value in values)
        lines.append([row.collection, row.measure, *shown])
    return aligned(lines, left=2)


def _grid(facts: GridFacts) -> str:
    launched = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.launched))
    counts = ", ".join(f"{n} {state}" for state, n in facts.counts.items())
    head = [
        f"grid {facts.grid}, launched {launched}: {counted(len(facts.cells), 'cell')}: {counts}",
        f"command  python -m rdx -m {' '.join(facts.arguments)}",
        f"results  {amount(facts.bytes)}, made in {duration(facts.seconds)}",
    ]
    for row in facts.cells:
        if row.signature == facts.best:
            shown = f"{facts.measure} {row.value:.4f}: {' '.join(row.differs) or 'its only cell'}"
            head.append(f"best     {shown} (of many noisy cells: python -m analysis tests them)")
    lines = [["cell", "what differs", "state", "health", "time", facts.measure or "measure"]]
    for row in facts.cells:
        stood = row.standing
        took = "-" if stood.seconds is None else duration(stood.seconds)
        value = "-" if row.value is None else f"{row.value:.4f}"
        told = (stood.state, stood.health or "-", took, value)
        lines.append([row.signature, " ".join(row.differs) or "-", *told])
    return "\n\n".join(["\n".join(head), aligned(lines, left=4)])
