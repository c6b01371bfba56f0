"""Losses that read a split into relevant and not: the best rank of a list, and the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rdx import late
from rdx.declared import Above0, settings
from rdx.losses.lists import against_worse, ordered_pairs
from rdx.losses.means import Mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late.module("torch")


@settings(frozen=True)
class LCE(Mean):
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

    temperature: Above0 = 1.0

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        _, worse = _split(ranks, mask)
        return against_worse(scores / self.temperature, worse.unsqueeze(1))

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        best, worse = _split(ranks, mask)
        return best & worse.any(1, keepdim=True)


@settings(frozen=True)
class BCE(Mean):
    r"""Binary cross-entropy: every passage by itself, relevant or not.

    ``-c_i (y_i ln sigmoid(s_i / T) + (1 - y_i) ln(1 - sigmoid(s_i / T)))``

    y_i = 1 for the passages at the best rank of their list, 0 for those ranked worse; c_i is
    `positive_weight` for y_i = 1, else 1. Natural logarithm; the mean (by number, not by weight) is
    over all passages of lists that have both kinds, pooled over the batch; a list whose passages
    are all tied says nothing about which are relevant and contributes nothing. Pointwise: it is
    the only loss here for which a constant added to all scores of a list matters.

    It says of every passage but the best that it is *not* relevant, which labels say and an order
    does not: the passage that a teacher ranks second may be as good as the first. So it needs
    labels, while LCE only asks that the best be scored above the rest, which any order says.

    Source: Nogueira and Cho (2019, arXiv 1901.04085), Eq. 1 (monoBERT).

    Parameters
    ----------
    temperature
        T > 0, divides scores.
    positive_weight
        > 0, weight of relevant passages, e.g. the number of negatives per positive.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> round(BCE()(torch.zeros(1, 2), torch.tensor([[1, 2]]), mask).item(), 4)  # ln 2
    0.6931
    """

    temperature: Above0 = 1.0
    positive_weight: Above0 = 1.0

    needs: ClassVar[str] = "labels"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        best, worse = _split(ranks, mask)
        logits = scores / self.temperature
        relevant = best * self.positive_weight * torch.nn.functional.logsigmoid(logits)
        return -(relevant + worse * torch.nn.functional.logsigmoid(-logits))

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        _, worse = _split(ranks, mask)
        return mask & worse.any(1, keepdim=True)


def _split(ranks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Passages at the best rank of their list, and those ranked worse, each [B, N]."""
    worse = ordered_pairs(ranks, mask).any(1)  # somebody is ranked before it
    return mask & ~worse, worse
