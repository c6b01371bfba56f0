"""Train a student on lists: a loop on Accelerate that resumes exactly where it was stopped.

`loop.fit` is the file to read first; `step` has what happens between the lists of a step and the
new weights (micro-batches, gradient cache, several processes).
"""

from rdx.trainer.budgets import Epochs, Pairs, Steps
from rdx.trainer.loop import Diverged, fit
from rdx.trainer.settings import Prefinetune, Trainer

__all__ = ["Diverged", "Epochs", "Pairs", "Prefinetune", "Steps", "Trainer", "fit"]
