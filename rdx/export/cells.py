"""Find a finished cell in the store, with its facts, scores and checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import config
from rdx.artifacts import Evaluated
from rdx.config import Config
from rdx.facts import TrialFacts
from rdx.faults import Mendable
from rdx.stages import DISTILL, EVALUATE, PREFINETUNE
from rdx.store import Unreadable, damage
from rdx.students import Student

DESCRIPTION = "rdx.yaml"  # of an exported student: signatures and configuration
# Of a student that only scores, on whatever machine this is.
AS_TRAINED = {"lora": None, "compile": False, "attention_implementation": None}


class ExportError(Mendable, ValueError):
    """What is asked for cannot be exported; the message says why and what to do."""


@dataclass(frozen=True)
class Finished:
    """A finished cell as the store has it.

    Attributes
    ----------
    config
        Its resolved configuration.
    facts
        Its `trial.json`.
    per_query
        Values [collection, system, query_id, measure, value].
    checkpoint
        Folder of the trained student.
    """

    config: Config
    facts: TrialFacts
    per_query: pd.DataFrame
    checkpoint: Path

    @property
    def student(self) -> Student:
        """What loads the checkpoint for scoring, on whatever machine this is."""
        student: Student = config.build(self.config["student"] | AS_TRAINED, "student")
        return student


def find(store: Path, signature: str) -> Finished:
    """The finished cell of a signature, or of a beginning of it that is unique.

    Raises
    ------
    ExportError
        If there is none or more than one, or if it is damaged or lacks its configuration.
    Unreadable
        If this user may not read it, or another version of rdx wrote it.
    """
    folder = intact(complete(store, signature, EVALUATE.name))
    cell = Evaluated(folder)
    try:
        stage = DISTILL if cell.config["loss"] else PREFINETUNE
        checkpoint = store / stage.name / cell.facts.signatures[stage.name]
    except KeyError as error:
        raise Unreadable(folder, f"another version of rdx wrote it (no {error})") from error
    return Finished(cell.config, cell.facts, cell.per_query, intact(checkpoint, "the weights: "))


def intact(folder: Path, what: str = "") -> Path:
    """A stored result whose files are those of its manifest, else ExportError."""
    if problem := damage(folder):
        raise ExportError(f"{what}{folder} is damaged: {problem}; run the cell's command again")
    return folder


def complete(store: Path, beginning: str, *stages: str) -> Path:
    """The one folder of some stages whose signature begins so.

    Raises
    ------
    ExportError
        If there is none that is finished, or more than one.
    Unreadable
        If this user may not look for it.
    """
    found = [path for stage in stages for path in _folders(store / stage)]
    same = [path for path in found if path.name.startswith(beginning)]
    known = [path for path in same if "." not in path.name]
    if not beginning or len(known) > 1:
        raise ExportError(
            f"{beginning!r} is the beginning of {len(known)} signatures: {_some(known)}; "
            "give more of it"
        )
    if known:
        return known[0]
    if same:  # SIGNATURE.partial
        raise ExportError(
            f"{same[0].name.split('.')[0]} is not finished: run its command again, it goes on from "
            "where it was stopped"
        )
    finished = [path for path in found if "." not in path.name]
    places = " or ".join(str(store / stage) for stage in stages)
    raise ExportError(
        f"nothing finished in {places} has a signature that begins with {beginning!r}; there are "
        f"{len(finished)}{': ' if finished else ''}{_some(finished)}"
    )


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(error.filename or root, error) from error


def check_licence(licence: str | None) -> None:
    """Refuse what is no identifier of a licence as the Hub has them."""
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ExportError(
            f"licence={licence!r}: must be an identifier as the Hub has them, in small letters, "
            "e.g. apache-2.0, mit, cc-by-nc-4.0, other"
        )


def _some(folders: list[Path]) -> str:
    names = [folder.name for folder in folders[:8]]
    return ", ".join(names) + (", ..." if len(folders) > 8 else "")
