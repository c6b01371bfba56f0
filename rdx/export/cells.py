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
from rdx.store import NotFound, Unreadable, damage, whole
from rdx.students import Student

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
    """The one folder of some stages whose signature begins so; `rdx.store.whole`.

    Raises
    ------
    ExportError
        If there is none that is finished, or more than one.
    """
    try:
        return whole(beginning, *(store / stage for stage in stages))
    except NotFound as error:
        raise ExportError(str(error)) from error


def check_licence(licence: str | None) -> None:
    """Refuse what is no identifier of a licence as the Hub has them."""
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ExportError(
            f"licence={licence!r}: must be an identifier as the Hub has them, in small letters, "
            "e.g. apache-2.0, mit, cc-by-nc-4.0, other"
        )
