"""What the replies of a service mean: answers and their tokens, refusals, and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, NamedTuple

from rdx.teachers import tokens
from rdx.teachers.messages import REFUSAL, Answer, Message

_PASSING = (408, 409, 425, 429)  # and every 5xx
_MISSING = (404, 405, 410)  # no such model, path or method
_UNFIT = (400, 413, 414, 422, 431)  # services say so that a prompt is too long, and much else
_TURNED_AWAY = (503, 529)  # of the 5xx: overloaded, the prompt was not read

# How OpenAI, vLLM, llama.cpp, TGI, Bedrock and others say that a prompt does not fit. Some statuses
# say as much as "perhaps" without it. A limit of tokens per minute below the size of one request
# ("request too large") is one too: waiting never helps, shorter passages do.
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|string_above_max_length"
    r"|context[ _](?:length|size|window)|(?:prompt|input) is too long|input (?:token count|length)"
    r"|reduce the length|inputs. tokens|request too large"
    r"|less than \d+ tokens|maximum model length|max_model_len",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(r"insufficient_quota|billing_hard_limit", re.IGNORECASE)
_FILTER = re.compile(
    r"content_filter|content management policy|content[ _-]policy|moderation|was flagged"
    r"|inappropriate content",
    re.IGNORECASE,
)


class Kind(Enum):
    """What an HTTP error is about.

    Attributes
    ----------
    KEY, CREDIT, MISSING
        The key; the account; model or address. All requests, unless others are answered.
    TOO_LONG
        The request does not fit into the context, and the service says so.
    UNFIT
        The request, which may be too long.
    FILTERED
        The texts that the request shows.
    REJECTED
        The request, and not for its length.
    PASSING
        The state of the service: to be asked again.
    """

    KEY = "key"
    CREDIT = "credit"
    MISSING = "missing"
    TOO_LONG = "too long"
    UNFIT = "unfit"
    FILTERED = "filtered"
    REJECTED = "rejected"
    PASSING = "passing"


def kind(status: int, text: str) -> Kind:
    """What an HTTP error with this body is about."""
    if status == 401:
        return Kind.KEY
    if status == 402 or _NO_CREDIT.search(text):
        return Kind.CREDIT
    if status not in _MISSING and _OVERFLOW.search(text):
        return Kind.TOO_LONG
    if status in _PASSING or status >= 500:
        return Kind.PASSING
    if status == 451 or _FILTER.search(text):
        return Kind.FILTERED
    if status in _MISSING:
        return Kind.MISSING
    return Kind.UNFIT if status in _UNFIT else Kind.REJECTED


def worked(status: int) -> bool:
    """Whether a service may have read the prompt before it gave this HTTP error."""
    return status >= 500 and status not in _TURNED_AWAY


class Tokens(NamedTuple):
    """Tokens of prompt and answer, those of thoughts in the answer, and whether some are estimated.

    What the service does not count, or counts in no way that can be, is estimated.
    """

    input: int
    output: int
    thinking: int = 0
    estimated: bool = False


def read(content: bytes, messages: list[Message], limit: int | None) -> Answer:
    """The answer of a reply of status 200 to a chat.

    Parameters
    ----------
    limit
        Tokens of the longest answer; None = not limited.

    Raises
    ------
    ValueError
        If the reply holds none: it is another thing, or says that the service failed.
    """
    reply = _json(content)
    try:
        choice = reply["choices"][0]
        finish = str(choice.get("finish_reason") or "unknown")
        failed = reply.get("error") or choice.get("error") or finish == "error"
        text, thoughts, refuses = _texts(choice["message"])
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"no message in the answer: {content[:200]!r}") from error
    # Where nothing was said, the reason may be known: the thoughts took all room, or a filter.
    silent = text is None and not thoughts and finish in ("stop", "unknown")
    if failed or silent:
        raise ValueError(f"an error as an answer: {content[:200]!r}")
    took = _tokens(reply.get("usage"), messages, (text or "") + thoughts, finish, limit)
    served = (str(reply[name]) for name in ("model", "system_fingerprint") if reply.get(name))
    return Answer(
        text=text or "",
        input_tokens=took.input,
        output_tokens=took.output,
        latency=0.0,
        finish=REFUSAL if refuses else finish,
        served=" ".join(served),
        thoughts=thoughts,
        thinking_tokens=took.thinking,
        estimated=took.estimated,
    )


def taken(content: bytes, messages: list[Message]) -> Tokens:
    """Tokens of a reply of status 200 that holds no answer."""
    try:
        reply = _json(content)
    except ValueError:
        reply = None
    usage = reply.get("usage") if isinstance(reply, dict) else None
    return _tokens(usage, messages, "", "", None)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON in the answer: {content[:200]!r}") from error


def _tokens(
    usage: object, messages: list[Message], answer: str, finish: str, limit: int | None
) -> Tokens:
    """Tokens by the service's own count, as far as it can be one."""
    told: Mapping[str, Any] = usage if isinstance(usage, dict) else {}
    details = told.get("completion_tokens_details")
    thinking = _count(details.get("reasoning_tokens") if isinstance(details, dict) else None)
    thinking = thinking or _count(told.get("reasoning_tokens")) or 0
    prompt, output = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    if prompt is not None and prompt < sum(tokens.fewest(m["content"]) for m in messages):
        prompt = None
    if output is not None and output < tokens.fewest(answer):
        output = None
    estimated = prompt is None or output is None
    if output is None:
        cut = limit if finish == "length" and limit else 0  # thoughts that are not shown, too
        output = max(tokens.of_text(answer), thinking, cut)
    elif thinking > output:  # counted apart
        output += thinking
    if prompt is None:
        prompt = tokens.of_chat(messages)
    else:  # Gemini and Grok leave the thoughts out of the answer, but not out of the total
        output = max(output, (_count(told.get("total_tokens")) or 0) - prompt)
    return Tokens(prompt, output, min(thinking, output), estimated)


def _count(value: object) -> int | None:
    """A whole number from 0, also as a float; None where it is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if value >= 0 else None


def _texts(message: Any) -> tuple[str | None, str, bool]:
    """Text and thoughts of a message, and whether the text is a refusal that is marked as one.

    The text is None where the message has none.

    Raises
    ------
    TypeError, AttributeError, KeyError
        If it has another form.
    """
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    marked = [message.get(name) for name in ("reasoning_content", "reasoning", "thinking")]
    marked += [part for part in parts if part.get("type") != "text"]
    # some services give the same thoughts by two names
    thoughts = "\n".join(dict.fromkeys(filter(None, map("".join, map(_strings, marked)))))
    if isinstance(content, list):
        content = "".join(part["text"] for part in parts if part.get("type") == "text")
    refusal = message.get("refusal")
    text = content or refusal or content
    if not isinstance(text, str | None):
        raise TypeError(type(text))
    # half a surrogate pair fits into no file
    whole = None if text is None else text.encode("utf-8", "replace").decode()
    return whole, thoughts.encode("utf-8", "replace").decode(), bool(refusal and not content)


def _strings(thoughts: object) -> Iterator[str]:
    """The texts in what a service gives as thoughts, of any form."""
    if isinstance(thoughts, str):
        yield thoughts
    elif isinstance(thoughts, list):
        for part in thoughts:
            yield from _strings(part)
    elif isinstance(thoughts, dict):
        for name in ("text", "thinking", "reasoning", "content", "summary"):
            yield from _strings(thoughts.get(name))


def code_and_message(text: str) -> tuple[str, str]:
    """Code and message of an error's body; ("", the body) where it has another form."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return "", text
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", error if isinstance(error, str) else text
    code, message = error.get("code") or error.get("type"), error.get("message")
    return str(code or ""), message if isinstance(message, str) and message else text


def retry_after(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds that the server asks to wait: a number, an HTTP date, or a number of milliseconds.

    0 where it asks for nothing, or for nothing that one can read.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return _positive(float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return _positive((date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def _positive(seconds: float) -> float:
    return seconds if seconds > 0 else 0.0  # NaN too is no wait
