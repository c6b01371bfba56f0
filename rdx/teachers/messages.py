"""What passes between a listwise teacher and the LLM that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rdx.faults import Mendable

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}


@dataclass(frozen=True)
class Answer:
    """What an LLM answered, and what it took.

    Parameters
    ----------
    text
        As it came.
    input_tokens, output_tokens
        As the engine counted them; 0 if it does not say.
    latency
        Seconds, tries included.
    finish
        Why the text ended: "stop", "length", "content_filter", ...
    served
        What the server says that it ran, such as the dated name behind an alias; "" if nothing.
    """

    text: str
    input_tokens: int
    output_tokens: int
    latency: float
    finish: str
    served: str = ""


class BackendError(Mendable):
    """No answer."""


class Fatal(BackendError):
    """No request will be answered (key, model, address): the teacher stops at once."""


class Failed(BackendError):
    """A request that was not answered within the bounded tries."""


class TooLong(BackendError):
    """The request does not fit into the model's context: ask again with shorter passages."""


class Backend(Protocol):
    """An LLM that answers chats."""

    def identity(self) -> dict[str, Any]:
        """All that may change an answer: model, revision, engine, sampling parameters."""

    async def ask(self, messages: list[Message], size: int) -> Answer:
        """The answer to a chat that shows `size` passages; raises a `BackendError`."""

    async def close(self) -> None:
        """Free connections, threads and memory."""


@runtime_checkable
class Service(Protocol):
    """Settings of a backend."""

    def backend(self) -> Backend:
        """The backend, which connects or loads when it is first asked."""
