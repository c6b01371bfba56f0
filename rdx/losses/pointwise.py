"""Losses that see every passage by itself, and so the level of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from rdx import late
from rdx.declared import Above0, one_of, settings
from rdx.losses.lists import split
from rdx.losses.means import Mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late.module("torch")


@settings(frozen=True)
class MSE(Mean):
    r"""Mean squared error: the student's scores shall be the teacher's.

    ``mean over passages of (s_i - t_i / T)^2``

    s student scores, t teacher scores. The mean is over all passages pooled over the batch, those
    of a list of one passage, or of equal teacher scores, among them: ranks have no influence.

    Source: Laitz et al. (2024, arXiv 2401.06910, InRanker), there of the two logits of a T5;
    sentence-transformers' example of distilling a cross-encoder.

    Parameters
    ----------
    teacher_temperature
        T > 0, divides the teacher's scores: brings a teacher with another scale near the student's.
        (One for the student would only scale the loss.)

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> teacher = torch.tensor([[7.0, 4.0]])
    >>> MSE()(torch.tensor([[5.0, 3.0]]), torch.tensor([[1, 2]]), mask, teacher).item()
    2.5
    """

    teacher_temperature: Above0 = 1.0

    needs: ClassVar[str] = "scores"

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        return (scores - teacher / self.teacher_temperature) ** 2

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        return mask


@settings(frozen=True)
class BCE(Mean):
    r"""Binary cross-entropy: every passage by itself, relevant or not, or by how much.

    ``-(c y_i ln sigmoid(s_i / T) + (1 - y_i) ln(1 - sigmoid(s_i / T)))``

    c is `positive_weight`. Natural logarithm; the mean is by number, not by weight, and pooled over
    the batch.

    With `targets` "ranks" y_i = 1 for the passages at the best rank of their list, 0 for those
    ranked worse; the mean is over all passages of lists that have both kinds; a list whose passages
    are all tied says nothing about which are relevant and contributes nothing. It says of every
    passage but the best that it is *not* relevant, which labels say and an order does not: the
    passage that a teacher ranks second may be as good as the first. So it needs labels, while LCE
    only asks that the best be scored above the rest, which any order says.

    With `targets` "scores" y_i is the teacher's score, which must be a probability: from 0 to 1, as
    the scales "minmax" and "quantile" of a teacher make it, or as a teacher gives it that says so
    (`probabilities`). The mean is over all passages.

    Source: Nogueira and Cho (2019, arXiv 1901.04085), Eq. 1 (monoBERT); with a teacher's
    probabilities in place of labels Hinton et al. (2015, arXiv 1503.02531), §2, for two classes.

    Parameters
    ----------
    temperature
        T > 0, divides scores.
    positive_weight
        > 0, weight of relevant passages, e.g. the number of negatives per positive.
    targets
        "ranks" or "scores".

    Examples
    --------
    >>> import torch
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> round(BCE()(torch.zeros(1, 2), torch.tensor([[1, 2]]), mask).item(), 4)  # ln 2
    0.6931
    """

    temperature: Above0 = 1.0
    positive_weight: Above0 = 1.0
    targets: Annotated[str, one_of("ranks", "scores")] = "ranks"

    @property
    def needs(self) -> str:
        """Labels, or scores as targets."""
        return "scores" if self.targets == "scores" else "labels"

    @property
    def scales(self) -> tuple[str, ...] | None:
        """Those that give probabilities, and scores that are some."""
        return ("minmax", "quantile", "probability") if self.targets == "scores" else None

    def _values(self, scores: Tensor, ranks: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
        target = teacher if self.targets == "scores" else split(ranks, mask)[0].to(scores.dtype)
        logits = scores / self.temperature
        relevant = target * self.positive_weight * torch.nn.functional.logsigmoid(logits)
        return -(relevant + (1 - target) * torch.nn.functional.logsigmoid(-logits))

    def _counted(self, ranks: Tensor, mask: Tensor) -> Tensor:
        if self.targets == "scores":
            return mask
        return mask & split(ranks, mask)[1].any(1, keepdim=True)
