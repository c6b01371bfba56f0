"""Checkpoints: a folder that appears whole, with the last weights, the best, and the state.

    checkpoint-STEP/last.safetensors   weights after that many steps
                   /best.safetensors   weights of the best validation so far, if there was any
                   /state.pt           optimiser, gradient scaler, progress

The learning rate, the data position and the dropout are functions of (seed, step), so that the
step stands for them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import nn

from rdx.equality import settled

LAST, BEST, STATE = "last.safetensors", "best.safetensors", "state.pt"
_NAME = "checkpoint-"


class CheckpointState(TypedDict, total=False):
    """What is in a checkpoint beside weights; "progress" holds the fields of `Progress`."""

    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    progress: dict[str, Any]


@dataclass
class Progress:
    """What a training knows beside its weights and its optimiser.

    Attributes
    ----------
    step
        Optimiser steps done.
    max_tokens
        Largest micro-batch; smaller than at the start where memory did not suffice.
    pairs, tokens, padded, flops
        Seen so far, in all processes; `padded` are tokens with their padding.
    curve
        The loss of every step.
    start
        Validation before the first step.
    validations
        [steps done, value].
    truncated
        Rows of passages seen that were cut when they were tokenised, and ~row of queries.
    """

    max_tokens: int
    step: int = 0
    pairs: int = 0
    tokens: int = 0
    padded: int = 0
    flops: int = 0
    curve: list[float] = field(default_factory=list)
    start: float | None = None
    validations: list[list[float]] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)

    @property
    def best(self) -> int:
        """Index of the best validation; the first of equals (see `rdx.equality`)."""
        return int(np.argmax(settled([value for _, value in self.validations])))

    @property
    def waited(self) -> int:
        """Validations since the best."""
        return len(self.validations) - 1 - self.best if self.validations else 0


def save(work: Path, student: nn.Module, state: CheckpointState, progress: Progress) -> None:
    """Write a checkpoint and remove those before.

    The best weights are these, or those of the checkpoint before. The folder gets its name when all
    of it is on the disk.
    """
    before, temporary = find(work), work / f"{_NAME}unfinished"
    final = work / f"{_NAME}{progress.step}"
    if final == before:
        return
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_model(student, str(temporary / LAST))
    if progress.validations and progress.validations[progress.best][0] == progress.step:
        _link(temporary / LAST, temporary / BEST)
    elif before is not None and (before / BEST).exists():
        _link(before / BEST, temporary / BEST)
    torch.save({**state, "progress": asdict(progress)}, temporary / STATE)
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    temporary.rename(final)
    _sync(work)
    for old in _finished(work):
        if old != final:
            _discard(old)


def find(work: Path) -> Path | None:
    """The newest finished checkpoint, if there is one."""
    return max(_finished(work), key=lambda p: int(p.name.removeprefix(_NAME)), default=None)


def _finished(work: Path) -> list[Path]:
    return [p for p in work.glob(f"{_NAME}*") if p.name.removeprefix(_NAME).isdecimal()]


def load(work: Path, student: nn.Module) -> CheckpointState | None:
    """Load the newest checkpoint's weights into the student; returns its state, if there is one."""
    newest = find(work)
    if newest is None:
        return None
    load_model(student, str(newest / LAST))
    state: CheckpointState = torch.load(newest / STATE, map_location="cpu", weights_only=True)
    return state


def load_best(work: Path, student: nn.Module) -> None:
    """Load the weights of the best validation into the student."""
    newest = find(work)
    if newest is not None:
        load_model(student, str(newest / BEST))


def remove(work: Path) -> None:
    """Remove all checkpoints, finished or not."""
    for path in sorted(work.glob(f"{_NAME}*")):
        _discard(path)


def _discard(folder: Path) -> None:
    """Remove a checkpoint; killed half way, it must not pass for a finished one."""
    unfinished = folder.with_name(f"{_NAME}unfinished")
    if folder != unfinished:
        shutil.rmtree(unfinished, ignore_errors=True)
        folder.rename(unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def _sync(path: Path) -> None:
    """Flush a file or a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
