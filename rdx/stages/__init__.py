"""Stages: their table (`rdx.stages.table`), and what is derived from it.

What decides each result, which steps it gets and how much work it is stand in columns of their own
(`deciding`, `wiring`, `amounts`).
"""

from rdx.stages.derived import (
    Signatures,
    begun,
    cells,
    distinct,
    inputs,
    over_seeds,
    signed,
    split,
    steps,
    work,
)
from rdx.stages.stage import Inputs, Stage, Step, Work
from rdx.stages.table import (
    CANDIDATES,
    COLLECTION,
    DISTILL,
    EVALUATE,
    INDEX,
    LAST,
    PREFINETUNE,
    REFERENCE,
    RETRIEVE,
    SCHEMA,
    SELECT,
    STAGES,
    TEACH,
    TOKENS,
)

__all__ = [
    "CANDIDATES",
    "COLLECTION",
    "DISTILL",
    "EVALUATE",
    "INDEX",
    "LAST",
    "PREFINETUNE",
    "REFERENCE",
    "RETRIEVE",
    "SCHEMA",
    "SELECT",
    "STAGES",
    "TEACH",
    "TOKENS",
    "Inputs",
    "Signatures",
    "Stage",
    "Step",
    "Work",
    "begun",
    "cells",
    "distinct",
    "inputs",
    "over_seeds",
    "signed",
    "split",
    "steps",
    "work",
]
