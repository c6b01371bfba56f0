"""Chats as the tokens that a model of this process reads, and its answers as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Protocol

from jinja2 import TemplateError
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from rdx.teachers.messages import Fatal, Message, TooLong
from rdx.teachers.thoughts import left_open, marks_thoughts

# Tokens beyond the bare permutation, such as "Ranking:" and the end of text.
SPARE_TOKENS = 16


@dataclass(frozen=True)
class Row:
    """One tokenised request.

    Attributes
    ----------
    ids
        Tokens of the prompt.
    size
        Passages that it shows.
    limit
        New tokens, at most.
    opened
        The mark of thoughts that the prompt leaves open, or "".
    """

    ids: list[int]
    size: int
    limit: int
    opened: str

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.ids) + self.limit


class Shown(Protocol):
    """Settings that decide how a model is shown a chat."""

    @property
    def model(self) -> str:
        """What error messages name."""

    @property
    def context(self) -> int | None:
        """Longest prompt and answer together, in tokens."""

    @property
    def max_new_tokens(self) -> int | None:
        """Tokens of the longest answer; None: as many as the permutation needs, and a few more."""

    @property
    def chat_variables(self) -> dict[str, Any]:
        """What the chat template is given."""


class Chats:
    """What a model is shown of a chat, and what it answered.

    Parameters
    ----------
    config
        Of the model: its number of positions limits the context.
    opening
        What the answer has before its first letter, if nothing but that letter is asked for; None
        if the model writes the answer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PretrainedConfig,
        settings: Shown,
        opening: str | None = None,
    ) -> None:
        self.tokenizer, self.settings, self.opening = tokenizer, settings, opening
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        limits = [limit for limit in (settings.context, positions) if limit]
        self.context = min(limits, default=None)
        # The tokeniser begins every text with this token, if with any; some chat templates
        # (Zephyr's) leave that to it, others write it themselves.
        first = tokenizer("")["input_ids"][:1]
        self._begin = first if first == [tokenizer.bos_token_id] else []
        # A passage that spells a special token out must not end the user's turn.
        specials = sorted(filter(None, tokenizer.all_special_tokens), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, specials)) or r"(?!)")
        # Special tokens are no part of the answer, but for those that tell thoughts from it.
        added = tokenizer.added_tokens_decoder
        texts = {i: token.content for i, token in added.items() if token.special}
        texts |= zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        self._silent = frozenset(i for i, text in texts.items() if not marks_thoughts(text))

    def row(self, messages: list[Message], size: int) -> Row:
        """The tokens of a chat that shows `size` passages.

        Raises
        ------
        TooLong
            If they and the answer exceed the context.
        Fatal
            If the template begins the answer with thoughts, and there is no room for them.
        """
        generates = self.opening is None
        prompt = self._render(messages) + (self.opening or "")
        ids, opened = self._ids(prompt), left_open(prompt)
        if opened and self.settings.max_new_tokens is None:
            raise Fatal(self._thinks(opened))
        row = Row(ids, size, self._limit(size) if generates else 0, opened)
        if self.context is not None and row.length > self.context:
            raise TooLong(
                f"{len(ids)} tokens of prompt and {row.limit} of answer: the context of "
                f"{self.settings.model} is {self.context}"
            )
        return row

    def text(self, row: Row, tokens: Sequence[int]) -> str:
        """The text of an answer; it begins with the mark of thoughts that its prompt left open."""
        spoken = [token for token in tokens if token not in self._silent]
        text = self.tokenizer.decode(spoken, clean_up_tokenization_spaces=False)
        return row.opened + str(text)

    def letters(self) -> list[int]:
        """The token of every letter where the answer begins.

        Raises
        ------
        Fatal
            If a letter is not one token there, or what is there is a thought.
        """
        before = self._render([{"role": "user", "content": "?"}]) + (self.opening or "")
        if opened := left_open(before):
            raise Fatal(self._thinks(opened))
        start, tokens = self._ids(before), []
        unknown = self.tokenizer.unk_token_id
        for letter in ascii_uppercase:
            ids = self._ids(before + letter)
            if ids[:-1] != start or ids[-1] == unknown:
                raise Fatal(
                    f"teacher.backend.score=first_token: after opening={self.opening!r} "
                    f"the tokeniser of {self.settings.model} has no single token for {letter!r}; "
                    "try opening='' or opening='[', or score=generate"
                )
            tokens.append(ids[-1])
        return tokens

    def _thinks(self, mark: str) -> str:
        cure = "teacher.backend.chat_variables={enable_thinking: false}, if the template knows it"
        if self.opening is None:
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
        return ids if ids[:1] == self._begin else self._begin + ids

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
        options: Mapping[str, Any] = self.settings.chat_variables | {
            "tokenize": False,
            "add_generation_prompt": not begun,
            "continue_final_message": begun,
        }
        return str(self.tokenizer.apply_chat_template(plain, **options))

    def _disarmed(self, text: str) -> str:
        return self._special.sub(lambda token: f"{token[0][:1]} {token[0][1:]}", text)


def end_tokens(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig) -> frozenset[int]:
    """The tokens that end an answer: the tokeniser's, and those of the model's own settings."""
    configured = getattr(generation, "eos_token_id", None)
    ends = set(configured if isinstance(configured, list) else [configured])
    return frozenset(ends | {tokenizer.eos_token_id}) - {None}
