"""A causal language model that Transformers runs, answering batches of chats."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, StoppingCriteriaList

from rdx import memory
from rdx.teachers import parsing
from rdx.teachers.chats import Chats, Row, end_tokens
from rdx.teachers.messages import Answer, BackendError, Failed, Fatal, Message
from rdx.teachers.models import left_padded, load_causal, positions

if TYPE_CHECKING:
    from rdx.teachers.local import Local

SHARE = 0.5  # of the free memory, for keys and values; the rest is for a layer's own values

log = logging.getLogger(__name__)


class Engine:
    """The loaded model."""

    def __init__(self, settings: Local) -> None:
        self.generates = settings.score == "generate"
        tokenizer, self.model = load_causal(
            settings.model, settings.precision, settings.device, settings.revision
        )
        config = self.model.config
        opening = None if self.generates else settings.opening
        self.chats = Chats(tokenizer, config, settings, opening)
        self.batch = settings.batch
        free = SHARE * memory.free_bytes(self.model.device)
        itemsize = 2 if settings.precision == "bf16" else 4
        self.tokens = int(free / (itemsize * max(1, cached_values(config))))
        self.ends = end_tokens(tokenizer, self.model.generation_config)
        # What a model's own generation config says (temperature, penalties) is for conversations.
        self.model.generation_config = GenerationConfig()
        self.letters = [] if self.generates else self.chats.letters()

    def row(self, messages: list[Message], size: int) -> Row:
        """The tokens of a chat that shows `size` passages."""
        if not self.generates and size > len(ascii_uppercase):
            raise Fatal(
                f"teacher.backend.score=first_token: a window of {size} passages, but there are "
                f"{len(ascii_uppercase)} letters; lower teacher.window"
            )
        return self.chats.row(messages, size)

    def together(self, rows: Sequence[Row]) -> list[int]:
        """The oldest row and some of like length, as many as batch and memory hold."""
        return of_like_length([row.length for row in rows], self.batch, self.tokens)

    def answers(self, rows: Sequence[Row], stop: threading.Event) -> list[Answer | BackendError]:
        """Answers; where memory does not suffice, batches are halved from then on."""
        results: list[Answer | BackendError] = []
        run = self._generated if self.generates else self._first_token
        while len(results) < len(rows):
            batch = rows[len(results) : len(results) + self.batch]
            try:
                results += run(batch, stop)
                continue
            except torch.OutOfMemoryError:
                pass  # its frames hold the tensors until here
            torch.cuda.empty_cache()
            if len(batch) == 1:
                results.append(Failed("the device has too little memory for this request alone"))
                continue
            self.batch = (len(batch) + 1) // 2
            log.warning("out of memory: from now on %d windows a batch", self.batch)
        return results

    @torch.inference_mode()
    def _generated(self, rows: Sequence[Row], stop: threading.Event) -> list[Answer]:
        tokens, mask = left_padded([row.ids for row in rows], self.model.device)
        watch = _Watch(self.chats, rows, self.ends, stop)
        pad = self.chats.tokenizer.pad_token_id
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(row.limit for row in rows),
            eos_token_id=sorted(self.ends) or None,
            pad_token_id=0 if pad is None else pad,
            use_cache=True,
        )
        self.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            generation_config=greedy,
            stopping_criteria=StoppingCriteriaList([watch]),
        )
        return [watch.answer(i) for i in range(len(rows))]

    @torch.inference_mode()
    def _first_token(self, rows: Sequence[Row], stop: threading.Event) -> list[Answer]:
        tokens, mask = left_padded([row.ids for row in rows], self.model.device)
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions(mask),
            logits_to_keep=1,
            use_cache=False,
        )
        logits = output.logits[:, -1, self.letters].float().cpu()
        answers = []
        for row, letters in zip(rows, logits, strict=True):
            # stable: equal logits keep the input order
            order = letters[: row.size].argsort(descending=True, stable=True).tolist()
            text = " > ".join(f"[{ascii_uppercase[i]}]" for i in order)
            answers.append(Answer(text, len(row.ids), 1, 0.0, "stop"))
        return answers


def cached_values(config: PretrainedConfig) -> int:
    """Numbers that a model keeps of every token: a key and a value per layer and head."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0)
    if not heads:
        return 0  # it has no attention
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    heads = getattr(text, "num_key_value_heads", None) or heads
    return int(2 * text.num_hidden_layers * heads * size)


def of_like_length(lengths: Sequence[int], most: int, tokens: int) -> list[int]:
    """The first of some rows and its neighbours in length, with little padding.

    Parameters
    ----------
    lengths
        Tokens of each row.
    most
        Rows, at most.
    tokens
        Of the batch, padding included, at most; a single row may have more.

    Returns
    -------
    list of int
        Of all sets of rows next to each other in length that hold the first row, one of the
        largest, and of these the one with the least padding; by length.

    Examples
    --------
    >>> of_like_length([20, 90, 21, 19, 80], 3, 1000), of_like_length([20, 90, 21], 3, 50)
    ([3, 0, 2], [0, 2])
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    place = order.index(0)
    for count in range(min(most, len(order)), 1, -1):
        starts = range(max(0, place - count + 1), min(place, len(order) - count) + 1)
        spans = [order[start : start + count] for start in starts]
        fitting = [span for span in spans if count * lengths[span[-1]] <= tokens]
        if fitting:
            return min(fitting, key=lambda span: sum(lengths[span[-1]] - lengths[i] for i in span))
    return [0]


class _Watch:
    """Stopping criterion of `generate`: ends each row by itself, and keeps its answer.

    A row ends at an end token, at its own limit, and as soon as its permutation is complete, so
    that its answer does not depend on the rows beside it.
    """

    def __init__(
        self, chats: Chats, rows: Sequence[Row], ends: frozenset[int], stop: threading.Event
    ) -> None:
        self.chats, self.rows, self.ends, self.stop = chats, rows, ends, stop
        self.tokens: list[list[int]] = [[] for _ in rows]
        self.finish = [""] * len(rows)
        self._last: dict[int, bool] = {}  # whether a token may be the last one of a permutation

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Whether each row is done [B], after one more token."""
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if not self.finish[i]:
                self.tokens[i].append(token)
                self.finish[i] = self._finish(i)
        closed = self.stop.is_set()
        over = [closed or bool(finish) for finish in self.finish]
        return torch.tensor(over, device=input_ids.device)

    def answer(self, i: int) -> Answer:
        """The answer of row i."""
        tokens, finish = len(self.tokens[i]), self.finish[i] or "closed"
        return Answer(self._text(i), len(self.rows[i].ids), tokens, 0.0, finish)

    def _finish(self, i: int) -> str:
        tokens, row = self.tokens[i], self.rows[i]
        if tokens[-1] in self.ends:
            return "stop"
        if len(tokens) >= row.size and self._may_end(tokens[-1]):
            if complete(self._text(i), row.size):
                return "stop"
        return "length" if len(tokens) >= row.limit else ""

    def _may_end(self, token: int) -> bool:
        """Reading the text at every token would take longer than long thoughts themselves."""
        if token not in self._last:
            text = str(self.chats.tokenizer.decode([token]))
            self._last[token] = bool(re.search(r"[\]】］\n]", text))
        return self._last[token]

    def _text(self, i: int) -> str:
        return self.chats.text(self.rows[i], self.tokens[i])


def complete(text: str, size: int) -> bool:
    """Whether a text has a chain "[2] > [1] > ..." that names all passages, by numbers or letters.

    Thoughts are passed over, finished or not.

    Examples
    --------
    >>> complete("[1] and [2] are good: [2] > [1]", 2), complete("<think>[2] > [1]", 2)
    (True, False)
    """
    letters = size <= len(ascii_uppercase) and parsing.complete(text, size, "letters")
    return letters or parsing.complete(text, size)
