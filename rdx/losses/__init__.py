"""Losses: one frozen dataclass per equation, torch only.

Every loss is called as ``loss(student_scores, teacher_ranks, mask, teacher_scores=None)`` and gives
a scalar. All are [B, N]: student scores (higher = more relevant), teacher ranks (1 = best; equal
ranks are ties), a boolean mask that is False at padding, where everything else is ignored, and the
teacher's own scores (higher = more relevant, NaN where it gave none), which most losses ignore. All
arithmetic is float32 (float64 for float64 student scores), inside autocast too; logarithms are
natural unless a docstring says otherwise. A temperature always divides. A batch without anything
to learn from (no ordered pair; no passage, where targets are of single passages) gives a zero that
has a gradient graph.

The attribute ``needs`` says what a loss reads of the teacher:

- "ranks": any order; ties are allowed, and tied passages are not told apart;
- "labels": a split into relevant (the best rank of a list) and not (any other), as labels make it;
- "scores": its scores as well; without them the call is a ValueError.

The attribute ``scales``, where there is one, says which scales of these scores it accepts
(`rdx.rankings.scaled`); without, or with None, all. Both may depend on the arguments of the loss.

What a loss is divided by (pairs, passages or lists) follows from ranks and mask alone, so that each
is `Divisible`: the loss of a step is made up of those of groups of its lists. A loss without the
method ``denominator`` is one too, and takes the gradient cache where memory is short.
"""

from rdx.losses.approximate import ADRMSE, ApproxMRR, ApproxNDCG
from rdx.losses.combined import Divisible, Loss, Sum
from rdx.losses.listwise import KL, LCE, ListMLE, ListNet
from rdx.losses.pairwise import Hinge, LambdaRank, MarginMSE, RankNet
from rdx.losses.pointwise import BCE, MSE

__all__ = [
    "ADRMSE",
    "BCE",
    "KL",
    "LCE",
    "MSE",
    "ApproxMRR",
    "ApproxNDCG",
    "Divisible",
    "Hinge",
    "LambdaRank",
    "ListMLE",
    "ListNet",
    "Loss",
    "MarginMSE",
    "RankNet",
    "Sum",
]
