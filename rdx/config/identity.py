"""What decides a result: the identity of a configuration, and the signatures of its stages."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from rdx import folders
from rdx.config.building import allowed
from rdx.config.paths import reads_file
from rdx.config.revisions import MODELS
from rdx.config.schema import GROUPS
from rdx.store import signature

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


def identity(cfg: dict[str, Any]) -> dict[str, Any]:
    """What decides a result: the groups without scheduling knobs, files replaced by content."""
    return {group: _identity(cfg[group]) for group in GROUPS if group != "tracking"} | {
        "seed": cfg["seed"]
    }


def corpus(node: dict[str, Any]) -> dict[str, Any]:
    """What decides the passages of a collection, given its configuration, whatever its queries."""
    found = {key: value for key, value in _identity(node).items() if key not in OF_QUERIES}
    if node["_target_"] == "rdx.data.IrDatasets":
        import ir_datasets

        found["id"] = ir_datasets.docs_parent_id(node["id"])  # of many data sets one
    return found


def signatures(cfg: dict[str, Any]) -> dict[str, str]:
    """Signature of every stage of a cell, in the order of `rdx.pipeline`; the last is the cell's.

    Each one covers just what the stage depends on, so that e.g. another loss asks no teacher again.
    """
    part = identity(cfg)
    depth, trainer = part["depth"], part["trainer"]
    stages: dict[str, str] = {}

    def sign(stage: str, *needs: Any) -> str:
        return signature({"stage": stage, "schema": SCHEMA, "needs": needs})

    asked = depth["k"] if depth["mode"] == "relabel" else depth["pool"]
    chosen = {"queries": depth["queries"], "seed": depth["seed"], "asked": asked}
    stages["candidates"] = sign("candidates", part["data"], part["sampler"], chosen)
    stages["teach"] = sign("teach", stages["candidates"], part["teacher"])
    shared = {key: value for key, value in trainer.items() if key not in STAGE_1_FIELDS}
    stages["prefinetune"] = sign(
        "prefinetune",
        part["student"],
        *((part["prefinetune"], part["data"], shared) if part["prefinetune"] else ()),
    )
    evaluation = part["evaluation"]
    of_dev = ("dev_first_stage", "dev_queries", "k")
    validated = [*(evaluation[key] for key in of_dev), evaluation["measures"][0]]
    taught = [part["loss"], stages["teach"], depth, part["budget"], trainer, part["seed"]]
    taught += validated if trainer.get("validate_every") else []
    stages["distill"] = sign("distill", stages["prefinetune"], *(taught if part["loss"] else ()))
    dev = part["data"] if evaluation["interpolate"] else None
    evaluated = (evaluation, trainer["precision"], dev)
    stages["reference"] = sign("reference", evaluated, part["teacher"])
    last = stages["reference"] if part["loss"] else None
    stages["evaluate"] = sign("evaluate", stages["distill"], evaluated, last)
    return stages


def _identity(node: Any, key: str = "", owner: str = "") -> Any:
    if isinstance(node, dict):
        target = node.get("_target_", "")
        left_out = SCHEDULING.union(SCHEDULING_OF.get(target, ()))
        plain = {k: _identity(v, k, str(target)) for k, v in node.items() if k not in left_out}
        if target in MODELS and plain.get("revision") is None:
            plain.pop("revision", None)  # of an asset or a folder, whose content is told
        if target in ENGINES:
            plain["_versions_"] = {name: _version(name) for name in ENGINES[target]}
        if target and not str(target).startswith("rdx."):
            plain["_source_"] = _source(str(target).rpartition(".")[0])
        return plain
    if isinstance(node, list):
        if key == "libraries":
            return {str(one): _version(DISTRIBUTIONS.get(one, str(one))) for one in node}
        return [_identity(item, key, owner) for item in node]
    if key == "prompt" and isinstance(node, str):
        return _prompt(node)
    if isinstance(node, str) and reads_file(key, owner) and Path(node).exists():
        return _content(Path(node))  # not its place
    return node


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
