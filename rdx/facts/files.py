"""Records as JSON text, written by `dump` and read by `parse`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

VERSION = 1  # of all records together; a file of another version is not read

Record = TypeVar("Record")


class FactsError(ValueError):
    """JSON text that is not the record it should be; the message names the first wrong key."""


def dump(record: object) -> str:
    """A record as JSON text, with the version of all records."""
    plain = {"version": VERSION, **_adapter(type(record)).dump_python(record, mode="json")}
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def parse(kind: type[Record], text: str | bytes) -> Record:
    """Read a record from JSON text.

    Raises
    ------
    FactsError
        If the text is no JSON object, of another version, or lacks a key.
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise FactsError(f"damaged: {error}") from error
    if not isinstance(plain, dict):
        raise FactsError("not a JSON object")
    version = plain.pop("version", None)
    if version != VERSION:
        raise FactsError(
            f"its version is {version}, not {VERSION}: another version of rdx wrote it"
        )
    try:
        return _adapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FactsError(f"{place}: {first['msg']}: another version of rdx wrote it") from error


def numbers(record: object) -> dict[str, float]:
    """All numbers of a record by their path, as in ``moves/rbo``: what MLflow takes as metrics."""
    return dict(_numbers(_adapter(type(record)).dump_python(record), ""))


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}/{name}" if path else str(name))
    elif isinstance(value, int | float):
        yield path, float(value)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def shallow(record: object) -> dict[str, Any]:
    """The fields of a record by name, not converted: to build a record that extends it."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}  # type: ignore[arg-type]
