"""Losses over pairs of passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rdx import late
from rdx.declared import Above0, From0, one_of, settings
from rdx.losses.lists import (
    GAINS,
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


WEIGHTS = ("none", "reciprocal_sum", "reciprocal", "score_difference", "student_rank")
Pairs = Annotated[str, one_of("all", "best")]


@settings(frozen=True)
class RankNet(Mean):
    r"""RankNet: logistic loss on every pair that the teacher orders.

    ``mean over pairs with teacher_rank_i < teacher_rank_j of w_ij ln(1 + exp(-(s_i - s_j) / T))``

    Natural logarithm; the mean is over all ordered pairs *pooled over the batch*, as in the paper's
    code, so that a long list weighs more than a short one. Tied passages form no pair. It is by
    number, not by weight, as in all of the sources below. Weights are constants: no gradient runs
    through them.

    Ties, where weights read ranks: tied passages have the mean of the ranks that they span, in the
    teacher's order and in the student's alike.

    Source: Burges et al. (ICML 2005), §3; used for distillation by Sun et al. (2023, RankGPT) and
    Schlatt et al. (2025, Rank-DistiLLM). Weights: Reddy et al. (2024, FIRST, arXiv 2406.15657) for
    "reciprocal_sum"; RankGPT's `rank_net` with `weight_by_diff` on its labels 1 / rank for
    "reciprocal", and on a teacher's scores for "score_difference"; the code of Pezzuti et al.
    (2025, `WeightedRankNet`) for "student_rank".

    Parameters
    ----------
    temperature
        T > 0, divides score differences.
    weights
        w_ij, with r the ranks 1 to n of the list's passages by the teacher, p those by the student,
        t teacher scores. "none": 1; "reciprocal_sum": 1 / (r_i + r_j); "reciprocal":
        1 / r_i - 1 / r_j; "score_difference": \|t_i - t_j\|; "student_rank": 1 / (p_i + p_j).

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> loss = RankNet()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), mask)
    >>> round(loss.item(), 4)  # ln(1 + e^-1)
    0.3133
    """

    temperature: Above0 = 1.0
    weights: Annotated[str, one_of(*WEIGHTS)] = "none"

    @property
    def needs(self) -> str:
        """Scores, where these weigh."""
        return "scores" if self.weights == "score_difference" else "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        difference = (scores.unsqueeze(2) - scores.unsqueeze(1)) / self.temperature  # [B, N, N]
        values = -torch.nn.functional.logsigmoid(difference)
        if self.weights == "none":
            return values
        return values * self._weights(scores.detach(), ranks, mask, teacher)

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        return ordered_pairs(ranks, mask)

    def _weights(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        """Weights of the pairs [B, N, N]; of use where the teacher orders them only."""
        if self.weights == "score_difference":
            return (teacher.unsqueeze(2) - teacher.unsqueeze(1)).abs()
        by = -scores if self.weights == "student_rank" else ranks
        place = dense_ranks(by, real_pairs(mask), "average").to(scores.dtype)
        if self.weights == "reciprocal":
            return 1 / place.unsqueeze(2) - 1 / place.unsqueeze(1)
        return 1 / (place.unsqueeze(2) + place.unsqueeze(1))


class _Chosen(Mean):
    """A loss of pairs: "all" that the teacher orders, or the "best" passages with all others."""

    pairs: Pairs

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        pairs = ordered_pairs(ranks, mask)
        # of the best, nobody is before i
        return pairs if self.pairs == "all" else pairs & ~pairs.any(1).unsqueeze(2)


@settings(frozen=True)
class Hinge(_Chosen):
    r"""Hinge loss: of every pair that the teacher orders, the better one shall lead by a margin.

    ``mean over pairs with teacher_rank_i < teacher_rank_j of max(0, margin - (s_i - s_j))``

    The mean is over all pairs pooled over the batch. Tied passages form no pair. A pair that is
    apart by the margin costs nothing and has no gradient, nor has one that is by just the margin.

    Source: Joachims (KDD 2002), the ranking SVM; of cross-encoders e.g. Morand et al. (2026, arXiv
    2603.03010), on one positive and one negative passage per query (`pairs`: "best").

    Parameters
    ----------
    margin
        > 0, in units of the student's scores: 2 is 1 with scores divided by 2, but for the factor.
    pairs
        "all": every ordered pair of a list; "best": the passages at the best rank of their list,
        each against every passage ranked worse.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> Hinge()(torch.tensor([[0.5, 0.25]]), torch.tensor([[1, 2]]), mask).item()
    0.75
    """

    margin: Above0 = 1.0
    pairs: Pairs = "all"

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        return (self.margin - (scores.unsqueeze(2) - scores.unsqueeze(1))).relu()  # [B, N, N]


@settings(frozen=True)
class LambdaRank(Mean):
    r"""LambdaRank and NDCG-Loss2++: RankNet with every pair weighed by what it does to nDCG.

    ``sum over pairs with teacher_rank_i < teacher_rank_j of w_ij ln(1 + exp(-(s_i - s_j) / T))``
    ``w_ij = |G_i - G_j| (|1/D(p_i) - 1/D(p_j)| + mu |1/D(|p_i - p_j|) - 1/D(|p_i - p_j| + 1)|)``

    p_i is the position of passage i in the student's own order, D(p) = log2(1 + p), and G the gain
    divided by the DCG of the teacher's order. The weights are constants: no gradient runs through
    them. mu = 0 is LambdaRank (the nDCG that swapping i and j would change); mu > 0 adds
    the term of NDCG-Loss2 and so is NDCG-Loss2++ (its authors use mu = 10).

    The logarithm of the loss is natural (the papers of LambdaLoss write log2: divide by ln 2).

    Ties: passages tied by the teacher form no pair and have equal gains. Passages that the student
    scores equally stand in the worst order, those that the teacher ranks lower first, so that an
    undecided student still learns; passages that are tied for both share the mean of the positions
    they span.

    Source: Burges et al. (NeurIPS 2006) for LambdaRank; Wang et al. (CIKM 2018, LambdaLoss) for
    the loss behind its gradients, for NDCG-Loss2, and for NDCG-Loss2++, their hybrid of both.

    Parameters
    ----------
    temperature
        T > 0, divides score differences (1 / sigma of the papers).
    gain
        Gain of a passage out of w, the number of passages that the teacher ranks strictly below it,
        in a list of n: "linear": w / (n - 1); "exponential": (2^y - 1) / 15 with the grade
        y = 4 w / (n - 1), so 0 to 4 from the last passage to the first; "reciprocal":
        2^(1 / (n - w)) - 1, in a permutation the grade 1 / rank of RankGPT's code. All are in
        [0, 1] at any length.
    mu
        >= 0, weight of the NDCG-Loss2 term.
    reduction
        "lists": sum over the pairs of a list, mean over the lists that have an ordered pair (the
        papers); "pairs": mean over all ordered pairs, pooled over the batch (RankGPT,
        sentence-transformers).

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> loss = LambdaRank()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), mask)
    >>> round(loss.item(), 4)  # (1 - 1 / log2(3)) ln(1 + e^-1)
    0.1156
    """

    temperature: Above0 = 1.0
    gain: Annotated[str, one_of(*GAINS)] = "linear"
    mu: From0 = 0.0
    reduction: Annotated[str, one_of("lists", "pairs")] = "lists"

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        ordered = ordered_pairs(ranks, mask)
        difference = (scores.unsqueeze(2) - scores.unsqueeze(1)) / self.temperature  # [B, N, N]
        weights = self._weights(scores.detach(), ranks, mask, ordered)
        values = -torch.nn.functional.logsigmoid(difference) * weights
        if self.reduction == "pairs":
            return values
        return torch.where(ordered, values, 0).sum((1, 2))

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        if self.reduction == "pairs":
            return ordered_pairs(ranks, mask)
        return super()._counted(ranks, mask)

    def _weights(self, scores: Tensor, ranks: Tensor, mask: Tensor, ordered: Tensor) -> Tensor:
        """Weights of the pairs [B, N, N]; of use where `ordered` only."""
        gain = gains(ordered, mask, self.gain, scores.dtype)
        gain = gain / ideal_dcg(gain)
        position = _positions(scores, ranks, mask)
        discount = 1 / torch.log2(1 + position)
        swap = (discount.unsqueeze(2) - discount.unsqueeze(1)).abs()
        # Ordered passages are at least one position apart; elsewhere the clamp avoids 1 / log2(1).
        apart = (position.unsqueeze(2) - position.unsqueeze(1)).abs().clamp(min=1)
        step = 1 / torch.log2(1 + apart) - 1 / torch.log2(2 + apart)
        return (gain.unsqueeze(2) - gain.unsqueeze(1)).abs() * (swap + self.mu * step)


@settings(frozen=True)
class MarginMSE(_Chosen):
    r"""Margin-MSE: the student's score differences shall be the teacher's.

    ``mean over pairs with teacher_rank_i < teacher_rank_j of ((s_i - s_j) - (t_i - t_j) / T)^2``

    s student scores, t teacher scores. The mean is over all pairs pooled over the batch. Pairs are
    formed by teacher ranks, and passages of equal rank form none.

    Source: Hofstätter et al. (2020, arXiv 2010.02666), there with one positive and one
    negative passage per query (`pairs`: "best").

    Parameters
    ----------
    teacher_temperature
        T > 0, divides the teacher's score differences: brings a teacher with another scale near the
        student's. (One for the student would only scale the loss.)
    pairs
        "all": every ordered pair of a list; "best": the passages at the best rank of their list,
        each against every passage ranked worse.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> teacher = torch.tensor([[7.0, 4.0]])
    >>> MarginMSE()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), mask, teacher).item()
    4.0
    """

    teacher_temperature: Above0 = 1.0
    pairs: Pairs = "all"

    needs: ClassVar[str] = "scores"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        # the difference of margins is that of errors
        error = scores - teacher / self.teacher_temperature
        return (error.unsqueeze(2) - error.unsqueeze(1)) ** 2


def _positions(scores: Tensor, ranks: Tensor, mask: Tensor) -> Tensor:
    """Positions in the student's order [B, N], 1 = first: see the tie rule of LambdaRank."""
    mine, other = scores.unsqueeze(2), scores.unsqueeze(1)
    lower, same = ranks.unsqueeze(1) > ranks.unsqueeze(2), ranks.unsqueeze(1) == ranks.unsqueeze(2)
    pairs = real_pairs(mask)
    ahead = pairs & ((other > mine) | ((other == mine) & lower))
    tied = pairs & (other == mine) & same
    return 1 + ahead.sum(2) + tied.sum(2).to(scores.dtype) / 2
