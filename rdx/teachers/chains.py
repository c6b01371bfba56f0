"""Chains of identifiers in an answer, ``[2] > [1] > [3]``: where they are and what they order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = {"numbers": "[0-9]+", "letters": "[A-Z]"}  # identifiers are ASCII

_NOUN = r"(?i:(?P<noun>no|nr|number|passage|document|doc|id|identifier|item)\b\.?\s*:?\s*|#\s*)?"
FULL = {k: re.compile(rf"\[{{1,2}}\s*{_NOUN}(?P<name>{n})\s*\]{{1,2}}") for k, n in NAMES.items()}
_LOOSE = {k: re.compile(rf"\[{{0,2}}\s*(?P<name>{n})\s*\]{{0,2}}") for k, n in NAMES.items()}
# What may stand in brackets instead of a passage: that there is none.
_NONE = re.compile(r"\[\s*(?:(?:no|not|none|nothing|empty|null|nil|n/a)\b\D*)?\]", re.IGNORECASE)
_ELLIPSIS = r"\[?(?:\.{2,}|…)\]?"
# Also what is stuck to brackets ("[1]7") and what is in them ("[8, 7]"), so that what cannot be
# read is seen, and does not break a chain into two.
_ITEM = (
    r"\w{0,80}\[{1,2}[^\[\]\n]{0,80}\]{1,2}\w{0,80}"
    r"|(?:\[{1,2}\s*)?\w+(?:\s*\]{1,2})?"
    rf"|{_ELLIPSIS}"
)
_HEAD, _TAIL = re.compile(_ITEM), re.compile(rf"(?:{_ITEM})\Z")
_LONGEST = 200  # characters of an item that ends a part of the text

LABEL = r"[^\W\d_][^\n\[\]>:\d]{0,80}:"
_BEFORE = re.compile(rf"[^\S\n]*(?:{LABEL}[^\S\n]*)?[\"'“]?")
_AFTER = re.compile(r"[\"'”]?[^\S\n]*(?:[.>][^\S\n]*)?[\"'”]?")
_GOES_ON = re.compile(r"\s*(?:\.\.|…|>\s*[^\s.>]|\W*(?:etc|and so (?:on|forth))\b)")
_MARKER = re.compile(r"[^\S\n]*1[.)][^\S\n]+")  # a list of one line


class Item(NamedTuple):
    """A link of a chain."""

    position: int | None  # None: no passage of the window
    notation: str  # "" if it cannot be read
    start: int
    end: int


class Chain(NamedTuple):
    """A chain of at least two links.

    Parameters
    ----------
    order
        Positions of the passages, each where it comes first.
    items
        All links.
    start, end
        Where it is in the text.
    before, after
        The rest of its first and of its last line.
    """

    order: tuple[int, ...]
    items: tuple[Item, ...]
    start: int
    end: int
    before: str
    after: str

    @property
    def clear(self) -> bool:
        """Whether every link is an identifier, a number of no passage, or says that it is none."""
        return all(item.notation for item in self.items)

    @property
    def elided(self) -> bool:
        """Whether it leaves to the reader what is where: ``[3] > [1] > ...``, "> the rest"."""
        links = any(item.notation == "elision" for item in self.items)
        return links or bool(_GOES_ON.match(self.after))

    @property
    def bracketed(self) -> bool:
        """Whether every link is in brackets."""
        return not any(item.notation in ("bare", "half") for item in self.items)

    @property
    def even(self) -> bool:
        """Whether all links are identifiers in one notation."""
        notations = {item.notation for item in self.items}
        return len(notations) == 1 and not notations & {"half", "none", "elision", ""}

    @property
    def begins(self) -> bool:
        """Whether nothing stands before it on its line but a label or "1."."""
        label = _BEFORE.fullmatch(self.before)
        return bool(label or (self.bracketed and _MARKER.fullmatch(self.before)))

    @property
    def fills(self) -> bool:
        """Whether its lines hold nothing else, but for a label or "1." before it."""
        return self.begins and bool(_AFTER.fullmatch(self.after.rstrip("\n")))

    @property
    def closed(self) -> bool:
        """Whether its last link cannot go on: "1" may be the beginning of "12"."""
        last = self.items[-1]
        return last.notation not in ("bare", "half") or bool(re.match(r"[\s.]*\n", self.after))


def chains(text: str, size: int, identifiers: str) -> Iterator[Chain]:
    """All chains of a text, in its order."""
    links: list[Item] = []
    offset = 0
    for part in text.split(">"):
        start = offset + len(part) - len(part.lstrip())
        end = offset + len(part.rstrip())
        offset += len(part) + 1
        whole = _item(_HEAD.fullmatch(text, start, end), size, identifiers)
        if whole is not None:
            links.append(whole)
            continue
        head = _item(_HEAD.match(text, start, end), size, identifiers) if links else None
        if head is not None:
            links.append(head)
        if len(links) > 1:
            yield _chain(text, links)
        tail = _TAIL.search(text, max(start, end - _LONGEST), end)
        last = _item(tail, size, identifiers)
        links = [] if last is None else [last]
    if len(links) > 1:
        yield _chain(text, links)


def _chain(text: str, links: list[Item]) -> Chain:
    start, end = links[0].start, links[-1].end
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    after = text[end:] if last < 0 else text[end : last + 1]
    return Chain(
        distinct(link.position for link in links),
        tuple(links),
        start,
        end,
        text[first:start],
        after,
    )


def _item(match: re.Match[str] | None, size: int, identifiers: str) -> Item | None:
    """A link; None of a word that is none."""
    if match is None:
        return None
    text = match[0]
    position, notation = None, ""
    if full := FULL[identifiers].fullmatch(text):
        position = place(full["name"], size)
        notation = f"[{(full['noun'] or '').lower()}]"
    elif loose := _LOOSE[identifiers].fullmatch(text):
        position = place(loose["name"], size)
        notation = "bare" if text == loose["name"] else "half"
    elif re.fullmatch(_ELLIPSIS, text):
        notation = "elision"
    elif _NONE.fullmatch(text):
        notation = "none"
    elif "]" not in text and not re.search(r"\d", text):
        return None
    return Item(position, notation, *match.span())


def place(name: str, size: int) -> int | None:
    """Position of an identifier in a window, from 0; None if there is none."""
    if name.isalpha():
        position = LETTERS.index(name)
    else:
        # Python refuses to read numbers of thousands of digits; no window is that long.
        position = int(name) - 1 if len(name) < 1000 else -1
    return position if 0 <= position < size else None


def distinct(positions: Iterable[int | None]) -> tuple[int, ...]:
    """Positions, each where it comes first."""
    return tuple(dict.fromkeys(p for p in positions if p is not None))
