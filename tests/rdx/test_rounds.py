"""Cells that begin from the student of another, and candidates that a student draws again."""

import pytest

from rdx import config, stages
from rdx.artifacts import Checkpoint

KD = "'prefinetune=lce'", "'loss=ranknet'"
CL = ("prefinetune=none", "teacher=labels", "loss=lce")
WEIGHTS = ("model.safetensors", "head.safetensors")


def folder_of(store, summary, step):
    return store / step.split()[0] / summary.facts.signatures[step]


def weights(folder):
    return [(folder / name).read_bytes() for name in WEIGHTS]


def test_try(world, tmp_path):
    first = world.run(tmp_path / "store", "prefinetune=none")
    second = world.run(tmp_path / "store", "prefinetune=none", "teacher=labels", "loss=lce", f"start={first.facts.signature[:8]}")
    third = world.run(tmp_path / "store", "prefinetune=none", "teacher=labels", "loss=lce", "start=['teacher=oracle','loss=ranknet']")
    print(second.stages, third.stages)
    assert second.facts.signature == third.facts.signature
