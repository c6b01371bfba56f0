"""Records are read back as they were written, and what is no such record is refused."""

import json
import math

import pytest

from rdx import facts
from rdx.facts import Count, FactsError, Manifest, Means, Moves, States


def test_a_record_is_read_back_as_it_was_written():
    record = Manifest(stage="teach", signature="ab", signed=[1, {"k": None}], files={}, seconds=0.5)
    assert facts.parse(Manifest, facts.dump(record)) == record


def test_numbers_that_are_not_finite_are_read_back():
    means = Means(corpora=("a", "b"), left_out={}, arithmetic={"x": math.inf}, geometric={})
    assert facts.parse(Means, facts.dump(means)) == means


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"n": 1, "of": 2}),
        json.dumps({"version": facts.VERSION + 1, "n": 1, "of": 2}),
        json.dumps({"version": facts.VERSION, "n": 1}),
        json.dumps({"version": facts.VERSION, "n": "many", "of": 2}),
    ],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(FactsError):
        facts.parse(Count, text)


def test_keys_of_a_newer_field_are_left_alone():
    text = json.dumps({"version": facts.VERSION, "n": 1, "of": 2, "later": 3})
    assert facts.parse(Count, text) == Count(1, 2)


def test_numbers_of_nested_records_by_their_path():
    states = States(total=2, counts={"ok": 2}, shares={"ok": 1.0}, left_out=0)
    assert facts.numbers(states) == {"total": 2, "counts/ok": 2, "shares/ok": 1.0, "left_out": 0}
    moves = Moves(
        lists=1, shift=2.0, shift_at_random=None, kendall_tau=None, rbo=0.5, unchanged=0.0
    )
    assert facts.numbers(moves) == {"lists": 1, "shift": 2.0, "rbo": 0.5, "unchanged": 0.0}


def test_the_share_of_nothing_is_0():
    assert Count(0, 0).share == 0.0
    assert Count(1, 4).share == 0.25
