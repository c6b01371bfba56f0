"""An OpenAI-compatible server on loopback that misbehaves as told: real sockets, real HTTP.

    with FaultyServer(scripted(error(500), cut(), limited(0.1))) as server:
        ...  # ask server.url; from the fourth request on it answers well
    assert server.asked[0].reply == error(500)

Its good answer is a ranking of the passages that the prompt shows as lines "[1] text" or
"[A] text": by `merit`, a hash of the text, so that a test knows the truth.
"""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Reply:
    """What the server does with a request.

    Parameters
    ----------
    content
        Body; None: an answer with the ranking of the passages that the request shows.
    manner
        "whole"; "cut": the connection ends after a share of the bytes; "hang": nothing is sent
        until the client goes; "drip": bytes come so slowly that it takes for ever.
    share
        Of the reply's bytes (header included), sent before it is cut.
    delay
        Seconds before the first byte.
    """

    name: str
    content: bytes | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"
    manner: str = "whole"
    share: float = 0.5
    delay: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A request: `number` earlier ones, `repeat` of them with the same body."""

    body: dict[str, Any]
    digest: str
    number: int
    repeat: int
    at: float  # time.monotonic()
    authorization: str
    reply: Reply | None = None


Behaviour = Callable[[Asked], Reply]


# --- replies ---


def ranking(delay: float = 0.0) -> Reply:
    return Reply("ranking", delay=delay)


def answer(text: Any, finish: str | None = "stop", **message: Any) -> Reply:
    """A canned answer."""
    content = {"role": "assistant", "content": text, **message}
    return Reply("answer", _completion(content, finish, "", str(text)))


def error(
    status: int, message: str = "broken", code: str = "", headers: Mapping[str, str] | None = None
) -> Reply:
    body = {"error": {"message": message, "type": code or "server_error", "code": code or None}}
    more = tuple((headers or {}).items())
    return Reply(f"error {status}", json.dumps(body).encode(), status, more)


def limited(seconds: float) -> Reply:
    headers = {"Retry-After": f"{seconds:g}"}
    return error(429, "too many requests", "rate_limit_exceeded", headers)


def hang() -> Reply:
    return Reply("hang", manner="hang")


def drip() -> Reply:
    return Reply("drip", manner="drip")


def cut(share: float = 0.5) -> Reply:
    """The connection breaks; 0: before the first byte."""
    return Reply("cut", manner="cut", share=share)


def raw(content: bytes, kind: str = "application/json") -> Reply:
    """Status 200 with any body."""
    return Reply("raw", content, kind=kind)


def garbage() -> Reply:
    return raw(b'{"id": "1", "choices": [{"message": {"content": "[1] > [')


def no_choices() -> Reply:
    return raw(b'{"id": "1", "object": "chat.completion", "choices": []}')


def wrong_kind() -> Reply:
    return raw(b"<html><body>please log in</body></html>", "text/html")


# --- behaviours ---


def always(reply: Reply) -> Behaviour:
    return lambda asked: reply


def scripted(*replies: Reply, then: Reply | None = None) -> Behaviour:
    """The n-th request gets the n-th reply; later ones `then`, by default the ranking."""
    return lambda asked: _nth(replies, asked.number, then)


def per_body(*replies: Reply, then: Reply | None = None) -> Behaviour:
    """The n-th request of each body gets the n-th reply."""
    return lambda asked: _nth(replies, asked.repeat, then)


def mixed(seed: int, share: float, faults: Sequence[Reply]) -> Behaviour:
    """A share of the requests meets one of the faults, a pure function of (seed, body, repeat)."""

    def behave(asked: Asked) -> Reply:
        key = hashlib.sha256(f"{seed}:{asked.digest}:{asked.repeat}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(key[:8], "little"))
        faulty = generator.random() < share
        return faults[generator.integers(len(faults))] if faulty else ranking()

    return behave


def _nth(replies: Sequence[Reply], number: int, then: Reply | None) -> Reply:
    return replies[number] if number < len(replies) else then or ranking()


# --- the truth ---


def merit(text: str) -> str:
    """What the good answer sorts by, smallest first."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def best_first(passages: Sequence[str]) -> list[int]:
    """Positions of the passages, 0-based, best first; equal texts in the order given."""
    return sorted(range(len(passages)), key=lambda i: (merit(passages[i]), i))


def shown(messages: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Identifier -> text of the passages in a prompt, in its order."""
    passages: dict[str, str] = {}
    for message in messages:
        if message["role"] == "user":
            for name, text in re.findall(r"(?m)^\[(\d+|[A-Z])\]:?[ \t]+(.*)$", message["content"]):
                if not text.startswith(">"):  # an example of the answer's form
                    passages.setdefault(name, text)
    return passages


def ranked_answer(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of the good answer: "[2] > [1] > ..."."""
    passages = shown(messages)
    names = list(passages)
    return " > ".join(f"[{names[i]}]" for i in best_first(list(passages.values())))


def digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _completion(message: dict[str, Any], finish: str | None, asked: str, text: str) -> bytes:
    tokens = {"prompt_tokens": len(asked.split()), "completion_tokens": len(text.split())}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "toy"}
    return json.dumps({**reply, "choices": [choice], "usage": tokens}).encode()


# --- the server ---


class FaultyServer:
    """Serves in a thread between entering and leaving; its records may be read at any time.

    Attributes
    ----------
    url
        To be used as `base_url`.
    asked
        Every request in the order of arrival, each with the reply it met.
    answered
        Digest of a body -> times that a whole, good answer to it was sent.
    busy, peak
        Requests being served now, and at most.
    connections
        Made so far.
    """

    def __init__(self, behave: Behaviour = always(ranking())) -> None:  # noqa: B008 (a function)
        self.behave = behave
        self.url = ""
        self.asked: list[Asked] = []
        self.answered: Counter[str] = Counter()
        self.busy = self.peak = self.connections = 0
        self._repeats: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._serving: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "FaultyServer":
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def repeats(self) -> Counter[str]:
        """Digest of a body -> how often it was asked."""
        return Counter(asked.digest for asked in self.asked)

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(self._connection, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the server stops
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection lives on."""
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not re.match(r"POST \S*/chat/completions ", head):
            writer.write(_bytes(error(404, "no such path"), b'{"error": "no such path"}'))
            return True
        asked = self._record(json.loads(body), headers.get("authorization", ""))
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            return await self._send(asked, reader, writer)
        finally:
            self.busy -= 1

    def _record(self, body: dict[str, Any], authorization: str) -> Asked:
        key = digest(body)
        fields = (body, key, len(self.asked), self._repeats[key], time.monotonic(), authorization)
        self._repeats[key] += 1
        asked = Asked(*fields, self.behave(Asked(*fields)))
        self.asked.append(asked)
        return asked

    async def _send(
        self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        reply = asked.reply
        assert reply is not None
        await asyncio.sleep(reply.delay)
        content = reply.content
        if content is None:
            messages = asked.body["messages"]
            text = ranked_answer(messages)
            prompt = " ".join(message["content"] for message in messages)
            content = _completion({"role": "assistant", "content": text}, "stop", prompt, text)
        sent = _bytes(reply, content)
        if reply.manner == "hang":
            await reader.read()  # until the client goes
            return False
        if reply.manner == "drip":
            for i in range(len(sent)):
                writer.write(sent[i : i + 1])
                await writer.drain()
                await asyncio.sleep(0.05)
            return True
        if reply.manner == "cut":
            writer.write(sent[: int(reply.share * len(sent))])
            await writer.drain()
            writer.close()  # what was written still leaves, unlike after abort
            await writer.wait_closed()
            return False
        if reply.status == 200 and reply.name in ("ranking", "answer"):
            self.answered[asked.digest] += 1  # counted before the client can know of it
        writer.write(sent)
        await writer.drain()
        return True


def _bytes(reply: Reply, content: bytes) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} Told", f"Content-Type: {reply.kind}"]
    lines += [f"Content-Length: {len(content)}", *(f"{k}: {v}" for k, v in reply.headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
