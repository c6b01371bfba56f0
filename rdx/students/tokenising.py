"""Tokenise (query, passage) pairs."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import AutoTokenizer

from rdx.loading import ModelError, explained
from rdx.students.settings import PASSAGE, QUERY
from rdx.tokens import PairForm, Table, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rdx.students.settings import Student


def load_tokenizer(folder: str, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; to it what looks like a special token in a text is text.

    That is saved with it, so that exported students are told the same.

    Raises
    ------
    ModelError
        If there is none, or one that does not tell where its tokens are; begins with `name`.
    ModuleNotFoundError
        If it is a file of SentencePiece alone (DeBERTa-v3), and that package is not installed.
    """
    place, package = Path(folder), "sentencepiece"
    alone = not (place / "tokenizer.json").exists() and any(place.glob("*.model"))
    if alone and importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"{name}: its tokenizer needs {package}", name=package)
    with explained(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, split_special_tokens=True, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"{name}: its tokenizer has no tokenizer.json, which texts are cut by; load it with "
            "use_fast=True and save it there"
        )
    return tokenizer


class Pairs:
    """Make (query, passage) pairs what a student takes; each text is cut to its length.

    Model and tokenizer are made to agree on the token and the side of padding, and on what the
    model takes beside token ids; that is saved with the tokenizer. So a student that was saved or
    exported pads where its tokenizer does; a `fresh` one to the right, until `rdx.students.probe`
    finds that only the left side changes no score.
    """

    def __init__(
        self, folder: str, student: Student, encoder: PreTrainedModel, fresh: bool = False
    ) -> None:
        name = f"student.model={student.model}"
        self.tokenizer = load_tokenizer(folder, name)
        self.lengths = (student.query_length, student.passage_length)
        self.attention, self.between = student.attention, student.between
        self._facts = {
            "head": student.head,
            "attention": student.attention,
            "layers": student.layers,
            "lengths": self.lengths,
        }
        if student.template is not None:
            _use_template(self.tokenizer, student.template)
        padding = _agree_on_padding(self.tokenizer, encoder)
        _agree_on_inputs(self.tokenizer, encoder)
        with explained(name):
            self._form = PairForm.of(self.tokenizer, padding)
        if fresh:
            self.side = "right"

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

    def batch(
        self, texts: list[tuple[str, str]], sizes: Sequence[int] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs [P, L] and parts [P, L] of a few pairs, padded to the longest.

        `sizes` of lists, one after the other, are for students that score lists.
        """
        numbers = [str(i) for i in range(len(texts))]
        queries, passages = (
            dict(zip(numbers, own, strict=True)) for own in zip(*texts, strict=True)
        )
        tokens = self.tokens(queries, passages)
        return tokens.assemble(tokens.rows(numbers, numbers), sizes)

    def apart(self, query_length: int, passage_length: int) -> Pairs:
        """The same with these lengths."""
        other = copy.copy(self)
        other.lengths = (query_length, passage_length)
        return other


def _use_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Let the tokeniser put pairs into a template, in place of its own special tokens."""
    before, _, rest = template.partition(QUERY)
    between, _, after = rest.partition(PASSAGE)
    pieces = {}
    for name, text in (("before", before), ("between", between), ("after", after)):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        pieces[name] = {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
    kinds = {"before": 0, "between": 0, "after": 1}
    made = {name: [f"{name}:{kind}"] if pieces[name]["ids"] else [] for name, kind in kinds.items()}
    cast(Any, tokenizer).backend_tokenizer.post_processor = TemplateProcessing(
        single="$A",
        pair=[*made["before"], "$A:0", *made["between"], "$B:1", *made["after"]],
        special_tokens=[piece for piece in pieces.values() if piece["ids"]],
    )


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
