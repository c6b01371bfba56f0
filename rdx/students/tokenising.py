"""Tokenise (query, passage) pairs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from rdx.loading import ModelError, explained
from rdx.tokens import PairForm, Table, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rdx.students.settings import Student


class Pairs:
    """Tokenise (query, passage) pairs; each text is cut once and remembered.

    What looks like a special token inside a text, e.g. "[SEP]", is text like any other. That is
    saved with the tokeniser, so that exported students are told the same; and so are the token and
    the side of padding, and what the model takes beside token ids.

    Attributes
    ----------
    truncated
        Texts of which the beginning alone was kept.
    """

    def __init__(
        self, folder: str, student: Student, encoder: PreTrainedModel, side: str = "right"
    ) -> None:
        with explained(f"student.model={student.model}"):
            self.tokenizer = AutoTokenizer.from_pretrained(
                folder, split_special_tokens=True, trust_remote_code=False
            )
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"student.model={student.model}: its tokenizer has no tokenizer.json, which texts "
                "are cut by; load it with use_fast=True and save it there"
            )
        self.lengths = (student.query_length, student.passage_length)
        self.attention = student.attention
        self._facts = {"head": student.head, "layers": student.layers, "lengths": self.lengths}
        self._cut: dict[tuple[str, int], str] = {}
        self.truncated: set[str] = set()
        self._padding = _agree_on_padding(self.tokenizer, encoder)
        _agree_on_inputs(self.tokenizer, encoder)
        with explained(f"student.model={student.model}"):
            self._form = PairForm.of(self.tokenizer, self._padding)
        self.side = side

    @property
    def side(self) -> str:
        """Where padding goes: "right" or "left"."""
        return str(self.tokenizer.padding_side)

    @side.setter
    def side(self, side: str) -> None:
        if side != self.tokenizer.padding_side:
            self.tokenizer.padding_side = self.tokenizer.init_kwargs["padding_side"] = side

    @property
    def facts(self) -> dict[str, Any]:
        """What is saved beside the student."""
        return self._facts | {"padding": self.side}

    @property
    def form(self) -> PairForm:
        """How two texts become a pair."""
        return replace(self._form, side=self.side)

    def tokens(self, queries: Mapping[str, str], passages: Mapping[str, str]) -> Tokens:
        """Tokenise a few texts, given by their ids, in memory."""
        query_length, passage_length = self.lengths
        return Tokens(
            Table.of(self.tokenizer, queries, query_length),
            Table.of(self.tokenizer, passages, passage_length),
            self.form,
        )

    def apart(self, query_length: int, passage_length: int) -> Pairs:
        """The same with these lengths, which tells this one nothing of the texts that it cuts."""
        other = copy.copy(self)
        other.lengths, other._cut, other.truncated = (query_length, passage_length), {}, set()
        return other

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
        tensors = {}
        for name in encoded[0]:
            fill = [self._padding if name == "input_ids" else 0]
            gaps = [fill * (width - len(pair[name])) for pair in encoded]
            rows = zip(gaps, (pair[name] for pair in encoded), strict=True)
            tensors[name] = torch.tensor(
                [gap + row if self.side == "left" else row + gap for gap, row in rows]
            )
        return tensors, tensors.pop("parts")

    def _shorten(self, text: str, limit: int) -> str:
        """The beginning of a text that has at most `limit` tokens, as it is tokenised itself.

        It ends where a token ends; a token or a character of which a part would be left is left
        out whole.
        """
        key = (text, limit)
        if key not in self._cut:
            offsets = self._offsets(text)
            kept = text
            if len(offsets) > limit:
                self.truncated.add(text)
                count = excess = limit
                kept = text[: offsets[count - 1][1]]
                # Alone, the beginning may be other tokens than it was in the text; and the tokens
                # of one character, such as an emoji, all end where it ends.
                while (excess := len(self._offsets(kept)) - limit) > 0:
                    count = max(count - excess, 0)
                    kept = text[: offsets[count - 1][1]] if count else ""
            self._cut[key] = kept
        return self._cut[key]

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Where every token of a text begins and ends in it, without special tokens."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return cast("list[tuple[int, int]]", encoded["offset_mapping"])


def _agree_on_padding(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> int:
    """The token id to pad with, made known to both.

    The model's own, by which some find positions and the last token; where it has none, or one
    without an embedding, the tokeniser's, else that of the end of a text, else 0.
    """
    config: Any = encoder.config.get_text_config()
    rows = cast(nn.Embedding, encoder.get_input_embeddings()).num_embeddings
    known = (
        getattr(config, "pad_token_id", None),
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
    )
    padding = next((i for i in known if isinstance(i, int) and 0 <= i < rows), 0)
    config.pad_token_id = padding
    token = tokenizer.convert_ids_to_tokens(padding)
    if tokenizer.pad_token_id != padding and token is not None:
        tokenizer.pad_token = token
    return padding


def _agree_on_inputs(tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel) -> None:
    """Let the tokeniser give what the model takes: no types of tokens where it tells none apart."""
    taken = set(inspect.signature(type(encoder).forward).parameters)
    if getattr(encoder.config, "type_vocab_size", None) in (0, 1):
        taken.discard("token_type_ids")
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in taken and "token_type_ids" in tokenizer.model_input_names:
        names.insert(1, "token_type_ids")
    if names != tokenizer.model_input_names:
        tokenizer.model_input_names = names
        tokenizer.init_kwargs["model_input_names"] = names
