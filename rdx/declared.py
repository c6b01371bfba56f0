"""Types and marks of settings: what values are valid, and which of them decide a result.

A class of settings is a `settings(frozen=True)` dataclass: values are checked against the types of
the fields, and converted to them (1 is 1.0 where a float is meant), wherever one is made. A plain
frozen dataclass of an extension may say the same; it is checked when a configuration is built.

Fields say more by `Annotated[TYPE, MARK, ...]` with the marks below. A class itself may say

engines
    names of packages whose version decides its results;
requires
    name of a package that must be installed for it, beyond those that rdx always needs;
paid
    of a backend: whether every answer may cost money;
needs, gives
    of a loss, or of what picks training lists: what it reads of a teacher; of a teacher: what it
    gives beyond an order of passages, each with the values of its own fields that this takes;
scales, scale
    of a loss: which scales of a teacher's scores it accepts (None, as without: all), "probability"
    among them where a teacher's own scores do if they are such; of a teacher that gives scores: a
    field (`rdx.rankings.Scale`), the scale that a student is given them in;
probabilities
    of a teacher: whether its own scores, at scale "none", are probabilities;
check()
    raises FileNotFoundError or ValueError if something on this machine is not as it needs it; the
    message begins with the name of the field.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, ConfigDict, JsonValue, Strict, TypeAdapter
from pydantic.dataclasses import dataclass as _checked

__all__ = [
    "Above0",
    "BelowOne",
    "CATALOGUED",
    "DecidedBy",
    "Device",
    "From0",
    "Group",
    "Known",
    "MODEL",
    "Mark",
    "NotNegative",
    "OneOf",
    "PRECISION",
    "PassagesBy",
    "Positive",
    "QUERIES",
    "READ",
    "RELEASED",
    "Read",
    "SCHEDULES",
    "SEEDS",
    "SELECTS",
    "SPLITS",
    "STUDENT",
    "Seed",
    "Share",
    "Texts",
    "WRITTEN",
    "at_least",
    "content",
    "converted",
    "gives",
    "marked",
    "marks",
    "names_place",
    "one_of",
    "reads",
    "settings",
    "types_of",
    "version",
]

CONFIG = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

if TYPE_CHECKING:  # to type checkers a dataclass like any other
    from dataclasses import dataclass as settings
else:
    settings = functools.partial(_checked, config=CONFIG)


class Mark(Enum):
    """What a field is to the identity of a result, and to the machine.

    Attributes
    ----------
    SCHEDULES
        Changes when, where or how fast a result is computed, and no result.
    QUERIES, SPLITS
        Of a collection: decides queries and judgements but no passage; only which queries a split
        has.
    SELECTS
        Of a teacher: decides what of its answers a student is given, and no answer.
    WRITTEN
        A file or folder that is written, or an address.
    RELEASED, CATALOGUED
        A file, and an id of ir_datasets, that ``data fetch`` may download.
    PRECISION
        May be "auto", which the machine decides for the device in the field `device`.
    MODEL
        An id of the Hub, whose commit stands in the field `revision`; a folder; or an asset.
    STUDENT
        A student of another cell or a folder, as the root's `start` names one; its weights decide
        (`rdx.stages.origins`), and not how they are named.
    """

    SCHEDULES = "schedules"
    QUERIES = "queries"
    SPLITS = "splits"
    SELECTS = "selects"
    WRITTEN = "written"
    RELEASED = "released"
    CATALOGUED = "catalogued"
    PRECISION = "precision"
    MODEL = "model"
    STUDENT = "student"


SCHEDULES, QUERIES, SPLITS = Mark.SCHEDULES, Mark.QUERIES, Mark.SPLITS
SELECTS, WRITTEN = Mark.SELECTS, Mark.WRITTEN
RELEASED, CATALOGUED = Mark.RELEASED, Mark.CATALOGUED
PRECISION, MODEL, STUDENT = Mark.PRECISION, Mark.MODEL, Mark.STUDENT


@dataclass(frozen=True)
class Read:
    """A file or folder that is read, if there is one of this name: its identity is its content.

    With `endings`, names that end otherwise are those of something else.
    """

    endings: tuple[str, ...] = ("",)


READ = Read()


@dataclass(frozen=True)
class DecidedBy:
    """What decides a result is a function of the value, such as the version of what it names."""

    of: Callable[[Any], JsonValue]


@dataclass(frozen=True)
class PassagesBy:
    """What of the value decides the passages of a collection, and not its queries."""

    of: Callable[[Any], JsonValue]


@dataclass(frozen=True)
class Group:
    """An object that an option of this config group describes."""

    name: str


@dataclass(frozen=True)
class Known:
    """Classes that fit, by their targets, beside those of extensions."""

    targets: tuple[str, ...]


@dataclass(frozen=True)
class OneOf:
    """What `one_of` gives to pydantic: a check that a value is among these."""

    valid: tuple[str, ...]

    def __call__(self, value: str) -> str:
        """Return the value; ValueError if it is not among them."""
        if value not in self.valid:
            raise ValueError(f"must be one of {list(self.valid)}")
        return value


def one_of(*valid: str) -> AfterValidator:
    """Refuse a value that is not among these."""
    return AfterValidator(OneOf(valid))


def at_least(bound: float) -> Ge:
    """A number that is this or more."""
    return Ge(bound)


Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Above0 = Annotated[float, Gt(0)]
From0 = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
SEEDS = 2**63  # numbers that may be seeds: 0 and more, below this
Seed = Annotated[int, Ge(0), Lt(SEEDS)]
Device = Annotated[str, one_of("auto", "cpu", "cuda"), SCHEDULES]
Texts = Annotated[tuple[str, ...], Strict(False)]  # a list of a configuration


def gives(teacher: object, what: str) -> bool:
    """Whether a teacher, as it is set, gives something beyond an order of passages."""
    takes = getattr(teacher, "gives", {}).get(what)
    return takes is not None and all(getattr(teacher, k) == value for k, value in takes.items())


@lru_cache(maxsize=512)
def types_of(cls: type) -> Mapping[str, Any]:
    """Type of every argument of a class, marks included."""
    owner = cls if dataclasses.is_dataclass(cls) else vars(cls).get("__init__", cls)
    return typing.get_type_hints(owner, include_extras=True)


@lru_cache(maxsize=512)
def marks(cls: type) -> Mapping[str, tuple[Any, ...]]:
    """What every field of a class is annotated with."""
    return {name: tuple(_metadata(kind)) for name, kind in types_of(cls).items()}


def marked(cls: type | None, mark: Mark) -> list[str]:
    """The fields of a class with a mark."""
    return (
        []
        if cls is None
        else [name for name, field_marks in marks(cls).items() if mark in field_marks]
    )


def reads(field_marks: tuple[Any, ...], value: object) -> bool:
    """Whether the value of a field with these marks may name a file or folder that is read."""
    endings = [mark.endings for mark in field_marks if isinstance(mark, Read)]
    endings += [READ.endings] if not {MODEL, STUDENT}.isdisjoint(field_marks) else []
    return isinstance(value, str) and value != "" and any(map(value.endswith, endings))


def names_place(field_marks: tuple[Any, ...]) -> bool:
    """Whether the value of a field with these marks is a file, a folder, an address or an id."""
    return any(
        isinstance(mark, Read) or mark in (WRITTEN, MODEL, RELEASED, CATALOGUED)
        for mark in field_marks
    )


def converted(cls: type, name: str, value: Any) -> Any:
    """An argument of a class as its type wants it; ValidationError if it is none of the type."""
    return _adapter(cls, name).validate_python(value)


@lru_cache(maxsize=1024)
def _adapter(cls: type, name: str) -> TypeAdapter[Any]:
    kind = types_of(cls).get(name, Any)
    return TypeAdapter(kind, config=CONFIG)


def _metadata(kind: Any) -> Iterable[Any]:
    """What a type is annotated with, also where it is one of several: ``Count | None``."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        yield from kind.__metadata__
        yield from _metadata(kind.__origin__)
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(kind):
            yield from _metadata(part)


@lru_cache(maxsize=256)
def version(package: str) -> str | None:
    """Of an installed package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def content(path: Path) -> dict[str, JsonValue]:
    """The sha256 of a file, or of every file of a folder by its place in it."""
    if not path.is_dir():
        return {"": _sha256(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): _sha256(file) for file in files}


def _sha256(path: Path) -> str:
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _digest(path: Path, modified: int, size: int) -> str:
    """Computed once for each state of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
