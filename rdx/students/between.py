"""Attention between the passages of a list: the Set-Encoder.

Schlatt et al., "Set-Encoder: Permutation-Invariant Inter-Passage Attention for Listwise Passage
Re-Ranking with Cross-Encoders", ECIR 2025 (arXiv 2404.06912), in the form of their code (Lightning
IR, `lightning_ir/models/cross_encoders/set_encoder.py`, with `add_extra_token`):

- A pair is ``[CLS] [INT] query [SEP] passage [SEP]``; [INT] is one new token for all, its
  embedding is drawn anew, its type is that of [CLS]. Positions count from 0 in every passage.
- In every layer all tokens of a passage attend to the tokens of that passage and to the [INT] of
  each other passage of its list, as that layer gets it: to L + n - 1 keys and values, for n
  passages. A passage's own [INT] is there once, among its tokens.
- Nothing tells where a passage stands, so that an order of the list orders the scores alike.
- `filled_to`: a list of fewer passages is filled up with vectors that are drawn, in every layer,
  from the normal distribution with the mean and the deviation (that of a sample, 0 of one passage)
  of its [INT] vectors, each dimension by itself; all passages of the list see the same, and no
  gradient goes through them. There it is always done; in rdx, only when training, so that scores
  are a function of the list.

This file also goes, as it is, into the folders that `rdx.export` writes. It needs torch alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .heads import bias

PLACE = 1  # of [INT] in every pair


def with_token(
    inputs: dict[str, Tensor], parts: Tensor, token: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and parts of pairs [P, L] with a token behind [CLS] [P, L + 1].

    It is as [CLS] in all but its id.
    """

    def put(values: Tensor) -> Tensor:
        return torch.cat([values[:, :PLACE], values[:, :PLACE], values[:, PLACE:]], 1)

    longer = {name: put(values) for name, values in inputs.items()}
    longer["input_ids"][:, PLACE] = token
    return longer, put(parts)


@contextmanager
def attending(
    layers: Iterable[Any], lists: Tensor, pairs: int, filled_to: int = 0
) -> Iterator[None]:
    """Within it, in layers like BERT's, passages attend to the [INT] of their lists.

    Parameters
    ----------
    lists
        [B, N]: the pairs of each list, by their places in the batch; -1 at padding. Every pair is
        in one list.
    pairs
        P, in the batch.
    filled_to
        Shorter lists are filled up to so many passages; 0 = none is.
    """
    among = _Among.of(lists, pairs, filled_to)
    handles = [
        layer.attention.self.register_forward_pre_hook(among.enter, with_kwargs=True)
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Among:
    """What pairs see beside their own tokens: W passages, N of a list and those that are drawn.

    Attributes
    ----------
    lists
        [B, W]: as in `attending`, perhaps wider.
    drawn
        [B, W]: whether a vector is drawn; None = none is.
    places
        [P]: where each pair is in [B * N].
    bias
        [P, 1, 1, W]: 0 at what a pair sees, else very low.
    width
        N.
    """

    lists: Tensor
    drawn: Tensor | None
    places: Tensor
    bias: Tensor
    width: int

    @classmethod
    def of(cls, lists: Tensor, pairs: int, filled_to: int) -> _Among:
        """Nothing here waits for a GPU."""
        width = lists.shape[1]
        places = lists.new_zeros(pairs + 1)
        places[lists.flatten()] = torch.arange(lists.numel(), device=lists.device)
        places = places[:-1]  # padding went behind the last pair
        wide = pad(lists, (0, max(filled_to - width, 0)), value=-1)
        columns = torch.arange(wide.shape[1], device=lists.device)
        real = wide >= 0
        drawn = ~real & (columns < filled_to) if filled_to else None
        seen = real if drawn is None else real | drawn
        own = columns == (places % width)[:, None]
        allowed = seen[places // width] & ~own
        return cls(wide, drawn, places, bias(allowed)[:, None, None], width)

    def enter(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before the self-attention of a layer: more keys and values, and a wider mask."""
        hidden: Tensor = args[0]
        vectors = hidden[:, PLACE].index_select(0, self.lists.clamp(min=0).flatten())
        vectors = vectors.view(*self.lists.shape, -1)  # [B, W, H]
        if self.drawn is not None:
            vectors = torch.where(self.drawn[..., None], _draw(vectors, self.lists >= 0), vectors)
        size = module.attention_head_size
        keys, values = (self._seen(layer(vectors), size) for layer in (module.key, module.value))
        mask = kwargs["attention_mask"]  # [P, 1, 1, L]
        wider = torch.cat([mask, self.bias.to(mask.dtype)], -1)
        return args, kwargs | {"attention_mask": wider, "past_key_values": _More(keys, values)}

    def _seen(self, vectors: Tensor, size: int) -> Tensor:
        """Of the keys or values of lists [B, W, H], those that pairs see [P, heads, W, size].

        Copied for every place of a list, and then taken, so that a gradient is one exact sum over
        the passages of a list: taken at once, it would be added up one by one, in any order.
        """
        rows = vectors.unsqueeze(1).expand(-1, self.width, -1, -1).flatten(0, 1)  # [B * N, W, H]
        own: Tensor = rows.index_select(0, self.places).unflatten(2, (-1, size))
        return own.transpose(1, 2)


@dataclass(frozen=True)
class _More:
    """Keys and values beside a layer's own; Transformers takes them for a cache's."""

    keys: Tensor
    values: Tensor

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """All keys and values, [P, heads, L + W, size]."""
        return torch.cat([keys, self.keys], 2), torch.cat([values, self.values], 2)


@torch.no_grad()
def _draw(vectors: Tensor, real: Tensor) -> Tensor:
    """Vectors [B, W, H] from normal distributions like that of the real ones of each list."""
    counts = real.sum(1)[:, None, None]
    weights = real[..., None].to(vectors.dtype)
    mean = (vectors * weights).sum(1, keepdim=True) / counts
    squares = ((vectors - mean) * weights).square().sum(1, keepdim=True)
    deviation = (squares / (counts - 1).clamp(min=1)).sqrt()
    return mean + deviation * torch.randn_like(vectors)
