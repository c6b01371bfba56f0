"""An LLM behind an OpenAI-compatible endpoint: bounded tries, and errors one can act upon.

The key comes out of an environment variable and goes into the request's header, nowhere else: it
is not in any representation, identity, message or log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from annotated_types import MinLen

from rdx.declared import SCHEDULES, Above0, From0, Positive, settings
from rdx.teachers import replies, tokens
from rdx.teachers.messages import (
    Answer,
    Backend,
    BackendError,
    Denied,
    Failed,
    Fatal,
    Identity,
    Lost,
    MaybeTooLong,
    Message,
    Refused,
    Rejected,
    TooLong,
)
from rdx.teachers.replies import Kind, Tokens
from rdx.text import counted

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = logging.getLogger(__name__)

# "[12] > " is at most 7 tokens in the usual vocabularies; the rest is for a label or a line break.
TOKENS_PER_PASSAGE = 8
TOKENS_AROUND = 16

OPENAI = "https://api.openai.com/v1"  # where no other address is given
# Of connections that wait: less than the 5 s after which servers such as vLLM's close them.
KEEP_ALIVE = 4.0
# Environment variables that OpenAI's own client sends as headers.
ACCOUNT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
RESERVED = ("model", "messages", "stream", "n")  # of the body; `extra` may not set them
LIMITS = ("max_tokens", "max_completion_tokens")  # of the body: tokens of the longest answer


@settings(frozen=True)
class Endpoint:
    """A service that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, Ollama, ...

    Parameters
    ----------
    model
        Name of the model, as the service knows it.
    base_url
        Address up to and with "/v1"; None: $OPENAI_BASE_URL, or else OpenAI's. It is not part of
        the identity, so that a server may move: say what it runs by the next two.
    revision, engine
        What else decides the answers and the name does not say, such as a commit or "vllm 0.11";
        not sent, but part of the identity.
    key_variable
        Name of the environment variable that holds the key; servers of one's own need none.
    temperature, seed
        Of the sampling; a seed of None is not sent.
    max_output_tokens
        Longest answer; None: 8 tokens per passage and 16 more. Models that reason need far more.
    extra
        Further parameters of the request's body. They replace those above, and null takes one out,
        as in ``{max_tokens: null, max_completion_tokens: 4000, temperature: null}``.
    timeout
        Seconds for one try, from sending to the last byte.
    tries
        Requests per answer, at most.
    backoff, max_wait
        Seconds before the second try, doubled for each further one up to `max_wait`; the wait is a
        random share, a half to all, of it.
    patience
        Seconds that a server may tell us to wait (Retry-After); told to wait longer, we give up.
    """

    model: Annotated[str, MinLen(1)]
    base_url: Annotated[str | None, SCHEDULES] = None
    revision: str | None = None
    engine: str | None = None
    key_variable: Annotated[str, SCHEDULES] = "OPENAI_API_KEY"
    temperature: From0 = 0.0
    seed: int | None = None
    max_output_tokens: Positive | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    timeout: Annotated[Above0, SCHEDULES] = 60.0
    tries: Annotated[Positive, SCHEDULES] = 6
    backoff: Annotated[From0, SCHEDULES] = 1.0
    max_wait: Annotated[From0, SCHEDULES] = 60.0
    patience: Annotated[From0, SCHEDULES] = 3600.0

    paid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check what may hold a secret by mistake, without repeating it in the messages."""
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise ValueError("key_variable: must be the name of an environment variable")
        if self.base_url is not None and not re.fullmatch(r"https?://[^\s@?#]+", self.base_url):
            raise ValueError(
                "base_url: must be http(s)://HOST/PATH, without user name, password or "
                "query; the key belongs into an environment variable"
            )
        for name in RESERVED:
            if name in self.extra:
                raise ValueError(f"extra.{name}: is not for `extra` to set")

    def backend(self) -> Backend:
        """Return the backend; it reads the key and connects when it is first asked."""
        return _Client(self)

    def body(self, messages: list[Message], size: int) -> dict[str, Any]:
        """Return the request's body for a chat that shows `size` passages."""
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_output_tokens or TOKENS_PER_PASSAGE * size + TOKENS_AROUND,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer to a window of `size` passages; None without a limit."""
        body = self.body([], size)
        limits = [body[name] for name in LIMITS if isinstance(body.get(name), int)]
        return max(limits, default=None)

    def longest_wait(self, number: int) -> float:
        """Seconds between try `number`, from 1, and the next one, at most."""
        return min(self.backoff * 2.0 ** min(number - 1, 100), self.max_wait)


class _Trouble(NamedTuple):
    """Why a try gave no answer: the error to raise, unless `again` and tries are left."""

    error: BackendError
    again: bool = False
    wait: float = 0.0  # seconds, as the server asks
    unreached: bool = False
    taken: Tokens | None = None  # where the service may have read the prompt


class _Client:
    """The backend of an `Endpoint`; belongs to one event loop."""

    def __init__(self, settings: Endpoint) -> None:
        self._settings = settings
        self._session: ClientSession | None = None
        self._url = ""
        self._proxy: str | None = None
        self._key = ""
        self._reached = False
        self._closed = False
        self._tasks: set[asyncio.Task[Answer]] = set()
        # A rate limit is the key's, not the request's: told to wait, all requests wait.
        self._open_at = 0.0

    def identity(self) -> Identity:
        s = self._settings
        by_size = f"{TOKENS_PER_PASSAGE} * passages + {TOKENS_AROUND}"
        return {
            "backend": "chat completions",
            "model": s.model,
            "revision": s.revision,
            "engine": s.engine,
            "temperature": s.temperature,
            "seed": s.seed,
            "max_output_tokens": s.max_output_tokens or by_size,
            "extra": dict(s.extra),
        }

    def longest(self, size: int) -> int | None:
        return self._settings.longest(size)

    async def ask(self, messages: list[Message], size: int, lost: Lost | None = None) -> Answer:
        if self._closed:
            raise Failed("the endpoint was closed")
        task = asyncio.create_task(self._ask(messages, size, lost))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and not (caller and caller.cancelling()):
                raise Failed("the endpoint was closed before the answer came") from None
            raise

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _ask(self, messages: list[Message], size: int, lost: Lost | None) -> Answer:
        s, session = self._settings, self._connected()
        body = json.dumps(s.body(messages, size), separators=(",", ":"), allow_nan=False).encode()
        start = time.perf_counter()
        trouble = _Trouble(Failed("not asked"))
        for number in range(1, s.tries + 1):
            await self._opened()
            outcome = await self._try(session, body, messages, size)
            if isinstance(outcome, Answer):
                return replace(outcome, latency=time.perf_counter() - start)
            trouble = outcome
            if lost is not None and trouble.taken is not None:
                lost(trouble.taken.input, trouble.taken.output)
            if not trouble.again:
                raise trouble.error
            if trouble.wait > s.patience:
                raise Failed(
                    f"{trouble.error}; the server asks to wait {trouble.wait:.0f} s, "
                    f"teacher.backend.patience is {s.patience:g} s"
                )
            self._open_at = max(self._open_at, time.monotonic() + trouble.wait)
            log.info("try %d of %d: %s", number, s.tries, trouble.error)
            if number < s.tries:
                # Jitter changes when a request is sent, never what it says.
                await asyncio.sleep(s.longest_wait(number) * random.uniform(0.5, 1))
        message = f"{trouble.error} ({counted(s.tries, 'try')})"
        if trouble.unreached and not self._reached:
            raise Denied(f"{message}; is the server running, and the address right?")
        raise Failed(message)

    async def _opened(self) -> None:
        while (wait := self._open_at - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _try(
        self, session: ClientSession, body: bytes, messages: list[Message], size: int
    ) -> Answer | _Trouble:
        """Send one request.

        Errors are returned, not raised while another one is handled: a chained traceback would
        show the client's own error, and with it the header that holds the key.
        """
        import aiohttp

        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                session.post(self._url, data=body, proxy=self._proxy) as response,
            ):
                content = await response.read()
        except TimeoutError:
            late = f"no answer within {self._settings.timeout:g} s"
            return _again(late, taken=_sent(messages))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            unreached = isinstance(error, aiohttp.ClientConnectorError)
            what = self._clean(f"{type(error).__name__}: {error}")
            taken = None if unreached else _sent(messages)
            address = self._settings.base_url or "the default address"
            return _again(f"connection to {address}: {what}", unreached=unreached, taken=taken)
        self._reached = True
        if response.status >= 300:
            trouble = self._refusal(response.status, response.headers, content)
            taken = _sent(messages) if replies.worked(response.status) else None
            return trouble._replace(taken=taken)
        try:
            answer = replies.read(content, messages, self._settings.longest(size))
        except ValueError as error:
            took = replies.taken(content, messages)
            return _again(self._clean(str(error)), taken=took)
        # A server may repeat what it was sent, and the ledger keeps what it says.
        texts = (answer.text, answer.finish, answer.served, answer.thoughts)
        text, finish, served, thoughts = map(self._without_key, texts)
        return replace(answer, text=text, finish=finish, served=served, thoughts=thoughts)

    def _connected(self) -> ClientSession:
        """Return what sends requests; it is made when first needed."""
        if self._session is None:
            from aiohttp import ClientSession, ClientTimeout, TCPConnector

            s = self._settings
            self._key = os.environ.get(s.key_variable, "").strip()
            if not re.fullmatch(r"[!-~]*", self._key):
                raise Fatal(f"${s.key_variable} holds no key: it has stray characters")
            own = s.base_url or os.environ.get("OPENAI_BASE_URL")
            if not self._key and not own:
                raise Fatal(f"no key: the environment variable {s.key_variable} is not set")
            self._url = (own or OPENAI).rstrip("/") + "/chat/completions"
            self._proxy = _proxy(self._url)
            headers = {"Content-Type": "application/json"}
            headers |= {ACCOUNT[name]: os.environ[name] for name in ACCOUNT if name in os.environ}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            # The clock is ours, since it covers all of a try, and so is the number of connections.
            self._session = ClientSession(
                connector=TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
                timeout=ClientTimeout(total=None, sock_connect=None),
                headers=headers,
            )
        return self._session

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> _Trouble:
        """What an HTTP error means."""
        text = content.decode("utf-8", "replace")
        variable, (code, reason) = self._settings.key_variable, replies.code_and_message(text)
        message = f"HTTP {status}: {self._clean(reason)}"
        match replies.kind(status, text):
            case Kind.KEY:
                # What the server says is left out, for it often shows parts of the key.
                verdict = "refuses the key in" if self._key else "wants a key, and none is in"
                why = f" ({self._clean(code)})" if code else ""
                return _Trouble(Denied(f"HTTP 401{why}: the server {verdict} ${variable}"))
            case Kind.CREDIT:
                return _Trouble(Denied(f"{message} (the key in ${variable} may not do this)"))
            case Kind.MISSING:
                model = self._settings.model
                message += f" (is the model {model!r} there, and the address right?)"
                return _Trouble(Denied(message))
            case Kind.TOO_LONG:
                return _Trouble(TooLong(message))
            case Kind.UNFIT:
                return _Trouble(MaybeTooLong(message))
            case Kind.FILTERED:
                return _Trouble(Refused(message))
            case Kind.REJECTED:
                more = f" (may the key in ${variable} do this?)" if status == 403 else ""
                return _Trouble(Rejected(message + more))
            case Kind.PASSING:
                return _again(message, wait=replies.retry_after(headers, datetime.now(UTC)))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        text = " ".join(self._without_key(text).split())
        return text if len(text) <= 300 else text[:297] + "..."


def _again(
    message: str, wait: float = 0.0, unreached: bool = False, taken: Tokens | None = None
) -> _Trouble:
    return _Trouble(Failed(message), True, wait, unreached, taken)


def _sent(messages: list[Message]) -> Tokens:
    """What a try costs that was sent and not answered."""
    return Tokens(tokens.of_chat(messages), 0, estimated=True)


def _proxy(url: str) -> str | None:
    """The proxy for an address, as the environment (HTTPS_PROXY, NO_PROXY, ...) says."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise Fatal(f"the environment's proxy for {parts.scheme}:// must be one that speaks HTTP")
    return proxy
