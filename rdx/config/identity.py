"""The identity of an object: everything about it that decides results."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from rdx.config.schema import ConfigError
from rdx.declared import (
    MODEL,
    QUERIES,
    SCHEDULES,
    SELECTS,
    SPLITS,
    STUDENT,
    WRITTEN,
    DecidedBy,
    Mark,
    PassagesBy,
    content,
    marks,
    reads,
    version,
)

# What of a collection an identity may leave out: what has no part in its passages, or in its files.
PASSAGES = frozenset((QUERIES, SPLITS))
FILES = frozenset((SPLITS,))
# What of a teacher has no part in what it answers.
ANSWERS = frozenset((SELECTS,))


def identity(thing: Any, without: frozenset[Mark] = frozenset()) -> JsonValue:
    """Describe what decides the results of an object that `build` made, as JSON values.

    Its class, and every field that decides something (`rdx.declared`), whether it was given or is
    the default; files by their content, engines by their versions, extensions by their source.

    Parameters
    ----------
    without
        `PASSAGES`: only what decides the passages of a collection; `FILES`: only what decides how
        it is laid out on disk, whatever split is read; `ANSWERS`: only what decides what a teacher
        answers.
    """
    if isinstance(thing, Mapping):
        return {str(key): identity(value, without) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [identity(value, without) for value in thing]
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    cls: type = type(thing)
    left_out = {SCHEDULES, STUDENT, WRITTEN, *without}
    known: dict[str, JsonValue] = {"class": _name(cls)}
    for name in _fields(thing):
        field_marks = marks(cls).get(name, ())
        if left_out.isdisjoint(field_marks):
            known[name] = _value(getattr(thing, name), field_marks, without)
    if "revision" in known and known["revision"] is None and _has(cls, MODEL):
        del known["revision"]  # of an asset or a folder, whose content is told
    if engines := getattr(cls, "engines", ()):
        known["versions"] = {name: version(name) for name in engines}
    if not cls.__module__.startswith("rdx."):
        known["source"] = _source(cls.__module__)
    return known


def _value(value: Any, field_marks: tuple[Any, ...], without: frozenset[Mark]) -> JsonValue:
    """What a field decides, given its marks."""
    for mark in field_marks:
        if isinstance(mark, DecidedBy) or (without == PASSAGES and isinstance(mark, PassagesBy)):
            return mark.of(value)
    if reads(field_marks, value) and Path(value).exists():
        return content(Path(value))  # not its place
    return identity(value, without)


def _fields(thing: Any) -> list[str]:
    if not dataclasses.is_dataclass(thing):
        raise ConfigError(
            f"{type(thing).__module__}.{type(thing).__name__}: must be a dataclass, whose fields "
            "tell what decides its results"
        )
    return [field.name for field in dataclasses.fields(thing) if field.init]


def _has(cls: type, mark: Mark) -> bool:
    return any(mark in field_marks for field_marks in marks(cls).values())


def _name(cls: type) -> str:
    """A class of rdx by its package, wherever in it the class is defined."""
    package = ".".join(cls.__module__.split(".")[:2])
    return f"{package if package.startswith('rdx.') else cls.__module__}.{cls.__qualname__}"


def _source(module: str) -> JsonValue:
    """The content of the file of a declared extension, which has no schema number as rdx has."""
    spec = importlib.util.find_spec(module)
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    return content(origin) if origin is not None and origin.is_file() else None
