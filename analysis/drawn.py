"""Is what lies in a result folder still what would be drawn? Figures take longer than all else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from analysis.summary import Summary

STAMP = ".drawn.json"


def key(summary: Summary, texts: Iterable[str]) -> str:
    """Hash of all that figures and page are made from: scores, facts, tables, and the code."""
    found = hashlib.sha256(version("matplotlib").encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    for place, scores in summary.scores.items():
        found.update(repr((place, scores.queries, scores.seeds)).encode())
        found.update(scores.values.tobytes())
    trials = summary.trials
    facts = (trials.facts, trials.runs, trials.commits)
    cells = [(cell.overrides, cell.grid, cell.signature, cell.cfg) for cell in trials.cells]
    found.update(json.dumps([facts, cells], sort_keys=True, default=str).encode())
    for text in (repr(summary.spec), *texts):
        found.update(text.encode())
    return found.hexdigest()


def read(folder: Path, wanted: str) -> list[Path] | None:
    """The files that were drawn from the same; None if it was other or one is not there."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        paths = [folder / name for name in stamp["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    same = stamp.get("key") == wanted and all(path.is_file() for path in paths)
    return paths if same else None


def write(folder: Path, key: str, paths: Iterable[Path]) -> None:
    """Note from what the files were drawn."""
    stamp = {"key": key, "files": [path.name for path in paths]}
    (folder / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
