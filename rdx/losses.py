"""Listwise losses: one frozen dataclass per equation, torch only.

Every loss is called as ``loss(student_scores, teacher_ranks, mask) -> scalar``, each [B, N]:
student scores (higher = more relevant), teacher ranks (1 = best; equal ranks are ties), and a
boolean mask that is False at padding, whose scores and ranks are ignored. All arithmetic is
float32 (float64 for float64 scores), inside autocast too. `temperature` always divides. A batch
without anything to learn from (no ordered pair) gives a zero that has a gradient graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

TIES = ("average", "ordinal")


@dataclass(frozen=True)
class RankNet:
    r"""RankNet: logistic loss on every pair that the teacher orders.

    ``mean over pairs with teacher_rank_i < teacher_rank_j of ln(1 + exp(-(s_i - s_j) / T))``

    Natural logarithm; the mean is over all ordered pairs *pooled over the batch*, as in the paper's
    code, so that a long list weighs more than a short one. Tied passages form no pair.

    Source: Burges et al. (ICML 2005), §3; used for distillation by Sun et al. (2023, RankGPT) and
    Schlatt et al. (2025, Rank-DistiLLM).

    Parameters
    ----------
    temperature
        T > 0, divides score differences.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> one = RankNet()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), mask)
    >>> round(one.item(), 4)  # ln(1 + e^-1)
    0.3133
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the temperature."""
        _positive("temperature", self.temperature)

    def __call__(self, student_scores: Tensor, teacher_ranks: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of a batch [B, N]."""
        scores, ranks = _prepare(student_scores, teacher_ranks, mask)
        difference = (scores.unsqueeze(2) - scores.unsqueeze(1)) / self.temperature  # [B, N, N]
        ordered = (ranks.unsqueeze(2) < ranks.unsqueeze(1)) & _pairs(mask)
        return _mean(-logsigmoid(difference), ordered)


@dataclass(frozen=True)
class ADRMSE:
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

    temperature: float = 1.0
    discount: str = "log2"
    ties: str = "average"

    def __post_init__(self) -> None:
        """Check values."""
        _positive("temperature", self.temperature)
        _one_of("discount", self.discount, ("log2", "none"))
        _one_of("ties", self.ties, TIES)

    def __call__(self, student_scores: Tensor, teacher_ranks: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of a batch [B, N]."""
        scores, ranks = _prepare(student_scores, teacher_ranks, mask)
        pairs = _pairs(mask)
        target = _ranks(ranks, pairs, self.ties).to(scores.dtype)  # [B, N], 1 = best
        ahead = torch.sigmoid((scores.unsqueeze(1) - scores.unsqueeze(2)) / self.temperature)
        approximate = 1 + torch.where(pairs, ahead, 0).sum(2)  # [B, N]
        error = (approximate - target) ** 2
        if self.discount == "log2":
            error = error / torch.log2(target.clamp(min=1) + 1)
        lengths = mask.sum(1)
        per_list = torch.where(mask, error, 0).sum(1) / lengths.clamp(min=1)
        return per_list.sum() / (lengths > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class LCE:
    r"""Localized contrastive estimation: cross-entropy of the best passages against the rest.

    For every passage i at the best rank of its list:
    ``-ln( exp(s_i / T) / (exp(s_i / T) + sum over passages j ranked worse of exp(s_j / T)) )``

    With labels (relevant = rank 1, the rest tied at rank 2) this is the LCE of stage 1; with a
    teacher's permutation its first passage is the positive. Several passages tied at the best rank
    are each a positive and never each other's negatives. The mean is over all positives that have
    a negative, pooled over the batch; a list without a worse-ranked passage contributes nothing.

    Source: Gao et al. (ECIR 2021), Eq. 5; InfoNCE in Lightning IR.

    Parameters
    ----------
    temperature
        T > 0, divides scores.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 3, dtype=torch.bool)
    >>> round(LCE()(torch.zeros(1, 3), torch.tensor([[1, 2, 2]]), mask).item(), 4)  # ln 3
    1.0986
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the temperature."""
        _positive("temperature", self.temperature)

    def __call__(self, student_scores: Tensor, teacher_ranks: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of a batch [B, N]."""
        scores, ranks = _prepare(student_scores, teacher_ranks, mask)
        scores = scores / self.temperature
        worst = torch.iinfo(ranks.dtype).max if not ranks.is_floating_point() else float("inf")
        best = torch.where(mask, ranks, worst).amin(1, keepdim=True)
        positive = mask & (ranks == best)
        negative = mask & (ranks > best)
        floor = torch.finfo(scores.dtype).min
        rest = torch.where(negative, scores, floor).logsumexp(1, keepdim=True)  # [B, 1]
        usable = positive & negative.any(1, keepdim=True)
        return _mean(torch.logaddexp(scores, rest) - scores, usable)


def _prepare(scores: Tensor, ranks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """At least float32, and zero at padding, so that neither values nor gradients leak from it."""
    if not scores.shape == ranks.shape == mask.shape or scores.dim() != 2:
        raise ValueError(
            "student_scores, teacher_ranks and mask must all be [B, N]; got "
            f"{tuple(scores.shape)}, {tuple(ranks.shape)}, {tuple(mask.shape)}"
        )
    scores = scores if scores.dtype == torch.float64 else scores.float()
    return torch.where(mask, scores, 0), torch.where(mask, ranks, 0)


def _pairs(mask: Tensor) -> Tensor:
    """[B, N, N]: both passages are real and not the same one."""
    different = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return mask.unsqueeze(2) & mask.unsqueeze(1) & different


def _ranks(ranks: Tensor, pairs: Tensor, ties: str) -> Tensor:
    """Ranks 1..n within each list, ties averaged or broken by position [B, N]."""
    better = ((ranks.unsqueeze(1) < ranks.unsqueeze(2)) & pairs).sum(2)
    equal = (ranks.unsqueeze(1) == ranks.unsqueeze(2)) & pairs
    if ties == "ordinal":
        return 1 + better + equal.tril(-1).sum(2)
    return 1 + better + equal.sum(2) / 2


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, values, 0).sum() / where.sum().clamp(min=1)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"loss.{name}={value}: must be greater than 0")


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ValueError(f"loss.{name}={value!r}: must be one of {list(valid)}")
