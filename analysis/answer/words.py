"""Answer -> three sentences at most: what was found, what was not, and what limits both."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from analysis.answer.records import Answer, Asked, Difference, Effect, Levels, Reason
from analysis.power import POWER
from analysis.render.entry import fixed
from rdx.text import counted

NAMED = 3  # of what was found, or not; the rest is counted
Record = TypeVar("Record", Difference, Effect)


class Kind(StrEnum):
    """What a sentence tells."""

    FOUND = "Found"
    OPEN = "Not shown"
    LIMITS = "Limits"


@dataclass(frozen=True)
class Sentence:
    """A sentence of the answer, without capital and full stop."""

    kind: Kind
    text: str

    @property
    def shown(self) -> str:
        """By itself, as a sentence."""
        return f"{self.text[0].upper()}{self.text[1:]}."

    def __str__(self) -> str:
        """After what it tells."""
        return f"{self.kind}: {self.text}."


def sentences(answer: Answer) -> tuple[Sentence, ...]:
    """The answer in words; the first sentence stands by itself."""
    texts = {Kind.FOUND: _found(answer), Kind.OPEN: _open(answer), Kind.LIMITS: _limits(answer)}
    return tuple(Sentence(kind, text) for kind, text in texts.items() if text)


# --- what was found ---


def _found(answer: Answer) -> str:
    asked = _asked(answer)
    where = f"in {answer.measure}{_on(answer.collections)}"
    if not asked:
        best = f"; the best row is {answer.best[0]}, {fixed(answer.best[1])}" if answer.best else ""
        what = "no test counts (see the limits)" if answer.unanswered else "nothing is compared"
        return f"{where}, {what}{best}"
    first, *others = asked
    parts = [_effects(answer) if first is Asked.FACTORS else _differences(answer, first)]
    parts += [_briefly(answer, other, answer.measure) for other in others]
    if first is not Asked.FACTORS:
        parts += [_briefly(answer, first, measure) for measure in answer.measures[1:]]
    parts.append(_equivalences(answer))
    choices = [e.of_choice for e in answer.effects] + [d.of_choice for d in answer.differences]
    if not any(choices):
        parts.append("of these models, not of other training runs" if answer.single else "")
    return f"{where}, " + "; ".join(part for part in parts if part)


def _asked(answer: Answer) -> list[Asked]:
    """The parts of the spec that tests answer, in the order of the enumeration."""
    asked = [Asked.FACTORS] * bool(answer.effects)
    return asked + [one for one in Asked if answer.of(one, answer.measure)]


def _on(collections: Sequence[str]) -> str:
    return f" on {collections[0]}" if len(collections) == 1 else ""


def _effects(answer: Answer) -> str:
    shown = [effect for effect in answer.effects if effect.shown]
    groups = _grouped(shown, lambda e: e.term, lambda e: e.omega)
    head = _share(len(shown), len(answer.effects), "effect", "is significant", "are significant")
    text = head + _tests(answer, answer.effects) + _listed(groups, answer, _effect)
    joint = any(len(effect.term) > 1 for effect in shown)
    return text + ("; the factors of an interaction are to be read together" if joint else "")


def _differences(answer: Answer, asked: Asked) -> str:
    tests = answer.of(asked, answer.measure)
    shown = [test for test in tests if test.differs]
    groups = _grouped(shown, lambda d: (d.first, d.second), lambda d: abs(d.difference))
    verbs = ("differs", "differ")
    head = _share(len(shown), len(tests), NOUNS[asked], *verbs)
    head += _unjudged(answer, asked, answer.measure) + _tests(answer, tests)
    return head + _listed(groups, answer, _difference)


NOUNS = {
    Asked.COMPARISONS: "declared comparison",
    Asked.BASELINE: "comparison with a baseline",
    Asked.PAIRS: "pair",
}
PLURALS = {NOUNS[Asked.BASELINE]: "comparisons with a baseline"}


def _share(shown: int, of: int, noun: str, one: str, many: str) -> str:
    """How many of some tests showed something."""
    total = f"{of:,} {PLURALS[noun]}" if noun in PLURALS and of > 1 else counted(of, noun)
    if not shown:
        return f"none of {total} {one}" if of > 1 else f"1 {noun} is not significant"
    if of == 1:
        return f"1 {noun} {one}"
    return f"{shown:,} of {total} {one if shown == 1 else many}"


def _unjudged(answer: Answer, asked: Asked, measure: str) -> str:
    """How many further tests were asked for and do not count."""
    count = sum((each.asked, each.measure) == (asked, measure) for each in answer.unanswered)
    return f", {count:,} more cannot be judged" if count else ""


def _tests(answer: Answer, tests: Sequence[Difference] | Sequence[Effect]) -> str:
    sizes = sorted({test.family for test in tests})
    over = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f" ({answer.correction} over {over} {'test' if sizes == [1] else 'tests'})"


def _briefly(answer: Answer, asked: Asked, measure: str) -> str:
    """How many of further tests differ, and the largest difference."""
    tests = answer.of(asked, measure)
    shown = [test for test in tests if test.differs]
    if not tests:
        return ""
    head = f"in {measure}, " if measure != answer.measure else ""
    head += _share(len(shown), len(tests), NOUNS[asked], "differs", "differ")
    head += _unjudged(answer, asked, measure)
    if not shown:
        return head
    largest = max(shown, key=lambda d: abs(d.difference))
    lead = ":" if len(shown) == 1 else ", the largest:"
    return f"{head}{lead} {_difference(answer, [largest])}"


def _equivalences(answer: Answer) -> str:
    same = [d for d in answer.differences if d.equivalent and d.measure == answer.measure]
    if not same or answer.margin is None:
        return ""
    groups = _grouped(same, lambda d: (d.first, d.second), lambda d: -abs(d.difference))
    return f"equivalent within ±{answer.margin:g}" + _listed(groups, answer, _equivalence)


# --- what was not ---


def _open(answer: Answer) -> str:
    """What was not shown, and how large it may be all the same."""
    asked = _asked(answer)
    if not asked:
        return ""
    parts = []
    hidden = [effect for effect in answer.effects if not effect.shown]
    if hidden:
        groups = _grouped(hidden, lambda e: e.term, lambda e: e.high)
        parts.append(f"{len(hidden)} of {len(answer.effects)}{_listed(groups, answer, _effect)}")
    rest = [one for one in asked if one is not Asked.FACTORS]
    tests = answer.of(rest[0], answer.measure) if rest else ()
    unclear = [test for test in tests if test.open]
    if unclear and asked[0] is not Asked.FACTORS:
        pairs = _grouped(unclear, lambda d: (d.first, d.second), _furthest)
        parts.append(f"{len(unclear)} of {len(tests)}{_listed(pairs, answer, _difference)}")
    power = _power(unclear or tests)
    return "; ".join([*parts, power] if power else parts)


def _furthest(test: Difference) -> float:
    """The largest size that the interval allows."""
    ends = [abs(end) for end in (test.low, test.high) if end == end]
    return max(ends, default=abs(test.difference))


def _power(tests: Sequence[Difference]) -> str:
    """The smallest difference that the tests find, on their own variance."""
    sizes = sorted(test.detectable for test in tests if test.detectable == test.detectable)
    if not sizes:
        return ""
    low, high = fixed(sizes[0]), fixed(sizes[-1])
    size = low if low == high else f"{low} to {high}, depending on the rows,"
    return f"with probability {POWER:g} a test finds a true difference of {size} or more"


# --- what limits both ---


def _limits(answer: Answer) -> str:
    parts = []
    if answer.missing:
        parts.append(f"{answer.missing} of {counted(answer.cells, 'cell')} not run")
    if answer.single and (answer.differences or answer.effects):
        parts.append(
            "one training run of every row: tests are about these models, not about their choices"
            if answer.every_single
            else f"one training run only ({_some(answer.single)})"
        )
    by_reason: dict[Reason, dict[str, None]] = {}
    for each in answer.unanswered:
        name = each.because or " − ".join(each.about)
        if each.reason in (Reason.UNFIT, Reason.FEW):
            name = f"{each.collection} ({each.because})" if each.because else each.collection
        if each.asked is Asked.FACTORS:
            name = "effects of " + ", ".join(each.about)
            name += f" ({each.because})" if each.because else ""
        by_reason.setdefault(each.reason, {})[name] = None
    parts += [f"not judged, {reason} ({_some(names)})" for reason, names in by_reason.items()]
    return "; ".join(parts)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return "; ".join(listed[:NAMED]) + more


# --- pieces ---


def _grouped(
    records: Sequence[Record],
    key: Callable[[Record], Hashable],
    size: Callable[[Record], float],
) -> list[list[Record]]:
    """Records of one thing in several collections together, each and all largest first."""
    groups: dict[Hashable, list[Record]] = {}
    for record in sorted(records, key=size, reverse=True):
        groups.setdefault(key(record), []).append(record)
    return list(groups.values())


def _listed(
    groups: Sequence[list[Record]],
    answer: Answer,
    words: Callable[[Answer, Sequence[Record]], str],
) -> str:
    """The first few of some groups, and how many there are beside them."""
    if not groups:
        return ""
    more = len(groups) - NAMED
    named: list[str] = [words(answer, group) for group in groups[:NAMED]]
    rest = [f"and {more} more"] if more > 0 else []
    return ": " + "; ".join(named + rest)


def _where(answer: Answer, records: Sequence[Record]) -> str:
    """In how many collections; the numbers that follow are of the first."""
    if len(answer.collections) == 1:
        return ""
    if len(records) == 1:
        return f" in {records[0].collection}"
    return (
        f" in {len(records)} of {len(answer.collections)} collections, in {records[0].collection}"
    )


def _difference(answer: Answer, group: Sequence[Difference]) -> str:
    test = group[0]
    text = f"{test.first} − {test.second}{_where(answer, group)}: {_size(test)}, {_p(test.p)}"
    other = next((d for d in group if (d.difference > 0) != (test.difference > 0)), None)
    return text + (f", but in {other.collection} {_size(other)}" if other else "")


def _equivalence(answer: Answer, group: Sequence[Difference]) -> str:
    test = group[0]
    text = f"{test.first} − {test.second}{_where(answer, group)}: {_size(test)}"
    return f"{text}, {_p(test.p_equivalence)} of equivalence"


def _effect(answer: Answer, group: Sequence[Effect]) -> str:
    effect = group[0]
    text = f"{' × '.join(effect.term)}{_where(answer, group)}: ω² {fixed(effect.omega)} "
    text += f"[{fixed(effect.low)}, {fixed(effect.high)}], {_p(effect.p)}"
    told = effect.levels and (effect.shown or len(effect.term) == 1)
    return f"{text} ({_levels(effect.levels)})" if told else text


def _levels(levels: Sequence[Levels]) -> str:
    first = levels[0]
    sizes = [f"{_size(one)}{f' at {one.at}' if one.at else ''}" for one in levels]
    return f"{first.first} minus {first.second}: {', '.join(sizes)}"


def _size(test: Difference | Levels) -> str:
    """A difference with its interval, as in the tables."""
    size = fixed(test.difference, sign=True)
    if test.low != test.low:
        return size
    return f"{size} [{fixed(test.low, sign=True)}, {fixed(test.high, sign=True)}]"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p {fixed(value)}"
