"""The label audit: hand-worked numbers, naive loops, simulated teachers, and recorded ones."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from rdx import facts, rankings
from rdx.facts import Agreement, Audit, Moves, PositionBias, Slope
from rdx.teachers.audit import audit, rbo, remarks, summary
from rdx.teachers.parsing import parse
from rdx.teachers.windows import applied, positions

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
DL19 = DATA / "trec-dl-2019"
REPLAY = DATA / "teacher-outputs" / "replay"


def candidates(lists: dict[str, str]) -> pd.DataFrame:
    """A first stage that ranks one-letter passages as they are written."""
    rows = [(q, d, i) for q, docs in lists.items() for i, d in enumerate(docs, 1)]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "rank"])


def taught(lists: dict[str, str], **states: str) -> pd.DataFrame:
    rows = [
        (q, d, i, states.get(q, "ok")) for q, docs in lists.items() for i, d in enumerate(docs, 1)
    ]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "teacher_rank", "state"])


def judgements(grades: dict[str, dict[str, int]]) -> pd.DataFrame:
    rows = [(q, d, grade) for q, docs in grades.items() for d, grade in docs.items()]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])


def window(query_id, shown, answer, start=0, *, shuffle=0, turn=0, state="ok", tries=1, words=300):
    return {
        "query_id": query_id, "shuffle": shuffle, "pass": turn, "start": start,
        "end": start + len(shown), "state": state, "tries": tries, "words": words,
        "shown": list(shown), "given": list(answer),
    }  # fmt: skip


# --- RBO ---


def naive_rbo(ranking, other, p):
    """Equation 32, term by term."""

    def overlap(ranking, other, depth):
        return len(set(ranking[:depth]) & set(other[:depth]))

    short, long = sorted((ranking, other), key=len)
    s, n = len(short), len(long)
    x_s, x_n = overlap(short, long, s), overlap(short, long, n)
    total = sum(overlap(short, long, d) / d * p**d for d in range(1, n + 1))
    total += sum(x_s * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * total + ((x_n - x_s) / n + x_s / s) * p**n


@pytest.mark.parametrize(
    ("ranking", "other", "p", "expected"),
    [
        ("ab", "ba", 0.5, 0.5),  # agreement 0, 1: (0 + 1/4) + 1/4
        ("abcd", "bacd", 0.9, 0.9),  # 0, 1, 1, 1: all but the first rank's weight
        ("abc", "abc", 0.9, 1.0),
        ("abc", "xyz", 0.9, 0.0),
        ("abc", "a", 0.5, 1.0),  # a prefix says nothing against
        ("ab", "b", 0.5, 0.25),  # 0, 1/2: 1/2 * 1/4 + 1/2 * 1/4
        ("abcde", "bcdae", 0.9, 0.828),  # as the README of rankmeasures has it
    ],
)
def test_rbo_of_hand_worked_rankings(ranking, other, p, expected):
    assert rbo(ranking, other, p) == approx(expected, abs=1e-12 if expected != 0.828 else 5e-4)
    assert rbo(other, ranking, p) == rbo(ranking, other, p)


def test_rbo_gives_the_first_ten_ranks_the_published_weight():
    # Section 4.4 of the paper: with p = .9 the first 10 ranks have 86 % of the weight, with
    # p = .98 the first 50; its equation 21 gives these digits. Rankings that are the same up to
    # there, and share nothing below, have just that overlap.
    for p, depth, weight in [(0.9, 10, 0.85558544674735182), (0.98, 50, 0.85223391031940043)]:
        same = [f"same{i}" for i in range(depth)]
        ranking, other = ([*same, *(f"{name}{i}" for i in range(4000))] for name in "ab")
        assert rbo(ranking, other, p) == approx(weight, abs=1e-12)


@given(
    st.permutations(range(12)),
    st.permutations(range(12)),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0.05, 0.99),
)
def test_rbo_equals_the_sum_term_by_term(ranking, other, n, m, p):
    value = rbo(ranking[:n], other[:m], p)
    assert value == approx(naive_rbo(ranking[:n], other[:m], p), abs=1e-12)
    assert -1e-12 <= value <= 1 + 1e-12


@pytest.mark.parametrize(
    ("ranking", "other", "p"),
    [
        ("ab", "ab", 1.0),
        ("ab", "ab", 0),
        ("", "ab", 0.9),
        ("ab", "aba", 0.9),
    ],
)
def test_rbo_refuses_what_has_no_value(ranking, other, p):
    with pytest.raises(ValueError):
        rbo(ranking, other, p)


# --- states and moves ---

FIRST = candidates({"q1": "abcd", "q2": "xy", "q3": "mn", "q4": "s"})
TAUGHT = taught({"q1": "bacd", "q2": "xy", "q3": "nm", "q4": "s"}, q2="repaired", q3="malformed")


def test_lists_are_counted_by_state():
    lists = audit(TAUGHT, FIRST).lists
    assert lists.total == 4 and lists.left_out == 1
    expected = {"ok": 2, "repaired": 1, "malformed": 1, "refused": 0, "failed": 0}
    assert lists.counts == expected
    assert lists.shares == {state: n / 4 for state, n in expected.items()}


def test_moves_are_those_of_usable_lists_of_several_passages():
    moves = audit(TAUGHT, FIRST).moves
    assert moves.lists == 2  # q1 and q2; q3 is malformed, q4 has one passage
    assert moves.shift == approx((0.5 + 0) / 2)
    assert moves.shift_at_random == approx((15 / 12 + 3 / 6) / 2)
    assert moves.kendall_tau == approx((4 / 6 + 1) / 2)  # five pairs of six agree
    assert moves.rbo == approx((0.9 + 1) / 2)
    assert moves.unchanged == 0.5


def test_the_shift_at_random_is_what_random_permutations_have():
    draw, n = np.random.default_rng(5), 9
    shifts = [np.abs(draw.permutation(n) - np.arange(n)).mean() for _ in range(20_000)]
    moves = audit(taught({"q": "abcdefghi"}), candidates({"q": "abcdefghi"})).moves
    assert moves.shift_at_random == approx(np.mean(shifts), abs=0.03)


def test_ties_of_the_teacher_share_their_mean_place():
    tied = TAUGHT[TAUGHT.query_id == "q1"].assign(teacher_rank=[1, 1, 2, 2])  # b = a > c = d
    moves = audit(tied, FIRST[FIRST.query_id == "q1"]).moves
    assert moves.shift == 0.5  # everybody is half a place from where it was
    assert moves.kendall_tau == approx(4 / math.sqrt(4 * 6))  # tau-b
    assert moves.unchanged == 0


def test_the_order_of_rows_does_not_matter():
    shuffled = [frame.sample(frac=1, random_state=3) for frame in (TAUGHT, FIRST)]
    qrels = judgements({"q1": {"a": 1, "c": 2}})
    sorted_rows, other = audit(TAUGHT, FIRST, qrels=qrels), audit(*shuffled, qrels=qrels)
    assert other.lists == sorted_rows.lists
    assert vars(other.moves) == approx(vars(sorted_rows.moves))
    assert vars(other.effectiveness.all) == approx(vars(sorted_rows.effectiveness.all))


def test_other_passages_than_the_candidates_are_an_error():
    for wrong in (
        TAUGHT.iloc[1:],
        pd.concat([TAUGHT, taught({"q5": "z"})]),
        TAUGHT.replace({"doc_id": {"a": "e"}}),
        pd.concat([TAUGHT, TAUGHT.iloc[:1]]),
    ):
        with pytest.raises(ValueError):
            audit(wrong, FIRST)


# --- windows and position bias ---


def test_windows_are_counted_with_all_their_answers():
    rows = [
        window("q1", "cd", "cd", 2),
        window("q1", "abc", "cab", tries=3, words=225, state="repaired"),
        window("q2", "xy", "", tries=3, state="refused"),
        window("q3", "mn", "", tries=1, state="failed"),
    ]
    windows = audit(TAUGHT, FIRST, pd.DataFrame(rows)).windows
    expected = {"ok": 1, "repaired": 1, "malformed": 0, "refused": 1, "failed": 1}
    assert windows.counts == expected and windows.left_out == 2
    assert windows.answers == 8 and windows.asked_again == 0.5
    assert windows.words == {"300": 3, "225": 1}
    assert windows.thinking_tokens == 0  # nobody said so


def test_thinking_tokens_are_summed_over_windows():
    rows = [window("q1", "abc", "cab") | {"thinking": 1200}, window("q2", "xy", "yx")]
    rows[1]["thinking"] = 34
    facts_of = audit(TAUGHT, FIRST, pd.DataFrame(rows))
    assert facts_of.windows.thinking_tokens == 1234
    assert facts.numbers(facts_of)["windows/thinking_tokens"] == 1234
    assert "1,234" in summary(facts_of)
    older = json.loads(facts.dump(facts_of))
    del older["windows"]["thinking_tokens"]
    assert facts.parse(Audit, json.dumps(older)).windows.thinking_tokens == 0


def test_position_bias_of_hand_worked_windows():
    rows = [
        window("q1", "abc", "cab"),  # ranks by position 2, 3, 1: slope (-2 + 1) / 2
        window("q2", "xyz", "xyz"),  # 1, 2, 3: slope 1
        window("q3", "mn", "nm", state="failed"),  # not counted
    ]
    lists = {"q1": "abc", "q2": "xyz", "q3": "mn"}
    bias = audit(taught(lists), candidates(lists), pd.DataFrame(rows)).position_bias
    assert bias.shuffled is None  # both lists were shown as the first stage had them
    assert (bias.all.windows, bias.all.size) == (2, 3)
    assert bias.all.mean_rank == (1.5, 2.5, 2.0)
    assert bias.all.excess == (-0.5, 0.5, 0.0)
    # two queries: -1/2 and 1, standard deviation 1.5 / sqrt(2), t(.975, 1) = 12.7062
    half = 12.7062047 * 1.5 / 2
    expected = {"mean": 0.25, "low": 0.25 - half, "high": 0.25 + half, "queries": 2}
    assert vars(bias.all.slope) == approx(expected, rel=1e-6)


def test_the_windows_of_a_query_count_as_one():
    rows = [window("q1", "ab", "ab"), window("q1", "ab", "ab"), window("q2", "xy", "yx")]
    lists = {"q1": "ab", "q2": "xy"}
    bias = audit(taught(lists), candidates(lists), pd.DataFrame(rows)).position_bias
    assert bias.all.slope.mean == 0  # not 1/3
    alone = audit(taught({"q1": "ab"}), candidates({"q1": "ab"}), pd.DataFrame(rows[:1]))
    assert alone.position_bias.all.slope == Slope(mean=1, low=None, high=None, queries=1)


def test_bias_is_measured_where_the_input_was_random():
    # of a shuffled list only the first window of the first pass: the others were sorted before
    rows = [
        window("q1", "cd", "cd", 2),  # as the first stage has it
        window("q1", "abc", "abc"),
        window("q1", "ab", "ba", 2, shuffle=1),  # slope -1
        window("q1", "cdb", "cdb", shuffle=1),
        window("q1", "ab", "ab", 2, shuffle=1, turn=1),
    ]
    lists = {"q1": "abcd"}
    frame = pd.DataFrame(rows)
    bias = audit(taught(lists), candidates(lists), frame).position_bias
    assert bias.all.windows == 5 and bias.shuffled.windows == 1
    assert bias.shuffled.slope.mean == -1
    # the first input order is shuffled too if any list says so
    frame.at[0, "shown"] = ["d", "c"]
    bias = audit(taught(lists), candidates(lists), frame).position_bias
    assert bias.shuffled.windows == 2
    assert bias.shuffled.slope.mean == -1  # c came before d: both windows are reversed


def simulated(favour: float, *, queries=60, size=20):
    """One window per list, first as given, then shuffled; relevance follows the first stage.

    The teacher orders by relevance plus noise, and by `favour` standard deviations from the last
    to the first position.
    """
    draw = np.random.default_rng(11)
    lists, orders, rows = {}, {}, []
    for number in range(queries):
        query_id, docs = f"q{number}", np.array([chr(97 + i) for i in range(size)])
        relevance = draw.normal(size=size) - np.arange(size) / size * 2
        lists[query_id] = "".join(docs)
        for shuffle in (0, 1):
            order = draw.permutation(size) if shuffle else np.arange(size)
            said = relevance[order] - favour * np.arange(size) / size + draw.normal(size=size) / 2
            answer = docs[order[np.argsort(-said)]]
            rows.append(window(query_id, docs[order], answer, shuffle=shuffle))
            orders[query_id] = "".join(answer)
    return taught(orders), candidates(lists), pd.DataFrame(rows)


def test_a_teacher_without_bias_has_none_where_the_input_is_random():
    unbiased = audit(*simulated(0.0))
    bias = unbiased.position_bias
    assert bias.shuffled.windows == 60
    assert bias.shuffled.slope.low < 0 < bias.shuffled.slope.high
    assert bias.all.slope.low > 0.1  # it agrees with the first stage, which is no bias
    assert remarks(unbiased) == []


def test_a_bias_towards_the_start_is_found():
    biased = audit(*simulated(3.0))
    bias = biased.position_bias.shuffled
    assert bias.slope.low > 0.1 and bias.excess[0] < 0 < bias.excess[-1]
    assert remarks(biased) == ["of passages in random order, those shown first are ranked higher"]
    assert "those shown last" in remarks(audit(*simulated(-3.0)))[0]


def test_windows_out_of_a_file_are_the_same(tmp_path):
    ranked, first, frame = simulated(1.0, queries=3)
    rankings.write_parquet(frame, tmp_path / "windows.parquet")
    stored = rankings.read_parquet(tmp_path / "windows.parquet")
    assert audit(ranked, first, stored) == audit(ranked, first, frame)


# --- effectiveness ---


def test_ndcg_of_teacher_input_and_oracle():
    grades = {"q1": {"a": 1, "c": 2, "elsewhere": 1}, "q3": {"m": 1}, "unseen": {"z": 1}}
    effectiveness = audit(TAUGHT, FIRST, qrels=judgements(grades)).effectiveness
    log3 = math.log2(3)
    ideal = 2 + 1 / log3 + 1 / 2  # the passage that is not a candidate counts
    q1 = {
        "teacher": (1 / log3 + 2 / 2) / ideal,  # b a c d
        "input": (1 + 2 / 2) / ideal,  # a b c d
        "oracle": (2 + 1 / log3) / ideal,  # c a b d
        "judged_at_10": 2 / 4,
    }
    assert effectiveness.measure == "nDCG@10"
    assert vars(effectiveness.usable) == approx({"queries": 1, **q1})
    # q3 is malformed: as it was given, m n, whatever the frame says
    both = {
        name: (value + (0.5 if name == "judged_at_10" else 1)) / 2 for name, value in q1.items()
    }
    assert vars(effectiveness.all) == approx({"queries": 2, **both})


def test_without_judgements_there_is_no_effectiveness():
    assert audit(TAUGHT, FIRST).effectiveness is None
    assert audit(TAUGHT, FIRST, qrels=judgements({"q9": {"a": 1}})).effectiveness is None
    malformed = audit(TAUGHT, FIRST, qrels=judgements({"q3": {"m": 1}})).effectiveness
    assert malformed.usable is None and malformed.all.teacher == 1


def test_labels_of_the_teacher_that_are_tied_keep_the_order_of_the_input():
    qrels = judgements({"q1": {"a": 1, "c": 2}})
    usable = audit(TAUGHT.assign(teacher_rank=1), FIRST, qrels=qrels).effectiveness.usable
    assert usable.teacher == usable.input


# --- agreement ---


def test_agreement_with_another_teacher():
    theirs = taught({"q1": "abcd", "q2": "yx", "q3": "mn"}, q2="failed")
    # q2 failed there, q3 here, q4 is missing: only q1 is left
    expected = {"lists": 1, "p": 0.9, "rbo": 0.9, "kendall_tau": 4 / 6, "shared": 1}
    assert vars(audit(TAUGHT, FIRST, other=theirs).agreement) == approx(expected)


def test_agreement_is_that_of_the_shared_passages():
    theirs = taught({"q1": "zdba", "q2": "x"}).drop(columns="state")
    agreement = audit(TAUGHT, FIRST, other=theirs).agreement
    # q1: b a c d and d b a (z is no candidate); of q2 a single passage is shared
    assert agreement.lists == 1 and agreement.shared == 0.75
    assert agreement.kendall_tau == approx(-1 / 3)
    assert agreement.rbo == approx(naive_rbo("bacd", "dba", 0.9))


def test_agreement_without_a_common_list():
    nothing = audit(TAUGHT, FIRST, other=taught({"q9": "ab"})).agreement
    assert nothing == Agreement(lists=0, p=0.9, rbo=None, kendall_tau=None, shared=None)


# --- remarks and summary ---


def test_remarks_name_what_stands_out():
    grades = judgements({"q1": {"a": 1, "c": 2}, "q2": {"x": 1}})
    assert remarks(audit(TAUGHT, FIRST, qrels=grades)) == [
        "1 of 4 lists have no label",
        "by the judgements the teacher is worse than its input",
        "only 50% of the teacher's first ten are judged: its nDCG@10 is a lower bound",
    ]
    unchanged = taught({"q1": "abcd", "q2": "xy", "q3": "mn", "q4": "s"})
    assert remarks(audit(unchanged, FIRST)) == ["100% of the lists came back as they were given"]


def test_nothing_to_say_of_lists_that_all_failed():
    failed = TAUGHT.assign(state="failed")
    nothing = audit(failed, FIRST, other=failed)
    assert nothing.moves == Moves(
        lists=0, shift=None, shift_at_random=None, kendall_tau=None, rbo=None, unchanged=None
    )
    assert summary(nothing).splitlines() == [
        "Lists          4: 100.0% failed; 4 left out",
        "Other teacher  no list that both rank",
        "Remark         4 of 4 lists have no label",
    ]


def test_the_summary_has_a_line_per_aspect():
    twice = summary(audit(TAUGHT, FIRST, qrels=judgements({"q1": {"a": 1}, "q3": {"m": 1}})))
    assert "input 1.0000, oracle 1.0000 (usable lists, 1 query; Judged@10 0.25)" in twice
    assert "input 1.0000, oracle 1.0000 (all lists, failed as given, 2 queries; Judged" in twice
    ranked, first, frame = simulated(3.0)
    grades = judgements({q: {"a": 1, "b": 2} for q in first.query_id.unique()})
    full = audit(ranked, first, frame, grades, other=ranked)
    assert facts.parse(Audit, facts.dump(full)) == full
    lines = summary(full).splitlines()
    assert [line[:15].strip() for line in lines] == [
        "Lists", "Moves", "Windows", "Position bias", "Position bias", "nDCG@10",
        "Other teacher", "Remark", "Remark", "Remark",
    ]  # fmt: skip
    assert "120 answers, 0.0% of the windows asked again; words of a passage: 300" in lines[2]
    assert "RBO 1.000, Kendall tau 1.000 (60 lists, 100% of their passages shared)" in lines[6]


# --- recorded teachers ---


@pytest.fixture(scope="module")
def dl19():
    if not DL19.exists():
        pytest.skip("no TREC DL 2019")
    first = rankings.read_trec(DL19 / "runs" / "bm25-pyserini.run")
    return first, rankings.read_qrels(DL19 / "qrels.txt")


def recorded(name: str) -> pd.DataFrame:
    run = rankings.read_trec(DL19 / "runs" / f"teacher-{name}.bm25-pyserini.run", order="rank")
    return run.rename(columns={"rank": "teacher_rank"}).assign(state="ok")


def test_recorded_teachers_have_the_published_effectiveness(dl19):
    first, qrels = dl19
    gpt, vicuna = recorded("gpt-3.5-turbo"), recorded("rankvicuna-7b")
    of_gpt = audit(gpt, first, qrels=qrels, other=vicuna)
    usable = of_gpt.effectiveness.usable
    assert usable == of_gpt.effectiveness.all
    assert usable.queries == 43
    assert usable.input == approx(0.5058, abs=5e-5)
    assert usable.teacher == approx(0.68, abs=0.01)
    assert usable.oracle > 0.85
    of_vicuna = audit(vicuna, first, qrels=qrels, other=gpt)
    assert of_vicuna.effectiveness.usable.teacher == approx(0.667, abs=1e-3)
    assert vars(of_vicuna.agreement) == approx(vars(of_gpt.agreement))
    # two teachers that work agree more with each other than with what they were given
    assert of_gpt.agreement.rbo > max(of_gpt.moves.rbo, of_vicuna.moves.rbo)
    assert remarks(of_gpt) == []


def replayed(pattern: str, first: pd.DataFrame):
    """A recorded session as teacher ranking and windows, read by the strict rule."""
    if not REPLAY.exists():
        pytest.skip("no recorded answers")
    (path,) = REPLAY.glob(pattern)
    sessions = [json.loads(line) for line in path.read_text().splitlines()]
    lists = {q: list(rows.doc_id) for q, rows in first.groupby("query_id", sort=False)}
    rows, ranks = [], []
    for session in sessions:
        query_id, order, state = session["qid"], list(lists[session["qid"]]), "ok"
        assert session["windows"] == [list(span) for span in positions(len(order), 20, 10)]
        for (start, end), text in zip(session["windows"], session["responses"], strict=True):
            shown = order[start:end]
            parsed = parse(text, end - start)
            answer = [shown[i] for i in parsed.order or ()]
            rows.append(window(query_id, shown, answer, start, state=parsed.state))
            if parsed.order is None:
                order, state = lists[query_id], parsed.state
                break
            order = applied(order, start, parsed.order)
            state = "repaired" if parsed.state == "repaired" else state
        ranks += [(query_id, d, i, state) for i, d in enumerate(order, 1)]
    columns = ["query_id", "doc_id", "teacher_rank", "state"]
    frame = pd.DataFrame(ranks, columns=columns)
    return frame, first[first.query_id.isin(frame.query_id)], pd.DataFrame(rows)


def test_a_recorded_session_of_a_teacher_that_works(dl19):
    first, qrels = dl19
    labels = audit(*replayed("*vicuna_7b_4096.top100*.jsonl", first), qrels)
    assert labels.lists.counts["ok"] == 43
    assert labels.windows.counts["ok"] == labels.windows.answers == 43 * 9
    assert labels.effectiveness.usable.teacher == approx(0.6840, abs=5e-5)
    # Ten of a window are fresh, ten were sorted by the window before: the best of them, in the
    # middle of the prompt, come out first, and a straight line says little about that.
    bias = labels.position_bias
    assert bias.shuffled is None
    assert int(np.argmin(bias.all.mean_rank)) == 10
    assert bias.all.slope.mean < 0.2
    assert remarks(labels) == []


def test_a_recorded_teacher_that_repeats_its_input_is_found_out(dl19):
    first, qrels = dl19
    labels = audit(*replayed("*vicuna-7b*.jsonl", first), qrels)
    assert labels.moves.unchanged > 0.5
    assert labels.position_bias.all.slope.low > 0.9
    assert any("came back as they were given" in text for text in remarks(labels))


def test_a_recorded_teacher_that_does_not_answer_has_no_labels(dl19):
    first, qrels = dl19
    labels = audit(*replayed("*vicuna-13b*.jsonl", first), qrels)
    assert labels.lists.counts["malformed"] == labels.lists.left_out == 43
    assert labels.position_bias == PositionBias(all=None, shuffled=None)
    assert labels.effectiveness.usable is None
    every = labels.effectiveness.all
    assert every.teacher == every.input == approx(0.5058, abs=5e-5)
    assert remarks(labels) == ["43 of 43 lists have no label"]
