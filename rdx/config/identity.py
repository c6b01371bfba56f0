"""What decides a result: the identity of a configuration, and the signatures of its stages."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rdx import folders
from rdx.config.building import allowed
from rdx.config.paths import reads_file

# What never changes a result, only when, where and how fast it is computed.
SCHEDULING = frozenset(("device", "threads", "max_tokens", "checkpoint_seconds"))
# Likewise, but only as arguments of one class.
SCHEDULING_OF = {
    "rdx.teachers.Listwise": ("concurrency", "ledger", "caps", "prices", "published"),
    "rdx.teachers.Endpoint": (
        *("base_url", "key_variable", "timeout", "tries", "backoff", "max_wait", "patience"),
    ),
    "rdx.teachers.Local": ("batch",),
    "rdx.students.Student": ("compile", "attention_implementation"),
    "rdx.trainer.Trainer": ("gradient_cache",),
    "rdx.evaluation.Evaluation": ("runs",),  # the files in it are told by their content
}
# Packages whose version decides a result, by the class that uses them.
ENGINES = {
    "rdx.samplers.BM25": ("bm25s", "PyStemmer"),
    "rdx.samplers.ColBERT": ("sentence-transformers", "transformers"),
    "rdx.teachers.QueryLikelihood": ("gguf",),
}
# Arguments of collections that decide queries and judgements, and no passage.
OF_QUERIES = frozenset(("queries", "qrels", "dev", "name", "judged"))
# Those that decide only which queries a split has, not what is laid out on disk.
OF_SPLITS = frozenset(("dev", "judged", "name"))
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
# Stage 1 has its own values of these fields of `trainer`.
STAGE_1_FIELDS = ("learning_rate", "batch", "warmup", "validate_every", "select", "patience")
SCHEMA = 4  # raise it when the meaning of a stored result changes


LAYOUT, CORPUS = OF_SPLITS, OF_QUERIES


def identity(thing: Any, without: frozenset[str] = frozenset()) -> Any:
    """What decides the results of an object: its class and fields, defaults included."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        cls = type(thing)
        target = f"{cls.__module__}.{cls.__qualname__}"
        short = f"{cls.__module__.rpartition('.')[0]}.{cls.__qualname__}"
        left_out = SCHEDULING.union(*(SCHEDULING_OF.get(t, ()) for t in (target, short)), without)
        plain = {"class": short}
        for f in dataclasses.fields(thing):
            if f.name not in left_out:
                plain[f.name] = _field(getattr(thing, f.name), f.name, short)
        for engine in ENGINES.get(short, ()):
            plain[engine] = _version(engine)
        return plain
    return _field(thing, "", "")


def _field(value: Any, key: str, owner: str) -> Any:
    if dataclasses.is_dataclass(value):
        return identity(value)
    if isinstance(value, Mapping):
        return {str(k): _field(v, str(k), owner) for k, v in value.items()}
    if isinstance(value, list | tuple):
        if key == "libraries":
            return {str(one): _version(DISTRIBUTIONS.get(one, str(one))) for one in value}
        return [_field(item, key, owner) for item in value]
    if key == "prompt" and isinstance(value, str):
        return _prompt(value)
    if isinstance(value, str) and reads_file(key, owner) and Path(value).exists():
        return _content(Path(value))
    return value


def _prompt(name: str) -> Any:
    """A prompt's content: of a file, of one of rdx, or of the version of rank-llm that has it."""
    if name.startswith("rank_llm:"):
        return {"name": name, "version": _version("rank-llm")}
    path = folders.options("teacher/prompts").get(name, Path(name))
    return _content(path) if path.is_file() else name


def _source(module: str) -> Any:
    """The content of the file of a declared extension, which has no schema number as rdx has."""
    if not allowed(f"{module}."):
        return None  # `build` refuses it; nothing of it is imported, not even to find it
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    origin = Path(found.origin) if found is not None and found.origin else None
    return _content(origin) if origin is not None and origin.is_file() else None


def _version(package: str) -> str | None:
    return _version_on(package, tuple(sys.path))


@lru_cache(maxsize=256)
def _version_on(package: str, path: tuple[str, ...]) -> str | None:
    """Looking one up takes a millisecond; a cell has some twenty."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # `check` refuses it


def _content(path: Path) -> dict[str, str]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {
        "" if path.is_file() else str(file.relative_to(path)): _sha256(
            file, file.stat().st_mtime_ns, file.stat().st_size
        )
        for file in files
    }


@lru_cache(maxsize=4096)
def _sha256(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
