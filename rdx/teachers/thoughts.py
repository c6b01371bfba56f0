"""What a model thinks aloud, told apart from its answer."""

from __future__ import annotations

import re

# Marks: <think>, </think>, <think effort="high">, <|begin_of_thought|>, ◁think▷, [THINK].
_MARK = re.compile(
    r"<\|(?P<special>[^|<>\n]{1,40})\|>"
    r"|<(?P<tag>/?[A-Za-z][\w:.-]{0,40})(?:\s[^<>\n]{0,200})?(?P<empty>/?)>"
    r"|◁(?P<triangle>[^◁▷\n]{1,40})▷"
    r"|\[(?P<square>/?[A-Z]{4,20})\]"
)
# How families of models name their thoughts; unused94 and 95 are MedGemma's, inner_* Apertus'.
_THOUGHT = re.compile(
    r"th(?:ink|ought)|reason|reflect|analys|scratch|monologue|\bcot|inner_|^/?unused9[45]$",
    re.IGNORECASE,
)
_CLOSES = re.compile(r"^/|(?:^|[_ ])(?:end|stop|close|suffix)(?:[_ ]|$)|^unused95$", re.IGNORECASE)
# Tags that hold or format an answer. Any other tag may hold thoughts, and is taken to.
_ANSWER = frozenset(
    "a b big blockquote body br center code div em font h1 h2 h3 h4 h5 h6 hr html i li mark ol p "
    "pre q s small span strong sub sup table tbody td th tr tt u ul "
    "answer final final_answer list order output permutation rank ranked ranking rankings response "
    "result results solution bos eos eot pad unk end_of_turn start_of_turn end_of_text".split()
)
# gpt-oss: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
_CHANNEL = re.compile(r"<\|channel\|>(\w*)(?:(?!<\|channel\|>)[^\n]){0,80}?<\|message\|>")
_HARMONY = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>"))
# ... and where a server drops these marks.
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[^\s:a-z])")
_BARE_FINAL = "assistantfinal"


def without_thoughts(text: str) -> str:
    """The answer of a text: nothing of what a mark encloses, opens without end, or closes.

    What names itself a thought, and any tag that is not known to hold an answer, encloses
    thoughts. A closing mark without an opening one ends a thought that began before the text, an
    opening one without a closing one begins a thought that was cut off.

    Examples
    --------
    >>> without_thoughts("<think>[1] > [2]?</think>[2] > [1]")
    '[2] > [1]'
    >>> without_thoughts("Is it [1] > [2]?</think>[2] > [1]<think>or")
    '[2] > [1]'
    """
    answer = "\n".join(_parts(text)[0])
    return _MARK.sub(lambda mark: mark[0] if mark["square"] else " ", answer)


def ends_in_thought(text: str) -> bool:
    """Whether a text breaks off in a thought, so that what is before it need not be all."""
    return _parts(text)[1]


def thinking_tokens(text: str, thoughts: str, output_tokens: int) -> int:
    """Of the tokens of an answer, those of thoughts, in or beside the text: by characters."""
    total = len(text) + len(thoughts)
    thought = total - sum(map(len, _parts(text)[0]))
    return round(output_tokens * thought / total) if total else 0


def marks_thoughts(token: str) -> bool:
    """Whether a special token must stay in the text, because it tells thoughts from the answer."""
    mark = _MARK.fullmatch(token)
    return token in _HARMONY or (mark is not None and _read(mark)[0] == "thought")


def left_open(prompt: str) -> str:
    """The mark at the end of a prompt that makes the answer begin within a thought, or ""."""
    mark = re.search(r"[<\[◁][^<\[◁]{1,60}$", prompt.rstrip())
    if mark is None or not (match := _MARK.fullmatch(mark[0])):
        return ""
    kind, closes = _read(match)
    return mark[0] if kind == "thought" and not closes else ""


def _parts(text: str) -> tuple[list[str], bool]:
    """What of a text is no thought, in order; and whether a thought is open at its end."""
    text = _final_channel(text)
    parts: list[str] = []
    start, within = 0, ""  # the kind of mark that is open
    for mark in _MARK.finditer(text):
        kind, closes = _read(mark)
        if within and not (closes and kind in (within, "thought")) or not kind:
            continue
        if not within:
            parts.append(text[start : mark.start()])
        if closes and kind != within:  # opened before the text: all before it was thought
            parts.clear()
        start, within = mark.end(), "" if closes else kind
    if not within:
        parts.append(text[start:])
    return [part for part in parts if part], bool(within)


def _read(mark: re.Match[str]) -> tuple[str, bool]:
    """Kind of a mark ("" if it has to do with no thought), and whether it closes."""
    name = mark["special"] or mark["tag"] or mark["triangle"] or mark["square"]
    closes = bool(_CLOSES.search(name))
    if _THOUGHT.search(name):
        return "thought", closes
    if mark["special"] or mark["square"] or mark["empty"]:
        return "", False
    plain = name.removeprefix("/").lower()
    return ("" if plain in _ANSWER else plain), closes


def _final_channel(text: str) -> str:
    if "<|channel|>" in text:
        channels = [(m[1], m.end()) for m in _CHANNEL.finditer(text)]
        finals = [end for name, end in channels if name == "final"]
        return text[finals[-1] :].partition("<|")[0] if finals else ""
    if _BARE_CHANNEL.match(text):
        _, final, answer = text.rpartition(_BARE_FINAL)
        return answer if final else ""
    return text
