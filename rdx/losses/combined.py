"""What a loss is, and the weighted sum of several."""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

from pydantic import Strict
from torch import Tensor

from rdx.declared import From0, Group, settings

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
        batch = student_scores, teacher_ranks, mask, teacher_scores
        parts = zip(self.weights, self.losses, strict=True)
        values = [weight * loss(*batch) for weight, loss in parts]
        return sum(values[1:], values[0])
