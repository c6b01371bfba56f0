"""Forward passes without padding: the pairs of a batch one after the other, as one long row.

The layers of an encoder see real tokens only; what padding costs is its embedding. The attention,
``attention_implementation="varlen"``, keeps the pairs apart: by kernels for sequences of different
length on GPUs in half precision (torch's FlashAttention), elsewhere by padding within the attention
alone, which is what the tests compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from rdx.students.settings import VARLEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLACES = ("real", "starts")  # names of what `places` gives, among the inputs of a student


def packs(encoder: PreTrainedModel) -> bool:
    """Whether the layers of an encoder are to see no padding."""
    return bool(encoder.config._attn_implementation == VARLEN)


def places(mask: Tensor) -> dict[str, Tensor]:
    """Where the real tokens are, of a mask [P, L]: made on the CPU, no GPU is waited for.

    Returns
    -------
    dict
        "real" [T]: their places in [P * L]; "starts" [P + 1]: where each pair begins and the last
        one ends in [T].
    """
    starts = pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    return {"real": mask.flatten().nonzero().flatten(), "starts": starts}


@dataclass(frozen=True)
class Packing:
    """Where the tokens of pairs [P, L] lie in one row [T]; see `places`."""

    real: Tensor
    starts: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> Packing:
        """Of the inputs of a student, which may hold what `places` gives."""
        mask = inputs["attention_mask"]
        known = inputs if "real" in inputs else places(mask)
        return cls(known["real"], known["starts"], (mask.shape[0], mask.shape[1]))

    @property
    def positions(self) -> Tensor:
        """Column [1, T] of every token: its position in its pair, where padding is on the right."""
        return (self.real % self.shape[1]).unsqueeze(0)

    def pack(self, padded: Tensor) -> Tensor:
        """[P, L, ...] to [T, ...]."""
        return padded.flatten(0, 1).index_select(0, self.real)

    def unpack(self, packed: Tensor) -> Tensor:
        """[T, ...] to [P, L, ...], zero at padding."""
        places, length = self.shape
        flat = packed.new_zeros(places * length, *packed.shape[1:])
        return flat.index_copy(0, self.real, packed).view(*self.shape, *packed.shape[1:])

    @contextmanager
    def around(self, layers: nn.ModuleList, first_only: bool) -> Iterator[None]:
        """Within it, the layers of an encoder compute packed tokens.

        They give token vectors [P, L, H], or with `first_only`, if they are like BERT's, [P, 1, H],
        those of first tokens.
        """

        def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self.pack(args[0]).unsqueeze(0), *args[1:])

        def leave(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return self.unpack(output[0])

        def first(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(each[0].index_select(0, self.starts[:-1]).unsqueeze(1) for each in args)

        last: Any = layers[-1]
        handles = [layers[0].register_forward_pre_hook(enter)]
        if first_only:
            handles.append(last.attention.output.register_forward_pre_hook(first))
        else:
            handles.append(last.register_forward_hook(leave))
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            for handle in handles:
                handle.remove()

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout: float,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Every token [T, heads, size] attends to those of its pair.

        With a window, to those that are at most so many tokens before or behind it.
        """
        if window is not None and window >= self.shape[1] - 1:
            window = None  # nothing is farther away
        if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
            if not dropout and scale == query.shape[-1] ** -0.5:
                return self.flash(query, key, value, window)
            if window is None:
                return self.jagged(query, key, value, dropout, scale)
        q, k, v = (self.unpack(each).transpose(1, 2) for each in (query, key, value))
        mixed = scaled_dot_product_attention(q, k, v, self._seen(window), dropout, scale=scale)
        return self.pack(mixed.transpose(1, 2))

    def _seen(self, window: int | None) -> Tensor:
        """Which tokens a token sees [P, 1, L or 1, L]; padding sees something, too: no nan."""
        real = self.unpack(torch.ones_like(self.real, dtype=torch.bool))[:, None, None]
        if window is None:
            return real
        at = torch.arange(self.shape[1], device=real.device)
        return (real | ~real.transpose(2, 3)) & ((at[:, None] - at).abs() <= window)

    def flash(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """By torch's varlen attention, which drops nothing."""
        from torch.nn.attention.varlen import varlen_attn

        longest = self.shape[1]
        near: dict[str, Any] = {} if window is None else {"window_size": (window, window)}
        mixed: Any = varlen_attn(
            query, key, value, self.starts, self.starts, longest, longest, **near
        )
        return mixed  # type: ignore[no-any-return]

    def jagged(
        self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float
    ) -> Tensor:
        """By torch's jagged tensors, whose attention can drop."""
        offsets = self.starts.long()

        def nested(each: Tensor) -> Tensor:
            return torch.nested.nested_tensor_from_jagged(
                each, offsets, min_seqlen=1, max_seqlen=self.shape[1]
            ).transpose(1, 2)

        mixed = scaled_dot_product_attention(
            nested(query), nested(key), nested(value), dropout_p=dropout, scale=scale
        )
        return mixed.transpose(1, 2).values()


_current: ContextVar[Packing] = ContextVar("packing")


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as Transformers calls it, [1, heads, T, size] to [1, T, heads, size].

    Its `sliding_window` is one more than the farthest distance.
    """
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = None if sliding_window is None else sliding_window - 1
    return _current.get().attend(q, k, v, dropout, scale, window).unsqueeze(0), None


def use(encoder: PreTrainedModel) -> None:
    """Let an encoder attend so; Transformers then makes no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, attention)
    encoder.set_attn_implementation(VARLEN)
