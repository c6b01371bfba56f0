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
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList

from rdx import hub
from rdx.assets import ASSETS, PREFIX, Model, check_model
from rdx.declared import PRECISION, SCHEDULES, Positive, one_of, settings
from rdx.precision import AUTO, chosen
from rdx.teachers.messages import Answer, BackendError, Failed, Fatal, Message, TooLong
from rdx.teachers.models import load_causal

SCORES = ("generate", "first_token")
# Between two batches the callers read their answers and ask again. A batch starts once nobody has
# asked for this long (seconds); otherwise every other batch would hold the first to come back only.
LINGER = 0.05
MODEL_FILES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}
# Tokens beyond the bare permutation, such as "Ranking:" and the end of text.
SPARE_TOKENS = 16

Asked = tuple[list[Message], int]  # and the number of passages

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
    asked: float  # time

    def length(self) -> int:
        return sum(len(message["content"]) for message in self.messages)


@dataclass(frozen=True)
class _Row:
    """One tokenised request."""

    ids: list[int]
    size: int
    limit: int  # new tokens


@dataclass(frozen=True)
class _Made:
    text: str
    input_tokens: int
    output_tokens: int
    finish: str


class InProcess:
    """Collects the requests of an event loop, and has a thread answer them in batches."""

    def __init__(self, settings: Local) -> None:
        self.settings = settings
        self._identity: dict[str, Any] = {}
        self._waiting: list[_Request] = []
        self._running: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._engine: _Engine | None = None

    def identity(self) -> dict[str, Any]:
        """All that changes answers, which device and batch do not.

        Nor are the versions of Transformers and torch part of it: they change the rounding at
        most, and an update must not make all answers worthless.
        """
        if not self._identity:
            one = self.settings
            by_score: dict[str, dict[str, Any]] = {
                "generate": {"max_new_tokens": one.max_new_tokens},
                "first_token": {"opening": one.opening},
            }
            self._identity = {
                "engine": "transformers",
                "model": Path(one.model).name if Path(one.model).is_dir() else one.model,
                "revision": revision(one.model, one.revision),
                "precision": one.precision,
                "score": one.score,
                "context": one.context,
                "chat_variables": dict(one.chat_variables),
                **by_score[one.score],
            }
        return dict(self._identity)

    async def ask(self, messages: list[Message], size: int) -> Answer:
        """Wait for a place in a batch, and for its answer."""
        if self.settings.score == "first_token" and size > len(ascii_uppercase):
            raise Fatal(
                f"teacher.backend.score=first_token: a window of {size} passages, but there are "
                f"{len(ascii_uppercase)} letters; lower teacher.window"
            )
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(messages, size, future, time.perf_counter()))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

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
                asked = [(one.messages, one.size) for one in self._running]
                made = await loop.run_in_executor(self._thread, self._answers, asked, stop)
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
            for request, one in zip(self._running, made, strict=True):
                _answer(request, one)
            self._running = []

    async def _next_batch(self) -> bool:
        """Move requests from those that wait to those that run; False if none waits."""
        before = 0
        while before < len(self._waiting) < self.settings.batch:
            before = len(self._waiting)
            await asyncio.sleep(LINGER)
        wanted = [one for one in self._waiting if not one.answer.done()]  # not cancelled
        self._running = _pick(wanted, self.settings.batch)
        self._waiting = [one for one in wanted if one not in self._running]
        return bool(self._running)

    def _answers(self, asked: list[Asked], stop: threading.Event) -> list[_Made | BackendError]:
        if self._engine is None:
            self._engine = _Engine(self.settings)
        return self._engine.answers(asked, stop)


def _pick(waiting: list[_Request], most: int) -> list[_Request]:
    """The oldest request and those nearest in length: little padding, and nobody starves."""
    if len(waiting) <= most:
        return list(waiting)
    by_length = sorted(range(len(waiting)), key=lambda i: waiting[i].length())
    start = by_length.index(0) - most // 2
    start = min(max(start, 0), len(waiting) - most)
    return [waiting[i] for i in by_length[start : start + most]]


def _answer(request: _Request, made: _Made | BackendError) -> None:
    if request.answer.done():
        return
    if isinstance(made, BackendError):
        request.answer.set_exception(made)
        return
    latency = time.perf_counter() - request.asked
    request.answer.set_result(
        Answer(made.text, made.input_tokens, made.output_tokens, latency, made.finish)
    )


def _fail(requests: list[_Request], error: type[BackendError], text: str) -> None:
    for request in requests:
        _answer(request, error(text))


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

    def answers(self, asked: list[Asked], stop: threading.Event) -> list[_Made | BackendError]:
        """One answer, or what prevents it, per request."""
        result: dict[int, _Made | BackendError] = {}
        rows: dict[int, _Row] = {}
        for i, (messages, size) in enumerate(asked):
            try:
                rows[i] = self._row(messages, size)
            except BackendError as error:
                result[i] = error
        order = sorted(rows, key=lambda i: len(rows[i].ids))
        result |= zip(order, self._in_memory([rows[i] for i in order], stop), strict=True)
        return [result[i] for i in range(len(asked))]

    def _in_memory(self, rows: list[_Row], stop: threading.Event) -> list[_Made | BackendError]:
        """Answers; where memory does not suffice, batches are halved from then on."""
        made: list[_Made | BackendError] = []
        run = self._generated if self.settings.score == "generate" else self._first_token
        while len(made) < len(rows):
            some = rows[len(made) : len(made) + self.batch]
            try:
                made += run(some, stop)
                continue
            except torch.OutOfMemoryError:
                pass  # its frames hold the tensors until here
            torch.cuda.empty_cache()
            if len(some) == 1:
                made.append(Failed("the device has too little memory for this request alone"))
                continue
            self.batch = (len(some) + 1) // 2
            log.warning("out of memory: from now on %d windows a batch", self.batch)
        return made

    @torch.inference_mode()
    def _generated(self, rows: list[_Row], stop: threading.Event) -> list[_Made]:
        tokens, mask = self._padded(rows)
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
        return [watch.result(i) for i in range(len(rows))]

    @torch.inference_mode()
    def _first_token(self, rows: list[_Row], stop: threading.Event) -> list[_Made]:
        tokens, mask = self._padded(rows)
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=1,
            use_cache=False,
        )
        logits = output.logits[:, -1, self.letters].float().cpu()
        made = []
        for row, one in zip(rows, logits, strict=True):
            # stable: equal logits keep the input order
            order = one[: row.size].argsort(descending=True, stable=True).tolist()
            text = " > ".join(f"[{ascii_uppercase[i]}]" for i in order)
            made.append(_Made(text, len(row.ids), 1, "stop"))
        return made

    def _padded(self, rows: list[_Row]) -> tuple[Tensor, Tensor]:
        """Token ids and mask [B, L], padded on the left."""
        width = max(len(row.ids) for row in rows)
        tokens = torch.tensor([[0] * (width - len(row.ids)) + row.ids for row in rows])
        mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows])
        return tokens.to(self.model.device), mask.to(self.model.device)

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
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids if ids[:1] == self.begin else self.begin + ids

    def _render(self, messages: list[Message]) -> str:
        """The chat as one text that the answer continues."""
        chat = [one | {"content": self._disarmed(one["content"])} for one in messages]
        begun = chat[-1]["role"] == "assistant"
        if not self.tokenizer.chat_template:
            return "\n".join(one["content"] for one in chat) + ("" if begun else "\n")
        options = dict(self.settings.chat_variables) | {
            "tokenize": False,
            "add_generation_prompt": not begun,
            "continue_final_message": begun,
        }
        try:
            return self.tokenizer.apply_chat_template(chat, **options)
        except TemplateError:
            if [one["role"] for one in chat[:2]] != ["system", "user"]:
                raise
        # Some templates know no system message.
        both = "\n\n".join(one["content"] for one in chat[:2])
        chat = [{"role": "user", "content": both}, *chat[2:]]
        return self.tokenizer.apply_chat_template(chat, **options)

    def _disarmed(self, text: str) -> str:
        return self.special.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)

    def _end_tokens(self) -> frozenset[int]:
        found = getattr(self.model.generation_config, "eos_token_id", None)
        ends = set(found if isinstance(found, list) else [found])
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
    """Stopping criterion of `generate`: ends each row by itself, and keeps what it said.

    A row ends at an end token, at its own limit, and as soon as its permutation is complete, so
    that what is said does not depend on the rows beside it.
    """

    def __init__(
        self, tokenizer: Any, rows: list[_Row], ends: frozenset[int], stop: threading.Event
    ) -> None:
        self.tokenizer, self.rows, self.ends, self.stop = tokenizer, rows, ends, stop
        self.said: list[list[int]] = [[] for _ in rows]
        self.finish = [""] * len(rows)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Whether each row is done [B], after one more token."""
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if not self.finish[i]:
                self.said[i].append(token)
                self.finish[i] = self._finish(i)
        closed = self.stop.is_set()
        over = [closed or bool(finish) for finish in self.finish]
        return torch.tensor(over, device=input_ids.device)

    def result(self, i: int) -> _Made:
        """What row i said."""
        said = len(self.said[i])
        return _Made(self._text(i), len(self.rows[i].ids), said, self.finish[i] or "closed")

    def _finish(self, i: int) -> str:
        said, row = self.said[i], self.rows[i]
        if said[-1] in self.ends:
            return "stop"
        if len(said) >= row.size and complete(self._text(i), row.size):
            return "stop"
        return "length" if len(said) >= row.limit else ""

    def _text(self, i: int) -> str:
        return self.tokenizer.decode(
            self.said[i], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


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
    if len(before) < size - 1 or not (found := _LAST.match(last)):
        return False
    names = {found[1] or found[2]}
    for part in reversed(before):
        if not (found := _INNER.search(part)):
            break
        names.add(found[1] or found[2])
        if found.start() > len(part) - len(part.lstrip()):  # prose: the chain begins here
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
