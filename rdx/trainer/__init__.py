"""Train a student on lists: a loop on Accelerate that resumes exactly where it was stopped.

`loop` is the file to read first; `step` has what happens between the lists of a step and the new
weights (micro-batches, gradient cache, several processes); `processes` and `sharding` are for more
than one process.
"""

from typing import TYPE_CHECKING

from rdx import late
from rdx.trainer.budgets import Epochs, Pairs, Steps
from rdx.trainer.processes import in_step, run, running, together
from rdx.trainer.settings import Prefinetune, Trainer

if TYPE_CHECKING:
    from rdx.trainer.loop import fit
else:
    __getattr__ = late.exports(__name__, {"loop": ("fit",)})

__all__ = [
    "Epochs",
    "Pairs",
    "Prefinetune",
    "Steps",
    "Trainer",
    "fit",
    "in_step",
    "run",
    "running",
    "together",
]
