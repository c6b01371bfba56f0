"""Tokens of texts whose tokeniser is not at hand: an estimate that is rather too high."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdx.teachers.messages import Message

# Of UTF-8, per token. English text has 4 to 5 bytes per token, other scripts 1 to 4 by vocabulary.
ASCII_BYTES, OTHER_BYTES = 3.0, 1.5
PER_MESSAGE = 5  # what a chat template puts around each message
# No vocabulary makes fewer tokens of a text than one for so many bytes: a count below is none.
MOST_BYTES = 16


def of_text(text: str) -> int:
    """Tokens of a text: a third of its ASCII bytes, and two thirds of its other UTF-8 bytes.

    Examples
    --------
    >>> of_text("a heron"), of_text("鹭"), of_text("")
    (3, 2, 0)
    """
    size = len(text.encode("utf-8", "replace"))
    plain = sum(character.isascii() for character in text)
    return ceil(plain / ASCII_BYTES + (size - plain) / OTHER_BYTES)


def of_chat(messages: list[Message]) -> int:
    """Tokens of a chat, with `PER_MESSAGE` for what the template adds to each message."""
    return sum(of_text(message["content"]) + PER_MESSAGE for message in messages)


def fewest(text: str) -> int:
    """Tokens that a text has at least, whatever the vocabulary.

    Examples
    --------
    >>> fewest(17 * "a"), fewest("a"), fewest("")
    (2, 1, 0)
    """
    return ceil(len(text.encode("utf-8", "replace")) / MOST_BYTES)
