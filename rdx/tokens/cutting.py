"""Cut texts to a number of tokens, many at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

_PARALLEL = "TOKENIZERS_PARALLELISM"


def cut(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], limit: int
) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
    """Token ids of the beginning of every text that has at most `limit` tokens.

    It is tokenised as a text of its own, and ends where a token of the whole text ends; a token or
    a character of which a part would be left is left out whole.

    Returns
    -------
    ids, truncated
        Without special tokens; [n]: whether something of the text was left out.
    """
    if not texts:
        return [], np.zeros(0, dtype=bool)
    whole = _encode(tokenizer, texts)
    encodings = whole.encodings or []
    ids: list[list[int]] = whole["input_ids"]
    truncated = np.fromiter((len(own) > limit for own in ids), bool, len(ids))
    ends = {int(i): [end for _, end in encodings[i].offsets] for i in np.flatnonzero(truncated)}
    counts = dict.fromkeys(ends, limit)
    # Alone, the beginning may be other tokens than it was in the text; and the tokens of one
    # character, such as an emoji, all end where it ends.
    while counts:
        kept = [texts[i][: ends[i][count - 1]] if count else "" for i, count in counts.items()]
        again = dict(zip(counts, _encode(tokenizer, kept)["input_ids"], strict=True))
        ids = [again.get(i, own) for i, own in enumerate(ids)]
        counts = {
            i: max(counts[i] - len(own) + limit, 0) for i, own in again.items() if len(own) > limit
        }
    return ids, truncated


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> BatchEncoding[Any]:
    encoded: BatchEncoding[Any] = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return encoded


@contextmanager
def parallel() -> Iterator[None]:
    """Let tokenizers use all cores; they do not otherwise (`rdx.quiet`), so that forks are safe."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before
