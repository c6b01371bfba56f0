"""What re-ranking costs, out of timed trials: numbers, ratios, the table, the published ones."""

from dataclasses import replace

import numpy as np
import pytest

from analysis import replication
from analysis.costs import costs, ratio
from analysis.costs import table as costs_table
from analysis.figures import inputs, sketches
from analysis.spec import BYTES, SECONDS, Expected
from rdx.facts import Peak
from tests.analysis.facts import HARDWARE, timing


def timed(seconds, cuda=None, **hardware):
    """What a trial stores of single queries."""
    return timing(
        {q: tuple(times) for q, times in seconds.items()},
        peak_memory=Peak(rss=4 * 10**9, cuda=cuda),
        hardware=replace(HARDWARE, **hardware),
    )


@pytest.fixture
def measured(table):
    """The synthetic table, RankNet timed with two seeds and ADR-MSE with one, on 2019 alone."""
    facts = {key: replace(trial, timing={}) for key, trial in table.trials.facts.items()}
    a, b = table.signatures["RankNet"]
    c = table.signatures["ADR-MSE"][0]
    times = {
        a: timed({"p": [9, 1, 2], "q": [4]}, 10**9),  # medians 2 and 4
        b: timed({"q": [6], "p": [4], "r": [1]}, 3 * 10**9),  # of r the other seed knows nothing
        c: timed({"p": [6], "q": [2], "r": [5]}, 10**9),
    }
    for key, times_of in times.items():
        facts[key].timing["trec-dl-2019"] = times_of
    summary = replace(table, trials=replace(table.trials, facts=facts))
    found = costs(summary.spec.rows, summary.signatures, summary.collections, facts)
    return replace(summary, costs=found)


def test_costs_are_medians_over_repetitions_and_means_over_seeds(measured):
    found = measured.costs["RankNet", "trec-dl-2019", SECONDS]
    assert found.queries == ("p", "q") and found.values.tolist() == [[2, 4], [4, 6]]
    assert found.mean == 4 and found.seeds == (1, 2)
    memory = measured.costs["RankNet", "trec-dl-2019", BYTES]
    assert memory.mean == 2e9 and memory.seeds == (1, 2)
    assert {key[:2] for key in measured.costs} == {
        ("RankNet", "trec-dl-2019"), ("ADR-MSE", "trec-dl-2019"),
    }  # fmt: skip


def test_a_ratio_is_that_of_the_means_and_its_interval_the_bootstraps():
    assert ratio([4, 3], [2, 1]) == pytest.approx((7 / 3, 2, 3))  # the possible draws: 2, 7/3, 3
    assert ratio([3], [2]) == (1.5, 1.5, 1.5)
    random = np.random.default_rng(0)
    b = random.lognormal(0, 0.3, 40)
    a = 2 * b * random.lognormal(0, 0.1, 40)
    value, low, high = ratio(a, b, draws=2000)
    places = np.random.default_rng(0).integers(0, 40, (2000, 40))
    naive = sorted(sum(a[i] for i in one) / sum(b[i] for i in one) for one in places)
    assert value == pytest.approx(a.mean() / b.mean()) and low < value < high
    assert (low, high) == pytest.approx(np.quantile(naive, [0.025, 0.975]))
    assert ratio(a, b, level=0.5)[2] < high and ratio(a, b, seed=1) != ratio(a, b)
    for wrong in (([], []), ([1, 2], [1])):
        with pytest.raises(ValueError, match="two arrays of shape"):
            ratio(*wrong)


def test_it_is_the_ratio_of_evaluate_efficiency():
    from rdx.evaluation import ratio as by_query

    a, b = {"p": [4.0, 5.0], "q": [3.0]}, {"p": [2.0], "q": [1.0, 1.5]}
    assert by_query(a, b) == pytest.approx(ratio([4.5, 3.0], [2.0, 1.25]))


def cells_of(table):
    return {row[0].text: [entry.text for entry in row] for row in table.rows}


def test_the_table_gives_costs_and_ratios(measured):
    table = costs_table(measured)
    rows = cells_of(table)
    assert list(rows) == ["RankNet", "ADR-MSE"]  # in the order of the spec
    assert rows["RankNet"][2:6] == ["4", "4", "4.9", "2"] and rows["RankNet"][7] == "2.00"
    assert rows["RankNet"][9:] == ["–"] * 3  # it is the unit
    # of p and q, which both have: 6 + 2 to 3 + 5
    assert rows["ADR-MSE"][9] == "1.00" and rows["ADR-MSE"][11] == "0.50"
    low, high = (float(x) for x in rows["ADR-MSE"][10].strip("[]").split(", "))
    assert (low, high) == (0.4, 2.0)
    said = " ".join(table.notes)
    assert "device CPU, cpu x86, cores 2" in said and "that of the GPU" in said


def test_another_machine_gives_no_ratio(measured):
    key = measured.signatures["ADR-MSE"][0]
    measured.trials.facts[key].timing["trec-dl-2019"] = timed({"p": [6]}, device="H200")
    table = costs_table(measured)
    assert cells_of(table)["ADR-MSE"][9:] == ["–"] * 3
    assert any(
        note.startswith("Measured on device H200") and "ADR-MSE" in note for note in table.notes
    )


def test_without_a_timed_trial_there_is_no_table_and_no_figure(table):
    whole = replace(timing({}), single=None)  # of a collection, not of single queries
    facts = {
        key: replace(trial, timing={"trec-dl-2019": whole})
        for key, trial in table.trials.facts.items()
    }
    found = costs(table.spec.rows, table.signatures, table.collections, facts)
    summary = replace(table, costs=found)
    assert found == {} and costs_table(summary) is None
    assert inputs.costs(summary) == ([], "")


def test_the_figure_fills(measured):
    systems, hardware = inputs.costs(measured)
    assert [(one.name, one.x) for one in systems] == [("RankNet", 4.0), ("ADR-MSE", 13 / 3)]
    assert hardware == "CPU" and "efficiency" in sketches(measured)


def test_published_costs_are_judged_without_the_noise_of_scores(measured):
    expected = (
        Expected("RankNet", "trec-dl-2019", SECONDS, 4.0004, "notebook", None),
        Expected("RankNet", "trec-dl-2019", BYTES, 2_000_000_000, "notebook", None),
        Expected("ADR-MSE", "trec-dl-2019", BYTES, 2_000_000_000, "notebook", None),
        Expected("Stage 1 only", "trec-dl-2019", SECONDS, 1.0, "notebook", None),
    )
    summary = replace(measured, spec=replace(measured.spec, expected=expected))
    rows = [[entry.text for entry in row] for row in replication.table(summary).rows]
    assert [row[2] for row in rows] == ["differs", "reproduced", "differs", "not run"]
    assert rows[0][3:6] == ["4.0004", "4.0000", "−0.00040"]
    assert rows[2][3:6] == ["2.000", "1.000", "−1.000"] and rows[2][1] == "trec-dl-2019 GB at peak"
    assert not any(
        note.startswith("SD over training runs") for note in replication.table(summary).notes
    )
