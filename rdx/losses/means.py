"""What the losses have in common: each is a mean, over what is known before anything is scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdx.losses.lists import mean, ordered_pairs, prepare, teachers

if TYPE_CHECKING:
    from torch import Tensor


class Mean:
    """The mean of `_values` over where `_counted` says so.

    What is counted (pairs, passages or lists) follows from teacher ranks and mask alone, so that
    the loss of a batch is made up of the losses of any groups of its lists:
    ``loss(batch) = sum over groups of loss(group) * denominator(group) / denominator(batch)``.
    """

    @property
    def needs(self) -> str:
        """What it reads of the teacher: "ranks", "labels" or "scores"."""
        raise NotImplementedError

    def __call__(
        self,
        student_scores: Tensor,
        teacher_ranks: Tensor,
        mask: Tensor,
        teacher_scores: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch [B, N]; a loss of ranks ignores teacher scores.

        Raises
        ------
        ValueError
            If shapes differ, or if it learns from teacher scores and (on a CPU: asking a GPU would
            mean waiting for it) there are none.
        """
        scores, ranks = prepare(student_scores, teacher_ranks, mask)
        teacher = teachers(teacher_scores, mask, self) if self.needs == "scores" else mask
        values = self._values(scores, ranks, mask, teacher.to(scores.dtype))
        return mean(values, self._counted(ranks, mask))

    def denominator(
        self, teacher_ranks: Tensor, mask: Tensor, teacher_scores: Tensor | None = None
    ) -> Tensor:
        """How many values the mean of a batch [B, N] is over: a scalar.

        Raises
        ------
        ValueError
            As calling it.
        """
        if self.needs == "scores":
            teachers(teacher_scores, mask, self)
        return self._counted(teacher_ranks.where(mask, 0), mask).sum()

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        """What the mean is of: of lists [B], passages [B, N] or pairs [B, N, N].

        Everything but the mask is zero at padding; `teacher` is for losses that need scores.
        """
        raise NotImplementedError

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        """Which values count, a mask of their shape: lists that the teacher orders at all."""
        return ordered_pairs(ranks, mask).any(2).any(1)
