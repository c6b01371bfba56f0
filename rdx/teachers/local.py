"""Causal language models of Transformers in this process, as backend of a listwise teacher.

Windows of several queries are answered in one batch. Key-value caches are not reused between
windows: a window re-orders what the one before it showed, so that two of them share the words
before the first passage and nothing else, about one token in thirty at 20 passages.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteriaList

from rdx import hub
from rdx.assets import ASSETS, PREFIX, Model, check_model
from rdx.declared import PRECISION, SCHEDULES, Positive, one_of, settings
from rdx.precision import AUTO, chosen
from rdx.teachers.messages import (
    Answer,
    BackendError,
    Failed,
    Fatal,
    Identity,
    Lost,
    Message,
    TooLong,
    characters,
)
from rdx.teachers.models import left_padded, load_causal, positions

SCORES = ("generate", "first_token")
# Between two batches the callers read their answers and ask again. A batch starts once nobody has
# asked for this long (seconds); otherwise every other batch would hold the first to come back only.
LINGER = 0.05
MODEL_FILES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}
# Tokens beyond the bare permutation, such as "Ranking:" and the end of text.
SPARE_TOKENS = 16

Chat = tuple[list[Message], int]  # and the number of passages that it shows

log = logging.getLogger(__name__)


@settings(frozen=True)
class Local:
    """A causal LM in this process.

    Answers are greedy. In fp32 they do not depend on which requests share a batch; in bf16
    rounding does, so that close decisions may differ.

    Parameters
    ----------
    model
        "asset:NAME", a folder (Hugging Face or GGUF), or a Hub id.
    precision
        "bf16", "fp32", or "auto", which becomes one of them (`rdx.precision.chosen`).
    device
        "auto", "cpu", "cuda", ...
    batch
        Windows answered at a time, at most. Halved when the device's memory does not suffice.
    score
        "generate": the model writes the permutation, and is stopped when it is complete.
        "first_token": one forward pass; the passages in the order of the logits of their letters
        (A-Z, so at most 26 passages) where the answer begins (FIRST, Reddy et al., EMNLP 2024).
        The prompt must name passages by letters.
    opening
        With "first_token": what the answer has before its first letter, "" or, for models that
        were trained on answers such as "[B] > [A]", "[".
    max_new_tokens
        With "generate": None = as many as the permutation needs, and a few more.
    context
        Longest prompt and answer together, in tokens; None = the model's number of positions.
    chat_variables
        Given to the model's chat template, such as {enable_thinking: false}.
    revision
        Of a Hub id: a branch, a tag or a commit; None = "main".
    """

    model: Model
    precision: Annotated[str, one_of(AUTO, "bf16", "fp32"), PRECISION] = AUTO
    device: Annotated[str, SCHEDULES] = "auto"
    batch: Annotated[Positive, SCHEDULES] = 16
    score: Annotated[str, one_of(*SCORES)] = "generate"
    opening: str = ""
    max_new_tokens: Positive | None = None
    context: Positive | None = None
    chat_variables: dict[str, Any] = field(default_factory=dict)
    revision: str | None = None

    def __post_init__(self) -> None:
        """Choose the precision."""
        object.__setattr__(self, "precision", chosen(self.precision, self.device))

    def check(self) -> None:
        """Raise FileNotFoundError or ValueError if the model is none that could be loaded."""
        check_model(self.model, self.revision)

    def backend(self) -> InProcess:
        """A backend that loads the model when it is first asked."""
        return InProcess(self)


@dataclass(eq=False)
class _Request:
    messages: list[Message]
    size: int
    answer: asyncio.Future[Answer]
    start: float  # time

    def length(self) -> int:
        return characters(self.messages)


@dataclass(frozen=True)
class _Row:
    """One tokenised request."""

    ids: list[int]
    size: int
    limit: int  # new tokens


class InProcess:
    """Collects the requests of an event loop, and has a thread answer them in batches."""

    def __init__(self, settings: Local) -> None:
        self.settings = settings
        self._identity: Identity = {}
        self._waiting: list[_Request] = []
        self._running: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._engine: _Engine | None = None

    def identity(self) -> Identity:
        """All that changes answers, which device and batch do not.

        Nor are the versions of Transformers and torch part of it: they change the rounding at
        most, and an update must not make all answers worthless.
        """
        if not self._identity:
            s = self.settings
            by_score: dict[str, Identity] = {
                "generate": {"max_new_tokens": s.max_new_tokens},
                "first_token": {"opening": s.opening},
            }
            self._identity = {
                "engine": "transformers",
                "model": Path(s.model).name if Path(s.model).is_dir() else s.model,
                "revision": revision(s.model, s.revision),
                "precision": s.precision,
                "score": s.score,
                "context": s.context,
                "chat_variables": dict(s.chat_variables),
                **by_score[s.score],
            }
        return dict(self._identity)

    async def ask(self, messages: list[Message], size: int, lost: Lost | None = None) -> Answer:
        """Wait for a place in a batch, and for its answer; no try of it is ever lost."""
        if self.settings.score == "first_token" and size > len(ascii_uppercase):
            raise Fatal(
                f"teacher.backend.score=first_token: a window of {size} passages, but there are "
                f"{len(ascii_uppercase)} letters; lower teacher.window"
            )
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(messages, size, future, time.perf_counter()))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer; None where the permutation decides them."""
        return 1 if self.settings.score == "first_token" else self.settings.max_new_tokens

    async def close(self) -> None:
        """Stop at the next token, fail what waits, and free the model."""
        if self._worker is not None and not self._worker.done():
            self._worker.cancel()
            await asyncio.wait([self._worker])
        _fail(self._running + self._waiting, Failed, "the model was closed")
        self._running, self._waiting = [], []
        if self._thread is not None:
            # the thread ends within one token
            await asyncio.to_thread(self._thread.shutdown)
        self._thread = self._engine = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def _work(self) -> None:
        """Answer batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        while await self._next_batch():
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="rdx-local")
            stop = threading.Event()
            try:
                chats = [(request.messages, request.size) for request in self._running]
                results = await loop.run_in_executor(self._thread, self._answers, chats, stop)
            except asyncio.CancelledError:
                stop.set()
                raise
            except Exception as error:
                # Not about one request: the model cannot be loaded, or the device has failed.
                known = isinstance(error, BackendError | hub.HubError)
                text = f"teacher.backend.model={self.settings.model}: {error!r}"
                _fail(self._running + self._waiting, Fatal, str(error) if known else text)
                self._running, self._waiting = [], []
                return
            for request, result in zip(self._running, results, strict=True):
                _settle(request, result)
            self._running = []

    async def _next_batch(self) -> bool:
        """Move requests from those that wait to those that run; False if none waits."""
        before = 0
        while before < len(self._waiting) < self.settings.batch:
            before = len(self._waiting)
            await asyncio.sleep(LINGER)
        waiting = [request for request in self._waiting if not request.answer.done()]
        self._running = _pick(waiting, self.settings.batch)
        self._waiting = [request for request in waiting if request not in self._running]
        return bool(self._running)

    def _answers(self, chats: list[Chat], stop: threading.Event) -> list[Answer | BackendError]:
        if self._engine is None:
            self._engine = _Engine(self.settings)
        return self._engine.answers(chats, stop)


def _pick(waiting: list[_Request], most: int) -> list[_Request]:
    """The oldest request and those nearest in length: little padding, and nobody starves."""
    if len(waiting) <= most:
        return list(waiting)
    by_length = sorted(range(len(waiting)), key=lambda i: waiting[i].length())
    start = by_length.index(0) - most // 2
    start = min(max(start, 0), len(waiting) - most)
    return [waiting[i] for i in by_length[start : start + most]]


def _settle(request: _Request, result: Answer | BackendError) -> None:
    """Give a request its answer or error, unless its caller has given up."""
    if request.answer.done():
        return
    if isinstance(result, BackendError):
        request.answer.set_exception(result)
        return
    request.answer.set_result(replace(result, latency=time.perf_counter() - request.start))


def _fail(requests: list[_Request], error: type[BackendError], text: str) -> None:
    for request in requests:
        _settle(request, error(text))


class _Engine:
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
        watch = _Watch(self.tokenizer, rows, self.ends, stop)
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
        ids = self._ids(self._render(messages) + ("" if generates else self.settings.opening))
        limit = self._limit(size) if generates else 0
        if self.context is not None and len(ids) + limit > self.context:
            raise TooLong(
                f"{len(ids)} tokens of prompt and {limit} of answer: the context of "
                f"{self.settings.model} is {self.context}"
            )
        return _Row(ids, size, limit)

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
        rows: list[_Row],
        ends: frozenset[int],
        stop: threading.Event,
    ) -> None:
        self.tokenizer, self.rows, self.ends, self.stop = tokenizer, rows, ends, stop
        self.tokens: list[list[int]] = [[] for _ in rows]
        self.finish = [""] * len(rows)

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
        if len(tokens) >= row.size and complete(self._text(i), row.size):
            return "stop"
        return "length" if len(tokens) >= row.limit else ""

    def _text(self, i: int) -> str:
        text = self.tokenizer.decode(
            self.tokens[i], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


# The last identifier counts once it cannot go on: "[1" may become "[12]". Without brackets the
# chain is one if nothing else is on its line ("3 > 2 degrees"), so that the line must end.
_LAST = re.compile(r"\s*(?:\[\s*(\w+)\s*\]|(\w+)[\s.]*\n)")
_INNER = re.compile(r"(?:\[\s*(\w+)\s*\]|\b(\w+))\s*$")


def complete(text: str, size: int) -> bool:
    """Whether a text ends in a chain "[2] > [1] > ..." that names all passages.

    Examples
    --------
    >>> complete("[1] and [2] are good: [2] > [1]", 2), complete("[1] > [1", 2)
    (True, False)
    """
    *before, last = text.split(">")
    if len(before) < size - 1 or not (match := _LAST.match(last)):
        return False
    names = {match[1] or match[2]}
    for part in reversed(before):
        if not (match := _INNER.search(part)):
            break
        names.add(match[1] or match[2])
        if match.start() > len(part) - len(part.lstrip()):  # prose: the chain begins here
            break
    numbers = {str(i + 1) for i in range(size)}
    return numbers <= names or set(ascii_uppercase[:size]) <= names and size <= 26


def revision(model: str, name: str | None = None) -> str:
    """What tells two models of the same name apart.

    The checksum of an asset; of a folder, which is read for it; the commit of a model on the Hub.
    """
    if model.startswith(PREFIX):
        return ASSETS[model.removeprefix(PREFIX)].sha256
    if Path(model).is_dir():
        return _folder_digest(Path(model))
    try:
        return hub.commit(model, name)
    except hub.HubError as error:
        raise Fatal(f"teacher.backend.{error}") from error


def _folder_digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in MODEL_FILES and path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()
