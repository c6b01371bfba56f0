"""Prompts: what an LLM is shown, which files are templates, and what identifies one."""

import itertools
import json
import re
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rdx import folders
from rdx.teachers.prompts import collapsed, load, shorten

FILES = folders.options(folders.PROMPTS)
NAMES = list(FILES)
TEXT = st.text(max_size=30)

SINGLE = """
version: "7"
method: singleturn_listwise
system_message: You {rule}.
prefix: "{num} for {query}:\\n"
body: "[{rank}] {candidate}\\n"
suffix: "{{{query}}} of {psg_ids}"
"""
TWO = "2 for why?:\n[1] a b\n[2] {c}\n{why?} of [PASSAGE1, PASSAGE2]"
TURNS = """
method: multiturn_listwise
prefix_user: "{num} for {query}"
prefix_assistant: Go on with {num}.
body_user: "[{rank}] {candidate}"
body_assistant: Seen {rank}.
suffix_user: "Order {num} for {query}."
"""


@pytest.fixture
def write(tmp_path):
    """Write a template and return its path."""

    def writing(text, name="own.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return writing


def without(text, key):
    return "\n".join(line for line in text.splitlines() if not line.startswith(f"{key}:"))


# --- messages ---


def test_a_single_turn_by_hand(write):
    prompt = load(write(SINGLE))
    assert prompt.messages("why?", ["a  b\n", "{c}"]) == [
        {"role": "system", "content": "You {rule}."},
        {"role": "user", "content": TWO},
    ]


def test_a_conversation_by_hand(write):
    assert load(write(TURNS)).messages("why?", ["a", "b"]) == [
        {"role": "user", "content": "2 for why?"},
        {"role": "assistant", "content": "Go on with 2."},
        {"role": "user", "content": "[1] a"},
        {"role": "assistant", "content": "Seen 1."},
        {"role": "user", "content": "[2] b"},
        {"role": "assistant", "content": "Seen 2."},
        {"role": "user", "content": "Order 2 for why?."},
    ]


def test_a_conversation_whose_passages_are_one_message(write):
    prompt = load(write(without(TURNS, "body_assistant").replace("{candidate}", "{candidate}; ")))
    assert [m["content"] for m in prompt.messages("why?", ["a", "b"])] == [
        "2 for why?", "Go on with 2.", "[1] a; [2] b; Order 2 for why?."
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 20])
def test_ours_show_query_and_passages_once_and_in_order(name, size):
    passages = [f"text number {i} of {size}" for i in range(size)]
    prompt = load(name)
    chat = prompt.messages("the query", passages)
    whole = "\n".join(message["content"] for message in chat)
    names = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if prompt.identifiers == "letters" else range(1, 99)
    shown = [f"[{label}] {text}" for label, text in zip(names, passages, strict=False)]
    assert [line for line in whole.splitlines() if "text number" in line] == shown
    assert f"{size} passages" in whole and whole.count("the query") == 2
    assert "{" not in whole and "\n\n\n" not in whole
    roles = [message["role"] for message in chat]
    assert roles[0] == "system" and roles[-1] == "user"
    assert all(role != following for role, following in itertools.pairwise(roles))
    assert len(chat) == (2 if prompt.method == "singleturn_listwise" else 2 * size + 4)
    assert prompt.version == "1"


@given(TEXT, st.lists(TEXT, min_size=1, max_size=5))
def test_any_text_is_shown_as_it_is(query, passages):
    """Braces, template places and line ends in texts are text."""
    [_, message] = load("single_turn").messages(query, passages)
    seen = re.findall(r"^\[(\d+)\] (.*)\n", message["content"], re.MULTILINE)
    plain = [re.sub(r"\[(\d+)\]", r"(\1)", " ".join(text.split())) for text in [query, *passages]]
    # what splits lines for Python's split() is white space: none of it is left inside a text
    assert seen == [(str(i), text) for i, text in enumerate(plain[1:], start=1)]
    assert message["content"].count(plain[0]) >= 2


def test_identifiers_in_texts_are_defused():
    text = "see [3], [12] and [A][b] or [] [4a]"
    [_, numbers] = load("single_turn").messages("[1]?", [text])
    assert "[1] see (3), (12) and [A][b] or [] [4a]\n" in numbers["content"]
    assert "query: (1)?" in numbers["content"]
    [_, letters] = load("first_token").messages("[A]?", [text])
    assert "[A] see (3), (12) and (A)[b] or [] [4a]\n" in letters["content"]


def test_there_are_26_letters():
    prompt = load("first_token")
    assert "\n[Z] x\n" in prompt.messages("q", ["x"] * 26)[1]["content"]
    with pytest.raises(ValueError, match="teacher.window"):
        prompt.messages("q", ["x"] * 27)
    with pytest.raises(ValueError, match="passage"):
        prompt.messages("q", [])


@given(st.text(), st.integers(1, 40))
def test_shorten_keeps_the_first_words(text, words):
    assert shorten(text, words).split() == text.split()[:words]


def test_every_kind_of_white_space_becomes_one_space():
    for space in filter(str.isspace, map(chr, range(sys.maxunicode + 1))):
        for text in (
            f"a{space}b",
            f"{space}a b",
            f"a b{space}",
            f"a {space} b",
            f"a{space}{space}b",
        ):
            assert collapsed(text) == shorten(text, 2) == shorten(f"{text} c", 2) == "a b"
    assert collapsed("") == collapsed(" ") == shorten("  ", 1) == ""
    assert collapsed("a\u200bb a\u00adb") == "a\u200bb a\u00adb"  # not printable, and no space


@given(TEXT, st.integers(1, 9))
def test_a_plain_text_may_be_cut_at_once(text, words):
    prompt = load("first_token")
    assert prompt.plain(text, words) == prompt.plain(shorten(text, words))


def test_shorten_needs_a_word():
    assert shorten(" a  b\nc d", 2) == "a b"
    with pytest.raises(ValueError, match="words=0"):
        shorten("a", 0)


# --- answers ---

OTHER_FORM = r"""
output_validation_regex: r"^\[PASSAGE\d+(, PASSAGE\d+)*\]$"
output_extraction_regex: r"PASSAGE(\d+)"
"""

ANSWERS = {
    ("numbers", " [2] > [1]\n"): "[2] > [1]",
    ("numbers", "2 > 1"): "2 > 1",
    ("numbers", "The order is [2] > [1]"): "The order is [2] > [1]",
    ("letters", "B > A"): "[B] > [A]",
    ("letters", "[B] > [A]"): "[B] > [A]",
    ("other", "[PASSAGE2, PASSAGE1]"): "[2] > [1]",
    ("other", "PASSAGE2"): "PASSAGE2",
    ("none", "x"): "x",
}


@pytest.mark.parametrize(("kind", "text"), ANSWERS)
def test_an_answer_of_the_templates_form_is_written_in_ours(kind, text, write):
    files = {"other": SINGLE + OTHER_FORM, "none": SINGLE}
    ours = {"numbers": "single_turn", "letters": "first_token"}
    prompt = load(ours[kind] if kind in ours else write(files[kind]))
    assert prompt.canonical(text) == ANSWERS[kind, text]


def test_the_identifiers_are_those_that_the_template_reads(write):
    regexes = {r"r'\[([A-Z])\]'": "letters", r"r'\[(\d+)\]'": "numbers", "'.'": "numbers"}
    for regex, kind in regexes.items():
        prompt = load(write(f"{SINGLE}output_extraction_regex: {regex}"))
        assert prompt.identifiers == kind
        first = "A" if kind == "letters" else "1"
        assert f"\n[{first}] x\n" in prompt.messages("q", ["x"])[1]["content"]


# --- rank_llm's templates ---


@pytest.fixture
def rank_llm(tmp_path, monkeypatch):
    """An installed rank-llm 9.9.9 that must not be imported."""
    site = tmp_path / "site"
    templates = site / "rank_llm" / "rerank" / "prompt_templates"
    templates.mkdir(parents=True)
    (site / "rank_llm" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "rank_llm-9.9.9.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: rank-llm\nVersion: 9.9.9\n"
    (site / "rank_llm-9.9.9.dist-info" / "METADATA").write_text(metadata)
    (templates / "single_template.yaml").write_text(without(SINGLE, "version"))
    (templates / "pointwise_template.yaml").write_text("method: pointwise\nbody: '{candidate}'")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "rank_llm", raising=False)
    return templates


def test_templates_of_rank_llm_are_read_without_importing_it(rank_llm, write):
    prompt = load("rank_llm:single_template")
    assert "rank_llm" not in sys.modules
    assert prompt.source == "rank-llm 9.9.9"
    own = load(write(without(SINGLE, "version")))
    assert prompt.messages("q", ["a"]) == own.messages("q", ["a"])
    # the same wording is the same prompt, whoever installed which version of rank-llm
    assert prompt.identity() == own.identity()


def test_a_template_that_rank_llm_does_not_have(rank_llm):
    with pytest.raises(ValueError, match="rank_llm:zephyr: not in .*single_template"):
        load("rank_llm:zephyr")
    with pytest.raises(ValueError, match="pointwise_template.yaml: method: 'pointwise'"):
        load("rank_llm:pointwise_template")


def test_without_rank_llm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("sys.path", [])  # also where a real one may be installed
    monkeypatch.delitem(sys.modules, "rank_llm", raising=False)
    with pytest.raises(ValueError, match="rank-llm is not installed.*pip install --no-deps"):
        load("rank_llm:rank_zephyr_template")


# --- what is no template ---

BROKEN = [
    ("method", SINGLE.replace("singleturn", "threeturn")),
    ("boddy", SINGLE.replace("body:", "boddy:")),
    ("body", without(SINGLE, "body")),
    ("body", SINGLE.replace("{rank}", "1")),
    ("body", SINGLE.replace("{candidate}", "{candidate} {score}")),
    ("body", SINGLE.replace("{rank}", "{rank:3}")),
    ("suffix", SINGLE.replace("{{{query}}}", "{query")),
    ("prefix", SINGLE.replace("{query}", "x")),
    ("system_message", SINGLE.replace("{rule}", "{query}")),
    ("identifiers", SINGLE + "identifiers: roman"),
    ("output_extraction_regex", SINGLE + "output_extraction_regex: '('"),
    ("prefix", SINGLE.replace('"{num} for {query}:\\n"', "[x]")),
    ("prefix_user", TURNS.replace("{num} for {query}", "{rank} {query}", 1)),
    ("prefix_assistant", without(TURNS, "prefix_assistant")),
    ("body_assistant", without(without(TURNS, "prefix_assistant"), "body_assistant")),
    ("suffix_user", without(TURNS, "suffix_user")),
    ("body_user", without(TURNS, "body_user")),
    ("prefix", TURNS.replace("prefix_user", "prefix")),
]


@pytest.mark.parametrize(("key", "text"), BROKEN)
def test_a_broken_template_is_refused_by_file_and_key(key, text, write):
    path = write(text)
    with pytest.raises(ValueError, match=f"^{re.escape(path)}: {key}: "):
        load(path)


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b", "a: [", "\udcff"])
def test_a_file_without_keys_is_no_template(text, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load(str(path))


def test_a_name_that_is_not_there():
    with pytest.raises(ValueError, match="prompt=single: .*first_token, multi_turn, sing"):
        load("single")
    with pytest.raises(FileNotFoundError, match="prompt=no/such.yaml: no such file"):
        load("no/such.yaml")


# --- identity ---


def test_the_identity_is_version_and_content_and_not_the_place(write):
    here, there = load(write(SINGLE)).identity(), load(write(SINGLE, "other.yaml")).identity()
    assert here == there and here["version"] == "7"
    assert load(write(SINGLE.replace('"7"', "8"))).identity() == {**here, "version": "8"}
    assert load(write("# a comment\n" + SINGLE)).identity() == here


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_template_is_in_its_identity(name, write):
    fields = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    assert fields["version"]
    base = load(name).identity()
    assert load(write(yaml.safe_dump(fields))).identity() == base
    json.dumps(base)
    for key, value in fields.items():
        if key == "method":
            continue
        other = {"numbers": "letters", "letters": "numbers"}.get(value, value + "x")
        assert load(write(yaml.safe_dump({**fields, key: other}))).identity() != base, key
