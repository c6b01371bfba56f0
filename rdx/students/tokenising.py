"""Tokenise (query, passage) pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import AutoTokenizer

if TYPE_CHECKING:
    from rdx.students.settings import Student


class Pairs:
    """Tokenise (query, passage) pairs; each text is cut once and remembered.

    What looks like a special token inside a text, e.g. "[SEP]", is text like any other. That is
    saved with the tokeniser, so that exported students are told the same.
    """

    def __init__(self, folder: str, student: Student) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, split_special_tokens=True, trust_remote_code=False
        )
        self.lengths = (student.query_length, student.passage_length)
        self.attention = student.attention
        self.facts = {"head": student.head, "layers": student.layers, "lengths": self.lengths}
        self._cut: dict[tuple[str, int], str] = {}
        self.truncated: set[str] = set()

    def encode(self, pairs: list[tuple[str, str]]) -> list[dict[str, list[int]]]:
        """Token ids (and whatever the model wants beside) of every pair, unpadded.

        "parts" is 1 at query tokens, 2 at passage tokens, 0 at special tokens.
        """
        queries = [self._shorten(query, self.lengths[0]) for query, _ in pairs]
        passages = [self._shorten(passage, self.lengths[1]) for _, passage in pairs]
        encoded = self.tokenizer(queries, passages, verbose=False)
        columns = list(encoded.keys())
        return [
            {name: encoded[name][i] for name in columns}
            | {"parts": [0 if s is None else s + 1 for s in encoded.sequence_ids(i)]}
            for i in range(len(pairs))
        ]

    def pad(self, encoded: list[dict[str, list[int]]]) -> tuple[dict[str, Tensor], Tensor]:
        """Pad to the longest; returns model inputs [P, L] and parts [P, L]."""
        width = max(len(pair["input_ids"]) for pair in encoded)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        tensors = {
            name: torch.tensor(
                [pair[name] + [fill.get(name, 0)] * (width - len(pair[name])) for pair in encoded]
            )
            for name in encoded[0]
        }
        return tensors, tensors.pop("parts")

    def _shorten(self, text: str, limit: int) -> str:
        key = (text, limit)
        if key not in self._cut:
            offsets = self.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )["offset_mapping"]
            long = len(offsets) > limit
            if long:
                self.truncated.add(text)
            self._cut[key] = text[: offsets[limit - 1][1]] if long else text
        return self._cut[key]
