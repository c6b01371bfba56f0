"""Which passages make a training list."""

import itertools
import math
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rdx import rankings
from rdx.draws import generator
from rdx.lists import (
    MODES,
    Depth,
    HalfTopHalfRandom,
    HeadAndBand,
    LogRank,
    Pools,
    RandomDepth,
    ScoreQuantiles,
    SingleRelevant,
    Top,
    TrainingList,
    fixed,
    labelled,
    sizes,
    with_relevance,
)
from rdx.lists import drawn as drawn_from
from tests.rdx.configured import check_refused, configured

DL19 = Path(__file__).parents[2] / ".." / "shared" / "data" / "trec-dl-2019"


def candidates(n=6, queries=("q1",)) -> pd.DataFrame:
    rows = [(q, f"d{i}", -float(i)) for q in queries for i in range(1, n + 1)]
    return rankings.rank(*zip(*rows, strict=True))


def taught(ranks: dict[str, list[int]], state: str = "ok") -> pd.DataFrame:
    rows = [
        (q, f"d{i}", r, float("nan"), state) for q, order in ranks.items()
        for i, r in enumerate(order, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "teacher_rank", "score", "state"])


def labels(lists: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {
        str(q): dict(zip(rows.doc_id, rows.teacher_rank, strict=True))
        for q, rows in lists.groupby("query_id")
    }


def test_depth_modes_keep_different_passages():
    # the teacher reverses six candidates; asked about three, it puts the first of them last
    pool, reverse = candidates(), taught({"q1": [6, 5, 4, 3, 2, 1]})
    first = Depth(3, "first_stage", pool=6)
    teacher = Depth(3, "teacher", pool=6)
    relabel = Depth(3, "relabel")
    assert (first.asked, teacher.asked, relabel.asked) == (6, 6, 3)
    assert labels(first.select(pool, reverse)) == {"q1": {"d1": 6, "d2": 5, "d3": 4}}
    assert labels(teacher.select(pool, reverse)) == {"q1": {"d4": 3, "d5": 2, "d6": 1}}
    again = relabel.select(candidates(3), taught({"q1": [3, 1, 2]}))
    assert labels(again) == {"q1": {"d1": 3, "d2": 1, "d3": 2}}
    assert list(first.select(pool, reverse).doc_id) == ["d1", "d2", "d3"]


def test_depth_teacher_mode_breaks_ties_by_first_stage():
    tied = taught({"q1": [2, 1, 2, 2, 1, 2], "q2": [1, 1, 1, 1, 1, 1]})
    lists = Depth(3, "teacher", pool=6).select(candidates(queries=("q1", "q2")), tied)
    assert {q: set(ranks) for q, ranks in labels(lists).items()} == {
        "q1": {"d2", "d5", "d1"},
        "q2": {"d1", "d2", "d3"},
    }


def test_depth_leaves_out_failed_and_short_lists():
    states = {"q1": "ok", "q2": "failed", "q3": "refused", "q4": "malformed", "q5": "repaired"}
    parts = [taught({query_id: [1, 2, 3]}, state) for query_id, state in states.items()]
    parts.append(taught({"q6": [1]}))
    pool = candidates(3, [f"q{i}" for i in range(1, 8)])
    for mode in MODES:
        lists = Depth(2, mode, pool=3).select(pool, pd.concat(parts))
        assert set(lists.query_id) == {"q1", "q5"}, mode


SCALED = {  # of the scores 7, 4, 4, 1 of q1 and 5, 5, 5, 5 of q2
    "none": ([7, 4], [5, 5]),
    "minmax": ([1, 0.5], [0.5, 0.5]),
    "zscore": ([2**0.5, 0], [0, 0]),
    "quantile": ([1, 0.5], [0.5, 0.5]),
}


@pytest.mark.parametrize("scale", SCALED)
def test_teacher_scores_are_scaled_over_all_that_the_teacher_ranked(scale):
    ranked = taught({"q1": [1, 2, 2, 3], "q2": [1, 1, 1, 1]})
    ranked = ranked.assign(score=np.float32([7, 4, 4, 1, 5, 5, 5, 5]))
    broken = taught({"q3": [1, 2, 3, 4]}, "failed")  # which would have no scale
    pool = candidates(4, ("q1", "q2", "q3"))
    lists = Depth(2, pool=4).select(pool, pd.concat([ranked, broken]), scale)
    assert lists.teacher_score.dtype == np.float32
    first, second = SCALED[scale]
    assert list(lists.teacher_score) == pytest.approx([*first, *second])
    assert [list(own.teacher_scores) for own in fixed(lists)(0)] == [
        pytest.approx(first), pytest.approx(second)
    ]  # fmt: skip


def test_an_order_has_no_scale():
    lists = Depth(2, pool=3).select(candidates(3), taught({"q1": [1, 2, 3]}), "minmax")
    assert lists.teacher_score.isna().all() and fixed(lists)(0)[0].teacher_scores is None


def test_depth_allows_gaps_in_teacher_ranks():
    lists = Depth(3, pool=6).select(candidates(), taught({"q1": [10, 900, 4, 5, 6, 7]}))
    assert labels(lists) == {"q1": {"d1": 10, "d2": 900, "d3": 4}}


@pytest.mark.parametrize(
    "values",
    [{"k": 1}, {"k": 10, "mode": "both"}, {"k": 10, "pool": 9}, {"k": 10, "queries": 0}],
)
def test_depth_refuses_bad_values(values):
    check_refused("depth", Depth, **values)
    assert Depth(10, "relabel", pool=9).asked == 10  # the pool is not used


# --- lists of all epochs, and of each ---

QUERIES = [f"q{i}" for i in range(30)]


def pool(queries=QUERIES, n=12) -> pd.DataFrame:
    rows = [(q, f"d{i}", -float(i)) for q in queries for i in range(n)]
    return rankings.rank(*zip(*rows, strict=True))


# every query: two of the highest grade, one lower, all among the candidates
RELEVANT = {q: {"d3": 2, "d5": 1, "d8": 2} for q in QUERIES}


def contrastive(candidates, relevant, negatives, seed, **options):
    """Stage 1's lists."""
    pools = labelled(Pools.of(candidates), relevant)
    return drawn_from(pools, SingleRelevant(**options), negatives + 1, seed)


def test_fixed_lists_are_the_same_in_every_epoch():
    selected = pool(["b", "a"], 3).assign(teacher_rank=[2, 1, 3, 7, 9, 8])
    lists = fixed(selected)
    assert lists(0) == lists(5) == [
        TrainingList("b", ("d0", "d1", "d2"), (2, 1, 3)),
        TrainingList("a", ("d0", "d1", "d2"), (7, 9, 8)),
    ]  # fmt: skip


def test_contrastive_lists_have_one_relevant_passage_and_hard_negatives():
    lists = contrastive(pool(), RELEVANT, 4, seed=0)
    best, negatives = Counter(), Counter()
    for epoch in range(40):
        drawn = lists(epoch)
        assert [one.query_id for one in drawn] == QUERIES
        for one in drawn:
            assert one.teacher_ranks == (1, 2, 2, 2, 2)
            assert len(set(one.doc_ids)) == 5
            best[one.doc_ids[0]] += 1
            negatives.update(one.doc_ids[1:])
    assert set(best) == {"d3", "d5", "d8"}  # of any grade
    assert best["d3"] == pytest.approx(400, abs=80)
    assert set(negatives) == {f"d{i}" for i in (0, 1, 2, 4, 6, 7, 9, 10, 11)}
    assert max(negatives.values()) < 1.3 * min(negatives.values())


def test_contrastive_takes_all_negatives_where_there_are_few():
    drawn = contrastive(pool(["q0"], 5), RELEVANT, 9, seed=0)(0)
    assert sorted(drawn[0].doc_ids[1:]) == ["d0", "d1", "d2", "d4"]
    assert drawn[0].teacher_ranks == (1, 2, 2, 2, 2)


def test_contrastive_leaves_out_queries_without_positive_or_negative():
    relevant = {"q0": {"far": 1}, "q1": {}, "q3": {"d0": 1, "d1": 1}}
    rows = [("q0", "d0", 1), ("q1", "d0", 1), ("q2", "d0", 1), ("q3", "d0", 1), ("q3", "d1", 0)]
    drawn = contrastive(rankings.rank(*zip(*rows, strict=True)), relevant, 2, seed=0)(0)
    assert drawn == [TrainingList("q0", ("far", "d0"), (1, 2))]


def test_teacher_scores_come_from_their_own_column():
    selected = pool(["a", "b", "c"], 2).assign(teacher_rank=[2, 1] * 3)
    assert [one.teacher_scores for one in fixed(selected)(0)] == [None] * 3  # not `score`
    nan = float("nan")
    scored = selected.assign(teacher_score=[0.5, 1.5, nan, nan, -2.0, nan])
    first, none, some = fixed(scored)(0)
    assert (first.teacher_scores, none.teacher_scores) == ((0.5, 1.5), None)
    assert some.teacher_scores[0] == -2.0 and some.teacher_scores[1] != some.teacher_scores[1]


def test_stage_1_lists_equal_a_plain_loop():
    """Negatives first, then the positive, from one generator of (seed, epoch, query id)."""
    relevant = RELEVANT | {
        "q3": {"far": 1, "d0": 2},
        "q4": {},
        "q5": {f"d{i}": 1 for i in range(12)},
    }
    for negatives, seed in [(1, 0), (4, 7), (50, 1)]:
        lists = contrastive(pool(), relevant, negatives, seed)
        for epoch in (0, 5):
            expected = []
            for query_id in QUERIES:
                others = [f"d{i}" for i in range(12) if f"d{i}" not in relevant[query_id]]
                good = sorted(relevant[query_id])
                if not others or not good:
                    continue
                draw = generator(seed, epoch, query_id)
                size = min(negatives, len(others))
                picked = draw.choice(len(others), size=size, replace=False)
                best = good[draw.integers(len(good))]
                expected.append((query_id, best, *(others[i] for i in picked)))
            assert [(one.query_id, *one.doc_ids) for one in lists(epoch)] == expected


# --- picking ---


def ranked(n=6, k=3, queries=QUERIES, **columns) -> pd.DataFrame:
    """Queries with n passages, whose teacher rank is the reverse of the first stage's."""
    table = pool(queries, n)
    return table.assign(teacher_rank=n + 1 - table["rank"], **columns)


def drawn(table, picker, k, seed):
    return drawn_from(Pools.of(table), picker, k, seed)


def places(lists, epochs=range(400)):
    """How often each set of passages was drawn, as their numbers."""
    return Counter(
        tuple(sorted(int(d[1:]) for d in one.doc_ids)) for e in epochs for one in lists(e)
    )


def one_after_the_other(weights, k):
    """Probability of every set of k, drawing without replacement, by all orders."""
    chances = Counter()
    for order in itertools.permutations(range(len(weights)), k):
        chance, left = 1.0, sum(weights)
        for i in order:
            chance, left = chance * weights[i] / left, left - weights[i]
        chances[tuple(sorted(order))] += chance
    return chances


@pytest.mark.parametrize(
    ("picker", "weights"),
    [(RandomDepth(), [1] * 5), (LogRank(), [1 / math.log(1 + r) for r in (1, 2, 3, 4, 5)])],
)
def test_sets_are_drawn_as_often_as_they_should(picker, weights):
    seen = places(drawn(ranked(5), picker, 3, seed=0))
    expected = one_after_the_other(weights, 3)
    assert set(seen) == set(expected) and sum(seen.values()) == 12_000
    for chosen, chance in expected.items():  # five standard deviations
        spread = 5 * math.sqrt(12_000 * chance * (1 - chance))
        assert abs(seen[chosen] - 12_000 * chance) < spread, chosen


def test_half_is_from_the_top_and_half_from_the_rest():
    seen = places(drawn(ranked(6), HalfTopHalfRandom(), 5, seed=0), range(100))
    assert set(seen) == {(0, 1, a, b, c) for a, b, c in itertools.combinations(range(2, 6), 3)}
    assert min(seen.values()) > 600  # 3,000 of four kinds
    assert set(places(drawn(ranked(6), HalfTopHalfRandom(), 6, seed=0), range(3))) == {(*range(6),)}


def test_top_is_the_beginning_in_every_epoch():
    lists = drawn(ranked(6), Top(), 2, seed=0)
    assert lists(0) == lists(9)
    assert lists(0)[0] == TrainingList("q0", ("d0", "d1"), (6, 5))


EACH = [
    *(RandomDepth(), LogRank(), HalfTopHalfRandom(), SingleRelevant(), SingleRelevant(0.5)),
    *(ScoreQuantiles(), HeadAndBand(2, (3, 12))),
]


def marked(table, relevant) -> pd.DataFrame:
    """The table with a column `relevant`."""
    pairs = zip(table.query_id, table.doc_id, strict=True)
    return table.assign(relevant=[d in relevant.get(q, {}) for q, d in pairs])


def judged(queries=QUERIES, n=8) -> pd.DataFrame:
    return marked(ranked(n, queries=queries), {q: {"d3": 1, "d6": 2} for q in QUERIES})


@pytest.mark.parametrize("picker", EACH, ids=repr)
def test_draws_depend_on_seed_epoch_and_query_alone(picker):
    lists = drawn(judged(), picker, 4, seed=0)
    third = lists(3)
    assert [one.query_id for one in third] == QUERIES
    assert all(len(set(one.doc_ids)) == len(one.doc_ids) for one in third)
    assert lists(4) != third and lists(3) == third == pickle.loads(pickle.dumps(lists))(3)
    few = drawn(judged(QUERIES[::-1][:9]), picker, 4, seed=0)(3)
    assert few == third[::-1][:9]  # whatever other queries there are, and in whatever order
    assert drawn(judged(), picker, 4, seed=1)(3) != third
    assert len({one.doc_ids for one in third}) > 5  # queries do not share a draw
    mixed = judged().sample(frac=1, random_state=0).sort_values("rank", kind="stable")
    again = {one.query_id: one for one in drawn(mixed, picker, 4, seed=0)(3)}
    assert again == {one.query_id: one for one in third}  # rows of a query need not be together


@pytest.mark.parametrize("picker", EACH, ids=repr)
@pytest.mark.parametrize("n", [2, 3, 30])
def test_short_pools_give_short_lists(picker, n):
    table = marked(ranked(n, queries=["q0"]), {"q0": {"d0": 1}})
    [one] = drawn(table, picker, 10, seed=0)(0)
    assert len(one.doc_ids) == min(n, 10) or (isinstance(picker, SingleRelevant) and picker.margin)
    assert all(
        rank == n - int(d[1:]) for d, rank in zip(one.doc_ids, one.teacher_ranks, strict=True)
    )


def test_a_longer_list_holds_the_shorter_one():
    for picker in (RandomDepth(), LogRank()):
        short, long = (drawn(judged(), picker, k, seed=0)(2) for k in (3, 5))
        assert all(set(a.doc_ids) < set(b.doc_ids) for a, b in zip(short, long, strict=True))


def test_scores_and_ranks_go_with_their_passages():
    table = ranked(6, queries=["a", "b"]).assign(teacher_score=[*range(6), *[math.nan] * 6])
    for one in drawn(table, RandomDepth(), 4, seed=0)(1):
        numbers = [int(d[1:]) for d in one.doc_ids]
        assert one.teacher_ranks == tuple(6 - i for i in numbers)
        assert one.teacher_scores == (tuple(map(float, numbers)) if one.query_id == "a" else None)
        assert all(type(rank) is int for rank in one.teacher_ranks)


def test_likely_false_negatives_are_left_out():
    """First-stage scores are 0, -1, ..., -7; teacher scores 0, 10, ..., 70; d3 is relevant."""
    table = marked(ranked(8), dict.fromkeys(QUERIES, {"d3": 1}))
    table = table.assign(teacher_score=10.0 * (table["rank"] - 1))

    def negatives(**options):
        lists = drawn(table, SingleRelevant(**options), 9, seed=0)(0)
        return [sorted(int(d[1:]) for d in one.doc_ids[1:]) for one in lists][0]

    assert negatives() == [0, 1, 2, 4, 5, 6, 7]
    assert negatives(margin=0) == [4, 5, 6, 7]  # above -3 are d0 to d2
    assert negatives(margin=1.5) == [5, 6, 7]  # above -4.5 is d4, too
    assert negatives(margin=-2) == [1, 2, 4, 5, 6, 7]  # above -1 is d0; a tie stays
    assert negatives(margin=0, of="teacher") == [0, 1, 2]
    few = drawn(table, SingleRelevant(0.0), 3, seed=0)
    assert all(len(one.doc_ids) == 3 for one in few(0))  # what is passed over is replaced
    assert drawn(table, SingleRelevant(9.0), 3, seed=0)(0) == []  # nothing is so much below
    check_refused("depth.lists", SingleRelevant, of="students")


def test_without_a_score_nothing_is_left_out():
    outside = contrastive(pool(["q0"], 4), {"q0": {"far": 1}}, 9, 0, margin=0.0)(0)
    assert sorted(outside[0].doc_ids) == ["d0", "d1", "d2", "d3", "far"]
    both = contrastive(pool(["q0"], 4), {"q0": {"far": 1, "d0": 1}}, 9, 0, margin=5.0)
    assert {one.doc_ids[0] for epoch in range(20) for one in both(epoch)} == {"far"}  # d0 has none


def test_labels_are_ranks():
    relevant = {"a": {"far": 1, "d1": 2, "afar": 1}, "b": {}, "c": {"d0": 1}}
    pools = labelled(Pools.of(pool(["b", "a"], 2)), relevant)
    assert [(one.query_id, one.doc_ids(), one.ranks.tolist()) for one in pools] == [
        ("b", ["d0", "d1"], [2, 2]),
        ("a", ["d0", "d1", "afar", "far"], [2, 1, 1, 1]),
    ]
    assert np.isnan(pools[1].first).tolist() == [False, False, True, True]
    assert pools[1].relevant.tolist() == [False, True, True, True]
    none = labelled(Pools.of(pool(["b"], 2)), {})
    assert [one.ranks.tolist() for one in none] == [[2, 2]]


def test_pools_of_blocks_are_the_pools_of_all():
    """Whatever names blocks share, and with queries between that are left out."""
    table = judged()
    rows = [table[table.query_id.isin(block)] for block in (QUERIES[:3], QUERIES[3:4], QUERIES[4:])]
    rows[1] = rows[1].assign(doc_id=rows[1].doc_id + "x")
    whole, joined = Pools.of(pd.concat(rows)), Pools.joined([Pools.of(part) for part in rows])
    few = np.arange(len(whole)) % 3 == 1
    for one, other in ((whole, joined), (whole.kept(few), joined.kept(few))):
        assert len(one) == len(other) > 0
        for a, b in zip(one, other, strict=True):
            assert (a.query_id, a.doc_ids()) == (b.query_id, b.doc_ids())
            for name in ("ranks", "first", "relevant"):
                assert (getattr(a, name) == getattr(b, name)).all()
    kept = [pool.query_id for pool in whole.kept(few)]
    assert kept == [q for i, q in enumerate(QUERIES) if i % 3 == 1]
    assert len(Pools.of(table[:0])) == len(Pools.of(table).kept(np.zeros(30, bool))) == 0


def test_relevance_is_found_like_by_a_plain_loop():
    relevant = {"q1": {"d3": 1, "none": 1}, "q2": {"d0": 2, "d7": 1}, "other": {"d1": 1}}
    table = ranked(8).sample(frac=1, random_state=0)
    pools, expected = with_relevance(Pools.of(table), relevant), Pools.of(marked(table, relevant))
    for one, other in zip(pools, expected, strict=True):
        assert one.query_id == other.query_id and (one.relevant == other.relevant).all()


@pytest.mark.parametrize("picker", [Top(), *EACH], ids=repr)
@pytest.mark.parametrize("k", [2, 4, 30])
def test_sizes_are_told_without_a_draw(picker, k):
    """Pools of one to twelve passages, of which some or all may be relevant."""
    table = pd.concat(judged([q], 1 + i % 12) for i, q in enumerate(QUERIES))
    lists = drawn(table, picker, k, seed=1)
    for epoch in (0, 3):
        expected = [len(one.doc_ids) for one in list(lists(epoch))]
        assert sizes(lists(epoch)).tolist() == expected and min(expected) >= 2
        assert sizes(list(lists(epoch))).tolist() == expected
    assert lists.query_ids == [one.query_id for one in lists(0)]


def test_a_list_is_picked_when_it_is_asked_for():
    """A pick that is refused harms nobody who does not want it."""

    class Once(RandomDepth):
        def pick(self, pool, k, draw):
            if pool.query_id != "q7":
                raise AssertionError(pool.query_id)
            return super().pick(pool, k, draw)

    lists = drawn(judged(), Once(), 4, seed=0)
    epoch = lists(2)
    assert len(epoch) == 30 and sizes(epoch).sum() == 120
    assert epoch[7] == epoch[-23] == drawn(judged(), RandomDepth(), 4, seed=0)(2)[7]
    with pytest.raises(IndexError):
        epoch[30]


def with_scores(scores) -> pd.DataFrame:
    return ranked(len(scores), queries=["q0"]).assign(teacher_score=scores)


def test_one_passage_is_drawn_of_each_stratum_of_scores():
    """Seven passages in three strata: quantiles .07 .21 .36 .5 .64 .79 .93 in 2, 3 and 2."""
    scores = np.array([0.3, -9.0, 4.0, 0.1, 50.0, 0.2, 3.0])  # by score: 1 3 5 0 6 2 4
    for scaled in (scores, np.exp(scores), scores.argsort().argsort()):  # an order is enough
        seen = places(drawn(with_scores(scaled), ScoreQuantiles(), 3, seed=0), range(1200))
        expected = itertools.product((1, 3), (5, 0, 6), (2, 4))
        assert set(seen) == {tuple(sorted(chosen)) for chosen in expected}
        assert min(seen.values()) > 60  # 100 of each of twelve


def test_equal_scores_are_one_stratum():
    """Four equal ones of six are in the middle of three strata, whatever their places."""
    for scores, low, high in (([5, 5, 9, 5, 5, 1], 5, 2), ([1, 5, 5, 5, 5, 9], 0, 5)):
        tied = [i for i in range(6) if scores[i] == 5]
        seen = places(drawn(with_scores(scores), ScoreQuantiles(), 3, seed=0), range(400))
        assert set(seen) == {tuple(sorted((low, i, high))) for i in tied}
        assert min(seen.values()) > 60  # 100 of each of four
    # all are equal: a draw of any three; and without a score a passage is below all others
    seen = places(drawn(with_scores([2.0] * 5), ScoreQuantiles(), 3, seed=0), range(500))
    assert set(seen) == {*itertools.combinations(range(5), 3)} and min(seen.values()) > 25
    nothing = places(drawn(with_scores([1.0, math.nan, 2.0, 3.0]), ScoreQuantiles(), 4, 0), [0])
    assert set(nothing) == {(0, 1, 2, 3)}
    lowest = places(drawn(with_scores([1.0, math.nan, 2.0, 3.0]), ScoreQuantiles(), 2, 0))
    assert set(lowest) == {(0, 2), (0, 3), (1, 2), (1, 3)}


@pytest.mark.parametrize("n", [1, 2, 5, 9, 40])
@pytest.mark.parametrize("k", [2, 5, 8])
def test_strata_are_as_large_as_each_other(n, k):
    scores = np.random.default_rng(n).normal(size=n)
    for epoch in range(9):
        [*lists] = drawn(with_scores(scores), ScoreQuantiles(), k, seed=1)(epoch)
        for one in lists:
            assert len(one.doc_ids) == min(n, k)
            by_score = scores.argsort().argsort()[[int(d[1:]) for d in one.doc_ids]]
            strata = np.floor(k * (by_score + 0.5) / n).astype(int)
            assert n < k or sorted(strata) == [*range(k)]


def test_the_teachers_head_and_a_draw_from_its_band():
    """The teacher reverses eight; its second and third tie, and keep the first stage's order."""
    table = ranked(8, queries=["q0"])
    table.loc[table.doc_id == "d5", "teacher_rank"] = 2  # the teacher: 7 5 6 4 3 2 1 0
    picker = HeadAndBand(head=2, band=(4, 6))
    seen = places(drawn(table, picker, 4, seed=0), range(90))
    assert set(seen) == {tuple(sorted((7, 5, *two))) for two in [(4, 3), (4, 2), (3, 2)]}
    assert min(seen.values()) > 15
    first = drawn(table, picker, 4, seed=0)(0)[0]
    assert first.doc_ids[:2] == ("d7", "d5") and first.teacher_ranks[:2] == (1, 2)
    short = places(drawn(ranked(5, queries=["q0"]), picker, 5, seed=0), range(20))
    assert set(short) == {(0, 1, 3, 4)}  # the band ends with the ranking
    assert len(drawn(ranked(1, queries=["q0"]), picker, 4, seed=0)(0)) == 0


@pytest.mark.parametrize(
    ("picker", "depth"),
    [
        (HeadAndBand(5, (6, 9)), {"k": 10}),  # four, five wanted
        (HeadAndBand(5, (48, 60)), {"k": 10}),  # three of them are ranked
        (HeadAndBand(10, (20, 40)), {"k": 10}),  # nothing is drawn
        (ScoreQuantiles(), {"k": 50}),
        (ScoreQuantiles(), {"k": 10, "mode": "relabel"}),
    ],
)
def test_depth_refuses_what_can_give_no_whole_list(picker, depth):
    with pytest.raises(ValueError, match=rf"^depth\.lists={type(picker).__name__}"):
        configured("depth", Depth, **({"pool": 50} | depth), lists=picker)
    configured("depth", Depth, 10, pool=50, lists=HeadAndBand(5, (46, 60)))


@pytest.mark.parametrize("band", [[5, 9], [9, 8], [6], [6, 7, 8], 6])
def test_a_band_is_below_the_head(band):
    check_refused("depth.lists", HeadAndBand, head=5, band=band)


# --- depth and picking ---


def test_depth_draws_from_all_that_the_teacher_ranked():
    first = candidates(6, ("q1", "q2"))
    teacher = taught({"q1": [6, 5, 4, 3, 2, 1], "q2": [1, 2, 3, 4, 5, 6]})
    assert len(Depth(2, pool=6, lists=LogRank()).select(first, teacher)) == 12
    half = Depth(2, "teacher", pool=6, lists=HalfTopHalfRandom())
    seen = {}
    for epoch in range(60):
        for drawn_list in half.draws(half.select(first, teacher), {}, 0)(epoch):
            seen.setdefault(drawn_list.query_id, Counter()).update(drawn_list.doc_ids)
    assert seen["q1"]["d6"] == seen["q2"]["d1"] == 60  # the teacher's first
    assert len(seen["q1"]) == len(seen["q2"]) == 6
    by_first = Depth(2, pool=6, lists=HalfTopHalfRandom())
    reversed_list = by_first.draws(by_first.select(first, teacher), {}, 0)(0)[0]
    assert reversed_list.doc_ids[0] == "d1" and reversed_list.teacher_ranks[0] == 6


def test_depth_tells_relevant_passages():
    depth = Depth(3, pool=6, lists=SingleRelevant())
    selected = depth.select(candidates(), taught({"q1": [6, 5, 4, 3, 2, 1]}))
    assert depth.draws(selected, {"q1": {"d4": 1, "outside": 1}}, 0)(0)[0].doc_ids[0] == "d4"
    assert depth.draws(selected, {"q1": {"outside": 1}}, 0)(0) == []
    assert Depth(3, pool=6).draws(selected, {}, 0)(0) == fixed(selected)(0)


@pytest.mark.parametrize("values", [{"mode": "relabel"}, {"pool": 10}])
def test_depth_refuses_to_draw_from_nothing(values):
    with pytest.raises(ValueError, match=r"^depth\.lists=RandomDepth"):
        configured("depth", Depth, **({"k": 10, "pool": 50} | values), lists=RandomDepth())


@pytest.mark.parametrize("teacher", ["gpt-3.5-turbo.bm25-pyserini", "rankvicuna-7b.bm25-pyserini"])
def test_the_three_meanings_of_depth_are_three_label_sets(teacher):
    """On real rankings of 100: what a teacher that ranks ten says is not known, so its order of the
    first ten stands for it; the labels differ in ranks or in passages all the same."""
    runs = list((DL19 / "runs").glob(f"*{teacher}*")) if DL19.exists() else []
    if not runs:
        pytest.skip("no such ranking of TREC DL 2019")
    first = rankings.read_trec(DL19 / "runs" / "bm25-pyserini.run")
    order = rankings.read_trec(runs[0], order="rank").rename(columns={"rank": "teacher_rank"})
    order = order.assign(state="ok")
    ten = first[first["rank"] <= 10]
    shown = order.merge(ten[["query_id", "doc_id"]], on=["query_id", "doc_id"])
    shown = shown.assign(teacher_rank=shown.groupby("query_id").teacher_rank.rank().astype(int))
    sets = {
        "first_stage": Depth(10, pool=100).select(first, order),
        "teacher": Depth(10, "teacher", pool=100).select(first, order),
        "relabel": Depth(10, "relabel").select(ten, shown),
    }
    by_mode = {mode: labels(lists) for mode, lists in sets.items()}
    for one, other in itertools.combinations(by_mode.values(), 2):
        assert set(one) == set(other) and sum(one[q] != other[q] for q in one) > 30
    assert all(len(lists) == 43 for lists in by_mode.values())
    assert all(len(ranks) == 10 for lists in by_mode.values() for ranks in lists.values())
    passages = {mode: {q: set(r) for q, r in lists.items()} for mode, lists in by_mode.items()}
    assert passages["first_stage"] == passages["relabel"] != passages["teacher"]
    for mode in ("relabel", "teacher"):
        assert all(sorted(ranks.values()) == [*range(1, 11)] for ranks in by_mode[mode].values())
    assert sets["first_stage"]["rank"].max() == 10 < sets["teacher"]["rank"].max()
    # the last window is the first twenty: nothing falls out of it
    assert 10 < max(max(ranks.values()) for ranks in by_mode["first_stage"].values()) <= 20
