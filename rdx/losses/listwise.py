"""Losses on the probability of an order, or of being first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rdx import late
from rdx.declared import Above0, one_of, settings
from rdx.losses.lists import against_worse, log_softmax, ordered_pairs, split
from rdx.losses.means import Mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late.module("torch")


@settings(frozen=True)
class ListNet(Mean):
    r"""ListNet: cross-entropy of the probabilities of being first, top-one approximation.

    ``-sum_i p_i ln q_i,   p = softmax(w / T_teacher),   q = softmax(s / T)``

    w_i is the number of passages that the teacher ranks strictly below passage i: n - rank in a
    permutation of n passages. With T_teacher = 1 the first passage gets e times the probability of
    the second (.63, .23, .09, ...), with 10 the first ten of 100 passages have 63 % of it.

    Natural logarithm; the sum is over the passages of a list, the mean over the lists that the
    teacher orders at all. Tied passages have equal p (the w of the last rank they span).

    Source: Cao et al. (ICML 2007), §4.2 and §5 (k = 1).

    Parameters
    ----------
    temperature
        T > 0, divides student scores.
    teacher_temperature
        T_teacher > 0, divides w, so its unit is ranks.

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> loss = ListNet()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 2]]), mask)
    >>> round(loss.item(), 4)  # the entropy of softmax([1, 0]): the best there is
    0.5822
    """

    temperature: Above0 = 1.0
    teacher_temperature: Above0 = 1.0

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        below = ordered_pairs(ranks, mask).sum(2).to(scores.dtype)
        target = log_softmax(below / self.teacher_temperature, mask).exp()
        student = log_softmax(scores / self.temperature, mask)  # 0 at padding
        return -(target * student).sum(1)


@settings(frozen=True)
class ListMLE(Mean):
    r"""ListMLE and p-ListMLE: likelihood of the teacher's order under Plackett and Luce.

    ``-sum_i a_i ln( exp(s_i / T) / (exp(s_i / T) + sum over j ranked worse of exp(s_j / T)) )``

    a_i = 1 for `position` "uniform". For "exponential", the position-aware form, a_i is
    2^w_i - 1 divided by its sum over the list, w_i the number of passages ranked strictly below i
    (n - rank in a permutation of n), which puts nearly all weight on the first few passages.

    Natural logarithm; the sum is over the passages of a list, the mean over the lists that the
    teacher orders at all. Ties: tied passages each compete with those ranked worse and never with
    each other, so that a list with one relevant passage and ties below is the LCE of that list.

    Source: Xia et al. (ICML 2008), likelihood loss; Lan et al. (UAI 2014), p-ListMLE (with the
    weights 2^(n - i) - 1 at position i, here scaled to a sum of 1, which cannot overflow).

    Parameters
    ----------
    temperature
        T > 0, divides scores.
    position
        "uniform" or "exponential".

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 3, dtype=torch.bool)
    >>> loss = ListMLE()(torch.zeros(1, 3), torch.tensor([[1, 2, 3]]), mask)
    >>> round(loss.item(), 4)  # ln 3 + ln 2 + ln 1
    1.7918
    """

    temperature: Above0 = 1.0
    position: Annotated[str, one_of("uniform", "exponential")] = "uniform"

    needs: ClassVar[str] = "ranks"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        ordered = ordered_pairs(ranks, mask)
        values = against_worse(scores / self.temperature, ordered)  # 0 at padding
        if self.position == "exponential":
            values = values * _exponential(ordered.sum(2).to(scores.dtype))
        return values.sum(1)


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
        _, worse = split(ranks, mask)
        return against_worse(scores / self.temperature, worse.unsqueeze(1))

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        best, worse = split(ranks, mask)
        return best & worse.any(1, keepdim=True)


@settings(frozen=True)
class KL(Mean):
    r"""Kullback-Leibler divergence between the softmax of the teacher and that of the student.

    forward: ``sum_i p_i (ln p_i - ln q_i)``, reverse: ``sum_i q_i (ln q_i - ln p_i)``, with
    ``p = softmax(t / T_teacher),   q = softmax(s / T)``

    s student scores, t teacher scores. Natural logarithm; the sum is over the passages of a list,
    the mean over the lists that the teacher orders at all (a list of equal teacher *ranks* is left
    out; ranks have no other influence). There is no factor T^2 as in Hinton et al. (2015).

    Forward, a student pays most for what the teacher likes and it does not: it covers all of that.
    Reverse, for what it likes and the teacher does not: it may leave out some.

    Source: Hinton et al. (2015, arXiv 1503.02531), §2, over the passages of a list instead of
    classes; for rankings e.g. Reddi et al. (AISTATS 2021, RankDistil), who generalise it. Reverse:
    Gu et al. (ICLR 2024, MiniLLM), §2, for the tokens of a language model.

    Parameters
    ----------
    temperature
        T > 0, divides student scores.
    teacher_temperature
        T_teacher > 0, divides teacher scores.
    direction
        "forward": KL(teacher || student); "reverse": KL(student || teacher).

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> teacher = torch.tensor([[3.0, 0.0]]).log1p()  # softmax .8, .2
    >>> loss = KL()(torch.zeros(1, 2), torch.tensor([[1, 2]]), mask, teacher)
    >>> round(loss.item(), 4)  # .8 ln(.8 / .5) + .2 ln(.2 / .5)
    0.1927
    """

    temperature: Above0 = 1.0
    teacher_temperature: Above0 = 1.0
    direction: Annotated[str, one_of("forward", "reverse")] = "forward"

    needs: ClassVar[str] = "scores"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        target = log_softmax(teacher / self.teacher_temperature, mask)
        student = log_softmax(scores / self.temperature, mask)
        if self.direction == "reverse":
            target, student = student, target
        return (target.exp() * (target - student)).sum(1)  # padding: 1 * (0 - 0)


def _exponential(below: Tensor) -> Tensor:
    """(2^w - 1) / its sum over the list [B, N], with 2^w scaled by its maximum."""
    most = below.amax(1, keepdim=True)
    weights = 2 ** (below - most) - 2**-most
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(below.dtype).tiny)
