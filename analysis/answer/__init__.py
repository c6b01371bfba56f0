"""The answer to a spec's question, by rules from its tests: records first, then sentences.

What a spec asks is, in this order, its `factors`, its `comparisons`, its rows against the
`baseline`, and all pairs; equivalence shown is a finding as well. What was not shown is named with
the interval that remains, and never called equal.
"""

from analysis.answer.records import (
    Answer,
    Asked,
    Difference,
    Effect,
    Levels,
    Reason,
    Unanswered,
)
from analysis.answer.rules import FEWEST, answer
from analysis.answer.words import Kind, Sentence, sentences

__all__ = [
    "FEWEST",
    "Answer",
    "Asked",
    "Difference",
    "Effect",
    "Kind",
    "Levels",
    "Reason",
    "Sentence",
    "Unanswered",
    "answer",
    "sentences",
]
