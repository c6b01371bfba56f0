"""Causal language models of Transformers in this process, as backend of a listwise teacher.

Windows of several queries are answered in one batch. Key-value caches are not reused between
windows: a window re-orders what the one before it showed, so that two of them share the words
before the first passage and nothing else, about one token in thirty at 20 passages.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import torch

from rdx import hub
from rdx.assets import ASSETS, PREFIX, Model, check_model
from rdx.declared import PRECISION, SCHEDULES, Positive, one_of, settings
from rdx.precision import AUTO, chosen
from rdx.teachers.engine import Chat, complete
from rdx.teachers.engine import Engine as _Engine
from rdx.teachers.messages import (
    Answer,
    BackendError,
    Failed,
    Fatal,
    Identity,
    Lost,
    Message,
    characters,
)

__all__ = ["InProcess", "Local", "complete", "revision"]

SCORES = ("generate", "first_token")
# Between two batches the callers read their answers and ask again. A batch starts once nobody has
# asked for this long (seconds); otherwise every other batch would hold the first to come back only.
LINGER = 0.05
MODEL_FILES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}


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
        With "generate": None = as many as the permutation needs, and a few more; models that
        think aloud need room for it.
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
