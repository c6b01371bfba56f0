"""Answers of LLMs: hand-worked ones of every state, recorded ones, and any text at all."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdx import rankings
from rdx.teachers.parsing import complete, parse, read
from rdx.teachers.thoughts import left_open, thinking_tokens, without_thoughts
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
        f"From the most to the least relevant one: {CHAIN}",
        f'Ranking for "least worst cats": {CHAIN}',
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
        ("[ ] > [4] > [Empty] > [3] > [No relevant passage found]", (3, 2, 0, 1)),
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
        # brackets that are missing, and notations that are mixed: read where they stand
        ("2] > [4] > [1] > [3]", ORDER),
        ("2 > [4] > [1] > [3]", ORDER),
        ("[2] > 4 > [1] > [3]", ORDER),
        ("[2 > [4] > 1] > [3]", ORDER),
        ("[2] > [4] > [1] > [3", ORDER),
        ("Ranking: 2] > [4] > [1] > [3].", ORDER),
        ("[2 > 4 > 1 > 3]", ORDER),
        ("[2] > [Passage 4] > [1] > [3]", ORDER),
        ("2] > [4]", (1, 3, 0, 2)),
        # a title and a sentence that lead to the chain name no place in it
        (f"Here are the 4 passages ranked: {CHAIN}", ORDER),
        (f"Since [1] is about dogs, the ranking is {CHAIN}", ORDER),
        (f"[2] is best: {CHAIN}", ORDER),
        # the order that was asked for
        (f"{CHAIN}\nPassage [3] is the least relevant, [2] the most.", ORDER),
        (f"{CHAIN}\nThe first is best; [3] is less relevant to it, the worst; [2] first.", ORDER),
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
        "2, 4, 1, 3",
        "2 4 1 3",
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
        "[4] > [2] > the rest",
        "[4] > [2] > [1], etc.",
        # a link that names a passage in a way that cannot be read
        "[2, 4] > [1] > [3]",
        "[2-4] > [1] > [3]",
        "[2/4] > [1] > [3]",
        "[2 4] > [1] > [3]",
        "[2] = [4] > [1] > [3]",
        "[2]=[4] > [1] > [3]",
        "[2] & [4] > [1] > [3]",
        "[2][4] > [1] > [3]",
        "[2] [4] > [1] > [3]",
        "[ ] > [4] > [2O] > [Empty] > [3]",
        "[l] > [4] > [3]",
        "[4] > [3] > [1]2",
        "2[1] > [4] > [3]",
        "[2\n4] > [1] > [3]",
        "[2] >= [4] >= [1] >= [3]",
        # a passage that the answer names, and the chain lacks, or not where it is named
        "[2], then [4] > [1] > [3]",
        "[2], then [4] > [1] > [3] > [2]",
        "2, [4] > [1] > [3] > [2]",
        "2.\n[4] > [1] > [3] > [2]",
        "[2] and [4] > [1] > [3]",
        "[4] > [1] > [3], and [2]",
        "The best one is passage 2.\n[4] > [1] > [3]",
        "The second passage is best.\n[4] > [1] > [3]",
        "[4] > [1] > [3]\nPassage two is best of all.",
        "1. [4] > [3]",
        "[2] > [1]\n\n3. [3]\n4. [4]",
        # orders that contradict each other, in whatever notation
        f"{CHAIN}\nNo: [4], [2], [1], [3]",
        # the opposite of the order that was asked for
        f"From least to most relevant: {CHAIN}",
        f"Least relevant first: {CHAIN}",
        f"In ascending order of relevance: {CHAIN}",
        f"Worst to best:\n{CHAIN}",
        f"{CHAIN} (from least to most relevant)",
        f"{CHAIN}, in reverse order",
        "From least to most relevant: [2] [4] [1] [3]",
        '{"order_from_least_relevant": [2, 4, 1, 3]}',
        # an example is no answer
        f"Write it in the form {CHAIN}",
        # lists of some, of one twice, of places instead of passages, or with more around them
        "[2] [4] [1]",
        "[2] [4] [1] [3] [2]",
        "[2], [4] [1], [3]",
        "[2, 4, 1]",
        "[2, 4, 1, 1]",
        '{"ranks": [2, 4, 1, 3]}',
        '{"scores": [2, 4, 1, 3]}',
        '{"ranking": [2, 4, 1, 3], "others": [1]}',
        "[2] [4] [1] [3] are all about cats",
        # an incomplete chain in front of a thought that was cut off
        "[2] > [4] > [1] <think>and",
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
        "[2] [4] [1] [3]",
        "[2], [4], [1], [3].",
        "[2]\n[4]\n[1]\n[3]\n",
        "- [2]\n- [4]\n- [1]\n- [3]",
        "Ranking: [2]; [4]; [1]; [3]",
        "[2] -> [4] -> [1] -> [3]",
        "[2] → [4] → [1] → [3]",
        "[No. 2] > [No. 4] > [No. 1] > [No. 3]",
        "[Passage 2] > [Passage 4] > [Passage 1] > [Passage 3]",
        "[2] ＞ [4] ＞ [1] ＞ [3]",
        "［２］＞［４］＞［１］＞［３］",
        "[2] &gt; [4] &gt; [1] &gt; [3]",
        "【2】 > 【4】 > 【1】 > 【3】",
        "\\[2\\] > \\[4\\] > \\[1\\] > \\[3\\]",
        "[[2]] > [[4]] > [[1]] > [[3]]",
        "[2, 4, 1, 3]",
        '```json\n["2", "4", "1", "3"]\n```',
        "['[2]', '[4]', '[1]', '[3]']",
        '{"ranking": [2, 4, 1, 3]}',
        '{"reason": "[1] > [2] is wrong", "ranked_ids": ["2", "4", "1", "3"]}',
        f"<answer>{CHAIN}</answer>",
        f"{CHAIN}</s>",
    ],
)
def test_full_permutations_in_other_notations(text):
    assert parse(text, 4) == (ORDER, "ok")
    assert parse(text, 4, truncated=True).order in (ORDER, None)


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
    "text",
    [
        "2 > 4 > 1 > 3",  # the last may be 30
        "[2] > [4] > [1] > [3",
        f"Hm, is it {CHAIN}? Or",  # the thoughts of a model, perhaps
        f"I look at them all.\n{CHAIN}",
    ],
)
def test_a_truncated_answer_begins_with_a_chain_that_has_an_end(text):
    assert parse(text, 4, truncated=True) == (None, "malformed")
    assert parse(text, 4).order == ORDER


@pytest.mark.parametrize("finish", ["stop", "STOP", "eos_token", "stop_sequence", "end_turn"])
def test_a_model_that_stopped_by_itself_left_the_rest_out(finish):
    assert read("[2] > [4]", finish, 4) == ((1, 3, 0, 2), "repaired")
    assert read("", finish, 4) == (None, "malformed")


@pytest.mark.parametrize(
    ("finish", "state"),
    [
        ("length", "malformed"),
        ("max_tokens", "malformed"),
        ("unknown", "malformed"),
        ("", "malformed"),
        ("closed", "malformed"),
        ("a word of tomorrow", "malformed"),
        ("content_filter", "refused"),
        ("refusal", "refused"),
    ],
)
def test_any_other_end_cuts_the_answer_off(finish, state):
    for text in ("[2] > [4]", "[2] > [4] > [1]", ""):
        assert read(text, finish, 4) == (None, state)
    assert read(CHAIN, finish, 4) == (ORDER, "ok")


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
        ("B] > [D] > A > [C]", (ORDER, "repaired")),
        ("[B], [D], [A], [C]", (ORDER, "ok")),
        ('["B", "D", "A", "C"]', (ORDER, "ok")),
        ("[B, D] > [A] > [C]", (None, "malformed")),
        ("[B] = [D] > [A] > [C]", (None, "malformed")),
        ("[D] > [A] > [C]\nB is off.", (None, "malformed")),
    ],
)
def test_letters(text, expected):
    assert parse(text, 4, identifiers="letters") == expected


# --- thoughts ---

THOUGHT = "First [1] > [2] > [3] > [4]? No."
MARKED = [
    "<think>{}</think>",
    "<think>\n{}\n</think>\n\n",
    "<think><think>{}</think>",
    "<thinking>{}</thinking>",
    "<thought>{}</thought>",
    "<reasoning>{}</reasoning>",
    "<seed:think>{}</seed:think>",
    '<details type="reasoning">{}</details>',
    "<notes>{}</notes>",
    "&lt;think&gt;{}&lt;/think&gt;",
    "[THINK]{}[/THINK]",
    "◁think▷{}◁/think▷",
    "<|begin_of_thought|>{}<|end_of_thought|>",
    "<|START_THINKING|>{}<|END_THINKING|>",
    "<|inner_prefix|>{}<|inner_suffix|>",
    "<unused94>thought\n{}<unused95>",
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    "analysisWe rank. {}assistantfinal",
    # the prompt opened it
    "{}</think>",
    "{} </notes> {} </think>",
    "{}[/THINK]",
    "{}◁/think▷",
]


@given(
    st.integers(1, 26).flatmap(lambda n: st.permutations(range(n))),
    st.sampled_from(["", "twice", "out of range", "missing"]),
    st.sampled_from(["numbers", "letters"]),
    st.sampled_from(["strict", "lenient"]),
    st.booleans(),
)
def test_a_chain_alone_is_read_as_one_among_white_space(order, wrong, identifiers, rule, truncated):
    """Which takes the long way."""
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if identifiers == "letters" else range(1, 99)
    links = [f"[{names[i]}]" for i in order]
    links += {"twice": links[:1], "out of range": ["[99]"]}.get(wrong, [])
    text = " > ".join(links[1:] if wrong == "missing" else links)
    options = {"identifiers": identifiers, "truncated": truncated}
    parsed = parse(text, len(order), rule, **options)
    assert parsed == parse(f" {text}", len(order), rule, **options)
    if not wrong:
        assert parsed == (tuple(order), "ok")


@pytest.mark.parametrize("marked", MARKED)
def test_thoughts_are_no_answer(marked):
    text = marked.format(THOUGHT, THOUGHT)
    for rule in ("strict", "lenient"):
        if rule == "strict" or "&lt;" not in text:  # lenient reads the text as it came
            assert parse(text + CHAIN, 4, rule) == (ORDER, "ok")
    assert parse(text, 4) == (None, "malformed")
    assert not complete(text, 4) and complete(text + CHAIN, 4)


@pytest.mark.parametrize("marked", [m for m in MARKED if not m.startswith("{}")])
def test_thoughts_that_are_cut_off_are_no_answer(marked):
    text = marked.partition("{}")[0] + THOUGHT
    for truncated in (False, True):
        assert parse(text, 4, truncated=truncated) == (None, "malformed")
    assert not complete(text, 4)
    assert parse(f"{CHAIN}\n{text}", 4).order in (ORDER, None)


def test_what_a_thought_is_not():
    assert without_thoughts("[NO] > [2]") == "[NO] > [2]"
    assert without_thoughts("<b>[2]</b> > <i>[1]</i>").split() == ["[2]", ">", "[1]"]
    assert without_thoughts("2 < 3 > 1") == "2 < 3 > 1"


def test_thinking_tokens_are_shares_of_the_characters():
    assert thinking_tokens("<think>abc</think>" + "x" * 6, "", 24) == 18
    assert thinking_tokens("x" * 10, "y" * 30, 100) == 75
    assert thinking_tokens("[2] > [1]</s>", "", 7) == 0 == thinking_tokens("", "", 7)
    assert thinking_tokens("<think>abc", "", 9) == 9


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<｜Assistant｜><think>", "<think>"),
        ("[/INST][THINK]", "[THINK]"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("<start_of_turn>model\n", ""),
        ("<bot>", ""),
        ("", ""),
    ],
)
def test_prompts_that_begin_a_thought(prompt, mark):
    assert left_open(prompt) == mark


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


NOTATIONS = {
    "chain": lambda names: " > ".join(f"[{n}]" for n in names),
    "narrow": lambda names: ">".join(f"[{n}]" for n in names),
    "bare": lambda names: " > ".join(names),
    "noun": lambda names: " > ".join(f"[No. {n}]" for n in names),
    "escaped": lambda names: " &gt; ".join(f"[{n}]" for n in names),
    "full width": lambda names: "＞".join(f"【{n}】" for n in names),
    "row": lambda names: " ".join(f"[{n}]" for n in names),
    "commas": lambda names: ", ".join(f"[{n}]" for n in names),
    "json": lambda names: json.dumps([int(n) for n in names]),
    "json texts": lambda names: json.dumps(names),
}


def written(order, notation: str) -> str:
    return NOTATIONS[notation]([str(i + 1) for i in order])


@pytest.mark.parametrize("notation", NOTATIONS)
@given(order=st.permutations(range(20)), label=st.sampled_from(["", "R: ", "The ranking:\n"]))
def test_every_permutation_is_read_back(notation, order, label):
    text = label + written(order, notation)
    assert parse(text, 20) == (tuple(order), "ok") == parse(text, 20, "lenient")


EDIT = st.tuples(st.floats(0, 1), st.sampled_from(["", *"[]>123 ,\n.=-O&x0<"]))


@settings(max_examples=200)
@given(
    order=st.integers(2, 20).flatmap(lambda n: st.permutations(range(n))),
    notation=st.sampled_from(list(NOTATIONS)),
    edits=st.lists(EDIT, min_size=1, max_size=3),
)
@example(order=[1, 0, 2], notation="chain", edits=[(0, "")])
@example(order=[1, 0, 2], notation="bare", edits=[(0.2, "\n")])
def test_a_damaged_answer_is_read_in_its_order_or_not_at_all(order, notation, edits):
    """Characters that are lost ("") or come in between: never another order than the text's."""
    text = written(order, notation)
    for where, character in edits:
        at = int(where * len(text))
        text = text[:at] + character + text[at + (character == "") :]
    parsed, _ = parse(text, len(order))
    if parsed is not None:
        names = re.findall(r"(?<![A-Za-z\d])\d+(?![A-Za-z\d])", text)
        kept = list(dict.fromkeys(int(n) - 1 for n in names if 1 <= int(n) <= len(order)))
        assert list(parsed) == kept + [i for i in range(len(order)) if i not in kept]


@given(numbers=st.lists(st.integers(0, 25), min_size=2, max_size=40))
@example(numbers=[*range(1, 11)])
@example(numbers=[*range(1, 10)])
@example(numbers=[*range(4, 21)])
def test_repair_is_that_of_a_naive_loop(numbers):
    kept = []
    for number in numbers:
        if 1 <= number <= 20 and number - 1 not in kept:
            kept.append(number - 1)
    full = kept + [i for i in range(20) if i not in kept]
    text = "so: " + " > ".join(f"[{number}]" for number in numbers) + ", as [3] shows"
    usable = len(kept) >= 10 and 2 in kept  # the text names 3
    assert parse(text, 20) == ((tuple(full), "repaired") if usable else (None, "malformed"))


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


def naive(answer: str, size: int) -> list[int]:
    """Positions in the order in which a text names them."""
    numbers = (int(number) for number in re.findall(r"[0-9]+", answer))
    return list(dict.fromkeys(n - 1 for n in numbers if 1 <= n <= size))


DAMAGES = {
    "as it came": lambda text: text,
    "first bracket": lambda text: text.replace("[", "", 1),
    "first brackets": lambda text: text.replace("[", "", 1).replace("]", "", 1),
    "second brackets": lambda text: re.sub(r"> \[(\d+)\]", r"> \1", text, count=1),
    "first sign": lambda text: text.replace(" >", "", 1),
    "last bracket": lambda text: text.rstrip().removesuffix("]"),
    "tie": lambda text: text.replace(" >", " =", 1),
    "group": lambda text: text.replace("] > [", ", ", 1),
    "commas": lambda text: text.replace(" >", ","),
    "full width": lambda text: text.replace(">", "＞"),
    "thoughts": lambda text: f"Is it [20] > [2]?</think>{text}",
}
READ = ("as it came", "commas", "full width", "thoughts", "last bracket")
READ += ("first bracket", "first brackets", "second brackets")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("session", sessions(), ids=lambda session: session.name[:60])
def test_no_usable_window_contradicts_the_order_of_its_answer(session, damage):
    """Whatever names all passages is read as the lenient rule reads it, or not at all."""
    usable = full = 0
    for row in recorded(session):
        for (start, end), answer in zip(row["windows"], row["responses"], strict=True):
            size, answer = end - start, re.sub(r"\A1\. (?=\[)", "", answer)
            order = naive(answer, size)
            parsed, _ = parse(DAMAGES[damage](answer), size)
            if len(order) == size and ">" in answer:
                full += 1
                usable += parsed is not None
                assert parsed is None or list(parsed) == order
                assert tuple(order) == parse(answer, size, "lenient").order
    if damage in READ and "aug_vicuna" in session.name:
        assert usable == full
    if damage in ("first sign", "tie", "group"):
        assert usable == 0


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
    # counted by hand: 888 plain chains that are not permutations, 35 others; "[1O]" and "[1]7" name
    # passages that their chains lack
    assert Counter(state for _, state in parsed) == {"repaired": 905, "refused": 11, "malformed": 7}
    for row, (order, state) in zip(rows, parsed, strict=True):
        assert (order is None) == (state != "repaired")
        assert order is None or sorted(order) == list(range(20)), row
