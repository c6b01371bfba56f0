"""Texts as flat token ids: equal to the tokenizer's own pairs, in memory and mapped."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from rdx import ids
from rdx.loading import ModelError
from rdx.students import Student
from rdx.tokens import PairForm, PairRows, Table, Tokens, UnknownText, table
from tests.rdx import small_models, tiny
from tests.rdx.small_models import WORDS, bytelevel, sentencepiece, wordpiece
from tests.rdx.test_students_probe import ODD, beginning

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def templated(made, single, pair, **special):
    """A tokenizer with another template."""
    numbers = [(token, made.convert_tokens_to_ids(token)) for token in special.values()]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=numbers
    )
    return made


def typed(made):
    """A tokenizer that gives types of tokens."""
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def own_processor(made, processor):
    made.backend_tokenizer.post_processor = processor
    return made


END = {"eos_token": "<|end|>"}
ROBERTA = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
# Every way in which small_models' families, and the large ones, put two texts together.
TOKENIZERS = {
    "bert": lambda: typed(wordpiece()),
    "bert's own processor": lambda: own_processor(
        typed(wordpiece()), processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    ),
    "deberta, modernbert": wordpiece,
    "roberta": lambda: bytelevel(roberta=True),
    "roberta's own processor": lambda: own_processor(bytelevel(roberta=True), ROBERTA),
    "xlm-roberta": sentencepiece,
    "t5": lambda: sentencepiece(end=True),
    "xlnet": lambda: typed(sentencepiece(left=True)),
    "decoder": lambda: bytelevel(**END),
    "decoder, ends": lambda: templated(bytelevel(**END), "$A <|end|>", "$A $B <|end|>", **END),
    "decoder, begins": lambda: templated(
        bytelevel(**END), "<|end|> $A", "<|end|> $A <|end|> $B", **END
    ),
    "decoder, byte-level processor": lambda: own_processor(
        bytelevel(**END), processors.ByteLevel(trim_offsets=False)
    ),
}
TEXTS = [
    *(" ".join(WORDS[i : i + n]) for i, n in ((0, 1), (3, 2), (1, 9))),
    *("", " ", "\n\t ", "[SEP] a </s> <|end|> [CLS]", "漢字" * 9, "e\u0301\u0323" * 7),
    *("👩\u200d👩\u200d👧 " * 4, "🙂" * 9, "\u200d", "\ufeffx", "ﬁ…▁Ġ", "\x00", "क्षि", "x" * 120),
]


def made(name, side="right"):
    """A tokenizer as a student loads it, and its form."""
    tokenizer = TOKENIZERS[name]()
    tokenizer.split_special_tokens = True
    form = PairForm.of(tokenizer, 1)
    return tokenizer, PairForm(**(vars(form) | {"side": side}))


def tokens_of(tokenizer, form, pairs, lengths):
    numbers = [str(i) for i in range(len(pairs))]
    tables = (
        Table.of(tokenizer, dict(zip(numbers, own, strict=True)), limit)
        for own, limit in zip(zip(*pairs, strict=True), lengths, strict=True)
    )
    tokens = Tokens(*tables, form)
    return tokens, tokens.rows(numbers, numbers)


def expected(tokenizer, form, pairs, lengths):
    """The tokenizer's own encoding of texts that were cut one by one, padded in lists."""
    cut = [
        [beginning(tokenizer, text, limit) for text, limit in zip(pair, lengths, strict=True)]
        for pair in pairs
    ]
    encoded = tokenizer([query for query, _ in cut], [passage for _, passage in cut])
    rows = [
        {name: encoded[name][i] for name in encoded}
        | {"parts": [0 if p is None else p + 1 for p in encoded.sequence_ids(i)]}
        for i in range(len(cut))
    ]
    width = max(len(row["input_ids"]) for row in rows)
    arrays = {}
    for name in rows[0]:
        fill = form.padding if name == "input_ids" else 0
        gaps = [[fill] * (width - len(row[name])) for row in rows]
        arrays[name] = [
            gap + row[name] if form.side == "left" else row[name] + gap
            for gap, row in zip(gaps, rows, strict=True)
        ]
    return arrays


def same(tokenizer, form, pairs, lengths):
    tokens, rows = tokens_of(tokenizer, form, pairs, lengths)
    inputs, parts = tokens.assemble(rows)
    arrays = {name: value.tolist() for name, value in (inputs | {"parts": parts}).items()}
    assert arrays == expected(tokenizer, form, pairs, lengths)
    assert {value.dtype for value in (*inputs.values(), parts)} == {torch.int64}
    assert tokens.lengths(rows).tolist() == inputs["attention_mask"].sum(1).tolist()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_pairs_are_those_of_the_tokenizer(name, side):
    tokenizer, form = made(name, side)
    assert (form.types is None) == ("token_type_ids" not in tokenizer.model_input_names)
    pairs = [*itertools.product(TEXTS[:5], TEXTS), *zip(TEXTS, TEXTS[::-1], strict=True)]
    same(tokenizer, form, pairs, (6, 11))
    same(tokenizer, form, pairs[3:5], (500, 500))
    same(tokenizer, form, [("", "")], (1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(ODD, ODD), min_size=1, max_size=4), limit=st.integers(1, 30))
def test_pairs_of_any_texts_are_those_of_the_tokenizer(name, pairs, limit):
    texts = [(" ".join(query), "".join(passage)) for query, passage in pairs]
    same(*made(name), texts, (limit, 31 - limit))


@pytest.mark.skipif(not DATA.exists(), reason="needs the TREC DL 2019 files")
def test_real_passages_are_cut_and_paired_as_the_tokenizer_does():
    corpus = DATA / "trec-dl-2019" / "corpus.jsonl"
    with corpus.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in itertools.islice(lines, 0, 4000, 200)]
    for name in ("bert", "roberta", "xlm-roberta", "decoder"):
        same(*made(name), list(zip(texts[::-1], texts, strict=True)), (9, 60))


def test_a_tokenizer_that_pairs_otherwise_is_refused():
    for pair in ("[CLS] $B [SEP] $A", "[CLS] $A [SEP] $B $A"):
        made = templated(wordpiece(), "[CLS] $A", pair, a="[CLS]", b="[SEP]")
        with pytest.raises(ModelError, match="post_processor"):
            PairForm.of(made, 0)


def test_the_types_of_a_real_bert(tmp_path):
    tokenizer = tiny.tokenizer(tmp_path, WORDS)
    form = PairForm.of(tokenizer, 0)
    assert form.types == (0, 1) and form.special == 3
    [[types]] = [
        tokens_of(tokenizer, form, [("river", "stone reed")], (9, 9))[0]
        .assemble(PairRows(np.array([0]), np.array([0])))[0]["token_type_ids"]
        .tolist()
    ]
    assert types == [0, 0, 0, 1, 1, 1]


# --- tables ---


def write(folder, tokenizer, texts, limit=4):
    Table.write(folder, tokenizer, texts.items(), limit, len(texts), "texts")
    return Table.open(folder)


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_what_is_mapped_is_what_was_made_in_memory(tmp_path, monkeypatch, block):
    monkeypatch.setattr(table, "BLOCK", block)
    tokenizer, texts = wordpiece(), {f"d{i}": text for i, text in enumerate(TEXTS)}
    mapped, own = write(tmp_path / "new", tokenizer, texts), Table.of(tokenizer, texts, 4)
    assert isinstance(mapped.ids, np.memmap) and mapped.ids.dtype == np.uint16
    for name in ("ids", "offsets", "truncated"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(own, name))
        assert getattr(mapped, name).dtype == getattr(own, name).dtype
    keys = ["d3", "d0", "d16", "d3"]
    assert mapped.rows(keys).tolist() == own.rows(keys).tolist() == [3, 0, 16, 3]
    counts = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    assert mapped.truncated.tolist() == [count > 4 for count in counts]
    assert mapped.cut(["d2", "d3"]).tolist() == [True, False]
    assert len(mapped) == len(TEXTS)


def test_a_folder_without_texts(tmp_path):
    for texts in ({}, {"empty": ""}):
        mapped = write(tmp_path / str(len(texts)), wordpiece(), texts)
        assert len(mapped) == len(texts) and mapped.ids.size == 0
        assert mapped.rows(list(texts)).tolist() == list(range(len(texts)))


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    words = [f"w{i}" for i in range(2**16)]
    tokenizer = tiny.tokenizer(tmp_path, words)
    own = write(tmp_path / "large", tokenizer, {"a": words[-1]})
    assert own.ids.dtype == np.uint32 and own.ids.tolist() == [2**16 + len(tiny.SPECIAL) - 1]


def test_unknown_texts_are_named():
    tokens, _ = tokens_of(*made("bert"), [("river", "stone")], (9, 9))
    with pytest.raises(UnknownText, match="'d9'.*2"):
        tokens.rows(["0"] * 3, ["0", "d9", "d8"])
    with pytest.raises(UnknownText, match="'q9'"):
        tokens.rows(["q9"], ["0"])
    assert len(tokens.rows([], [])) == 0


def test_two_ids_of_one_hash_are_refused(monkeypatch):
    monkeypatch.setattr(table, "hash_of", lambda text: 7)
    with pytest.raises(ValueError, match="hash"):
        Table.of(wordpiece(), {"a": "x", "b": "y"}, 3)


@given(st.lists(st.text(max_size=5), unique=True), st.lists(st.text(max_size=5)))
@example([], ["a"])
def test_places_are_those_of_a_list(keys, asked):
    places = ids.Places.of([ids.hash_of(key) for key in keys])
    known = {key: i for i, key in enumerate(keys)}
    wanted = [*asked, *keys]
    assert places.find(wanted).tolist() == [known.get(key, -1) for key in wanted]
    assert [next(places.possible(key), -1) for key in wanted] == places.find(wanted).tolist()


# --- students ---


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "xlnet", "gpt2"])
def test_the_tokens_of_a_student_are_what_it_takes(kind, tmp_path):
    folder = small_models.save(kind, tmp_path)
    pairs = Student(folder, head="cls", query_length=5, passage_length=9).create(0).pairs
    texts = list(zip(TEXTS, TEXTS[::-1], strict=True))
    inputs, parts = pairs.batch(texts)
    found = {name: value.tolist() for name, value in (inputs | {"parts": parts}).items()}
    assert found == expected(pairs.tokenizer, pairs.form, texts, (5, 9))
    assert pairs.form.side == pairs.side
    alone = Student(folder, query_length=5, passage_length=9).tokenizer()
    for text in TEXTS:  # the stage has the tokenizer alone
        assert alone(text)["input_ids"] == pairs.tokenizer(text)["input_ids"]
