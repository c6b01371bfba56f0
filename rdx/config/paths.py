"""Which values of a configuration name files, and the one place where these become absolute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What is written: always a path, but for a URI.
WRITTEN = frozenset(("store", "ledger", "artifacts"))
# What is read: a path if it is there, else the name of something else, as of a model of the Hub.
READ = frozenset(("corpus", "queries", "qrels", "run", "runs", "model", "prompt"))
# Keys of the same spelling that never name a file, by their class.
NAMES = {"rdx.evaluation.TestSet": ("corpus",), "rdx.teachers.Endpoint": ("model",)}
SQLITE = "sqlite:///"


def absolute(cfg: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a resolved configuration with its relative paths made absolute from a folder.

    Whatever process it is sent to then means the same files. The identity of a cell stays as it
    is: files are told by their content, and what is written has no part in it.
    """
    return {
        key: node if key == "spec" else _absolute(node, key, "", folder)
        for key, node in cfg.items()
    }


def reads_file(key: str, target: str) -> bool:
    """Whether a text at this key of a class may name a file or folder that is read."""
    return key in READ and key not in NAMES.get(target, ())


def _absolute(node: Any, key: str, target: str, folder: Path) -> Any:
    if isinstance(node, dict):
        own = str(node.get("_target_", ""))
        return {name: _absolute(value, name, own, folder) for name, value in node.items()}
    if isinstance(node, list):
        return [_absolute(item, key, target, folder) for item in node]
    if not isinstance(node, str) or not node:
        return node
    if key == "uri" and node.startswith(SQLITE):
        path = node.removeprefix(SQLITE)
        return f"{SQLITE}{folder / path}" if path else node
    written = key in WRITTEN and ":/" not in node
    named = key == "prompt" and not node.endswith((".yaml", ".yml"))  # one of ours
    read = reads_file(key, target) and not named and (folder / node).exists()
    return str(folder / node) if written or read else node
