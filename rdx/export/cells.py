"""Find a finished cell in the store, with its facts, scores and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rdx import config
from rdx.artifacts import Evaluated
from rdx.config import Config
from rdx.facts import TrialFacts
from rdx.faults import Mendable
from rdx.stages import DISTILL, PREFINETUNE
from rdx.store import NotFound, Unreadable, damage, whole
from rdx.students import Student


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
        plain = {"lora": None, "compile": False, "attention_implementation": None}
        student: Student = config.build(self.config["student"] | plain, "student")
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
    try:
        folder = store / "evaluate" / whole(store / "evaluate", signature)
    except NotFound as error:
        raise ExportError(str(error)) from error
    again = "run its command again"
    if problem := damage(folder):
        raise ExportError(f"{folder} is damaged: {problem}; {again}")
    cell = Evaluated(folder)
    try:
        stage = DISTILL if cell.config["loss"] else PREFINETUNE
        checkpoint = store / stage.name / cell.facts.signatures[stage.name]
    except KeyError as error:
        raise Unreadable(folder, f"another version of rdx wrote it (no {error})") from error
    if problem := damage(checkpoint):
        raise ExportError(f"the weights of {folder.name}, {checkpoint}: {problem}; {again}")
    return Finished(cell.config, cell.facts, cell.per_query, checkpoint)
