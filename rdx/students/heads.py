"""What turns an encoder's token vectors into a score; and attention that keeps two texts apart.

This file also goes, as it is, into the folders that `rdx.export` writes. It needs torch alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """A linear layer without bias on the [CLS] vector."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 1, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor, parts: Tensor) -> Tensor:
        """Scores [P] from token vectors [P, L, H]."""
        scores: Tensor = self.linear(hidden[:, 0])
        return scores.squeeze(1).float()


class Mean(nn.Module):
    """A linear layer on the mean of the token vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 1)

    def forward(self, hidden: Tensor, mask: Tensor, parts: Tensor) -> Tensor:
        """Scores [P] from token vectors [P, L, H] and mask [P, L]."""
        weights = mask.unsqueeze(2).float()
        scores: Tensor = self.linear((hidden.float() * weights).sum(1) / weights.sum(1))
        return scores.squeeze(1).float()


class Interaction(nn.Module):
    """Scaled MaxSim between the jointly encoded query and passage tokens, plus a [CLS] term.

    MaxSim = mean over query tokens of the largest cosine with a passage token.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.cls = nn.Linear(size, 1)
        nn.init.zeros_(self.cls.weight)
        nn.init.zeros_(self.cls.bias)

    def forward(self, hidden: Tensor, mask: Tensor, parts: Tensor) -> Tensor:
        """Scores [P] from token vectors [P, L, H]; parts [P, L] is 1 at query, 2 at passage."""
        with torch.autocast(hidden.device.type, enabled=False):
            unit = nn.functional.normalize(hidden.float(), dim=-1)
            similarity = unit @ unit.transpose(1, 2)  # [P, L, L]
            best = similarity.masked_fill((parts != 2).unsqueeze(1), -1.0).amax(2)  # [P, L]
            query = (parts == 1).float()
            maxsim = (best * query).sum(1) / query.sum(1).clamp(min=1)
            term: Tensor = self.cls(hidden[:, 0].float())
            return self.scale * maxsim + term.squeeze(1)


OWN = {"linear": Linear, "mean": Mean, "interaction": Interaction}


def parts_of(input_ids: Tensor, mask: Tensor, cls: int, separator: int) -> Tensor:
    """1 at query tokens, 2 at passage tokens, 0 at special tokens and padding [P, L].

    For "[CLS] query [SEP] passage [SEP]", and for two separators between the texts.
    """
    between = input_ids == separator
    text = 1 + (between.cumsum(1) > 0).long()
    return torch.where(between | (input_ids == cls) | ~mask.bool(), 0, text)


def first_position(encoder: nn.Module) -> int:
    """Position of a text's first token: 0, or in RoBERTa the one after that of its padding."""
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def sparse(inputs: dict[str, Tensor], parts: Tensor, first: int) -> dict[str, Tensor]:
    """Model inputs whose attention mask [P, 1, L, L] keeps query and passage apart.

    The separator after each text belongs to that text; padding sees itself only, so that no row of
    the attention is empty. [CLS] is at position `first`, and each text begins at the next one.
    """
    real = inputs["attention_mask"].bool()
    before = torch.roll(parts, 1, dims=1)
    text = torch.where((parts == 0) & real, before, parts)  # a separator joins the text before it
    text[:, 0] = 0  # [CLS]
    same = text.unsqueeze(2) == text.unsqueeze(1)
    cls = torch.zeros_like(same)
    cls[:, 0] = True
    own = torch.eye(parts.shape[1], dtype=torch.bool, device=parts.device)
    allowed = ((same | cls) & real.unsqueeze(1)) | own
    index = torch.arange(parts.shape[1], device=parts.device).expand_as(parts)
    start = torch.where(text == 2, index, parts.shape[1]).amin(1, keepdim=True)
    positions = first + torch.where(text == 2, index - start + 1, torch.where(real, index, 0))
    kept = {key: value for key, value in inputs.items() if key != "token_type_ids"}
    return {**kept, "attention_mask": bias(allowed.unsqueeze(1)), "position_ids": positions}


def bias(allowed: Tensor) -> Tensor:
    """What is added to the attention's logits: not every implementation takes a boolean mask."""
    nothing = torch.zeros(allowed.shape, device=allowed.device)
    return nothing.masked_fill(~allowed, torch.finfo(torch.bfloat16).min)
