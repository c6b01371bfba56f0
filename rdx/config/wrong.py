"""Errors of values in one line each: the key, the value, and what is valid."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rdx import folders
from rdx.declared import Group, Known, types_of

# Kind of a pydantic error -> what a value must be.
_MUST_BE = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "finite_number": "a finite number",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "mapping_type": "keys and values",
}
_OBJECT = ("is_instance_of", "dataclass_type", "dataclass_exact_type")


def wrong(
    error: ValidationError,
    cls: type,
    arguments: Mapping[str, Any],
    where: str,
    at: tuple[str, ...] = (),
) -> str:
    """Describe the first error of pydantic about the arguments of a class.

    `at` is the path of what was validated, if that was not all of them.
    """
    fault = error.errors(include_url=False)[0]
    path = (*at, *fault["loc"])
    if not path:  # of fields together
        return placed(_told(fault), where, types_of(cls))
    name, *inside = path
    value, key = arguments.get(str(name)), f"{where}.{name}"
    for part in inside:
        if isinstance(value, Mapping) and part in value:
            value, key = value[part], f"{key}.{part}"
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value, key = value[part], f"{key}[{part}]"
    kind = types_of(cls)[str(name)]
    if fault["type"] in _OBJECT:
        return f"{key}={_shown(value)}: {_object(kind, key)}"
    return f"{key}={_shown(value)}: {_told(fault)}{or_null(kind)}"


def placed(message: str, where: str, names: Iterable[str]) -> str:
    """A message that begins with one of an object's keys, or with none, with its whole key."""
    first = re.match(r"(\w+)[=:.[]", message)
    return f"{where}{'.' if first and first[1] in names else ': '}{message}"


def _told(fault: ErrorDetails) -> str:
    context = fault.get("ctx") or {}
    if fault["type"] == "value_error":
        return str(context["error"])
    rule = _MUST_BE.get(fault["type"])
    return f"must be {rule.format(**context)}" if rule else fault["msg"]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"<{type(value).__name__}>" if dataclasses.is_dataclass(value) else repr(value)


def or_null(kind: Any) -> str:
    """That a value of a type may be null, too; "" if it may not."""
    return ", or null" if type(None) in _flat(kind) else ""


def _flat(kind: Any) -> list[Any]:
    """A type, what it is annotated with, and those that it is made of."""
    if typing.get_origin(kind) is Annotated:
        return [*kind.__metadata__, *_flat(kind.__origin__)]
    return [kind, *(part for inner in typing.get_args(kind) for part in _flat(inner))]


def _object(kind: Any, key: str) -> str:
    """What objects are valid at a key, and how one is chosen."""
    known = _flat(kind)
    must = "must be an object, or null" if type(None) in known else "must be an object"
    path = key.replace(".", "/")
    group = next((part.name for part in known if isinstance(part, Group)), path)
    if folders.is_group(group) and "[" not in key:
        choice = path if group == path else f"{group}@{key}"
        return f"{must}; choose one by {choice}=..., valid: {list(folders.options(group))}"
    targets = [target for part in known if isinstance(part, Known) for target in part.targets]
    classes = [part for part in known if isinstance(part, type) and dataclasses.is_dataclass(part)]
    if targets or len(classes) != 1:
        return f"{must}: keys and values with a _target_, one of {targets}"
    names = [field.name for field in dataclasses.fields(classes[0])]
    return f"{must}; give its values by {key}.{names[0]}=..., valid: {names}"
