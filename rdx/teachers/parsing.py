"""Read an LLM's answer as a permutation of the passages it was shown, or as a stated failure."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from rdx.teachers.chains import FULL, LABEL, LETTERS, NAMES, Chain, chains, distinct, place
from rdx.teachers.thoughts import ends_in_thought, without_thoughts

RULES = ("strict", "lenient")
VERSION = 2  # of both rules: raised when one of them reads some answer in another way
IDENTIFIERS = ("numbers", "letters")

# Words of services for "the model stopped by itself"; any other word means that it was stopped.
STOPPED = frozenset(
    "stop stop_sequence eos eos_token end_turn end_of_turn complete completed".split()
)
# ... and for "this is not answered".
DECLINED = frozenset(
    "content_filter refusal safety blocklist prohibited_content recitation".split()
)


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


def read(
    text: str, finish: str, size: int, rule: str = "strict", identifiers: str = "numbers"
) -> Parsed:
    """Read an answer that ended for a reason, in the service's word.

    Unless the word is known to mean that the model stopped by itself (`STOPPED`), the answer was
    cut off. An answer without an order that the service declined (`DECLINED`) is "refused".
    """
    word = finish.lower()
    parsed = parse(text, size, rule, identifiers=identifiers, truncated=word not in STOPPED)
    declined = parsed.order is None and word in DECLINED
    return Parsed(None, "refused") if declined else parsed


def parse(
    text: str,
    size: int,
    rule: str = "strict",
    *,
    identifiers: str = "numbers",
    truncated: bool = False,
) -> Parsed:
    """Read the answer to a window of `size` passages.

    What a model thinks aloud (`rdx.teachers.thoughts`) is no part of the answer.

    Parameters
    ----------
    text
        The answer as it came.
    size
        Passages of the window, at least 1.
    rule
        "strict": the answer has a chain ``[2] > [1] > [3]``. White space, a label before it
        ("Ranking:"), code fences and bold type around it and a final period do not matter; full
        width characters and HTML's ``&gt;`` are read as what they stand for.

        - The links are identifiers in brackets, ``[2]``, ``[No. 2]``, ``【2】``, or without. A
          bracket may be missing. A number out of range or ``[ ]``, ``[Not found]`` names no
          passage. Any other link (``[8, 7]``, ``[7-8]``, ``[1O]``, ``[1]7``) makes the answer
          malformed.
        - Without all identifiers a chain must begin its line, and without all its brackets fill it.
          Otherwise there may be prose around it, but none that leads from an identifier into the
          chain ("[8], then [7] > [6]").
        - What names a passage outside the chain, in figures or in words, names none that the chain
          lacks. Other chains order the same way.
        - The order is the one that was asked for: text that declares the opposite ("from least to
          most relevant"), a refusal or an example is no ranking.
        - A chain without all identifiers has at least half of them, and two. Nothing is elided
          ("[3] > [1] > ..."), and the model stopped by itself.

        Without such a chain, the answer may be a list of all identifiers, each exactly once, and
        nothing else but a label: ``[2] [1] [3]``, with commas, semicolons or arrows between them,
        or as JSON, ``[2, 1, 3]`` or ``{"ranking": [2, 1, 3]}``.

        States: "ok", every identifier once, in one notation, and nothing else; "repaired", what
        comes a second time or names no passage is dropped, what is missing is appended in input
        order, text around the chain is passed over; "refused", no order, but words to the effect
        that the model cannot, will not or has nothing to rank; "malformed", all else.

        "lenient": rank_llm's historic rule, for comparison. All numbers of the text are read, then
        repaired as above. Never malformed: an answer without numbers keeps the input order.
    identifiers
        "numbers" from 1, or "letters" from A (at most 26 passages). Lenient letters are capitals
        that stand alone.
    truncated
        Whether the answer was cut off. What is missing was then not left out by the model, so that
        a strict answer must begin with its chain, and the chain be complete.
    """
    _check(size, rule, identifiers)
    if (order := _as_asked(text, size, identifiers)) is not None:
        return Parsed(order, "ok")
    if rule == "lenient":
        return _lenient(without_thoughts(text), size, identifiers)
    text = html.unescape(text).translate(STAND_FOR)
    truncated = truncated or ends_in_thought(text)
    text = _answer(text)
    listed = _listed(text, size, identifiers)
    if listed is not None:
        keys = text.replace('"', " ")  # of a JSON object
        return Parsed(None, "malformed") if _opposite(keys, "") else Parsed(listed, "ok")
    ranking = _ranking(text, size, identifiers)
    if ranking is None:
        return Parsed(None, "refused" if REFUSAL.search(text) else "malformed")
    if not _unmistakable(ranking, text, size, identifiers):
        return Parsed(None, "malformed")
    if truncated and not _before_the_cut(ranking, text, size):
        return Parsed(None, "malformed")
    alone = LABELLED.fullmatch(text, 0, ranking.start) and text[ranking.end :].strip() in ("", ".")
    clean = alone and ranking.even and len(ranking.items) == len(ranking.order) == size
    return Parsed(_completed(ranking.order, size), "ok" if clean else "repaired")


def complete(text: str, size: int, identifiers: str = "numbers") -> bool:
    """Whether a text that may go on has a chain of all identifiers, which does not.

    Examples
    --------
    >>> complete("[1] and [2] are good: [2] > [1]", 2), complete("[1] > [1", 2)
    (True, False)
    """
    _check(size, "strict", identifiers)
    text = _answer(html.unescape(text).translate(STAND_FOR))
    if size == 1 and text.rstrip(" ").endswith(("]", "\n")):
        return _listed(text, size, identifiers) is not None
    ranking = _ranking(text, size, identifiers)
    return (
        ranking is not None
        and len(ranking.order) == size
        and ranking.closed
        and _unmistakable(ranking, text, size, identifiers)
    )


MARKUP = re.compile(r"```[a-z]*|[*`]|\\(?=[\[\]>])|^[^\S\n]*[-•][^\S\n]+(?=\[)", re.MULTILINE)
LABELLED = re.compile(rf"\s*(?:{LABEL}\s*)?[\"“]?")
# Characters that stand for others: full width forms, lenticular brackets.
STAND_FOR = {0xFEE0 + code: code for code in range(ord("!"), ord("~") + 1)}
STAND_FOR |= str.maketrans("【】〔〕≻﹥", "[][]>>")

# Between two links of a list of all identifiers; the same everywhere.
GAPS = ("", ",", ";", "→", "⇒", "->", "=>")
LINK = {
    kind: re.compile(rf"\s*[\"'“]?(?:{FULL[kind].pattern}|(?P<bare>{name}))[\"'”]?\s*")
    for kind, name in NAMES.items()
}
RANKING_KEY = re.compile(
    r"ranking|ranked|order|permutation|answer|result|output|passages|identifiers|ids|sorted",
    re.IGNORECASE,
)

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
EXAMPLE = re.compile(r"\b(?:for example|for instance|e\.g\b|such as|in the form)", re.IGNORECASE)
# What may end the way from a mention of a passage into the chain: "since [3] is best: [3] > ...".
INTRODUCES = re.compile(r"(?:[.:;!?]|\b(?:is|are|be|follows?))\s*\Z")
COUNT = re.compile(r"\b\d+\s+(?:passage|document|result|text|item)s\b|\btop\s+\d+\b", re.IGNORECASE)
MENTION = {"numbers": re.compile(r"\w*\d\w*"), "letters": re.compile(r"\[\s*[A-Z]\s*\]")}

# Before the chain, words for the lower end are fine after one for the upper end: "from the most to
# the least relevant". After it, only a declared order counts: "[4] is the least relevant" is fine.
UPPER = r"\b(?:most|more|best|highest|top|strongest|descending|decreasing)\b"
LOWER = r"\b(?:(?<!at )least|less|worst|lowest|weakest|bottom)\b"
RISING = r"\b(?:ascending|increasing|revers\w+|backwards?)\b"
UPPER_END, LOWER_END = re.compile(UPPER, re.IGNORECASE), re.compile(LOWER, re.IGNORECASE)
RISES = re.compile(RISING, re.IGNORECASE)
LOWEST = r"\b(?:(?<!at )least|worst|lowest|weakest)\b"
DECLARED = re.compile(
    rf"{LOWEST}(?:[\s-]+\w+){{0,2}}\s+(?:to|until|before|then)\s+(?:the\s+)?{UPPER}"
    rf"|{LOWEST}[\s-]+(?:\w+[\s-]+){{0,2}}first\b|{UPPER}[\s-]+(?:\w+[\s-]+)?last\b"
    rf"|{RISING}[^.\n]{{0,20}}\b(?:order|relevan|rank)"
    rf"|\b(?:order|relevan|rank|sort)\w*\b[^.\n]{{0,20}}{RISING}",
    re.IGNORECASE,
)
QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|(?<!\w)['‘][^'’\n]*['’](?!\w)")

WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty",
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth",
)
NUMBER = {word: i for words in WORDS for i, word in enumerate(words.split(), start=1)}
ANYWHERE = {"numbers": re.compile(r"\d+"), "letters": re.compile(r"\b[A-Z]\b")}
WORD = re.compile(r"[a-z]+", re.IGNORECASE)
# Words, of which no identifier is one.
LEAD = {"numbers": re.compile(r"[^\W\d_]+"), "letters": re.compile(r"[^\W\d_]{2,}|[^\W\d_A-Z]")}


def _check(size: int, rule: str, identifiers: str) -> None:
    if rule not in RULES:
        raise ValueError(f"teacher.parse={rule!r}: must be one of {', '.join(map(repr, RULES))}")
    if identifiers not in IDENTIFIERS:
        raise ValueError(f"identifiers={identifiers!r}: must be 'numbers' or 'letters'")
    if size < 1 or (identifiers == "letters" and size > len(LETTERS)):
        raise ValueError(f"a window of {size} passages with {identifiers} as identifiers")


def _as_asked(text: str, size: int, identifiers: str) -> tuple[int, ...] | None:
    """Order of an answer that is a whole chain and nothing else; None if it is another.

    Both rules read it so. Most answers are of this form, and read thirty times as fast.
    """
    if text[:1] != "[" or text[-1:] != "]":
        return None
    known = _positions(size, identifiers)
    order = tuple(known.get(name, -1) for name in text[1:-1].split("] > ["))
    return order if len(order) == size and set(order) == set(known.values()) else None


@cache
def _positions(size: int, identifiers: str) -> dict[str, int]:
    """Position of each identifier of a window."""
    names = LETTERS if identifiers == "letters" else map(str, range(1, size + 1))
    return {name: position for position, name in zip(range(size), names, strict=False)}


def _answer(text: str) -> str:
    """The answer in the text, without thoughts and markup."""
    return MARKUP.sub(" ", without_thoughts(text))


def _listed(text: str, size: int, identifiers: str) -> tuple[int, ...] | None:
    """Order of an answer that is a list of all identifiers, each once; None if it is another."""
    label = LABELLED.match(text)
    body = text[label.end() if label else 0 :].strip().removesuffix(".")
    names = _json(body)
    if names is None and body[:1] == "[" and body[-1:] == "]":
        names = body[1:-1].split(",")
    links = [LINK[identifiers].fullmatch(name) for name in names or [body] * (size == 1)]
    order = [place(link["name"] or link["bare"], size) for link in links if link]
    if not order or None in links:
        order = [place(link["name"], size) for link in _in_a_row(body, identifiers)]
    full = len(order) == size and set(order) == set(range(size))
    return distinct(order) if full else None


def _json(text: str) -> list[str] | None:
    """Links of a JSON object with one list, whose key says that it is a ranking."""
    try:
        known = json.loads(text) if text[:1] == "{" else None
    except (ValueError, RecursionError):
        return None
    lists = [item for item in (known or {}).items() if isinstance(item[1], list | dict)]
    if len(lists) != 1 or not RANKING_KEY.search(lists[0][0]) or isinstance(lists[0][1], dict):
        return None
    return [str(link) for link in lists[0][1]]


def _in_a_row(text: str, identifiers: str) -> list[re.Match[str]]:
    """Links in brackets with the same between any two of them, if the text is nothing else."""
    links = list(FULL[identifiers].finditer(text))
    gaps = {text[a.end() : b.start()].strip() for a, b in pairwise(links)}
    whole = links and links[0].start() == 0 and links[-1].end() == len(text)
    return links if whole and len(gaps) < 2 and gaps.issubset(GAPS) else []


def _ranking(text: str, size: int, identifiers: str) -> Chain | None:
    """The longest chain that is stated, if it has at least half of the identifiers.

    One identifier alone orders nothing, unless there is only one passage; and with less than half
    most of the order would be the input's, not the model's.
    """
    stated = [c for c in chains(text, size, identifiers) if _stated(c, size, identifiers)]
    best = max(stated, key=lambda chain: len(chain.order), default=None)
    few = best is None or len(best.order) < min(2, size) or 2 * len(best.order) < size
    return None if few else best


def _stated(chain: Chain, size: int, identifiers: str) -> bool:
    """Whether a chain is stated as the answer where it stands."""
    sentence = re.split(r"[.!?]\s", chain.before)[-1]
    if REFUSAL.search(sentence) or EXAMPLE.search(sentence):
        return False
    if not chain.bracketed:
        return chain.fills
    if chain.begins or len(chain.order) < size:
        return chain.begins
    before = COUNT.sub(" ", chain.before)
    mentions = list(MENTION[identifiers].finditer(before))
    return not mentions or bool(INTRODUCES.search(before[mentions[-1].end() :][-20:]))


def _unmistakable(ranking: Chain, text: str, size: int, identifiers: str) -> bool:
    """Whether nothing in the answer, in the chain or outside it, speaks against its order."""
    before, after = text[: ranking.start], text[ranking.end :]
    lacking = set(range(size)).difference(ranking.order)
    prose = f"{before}\n{after}"
    return (
        ranking.clear
        and not (lacking and ranking.elided)
        and not (lacking and lacking & _named(prose, identifiers))
        and not _opposite(before, after)
        and _led_to(ranking, before, identifiers)
        and all(
            _within(other.order, ranking.order)
            for other in chains(text, size, identifiers)
            if other.bracketed or other.fills
        )
        and not any(row != ranking.order for row in _rows(prose, size, identifiers))
    )


def _led_to(ranking: Chain, before: str, identifiers: str) -> bool:
    """Whether what stands before a chain, with no word in between, is how the chain begins.

    "1." before a chain in brackets begins a list, and names no passage.
    """
    if ranking.begins and ranking.before.strip() in ("1.", "1)"):
        before = before[: -len(ranking.before)]
    before = COUNT.sub("passages", before)
    words = list(LEAD[identifiers].finditer(before))
    lead = before[words[-1].end() :] if words else before
    names = distinct(_position(name) for name in ANYWHERE[identifiers].findall(lead))
    return names == ranking.order[: len(names)]


def _named(prose: str, identifiers: str) -> set[int]:
    """Positions that a text names, in figures or in words."""
    figures = ANYWHERE[identifiers].findall(prose)
    if identifiers == "numbers":
        words = (NUMBER.get(word.lower()) for word in WORD.findall(prose))
        figures += [str(number) for number in words if number]
    return {_position(figure) for figure in figures}


def _position(name: str) -> int:
    """Position of an identifier in a window of any size; -1 of a number that is none."""
    position = place(name, sys.maxsize)
    return -1 if position is None else position


def _opposite(before: str, after: str) -> bool:
    """Whether a text declares an order from the least to the most relevant passage."""
    before, after = (QUOTED.sub(" ", text).replace("_", " ") for text in (before, after))
    lower = LOWER_END.search(before)
    falls = lower is None or UPPER_END.search(before, 0, lower.start()) is not None
    return not falls or bool(RISES.search(before) or DECLARED.search(after))


def _within(order: tuple[int, ...], best: tuple[int, ...]) -> bool:
    """Whether the best order has all positions of another in the same order."""
    rest = iter(best)
    return all(position in rest for position in order)


def _rows(prose: str, size: int, identifiers: str) -> Iterator[tuple[int, ...]]:
    """Orders of all passages that stand side by side without a chain, ``[2], [1], [3]``."""
    row: list[int | None] = []
    end = 0
    for link in FULL[identifiers].finditer(prose):
        if prose[end : link.start()].strip(" \n\t,;"):
            row = []
        row.append(place(link["name"], size))
        end = link.end()
        if len(order := distinct(row)) == size:
            yield order


def _before_the_cut(ranking: Chain, text: str, size: int) -> bool:
    """Whether a chain is whole in an answer that was cut off.

    It has all identifiers, the last one is not cut, and nothing stands before it that may be the
    thoughts of a model.
    """
    line = ranking.start - len(ranking.before)
    begins = LABELLED.fullmatch(text, 0, ranking.start) or (
        ranking.begins and not text[:line].strip()
    )
    cut = not ranking.closed and not text[ranking.end :].strip()
    return bool(len(ranking.order) == size and begins and not cut)


def _lenient(text: str, size: int, identifiers: str) -> Parsed:
    names = ANYWHERE[identifiers].findall(text)
    positions = [place(name, size) for name in names]
    order = distinct(positions)
    state = "ok" if len(order) == len(names) == size else "repaired"
    return Parsed(_completed(order, size), state)


def _completed(order: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The order, and in input order what it lacks."""
    return order + tuple(sorted(set(range(size)).difference(order)))
