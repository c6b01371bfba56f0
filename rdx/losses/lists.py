"""What the equations share: padding, pairs, ties, gains, and means over what can teach.

Shapes: B lists of at most N passages. A pair (i, j) lies at [b, i, j].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdx import late

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late.module("torch")


TIES = ("average", "ordinal")
GAINS = ("linear", "exponential", "reciprocal")
TOP_GRADE = 4  # of the exponential gain: the scale 0-4 of the learning-to-rank collections


def prepare(scores: Tensor, ranks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """At least float32, and zero at padding, so that neither values nor gradients leak from it."""
    if not scores.shape == ranks.shape == mask.shape or scores.dim() != 2:
        raise ValueError(
            "student_scores, teacher_ranks and mask must all be [B, N]; got "
            f"{tuple(scores.shape)}, {tuple(ranks.shape)}, {tuple(mask.shape)}"
        )
    scores = scores if scores.dtype == torch.float64 else scores.float()
    return torch.where(mask, scores, 0), torch.where(mask, ranks, 0)


def teachers(teacher_scores: Tensor | None, mask: Tensor, loss: object) -> Tensor:
    """The teacher's scores, zero at padding.

    Raises
    ------
    ValueError
        If there are none, or (looked up on CPUs only) not for every passage.
    """
    name = type(loss).__name__
    if teacher_scores is None:
        raise ValueError(f"{name} learns from teacher scores, and this teacher gives no scores")
    if teacher_scores.shape != mask.shape:
        raise ValueError(
            f"teacher_scores must be [B, N] like mask, {tuple(mask.shape)}; "
            f"got {tuple(teacher_scores.shape)}"
        )
    missing = mask & ~torch.isfinite(teacher_scores)
    if missing.device.type == "cpu" and missing.any():
        raise ValueError(
            f"{name} learns from teacher scores, and this teacher gives no scores (NaN or infinite)"
            f" for {int(missing.sum())} of {int(mask.sum())} passages"
        )
    return torch.where(mask, teacher_scores, 0)


def real_pairs(mask: Tensor) -> Tensor:
    """[B, N, N]: both passages are real and not the same one."""
    different = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return mask.unsqueeze(2) & mask.unsqueeze(1) & different


def ordered_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """[B, N, N]: both passages are real, and the teacher ranks i strictly before j."""
    return (ranks.unsqueeze(2) < ranks.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)


def split(ranks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Passages at the best rank of their list, and those ranked worse, each [B, N]."""
    worse = ordered_pairs(ranks, mask).any(1)  # somebody is ranked before it
    return mask & ~worse, worse


def dense_ranks(ranks: Tensor, pairs: Tensor, ties: str) -> Tensor:
    """Ranks 1..n within each list, ties averaged or broken by position [B, N]."""
    better = ((ranks.unsqueeze(1) < ranks.unsqueeze(2)) & pairs).sum(2)
    equal = (ranks.unsqueeze(1) == ranks.unsqueeze(2)) & pairs
    if ties == "ordinal":
        return 1 + better + equal.tril(-1).sum(2)
    return 1 + better + equal.sum(2) / 2


def approximate_ranks(scores: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """1 + sum over j != i of sigmoid((s_j - s_i) / T) [B, N] (Qin et al. 2010)."""
    ahead = torch.sigmoid((scores.unsqueeze(1) - scores.unsqueeze(2)) / temperature)
    return 1 + torch.where(real_pairs(mask), ahead, 0).sum(2)


def gains(ordered: Tensor, mask: Tensor, gain: str, dtype: torch.dtype) -> Tensor:
    """Relevance gains in [0, 1] out of teacher ranks [B, N]; 0 at padding.

    They see only w, the number of passages that the teacher ranks strictly below (n - rank in a
    permutation of n; tied passages have the same w, that of the last rank they span), so that a
    split into relevant and not has two gains, and long lists cannot overflow.
    """
    below = ordered.sum(2).to(dtype)
    length = mask.sum(1, keepdim=True).to(dtype)
    if gain == "reciprocal":
        value = 2 ** (1 / (length - below).clamp(min=1)) - 1
    else:
        value = below / (length - 1).clamp(min=1)
        if gain == "exponential":
            value = (2 ** (TOP_GRADE * value) - 1) / (2**TOP_GRADE - 1)
    return torch.where(mask, value, 0)


def ideal_dcg(gain: Tensor) -> Tensor:
    """DCG of the best order [B, 1], discount log2(1 + position); tiny instead of 0."""
    positions = torch.arange(1, gain.shape[1] + 1, device=gain.device, dtype=gain.dtype)
    best = gain.sort(1, descending=True).values
    dcg = (best / torch.log2(1 + positions)).sum(1, keepdim=True)
    return dcg.clamp(min=torch.finfo(gain.dtype).tiny)


def against_worse(scores: Tensor, worse: Tensor) -> Tensor:
    """-ln( exp(s_i) / (exp(s_i) + sum over j worse than i of exp(s_j)) ) [B, N].

    `worse` [B, N, N] or [B, 1, N] says which passages j are; without any the value is 0.
    """
    floor = torch.finfo(scores.dtype).min  # -inf gives NaN gradients, hidden by `where` alone
    rest = torch.where(worse, scores.unsqueeze(1), floor).logsumexp(2)
    return torch.logaddexp(scores, rest) - scores


def log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Log-softmax over the real passages of each list [B, N]; 0 at padding."""
    floor = torch.finfo(scores.dtype).min
    return torch.where(mask, torch.where(mask, scores, floor).log_softmax(1), 0)


def mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values where `where` is True; 0 with a gradient graph if it is nowhere."""
    return torch.where(where, values, 0).sum() / where.sum().clamp(min=1)
