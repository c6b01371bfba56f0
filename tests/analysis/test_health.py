"""Which rows rest on runs that went wrong: where all score badly, bad scores tell nothing."""

from dataclasses import replace

import numpy as np
import pytest

from analysis import footer, tables
from analysis.contrasts import run_tests
from analysis.health import sound, states

TRAINED = ("Stage 1 only", "RankNet", "ADR-MSE", "LambdaRank <&> co, a rather long name",
           "RankNet, shuffled teacher")  # fmt: skip
BELOW = "below_first_stage"


def with_health(summary, health):
    """The summary with health states of rows, those of all others well."""
    facts = dict(summary.trials.facts)
    for row in summary.spec.rows:
        for signature in summary.signatures[row.name]:
            if row.trained:
                state = health.get(row.name, "ok")
                facts[signature] = replace(facts[signature], health=state)
    return replace(summary, trials=replace(summary.trials, facts=facts))


def trained(summary):
    return {row.name for row in summary.spec.rows if row.trained and row.name in summary.sound}


def test_a_bad_row_among_good_ones_is_set_aside(table):
    summary = with_health(table, {"RankNet": BELOW, "ADR-MSE": "constant_scores"})
    assert trained(summary) == {*TRAINED} - {"RankNet", "ADR-MSE"}
    row = summary.spec.row("RankNet")
    assert footer.unhealthy(summary, row) == {BELOW: ["1", "2"]}
    assert states(row, summary.signatures["RankNet"], summary.trials.facts) == {BELOW: ["1", "2"]}


def test_where_no_row_is_well_those_that_learned_are_sound(table):
    bad = dict.fromkeys(TRAINED, BELOW) | {"Stage 1 only": "below_start"}
    assert trained(with_health(table, bad)) == {*TRAINED}
    summary = with_health(table, bad | {"ADR-MSE": "weights_unchanged"})
    assert trained(summary) == {*TRAINED} - {"ADR-MSE"}
    assert [row.name for row in summary.spec.rows if footer.unhealthy(summary, row)] == ["ADR-MSE"]
    marked = [entry[0].text for entry in tables.main_table(summary).rows if entry[0].alarm]
    assert marked == ["ADR-MSE"]


def test_a_row_without_trials_is_no_row_that_is_well(table):
    summary = with_health(table, dict.fromkeys(TRAINED, BELOW))
    signatures = {**summary.signatures, "RankNet": ()}
    found = sound(summary.spec.rows, signatures, summary.trials.facts)
    assert {*TRAINED} <= found


def test_the_runs_of_rows_below_a_strong_first_stage_are_pooled_as_those_of_good_ones(table):
    places = [(place, "nDCG@10") for place in table.collections]

    def errors(summary):
        tests = run_tests(summary.spec, places, summary.scores, summary.sound)
        return np.array([test.error for test in tests.comparisons])

    well, below = with_health(table, {}), with_health(table, dict.fromkeys(TRAINED, BELOW))
    assert errors(below) == pytest.approx(errors(well))
    mixed = with_health(table, dict.fromkeys(TRAINED[1:], BELOW))
    assert errors(mixed) != pytest.approx(errors(well))  # of the two rows alone
