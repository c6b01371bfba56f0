"""Read an LLM's answer as a permutation of the passages it was shown, or as a stated failure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

RULES = ("strict", "lenient")
IDENTIFIERS = ("numbers", "letters")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Parsed(NamedTuple):
    """A parsed answer.

    Parameters
    ----------
    order
        Positions in the window from 0, best first: a full permutation, or None.
    state
        "ok", "repaired", "malformed" or "refused"; the last two have no order.
    """

    order: tuple[int, ...] | None
    state: str


def parse(
    text: str,
    size: int,
    rule: str = "strict",
    *,
    identifiers: str = "numbers",
    truncated: bool = False,
) -> Parsed:
    """Read the answer to a window of `size` passages.

    Parameters
    ----------
    text
        The answer as it came.
    size
        Passages of the window, at least 1.
    rule
        "strict": the answer is a chain ``[2] > [1] > [3]``, also without brackets; spaces, a label
        before it ("Ranking:"), code fences and bold type around it, a final period and what a
        reasoning model thinks aloud (``<think>``) do not matter.

        - ok: one chain with every identifier once.
        - repaired: a chain of at least half of the identifiers, and of two. What comes a second
          time, is out of range or no identifier is dropped, what is missing is appended in input
          order. There may be an explanation around the chain; without brackets the chain must fill
          its lines. Other chains in the answer must order the same way.
        - refused: no chain, but words to the effect that the model cannot, will not or has nothing
          to rank; a chain of less than half of the passages within such words is their example.
        - malformed: all else, e.g. digits in prose, contradicting chains, "[3] > [1] > ...".

        "lenient": rank_llm's historic rule, for comparison. All numbers of the text are read, then
        repaired as above. Never malformed: an answer without numbers keeps the input order.
    identifiers
        "numbers" from 1, or "letters" from A (at most 26 passages). Lenient letters are capitals
        that stand alone.
    truncated
        Whether the answer was cut off at a limit. What is missing was then not left out by the
        model, so that an incomplete strict answer is malformed.
    """
    _check(size, rule, identifiers)
    if rule == "lenient":
        return _lenient(text, size, identifiers)
    text = MARKUP.sub(" ", _without_thoughts(text))
    # One identifier alone orders nothing and cannot be told from a count or a quotation ("see
    # [3]"), unless there is only one passage.
    chains = [c for c in _chains(text, size, identifiers) if len(c.order) >= min(2, size)]
    best = max(chains, key=lambda chain: len(chain.order), default=None)
    # of less than half, most of the order would be the input's, not the model's
    if best is None or 2 * len(best.order) < size:
        return Parsed(None, "refused" if REFUSAL.search(text) else "malformed")
    order = _completed(best.order, size)
    incomplete = len(best.order) < size
    if (incomplete and (truncated or best.elided)) or not all(_within(c, best) for c in chains):
        return Parsed(None, "malformed")
    clean = best.alone and best.items == size and not incomplete
    return Parsed(order, "ok" if clean else "repaired")


# Identifiers are ASCII. Things in brackets that are none ("[ ]", "[1O]", "[Empty]") and what is
# stuck to a bracket ("[1]7") are items of a chain, so that they do not break it into two.
_ITEM = r"(?:\[[^\[\]>\n]{0,80}\]\w{0,80}|\.{2,}|…)"
_LABEL = r"[^\W\d_][^\n\[\]>:\d]{0,80}:"
_BARE = {"numbers": "[0-9]+", "letters": "[A-Z]"}

MARKUP = re.compile(r"```[a-z]*|[*`]")
ITEM = re.compile(_ITEM)
LABEL = re.compile(rf"\s*(?:{_LABEL}\s*)?")
BRACKETED = re.compile(rf"{_ITEM}(?:\s*>\s*{_ITEM})*")
# Without brackets only a chain that fills its lines counts: "20 > 15 degrees" is prose.
BARE = {
    kind: re.compile(
        rf"^[^\S\n]*(?:{_LABEL}[^\S\n]*)?(?P<chain>{name}(?:\s*>\s*{name})*)"
        r"[^\S\n]*(?:[.>][^\S\n]*)?$",
        re.MULTILINE,
    )
    for kind, name in _BARE.items()
}
IDENTIFIER = {
    kind: re.compile(rf"\[\s*({name})\s*\]|({name})", re.ASCII) for kind, name in _BARE.items()
}
ANYWHERE = {"numbers": re.compile(r"\d+"), "letters": re.compile(r"\b[A-Z]\b")}
REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|apologies)\b"
    r"|\bI(?:['’]m| am| must)? (?:cannot|can['’]t|could(?: not|n['’]t)|won['’]t|will not|unable"
    r"|not able|refuse|decline)\b"
    r"|\b(?:cannot|can['’]t|unable to|not able to|(?:not |im)possible to) (?:\w+ ){0,2}rank"
    r"|\bas an? (?:AI|(?:large )?language model)\b"
    r"|\b(?:not enough|insufficient) (?:information|context)\b"
    r"|\bno (?:\w+ )?passages?\b|\bnone of the (?:\w+ )?passages\b",
    re.IGNORECASE,
)


class _Chain(NamedTuple):
    """A chain of identifiers, without those that are dropped, and what is around it."""

    order: tuple[int, ...]
    items: int
    elided: bool  # "[3] > [1] > ..." leaves to the reader what is where
    alone: bool  # the answer holds nothing else


def _check(size: int, rule: str, identifiers: str) -> None:
    if rule not in RULES:
        raise ValueError(f"teacher.parse={rule!r}: must be one of {', '.join(map(repr, RULES))}")
    if identifiers not in IDENTIFIERS:
        raise ValueError(f"identifiers={identifiers!r}: must be 'numbers' or 'letters'")
    if size < 1 or (identifiers == "letters" and size > len(LETTERS)):
        raise ValueError(f"a window of {size} passages with {identifiers} as identifiers")


def _without_thoughts(text: str) -> str:
    """The text without what a reasoning model thinks aloud, finished or not."""
    return text.rpartition("</think>")[2].partition("<think>")[0]


def _chains(text: str, size: int, identifiers: str) -> list[_Chain]:
    """All chains of an answer; single items are chains too."""
    chains = []
    for match in BRACKETED.finditer(text):
        chains.append(_chain(text, *match.span(), ITEM.findall(match[0]), size, identifiers))
    for match in BARE[identifiers].finditer(text):
        items = match["chain"].replace(">", " ").split()
        chains.append(_chain(text, *match.span("chain"), items, size, identifiers))
    return chains


def _chain(
    text: str, start: int, end: int, items: list[str], size: int, identifiers: str
) -> _Chain:
    matches = (IDENTIFIER[identifiers].fullmatch(item) for item in items)
    names = (match[1] or match[2] for match in matches if match)
    return _Chain(
        order=_distinct(names, size),
        items=len(items),
        elided=any(item[0] in ".…" for item in items),
        alone=bool(LABEL.fullmatch(text, 0, start)) and text[end:].strip() in ("", "."),
    )


def _within(chain: _Chain, best: _Chain) -> bool:
    """Whether the best chain has all identifiers of another in the same order."""
    rest = iter(best.order)
    return all(position in rest for position in chain.order)


def _lenient(text: str, size: int, identifiers: str) -> Parsed:
    names = ANYWHERE[identifiers].findall(text)
    order = _distinct(names, size)
    state = "ok" if len(order) == len(names) == size else "repaired"
    return Parsed(_completed(order, size), state)


def _distinct(names: Iterable[str], size: int) -> tuple[int, ...]:
    """Positions of the identifiers that are in range, each where it comes first."""
    return tuple(dict.fromkeys(p for p in map(_position, names) if 0 <= p < size))


def _position(identifier: str) -> int:
    if identifier.isalpha():
        return LETTERS.index(identifier)
    # Python refuses to read numbers of thousands of digits; no window is that long.
    return int(identifier) - 1 if len(identifier) < 1000 else -1


def _completed(order: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The order, and in input order what it lacks."""
    return order + tuple(sorted(set(range(size)).difference(order)))
