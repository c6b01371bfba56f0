"""Pooled collections: two folds whose queries are tested once each, worked by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.answer import Reason, answer
from analysis.check import against, outline
from analysis.comparability import ComparabilityError
from analysis.nodes import SpecError
from analysis.pools import Pool, pooled_facts, with_pools
from analysis.spec import parse
from analysis.summary import summarise
from analysis.tables import comparison_table, main_table
from analysis.trials import Trials
from rdx.facts import Ties
from tests.analysis import facts as records

YEARS = {"b": ["q1", "q2"], "a": ["q3", "q4", "q5"]}  # part -> its queries
FIRST = {"q1": 0.1, "q2": 0.2, "q3": 0.3, "q4": 0.4, "q5": 0.5}
POOLED = {"dl": ["b", "a"]}
SPEC = {
    "name": "x",
    "grid": {"loss": ["ranknet", "lce"], "seed": [1, 2]},
    "measures": ["nDCG@10"],
    "pooled": POOLED,
    "baseline": {"loss": "ranknet"},
    "rows": [{"name": "First", "system": "first_stage"}, {"by": ["loss"]}],
    "comparisons": [[{"loss": "lce"}, {"loss": "ranknet"}]],
}
# loss, seed -> query -> score: what the seed and the loss add to the first stage
ADDS = {("ranknet", 1): 0.1, ("ranknet", 2): 0.3, ("lce", 1): 0.0, ("lce", 2): 0.1}
ODD = {"lce": {"q2": 0.25, "q5": 0.05}}  # so that differences vary over queries


def value(loss, seed, query):
    return FIRST[query] + ADDS[loss, seed] + ODD.get(loss, {}).get(query, 0.0)


def fold(loss, seed, part, queries=None):
    """A cell that is trained on the other part and tested on this one: cell, facts, rows."""
    other = "b" if part == "a" else "a"
    signature = f"{loss}{seed}{part}"
    overrides = (f"loss={loss}", f"seed={seed}", f"data={other}", f"evaluation={part}")
    sets = {"measures": ["nDCG@10"], "collections": {part: {}}}
    cell = replace(records.cell(overrides, "", signature), cfg={"evaluation": sets, "seed": seed})
    queries = YEARS[part] if queries is None else queries
    rows = [
        ("", signature, seed, part, system, query, "nDCG@10", score)
        for query in queries
        for system, score in (
            ("first_stage", FIRST[query]), ("student", value(loss, seed, query))
        )
    ]  # fmt: skip
    here = records.collection(queries=len(queries), digest=part, first_stage={"run": f"{part}.run"})
    return cell, records.trial(signature, seed, {part: here}), rows


def trials(*parts):
    columns = ["grid", "signature", "seed", "collection", "system", "query_id", "measure", "value"]
    rows = [row for _, facts, rows in parts if facts for row in rows]
    return Trials(
        frame=pd.DataFrame(rows, columns=columns),
        cells=tuple(cell for cell, *_ in parts),
        missing=tuple(cell for cell, facts, _ in parts if facts is None),
        facts={facts.signature: facts for _, facts, _ in parts if facts},
        runs={},
    )


def folds(*, without=(), **more):
    return trials(*(
        fold(loss, seed, part, **more)
        for part in YEARS
        for loss, seed in ADDS
        if (loss, seed, part) not in without
    ))  # fmt: skip


def cells_of(parts):
    return list(parts.cells)


@pytest.fixture(scope="module")
def summary():
    finished = folds()
    return summarise(parse(SPEC, cells_of(finished)), finished)


def test_a_pool_has_the_queries_of_its_parts_each_of_its_own_trial(summary):
    scores = summary.scores["ranknet", "dl", "nDCG@10"]
    assert scores.queries == ("q1", "q2", "q3", "q4", "q5")
    expected = [[FIRST[q] + 0.1, FIRST[q] + 0.3] for q in scores.queries]
    np.testing.assert_allclose(scores.values, expected)
    assert scores.seeds == (1, 2)
    assert scores.mean == pytest.approx(0.3 + 0.2)  # mean of .1 to .5, and of .1 and .3
    # (2 queries of b, 3 of a): .15 + .2 and .4 + .2, weighted
    b, a = (summary.scores["ranknet", part, "nDCG@10"].mean for part in "ba")
    assert (b, a) == pytest.approx((0.35, 0.6))
    assert scores.mean == pytest.approx((2 * b + 3 * a) / 5)
    assert summary.scores["First", "dl", "nDCG@10"].mean == pytest.approx(0.3)


def test_tests_are_made_on_the_pool_and_not_again_on_its_parts(summary):
    assert summary.tested == ("dl",)
    assert {c.collection for c in (*summary.against, *summary.comparisons)} == {"dl"}
    [lce] = [c for c in summary.against if c.treatment == "lce"]
    # per query: .05 - .2, and .25 and .05 more at q2 and q5
    assert lce.comparison.difference == pytest.approx(-0.15 + (0.25 + 0.05) / 5)
    assert lce.comparison.n == 5
    assert lce.family == 2  # First and lce, both against ranknet
    table = comparison_table(summary)
    assert len(table.rows) == 1
    heads = [(c.group, c.name) for c in main_table(summary).columns]
    assert [group for group, name in heads if name == "nDCG@10"] == ["b", "a", "dl"]


def test_a_row_whose_fold_is_missing_is_tested_on_its_part():
    finished = folds(without=[("lce", 1, "a"), ("lce", 2, "a")])
    summary = summarise(parse(SPEC, cells_of(finished)), finished)
    assert ("lce", "dl", "nDCG@10") not in summary.scores
    assert {(c.treatment, c.collection) for c in summary.against} == {("First", "dl"), ("lce", "b")}
    [lce] = [c for c in summary.against if c.treatment == "lce"]
    assert lce.comparison.difference == pytest.approx(-0.15 + 0.25 / 2)


def test_an_answer_asks_once_of_a_pool_and_its_parts(summary):
    told = answer(summary)
    assert not told.differences
    refused = {(u.about[0], u.collection, u.reason) for u in told.unanswered}
    assert refused == {(name, "dl", Reason.FEW) for name in ("First", "lce")}
    assert len(told.unanswered) == 3  # lce is compared with the baseline, and declared
    finished = folds(without=[("lce", 1, "a"), ("lce", 2, "a")])
    lost = answer(summarise(parse(SPEC, cells_of(finished)), finished)).unanswered
    assert {u.collection for u in lost if "lce" in u.about} == {"b"}


def test_only_seeds_of_which_all_folds_were_run_are_pooled():
    finished = folds(without=[("lce", 2, "a")])
    summary = summarise(parse(SPEC, cells_of(finished)), finished)
    assert summary.scores["lce", "dl", "nDCG@10"].seeds == (1,)
    assert summary.scores["lce", "b", "nDCG@10"].seeds == (1, 2)


def test_a_query_in_two_parts_is_refused():
    both = [fold("ranknet", 1, "a", ["q1", "q3"]), fold("ranknet", 1, "b", ["q1", "q2"])]
    with pytest.raises(ComparabilityError, match="q1"):
        with_pools(trials(*both), [Pool("dl", ("b", "a"))])


def test_a_system_that_one_part_lacks_is_not_pooled():
    finished = folds()
    frame = finished.frame
    extra = frame[(frame.collection == "a") & (frame.system == "student")].assign(system="teacher")
    pooled = with_pools(
        replace(finished, frame=pd.concat([frame, extra], ignore_index=True)),
        [Pool("dl", ("b", "a"))],
    )
    here = pooled.frame[pooled.frame.collection == "dl"]
    assert set(here.system) == {"first_stage", "student"}
    assert len(here) == len(ADDS) * 5 * 2


def test_an_imported_run_of_both_parts_is_pooled():
    finished = folds()
    sets = {p: records.collection(queries=len(q), digest=p) for p, q in YEARS.items()}
    name = records.imported("llm")
    llm = replace(records.trial("llm", 0, sets), imported=name)
    rows = [("", "llm", 0, p, "run:llm", q, "nDCG@10", 0.7) for p in YEARS for q in YEARS[p]]
    frame = pd.DataFrame(rows, columns=finished.frame.columns)
    with_llm = replace(
        finished,
        frame=pd.concat([finished.frame, frame], ignore_index=True),
        facts={**finished.facts, "llm": llm},
    )
    spec = {**SPEC, "rows": [*SPEC["rows"], {"name": "LLM", "system": "run:llm"}]}
    summary = summarise(parse(spec, cells_of(finished)), with_llm)
    assert summary.scores["LLM", "dl", "nDCG@10"].mean == pytest.approx(0.7)
    assert len(summary.scores["LLM", "dl", "nDCG@10"].queries) == 5


def test_rows_may_mix_folds_and_nothing_else():
    finished = folds()
    cells = cells_of(finished)
    spec = parse(SPEC, cells)
    against(spec, cells)
    mixed = parse({**SPEC, "rows": [{"name": "all", "levels": {"seed": ["1", "2"]}}],
                   "baseline": None, "comparisons": []}, cells)  # fmt: skip
    with pytest.raises(SpecError, match="loss"):
        against(mixed, cells)
    with pytest.raises(ComparabilityError):
        summarise(mixed, finished)
    without = parse({**SPEC, "pooled": None}, cells)
    with pytest.raises(SpecError, match="data"):
        against(without, cells)


@pytest.mark.parametrize(
    "changes",
    [
        {"pooled": {"dl": ["a"]}},
        {"pooled": {"dl": ["a", "a"]}},
        {"pooled": {"dl": ["a", "b"], "x": ["b", "c"]}},
        {"pooled": {"dl": ["a", "b"]}, "collections": ["a", "b"]},
        {"pooled": ["a", "b"]},
        {"pooled": {"a": ["a", "b"]}},
    ],
)
def test_what_is_no_pool_is_refused(changes):
    with pytest.raises(SpecError, match="pooled"):
        parse({**SPEC, **changes}, cells_of(folds()))


def test_a_part_that_no_cell_is_tested_on_is_refused():
    cells = cells_of(folds())
    with pytest.raises(SpecError, match="pooled"):
        against(parse({**SPEC, "pooled": {"dl": ["a", "c"]}}, cells), cells)


def test_the_facts_of_a_pool_weigh_queries_alike():
    b = records.collection(queries=2, ceiling=0.5, first_stage={"engine": "e", "run": "b"})
    a = records.collection(queries=3, ceiling=1.0, first_stage={"engine": "e", "run": "a"})
    pools = [Pool("dl", ("b", "a"))]
    pooled = pooled_facts(pools, {"a": a, "b": b})["dl"]
    assert pooled.queries == 5
    assert pooled.ceiling == pytest.approx(0.8)
    assert pooled.first_stage == {"engine": "e", "b": {"run": "b"}, "a": {"run": "a"}}
    assert (pooled.pooled, pooled.in_mean) == (("b", "a"), False)
    assert pooled_facts(pools, {"a": a}) == {}
    for unlike in (replace(a, k=50), replace(a, ties=Ties("rank", 0.0, 0.0))):
        with pytest.raises(ComparabilityError):
            pooled_facts(pools, {"a": unlike, "b": b})


def test_the_outline_counts_the_tests_of_the_family():
    cells = cells_of(folds())
    spec = parse({**SPEC, "family": "grid"}, cells)
    plan = outline(spec, cells)
    # First and lce against ranknet, and one comparison, on the pool alone
    assert (plan.systems, plan.tests, plan.family) == (2, {"dl": 3}, "grid")
    assert plan.pooled == {"dl": ("b", "a")}
    assert outline(parse(SPEC, cells), cells).tests == {"dl": 2}
    pairs = parse({**SPEC, "family": "grid", "all_pairs": True}, cells)
    assert outline(pairs, cells).tests == {"dl": 6}  # and three pairs of three rows
    # a row of one fold is tested on it
    some = [
        cell for cell in cells if not ("loss=lce" in cell.overrides and "data=b" in cell.overrides)
    ]
    assert outline(parse({**SPEC, "family": "grid"}, some), some).tests == {"dl": 3, "b": 3}
