"""Losses on approximate ranks: a measure, with a sigmoid in place of each comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rdx import late
from rdx.declared import Above0, one_of, settings
from rdx.losses.lists import (
    GAINS,
    TIES,
    approximate_ranks,
    dense_ranks,
    gains,
    ideal_dcg,
    ordered_pairs,
    real_pairs,
)
from rdx.losses.means import Mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late.module("torch")


@settings(frozen=True)
class ADRMSE(Mean):
    r"""ADR-MSE: approximate, discounted rank mean squared error.

    ``mean_i (1 + sum_{j != i} sigmoid((s_j - s_i) / T) - r_i)^2 / log2(r_i + 1)``, r teacher ranks

    The mean is over the passages of a list, then over the lists of the batch, so that every list
    weighs the same (the same number as pooling whenever the lists are equally long).

    Ties: "average" gives tied passages the mean of the ranks they span, so that a tied list scored
    equally costs nothing (as sentence-transformers does); "ordinal" breaks ties by position in the
    list (as Lightning IR's double argsort does, up to its arbitrary order). Full permutations
    have no ties and both agree.

    Source: Schlatt et al. (2025, Rank-DistiLLM), §3; approximate ranks after Qin et al. (2010).

    Parameters
    ----------
    temperature
        T > 0, divides score differences.
    discount
        "log2": divide by log2(rank + 1); "none": plain mean squared error of ranks.
    ties
        "average" or "ordinal".

    Examples
    --------
    >>> import torch
    >>> tied = torch.tensor([[5, 5]])
    >>> ADRMSE()(torch.zeros(1, 2), tied, torch.ones(1, 2, dtype=torch.bool)).item()
    0.0
    """

    temperature: Above0 = 1.0
    discount: Annotated[str, one_of("log2", "none")] = "log2"
    ties: Annotated[str, one_of(*TIES)] = "average"

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        target = dense_ranks(ranks, real_pairs(mask), self.ties).to(scores.dtype)  # 1 = best
        error = (approximate_ranks(scores, mask, self.temperature) - target) ** 2
        if self.discount == "log2":
            error = error / torch.log2(target.clamp(min=1) + 1)
        return torch.where(mask, error, 0).sum(1) / mask.sum(1).clamp(min=1)

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        return mask.any(1)


@settings(frozen=True)
class ApproxNDCG(Mean):
    r"""ApproxNDCG: one minus nDCG at approximate ranks.

    ``1 - (1 / Z) sum_i G_i / log2(1 + a_i),   a_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / T)``

    G is the gain of a passage out of its teacher rank and Z the DCG of the teacher's order, over
    the whole list (no cutoff). The mean is over the lists that the teacher orders at all; the value
    of a list lies between 0 and 1, and 0 is reached as scores move apart in the teacher's order.
    The discount has log2, which the quotient cancels.

    Ties: passages tied by the teacher have equal gains (that of the last rank they span), so that
    with relevant passages at rank 1 and the rest tied it is the binary nDCG (not for the gain
    "reciprocal", which is above 0 everywhere).

    Source: Qin, Liu and Li (Information Retrieval 2010), approximation of positions (our T is
    1 / alpha) with other gains; see `gain`.

    Parameters
    ----------
    temperature
        T > 0, divides score differences. Small: nearly nDCG itself, with gradients near 0.
    gain
        Gain of a passage out of w, the number of passages that the teacher ranks strictly below it,
        in a list of n: "linear": w / (n - 1); "exponential": (2^y - 1) / 15 with the grade
        y = 4 w / (n - 1), so 0 to 4 from the last passage to the first; "reciprocal":
        2^(1 / (n - w)) - 1, in a permutation the grade 1 / rank of RankGPT's code. All are in
        [0, 1] at any length.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> loss = ApproxNDCG()(torch.zeros(1, 2), torch.tensor([[1, 2]]), mask)
    >>> round(loss.item(), 4)  # both at rank 1.5: 1 - 1 / log2(2.5)
    0.2435
    """

    temperature: Above0 = 1.0
    gain: Annotated[str, one_of(*GAINS)] = "linear"

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        ordered = ordered_pairs(ranks, mask)
        gain = gains(ordered, mask, self.gain, scores.dtype)
        places = approximate_ranks(scores, mask, self.temperature)
        return 1 - (gain / ideal_dcg(gain) / torch.log2(1 + places)).sum(1)


@settings(frozen=True)
class ApproxMRR(Mean):
    r"""ApproxMRR: one minus the reciprocal approximate rank of the first relevant passage.

    ``1 - max over relevant i of 1 / a_i,   a_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / T)``

    Relevant are the passages at the best teacher rank of their list: with labels those at rank 1,
    with a teacher's permutation its first passage. The mean is over the lists that have a passage
    ranked worse. Ties at the best rank are all relevant, and only the one that the student scores
    highest counts (several with the same score share the gradient).

    Source: the approximate positions of Qin et al. (Information Retrieval 2010), put into the
    reciprocal rank; no logarithm.

    Parameters
    ----------
    temperature
        T > 0, divides score differences.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> loss = ApproxMRR()(torch.zeros(1, 2), torch.tensor([[1, 2]]), mask)
    >>> round(loss.item(), 4)  # 1 - 1 / 1.5
    0.3333
    """

    temperature: Above0 = 1.0

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        relevant = mask & ~ordered_pairs(ranks, mask).any(1)  # nobody is ranked before it
        reciprocal = 1 / approximate_ranks(scores, mask, self.temperature)
        return 1 - torch.where(relevant, reciprocal, 0).amax(1)
