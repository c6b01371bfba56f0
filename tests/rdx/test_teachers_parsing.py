"""Answers of LLMs: hand-worked ones of every state, recorded ones, and any text at all."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdx import rankings
from rdx.teachers.parsing import parse
from rdx.teachers.windows import applied, positions

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
ANSWERS = DATA / "teacher-outputs"

CHAIN = "[2] > [4] > [1] > [3]"
ORDER = (1, 3, 0, 2)
# what an answer may be made of, so that random texts come near to the grammar
PIECES = st.sampled_from(
    [f"[{i}]" for i in range(7)]
    + [str(i) for i in range(7)]
    + [" > ", ">", "\n", " ", ".", "...", "[ ]", "[B]", "A", "Ranking:", "```", "**", "sorry", "٣"]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))


# --- strict ---


@pytest.mark.parametrize(
    "text",
    [
        CHAIN,
        "[2]>[4]>[1]>[3]",
        "\n\n  [2] >  [4] >\n[1] > [3].  \n",
        "[ 2 ] > [4] > [01] > [3]",
        "2 > 4 > 1 > 3",
        "\r\n2>4>1>3.\r\n",
        "Ranking: [2] > [4] > [1] > [3]",
        "Here is the ranking of the passages:\n\n2 > 4 > 1 > 3",
        "```\n[2] > [4] > [1] > [3]\n```",
        "**Final ranking:**\n```text\n2 > 4 > 1 > 3\n```\n",
        "**[2]** > **[4]** > **[1]** > **[3]**",
        "<think>[1] > [2]? No: 4 cats.</think>\n\n[2] > [4] > [1] > [3]",
    ],
)
def test_the_grammar_is_ok(text):
    assert parse(text, 4) == (ORDER, "ok")


@pytest.mark.parametrize(
    ("text", "order"),
    [
        # a second time, out of range, no identifier, missing
        ("[2] > [4] > [2] > [1] > [4] > [3]", (1, 3, 0, 2)),
        ("[2] > [9] > [4] > [0] > [1] > [3] > [123]", (1, 3, 0, 2)),
        ("[ ] > [4] > [2O] > [Empty] > [3]", (3, 2, 0, 1)),
        ("[4] > [3] > [1]2", (3, 2, 0, 1)),
        ("[4] > [2]", (3, 1, 0, 2)),
        ("4 > 2", (3, 1, 0, 2)),
        ("4 > 5 > 2 > 4", (3, 1, 0, 2)),
        (f"[9] > {CHAIN}", ORDER),
        ("[9999999999] > [2] > [" + "1" * 70 + "] > [4]", (1, 3, 0, 2)),
        ("2 > " + "1" * 6000 + " > 4", (1, 3, 0, 2)),
        # all there, but not alone
        (f"{CHAIN} >", ORDER),
        ("2 > 4 > 1 > 3 >", ORDER),
        (f"1. {CHAIN}", ORDER),
        (f"[ ] > No passage is about it.\n{CHAIN}", ORDER),
        (f"I'm sorry, none of the passages is about cats. Still: {CHAIN}, then.", ORDER),
        (f"{CHAIN}\n\nPassage [2] is about 20 cats; [4] says that 5 > 3, see [1].", ORDER),
        ("All 4 are about cats.\n2 > 4 > 1 > 3\nThe 2nd is best.", ORDER),
        # other chains that say the same
        (f"{CHAIN}\n{CHAIN}", ORDER),
        (f"As [2] > [1], the ranking is {CHAIN}", ORDER),
        (f"{CHAIN}\n2 > 1 > 3", ORDER),
        ("[1] > ... > [3]\nThat is: [1] > [4] > [2] > [3]", (0, 3, 1, 2)),
        # an elision where nothing is missing
        (f"{CHAIN} > ...", ORDER),
    ],
)
def test_repaired(text, order):
    assert parse(text, 4) == (order, "repaired")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "[]",
        "[] > []",
        "[ ] > [ ] > [ ] > [ ]",
        # one identifier orders nothing, however often it comes
        "[3]",
        "3",
        "[3] > [3] > [3]",
        "[3] > [7]",
        # digits in prose
        "passage 3 is about 20 cats",
        "4 passages have been provided.",
        "Temperatures of 4 > 3 > 2 > 1 degrees.",
        "Passage 2 > passage 1 > passage 3 > passage 4",
        "See [2], [4], [1] and [3].",
        # other grammars
        "[2] [4] [1] [3]",
        "2, 4, 1, 3",
        "1. [2]\n2. [4]\n3. [1]\n4. [3]",
        "1. [2] > 2. [4] > 3. [1] > 4. [3]",
        "[2] < [4] < [1] < [3]",
        "[B] > [D] > [A] > [C]",
        "[2] > [4] = [1] > [3]",
        # contradicting chains, and chains that leave open how they go together
        f"{CHAIN}\n[3] > [4] > [1] > [2]",
        f"{CHAIN}\n4 > 2",
        "[2] > [1]\n[3] > [4]",
        "1. [1] > [2] 2. [1] > [3] 3. [1] > [4]",
        # what stands for what the model did not write
        "[4] > [2] > ... > [1]",
        "[4] > [2] > […]\n[4] > … > [3]",
        # no answer after the thoughts
        f"<think>So it is {CHAIN}",
        f"<think>{CHAIN}</think>",
    ],
)
def test_malformed(text):
    assert parse(text, 4) == (None, "malformed")


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can’t help with that.",
        "I apologize, the query is not clear.",
        "I cannot rank 4 passages.",
        "As an AI language model, I have no opinions.",
        "It is not possible to fairly rank these.",
        "I must decline.",
        "[Not enough information to rank the passages. Please provide more.]",
        "[ ] > No passage is relevant to the search query.",
        "None of the given passages answers the question.",
        # its example is no ranking
        "I am unable to rank them in the form [2] > [1].",
    ],
)
def test_refused(text):
    assert parse(text, 6) == (None, "refused")


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        (CHAIN, 4, (ORDER, "ok")),
        (f"{CHAIN}\n\nThe reason is that passage", 4, (ORDER, "repaired")),
        ("[2] > [4] > [1] > [", 4, (None, "malformed")),
        ("[2] > [4] > [2] > [4] > [2]", 4, (None, "malformed")),
        # the last was "12"
        (" > ".join(map(str, range(11, 0, -1))) + " > 1", 12, (None, "malformed")),
    ],
)
def test_a_truncated_answer_is_not_completed(text, size, expected):
    assert parse(text, size, truncated=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", ((0,), "ok")),
        ("Ranking: 1.", ((0,), "ok")),
        ("[1] > [2]", ((0,), "repaired")),
        ("[2]", (None, "malformed")),
        ("There is one passage only.", (None, "malformed")),
        ("I'm sorry.", (None, "refused")),
    ],
)
def test_one_passage_needs_its_identifier_only(text, expected):
    assert parse(text, 1) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[B] > [D] > [A] > [C]", (ORDER, "ok")),
        ("B > D > A > C", (ORDER, "ok")),
        ("Ranking:\n[B]>[D]>[A]>[C].", (ORDER, "ok")),
        ("[B] > [D] > [B] > [Z]", (ORDER, "repaired")),
        ("A cat. [B] > [D] > [A] > [C] is what I think.", (ORDER, "repaired")),
        ("[2] > [4] > [1] > [3]", (None, "malformed")),
        ("A cat is better than B.", (None, "malformed")),
        ("[b] > [d] > [a] > [c]", (None, "malformed")),
    ],
)
def test_letters(text, expected):
    assert parse(text, 4, identifiers="letters") == expected


# --- lenient ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHAIN, (ORDER, "ok")),
        ("2, 4, 1, 3", (ORDER, "ok")),
        ("[2] > [4] > [2]", (ORDER, "repaired")),
        ("1. [2] > [4]", ((0, 1, 3, 2), "repaired")),  # the number of the line is a rank
        ("passage 3 is about 20 cats", ((2, 0, 1, 3), "repaired")),  # as is any other
        ("2 > 4 > 0 > 1 > 3 > 5", (ORDER, "repaired")),
        ("2-4-1.3", (ORDER, "ok")),
        ("", ((0, 1, 2, 3), "repaired")),
        ("I'm sorry.", ((0, 1, 2, 3), "repaired")),
        ("4" * 5000 + " 2 4 1 3", (ORDER, "repaired")),
    ],
)
def test_lenient_reads_every_number(text, expected):
    assert parse(text, 4, "lenient") == expected
    assert parse(text, 4, "lenient", truncated=True) == expected


def test_lenient_letters_stand_alone():
    text = "Best is B, then D. [A] DA3 b C"
    assert parse(text, 4, "lenient", identifiers="letters") == (ORDER, "ok")


# --- any text ---


@pytest.mark.parametrize("identifiers", ["numbers", "letters"])
@pytest.mark.parametrize("rule", ["strict", "lenient"])
@given(text=TEXTS, size=st.integers(1, 26), truncated=st.booleans())
@example(text="[" + "9" * 5000 + "] > [1] > [²]", size=2, truncated=False)
@example(text="\x00[1]\ud800 > [2]", size=2, truncated=False)
def test_any_text_gives_a_permutation_or_a_stated_failure(rule, identifiers, text, size, truncated):
    order, state = parse(text, size, rule, identifiers=identifiers, truncated=truncated)
    if order is None:
        assert rule == "strict" and state in ("malformed", "refused")
    else:
        assert sorted(order) == list(range(size)) and state in ("ok", "repaired")


@given(order=st.permutations(range(20)), brackets=st.booleans(), label=st.sampled_from(["", "R: "]))
def test_every_permutation_is_read_back(order, brackets, label):
    text = label + " > ".join(f"[{i + 1}]" if brackets else str(i + 1) for i in order)
    assert parse(text, 20) == (tuple(order), "ok") == parse(text, 20, "lenient")


@given(numbers=st.lists(st.integers(0, 25), min_size=2, max_size=40))
@example(numbers=[*range(1, 11)])
@example(numbers=[*range(1, 10)])
def test_repair_is_that_of_a_naive_loop(numbers):
    kept = []
    for number in numbers:
        if 1 <= number <= 20 and number - 1 not in kept:
            kept.append(number - 1)
    full = kept + [i for i in range(20) if i not in kept]
    text = "so: " + " > ".join(f"[{number}]" for number in numbers) + ", as [3] shows"
    expected = (tuple(full), "repaired") if len(kept) >= 10 else (None, "malformed")
    assert parse(text, 20) == expected


@pytest.mark.parametrize(
    "part", [" ", "\n", "[1] ", "[1] >", "1 > ", "1\n", "[", "[" + " " * 79, "...", "a:", "> ", "`"]
)
def test_the_time_is_linear(part):
    text = (part * 200_000)[:200_000]
    begin = time.process_time()
    for rule in ("strict", "lenient"):
        parse("1 > 2" + text, 20, rule)
        parse("1 > 2" + text + "x", 20, rule)
    assert time.process_time() - begin < 20  # quadratic would be hours


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (4, {"rule": "loose"}),
        (4, {"identifiers": "roman"}),
        (0, {}),
        (27, {"identifiers": "letters"}),
    ],
)
def test_impossible_questions_are_errors(size, options):
    with pytest.raises(ValueError):
        parse("", size, **options)


# --- recorded answers ---


def sessions() -> list[Path]:
    """The replay files, or one that is not there."""
    return sorted(ANSWERS.glob("replay/*.jsonl")) or [ANSWERS / "replay" / "absent.jsonl"]


def recorded(session: Path) -> list[dict]:
    if not session.exists():
        pytest.skip("no recorded answers")
    return [json.loads(line) for line in session.read_text().splitlines()]


def doc_ids(run: Path) -> dict[str, list[str]]:
    frame = rankings.read_trec(run, order="rank")
    return {query_id: list(rows.doc_id) for query_id, rows in frame.groupby("query_id")}


@pytest.mark.parametrize("session", sessions(), ids=str)
def test_lenient_replays_recorded_sessions(session):
    rows = recorded(session)
    first = doc_ids(DATA / "trec-dl-2019" / "runs" / "bm25-pyserini.run")
    final = doc_ids(session.with_name(session.name.replace(".jsonl", ".final.trec")))
    assert len(rows) == len(final) == 43
    for row in rows:
        order = first[row["qid"]]
        depth = 20 if ".top20." in session.name else len(order)
        assert [tuple(window) for window in row["windows"]] == positions(depth, 20, 10)
        for (start, end), answer in zip(row["windows"], row["responses"], strict=True):
            permutation, _ = parse(answer, end - start, "lenient")
            order = applied(order, start, permutation)
        assert order == final[row["qid"]]


def test_a_model_that_counts_passages_ranks_nothing():
    # lenient makes rankings of these, each with the number of passages as the best one
    rows = recorded(
        ANSWERS / "replay" / "BM25.dl19.vicuna-13b-v1.5_4096.top100.2023-08-19.7eb72d.jsonl"
    )
    answers = [answer for row in rows for answer in row["responses"]]
    states = Counter(parse(answer, 20).state for answer in answers)
    # 383 counts, one smiley, two continuations of a passage, and one chain after "1."
    assert sum(answer.startswith(("20 passages", "10 passages")) for answer in answers) == 383
    assert states == {"malformed": 386, "repaired": 1}


def test_every_recorded_malformed_answer_has_a_state():
    rows = recorded(ANSWERS / "rankgpt-malformed.jsonl")
    parsed = [parse(row["response"], row["passages"]) for row in rows]
    # counted by hand: 888 plain chains that are not permutations, 35 others
    assert Counter(state for _, state in parsed) == {"repaired": 907, "refused": 11, "malformed": 5}
    for row, (order, state) in zip(rows, parsed, strict=True):
        assert (order is None) == (state != "repaired")
        assert order is None or sorted(order) == list(range(20)), row
