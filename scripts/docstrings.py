"""What docstrings say of the keys of a class, and what its types say of their values."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import docstring_parser
from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator

from rdx.declared import CATALOGUED, MODEL, RELEASED, SEEDS, WRITTEN, Group, OneOf, Read

NOTHING = inspect.Parameter.empty  # the default of a key that must be given


class Undocumented(ValueError):
    """A key without a meaning, or a meaning without a key; the message names class and key."""


@dataclass(frozen=True)
class Entry:
    """What a docstring says of one key, or of several at once."""

    keys: tuple[str, ...]
    values: str
    meaning: str


@lru_cache
def documented(cls: type) -> dict[str, Entry]:
    """The entry of every key that the docstring of a class describes."""
    parsed = docstring_parser.parse(
        inspect.cleandoc(cls.__doc__ or ""), style=docstring_parser.DocstringStyle.NUMPYDOC
    )
    entries = [
        Entry(
            tuple(re.split(r",\s*", param.arg_name)),
            markdown(param.type_name or ""),
            markdown(param.description or ""),
        )
        for param in parsed.params
    ]
    return {key: entry for entry in entries for key in entry.keys}


def summary(cls: type) -> str:
    """The first line of the docstring of a class."""
    return markdown(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0])


def markdown(prose: str) -> str:
    """Prose of a docstring as one line of Markdown, for users of configurations."""
    line = " ".join(prose.split()).replace("``", "`").replace(r"\|", "|").replace("|", r"\|")
    return "".join(
        part if part.startswith("`") else _plain(part) for part in re.split(r"(`[^`]*`)", line)
    )


def _plain(prose: str) -> str:
    """Prose without code: values as they are written in a configuration."""
    prose = re.sub(r'"([\w.:+/-]+)"', r"`\1`", prose)
    prose = re.sub(r"(?<!`)\b(?:None|null)\b(?!`)", "`null`", prose)
    return prose.replace(">=", "≥").replace("<=", "≤")


def arguments(cls: type) -> dict[str, Any]:
    """The keys that a class takes, each with its default; `NOTHING` if it has none."""
    if dataclasses.is_dataclass(cls):
        return {field.name: _default(field) for field in dataclasses.fields(cls)}
    if typing.is_typeddict(cls):
        return dict.fromkeys(cls.__annotations__, NOTHING)
    signature = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in signature if p.kind is not p.VAR_KEYWORD}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        return NOTHING
    return getattr(field.default, "default", field.default)


def checked(cls: type, given: Iterable[str] = ()) -> list[str]:
    """The keys of a class, those that a configuration gives first.

    Raises
    ------
    Undocumented
        If one has no meaning, or one that has a meaning is none of the class.
    """
    taken, told = arguments(cls), documented(cls)
    open_ended = _takes_more(cls)
    keys = list(dict.fromkeys([*given, *taken, *(told if open_ended else ())]))
    for key in keys:
        if key not in told or not told[key].meaning:
            raise Undocumented(f"{cls.__module__}.{cls.__name__}: {key} has no meaning")
    for key in told:
        if key not in keys or (key not in taken and not open_ended):
            raise Undocumented(f"{cls.__module__}.{cls.__name__}: takes no {key}")
    return keys


def _takes_more(cls: type) -> bool:
    """Whether a class passes further keys on: ``**parameters``."""
    if dataclasses.is_dataclass(cls) or typing.is_typeddict(cls):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())


# --- values ---


def valid(kind: Any, linked: Callable[[type], str]) -> str:
    """What values a type takes, in words; `linked` names a class, or gives "" for others."""
    kind, marks = _bare(kind)
    if choices := _choices(marks):
        return ", ".join(f"`{choice}`" for choice in choices)
    if group := next((mark.name for mark in marks if isinstance(mark, Group)), ""):
        return f"{'list of options' if _is_list(kind) else 'an option'} of `{group}`"
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [typing.Annotated[one, *marks] if marks else one for one in typing.get_args(kind)]
        words = [valid(one, linked) for one in inner]
        return " or ".join(sorted(dict.fromkeys(filter(None, words)), key="`null`".__eq__))
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    if _is_list(kind):
        return "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"NAME: {valid(typing.get_args(kind)[1], linked) or 'value'}"
    return _of_class(kind, marks, linked)


def _of_class(kind: Any, marks: Sequence[Any], linked: Callable[[type], str]) -> str:
    if kind in (None, type(None)):
        return "`null`"
    if kind is bool:
        return "`true`, `false`"
    if kind in (int, float):
        return f"{'whole number' if kind is int else 'number'}{_bounds(marks)}"
    if kind is str:
        return _text(marks)
    return linked(kind) if isinstance(kind, type) else ""


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    """A type and all that it is annotated with."""
    marks: list[Any] = []
    while typing.get_origin(kind) is typing.Annotated:
        marks += kind.__metadata__
        kind = kind.__origin__
    return kind, marks


def _is_list(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _choices(marks: Iterable[Any]) -> tuple[str, ...]:
    functions = (mark.func for mark in marks if isinstance(mark, AfterValidator))
    return next((f.valid for f in functions if isinstance(f, OneOf)), ())


def _bounds(marks: Iterable[Any]) -> str:
    words = []
    for mark in marks:
        if isinstance(mark, Ge):
            words.append(f"≥ {mark.ge}")
        elif isinstance(mark, Gt):
            words.append(f"> {mark.gt}")
        elif isinstance(mark, Le):
            words.append(f"≤ {mark.le}")
        elif isinstance(mark, Lt) and mark.lt != SEEDS:
            words.append(f"< {mark.lt}")
    return f" {', '.join(words)}" if words else ""


def _text(marks: Sequence[Any]) -> str:
    """What a text names."""
    if MODEL in marks:
        return "model"
    if CATALOGUED in marks:
        return "id of ir_datasets"
    if WRITTEN in marks:
        return "folder or address"
    if RELEASED in marks or any(isinstance(mark, Read) for mark in marks):
        return "file or folder"
    return "text"
