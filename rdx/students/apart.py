"""Try whether an encoder can keep two texts apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from rdx.loading import ModelError
from rdx.students.heads import first_position, sparse

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-4  # of the largest value of the vectors


@torch.inference_mode()
def refuse_mixing(encoder: PreTrainedModel, query_length: int, passage_length: int) -> None:
    """Check that under `sparse` each of two texts has the token vectors that it has alone.

    "Alone" is the text between [CLS] and [SEP], at the positions that the encoder gives it, [CLS]
    masked. The texts are as long as the student's may be, so that attention in windows, which the
    mask replaces, is found out too.

    Parameters
    ----------
    encoder
        In evaluation mode.
    query_length, passage_length
        Tokens.

    Raises
    ------
    ModelError
        If the encoder takes no mask [P, 1, L, L] or no positions, or does not heed them.
    """
    base, kind = cast("PreTrainedModel", encoder.base_model), encoder.config.model_type
    ids, parts = _pair(base, query_length, passage_length)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    try:
        together = _vectors(base, sparse(inputs, parts, first_position(base)))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ModelError(_refusal(kind, str(error).strip().splitlines()[0])) from error
    for part, text in ((1, "query"), (2, "passage")):
        places = (parts[0] == part).nonzero()[:, 0]
        separator = places[-1:] + 1
        alone_ids = ids[:, torch.cat([torch.zeros_like(separator), places, separator])]
        mask = torch.ones_like(alone_ids)
        mask[:, 0] = 0
        alone = _vectors(base, {"input_ids": alone_ids, "attention_mask": mask})[1:-1]
        difference = (together[places] - alone).abs().max() / alone.abs().max()
        if not difference <= TOLERANCE:  # nor nan
            raise ModelError(
                _refusal(
                    kind,
                    f"the vectors of a {text} of {len(places)} tokens are {difference:.2g} of "
                    "their size away from those that it has alone",
                )
            )


def _refusal(kind: str, why: str) -> str:
    return (
        f"student.attention='sparse': encoders of type {kind!r} do not keep query and passage "
        f"apart: {why}. Use student.attention=full; or a model of type bert, electra, roberta, "
        "distilbert, or of type modernbert with texts no longer than half its local window"
    )


def _pair(base: PreTrainedModel, query_length: int, passage_length: int) -> tuple[Tensor, Tensor]:
    """Token ids [1, L] of a pair, none of them padding, and its parts."""
    most = getattr(base.config, "max_position_embeddings", None) or 512
    query, passage = min(query_length, most // 4), min(passage_length, most // 2)
    parts = torch.tensor([[0, *[1] * query, 0, *[2] * passage, 0]])
    size = cast(nn.Embedding, base.get_input_embeddings()).num_embeddings
    known = torch.tensor([i for i in range(min(size, 1000)) if i != base.config.pad_token_id])
    return known[torch.arange(parts.shape[1]) % len(known)].unsqueeze(0), parts


def _vectors(base: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Token vectors [L, H] of one pair or text."""
    vectors: Tensor = base(**inputs).last_hidden_state
    return vectors[0]
