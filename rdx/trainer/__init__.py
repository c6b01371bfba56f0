"""Train a student on lists: a loop on Accelerate that resumes exactly where it was stopped.

`loop` is the file to read first; `step` has what happens between the lists of a step and the new
weights (micro-batches, gradient cache, several processes); `processes` and `sharding` are for more
than one process.
"""

from rdx.trainer.budgets import Epochs, Pairs, Steps
from rdx.trainer.loop import fit
from rdx.trainer.processes import in_step, run, running, together
from rdx.trainer.settings import Prefinetune, Trainer

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
