"""Ids of queries and passages: which can be written to a file, and which are alike but not equal.

Ids are compared letter for letter, as trec_eval does. Files of one collection that spell them
otherwise (composed and decomposed accents, ``D123`` and ``123``, ``7`` and ``7.0``) meet nowhere,
and a run then counts 0 without an error. Nothing is repaired here: what looks alike may be another
thing. It is found, so that it can be shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

_WHOLE = re.compile(r"(\d+)\.0+")
_NUMBERED = re.compile(r"\D+?(\d+)")


def one_word(text: str) -> bool:
    """Whether an id can stand in a file with columns: not empty, no white space, no NUL."""
    return text.split() == [text] and "\0" not in text


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def _short(text: str) -> str:
    """A number without a decimal part of zeros and without zeros before it."""
    whole = _WHOLE.fullmatch(text)
    text = whole[1] if whole else text
    head = text.rstrip("0123456789")
    number = text[len(head) :]
    return head + (number.lstrip("0") or "0") if number else text


# What two spellings of an id may differ in, from the least to the most; each goes on from the last.
SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("white space around it", str.strip),
    ("Unicode normal form", lambda text: unicodedata.normalize("NFC", text)),
    ("compatibility characters", lambda text: unicodedata.normalize("NFKC", text)),
    ("invisible characters", lambda text: _visible(text).strip()),
    ("case", str.casefold),
    ("zeros of a number", _short),
)


def plain(text: str) -> str:
    """An id without what two spellings of it may differ in (`SPELLINGS`)."""
    for _, step in SPELLINGS:
        text = step(text)
    return text


def difference(first: str, second: str) -> str:
    """What two ids that are alike differ in: a name of `SPELLINGS`, or "what stands before"."""
    for name, step in SPELLINGS:
        first, second = step(first), step(second)
        if first == second:
            return name
    return "what stands before the number"


def alike(unknown: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Ids that are not known, but are in another spelling.

    Alike are ids that are equal when they are `plain`; and a number and an id that is this number
    with something before it (``123`` and ``D123``; not ``D123`` and ``Q123``).

    Parameters
    ----------
    unknown
        Ids that are not among the known ones.
    known
        Read once, and not at all without unknown ids.

    Returns
    -------
    dict
        Unknown id to the first known one that it is like, in the order of `unknown`.
    """
    ids = list(dict.fromkeys(unknown))
    wanted: dict[str, list[str]] = {}
    numbered: dict[str, list[str]] = {}
    for own in ids:
        text = plain(own)
        wanted.setdefault(text, []).append(own)
        if match := _NUMBERED.fullmatch(text):
            numbered.setdefault(_short(match[1]), []).append(own)
    matches: dict[str, str] = {}
    for other in known if ids else ():
        text = plain(other)
        match = _NUMBERED.fullmatch(text)
        same = wanted.get(text, [])
        bare = numbered.get(text, []) if text.isdigit() else []
        behind = wanted.get(_short(match[1]), []) if match else []
        for own in (*same, *bare, *behind):
            matches.setdefault(own, other)
    return {own: matches[own] for own in ids if own in matches}


def shown(pairs: dict[str, str], most: int = 3) -> tuple[str, ...]:
    """The first few ids that are alike, and what they differ in; every letter can be told apart."""
    return tuple(
        f"{ascii(own)} for {ascii(other)} ({difference(own, other)})"
        for own, other in list(pairs.items())[:most]
    )
