"""Ask a language model yes or no about pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rdx.loading import ModelError
from rdx.teachers.models import left_padded, load_any, positions, right_padded
from rdx.teachers.pointwise import Asked, by_length, of_pairs

if TYPE_CHECKING:
    from rdx.teachers.yes_no import YesNo


class Judge:
    """A loaded model and its tokenizer.

    Of the matrix of the vocabulary it keeps the rows of yes and no, in float32: in bfloat16 two
    logits of 20 would differ by eighths.

    Raises
    ------
    ModelError
        If yes or no is no token, or the longest pair has no positions.
    """

    def __init__(self, settings: YesNo) -> None:
        self.settings, self.form = settings, settings.form
        loaded = load_any(settings.model, settings.precision, settings.device, settings.revision)
        self.tokenizer, self.model = (
            loaded[0],
            _of_words(*loaded, (self.form.negative, self.form.positive)),
        )
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"model={settings.model}: its tokenizer has no tokenizer.json, which texts are cut "
                "by; load it with use_fast=True and save it there"
            )
        self._fixed = {part: self._ids(part) for part, text in self._parts("", "") if part == text}
        self._check_length()

    def scores(self, asked: Sequence[Asked], progress: tqdm) -> list[list[float]]:
        """The logit of yes minus that of no, of each passage and query."""
        return of_pairs(asked, lambda pairs: self._of(pairs, progress))

    def row(self, query: str, passage: str) -> list[int]:
        """The tokens that are read of a pair."""
        query = self._cut(query, self.settings.query_length)
        passage = self._cut(passage, self.settings.passage_length)
        return [
            token
            for part, text in self._parts(query, passage)
            for token in (self._fixed[part] if part in self._fixed else self._ids(text, True))
        ]

    def _parts(self, query: str, passage: str) -> list[tuple[str, str]]:
        return list(zip(self.form.parts, self.form.texts(query, passage), strict=True))

    def _ids(self, text: str, plain: bool = False) -> list[int]:
        """Tokens of a text; to a `plain` one nothing is a special token."""
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)
        ids: list[int] = encoded["input_ids"]
        return ids

    def _cut(self, text: str, limit: int) -> str:
        """The beginning of a text that has so many tokens."""
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        ends: list[tuple[int, int]] = encoded["offset_mapping"]
        return text if len(ends) <= limit else text[: ends[limit - 1][1]]

    def _of(self, pairs: list[tuple[str, str]], progress: tqdm) -> list[float]:
        rows = [self.row(*pair) for pair in pairs]

        def score(numbers: list[int]) -> list[float]:
            progress.update(len(numbers))
            return self._differences([rows[i] for i in numbers])

        return by_length([len(row) for row in rows], self.settings.batch, score)

    @torch.inference_mode()
    def _differences(self, rows: list[list[int]]) -> list[float]:
        device = self.model.device
        if self.model.config.is_encoder_decoder:
            tokens, mask = right_padded(rows, device)
            start = torch.full((len(rows), 1), self.model.config.decoder_start_token_id)
            own: dict[str, Any] = {"decoder_input_ids": start.to(device)}
        else:
            tokens, mask = left_padded(rows, device)
            own = {"position_ids": positions(mask), "logits_to_keep": 1}
        output = self.model(input_ids=tokens, attention_mask=mask, use_cache=False, **own)
        logits: Tensor = output.logits[:, -1]
        differences: list[float] = (logits[:, 1] - logits[:, 0]).tolist()
        return differences

    def _check_length(self) -> None:
        """Refuse lengths that a model with a table of positions has none for."""
        settings, config = self.settings, self.model.config
        most = getattr(config, "max_position_embeddings", None)
        around = len(self.row("", ""))
        longest = settings.query_length + settings.passage_length + around
        if isinstance(most, int) and not config.is_encoder_decoder and longest > most:
            raise ModelError(
                f"passage_length={settings.passage_length}: with query_length="
                f"{settings.query_length} and {around} tokens around them a pair takes {longest} "
                f"positions, and {settings.model} has {most}; give fewer"
            )


def _of_words(tokenizer: Any, model: Any, words: tuple[str, ...]) -> Any:
    """The model with the logits [B, L, words] of some words alone, float32."""
    known = tokenizer.get_vocab()
    if absent := [word for word in words if word not in known]:
        raise ModelError(
            f"form: {absent[0]!r} is no token of {type(tokenizer).__name__}; is teacher/form the "
            "form of this model?"
        )
    rows, head = [known[word] for word in words], model.get_output_embeddings()
    for name, weight in list(head.named_parameters()):
        head.register_parameter(name, nn.Parameter(weight.detach()[rows].float()))
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return model
