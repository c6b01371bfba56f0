"""Is what lies in a result folder still what would be drawn? Figures take longer than all else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from analysis.summary import Summary

STAMP = ".drawn.json"


@dataclass(frozen=True)
class Stamp:
    """What was drawn into a folder.

    Attributes
    ----------
    key : str
        Of all of it together; see `key`.
    files : tuple of str
        Names of the page and of the figures' files.
    figures : dict of str to str
        Name of a figure -> key of what it alone was drawn from.
    """

    key: str = ""
    files: tuple[str, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)

    def whole(self, folder: Path) -> bool:
        """Whether every file is there."""
        return all((folder / name).is_file() for name in self.files)


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


def read(folder: Path) -> Stamp:
    """What was drawn into the folder; empty if that is not known."""
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return Stamp(str(found["key"]), tuple(found["files"]), dict(found["figures"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Stamp()


def write(folder: Path, stamp: Stamp) -> None:
    """Note from what the files were drawn."""
    (folder / STAMP).write_text(json.dumps(asdict(stamp)), encoding="utf-8")
