"""A loaded causal language model that answers batches of chats."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteriaList

from rdx.teachers import parsing
from rdx.teachers.messages import Answer, BackendError, Failed, Fatal, Message, TooLong
from rdx.teachers.models import left_padded, load_causal, positions
from rdx.teachers.thoughts import left_open, marks_thoughts

if TYPE_CHECKING:
    from rdx.teachers.local import Local

# Tokens beyond the bare permutation, such as "Ranking:" and the end of text.
SPARE_TOKENS = 16

Chat = tuple[list[Message], int]  # and the number of passages that it shows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    """One tokenised request."""

    ids: list[int]
    size: int
    limit: int  # new tokens
    opened: str  # the mark of thoughts that the prompt leaves open


class Engine:
    """The loaded model."""

    def __init__(self, settings: Local) -> None:
        self.settings = settings
        self.tokenizer, self.model = load_causal(
            settings.model, settings.precision, settings.device, settings.revision
        )
        self.batch = settings.batch
        config = self.model.config.get_text_config()
        limits = (settings.context, getattr(config, "max_position_embeddings", None))
        self.context = min((limit for limit in limits if limit), default=None)
        self.ends = self._end_tokens()
        # What a model's own generation config says (temperature, penalties) is for conversations.
        self.model.generation_config = GenerationConfig()
        # The tokeniser begins every text with this token, if with any; some chat templates
        # (Zephyr's) leave that to it, others write it themselves.
        first = self.tokenizer("")["input_ids"][:1]
        self.begin = first if first == [self.tokenizer.bos_token_id] else []
        # A passage that spells a special token out must not end the user's turn.
        specials = sorted(filter(None, self.tokenizer.all_special_tokens), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, specials)) or r"(?!)")
        # Special tokens are no part of the answer, but for those that tell thoughts from it.
        added = self.tokenizer.added_tokens_decoder
        texts = {i: token.content for i, token in added.items() if token.special}
        texts |= zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True)
        self.silent = frozenset(i for i, text in texts.items() if not marks_thoughts(text))
        self.letters = self._letter_tokens() if settings.score == "first_token" else []

    def answers(self, chats: list[Chat], stop: threading.Event) -> list[Answer | BackendError]:
        """One answer, its latency left open, or what prevents it, per chat."""
        result: dict[int, Answer | BackendError] = {}
        rows: dict[int, _Row] = {}
        for i, (messages, size) in enumerate(chats):
            try:
                rows[i] = self._row(messages, size)
            except BackendError as error:
                result[i] = error
        order = sorted(rows, key=lambda i: len(rows[i].ids))
        result |= zip(order, self._in_memory([rows[i] for i in order], stop), strict=True)
        return [result[i] for i in range(len(chats))]

    def _in_memory(self, rows: list[_Row], stop: threading.Event) -> list[Answer | BackendError]:
        """Answers; where memory does not suffice, batches are halved from then on."""
        results: list[Answer | BackendError] = []
        run = self._generated if self.settings.score == "generate" else self._first_token
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
    def _generated(self, rows: list[_Row], stop: threading.Event) -> list[Answer]:
        tokens, mask = left_padded([row.ids for row in rows], self.model.device)
        watch = _Watch(self.tokenizer, self.silent, rows, self.ends, stop)
        pad = self.tokenizer.pad_token_id
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
    def _first_token(self, rows: list[_Row], stop: threading.Event) -> list[Answer]:
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

    def _row(self, messages: list[Message], size: int) -> _Row:
        generates = self.settings.score == "generate"
        prompt = self._render(messages) + ("" if generates else self.settings.opening)
        ids, opened = self._ids(prompt), left_open(prompt)
        if opened and self.settings.max_new_tokens is None:
            raise Fatal(self._thinks(opened))
        limit = self._limit(size) if generates else 0
        if self.context is not None and len(ids) + limit > self.context:
            raise TooLong(
                f"{len(ids)} tokens of prompt and {limit} of answer: the context of "
                f"{self.settings.model} is {self.context}"
            )
        return _Row(ids, size, limit, opened)

    def _thinks(self, mark: str) -> str:
        cure = "teacher.backend.chat_variables={enable_thinking: false}, if the template knows it"
        if self.settings.score == "generate":
            cure += ", or teacher.backend.max_new_tokens with room for them"
        return (
            f"teacher.backend.model={self.settings.model}: its chat template begins the answer "
            f"with thoughts ({mark}); set {cure}"
        )

    def _limit(self, size: int) -> int:
        if self.settings.max_new_tokens is not None:
            return self.settings.max_new_tokens
        # two-digit numbers and brackets cost each tokeniser another number of tokens
        bare = " > ".join(f"[{i + 1}]" for i in range(size))
        return len(self.tokenizer(bare, add_special_tokens=False)["input_ids"]) + SPARE_TOKENS

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids if ids[:1] == self.begin else self.begin + ids

    def _render(self, messages: list[Message]) -> str:
        """The chat as one text that the answer continues."""
        chat = [Message(role=m["role"], content=self._disarmed(m["content"])) for m in messages]
        if not self.tokenizer.chat_template:
            end = "" if chat[-1]["role"] == "assistant" else "\n"
            return "\n".join(message["content"] for message in chat) + end
        try:
            return self._templated(chat)
        except TemplateError:
            if [message["role"] for message in chat[:2]] != ["system", "user"]:
                raise
        # Some templates know no system message.
        both = "\n\n".join(message["content"] for message in chat[:2])
        return self._templated([Message(role="user", content=both), *chat[2:]])

    def _templated(self, chat: list[Message]) -> str:
        begun = chat[-1]["role"] == "assistant"
        plain = [{"role": m["role"], "content": m["content"]} for m in chat]
        options: dict[str, Any] = dict(self.settings.chat_variables) | {
            "tokenize": False,
            "add_generation_prompt": not begun,
            "continue_final_message": begun,
        }
        return str(self.tokenizer.apply_chat_template(plain, **options))

    def _disarmed(self, text: str) -> str:
        return self.special.sub(lambda token: f"{token[0][:1]} {token[0][1:]}", text)

    def _end_tokens(self) -> frozenset[int]:
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ends = set(configured if isinstance(configured, list) else [configured])
        return frozenset(ends | {self.tokenizer.eos_token_id}) - {None}

    def _letter_tokens(self) -> list[int]:
        """The token of every letter where the answer begins."""
        before = self._render([{"role": "user", "content": "?"}]) + self.settings.opening
        if opened := left_open(before):
            raise Fatal(self._thinks(opened))
        start, tokens = self._ids(before), []
        unknown = self.tokenizer.unk_token_id
        for letter in ascii_uppercase:
            ids = self._ids(before + letter)
            if ids[:-1] != start or ids[-1] == unknown:
                raise Fatal(
                    f"teacher.backend.score=first_token: after opening={self.settings.opening!r} "
                    f"the tokeniser of {self.settings.model} has no single token for {letter!r}; "
                    "try opening='' or opening='[', or score=generate"
                )
            tokens.append(ids[-1])
        return tokens


class _Watch:
    """Stopping criterion of `generate`: ends each row by itself, and keeps its answer.

    A row ends at an end token, at its own limit, and as soon as its permutation is complete, so
    that its answer does not depend on the rows beside it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        silent: frozenset[int],
        rows: list[_Row],
        ends: frozenset[int],
        stop: threading.Event,
    ) -> None:
        self.tokenizer, self.silent, self.rows = tokenizer, silent, rows
        self.ends, self.stop = ends, stop
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
        """The answer of row i; it begins with the mark of thoughts that its prompt left open."""
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
            self._last[token] = bool(re.search(r"[\]】］\n]", str(self.tokenizer.decode([token]))))
        return self._last[token]

    def _text(self, i: int) -> str:
        tokens = [token for token in self.tokens[i] if token not in self.silent]
        text = self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        return self.rows[i].opened + str(text)


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
