"""Check whether a command line would run here: machine, software, data, places and keys.

Nothing is downloaded, nothing is computed, and what is written to try a place is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rdx import config, fetching, stages
from rdx.config import Cell, ConfigError
from rdx.doctor import machine, places
from rdx.doctor.finding import ERROR, NOTE, OK, WARNING, Finding, as_json, stops, text
from rdx.plan import tables
from rdx.text import counted

__all__ = ["ERROR", "NOTE", "OK", "WARNING", "Finding", "as_json", "examine", "stops", "text"]

T = TypeVar("T")


def examine(overrides: Sequence[str]) -> list[Finding]:
    """Look at everything that the cells of a command line need; the machine comes first."""
    findings = [*machine.packages(), *machine.switches(), *machine.memory()]
    try:
        with tables.checked(overrides):
            cells = [stages.begun(cell) for cell in config.split(overrides)[0]]
    except (ConfigError, ValueError, FileNotFoundError) as error:
        return [*findings, Finding("configuration", ERROR, str(error))]
    return [*findings, *_of(cells, overrides)]


def _of(cells: list[Cell], overrides: Sequence[str]) -> Iterator[Finding]:
    yield from _configuration(cells)
    nodes = [node for cell in cells for node in config.nodes(cell.cfg)]
    yield from machine.optional(
        (needed, node["_target_"])
        for node in nodes
        if (needed := getattr(config.class_of(node), "requires", None))
    )
    trainers = [cell.cfg["trainer"] for cell in cells]
    yield from machine.gpus(
        *({str(trainer[key]) for trainer in trainers} for key in ("device", "precision"))
    )
    yield from machine.compiler(any(cell.cfg["student"].get("compile") for cell in cells))
    for store in _distinct(cell.cfg["store"] for cell in cells):
        yield from places.folder("store", Path(store), "store")
        yield from places.locks(Path(store))
    yield from _data(cells, overrides)
    models = [
        (node["model"], f"{path}.model", node.get("revision"))
        for cell in cells
        for path, node in config.loaders(cell.cfg)
        if isinstance(node.get("model"), str)
    ]
    for name, key, revision in _distinct(models):
        yield from places.model(name, key, revision)
    for backend in _unlike(node for node in nodes if node["_target_"] == "rdx.teachers.Endpoint"):
        yield from places.service(backend)
    for tracking in _unlike(cell.cfg["tracking"] for cell in cells):
        yield from places.tracking(tracking)


def _configuration(cells: list[Cell]) -> Iterator[Finding]:
    for cell in cells:
        try:
            config.check(cell)
        except (ConfigError, ValueError, FileNotFoundError) as error:
            yield Finding("configuration", ERROR, str(error))
            return
    yield Finding(
        "configuration", OK, f"{counted(len(cells), 'cell')}, every value is one that there is"
    )


def _data(cells: list[Cell], overrides: Sequence[str]) -> Iterator[Finding]:
    needed = fetching.needs(cell.cfg for cell in cells)
    lacking = [need for need in needed if not need.present()]
    fetch = f"python -m rdx data fetch {' '.join(overrides)}".rstrip()
    for need in lacking:
        if need.known():
            size = sum(size for _, size in need.lacking()) / 1e9
            yield Finding("data", ERROR, f"{need.name} is not fetched yet ({size:.2g} GB)", fetch)
        else:
            yield Finding("data", ERROR, f"{need.name} is not there", "put it there by hand")
    if not lacking:
        names = ", ".join(need.name for need in needed)
        yield Finding("data", OK, names or "nothing that would have to be fetched")


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _unlike(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes that differ."""
    return list({repr(sorted(node.items(), key=str)): node for node in nodes}.values())
