"""What a loss is, and the weighted sum of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from pydantic import Strict

from rdx.declared import From0, Group, settings

if TYPE_CHECKING:
    from torch import Tensor

STRICTNESS = ("ranks", "labels", "scores")


@runtime_checkable
class Loss(Protocol):
    """Anything that is called like the losses of this package."""

    @property
    def needs(self) -> str:
        """What it reads of the teacher: "ranks", "labels" or "scores"."""

    def __call__(
        self,
        student_scores: Tensor,
        teacher_ranks: Tensor,
        mask: Tensor,
        teacher_scores: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch [B, N]."""


@runtime_checkable
class Divisible(Loss, Protocol):
    """A loss that is made up of the losses of groups of lists.

    For any partition of the lists of a batch into groups,
    ``loss(batch) = sum over groups of loss(group) * denominator(group) / denominator(batch)``.
    So the gradient of a group can be had before the next group is scored.
    """

    def denominator(
        self, teacher_ranks: Tensor, mask: Tensor, teacher_scores: Tensor | None = None
    ) -> Tensor:
        """What the loss of a batch [B, N] is divided by: a scalar; 0 if it has nothing to learn."""


@settings(frozen=True)
class Sum:
    r"""Weighted sum of losses.

    ``sum_k weight_k loss_k``

    Each part keeps its own tie rule, reduction and temperature. The parts are not brought to one
    scale: RankNet is about 0.7 for a student that knows nothing, ListMLE about 360 at depth 100.
    Source: none; such sums are common, e.g. LCE on labels beside a distillation loss.

    Parameters
    ----------
    losses
        At least one.
    weights
        As many, none negative and not all 0.

    Examples
    --------
    >>> import torch
    >>> from rdx.losses import LCE, RankNet
    >>> batch = torch.zeros(1, 2), torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    >>> round(Sum(losses=[RankNet(), LCE()], weights=[1.0, 0.5])(*batch).item(), 4)  # 1.5 ln 2
    1.0397
    """

    losses: Annotated[tuple[Loss, ...], Strict(False), Group("loss")]
    weights: Annotated[tuple[From0, ...], Strict(False)]

    def __post_init__(self) -> None:
        """Check the weights."""
        weights = list(self.weights)
        if not len(self.losses) == len(weights) > 0:
            raise ValueError(f"weights={weights}: one for each of the {len(self.losses)} losses")
        if not any(weights):
            raise ValueError(f"weights={weights}: must not all be 0")

    @property
    def needs(self) -> str:
        """The strictest need of its parts."""
        return max((loss.needs for loss in self.losses), key=STRICTNESS.index)

    def __call__(
        self,
        student_scores: Tensor,
        teacher_ranks: Tensor,
        mask: Tensor,
        teacher_scores: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch [B, N].

        Raises
        ------
        ValueError
            If a part learns from teacher scores and there are none.
        """
        parts = list(zip(self.weights, self.losses, strict=True))
        return weighted(parts, student_scores, teacher_ranks, mask, teacher_scores)


Weighted = tuple[float, Loss]


def terms(loss: Loss) -> list[Weighted]:
    """What a loss is the weighted sum of: the parts of a `Sum`, or itself."""
    if not isinstance(loss, Sum):
        return [(1.0, loss)]
    parts = zip(loss.weights, loss.losses, strict=True)
    return [(outer * inner, term) for outer, part in parts for inner, term in terms(part)]


def weighted(
    parts: Sequence[Weighted], scores: Tensor, ranks: Tensor, mask: Tensor, *teacher: Tensor | None
) -> Tensor:
    """The weighted sum of losses, each called with the batch and, if given, teacher scores."""
    values = [weight * loss(scores, ranks, mask, *teacher) for weight, loss in parts]
    return sum(values[1:], values[0])


def divided(
    loss: Loss, whole: Sequence[Tensor], groups: Sequence[Sequence[Tensor]]
) -> list[list[Weighted]]:
    """For each group of a batch's lists, weighted losses: summed over the groups, the loss.

    Parameters
    ----------
    loss
        Divisible (`divisible`), unless there is only one group.
    whole, groups
        Teacher ranks and mask [B, N], and perhaps teacher scores, of the batch and of each group.

    Raises
    ------
    ValueError
        If a term that is `Divisible` learns from teacher scores and there are none.
    """
    parts = terms(loss)
    shares = [_shares(term, whole, groups) for _, term in parts]
    return [
        [(weight * share, term) for (weight, term), share in zip(parts, column, strict=True)]
        for column in zip(*shares, strict=True)
    ]


def divisible(loss: Loss) -> bool:
    """Whether all that a loss is the sum of are `Divisible`."""
    return all(isinstance(term, Divisible) for _, term in terms(loss))


def _shares(term: Loss, whole: Sequence[Tensor], groups: Sequence[Sequence[Tensor]]) -> list[float]:
    """The groups' shares of the denominator; 0 where there is nothing to learn."""
    if not isinstance(term, Divisible):
        return [1.0]
    total, *counts = (float(term.denominator(*targets)) for targets in (whole, *groups))
    return [count / total if total else 0.0 for count in counts]
