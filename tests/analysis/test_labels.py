"""What students learned from beside what they became: means over trials, correlations."""

from dataclasses import replace

import pytest
from scipy.stats import spearmanr

from analysis import labels, report
from analysis.figures import inputs, sketches
from rdx.facts import (
    Agreement,
    Audit,
    Bias,
    CheckpointFacts,
    Effectiveness,
    LabelEffectiveness,
    Moves,
    PositionBias,
    Slope,
    States,
)

ROWS = ("Stage 1 only", "RankNet", "ADR-MSE")


def audit(quality, tau=0.5, left_out=0, **more):
    """An audit of eight lists whose labels have some quality."""
    states = States(total=8, counts={}, shares={}, left_out=left_out)
    moves = Moves(lists=8, shift=0, shift_at_random=0, kendall_tau=tau, rbo=0, unchanged=0)
    measured = Effectiveness(queries=8, teacher=quality, input=0.4, oracle=0.9, judged_at_10=1)
    everything = replace(measured, teacher=0.1)  # of all lists, unused ones too: not what is shown
    effectiveness = LabelEffectiveness(measure="nDCG@10", usable=measured, all=everything)
    return Audit(lists=states, moves=moves, effectiveness=effectiveness, **more)


def with_audits(summary, audits):
    """The summary, the labels of its rows audited: row -> an audit for each trial."""
    facts = dict(summary.trials.facts)
    for row, own in audits.items():
        for signature, one in zip(summary.signatures[row], own, strict=True):
            facts[signature] = replace(facts[signature], checkpoint=CheckpointFacts(audit=one))
    return replace(summary, trials=replace(summary.trials, facts=facts))


def columns(table):
    """Row -> head -> the number below it."""
    heads = [f"{column.group} {column.name}".strip() for column in table.columns[1:]]
    return {
        name.text: dict(zip(heads, (entry.value for entry in entries), strict=True))
        for name, *entries in table.rows
    }


def test_audits_stand_as_means_over_trials_beside_the_students_scores(table):
    summary = with_audits(
        table, {"RankNet": [audit(0.6, 0.2, 2), audit(0.7, 0.4)], "ADR-MSE": [audit(0.5)] * 2}
    )
    found = columns(labels.table(summary))
    assert list(found) == ["RankNet", "ADR-MSE"]  # the others learned from no audited labels
    ranknet = found["RankNet"]
    assert ranknet["Lists used"] == pytest.approx((0.75 + 1) / 2)
    assert ranknet["Labels"] == pytest.approx(0.65) and ranknet["Input"] == pytest.approx(0.4)
    assert ranknet["τ"] == pytest.approx(0.3)
    assert not {"Position bias", "Agreement"} & set(ranknet)  # nobody knows it
    for place in table.collections:
        expected = table.scores["RankNet", place, "nDCG@10"].mean
        assert ranknet[f"student {place}"] == pytest.approx(expected)


def test_bias_and_agreement_have_columns_where_an_audit_knows_them(table):
    def bias(mean):
        slope = Slope(mean=mean, low=None, high=None, queries=8)
        return Bias(windows=8, size=20, mean_rank=(), excess=(), slope=slope)

    known = audit(
        0.6,
        position_bias=PositionBias(
            all=bias(0.9), shuffled=bias(0.3)
        ),  # the second is the clean one
        agreement=Agreement(lists=8, p=0.9, rbo=None, kendall_tau=0.8, shared=None),
    )
    only_all = audit(0.6, position_bias=PositionBias(all=bias(0.9), shuffled=None))
    summary = with_audits(table, {"RankNet": [known] * 2, "ADR-MSE": [audit(0.5), only_all]})
    found = columns(labels.table(summary))
    assert found["RankNet"]["Position bias"] == pytest.approx(0.3)
    assert found["RankNet"]["Agreement"] == pytest.approx(0.8)
    assert found["ADR-MSE"]["Position bias"] is None  # of one of two trials: no mean


@pytest.mark.parametrize("audits", [
    {},
    {"RankNet": [audit(0.6)] * 2},
    {"RankNet": [audit(0.6)] * 2, "ADR-MSE": [audit(0.6, 0.1)] * 2},  # equal quality
    {row: [replace(audit(0.6), effectiveness=None)] * 2 for row in ROWS},
])  # fmt: skip
def test_without_a_difference_in_quality_there_is_no_table(table, audits):
    summary = with_audits(table, audits)
    assert labels.table(summary) is None
    assert not any(one.label.endswith("-labels") for one in report.tables_of(summary))


def test_the_correlation_is_spearmans_over_rows(table):
    quality = dict(zip(ROWS, (0.7, 0.6, 0.5), strict=True))
    summary = with_audits(table, {row: [audit(q)] * 2 for row, q in quality.items()})
    made = labels.table(summary)
    assert made in report.tables_of(summary)
    for place in table.collections:
        means = [table.scores[row, place, "nDCG@10"].mean for row in ROWS]
        rho = float(spearmanr(list(quality.values()), means).statistic)
        assert f"{place} {rho:+.2f} (3 rows)" in made.notes[1]
    two = with_audits(table, {row: [audit(quality[row])] * 2 for row in ROWS[1:]})
    assert len(labels.table(two).notes) == 1  # of two rows it would be 1 or -1, whatever they are


def test_the_figure_has_the_rows_at_their_labels_quality(table):
    quality = dict(zip(ROWS, (0.7, 0.6, 0.5), strict=True))
    summary = with_audits(table, {row: [audit(q)] * 2 for row, q in quality.items()})
    for place, systems in inputs.labels(summary).items():
        assert {one.name: one.x for one in systems} == pytest.approx(quality)
        for one in systems:
            assert one.score == pytest.approx(summary.scores[one.name, place, "nDCG@10"].mean)
    drawn = sketches(summary)
    assert {name for name in drawn if name.startswith("labels")} == {
        f"labels-{place}" for place in table.collections
    }
    assert drawn[f"labels-{table.collections[0]}"].draw().axes[0].get_xscale() == "linear"
    assert not [name for name in sketches(table) if name.startswith("labels")]
