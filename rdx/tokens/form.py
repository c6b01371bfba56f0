"""How a tokenizer puts two texts together: special tokens, types of tokens, padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rdx.loading import ModelError
from rdx.tokens.cutting import cut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Numbers = npt.NDArray[np.int64]

# Put together by every form that is learned, and compared with the tokenizer's own pairs.
PROBES = ("a", "Where is it? In a stone's garden, 1,000 miles away.", "é漢字🙂", " ", "")


@dataclass(frozen=True)
class Piece:
    """Special tokens that stand together, and their types."""

    ids: tuple[int, ...] = ()
    types: tuple[int, ...] = ()


@dataclass(frozen=True)
class PairForm:
    """What stands before, between and after the token ids of two texts, and how pairs are padded.

    BERT has ``[CLS] q [SEP] p [SEP]`` with types 0 and 1, RoBERTa ``<s> q </s></s> p </s>`` with
    none, a decoder perhaps nothing but the texts.

    Attributes
    ----------
    before, between, after
        Special tokens.
    types
        Of the tokens of the first text and of the second; None: the model takes no types.
    padding, side
        The token to pad with; "right" or "left".
    """

    before: Piece
    between: Piece
    after: Piece
    types: tuple[int, int] | None
    padding: int
    side: str = "right"

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, padding: int) -> PairForm:
        """Learn the form of a tokenizer from pairs that it encodes.

        Raises
        ------
        ModelError
            If its pairs are not the two texts as it encodes each alone, with the same special
            tokens around them.
        """
        pairs = list(product(PROBES, PROBES))
        encoded = tokenizer([a for a, _ in pairs], [b for _, b in pairs], verbose=False)
        typed = "token_type_ids" in encoded
        form = _learned(encoded.encodings[0], typed, padding)
        alone = dict(zip(PROBES, cut(tokenizer, list(PROBES), 10**6)[0], strict=True))
        wrong = next(
            (
                pair
                for pair, own in zip(pairs, encoded.encodings, strict=True)
                if form is None or not form._makes(own, alone[pair[0]], alone[pair[1]], tokenizer)
            ),
            None,
        )
        if form is None or wrong is not None:
            raise ModelError(
                f"the tokenizer encodes the pair {wrong} otherwise than each text alone with "
                "special tokens around them, which pairs are put together of; give its "
                "tokenizer.json a post_processor that is a template (TemplateProcessing)"
            )
        return form

    @property
    def special(self) -> int:
        """Special tokens of a pair."""
        return len(self.before.ids) + len(self.between.ids) + len(self.after.ids)

    def _makes(
        self, pair: Any, first: list[int], second: list[int], tokenizer: PreTrainedTokenizerBase
    ) -> bool:
        """Whether a pair is the two texts in this form."""
        pieces = (self.before, self.between, self.after)
        a, b = self.types or (0, 0)
        ids = [*pieces[0].ids, *first, *pieces[1].ids, *second, *pieces[2].ids]
        sizes = [len(piece.ids) for piece in pieces]
        parts = [*[None] * sizes[0], *[0] * len(first), *[None] * sizes[1], *[1] * len(second)]
        types = [*pieces[0].types, *[a] * len(first), *pieces[1].types, *[b] * len(second)]
        typed = self.types is None or pair.type_ids == [*types, *pieces[2].types]
        same_parts = pair.sequence_ids == [*parts, *[None] * sizes[2]]
        return bool(pair.ids == ids and same_parts and typed)


def _learned(pair: Any, typed: bool, padding: int) -> PairForm | None:
    """The form of a pair of texts that both have tokens; None if it has none."""
    parts = pair.sequence_ids
    first = [i for i, part in enumerate(parts) if part == 0]
    second = [i for i, part in enumerate(parts) if part == 1]
    if not first or not second or first[-1] > second[0]:
        return None

    def piece(start: int, end: int) -> Piece:
        return Piece(tuple(pair.ids[start:end]), tuple(pair.type_ids[start:end]))

    return PairForm(
        before=piece(0, first[0]),
        between=piece(first[-1] + 1, second[0]),
        after=piece(second[-1] + 1, len(parts)),
        types=(pair.type_ids[first[0]], pair.type_ids[second[0]]) if typed else None,
        padding=padding,
    )
