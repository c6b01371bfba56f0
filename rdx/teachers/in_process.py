"""Models in this process, as backend of a listwise teacher: requests become batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from rdx import hub, late
from rdx.teachers.messages import Answer, BackendError, Failed, Fatal, Identity, Lost, Message

if TYPE_CHECKING:
    import torch

    from rdx.teachers.chats import Row
else:
    torch = late.module("torch")

# Between two batches the callers read their answers and ask again. A batch starts once nobody has
# asked for this long (seconds); otherwise every other batch would hold the first to come back only.
LINGER = 0.05

Outcome = Answer | BackendError


class Engine(Protocol):
    """A loaded model."""

    def row(self, messages: list[Message], size: int) -> Row:
        """The tokens of a chat that shows `size` passages; raises a `BackendError`."""

    def together(self, rows: Sequence[Row]) -> list[int]:
        """Of the rows that wait, the oldest first, those to be answered now, the oldest too."""

    def answers(self, rows: Sequence[Row], stop: threading.Event) -> Sequence[Outcome]:
        """One answer, its latency left open, or an error per row; soon, once `stop` is set."""


class Loaded(Protocol):
    """Settings of an engine."""

    @property
    def model(self) -> str:
        """What error messages name."""

    @property
    def batch(self) -> int:
        """Requests that are not made to wait for more."""

    def identity(self) -> Identity:
        """All that may change an answer."""

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer; None where the permutation decides them."""

    def load(self) -> Engine:
        """The engine; takes its time."""


@dataclass(eq=False)
class _Request:
    messages: list[Message]
    size: int
    answer: asyncio.Future[Answer]
    start: float  # time
    row: Row | None = None


class InProcess:
    """Collects the requests of an event loop, and has a thread answer them in batches."""

    def __init__(self, settings: Loaded) -> None:
        self.settings = settings
        self._identity: Identity = {}
        self._waiting: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._engine: Engine | None = None

    def identity(self) -> Identity:
        """All that changes answers, which device and batch do not."""
        if not self._identity:
            self._identity = self.settings.identity()
        return dict(self._identity)

    async def ask(self, messages: list[Message], size: int, lost: Lost | None = None) -> Answer:
        """Wait for a place in a batch, and for its answer; no try of it is ever lost."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(messages, size, future, time.perf_counter()))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer; None where the permutation decides them."""
        return self.settings.longest(size)

    async def close(self) -> None:
        """Stop as soon as the engine can, fail what waits, and free the model."""
        if self._worker is not None and not self._worker.done():
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._fail(Failed, "the model was closed")
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
        self._thread = self._engine = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def _work(self) -> None:
        """Answer batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        while await self._somebody_waits():
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="rdx-local")
            stop = threading.Event()
            try:
                waiting = list(self._waiting)
                results = await loop.run_in_executor(self._thread, self._batch, waiting, stop)
            except asyncio.CancelledError:
                stop.set()
                raise
            except Exception as error:
                # Not about one request: the model cannot be loaded, or the device has failed.
                known = isinstance(error, BackendError | hub.HubError)
                text = f"teacher.backend.model={self.settings.model}: {error!r}"
                self._fail(Fatal, str(error) if known else text)
                return
            for request, result in results.items():
                _settle(request, result)

    async def _somebody_waits(self) -> bool:
        """Wait until a batch is full or nobody asks any more; drop those who have given up."""
        before = 0
        while True:
            self._waiting = [request for request in self._waiting if not request.answer.done()]
            if not before < len(self._waiting) < self.settings.batch:
                return bool(self._waiting)
            before = len(self._waiting)
            await asyncio.sleep(LINGER)

    def _batch(self, waiting: list[_Request], stop: threading.Event) -> dict[_Request, Outcome]:
        """Answers of some who wait; those whose chats are no requests get their errors."""
        if self._engine is None:
            self._engine = self.settings.load()
        results: dict[_Request, Outcome] = {}
        rows: dict[_Request, Row] = {}
        for request in waiting:
            try:
                request.row = request.row or self._engine.row(request.messages, request.size)
                rows[request] = request.row
            except BackendError as error:
                results[request] = error
        if rows:
            requests = list(rows)
            chosen = [requests[i] for i in self._engine.together(list(rows.values()))]
            answers = self._engine.answers([rows[request] for request in chosen], stop)
            results.update(zip(chosen, answers, strict=True))
        return results

    def _fail(self, error: type[BackendError], text: str) -> None:
        for request in self._waiting:
            _settle(request, error(text))
        self._waiting = []


def _settle(request: _Request, result: Outcome) -> None:
    """Give a request its answer or error, unless its caller has given up."""
    if request.answer.done():
        return
    if isinstance(result, BackendError):
        request.answer.set_exception(result)
        return
    request.answer.set_result(replace(result, latency=time.perf_counter() - request.start))
