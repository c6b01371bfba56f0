"""Answers to planted results: which tests count, with which numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import answer as answers
from analysis.answer import FEWEST, Asked, Kind, Reason, sentences
from analysis.factors import analyse
from analysis.significance import correct
from analysis.spec import parse
from analysis.summary import summarise
from analysis.trials import Trials
from rdx.power import Assumption, Design
from tests.analysis.facts import cell, collection, trial

N = 40
SD = 0.05


def noise(seed, n=N, sd=SD):
    """Scores with mean 0 and a standard deviation of `sd` exactly."""
    values = np.random.default_rng(seed).normal(0, 1, n)
    values -= values.mean()
    return values * sd / values.std(ddof=1)


def planted(
    shifts, seeds=(1,), collections=("c",), measures=("nDCG@10",), n=N, lost=(), health=None, **spec
):
    """Summary of rows with given means above .5: overrides -> shift, or (collection -> shift).

    Every row has its own noise over queries, the same in all of its runs. `lost` = (overrides,
    seed) of the cells that have no trial; `health` = overrides -> state.
    """
    cells, facts, frames, missing = [], {}, [], []
    for i, (overrides, shift) in enumerate(shifts.items()):
        for seed in seeds:
            each = cell((*overrides.split(), f"seed={seed}"), overrides, f"{i:02}{seed:030}")
            cells.append(each)
            if (overrides, seed) in lost:
                missing.append(each)
                continue
            where = {name: collection(queries=n, k=10) for name in collections}
            state = (health or {}).get(overrides, "ok")
            facts[each.signature] = trial(each.signature, seed, where, state)
            for j, name in enumerate(collections):
                own = shift[name] if isinstance(shift, dict) else shift
                student = 0.5 + own + noise(100 * i + j, n)
                for system, values in (("student", student), ("first_stage", np.full(n, 0.5))):
                    for measure in measures:
                        frames.append(
                            pd.DataFrame(
                                {
                                    "query_id": [f"q{q:03}" for q in range(n)],
                                    "value": values,
                                    "grid": overrides,
                                    "signature": each.signature,
                                    "seed": seed,
                                    "collection": name,
                                    "system": system,
                                    "measure": measure,
                                }
                            )  # fmt: skip
                        )
    frame = pd.concat(frames, ignore_index=True)
    node = {
        "name": "planted",
        "measures": list(measures),
        "grid": dict.fromkeys(shifts, []),
        "rows": [{"name": name, "grid": name} for name in shifts],
        **spec,
    }
    return summarise(parse(node), Trials(frame, tuple(cells), tuple(missing), facts, {}))


def of(summary):
    """The answer, whose sentences are three at most, each of another kind."""
    answer = answers.answer(summary)
    told = sentences(answer)
    assert 1 <= len(told) <= 3 and len({sentence.kind for sentence in told}) == len(told)
    assert told[0].kind is Kind.FOUND
    return answer


def text(answer, kind):
    """The sentence of a kind; "" without one."""
    return next((s.text for s in sentences(answer) if s.kind is kind), "")


def refused(answer):
    return [(each.because, each.reason) for each in answer.unanswered]


A, B, C = "loss=ranknet", "loss=lce", "loss=bce"
THREE = {A: 0.1, B: 0.0, C: 0.002}
PAIRS = [[A, B], [C, B]]


def test_a_large_difference_and_none():
    """Of two comparisons one is large; numbers are those of scipy, corrected by Holm."""
    summary = planted(THREE, comparisons=PAIRS)
    answer = of(summary)
    large, none = answer.differences
    assert (large.asked, large.first, large.second) == (Asked.COMPARISONS, A, B)
    assert (large.collection, large.measure, large.family) == ("c", "nDCG@10", 2)
    own = {name: summary.scores[name, "c", "nDCG@10"].per_query for name in THREE}
    tests = [stats.ttest_1samp(own[a] - own[B], 0) for a in (A, C)]
    ends = tests[0].confidence_interval()
    assert (large.difference, large.low, large.high) == pytest.approx((0.1, ends.low, ends.high))
    assert large.p == pytest.approx(2 * tests[0].pvalue)
    assert none.p == pytest.approx(tests[1].pvalue) and none.difference == pytest.approx(0.002)
    assert large.differs and not large.open
    assert none.open and not none.differs and not none.equivalent
    spread = Assumption(sd=float((own[C] - own[B]).std(ddof=1)), seed_sd=0.0)
    assert none.detectable == pytest.approx(Design(N, assumption=spread, tests=2).detectable())
    assert A in text(answer, Kind.FOUND) and C not in text(answer, Kind.FOUND)
    assert C in text(answer, Kind.OPEN) and f"{none.detectable:.3f}" in text(answer, Kind.OPEN)


def test_only_what_differs_has_no_sentence_of_what_was_not_shown_but_its_power():
    answer = of(planted({A: 0.1, B: 0.0}, comparisons=[[A, B]]))
    assert f"{answer.differences[0].detectable:.3f}" in text(answer, Kind.OPEN)
    assert A not in text(answer, Kind.OPEN)


def test_rows_against_the_baseline_where_nothing_else_is_asked():
    answer = of(planted(THREE, baseline=B))
    assert [(d.asked, d.first, d.differs) for d in answer.differences] == [
        (Asked.BASELINE, A, True),
        (Asked.BASELINE, C, False),
    ]
    both = of(planted(THREE, baseline=B, comparisons=PAIRS))
    assert (
        len(both.of(Asked.COMPARISONS, "nDCG@10")) == len(both.of(Asked.BASELINE, "nDCG@10")) == 2
    )


def test_equivalence_is_a_finding():
    answer = of(planted({A: 0.1, B: 0.0, C: 0.001}, baseline=B, margin=0.03))
    large, same = answer.differences
    assert same.equivalent and not same.differs and not same.open
    assert large.differs and not large.equivalent
    assert same.p_equivalence < 0.05 < large.p_equivalence
    assert C in text(answer, Kind.FOUND) and C not in text(answer, Kind.OPEN)
    narrow = of(planted({A: 0.1, B: 0.0, C: 0.001}, baseline=B, margin=0.005))
    assert narrow.differences[1].open and C in text(narrow, Kind.OPEN)


def test_all_pairs_have_the_better_row_first():
    answer = of(planted({B: 0.0, A: 0.1}, all_pairs=True))
    [pair] = answer.differences
    assert (pair.asked, pair.first, pair.differs) == (Asked.PAIRS, A, True)
    assert pair.difference == pytest.approx(0.1)


GRID = {
    f"loss={loss} sampler={sampler}": 0.2 * (loss == "lce" and sampler == "random")
    for loss in ("ranknet", "lce")
    for sampler in ("bm25", "random")
}
FACTORS = {"factors": ["loss", "sampler"]}


def test_an_interaction_and_its_size():
    summary = planted(GRID, seeds=(1, 2), **FACTORS)
    answer = of(summary)
    assert [effect.term for effect in answer.effects] == [
        ("loss",),
        ("sampler",),
        ("loss", "sampler"),
    ]
    main, _, both = answer.effects
    assert all(effect.shown and effect.of_choice for effect in answer.effects)
    # lce at random samplers alone: .2, so that the marginal means differ by .1
    [levels] = main.levels
    assert (levels.first, levels.second) == ("lce", "ranknet")
    assert levels.difference == pytest.approx(0.1) and levels.low < 0.1 < levels.high
    sizes = {one.at: one.difference for one in both.levels}
    assert {(one.first, one.second) for one in both.levels} in (
        {("lce", "ranknet")},
        {("ranknet", "lce")},
    )
    assert sorted(map(abs, sizes.values())) == pytest.approx([0, 0.2], abs=1e-9)
    runs = [summary.scores[name, "c", "nDCG@10"].values.T for name in GRID]
    labels = {
        key: [dict(o.split("=") for o in name.split())[key] for name in GRID for _ in range(2)]
        for key in ("loss", "sampler")
    }
    expected = analyse(np.vstack(runs), labels).effects[:3]
    adjusted = correct([effect.p for effect in expected])[0]
    assert [e.p for e in answer.effects] == pytest.approx(adjusted.tolist(), rel=1e-6)
    assert [e.omega for e in answer.effects] == pytest.approx([e.omega for e in expected])


def test_no_effect_is_not_called_one():
    answer = of(planted(dict.fromkeys(GRID, 0.0), seeds=(1, 2), **FACTORS))
    assert not any(effect.shown for effect in answer.effects) and len(answer.effects) == 3
    assert {effect.family for effect in answer.effects} == {3}


@pytest.mark.parametrize(
    ("lost", "effects", "reasons"),
    [
        ([(name, seed) for name in [*GRID][:1] for seed in (1, 2)], 0, [Reason.MISSING]),
        ([([*GRID][0], 2)], 3, []),  # another seed of the combination was run
    ],
)
def test_a_grid_that_lacks_a_combination_has_no_effects(lost, effects, reasons):
    answer = of(planted(GRID, seeds=(1, 2), lost=lost, **FACTORS))
    assert len(answer.effects) == effects
    assert [each.reason for each in answer.unanswered] == reasons
    assert (answer.missing, answer.cells) == (len(lost), 8)
    assert text(answer, Kind.LIMITS)


def test_what_does_not_count():
    missing = of(planted(THREE, comparisons=PAIRS, lost=[(A, 1)]))
    assert refused(missing) == [(A, Reason.MISSING)]
    assert [d.first for d in missing.differences] == [C]
    broken = of(planted(THREE, comparisons=PAIRS, health={A: "constant_scores"}))
    assert refused(broken) == [(A, Reason.BROKEN)]
    bad = of(planted(THREE, comparisons=PAIRS, health={A: "below_first_stage"}))
    assert refused(bad) == [] and len(bad.differences) == 2
    few = of(planted(THREE, comparisons=PAIRS, n=FEWEST - 1))
    assert refused(few) == [("", Reason.FEW)] * 2 and not few.differences
    assert len(of(planted(THREE, comparisons=PAIRS, n=FEWEST)).differences) == 2
    sick = planted(GRID, seeds=(1, 2), health={[*GRID][0]: "weights_unchanged"}, **FACTORS)
    assert refused(of(sick)) == [("", Reason.BROKEN)]


def test_a_collection_on_which_weights_were_selected_is_no_test():
    summary = planted(THREE, comparisons=PAIRS)
    facts = {"c": replace(summary.collection_facts["c"], selected_on=True)}
    answer = of(replace(summary, collection_facts=facts))
    assert {each.reason for each in answer.unanswered} == {Reason.UNFIT} and not answer.differences


def test_rows_on_other_queries_are_not_compared():
    summary = planted({A: 0.1, B: 0.0}, baseline=B)
    frame = summary.trials.frame
    part = frame[(frame["system"] == "student") & (frame["grid"] == A)].iloc[: N - 5]
    more = pd.concat([frame, part.assign(system="teacher")], ignore_index=True)
    rows = [
        *({"name": n, "grid": n} for n in (A, B)),
        {"name": "T", "system": "teacher", "grid": A},
    ]
    node = {
        "name": "x",
        "measures": ["nDCG@10"],
        "grid": {A: [], B: []},
        "rows": rows,
        "baseline": B,
    }
    summary = summarise(parse(node), replace(summary.trials, frame=more))
    assert [summary.apart(name) for name in (A, B, "T")] == [False, False, True]
    answer = of(summary)
    assert [d.first for d in answer.differences] == [A]
    assert refused(answer) == [("T", Reason.QUERIES)]


def test_one_training_run_is_said():
    alone, several = (of(planted(THREE, seeds, comparisons=PAIRS)) for seeds in ((1,), (1, 2)))
    assert alone.single == (A, B, C) and alone.every_single and text(alone, Kind.LIMITS)
    assert not any(d.of_choice for d in alone.differences)
    assert several.single == () and text(several, Kind.LIMITS) == ""
    assert all(d.of_choice for d in several.differences)


def test_measures_and_collections():
    """Every place has its record; a sentence takes the collections of one thing together."""
    shifts = {A: {"c": 0.1, "d": -0.2}, B: 0.0, C: {"c": 0.15, "d": 0.0}}
    summary = planted(
        shifts, collections=("c", "d"), measures=("RR@10", "nDCG@10"), figure="nDCG@10",
        comparisons=PAIRS,
    )  # fmt: skip
    answer = of(summary)
    assert answer.measures == ("nDCG@10", "RR@10") and answer.collections == ("c", "d")
    sizes = {(d.first, d.collection): d.difference for d in answer.of(Asked.COMPARISONS, "nDCG@10")}
    assert sizes == pytest.approx({(A, "c"): 0.1, (A, "d"): -0.2, (C, "c"): 0.15, (C, "d"): 0.0})
    assert len(answer.differences) == 8
    found = text(answer, Kind.FOUND)
    assert found.index(A) < found.index(C)  # -.2 before .15
    assert "−0.200" in found and "+0.100" in found  # both directions


def test_nothing_is_compared_without_a_question():
    answer = of(planted(THREE))
    assert answer.differences == answer.effects == answer.unanswered == ()
    assert answer.best == (A, pytest.approx(0.6))
