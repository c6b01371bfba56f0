import dataclasses
import math

import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.comparability import ComparabilityError
from analysis.significance import bca_interval, equivalence, non_inferiority
from analysis.spec import parse
from analysis.summary import summarise
from analysis.trials import Trials
from tests.analysis import facts as records

# Four queries. Student A has two seeds, student B one; the teacher saw two queries.
FIRST = {"q1": 0.1, "q2": 0.2, "q3": 0.3, "q4": 0.4}
ORACLE = {"q1": 0.9, "q2": 0.9, "q3": 1.0, "q4": 1.0}
TEACHER = {"q2": 0.5, "q4": 0.3}
A1 = {"q1": 0.2, "q2": 0.4, "q3": 0.5, "q4": 0.5}
A2 = {"q1": 0.4, "q2": 0.4, "q3": 0.3, "q4": 0.9}
B1 = {"q1": 0.1, "q2": 0.3, "q3": 0.1, "q4": 0.5}
REFERENCES = {"first_stage": FIRST, "oracle": ORACLE, "teacher": TEACHER}

SPEC = {
    "name": "x",
    "claim": "A beats the first stage.",
    "grid": {"a": [], "b": []},
    "measures": ["nDCG@10"],
    "baseline": "First",
    "rows": [
        {"name": "First", "system": "first_stage"},
        {"name": "Teacher", "system": "teacher", "grid": ["a", "b"]},
        {"name": "Oracle", "system": "oracle"},
        {"name": "A", "grid": "a"},
        {"name": "B", "grid": "b"},
    ],
    "comparisons": [["A", "B"]],
}


def trial(grid, seed, overrides, systems, collection="c", digest="d", measure="nDCG@10", **facts):
    """One cell, its facts and its part of the frame."""
    signature = f"{grid}{seed}"
    cell = records.cell((*overrides, f"seed={seed}"), grid, signature)
    if systems is None:
        return cell, None, None
    lines = [
        (grid, signature, seed, collection, system, query, measure, value)
        for system, values in systems.items()
        for query, value in values.items()
    ]
    columns = ["grid", "signature", "seed"]
    columns += ["collection", "system", "query_id", "measure", "value"]
    here = {collection: records.collection(digest=digest)}
    return cell, records.trial(signature, seed, here, **facts), pd.DataFrame(lines, columns=columns)


def trials(*parts):
    finished = [part for part in parts if part[1] is not None]
    frames = [part[2] for part in finished]
    return Trials(
        frame=pd.concat(frames, ignore_index=True),
        cells=tuple(part[0] for part in parts),
        missing=tuple(part[0] for part in parts if part[1] is None),
        facts={part[0].signature: part[1] for part in finished},
        runs={},
    )


def student(values):
    return {**REFERENCES, "student": values}


def example(b=B1):
    return trials(
        trial("a", 1, ["loss=ranknet"], student(A1)),
        trial("a", 2, ["loss=ranknet"], student(A2)),
        trial("b", 1, ["loss=adr_mse"], None if b is None else student(b)),
    )


def place(row):
    return (row, "c", "nDCG@10")


def test_means_average_seeds_then_queries():
    summary = summarise(parse(SPEC), example())
    a = summary.scores[place("A")]
    assert a.queries == ("q1", "q2", "q3", "q4")
    assert a.per_query == pytest.approx([0.3, 0.4, 0.4, 0.7])
    assert a.mean == pytest.approx(0.45)
    assert a.seed_means == pytest.approx([0.4, 0.5])
    assert a.seeds == (1, 2)
    assert summary.scores[place("B")].seeds == (1,)
    first = summary.scores[place("First")]
    assert (first.seeds, first.mean) == ((), pytest.approx(0.25))
    assert summary.scores[place("Teacher")].mean == pytest.approx(0.4)
    assert summary.signatures["A"] == ("a1", "a2")


def test_tests_use_per_query_means_and_common_queries():
    summary = summarise(parse(SPEC), example())
    a = summary.contrasts[place("A")]
    expected = stats.ttest_rel([0.3, 0.4, 0.4, 0.7], list(FIRST.values()))
    assert a.comparison.p == pytest.approx(expected.pvalue)
    assert (a.comparison.n, a.comparison.difference) == (4, pytest.approx(0.2))
    assert a.seed_differences == pytest.approx([0.15, 0.25])
    assert not a.single_seed
    teacher = summary.contrasts[place("Teacher")]  # +.3 on q2, -.1 on q4
    assert (teacher.comparison.n, teacher.comparison.difference) == (2, pytest.approx(0.1))
    assert teacher.baseline_mean == pytest.approx(0.3)
    assert summary.contrasts[place("B")].single_seed
    assert place("Oracle") not in summary.contrasts and place("First") not in summary.contrasts


def test_families():
    summary = summarise(parse(SPEC), example())
    rows = ["Teacher", "A", "B"]
    p = [summary.contrasts[place(row)].comparison.p for row in rows]
    adjusted = multipletests(p, method="holm")[1]
    assert [summary.contrasts[place(row)].p_corrected for row in rows] == pytest.approx(adjusted)
    assert {summary.contrasts[place(row)].family for row in rows} == {3}
    (pair,) = summary.comparisons
    assert (pair.treatment, pair.baseline, pair.family) == ("A", "B", 1)
    assert pair.p_corrected == pair.comparison.p  # a family of its own
    assert pair.comparison.difference == pytest.approx(0.45 - 0.25)
    assert (pair.seeds, pair.single_seed) == (((1, 2), (1,)), True)

    both = trials(
        trial("a", 1, ["x"], student(A1)),
        trial("a", 2, ["x"], student(A1), collection="e"),
        trial("b", 1, ["y"], student(B1)),
    )
    per_collection = summarise(parse(SPEC), both)
    assert {key[1]: c.family for key, c in per_collection.contrasts.items()} == {"c": 3, "e": 2}
    whole = summarise(parse({**SPEC, "family": "all"}), both)
    assert {c.family for c in whole.contrasts.values()} == {5}


def test_missing_cells():
    summary = summarise(parse(SPEC), example(b=None))
    assert place("B") not in summary.scores and place("B") not in summary.contrasts
    assert summary.comparisons == ()
    assert summary.contrasts[place("A")].family == 2  # what was not run is not tested
    nothing = Trials(
        frame=example().frame.iloc[:0], cells=example().cells, missing=(), facts={}, runs={}
    )
    assert summarise(parse(SPEC), nothing).scores == {}


def test_one_query_gives_a_mean_and_no_test():
    one = {name: {"q1": values.get("q1", 0.5)} for name, values in student(A1).items()}
    summary = summarise(parse(SPEC), trials(trial("a", 1, [], one)))
    contrast = summary.contrasts[place("A")]
    assert contrast.comparison.n == 1 and math.isnan(contrast.p_corrected) and contrast.family == 0


def test_other_queries_are_an_error_that_names_them():
    other = {**{q: v for q, v in B1.items() if q != "q3"}, "q9": 0.1}
    with pytest.raises(ComparabilityError, match=r"only in row 'First': q3; only in row 'B': q9"):
        summarise(parse(SPEC), example(b=other))
    seeds = trials(
        trial("a", 1, [], {"student": A1}),
        trial("a", 2, [], {"student": {"q1": 0.1}}),
    )
    with pytest.raises(
        ComparabilityError, match=r"row 'A', c, nDCG@10: trial a1 and trial a2 .*q2"
    ):
        summarise(parse(SPEC), seeds)


def test_a_teacher_may_cover_a_subset_and_nothing_else():
    beyond = {**REFERENCES, "student": A1, "teacher": {**TEACHER, "q9": 0.1}}
    with pytest.raises(ComparabilityError, match="only in row 'Teacher': q9"):
        summarise(parse(SPEC), trials(trial("a", 1, [], beyond)))


def test_other_data_is_an_error_that_names_both():
    mixed = [trial("a", 1, [], student(A1)), trial("a", 2, [], student(A2), digest="e")]
    with pytest.raises(ComparabilityError, match="trials a1 and a2 differ in digest: d and e"):
        summarise(parse(SPEC), trials(*mixed))


def test_references_must_be_the_same_in_every_trial():
    off = {**student(A2), "first_stage": {**FIRST, "q2": 0.25}}
    with pytest.raises(ComparabilityError, match=r"first_stage of trials a1 and a2 .* q2.*0.2 and"):
        summarise(parse(SPEC), trials(trial("a", 1, [], student(A1)), trial("a", 2, [], off)))


def test_a_random_teacher_is_averaged_over_its_seeds():
    other = {**student(A2), "teacher": {"q2": 0.7, "q4": 0.3}}
    found = trials(trial("a", 1, ["x"], student(A1)), trial("a", 2, ["x"], other))
    teacher = summarise(parse(SPEC), found).scores[place("Teacher")]
    assert (teacher.seeds, teacher.mean) == ((1, 2), pytest.approx(0.45))
    two = trials(trial("a", 1, ["x"], student(A1)), trial("b", 2, ["y"], other))
    with pytest.raises(ComparabilityError, match="teacher of trials a1 and b2"):
        summarise(parse(SPEC), two)


def test_a_row_must_not_mix_cells():
    mixed = trials(trial("a", 1, ["depth.k=5"], student(A1)), trial("a", 2, ["depth.k=9"], None))
    with pytest.raises(ComparabilityError, match=r"row 'A' mixes cells .*depth.k=5 .*depth.k=9"):
        summarise(parse(SPEC), mixed)


def test_a_row_may_spell_out_a_default():
    plain, explicit = (
        trial("a", seed, overrides, student(A1))
        for seed, overrides in ((1, []), (2, ["depth/lists=top"]))
    )
    cell = dataclasses.replace(plain[0], levels={"depth/lists": "top"})
    summary = summarise(parse(SPEC), trials((cell, *plain[1:]), explicit))
    assert summary.scores[place("A")].seeds == (1, 2)


def test_a_trial_in_two_sub_grids_counts_in_both():
    cell, facts, frame = trial("a", 1, [], student(A1))
    twin = dataclasses.replace(cell, grid="b")
    shared = Trials(
        frame=pd.concat([frame, frame.assign(grid="b")], ignore_index=True),
        cells=(cell, twin),
        missing=(),
        facts={cell.signature: facts},
        runs={},
    )
    summary = summarise(parse(SPEC), shared)
    assert summary.scores[place("A")].mean == summary.scores[place("B")].mean == pytest.approx(0.4)
    assert summary.comparisons[0].comparison.p == 1.0


def test_collections_of_the_spec_choose_and_order():
    found = trials(trial("a", 1, [], student(A1)), trial("a", 2, [], student(A2), collection="e"))
    assert summarise(parse(SPEC), found).collections == ("c", "e")
    chosen = summarise(parse({**SPEC, "collections": ["e"]}), found)
    assert chosen.collections == ("e",)
    assert {key[1] for key in chosen.scores} == {"e"}


def test_the_test_the_interval_and_the_correction_are_those_of_the_spec():
    plain = summarise(parse(SPEC), example()).contrasts[place("A")]
    d = [0.2, 0.2, 0.1, 0.3]
    for test, expected in (("wilcoxon", 0.125), ("randomisation", 0.125)):
        found = summarise(parse({**SPEC, "test": test}), example()).contrasts[place("A")]
        assert found.comparison.p == pytest.approx(expected)  # 2 of 16 assignments of signs
        assert found.comparison.difference == plain.comparison.difference
    bca = summarise(parse({**SPEC, "interval": "bca"}), example()).contrasts[place("A")]
    low, high = bca_interval(d)
    assert (bca.comparison.low, bca.comparison.high) == pytest.approx((float(low), float(high)))
    for correction, theirs in (("hochberg", "simes-hochberg"), ("bh", "fdr_bh")):
        summary = summarise(parse({**SPEC, "correction": correction}), example())
        found = [summary.contrasts[place(row)] for row in ("Teacher", "A", "B")]
        expected = multipletests([c.comparison.p for c in found], method=theirs)[1]
        assert [c.p_corrected for c in found] == pytest.approx(expected)


def test_every_test_of_the_spec_is_one_family_if_it_says_grid():
    summary = summarise(parse({**SPEC, "family": "grid", "all_pairs": True}), example())
    pairs = summary.pairs["c", "nDCG@10"]
    assert pairs.rows == ("First", "A", "B")
    p = [c.comparison.p for c in (*summary.against, *summary.comparisons)]
    p += [pairs.p[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = multipletests(p, method="holm")[1]
    corrected = [c.p_corrected for c in (*summary.against, *summary.comparisons)]
    corrected += [pairs.p_corrected[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert corrected == pytest.approx(expected)
    assert {c.family for c in (*summary.against, *summary.comparisons)} == {pairs.family} == {7}


def test_all_pairs_are_a_family_per_place():
    summary = summarise(parse({**SPEC, "all_pairs": True}), example())
    pairs = summary.pairs["c", "nDCG@10"]
    assert (pairs.family, summary.contrasts[place("A")].family) == (3, 3)
    assert pairs.p[0, 1] == pytest.approx(summary.contrasts[place("A")].comparison.p)
    assert pairs.letters == ("b", "a", "b") and pairs.means == pytest.approx([0.25, 0.45, 0.25])
    assert summarise(parse(SPEC), example()).pairs == {}


def test_several_baselines():
    summary = summarise(parse({**SPEC, "baseline": ["B", "First"]}), example())
    tested = [(c.treatment, c.baseline) for c in summary.against]
    assert tested == [
        ("First", "B"), ("Teacher", "B"), ("A", "B"), ("Teacher", "First"), ("A", "First"),
    ]  # fmt: skip
    assert {c.family for c in summary.against} == {5}
    assert {key[0] for key in summary.contrasts} == {"First", "Teacher", "A"}
    assert {c.baseline for c in summary.contrasts.values()} == {"B"}


def test_equivalence_is_corrected_among_its_own_kind():
    summary = summarise(parse({**SPEC, "margin": 0.2}), example())
    found = [summary.contrasts[place(row)] for row in ("Teacher", "A", "B")]
    values = {"Teacher": [0.3, -0.1], "A": [0.2, 0.2, 0.1, 0.3], "B": [0.0, 0.1, -0.2, 0.1]}
    raw = [float(equivalence(d, 0.2)) for d in values.values()]
    assert [c.p_equivalence for c in found] == pytest.approx(multipletests(raw, method="holm")[1])
    raw = [float(non_inferiority(d, 0.2)) for d in values.values()]
    expected = multipletests(raw, method="holm")[1]
    assert [c.p_non_inferiority for c in found] == pytest.approx(expected)
    assert [c.non_inferior for c in found] == (expected <= 0.05).tolist()
    plain = summarise(parse(SPEC), example())
    assert math.isnan(plain.contrasts[place("A")].p_equivalence)


def test_an_imported_run_needs_the_same_queries_and_data_only():
    values = {"q1": 0.3, "q2": 0.2}
    part = trial("", 0, [], {"run:x": values}, imported=records.imported("x"))
    here = part[1].collections
    here["c"] = dataclasses.replace(here["c"], k=0, first_stage={})
    spec = {**SPEC, "rows": [*SPEC["rows"], {"name": "X", "system": "run:x"}]}
    found = trials(trial("a", 1, [], student(A1)), part)
    found = dataclasses.replace(found, cells=found.cells[:1])
    summary = summarise(parse(spec), found)
    x = summary.scores[place("X")]
    assert (x.queries, x.seeds, x.mean) == (("q1", "q2"), (), pytest.approx(0.25))
    assert summary.contrasts[place("X")].comparison.n == 2
    assert not summary.contrasts[place("X")].single_seed
    assert summary.collection_facts["c"].k == 10  # of the trial, not of the import
    here["c"] = dataclasses.replace(here["c"], digest="e")
    with pytest.raises(ComparabilityError, match="differ in digest"):
        summarise(parse(spec), found)
