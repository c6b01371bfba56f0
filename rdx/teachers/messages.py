"""What passes between a listwise teacher and the LLM that answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, runtime_checkable

from pydantic import JsonValue

from rdx.faults import Mendable

Identity = dict[str, JsonValue]  # all that may change an answer, by name


class Message(TypedDict):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


def characters(messages: list[Message]) -> int:
    """Length of a chat."""
    return sum(len(message["content"]) for message in messages)


@dataclass(frozen=True)
class Answer:
    """What an LLM answered, and what it took.

    Parameters
    ----------
    text
        As it came, without what the engine marks as thought by a field of its own.
    input_tokens, output_tokens
        As the engine counted them, thoughts included; estimated if it does not say.
    latency
        Seconds, tries included.
    finish
        Why the text ended, in the engine's word: "stop", "length", "content_filter", ...;
        "unknown" if it gives none, `REFUSAL` if it marks the text as a refusal.
    served
        What the server says that it ran, such as the dated name behind an alias; "" if nothing.
    thoughts
        What the model thought aloud, where the engine gives it apart from the text. Never read.
    thinking_tokens
        Of the output tokens, those of thoughts, as the engine counted them; 0 if it does not say.
    estimated
        Whether token counts are estimates, because the engine gives none.
    """

    text: str
    input_tokens: int
    output_tokens: int
    latency: float
    finish: str
    served: str = ""
    thoughts: str = ""
    thinking_tokens: int = 0
    estimated: bool = False


REFUSAL = "refusal"  # the `finish` of a text that the engine marks as a refusal


class BackendError(Mendable):
    """No answer."""


class Fatal(BackendError):
    """No request will be answered (key, model, address): the teacher stops at once."""


class Failed(BackendError):
    """A request that was not answered within the bounded tries."""


class Rejected(Failed):
    """A request that the service answers with an error of this request: others may be answered."""


class TooLong(BackendError):
    """The request does not fit into the model's context: ask again with shorter passages."""


class MaybeTooLong(Rejected):
    """A request that is rejected, perhaps for its length: shorter passages may be answered."""


class Refused(Rejected):
    """A request that a filter of the service turns away, for the texts that it shows."""


class Denied(Fatal):
    """The service refuses key, model or address: fatal unless it has answered other requests."""


# Told of the input and output tokens of a try that was served in vain; what it raises ends the
# request.
Lost = Callable[[int, int], None]


class Backend(Protocol):
    """An LLM that answers chats."""

    def identity(self) -> Identity:
        """All that may change an answer: model, revision, engine, sampling parameters."""

    async def ask(self, messages: list[Message], size: int, lost: Lost | None = None) -> Answer:
        """The answer to a chat that shows `size` passages; raises a `BackendError`."""

    def longest(self, size: int) -> int | None:
        """Tokens of the longest answer to a window of so many passages; None without a limit."""

    async def close(self) -> None:
        """Free connections, threads and memory."""


@runtime_checkable
class Service(Protocol):
    """Settings of a backend."""

    def backend(self) -> Backend:
        """The backend, which connects or loads when it is first asked."""
